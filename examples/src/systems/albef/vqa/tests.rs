//! The loss by hand, the ranking by hand, and what the decoder starts from.

use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use burn_contrastive::sharded::Sharding;
use image::{Rgb, RgbImage};
use serde_json::json;
use tempfile::TempDir;

use super::ranking::Ranking;
use super::step::{Answers, Questions};
use super::*;
use crate::data::{
    Asked, CaptionTokenizer, Examples, QuestionExamples, Questions as Listed, Shard,
    TransformConfig,
};
use crate::training::config::TrainingConfig;
use crate::training::system::{System, SystemConfig};

fn config(pairs: &[&str]) -> TrainingConfig<VqaConfig> {
    let small = [
        "model.image.image_size=16",
        "model.image.patch_size=8",
        "model.image.width=16",
        "model.image.layers=1",
        "model.bert.width=16",
        "model.bert.layers=2",
        "model.bert.fusion_layers=1",
        "model.bert.vocabulary=100",
        "model.bert.intermediate=16",
    ];
    let pairs: Vec<_> = small.iter().chain(pairs).map(ToString::to_string).collect();
    TrainingConfig::load(None, &pairs).unwrap()
}

/// Two questions: one with two answers of different lengths, one with one.
fn examples(config: &TrainingConfig<VqaConfig>) -> (TempDir, QuestionExamples) {
    let folder = tempfile::tempdir().unwrap();
    for (name, colour) in [("a.png", [200, 9, 9]), ("b.png", [9, 9, 200])] {
        let picture = RgbImage::from_pixel(16, 16, Rgb(colour));
        picture.save(folder.path().join(name)).unwrap();
    }
    let row = |image: &str, question: &str, answers: serde_json::Value| {
        let mut row = json!({"image": image, "question": question, "split": "train"});
        row["answers"] = answers;
        row
    };
    let list = json!({"questions": [
        row("a.png", "what colour is it", json!({"dark red": 0.7, "red": 0.3})),
        row("b.png", "is it blue", json!({"yes": 1.0})),
    ]});
    std::fs::write(folder.path().join("questions.json"), list.to_string()).unwrap();
    let questions = Arc::new(Listed::read(folder.path(), false).unwrap());
    let texts: Vec<_> = questions.items.iter().map(|item| &item.question).collect();
    let texts = texts.into_iter().chain(&questions.answers);
    let tokenizer = CaptionTokenizer::train(texts, &config.tokenizer()).unwrap();
    let transform = TransformConfig {
        size: 16,
        ..config.transform()
    };
    let examples = QuestionExamples::new(questions, Arc::new(tokenizer), transform).unwrap();
    (folder, examples)
}

fn shard(examples: &QuestionExamples, indices: &[usize]) -> Shard<Asked> {
    let items = indices
        .iter()
        .map(|&index| examples.load(index, None).unwrap());
    Shard {
        items: items.collect(),
        transform: examples.transform().clone(),
        padding: examples.padding(),
    }
}

/// Parameters that are not zero and differ from each other.
struct Spread;

impl ModuleMapper for Spread {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| {
            let noise = value.random_like(Distribution::Normal(0.0, 0.3));
            let trains = value.is_require_grad();
            (value + noise).detach().set_require_grad(trains)
        })
    }
}

#[derive(Default)]
struct Values(Vec<TensorData>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().into_data());
    }
}

fn values(module: &impl Module) -> Vec<TensorData> {
    let mut values = Values::default();
    module.visit(&mut values);
    values.0
}

fn vqa(config: &TrainingConfig<VqaConfig>, device: &Device) -> Vqa {
    let mut vqa = config.system.init(device);
    vqa.model = vqa.model.map(&mut Spread);
    vqa.begun(&config.system).unwrap()
}

/// The tokens 1, 2, 3 and 1, 3, with 0 as padding.
fn two_answers(device: &Device) -> Answers {
    Answers {
        tokens: Tensor::from_data([[1, 2, 3], [1, 3, 0]], device),
        padding: Tensor::from_data([[false, false, false], [false, false, true]], device),
        question: Tensor::from_data([0, 0], device),
    }
}

#[test]
fn two_answers_with_shares_cost_what_they_do_by_hand() {
    let device = Device::flex();
    let answers = two_answers(&device);
    // Probabilities of the next token, by row and place; the last place is padding.
    let next = [
        [[0.1, 0.2, 0.5, 0.2], [0.1, 0.1, 0.2, 0.6]],
        [[0.3, 0.2, 0.1, 0.4], [0.9, 0.05, 0.03, 0.02]],
    ];
    let logits = Tensor::<3>::from_data(next, &device).log() + 2.0;
    let [first, second] = [-(0.5f64 * 0.6).ln(), -0.4f64.ln()];
    let read = |costs: Tensor<1>| costs.into_data().iter::<f64>().collect::<Vec<_>>();
    let costs = read(answers.costs(logits.clone(), None));
    assert!((costs[0] - first).abs() < 1e-5 && (costs[1] - second).abs() < 1e-5);

    // A teacher that finds the tokens 2 and 3 equally likely, everywhere.
    let teacher = Tensor::<3>::from_data([[[-99.0, -99.0, 7.0, 7.0]; 2]; 2], &device);
    let soft = |p: f64, q: f64| -(p.ln() + q.ln()) / 2.0;
    let soft = [soft(0.5, 0.2) + soft(0.2, 0.6), soft(0.1, 0.4)];
    let costs = read(answers.costs(logits, Some((teacher, 0.4))));
    for (cost, (hard, soft)) in costs.iter().zip([first, second].iter().zip(soft)) {
        assert!((cost - (0.6 * hard + 0.4 * soft)).abs() < 1e-5, "{costs:?}");
    }
}

