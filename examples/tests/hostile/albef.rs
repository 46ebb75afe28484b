//! `albef`: settings that do not fit together, runs of another program, teachers of another kind.

use std::fs;

use super::program::{ALBEF, Answer, CLIP, Count, Place, Program, files, table};

fn start(place: &Place, pairs: &[&str]) -> Answer {
    let mut command = place.small_run(ALBEF, &["--output", "run", "--data", "table.csv"]);
    // The objective comes first: settings may be its own.
    command.args(pairs.iter().flat_map(|pair| ["--set", pair]));
    Answer::of(&mut command)
}

fn resume(place: &Place, program: Program, run: &str, pairs: &[&str]) -> Answer {
    let sets = pairs.iter().flat_map(|pair| ["--set", pair]);
    Answer::of(&mut place.run(program, ["--resume", run].into_iter().chain(sets)))
}

#[test]
fn settings_that_do_not_fit_together_are_refused_and_leave_nothing() {
    let mut count = Count::new("settings of albef");
    let place = Place::new();
    table(&place, "");
    for (pair, reason) in [
        (
            "model.image.width=16",
            "image.width = 16 must be bert.width = 8",
        ),
        (
            "model.image.pooling=mean",
            "image.pooling must be \"token\"",
        ),
        (
            "model.bert.fusion_layers=0",
            "bert.fusion_layers = 0 must be in 1..",
        ),
        (
            "model.bert.fusion_layers=2",
            "bert.fusion_layers = 2 must be in 1..",
        ),
        (
            "model.bert.fusion_layers=3",
            "bert.fusion_layers = 3 must be in",
        ),
        (
            "model.bert.heads=3",
            "bert.width = 8 must be a multiple of bert.heads = 3",
        ),
        ("model.embedding=0", "embedding = 0 must be in"),
        (
            "tokens=13",
            "tokens = 13 must be in 2..=model.bert.context = 12",
        ),
        ("tokens=1", "tokens = 1 must be in 2.."),
        ("rerank=0", "rerank must be at least 1"),
        ("momentum.queue=0", "momentum.queue = 0 must be in 1.."),
        (
            "momentum.momentum=1.5",
            "momentum.momentum = 1.5 must be in [0, 1]",
        ),
        (
            "momentum.ramp_epochs=-1",
            "momentum.ramp_epochs = -1 must be at least 0",
        ),
        (
            "masking.probability=2",
            "masking.probability = 2 must be in [0, 1]",
        ),
        (
            "masking.soft_targets=-1",
            "masking.soft_targets = -1 must be in [0, 1]",
        ),
        ("teacher.steps=0", "teacher.steps must be at least 1"),
        ("objective=info-cmr", "objective info-cmr needs"),
        ("objective=nothing", "there is no objective"),
        (
            "model=huge",
            "there is no preset `huge`; there are tiny, base",
        ),
        ("momentum.que=5", "did you mean momentum.queue?"),
        ("loses.matching=false", "did you mean losses?"),
        ("model.text.width=8", "there is no setting model.text"),
        ("model.bert.vocabulary=10", "model.bert.vocabulary"),
    ] {
        count.refused(pair, &start(&place, &[pair]), reason);
        assert!(!place.join("run").exists(), "{pair}");
    }
    count.taken("none of them", &start(&place, &[]));
}

#[test]
fn a_run_of_another_program_is_refused_and_stays_as_it_was() {
    let mut count = Count::new("runs of another program");
    let place = Place::new();
    table(&place, "");
    place.finished(CLIP, "clip", &[]);
    place.finished(ALBEF, "albef", &[]);
    for (program, run) in [(ALBEF, "clip"), (CLIP, "albef")] {
        let before = files(&place.join(run));
        let answer = resume(&place, program, run, &[]);
        count.refused(
            run,
            &answer,
            "config.json is not a configuration of this program",
        );
        assert!(files(&place.join(run)) == before, "{run} was changed");
    }
}

