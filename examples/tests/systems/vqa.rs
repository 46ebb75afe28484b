//! A small run of `albef vqa` from a small pretraining: its report, its interruption and
//! resumption, and what it refuses.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use burn_contrastive_examples::systems::albef::vqa::{Vqa, VqaConfig};
use burn_contrastive_examples::systems::albef::{Albef, AlbefConfig};
use burn_contrastive_examples::systems::clip::ClipConfig;
use burn_contrastive_examples::training::config::TrainingConfig;
use burn_contrastive_examples::training::run::{Ended, Folder, Options, Program, Reached};
use burn_contrastive_examples::training::system::SystemConfig;
use burn_contrastive_examples::training::weights::Weights;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{exclusively, metrics, stopped};

fn options(run: &Path, scenes: &Path) -> Options {
    crate::options(Folder::New(run.to_path_buf()), scenes, &["albef", "vqa"])
}

fn with<C: SystemConfig>(config: &TrainingConfig<C>, pairs: &[&str]) -> TrainingConfig<C> {
    let pairs: Vec<_> = pairs.iter().map(ToString::to_string).collect();
    config.with(None, &pairs).unwrap()
}

/// A pretraining of a few steps, which all tests start from, and its scenes.
fn pretrained() -> (&'static Path, PathBuf) {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let config = with(
            &AlbefConfig::defaults(),
            &[
                "data.scenes.train=120",
                "data.scenes.validation=10",
                "data.scenes.test=10",
                "data.scenes.image_size=32",
                "data.scenes.three_objects=0",
                "data.batch_size=16",
                "model.image.image_size=32",
                "model.image.patch_size=8",
                "model.image.width=32",
                "model.image.layers=1",
                "model.bert.vocabulary=300",
                "model.bert.width=32",
                "model.bert.layers=2",
                "model.bert.fusion_layers=1",
                "model.bert.intermediate=64",
                "model.embedding=16",
                "momentum.queue=32",
                "schedule.steps=4",
                "schedule.warmup_steps=1",
            ],
        );
        let run_folder = folder.path().join("pretrained");
        let ended = Albef::run(
            &config,
            &options(&run_folder, folder.path()),
            Interrupter::new(),
        );
        assert!(matches!(ended.unwrap(), Ended::Reached(_)));
        folder
    });
    (folder.path(), folder.path().join("pretrained"))
}

fn earlier(run: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(run.join("config.json")).unwrap()).unwrap()
}

/// The settings of a run that starts from `run`, as the command line makes them.
fn from(run: &Path, pairs: &[&str]) -> TrainingConfig<VqaConfig> {
    let mut config = VqaConfig::started_from(&earlier(run)).unwrap();
    config.shared.init = Some(run.to_str().unwrap().parse().unwrap());
    config.shared.data.tokenizer = Some(run.join("tokenizer.json"));
    let small = [
        "data.batch_size=24",
        "validation_questions=12",
        "optimizer.learning_rate=3e-3",
        "schedule.warmup_steps=5",
        "distillation.momentum=0.9",
    ];
    with(&config, &[&small, pairs].concat())
}

fn finished(config: &TrainingConfig<VqaConfig>, options: &Options) -> Box<Reached<Vqa>> {
    match Vqa::run(config, options, Interrupter::new()).unwrap() {
        Ended::Reached(reached) => reached,
        _ => panic!("the run was not finished"),
    }
}

fn refused(config: &TrainingConfig<VqaConfig>, options: &Options) -> String {
    let error = Vqa::run(config, options, Interrupter::new()).err();
    format!("{:#}", error.expect("it is refused"))
}

