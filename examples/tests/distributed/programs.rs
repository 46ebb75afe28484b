//! Every program but `clip`, with its stages and subcommands: two processes train what one trains.

use std::fs;
use std::path::Path;

use super::{assert_close, fail, measured, run, succeed};

/// Settings of some small steps on scenes, whose batches have four shards.
const SCENES: [&str; 9] = [
    "data.scenes.train=60",
    "data.scenes.validation=10",
    "data.scenes.test=10",
    "data.scenes.image_size=32",
    "data.batch_size=16",
    "sharding.pairs=4",
    "schedule.steps=8",
    "schedule.warmup_steps=0",
    "validation.every=4",
];

/// One process and two, in folders called as the program with the count behind.
fn two_train_as_one(folder: &Path, words: &[&str], init: Option<&str>, settings: &[&str]) {
    let name = words[1..].last().copied().unwrap_or("run");
    for (count, run_of) in [(None, name.to_string()), (Some(2), format!("{name}-of-2"))] {
        let mut command = run(folder, count, words, &["--output", &run_of]);
        command.args(init.iter().flat_map(|run| ["--init", run]));
        command.args(settings.iter().flat_map(|pair| ["--set", pair]));
        succeed(command);
    }
    let of_two = folder.join(format!("{name}-of-2"));
    assert_close(&measured(&of_two), &measured(&folder.join(name)));
    // What is written is written once: the first process leaves what one alone does.
    assert_eq!(names(&of_two), names(&folder.join(name)));
}

fn names(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn albef_and_what_it_is_fine_tuned_to() {
    let folder = tempfile::tempdir().unwrap();
    let albef = env!("CARGO_BIN_EXE_albef");
    let small = [
        "model.image.image_size=16",
        "model.image.patch_size=8",
        "model.image.width=16",
        "model.image.layers=1",
        "model.bert.width=16",
        "model.bert.layers=2",
        "model.bert.fusion_layers=1",
        "model.bert.intermediate=24",
        "model.embedding=8",
        "momentum.queue=32",
        "rerank=4",
    ];
    two_train_as_one(
        folder.path(),
        &[albef],
        None,
        &[&SCENES[..], &small].concat(),
    );
    let tuned = [
        // Negatives are drawn in a shard.
        "sharding.pairs=4",
        "data.batch_size=16",
        "schedule.steps=8",
        "validation.every=4",
    ];
    let vqa = [&tuned[..], &["validation_questions=20"]].concat();
    two_train_as_one(folder.path(), &[albef, "vqa"], Some("run"), &vqa);
    let nlvr2 = ["assignment.batch_size=16", "assignment.steps=6"];
    let nlvr2 = [&tuned[..], &nlvr2].concat();
    two_train_as_one(folder.path(), &[albef, "nlvr2"], Some("run"), &nlvr2);
    let runs = ["nlvr2", "nlvr2-of-2"].map(|run| folder.path().join(run).join("text-assignment"));
    assert_close(&measured(&runs[1]), &measured(&runs[0]));
}

/// Batch norm: what validation finds depends on the running statistics.
#[test]
fn radiograph_and_its_classifiers() {
    let folder = tempfile::tempdir().unwrap();
    let radiograph = env!("CARGO_BIN_EXE_radiograph");
    let small = [
        "findings.train=48",
        "findings.validation=8",
        "findings.test=10",
        "findings.image_size=32",
        "findings.query_images=1",
        "findings.query_sentences=1",
        "findings.candidates=2",
        "model.image.image_size=32",
        "model.image.blocks=[1,1]",
        "model.image.width=4",
        "model.bert.width=16",
        "model.bert.layers=1",
        "model.bert.intermediate=24",
        "model.embedding=8",
    ];
    two_train_as_one(
        folder.path(),
        &[radiograph],
        None,
        &[&SCENES[..], &small].concat(),
    );
    let tuned = ["schedule.steps=8", "validation.every=4", "labels=0.5"];
    for name in ["linear", "finetune"] {
        two_train_as_one(folder.path(), &[radiograph, name], Some("run"), &tuned);
    }
    // Five images and two processes.
    let mut few = run(
        folder.path(),
        Some(2),
        &[radiograph, "linear"],
        &["--output", "few"],
    );
    few.args(["--init", "run", "--set", "labels=0.05"]);
    let output = fail(few);
    let says = "cannot be divided among 2 workers: set data.batch_size to a multiple of 2, ";
    assert!(output.contains(says), "{output}");
    assert!(!folder.path().join("few").exists());
}

/// Every phase of the base network too.
#[test]
fn visual_semantic_and_its_base_network() {
    let folder = tempfile::tempdir().unwrap();
    let small = [
        "model.image.image_size=16",
        "model.image.blocks=[1,1]",
        "model.image.width=4",
        "model.text.words=6",
        "model.text.width=10",
        "model.embedding=8",
        "model.heads.hidden=12",
        "model.heads.output=6",
        "base.first.batch_size=16",
        "base.first.schedule.steps=4",
        "base.first.schedule.warmup_steps=0",
        "base.second.batch_size=16",
        "base.second.schedule.steps=4",
    ];
    let visual_semantic = env!("CARGO_BIN_EXE_visual-semantic");
    let settings = [&SCENES[..], &small].concat();
    two_train_as_one(folder.path(), &[visual_semantic], None, &settings);
    for phase in ["base-first", "base-second"] {
        let runs = ["run", "run-of-2"].map(|run| folder.path().join(run).join(phase));
        assert_close(&measured(&runs[1]), &measured(&runs[0]));
    }
}

/// The first process makes the regions, which the other waits for.
#[test]
fn it_contrast_and_the_tower_of_its_regions() {
    let folder = tempfile::tempdir().unwrap();
    let small = [
        "model.feature=8",
        "tags=true",
        "model.bert.width=16",
        "model.bert.layers=1",
        "model.bert.intermediate=24",
        "negatives.clusters=2",
        "negatives.noise=5",
        "regions.boxes.per_image=3",
        "regions.tower.steps=4",
        "regions.tower.batch_size=16",
        "regions.tower.model.image.image_size=16",
        "regions.tower.model.image.patch_size=8",
        "regions.tower.model.image.width=16",
        "regions.tower.model.image.layers=1",
        "regions.tower.model.text.width=16",
        "regions.tower.model.text.layers=1",
        "regions.tower.model.embedding=8",
    ];
    let it_contrast = env!("CARGO_BIN_EXE_it-contrast");
    two_train_as_one(
        folder.path(),
        &[it_contrast],
        None,
        &[&SCENES[..], &small].concat(),
    );
    // A tower that is there already, so that nothing but the regions comes before.
    let made = ["regions.run=run/clip"];
    let settings = [&SCENES[..], &small, &made].concat();
    let mut command = run(
        folder.path(),
        Some(2),
        &[it_contrast],
        &["--output", "made"],
    );
    command.args(settings.iter().flat_map(|pair| ["--set", pair]));
    succeed(command);
    assert_close(
        &measured(&folder.path().join("made")),
        &measured(&folder.path().join("run")),
    );
}
