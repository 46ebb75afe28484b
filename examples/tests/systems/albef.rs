//! Small runs of `albef` from data to report, of one stage and of two, interrupted after every
//! step.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::store::{BurnpackStore, ModuleStore, bridge};
use burn::tensor::TensorData;
use burn::train::Interrupter;
use burn_contrastive_examples::systems::albef::{Albef, AlbefConfig, comparisons};
use burn_contrastive_examples::training::config;
use burn_contrastive_examples::training::plan::Plan;
use burn_contrastive_examples::training::run::{Ended, Folder, Options, Program, evaluate};

use crate::{exclusively, metrics, stopped};

type TrainingConfig = config::TrainingConfig<AlbefConfig>;

fn options(folder: Folder, scenes: &Path) -> Options {
    crate::options(folder, scenes, &["albef"])
}

fn small(pairs: &[&str]) -> TrainingConfig {
    let settings = [
        "data.scenes.train=24",
        "data.scenes.validation=8",
        "data.scenes.test=8",
        "data.scenes.image_size=16",
        "data.batch_size=8",
        "model.image.image_size=16",
        "model.image.patch_size=8",
        "model.image.width=16",
        "model.image.layers=1",
        "model.bert.vocabulary=300",
        "model.bert.width=16",
        "model.bert.layers=2",
        "model.bert.fusion_layers=1",
        "model.bert.intermediate=24",
        "model.embedding=8",
        "momentum.queue=20",
        "teacher.steps=4",
        "rerank=3",
        "schedule.steps=5",
        "schedule.warmup_steps=1",
        "validation.every=2",
    ];
    let pairs: Vec<String> = settings
        .iter()
        .chain(pairs)
        .map(ToString::to_string)
        .collect();
    TrainingConfig::load(None, &pairs).unwrap()
}

/// The parameters of the last checkpoint of a run.
fn parameters(run: &Path) -> BTreeMap<String, TensorData> {
    let folders = fs::read_dir(run.join("checkpoints")).unwrap();
    let last = folders.map(|entry| entry.unwrap().path()).max().unwrap();
    let mut store = BurnpackStore::from_file(last.join("model.bpk"));
    let all = store.get_all_tensors().unwrap();
    let all = all
        .iter()
        .map(|(path, tensor)| (path.clone(), bridge::to_data(tensor).unwrap()));
    all.collect()
}

#[track_caller]
fn assert_same(found: &Path, expected: &Path) {
    let [a, b] = [found, expected].map(metrics);
    assert_eq!(a.curves, b.curves);
    assert_eq!(a.retrieval.after, b.retrieval.after);
    assert_eq!(a.similarities, b.similarities);
    assert!(
        parameters(found) == parameters(expected),
        "the parameters differ"
    );
}

fn is_finished(ended: &Ended<Albef>) -> bool {
    matches!(ended, Ended::Reached(_))
}

#[test]
fn a_run_in_stages_that_is_interrupted_after_every_step_ends_like_another() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = small(&["objective=srcl"]);
    let go = |folder: Folder, interrupter| {
        Albef::run(&config, &options(folder, &at("scenes")), interrupter).unwrap()
    };
    let whole = go(Folder::New(at("whole")), Interrupter::new());
    assert!(is_finished(&whole));

    let parts = at("parts");
    assert!(!is_finished(&go(Folder::New(parts.clone()), stopped())));
    assert!(
        !parts.join("checkpoints").exists(),
        "the teacher comes first"
    );
    let mut calls = 1;
    while !is_finished(&go(Folder::Resume(parts.clone()), stopped())) {
        calls += 1;
        assert!(!parts.join("report.html").exists());
        if parts.join("checkpoints/step-000001").exists() && calls == 4 {
            // As if it had ended between both stages.
            fs::remove_dir_all(parts.join("checkpoints")).unwrap();
        }
    }
    // Four steps of the teacher, of which the last goes on to the first of the run, that once
    // more, and four more, of which the last ends it.
    assert_eq!(calls, 8);
    for stage in ["teacher", ""] {
        assert_same(&parts.join(stage), &at("whole").join(stage));
    }
    // The teacher was trained by plain contrast, on the run's tokens; the run does not train it.
    let teacher = parameters(&parts.join("teacher"));
    let frozen = parameters(&parts);
    let frozen = frozen.iter().filter_map(|(path, data)| {
        let rest = path.strip_prefix("teacher.")?;
        Some((rest, data))
    });
    let mut compared = 0;
    for (path, data) in frozen {
        assert!(teacher[&format!("model.{path}")] == *data, "{path}");
        compared += 1;
    }
    assert!(compared > 20, "{compared}");
    let tokens = |run: &Path| fs::read(run.join("tokenizer.json")).unwrap();
    assert!(tokens(&parts) == tokens(&parts.join("teacher")));
}

