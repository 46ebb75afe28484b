//! A small run of `clip` from data to report, and its interruption and resumption.

use std::path::Path;
use std::process::Command;

use burn::train::Interrupter;
use burn_contrastive_examples::report::Metrics;
use burn_contrastive_examples::systems::clip::{Clip, ClipConfig};
use burn_contrastive_examples::training::config;
use burn_contrastive_examples::training::evaluation::chance;
use burn_contrastive_examples::training::plan::Plan;
use burn_contrastive_examples::training::run::{Ended, Folder, Options, Program};

use crate::{exclusively, metrics, stopped};

type TrainingConfig = config::TrainingConfig<ClipConfig>;

fn options(run: &Path, scenes: &Path) -> Options {
    crate::options(Folder::New(run.to_path_buf()), scenes, &["clip"])
}

fn small(pairs: &[&str]) -> TrainingConfig {
    let settings = [
        "data.scenes.train=800",
        "data.scenes.validation=50",
        "data.scenes.test=100",
        "data.scenes.image_size=32",
        "data.batch_size=64",
        "data.scenes.three_objects=0",
        "model.image.image_size=32",
        "model.image.patch_size=8",
        "model.image.width=48",
        "model.image.layers=2",
        "model.text.width=48",
        "model.text.layers=1",
        "model.embedding=32",
        "optimizer.learning_rate=2e-3",
        "schedule.steps=250",
        "schedule.warmup_steps=25",
        "validation.every=125",
    ];
    let pairs: Vec<String> = settings
        .iter()
        .chain(pairs)
        .map(ToString::to_string)
        .collect();
    TrainingConfig::load(None, &pairs).unwrap()
}

#[test]
fn a_small_run_learns_to_find_held_out_pairs_and_reports_it() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = small(&[]);
    let options = options(&out, folder.path());
    let Ended::Reached(reached) = Clip::run(&config, &options, Interrupter::new()).unwrap() else {
        panic!("the run was not finished");
    };

    let (first, last) = reached.losses;
    assert!(last < 0.6 * first, "the loss went from {first} to {last}");
    let (before, after) = (reached.before.metrics(), reached.after.metrics());
    let chance = chance(&reached.test);
    // Chance is 1 % and about 1 %: five captions for each of 100 images.
    for (name, before, after, chance) in [
        (
            "image to text",
            before.image_to_text.recall_at_1,
            after.image_to_text.recall_at_1,
            chance.image_to_text.recall_at_1,
        ),
        (
            "text to image",
            before.text_to_image.recall_at_1,
            after.text_to_image.recall_at_1,
            chance.text_to_image.recall_at_1,
        ),
    ] {
        assert!((chance - 1.0).abs() < 0.05, "{name}: chance is {chance} %");
        assert!(
            before < 6.0,
            "{name}: an untrained model reaches {before} %"
        );
        assert!(after >= 10.0, "{name}: R@1 is {after} % after training");
    }

    let metrics: Metrics =
        serde_json::from_str(&std::fs::read_to_string(out.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(metrics.curves.loss.points.len(), 250);
    assert_eq!(metrics.curves.validation.len(), 2);
    let written = metrics
        .retrieval
        .after
        .unwrap()
        .scores
        .text_to_image
        .recall_at_1;
    assert_eq!(written, after.text_to_image.recall_at_1);
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("After training") && page.contains("data:image/"));

    // The folder is a run now: a new one does not write over it.
    let error = Clip::run(&config, &options, Interrupter::new())
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("already holds a run") && error.contains("--resume"),
        "{error}"
    );
}

#[test]
fn an_interrupted_run_leaves_no_report_and_resumes_to_one() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = small(&[
        "data.scenes.train=128",
        "schedule.steps=3",
        "schedule.warmup_steps=1",
    ]);
    let mut options = options(&out, folder.path());
    let interrupter = stopped();
    let ended = Clip::run(&config, &options, interrupter).unwrap();
    assert!(matches!(ended, Ended::Interrupted));
    assert!(out.join("checkpoints/step-000001/state.json").is_file());
    assert!(!out.join("report.html").exists());

    options.folder = Folder::Resume(out.clone());
    let ended = Clip::run(&config, &options, Interrupter::new()).unwrap();
    assert!(matches!(ended, Ended::Reached(_)));
    let metrics: Metrics =
        serde_json::from_str(&std::fs::read_to_string(out.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(metrics.curves.loss.points.len(), 3);
    assert!(out.join("report.html").is_file());
}

#[test]
fn weights_are_evaluated_without_training_as_the_run_that_they_are_of() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = small(&[
        "data.scenes.train=128",
        "schedule.steps=3",
        "schedule.warmup_steps=1",
    ]);
    let options = options(&at("run"), &at("runs"));
    Clip::run(&config, &options, Interrupter::new()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_clip"));
    command.args(["evaluate", "--init", "run", "--output", "evaluated"]);
    let output = command.current_dir(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let [run, evaluated] = ["run", "evaluated"].map(|run| metrics(&at(run)));
    assert_eq!(evaluated.retrieval.after, run.retrieval.after);
    assert_eq!(evaluated.retrieval.chance, run.retrieval.chance);
    assert!(evaluated.retrieval.before.is_none() && evaluated.curves.loss.points.is_empty());
}

#[test]
fn data_that_cannot_be_read_leaves_no_run_behind() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut config = small(&[]);
    config.shared.data.path = Some(folder.path().join("absent"));
    let error = Clip::run(&config, &options(&out, folder.path()), Interrupter::new())
        .err()
        .unwrap();
    assert!(format!("{error:#}").contains("absent"), "{error:#}");
    assert!(!out.exists());
}

#[test]
fn a_grid_over_seeds_is_resumed_and_has_the_scores_of_its_runs() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = small(&["schedule.steps=2", "schedule.warmup_steps=1"]);
    let plan = Plan {
        seeds: 2,
        ..Plan::once(&[], vec!["model.embedding=16,32".parse().unwrap()])
    };
    let comparison = plan.comparison(&config).unwrap();
    let go = |folder: Folder, interrupter: Interrupter| {
        let options = crate::options(folder, &at("scenes"), &["clip"]);
        comparison.run::<Clip>(&plan, &options, &interrupter)
    };
    let interrupter = stopped();
    assert!(go(Folder::New(at("grid")), interrupter).unwrap().is_none());
    assert_eq!(Plan::read(&at("grid")).unwrap().as_ref(), Some(&plan));
    let ended = go(Folder::Resume(at("grid")), Interrupter::new());
    let ended = ended.unwrap().unwrap();

    assert_eq!(ended.columns.len(), 3);
    for (row, width) in ended.rows.iter().zip(["16", "32"]) {
        assert_eq!(row.value, width);
        let runs = [0, 1].map(|seed| {
            let run = at("grid").join(format!("embedding-{width}-seed-{seed}"));
            let metrics = metrics(&run);
            assert_eq!(metrics.config["seed"], seed);
            assert_eq!(metrics.config["model"]["embedding"].to_string(), width);
            metrics.retrieval.after.unwrap().r_sum
        });
        let kept = row.runs.iter().map(|run| run.numbers[2]);
        assert_eq!(kept.collect::<Vec<_>>(), runs);
        assert_eq!(row.numbers[2], (runs[0] + runs[1]) / 2.0);
        let deviation = row.deviation(2).unwrap();
        assert!((deviation - (runs[0] - runs[1]).abs() / 2_f64.sqrt()).abs() < 1e-9);
    }
    assert_eq!(metrics(&at("grid")).sweeps, [ended]);
}
