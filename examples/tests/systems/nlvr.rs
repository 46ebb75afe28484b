//! `albef nlvr2` from a pretrained run to its report: both stages, interrupted and resumed, and what
//! is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use burn::tensor::{Device, Distribution, Tensor, TensorData, Tolerance};
use burn::train::Interrupter;
use burn_contrastive_examples::models::TwinFusion;
use burn_contrastive_examples::report::Metrics;
use burn_contrastive_examples::systems::albef::nlvr::{
    Nlvr, NlvrConfig, TextAssignment, TextAssignmentConfig,
};
use burn_contrastive_examples::systems::albef::{Albef, AlbefConfig};
use burn_contrastive_examples::systems::clip::ClipConfig;
use burn_contrastive_examples::training::config::TrainingConfig;
use burn_contrastive_examples::training::run::{Ended, Folder, Options, Program};
use burn_contrastive_examples::training::system::SystemConfig;
use burn_contrastive_examples::training::trainer::Start;
use burn_contrastive_examples::training::weights::Weights;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{exclusively, metrics, stopped};

const SHARED: [&str; 9] = [
    "data.scenes.train=24",
    "data.scenes.validation=4",
    "data.scenes.test=8",
    "data.scenes.image_size=16",
    "data.batch_size=8",
    "sharding.pairs=4",
    "schedule.steps=3",
    "schedule.warmup_steps=1",
    "validation.every=2",
];

const PRETRAINED: [&str; 14] = [
    "model.image.image_size=16",
    "model.image.patch_size=8",
    "model.image.width=16",
    "model.image.layers=1",
    "model.image.heads=2",
    "model.bert.vocabulary=300",
    "model.bert.width=16",
    "model.bert.layers=2",
    "model.bert.fusion_layers=1",
    "model.bert.heads=2",
    "model.bert.intermediate=16",
    "model.embedding=8",
    "momentum.queue=16",
    "data.mean=[0.5, 0.5, 0.5]",
];

fn loaded<C: SystemConfig>(settings: &[&str]) -> TrainingConfig<C> {
    let settings = SHARED.iter().chain(settings);
    let settings: Vec<_> = settings.map(ToString::to_string).collect();
    TrainingConfig::load(None, &settings).unwrap()
}

/// A folder with the scenes of all runs and a pretrained run.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let config = loaded::<AlbefConfig>(&PRETRAINED);
        place.finish::<Albef>(&config, "pretrained");
        place
    }

    fn join(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self, folder: Folder) -> Options {
        crate::options(folder, &self.join("runs"), &["albef", "nlvr2"])
    }

    fn finish<S: Program>(&self, config: &TrainingConfig<S::Config>, name: &str) {
        let options = self.options(Folder::New(self.join(name)));
        let ended = S::run(config, &options, Interrupter::new()).unwrap();
        assert!(matches!(ended, Ended::Reached(_)));
    }

    /// Settings of a run that starts from the pretrained one.
    fn nlvr2(&self) -> TrainingConfig<NlvrConfig> {
        let pretrained = self.join("pretrained");
        let config = fs::read_to_string(pretrained.join("config.json")).unwrap();
        let config = NlvrConfig::started_from(&serde_json::from_str(&config).unwrap()).unwrap();
        let settings = [
            "assignment.steps=2",
            "assignment.batch_size=8",
            "data.flip=0.5",
        ];
        let settings = SHARED.iter().chain(&settings);
        let settings: Vec<_> = settings.map(ToString::to_string).collect();
        let mut config = config.with(None, &settings).unwrap();
        config.shared.data.tokenizer = Some(pretrained.join("tokenizer.json"));
        config.shared.init = Some(pretrained.to_str().unwrap().parse().unwrap());
        config
    }

    fn albef(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_albef"));
        command.args(arguments).current_dir(self.folder.path());
        command.output().unwrap()
    }

    /// What `albef` says when it refuses arguments.
    fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.albef(arguments);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }
}