#[test]
fn a_teacher_on_data_of_its_own_reads_the_tokens_of_the_run() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // Scenes in other words.
    let scenes = burn_contrastive_examples::data::ScenesConfig {
        train: 40,
        seed: 7,
        ..small(&[]).shared.data.scenes
    };
    burn_contrastive_examples::data::scenes::generate(at("clean"), &scenes).unwrap();
    let mut config = small(&["objective=srcl", "teacher.steps=1", "schedule.steps=1"]);
    config.system.teacher.data = Some(at("clean"));
    let options = options(Folder::New(at("run")), &at("scenes"));
    assert!(is_finished(
        &Albef::run(&config, &options, Interrupter::new()).unwrap()
    ));
    let [run, teacher] = [at("run"), at("run/teacher")];
    let tokens = |run: &Path| fs::read(run.join("tokenizer.json")).unwrap();
    assert!(tokens(&run) == tokens(&teacher));
    let names = [run, teacher].map(|run| metrics(&run).dataset.name);
    assert!(
        names[1].contains("clean") && !names[0].contains("clean"),
        "{names:?}"
    );
}

#[test]
fn a_sweep_shares_a_teacher_is_resumed_and_has_the_scores_of_its_runs() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = small(&["teacher.steps=2", "schedule.steps=2"]);
    let thresholds = |values: &str| vec![format!("threshold={values}").parse().unwrap()];
    assert!(comparisons::sweep(&config, &thresholds("nan")).is_err());
    assert!(comparisons::sweep(&config, &thresholds("much")).is_err());
    let plan = Plan::once(&["sweep"], thresholds("0.2,0.6"));
    let sweep = comparisons::sweep(&config, &plan.grid).unwrap();
    let go = |folder: Folder, interrupter: Interrupter| {
        let options = options(folder, &at("scenes"));
        sweep.run::<Albef>(&plan, &options, &interrupter).unwrap()
    };
    let interrupter = stopped();
    assert!(go(Folder::New(at("sweep")), interrupter).is_none());
    let ended = go(Folder::Resume(at("sweep")), Interrupter::new()).unwrap();

    let runs = ["threshold-0.2", "threshold-0.6", "srcl"].map(|run| at("sweep").join(run));
    let rows: Vec<_> = ended.rows.iter().chain(&ended.baseline).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!([rows[0].numeric, rows[1].numeric], [0.2, 0.6].map(Some));
    for (row, run) in rows.iter().zip(&runs) {
        let after = metrics(run).retrieval.after.unwrap();
        let both = [after.scores.image_to_text, after.scores.text_to_image];
        assert_eq!(row.numbers[..2], both.map(|scores| scores.recall_at_1));
        assert!(!run.join("teacher").exists(), "one teacher serves all");
    }
    assert_eq!(metrics(&at("sweep")).sweeps, [ended]);
    // Thresholds are not all the same to the runs.
    assert!(metrics(&runs[0]).curves.loss != metrics(&runs[1]).curves.loss);
}

#[test]
fn known_false_negatives_are_removed_in_the_pilot() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = small(&["schedule.steps=2", "data.scenes.repeated=1"]);
    let pilot = comparisons::pilot(&config).unwrap();
    let options = options(Folder::New(at("pilot")), &at("scenes"));
    let plan = Plan::once(&["pilot"], Vec::new());
    let ended = pilot.run::<Albef>(&plan, &options, &Interrupter::new());
    let ended = ended.unwrap();
    assert_eq!(ended.unwrap().rows.len(), 2);
    // The same batches, with fewer negatives.
    let [all, removed] = ["all", "removed"].map(|run| {
        let losses = metrics(&at("pilot").join(run)).curves.losses;
        losses[0].curve.points[0].value
    });
    assert!(removed < all, "{removed} is not below {all}");
}

#[test]
fn weights_are_evaluated_without_training_as_the_run_that_they_are_of() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut config = small(&[]);
    let go = |name: &str| options(Folder::New(at(name)), &at("scenes"));
    Albef::run(&config, &go("run"), Interrupter::new()).unwrap();
    config.shared.init = Some(at("run").to_str().unwrap().parse().unwrap());
    config.shared.data.tokenizer = Some(at("run/tokenizer.json"));
    evaluate::<Albef>(&config, &go("evaluated")).unwrap();
    let [run, evaluated] = ["run", "evaluated"].map(|run| metrics(&at(run)));
    assert_eq!(evaluated.retrieval.after, run.retrieval.after);
    assert_eq!(evaluated.retrieval.reranked, run.retrieval.reranked);
    assert!(evaluated.retrieval.before.is_none() && evaluated.curves.loss.points.is_empty());
}