#[test]
fn a_small_run_learns_to_answer_and_reports_it() {
    let _lock = exclusively();
    let (scenes, pretrained) = pretrained();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = from(&pretrained, &["schedule.steps=100", "validation.every=50"]);
    let reached = finished(&config, &options(&out, scenes));
    let (first, last) = reached.losses;
    assert!(last < 0.5 * first, "the loss went from {first} to {last}");
    let (before, after) = (reached.before.accuracy(), reached.after.accuracy());
    let majority = reached.test.majority();
    assert_eq!(reached.test.indices().len(), 60);
    assert!(
        after > before && after > majority,
        "{after} %, before training {before} %, majority {majority} %"
    );

    let metrics = metrics(&out);
    let accuracy = metrics.accuracy.unwrap();
    assert_eq!((accuracy.count, accuracy.after), (60, after));
    assert_eq!(accuracy.before, Some(before));
    let kinds: Vec<_> = accuracy
        .by_kind
        .iter()
        .map(|kind| kind.kind.as_str())
        .collect();
    let all = ["colour", "count", "exists", "relation", "shape", "size"];
    assert_eq!(kinds, all);
    assert!(accuracy.by_kind.iter().all(|kind| kind.count == 10));
    assert_eq!(metrics.curves.loss.points.len(), 100);
    assert_eq!(metrics.curves.figures.len(), 1);
    assert_eq!(metrics.curves.figures[0].name, "accuracy on validation");
    assert_eq!(metrics.curves.figures[0].curve.points.len(), 2);
    assert_eq!(metrics.dataset.splits[0].captions, 720);
    assert_eq!(metrics.answers.len(), 12);
    assert!(metrics.answers.iter().any(|answer| answer.is_right));
    assert!(metrics.answers.iter().any(|answer| !answer.is_right));
    for answer in &metrics.answers {
        assert!((0.0..=1.0).contains(&answer.confidence));
        assert_eq!(answer.given == answer.expected, answer.is_right);
    }
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("majority answer") && page.contains("data:image/"));

    // Its weights are the start of another one, whose decoder has learned to answer.
    let next = folder.path().join("next");
    let steps = ["schedule.steps=1", "optimizer.learning_rate=1e-9"];
    let config = from(&out, &steps);
    let again = finished(&config, &options(&next, scenes));
    assert_eq!(again.before.accuracy(), after);
}

#[derive(Default)]
struct Bits(Vec<u32>);

impl ModuleVisitor for Bits {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.val().into_data();
        self.0.extend(values.iter::<f32>().map(f32::to_bits));
    }
}

/// The bits of all that is learned, and of its momentum copies, in a run's last checkpoint.
fn bits(run: &Path, config: &TrainingConfig<VqaConfig>) -> Vec<u32> {
    const NONE: &[&str] = &[];
    let model = config.system.init(&Device::flex());
    let weights = Weights::of_run(run).unwrap();
    let mut bits = Bits::default();
    weights
        .load_into(model, NONE, NONE)
        .unwrap()
        .visit(&mut bits);
    bits.0
}

/// The run that it started from is not needed any more.
#[test]
fn an_interrupted_run_resumes_to_the_same_bits() {
    let _lock = exclusively();
    let (scenes, original) = pretrained();
    let folder = tempfile::tempdir().unwrap();
    let pretrained = folder.path().join("pretrained");
    let mut copy = Command::new("cp");
    let copied = copy.arg("-r").args([&original, &pretrained]).status();
    assert!(copied.unwrap().success());
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let config = from(&pretrained, &["schedule.steps=4"]);
    let expected = finished(&config, &options(&whole, scenes));

    let mut options = options(&parts, scenes);
    let interrupter = stopped();
    let ended = Vqa::run(&config, &options, interrupter).unwrap();
    assert!(matches!(ended, Ended::Interrupted));
    assert!(parts.join("checkpoints/step-000001/state.json").is_file());
    assert!(!parts.join("report.html").exists());

    std::fs::remove_dir_all(&pretrained).unwrap();
    options.folder = Folder::Resume(parts.clone());
    let resumed = finished(&config, &options);
    assert_eq!(resumed.losses, expected.losses);
    assert_eq!(resumed.before.given, expected.before.given);
    assert_eq!(resumed.after.given, expected.after.given);
    assert!(
        bits(&whole, &config) == bits(&parts, &config),
        "the models differ"
    );
    let curve = |run| metrics(run).curves.loss;
    assert_eq!(curve(&whole), curve(&parts));

    // Of a run that has not kept what it started from, the other one is needed, and named.
    std::fs::remove_dir_all(parts.join("start")).unwrap();
    let error = refused(&config, &options);
    assert!(
        error.contains("--init ") && error.contains("pretrained is no run with a checkpoint"),
        "{error}"
    );
}

