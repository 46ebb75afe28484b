//! `visual-semantic`: settings that do not fit together, base networks of another kind, changes on
//! resume.

use std::fs;

use super::program::{Answer, CLIP, Count, Place, VISUAL_SEMANTIC, files, table};

fn start(place: &Place, pairs: &[&str]) -> Answer {
    let arguments = ["--output", "run", "--data", "table.csv"];
    let mut command = place.small_run(VISUAL_SEMANTIC, &arguments);
    command.args(pairs.iter().flat_map(|pair| ["--set", pair]));
    Answer::of(&mut command)
}

fn resume(place: &Place, run: &str, pairs: &[&str]) -> Answer {
    let sets = pairs.iter().flat_map(|pair| ["--set", pair]);
    let arguments = ["--resume", run].into_iter().chain(sets);
    Answer::of(&mut place.run(VISUAL_SEMANTIC, arguments))
}

#[test]
fn settings_that_do_not_fit_together_are_refused_and_leave_nothing() {
    let mut count = Count::new("settings of visual-semantic");
    let place = Place::new();
    table(&place, "");
    for (pair, reason) in [
        ("model.embedding=0", "embedding = 0 must be in"),
        ("model.heads.hidden=0", "heads.hidden = 0 must be in"),
        ("model.text.words=0", "text.words = 0 must be in"),
        ("model.image.blocks=[]", "image.blocks has 0 stages"),
        ("model.image.blocks=[1,1,1,1]", "leaves one place"),
        (
            "base.first.batch_size=1",
            "base.first: batch_size = 1 must be at least 2",
        ),
        (
            "base.second.learning_rate=0",
            "base.second: learning_rate = 0 must be positive",
        ),
        (
            "base.second.schedule.steps=0",
            "base.second: schedule.steps must be at least 1",
        ),
        ("base.objective=srcl", "base: objective srcl needs"),
        ("objective=info-cmr", "objective info-cmr needs"),
        (
            "model=huge",
            "there is no preset `huge`; there are tiny, base",
        ),
        ("model.image=resnet", "there is no image encoder `resnet`"),
        ("base.secund=null", "did you mean base.second?"),
        ("train_image=1", "train_image: expected"),
        ("model.text=null", "model.text is a group of settings"),
        ("model.text.vocabulary=10", "model.text.vocabulary"),
    ] {
        count.refused(pair, &start(&place, &[pair]), reason);
        assert!(!place.join("run").exists(), "{pair}");
    }
    count.taken("none of them", &start(&place, &[]));
    assert!(place.join("run/base-second/report.html").exists());
}

#[test]
fn word_vectors_that_cannot_be_read_are_refused_and_leave_nothing() {
    let mut count = Count::new("word vectors");
    let place = Place::new();
    table(&place, "");
    for (content, reason) in [
        (&b""[..], "line 1: there is no vector"),
        (b"dog 1 2 3\n", "model.text.words = 4"),
        (b"9 300\n", "the vectors are of 300 numbers"),
        (
            b"dog 1 2 3 4\ncat 1 2 3 NaN\n",
            "line 2: NaN is not a finite number",
        ),
        (
            b"dog 1 2 3 4\n\xf0\x28 1 2 3 4\n",
            "line 2: it is not UTF-8",
        ),
        (b"unheard 1 2 3 4\n", "none of its words"),
    ] {
        fs::write(place.join("v.txt"), content).unwrap();
        // Read in the first phase of a base network, and where there is none.
        for more in [&[][..], &["base=null", "train_image=true"]] {
            let answer = start(&place, &[&["model.text.vectors=v.txt"], more].concat());
            count.refused(reason, &answer, reason);
            assert!(answer.err.contains("model.text.vectors"), "{}", answer.err);
            assert!(!place.join("run").exists(), "{reason}");
        }
    }
    for path in ["absent.txt", "."] {
        let answer = start(&place, &[&format!("model.text.vectors={path}")]);
        count.refused(path, &answer, "model.text.vectors");
        assert!(!place.join("run").exists(), "{path}");
    }
}

#[test]
fn what_a_run_was_trained_with_stays() {
    let mut count = Count::new("changes on resume of visual-semantic");
    let place = Place::new();
    table(&place, "");
    place.finished(VISUAL_SEMANTIC, "run", &[]);
    let before = files(&place.join("run"));
    for (pair, reason) in [
        ("train_image=true", "train_image = false"),
        ("base.first.learning_rate=1", "it cannot go on with 1"),
        ("base=null", "cannot go on with"),
        ("objective=con-vse", "objective"),
        ("model.heads.output=5", "model.heads.output = 4"),
    ] {
        count.refused(pair, &resume(&place, "run", &[pair]), reason);
        let after = files(&place.join("run"));
        assert!(after == before, "{pair} changed the run");
    }
    let more = resume(&place, "run", &["schedule.steps=3"]);
    count.taken("one more step", &more);
}

#[test]
fn a_base_network_that_does_not_fit_is_refused_and_leaves_nothing() {
    let mut count = Count::new("base networks");
    let place = Place::new();
    table(&place, "");
    place.finished(CLIP, "clip", &[]);
    place.finished(VISUAL_SEMANTIC, "good", &["base.second=null"]);
    fs::create_dir(place.join("empty")).unwrap();
    let on = |run: &str| start(&place, &[&format!("base.run={run}")]);
    for (run, reason) in [
        ("absent", "absent"),
        ("empty", "empty"),
        ("table.csv", "table.csv"),
        ("clip", "is not a configuration of this program"),
        ("good", "good has heads"),
    ] {
        let answer = on(run);
        count.refused(run, &answer, reason);
        assert!(answer.err.contains("base.run"), "{run}: {}", answer.err);
        assert!(!place.join("run").exists(), "{run}");
    }
    count.taken("good", &on("good/base-first"));
    assert!(!place.join("run/base-first").exists());
}
