//! What the program refuses, before it does anything.

use std::fs;
use std::path::Path;
use std::process::Command;

use burn_contrastive_examples::compare::results::{Results, Store};

use super::toy;

/// The message of a refusal.
#[track_caller]
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    let output = command
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

#[test]
fn what_makes_no_sense_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (
            &["run", "--only=info-nse"][..],
            "there is no objective \"info-nse\"",
        ),
        (&["run", "--rates=0,1.5"], "a false-negative rate is 1.5"),
        (&["run", "--rates=0.1,nan"], "a false-negative rate is NaN"),
        (&["run", "--rates=0.1,0.1"], "the rate 0.1 is there twice"),
        (&["run", "--rates=a"], "invalid value 'a'"),
        (&["run", "--seeds=0"], "0 is not in 1..=1000"),
        (&["run", "--jobs=0"], "0 is not in 1..=256"),
        (
            &["run", "--set=objective=siglip"],
            "others would have no effect",
        ),
        (&["run", "--set=seed=3"], "others would have no effect"),
        (
            &["run", "--set=data.equal_meaning=0.5"],
            "others would have no effect",
        ),
        (
            &["run", "--set=optimizer.learning_rate=0.1"],
            "others would have no effect",
        ),
        (
            &["run", "--set=schedule.epochs=3"],
            "the budget of a comparison is schedule.steps",
        ),
        (
            &["run", "--set=schedule.stepz=3"],
            "did you mean schedule.steps?",
        ),
        (
            &["run", "--set=model.image.dropout=0.1"],
            "the runs of a comparison have none",
        ),
        (
            &["run", "--set=schedule.steps=0"],
            "schedule.steps must be at least 1",
        ),
        (&["run", "--config=missing.json"], "missing.json"),
        (&["run", "--device=abacus"], "abacus"),
        (&["run", "--data=nowhere"], "cannot read"),
        (&["report", "--page=a.html"], "results.json does not exist"),
        (&["report"], "--markdown"),
        (&[], "Usage"),
    ] {
        let message = refused(folder.path(), arguments);
        assert!(message.contains(expected), "{arguments:?}: {message}");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            0,
            "{arguments:?}"
        );
    }
}

#[test]
fn results_that_are_damaged_or_of_another_setup_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("runs/compare")).unwrap();
    let results = Results::new(toy(), "of other images".to_string());
    results.write(&store.file()).unwrap();
    let whole = fs::read_to_string(store.file()).unwrap();

    let message = refused(folder.path(), &["run", "--jobs=1"]);
    assert!(
        message.contains("the results there are of other data"),
        "{message}"
    );
    let message = refused(
        folder.path(),
        &["run", "--jobs=1", "--set=schedule.steps=5"],
    );
    assert!(
        message.contains("the results there are of another setup"),
        "{message}"
    );
    let message = refused(folder.path(), &["report", "--page=a.html"]);
    assert!(message.contains("has no run to report on yet"), "{message}");
    assert_eq!(fs::read_to_string(store.file()).unwrap(), whole);

    for (damaged, expected) in [
        (
            whole.replace("\"seeds\": 2", "\"seeds\": \"two\""),
            "protocol.seeds",
        ),
        (whole.replace("\"seeds\": 2", "\"seedz\": 2"), "protocol"),
        (whole.replace("\"runs\": [", "\"runs\": [{}"), "runs[0]"),
        (
            whole[..whole.len() / 2].to_string(),
            "is no results file of compare",
        ),
        (format!("{whole}x"), "trailing characters"),
        (String::new(), "is no results file of compare"),
        ("[]".to_string(), "is no results file of compare"),
    ] {
        fs::write(store.file(), &damaged).unwrap();
        for arguments in [&["run"][..], &["list"], &["report", "--page=a.html"]] {
            let message = refused(folder.path(), arguments);
            assert!(message.contains(expected), "{arguments:?}: {message}");
        }
        assert_eq!(fs::read_to_string(store.file()).unwrap(), damaged);
    }
}

#[test]
fn a_report_is_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let message = refused(folder.path(), &["report", "--results=.", "--page=a.html"]);
    assert!(message.contains("error: "), "{message}");
    assert!(!folder.path().join("a.html").exists());
}