#[test]
fn what_a_run_was_trained_with_stays() {
    let mut count = Count::new("changes on resume of albef");
    let place = Place::new();
    table(&place, "");
    place.finished(ALBEF, "run", &[]);
    let before = files(&place.join("run"));
    for (pair, reason) in [
        ("momentum.momentum=0.5", "it cannot go on with 0.5"),
        ("momentum.queue=7", "momentum.queue = 6"),
        ("momentum.ramp_epochs=2", "momentum.ramp_epochs = 1"),
        ("losses.matching=false", "losses.matching = true"),
        ("losses.ids=image", "losses.ids = \"none\""),
        ("masking.probability=0.3", "masking.probability = 0.15"),
        ("objective=srcl", "objective"),
        ("tokens=11", "tokens = 12"),
        ("model.bert.fusion_layers=2", "must be in 1.."),
    ] {
        count.refused(pair, &resume(&place, ALBEF, "run", &[pair]), reason);
        assert!(
            files(&place.join("run")) == before,
            "{pair} changed the run"
        );
    }
    let more = resume(&place, ALBEF, "run", &["schedule.steps=3"]);
    count.taken("one more step", &more);
}

#[test]
fn a_teacher_that_does_not_fit_is_refused_and_leaves_nothing() {
    let mut count = Count::new("teachers");
    let place = Place::new();
    table(&place, "");
    place.finished(CLIP, "clip", &[]);
    place.finished(ALBEF, "good", &["objective=info-nce"]);
    place.finished(ALBEF, "wide", &["objective=info-nce", "model.embedding=8"]);
    place.finished(
        ALBEF,
        "words",
        &["objective=info-nce", "model.bert.vocabulary=40"],
    );
    fs::create_dir(place.join("empty")).unwrap();
    let srcl = |run: &str| start(&place, &["objective=srcl", &format!("teacher.run={run}")]);
    for (run, reason) in [
        ("absent", "absent"),
        ("empty", "empty"),
        ("table.csv", "table.csv"),
        ("clip", "teacher.run"),
        (
            "wide",
            "image_projection.output.weight is [8, 8] there and [8, 4] here",
        ),
        ("words", "another tokenizer"),
    ] {
        let answer = srcl(run);
        count.refused(run, &answer, reason);
        assert!(answer.err.contains("teacher.run"), "{run}: {}", answer.err);
        assert!(!place.join("run").exists(), "{run}");
    }
    count.taken("good", &srcl("good"));
    assert!(!place.join("run/teacher").exists());
    // It goes on from another folder too.
    let elsewhere = Place::new();
    let mut command = elsewhere.run(ALBEF, ["--set", "schedule.steps=3", "--resume"]);
    let answer = Answer::of(command.arg(place.join("run")));
    count.taken("from elsewhere", &answer);
}

#[test]
fn a_damaged_teacher_is_refused_with_its_file() {
    let mut count = Count::new("damaged teachers");
    let place = Place::new();
    table(&place, "");
    count.taken("srcl", &start(&place, &["objective=srcl"]));
    let before = files(&place.join("run"));
    let checkpoint = place.join("run/teacher/checkpoints/step-000002");
    for name in ["model.bpk", "state.json", "SHA256SUMS"] {
        let file = checkpoint.join(name);
        let whole = fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for damaged in [flipped, whole[..whole.len() / 2].to_vec(), Vec::new()] {
            fs::write(&file, damaged).unwrap();
            let answer = resume(&place, ALBEF, "run", &["schedule.steps=3"]);
            count.refused(name, &answer, "teacher/checkpoints/step-000002");
        }
        fs::write(&file, whole).unwrap();
    }
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect();
    let [before, after]: [Vec<_>; 2] = [names(&before), names(&files(&place.join("run")))];
    assert_eq!(before, after);
    let more = resume(&place, ALBEF, "run", &["schedule.steps=3"]);
    count.taken("mended", &more);
}