/// What must be equal in equal runs.
fn results(run: &Path) -> String {
    let Metrics {
        accuracy,
        answers,
        curves,
        ..
    } = metrics(run);
    assert!(accuracy.is_some() && run.join("report.html").is_file());
    format!("{accuracy:?} {answers:?} {curves:?}")
}

#[test]
fn both_stages_learn_and_report_and_are_the_same_when_interrupted() {
    let _lock = exclusively();
    let place = Place::new();
    let config = place.nlvr2();
    place.finish::<Nlvr>(&config, "whole");
    let whole = place.join("whole");
    let written = metrics(&whole);
    let accuracy = written.accuracy.unwrap();
    assert_eq!(accuracy.count, 16);
    let kinds: Vec<_> = accuracy.by_kind.iter().map(|of| &*of.kind).collect();
    assert_eq!(kinds, ["all", "compare", "count", "exists"]);
    assert_eq!(written.curves.loss.points.len(), 3);
    let figure = &written.curves.figures[0];
    assert_eq!(figure.name, "accuracy on validation");
    assert_eq!(figure.curve.points.len(), 2);
    assert_eq!(written.answers.len(), 12);
    assert!(
        written
            .answers
            .iter()
            .all(|answer| answer.images.len() == 2)
    );
    let stage = whole.join("text-assignment");
    let assigned = metrics(&stage);
    assert_eq!(assigned.curves.loss.points.len(), 2);
    assert_eq!(assigned.accuracy.unwrap().count, 8);

    // Interrupted after every step of both stages.
    let cut = place.join("cut");
    let mut folder = Folder::New(cut.clone());
    let mut interruptions = 0;
    loop {
        let interrupter = stopped();
        let ended = Nlvr::run(&config, &place.options(folder), interrupter).unwrap();
        if let Ended::Reached(_) = ended {
            break;
        }
        interruptions += 1;
        // Neither stage needs the run any more that the first one started from.
        fs::remove_dir_all(place.join("pretrained")).ok();
        folder = Folder::Resume(cut.clone());
    }
    // The last step of a stage ends it.
    assert_eq!(interruptions, (2 - 1) + (3 - 1));
    assert_eq!(results(&cut), results(&whole));
    assert_eq!(results(&cut.join("text-assignment")), results(&stage));
}

/// Equal but for the rounding of products.
fn assert_equal(actual: TensorData, expected: TensorData) {
    actual.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
}

#[test]
fn both_stages_start_from_the_weights_before() {
    let _lock = exclusively();
    let place = Place::new();
    let device = Device::flex();
    let nothing: [&str; 0] = [];
    let weights = |name: &str| Weights::of_run(&place.join(name)).unwrap();
    let pretrained = Start::<Albef>::fresh(&loaded(&PRETRAINED), &device).unwrap();
    let unused = ["^queue\\."];
    let pretrained = weights("pretrained").load_into(pretrained.model, &nothing, &unused);
    let pretrained = pretrained.unwrap().model;

    let mut config = place.nlvr2();
    let assignment = TrainingConfig {
        system: TextAssignmentConfig {
            model: config.system.model.clone(),
            tokens: config.system.tokens,
        },
        shared: config.shared.clone(),
    };
    let device = device.autodiff();
    let images = Tensor::random([2, 3, 16, 16], Distribution::Default, &device);
    let states = Tensor::random([2, 5, 16], Distribution::Default, &device);
    let (expected, embedding) = pretrained.encode_images(images.clone());
    let twins = TwinFusion::from_fusion(pretrained.fusion());
    let seen = || [0, 1].map(|_| expected.clone());
    let fused = twins.forward(states.clone(), None, seen()).into_data();

    let assigned = Start::<TextAssignment>::fresh(&assignment, &Device::flex()).unwrap();
    let started = Start::<Nlvr>::fresh(&config, &Device::flex()).unwrap();
    let momentum = &started.model.momentum.encoder().0;
    for model in [&assigned.model.model, &started.model.model] {
        let tokens = model.image.tokens(images.clone());
        assert_equal(tokens.into_data(), expected.to_data());
        let own = model.bert.fusion.forward(states.clone(), None, seen());
        assert_equal(own.into_data(), fused.clone());
    }
    let tokens = momentum.image.tokens(images.clone().inner());
    assert_equal(tokens.into_data(), expected.to_data());
    let plain = expected.clone().inner().narrow(1, 0, 1).squeeze_dim(1);
    let own = assigned.model.image_projection.forward(plain);
    assert_equal(own.into_data(), embedding.into_data());

    // And the statements from those of text assignment.
    config.shared.schedule.steps = 1;
    place.finish::<Nlvr>(&config, "run");
    let stage = place.join("run/text-assignment");
    let trained = Start::<TextAssignment>::fresh(&assignment, &Device::flex()).unwrap();
    let trained = weights("run/text-assignment").load_into(trained.model, &nothing, &nothing);
    let trained = trained.unwrap();
    config.shared.init = Some(stage.to_str().unwrap().parse().unwrap());
    let started = Start::<Nlvr>::fresh(&config, &Device::flex())
        .unwrap()
        .model;
    let [before, after] = [&trained.model, &started.model].map(|model| {
        let tokens = model.image.tokens(images.clone());
        let own = model.bert.fusion.forward(states.clone(), None, seen());
        (tokens.into_data(), own.into_data())
    });
    assert_equal(before.0, after.0);
    assert_equal(before.1.clone(), after.1);
    let moved = before.1.iter::<f32>().zip(fused.iter::<f32>());
    assert!(moved.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) > 1e-4);
}