#[test]
fn the_image_encoder_may_read_larger_images_and_words_of_answers_get_tokens() {
    let _lock = exclusively();
    let (scenes, pretrained) = pretrained();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = from(
        &pretrained,
        &["schedule.steps=1", "model.image.image_size=48", "answers=3"],
    );
    finished(&config, &options(&out, scenes));
    // The digits of the counts are in no caption.
    let tokenizer = std::fs::read_to_string(out.join("tokenizer.json")).unwrap();
    let tokenizer: Value = serde_json::from_str(&tokenizer).unwrap();
    let added = tokenizer["added_tokens"].as_array().unwrap().iter();
    let added: Vec<_> = added
        .map(|token| token["content"].as_str().unwrap())
        .collect();
    assert!(
        ["0", "1", "2", "3"]
            .iter()
            .all(|digit| added.contains(digit))
    );
}

#[test]
fn training_from_nothing_reads_questions_and_answers() {
    let _lock = exclusively();
    let (scenes, pretrained) = pretrained();
    let folder = tempfile::tempdir().unwrap();
    let mut config = from(&pretrained, &["schedule.steps=1"]);
    config.shared.init = None;
    config.shared.data.tokenizer = None;
    finished(&config, &options(&folder.path().join("run"), scenes));
}

/// A list of questions about an image of the scenes.
fn list(folder: &Path, list: &Value) -> PathBuf {
    let path = folder.join("list.json");
    std::fs::write(&path, list.to_string()).unwrap();
    path
}

#[test]
fn what_does_not_fit_is_refused_by_name_before_anything_is_written() {
    let _lock = exclusively();
    let (scenes, pretrained) = pretrained();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let options = options(&out, scenes);

    // A run of another system.
    let clip = ClipConfig::defaults().to_value().unwrap();
    let error = format!("{:#}", VqaConfig::started_from(&clip).unwrap_err());
    assert!(
        error.contains("neither a run of `albef` nor one of `albef vqa`"),
        "{error}"
    );

    // An answer that is not on the list, and an image that is not there.
    let row = |image: &str, answer: &str| {
        let mut row = json!({"image": image, "question": "what is it", "split": "train"});
        row["answer"] = answer.into();
        row
    };
    let mut sets = std::fs::read_dir(scenes).unwrap();
    let image = sets.find_map(|entry| {
        let image = entry.unwrap().path().join("images/000000.png");
        image.is_file().then_some(image)
    });
    std::fs::copy(image.unwrap(), folder.path().join("a.png")).unwrap();
    for (rows, part) in [
        (vec![row("a.png", "red"), row("a.png", "purple")], "purple"),
        (vec![row("a.png", "red"), row("b.png", "red")], "b.png"),
    ] {
        let questions = json!({"answers": ["red", "blue"], "questions": rows});
        let mut config = from(&pretrained, &["data.batch_size=2"]);
        config.shared.data.path = Some(list(folder.path(), &questions));
        let error = refused(&config, &options);
        assert!(
            error.contains(part) && error.contains("questions[1]"),
            "{error}"
        );
    }

    // Settings out of range, and of another shape than the weights.
    let load = |pair: &str| {
        let config = VqaConfig::started_from(&earlier(&pretrained)).unwrap();
        config.with(None, &[pair.to_string()])
    };
    for (pair, part) in [
        ("tokens=48", "tokens = 48 must be in 2..=47"),
        ("answers=0", "answers must be at least 1"),
        (
            "distillation.soft_targets=2",
            "distillation.soft_targets = 2 must be in [0, 1]",
        ),
        ("momentum.queue=4", "momentum.queue"),
        ("decoder=twin", "decoder"),
    ] {
        let error = format!("{:#}", load(pair).unwrap_err());
        assert!(error.contains(part), "{error}");
    }
    let error = refused(&from(&pretrained, &["model.embedding=8"]), &options);
    assert!(error.contains("does not fit the model"), "{error}");
    // Keys of the pretraining that this task has no use for are left; a tower is not.
    let weights = Weights::of_run(&pretrained).unwrap();
    let config = from(&pretrained, &[]);
    let model = config.system.init(&Device::flex());
    let rules = config.system.rules();
    let error = weights.load_into(model, rules.new, &["^momentum\\."]);
    let error = error.err().unwrap().to_string();
    assert!(error.contains("matching_head"), "{error}");
    std::fs::remove_dir_all(&out).ok();

    let mut config = from(&pretrained, &[]);
    config.shared.data.path = Some(folder.path().join("absent"));
    let error = refused(&config, &options);
    assert!(error.contains("absent") && !out.exists(), "{error}");
}