/// The loss of a batch, in shards or not, is the mean over its questions of what each of their
/// answers costs alone, by its share.
#[test]
fn a_batch_costs_the_answers_of_its_questions_by_their_shares() {
    let device = Device::flex();
    let config = config(&["distillation.soft_targets=0"]);
    let (_folder, examples) = examples(&config);
    let vqa = vqa(&config, &device.clone().autodiff());
    let plain = vqa.valid();
    let expected: f64 = [0, 1]
        .into_iter()
        .flat_map(|index| {
            let own = shard(&examples, &[index]);
            let answers = own.items[0].answers.clone().into_iter();
            let costs = answers.map(|answer| {
                let rows = Answers::new([(0, &answer.tokens)], &own, &device);
                let questions = Questions::new(&own, &device);
                let states = plain.answerer().read(&questions);
                let logits = plain.answerer().follow(&rows, &states, &questions.padding);
                let cost = rows.costs(logits, None).into_scalar::<f64>();
                cost * f64::from(answer.share) / 2.0
            });
            costs.collect::<Vec<_>>()
        })
        .sum();
    for (indices, sharding) in [
        (vec![vec![0, 1]], Sharding::recompute()),
        (vec![vec![0], vec![1]], Sharding::keep(2)),
        (vec![vec![1], vec![0]], Sharding::recompute()),
    ] {
        let batch: Vec<_> = indices.iter().map(|own| shard(&examples, own)).collect();
        let step = vqa.train_on(&batch, &sharding);
        let loss = step.output.loss.into_scalar::<f64>();
        assert!((loss - expected).abs() < 1e-4, "{loss} against {expected}");
        // The answers teach the encoders too, and nothing teaches the momentum copies.
        let gradients = &step.gradients;
        let words = vqa.model.bert.embeddings.clone();
        let ids = burn::module::list_param_ids(&words);
        assert!(gradients.get::<2>(ids[0]).is_some());
        let copies = burn::module::list_param_ids(&vqa.momentum_decoder);
        assert!(copies.iter().all(|&id| gradients.get::<2>(id).is_none()));
    }
}

#[test]
fn the_momentum_copy_is_a_part_of_the_targets_after_the_ramp() {
    let device = Device::flex();
    let config = config(&[
        "distillation.soft_targets=0.5",
        "distillation.ramp_epochs=2",
    ]);
    let (_folder, examples) = examples(&config);
    let vqa = vqa(&config, &device.clone().autodiff());
    let batch = [shard(&examples, &[0, 1])];
    let loss = |vqa: &Vqa, epochs| {
        let moment = Moment {
            epochs,
            ..Moment::default()
        };
        let step = vqa
            .clone()
            .at(&moment)
            .train_on(&batch, &Sharding::recompute());
        step.output.loss.into_scalar::<f64>()
    };
    let hard = vqa.loss(&batch[0], 0.0, &device.clone().autodiff());
    let hard = hard.into_scalar::<f64>() / 2.0;
    assert!((loss(&vqa, 0.0) - hard).abs() < 1e-5);
    let [half, whole, later] = [1.0, 2.0, 9.0].map(|epochs| loss(&vqa, epochs));
    // The share rises in a straight line.
    assert!((whole - hard - 2.0 * (half - hard)).abs() < 1e-4);
    assert!((whole - hard).abs() > 1e-3 && (later - whole).abs() < 1e-6);
}