#[test]
fn the_command_runs_both_stages_and_says_how_to_resume() {
    let _lock = exclusively();
    let place = Place::new();
    let settings = ["assignment.steps=1", "assignment.batch_size=8"];
    let settings = SHARED.iter().chain(&settings);
    let settings: Vec<_> = settings.flat_map(|setting| ["--set", setting]).collect();
    let command = ["nlvr2", "--init", "pretrained", "--output", "run"];
    let output = place.albef(&[&command[..], &settings].concat());
    let [said, errors] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{said}\n{errors}");
    for expected in [
        "Stage: text-assignment",
        "statements.json",
        "After training\nAccuracy ",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let resumed = place.albef(&["nlvr2", "--resume", "run"]);
    assert!(resumed.status.success());
    let said = place.refusal(&["--plain", "nlvr2"]);
    assert!(said.contains("cannot be used with"), "{said}");
}

#[test]
fn runs_of_other_systems_and_bad_statements_are_refused() {
    let _lock = exclusively();
    let place = Place::new();
    let clip = place.join("clip");
    fs::create_dir(&clip).unwrap();
    let config = ClipConfig::defaults().to_json().unwrap();
    fs::write(clip.join("config.json"), config).unwrap();
    let said = place.refusal(&["nlvr2", "--init", "clip"]);
    assert!(
        said.contains("--init clip: that is no run of `albef`"),
        "{said}"
    );
    let said = place.refusal(&["nlvr2", "--init", "absent"]);
    assert!(said.contains("no run in absent"), "{said}");

    fs::create_dir(place.join("own")).unwrap();
    let write = |rows: Value| {
        let file = json!({ "statements": rows });
        fs::write(place.join("own/statements.json"), file.to_string()).unwrap();
    };
    let row = json!({"images": ["a.png", "b.png"], "text": "One.", "split": "train"});
    let command = [
        "nlvr2",
        "--init",
        "pretrained",
        "--data",
        "own",
        "--output",
        "refused",
    ];
    write(json!([row]));
    let said = place.refusal(&command);
    assert!(
        said.contains("statements[0]: missing field `label`"),
        "{said}"
    );
    let mut labelled = row;
    labelled["label"] = true.into();
    write(json!([labelled]));
    let said = place.refusal(&command);
    assert!(
        said.contains("statements[0]: ") && said.contains("a.png"),
        "{said}"
    );
    assert!(!place.join("refused").exists());
}
