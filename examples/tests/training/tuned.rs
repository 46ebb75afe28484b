//! What `albef` is fine-tuned to: two workers train what one trains, batch by batch of the real
//! loaders.

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use burn_contrastive_examples::data::{
    CaptionTokenizer, Examples, Loader, QuestionExamples, Questions, Split, StatedPairs, Statements,
};
use burn_contrastive_examples::systems::albef::nlvr::{NlvrConfig, TextAssignmentConfig};
use burn_contrastive_examples::systems::albef::vqa::VqaConfig;
use burn_contrastive_examples::training::config::TrainingConfig;
use burn_contrastive_examples::training::system::{Item, SystemConfig};
use image::{Rgb, RgbImage};
use serde_json::json;

use crate::run::exclusively;
use crate::workers::{Batches, STEPS, made_up, two_train_as_one};

const ITEMS: usize = 24;

fn config<C: SystemConfig>(pairs: &[&str]) -> TrainingConfig<C> {
    let small = [
        "seed=3",
        "model.image.image_size=16",
        "model.image.patch_size=8",
        "model.image.width=16",
        "model.image.layers=1",
        "model.bert.vocabulary=120",
        "model.bert.context=16",
        "model.bert.width=16",
        "model.bert.layers=2",
        "model.bert.fusion_layers=1",
        "model.bert.intermediate=24",
        "model.embedding=8",
        "tokens=12",
        "data.batch_size=8",
        "sharding.pairs=4",
        // Where a gradient is nothing but rounding, nor is its step.
        "optimizer.epsilon=1e-3",
        "optimizer.learning_rate=1e-2",
    ];
    let pairs: Vec<_> = small.iter().chain(pairs).map(ToString::to_string).collect();
    TrainingConfig::load(None, &pairs).unwrap()
}

/// The batches of a worker, in two epochs.
fn served<C: SystemConfig>(
    config: &TrainingConfig<C>,
    examples: &(impl Examples<Item = Item<C::System>> + Clone),
    part: [usize; 2],
) -> Batches<C::System> {
    let loader = config.loader(1, &Device::flex(), part);
    let loader = Loader::shuffled(examples.clone(), Split::Train, loader).unwrap();
    let epochs = (0..2).flat_map(|_| loader.iter().map(Result::unwrap).collect::<Vec<_>>());
    epochs.take(STEPS).collect()
}

/// Pictures of their own colours, and a list about them.
fn write(folder: &Path, list: &str, rows: impl Fn(usize) -> serde_json::Value) {
    for index in 0..ITEMS {
        let shade = index as u8 * 10;
        let picture = RgbImage::from_fn(16, 16, |x, y| Rgb([shade, (9 * x) as u8, (7 * y) as u8]));
        picture.save(folder.join(format!("{index}.png"))).unwrap();
    }
    let rows: Vec<_> = (0..ITEMS).map(rows).collect();
    std::fs::write(
        folder.join(format!("{list}.json")),
        json!({list: rows}).to_string(),
    )
    .unwrap();
}

#[test]
fn questions() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "questions", |index| {
        // One to three answers each: workers have different numbers of rows.
        let answers = ["red", "a dark blue", "two"];
        let answers = answers.iter().take(1 + index % 3);
        let answers: serde_json::Map<_, _> = answers.map(|&a| (a.into(), 0.3.into())).collect();
        json!({"image": format!("{index}.png"), "question": format!("what {index}"),
               "answers": answers, "split": "train"})
    });
    let config = config::<VqaConfig>(&["distillation.momentum=0.9"]);
    let questions = Arc::new(Questions::read(folder.path(), false).unwrap());
    let texts = questions.texts(Split::Train);
    let tokenizer = Arc::new(CaptionTokenizer::train(texts, &config.tokenizer()).unwrap());
    let examples = QuestionExamples::new(questions.clone(), tokenizer, config.transform());
    let examples = examples.unwrap();
    two_train_as_one(&config, |rank, count| {
        served(&config, &examples, [rank, count])
    });
}

#[test]
fn statements() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "statements", |index| {
        let images = [index, (index + 7) % ITEMS].map(|image| format!("{image}.png"));
        json!({"images": images, "text": format!("both show {index}"), "label": index % 3 == 0,
               "split": "train"})
    });
    let config = config::<NlvrConfig>(&["distillation.momentum=0.9"]);
    let statements = Arc::new(Statements::read(folder.path(), false).unwrap());
    let texts = statements.texts(Split::Train);
    let tokenizer = Arc::new(CaptionTokenizer::train(texts, &config.tokenizer()).unwrap());
    let examples = StatedPairs::new(statements.clone(), tokenizer, config.transform());
    let examples = examples.unwrap();
    two_train_as_one(&config, |rank, count| {
        served(&config, &examples, [rank, count])
    });
}

/// Its negatives are drawn within a shard, by a stream of the shard's own.
#[test]
fn text_assignment() {
    let _lock = exclusively();
    let config = config::<TextAssignmentConfig>(&["model.bert.vocabulary=32", "tokens=16"]);
    two_train_as_one(&config, made_up);
}