#[test]
fn an_answer_with_a_likely_first_token_and_an_unlikely_rest_loses() {
    let device = Device::flex();
    // [CLS] is 1 and [SEP] is 2; of the answers, two begin with 3.
    let list = [
        vec![1, 3, 4, 2],
        vec![1, 5, 2],
        vec![1, 6, 2],
        vec![1, 3, 5, 2],
    ];
    // The probability of each token after each other one.
    let mut after = [[1e-6f32; 7]; 7];
    after[1][3..].copy_from_slice(&[0.6, 0.05, 0.3, 0.05]);
    after[3][4..].copy_from_slice(&[0.4, 0.2, 0.4]);
    after[4..].iter_mut().for_each(|next| next[2] = 1.0);
    let table = Tensor::<2>::from_data(after, &device).log();
    let tensors = |rows: Vec<(usize, &[u32])>| {
        let longest = rows.iter().map(|(_, row)| row.len()).max().unwrap();
        let at = |row: &[u32], place: usize| row.get(place).map_or(0, |&id| id as i32);
        let tokens = rows
            .iter()
            .flat_map(|(_, row)| (0..longest).map(|k| at(row, k)));
        let tokens = TensorData::new(tokens.collect::<Vec<_>>(), [rows.len(), longest]);
        let tokens = Tensor::<2, Int>::from_data(tokens, &device);
        let question: Vec<i32> = rows.iter().map(|&(question, _)| question as i32).collect();
        Answers {
            padding: tokens.clone().equal_elem(0),
            tokens,
            question: Tensor::from_data(&question[..], &device),
        }
    };
    let follow = |answers: &Answers| {
        let (given, _) = answers.given();
        let [rows, length] = given.dims();
        let next = table.clone().select(0, given.reshape([rows * length]));
        next.reshape([rows, length, 7])
    };
    let best = |most| {
        let ranking = Ranking {
            list: &list,
            questions: 2,
            most,
            vocabulary: 7,
        };
        ranking.best(tensors, follow)
    };
    // 0.6·0.4 against 0.3; of the whole list, of as many, and of more.
    for most in [4, 5, 100] {
        let given = best(most);
        assert_eq!([given[0].place, given[1].place], [1, 1]);
    }
    // Two are compared: both begin with the likeliest token, so the best answer is not among them.
    let given = best(2);
    assert_eq!(given[0].place, 0);
    // 0.6·0.4 against 0.6·0.2.
    assert!((given[0].probability - 2.0 / 3.0).abs() < 1e-4);
    assert_eq!(best(3)[1].place, 1);
}

#[test]
fn a_model_answers_each_question_as_if_it_were_alone() {
    let device = Device::flex();
    let config = config(&[]);
    let (_folder, examples) = examples(&config);
    let vqa = vqa(&config, &device);
    let both = vqa.answer(&shard(&examples, &[0, 1]), &device);
    for index in [0, 1] {
        let alone = vqa.answer(&shard(&examples, &[index]), &device);
        assert_eq!(alone[0].place, both[index].place);
        assert!((alone[0].probability - both[index].probability).abs() < 1e-4);
    }
}

#[test]
fn the_decoder_starts_as_the_fusion_layers_and_the_copies_as_both() {
    let config = config(&[]);
    let vqa = vqa(&config, &Device::flex().autodiff());
    let bert = &vqa.model.bert;
    let parts = [
        values(&bert.embeddings),
        values(&bert.fusion),
        values(vqa.model.language_head.as_ref().unwrap()),
    ];
    assert_eq!(values(&vqa.decoder), parts.concat());
    assert_eq!(values(vqa.momentum_decoder.encoder()), values(&vqa.decoder));
    assert_eq!(values(vqa.momentum_model.encoder()), values(&vqa.model));

    // A decoder that has learned to answer is kept.
    let mut config = config;
    config.system.decoder = DecoderStart::Decoder;
    let mut other = vqa;
    other.decoder = other.decoder.map(&mut Spread);
    let learned = values(&other.decoder);
    let other = other.begun(&config.system).unwrap();
    assert_eq!(values(&other.decoder), learned);
    assert_eq!(values(other.momentum_decoder.encoder()), learned);
}

/// One question about two images: only they tell the answer.
#[test]
fn the_image_decides_what_a_question_leaves_open() {
    let device = Device::flex();
    device.seed(5);
    let config = config(&["optimizer.learning_rate=1e-2"]);
    let (_folder, examples) = examples(&config);
    let mut vqa = config.system.init(&device.clone().autodiff());
    vqa = vqa.begun(&config.system).unwrap();
    let mut batch = [shard(&examples, &[0, 1])];
    let items = &mut batch[0].items;
    items[1].tokens = items[0].tokens.clone();
    items[0].answers.truncate(1);
    let right: Vec<_> = items.iter().map(|asked| asked.answers[0].place).collect();
    let mut optimizer = config.shared.optimizer.init();
    for _ in 0..60 {
        let step = vqa.train_on(&batch, &Sharding::recompute());
        let rates = config.shared.optimizer.learning_rates(|peak| peak);
        vqa = optimizer.step(rates, vqa, step.gradients).updated(vec![]);
    }
    let given = vqa.valid().answer(&batch[0], &device);
    let places: Vec<_> = given.iter().map(|given| Some(given.place)).collect();
    assert_eq!(places, right);
    assert!(
        given.iter().all(|given| given.probability > 0.8),
        "{given:?}"
    );
}

#[test]
fn the_published_settings_fit_the_published_pretraining() {
    let earlier = crate::systems::albef::AlbefConfig::base();
    let config = VqaConfig::started_from(&earlier.to_value().unwrap()).unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/albef_base_vqa.json");
    let config = config.with(Some(file.as_ref()), &[]).unwrap();
    assert_eq!(config.system.model.image.image_size, 384);
    assert_eq!(config.system.model.bert, earlier.system.model.bert);
    assert_eq!(config.shared.schedule.epochs, Some(8));
    assert_eq!(config.system.answers, 128);
    let tiny = VqaConfig::defaults();
    assert_eq!(
        tiny.system.model,
        crate::systems::albef::AlbefConfig::defaults().system.model
    );
}
