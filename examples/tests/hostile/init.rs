//! `--init`: runs that start from the weights of another, or cannot.

use serde_json::Value;

use super::program::{ALBEF, Answer, CLIP, Count, Place, Program, metrics, table};

/// A place with a run of each program.
fn with_runs() -> Place {
    let place = Place::new();
    table(&place, "");
    place.finished(CLIP, "clip", &[]);
    place.finished(ALBEF, "albef", &[]);
    place
}

/// One more step from the weights of `init`, in the folder `next`.
fn from(place: &Place, program: Program, init: &str, pairs: &[&str]) -> Answer {
    let arguments = ["--output", "next", "--data", "table.csv", "--init", init];
    let pairs = [&["schedule.steps=1"], pairs].concat();
    let mut command = place.run(program, arguments);
    command.args(pairs.iter().flat_map(|pair| ["--set", pair]));
    Answer::of(&mut command)
}

fn scores(place: &Place, run: &str, when: &str) -> Value {
    let scores = metrics(&place.join(run))["retrieval"][when].clone();
    assert!(scores.is_object(), "{run} has no scores {when}");
    scores
}

#[test]
fn a_run_begins_with_the_scores_that_another_ended_with() {
    let mut count = Count::new("--init");
    let place = Place::new();
    let scenes = ["train=16", "validation=4", "test=20", "image_size=16"];
    let scenes = scenes.map(|pair| format!("data.scenes.{pair}"));
    let mut command = place.small_run(ALBEF, &["--output", "albef"]);
    command.args(scenes.iter().flat_map(|pair| ["--set", pair]));
    // So that it ends elsewhere than it began.
    command.args([
        "--set",
        "schedule.steps=12",
        "--set",
        "optimizer.learning_rate=0.01",
    ]);
    count.taken("the first", &Answer::of(&mut command));
    let ended = scores(&place, "albef", "after");
    assert_ne!(ended, scores(&place, "albef", "before"));
    let mut again = |init: &str, pairs: &[&str]| {
        let _ = std::fs::remove_dir_all(place.join("next"));
        let mut command = place.run(ALBEF, ["--output", "next", "--init", init]);
        command.args(["--set", "schedule.steps=1"]);
        command.args(pairs.iter().flat_map(|pair| ["--set", pair]));
        count.taken(init, &Answer::of(&mut command));
        scores(&place, "next", "before")
    };
    assert_eq!(again("albef", &[]), ended);
    // What is carried from step to step is the run's own, and so is the objective.
    let other = ["objective=srcl", "momentum.queue=9"];
    assert_eq!(again("albef", &other), ended);
    assert_ne!(again("albef:model.image", &[]), ended);
    again("albef", &["model.image.image_size=24"]);
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name_and_leave_nothing() {
    let mut count = Count::new("--init that is refused");
    let place = with_runs();
    let layers = "model.bert.layers=3";
    for (program, init, pairs, reason) in [
        (ALBEF, "absent", &[][..], "no run in absent"),
        (ALBEF, "table.csv", &[], "no run in table.csv"),
        (ALBEF, ":model", &[], "there is no run before"),
        (ALBEF, "clip", &[], "--init clip: it is no run of albef"),
        (CLIP, "albef", &[], "--init albef: it is no run of clip"),
        (
            ALBEF,
            "albef:model.imag",
            &[],
            "has no module model.imag; there are ",
        ),
        (ALBEF, "albef:model.image.positions", &[], "has no module"),
        (ALBEF, "albef", &[layers], "lacks model.bert.text.layers.1."),
        (
            ALBEF,
            "albef",
            &[layers, "init.new=[\"^model.bert.fusion\"]"],
            "init.new",
        ),
        (
            ALBEF,
            "albef",
            &["init.new=[\"(\"]"],
            "no regular expression",
        ),
        (
            ALBEF,
            "albef",
            &["model.embedding=8"],
            "is [8, 4] there and [8, 8] here",
        ),
        (ALBEF, "albef", &["model.image.layout=clip"], "init.new"),
        (ALBEF, "albef", &["init.run=5"], "init"),
    ] {
        let input = format!("{init} {pairs:?}");
        count.refused(&input, &from(&place, program, init, pairs), reason);
        assert!(!place.join("next").exists(), "{input}");
    }
    let fewer = ["model.image.layers=2"];
    let two = "init.new=[\"^model\\\\.image\\\\.transformer\\\\.layers\\\\.1\\\\.\"]";
    let answer = from(&place, ALBEF, "albef", &[fewer[0], two]);
    count.taken("a new layer", &answer);
    place.finished(ALBEF, "deep", &fewer);
    std::fs::remove_dir_all(place.join("next")).unwrap();
    let one = "model.image.layers=1";
    let answer = from(&place, ALBEF, "deep", &[one]);
    count.refused(
        "a layer too many",
        &answer,
        "model.image.transformer.layers.1.",
    );
    assert!(answer.err.contains("init.unused"), "{}", answer.err);
    let unused = "init.unused=[\"image.*layers\\\\.1\"]";
    count.taken("unused", &from(&place, ALBEF, "deep", &[one, unused]));
}
