//! Programs side by side, killed and resumed, come to what one alone comes to.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use burn_contrastive_examples::compare::data::Material;
use burn_contrastive_examples::compare::results::{Results, Run, Store};
use burn_contrastive_examples::compare::trial::Stage;

use super::toy;

/// Runs the program in a folder, whose results have the setup of a toy.
pub fn compare(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    command.current_dir(folder).args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

const ONLY: &str = "--only=info-nce,srcl,vse";

fn begin(folder: &Path) {
    let mut setup = toy();
    setup.protocol.seeds = 1;
    let material = Material::open(&setup, &folder.join("runs")).unwrap();
    let store = Store::open(&folder.join("runs/compare")).unwrap();
    let results = Results::new(setup, material.fingerprint);
    results.write(&store.file()).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub fn succeeded(output: &Output) -> String {
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{error}");
    out
}

fn read(folder: &Path) -> Results {
    let file = folder.join("runs/compare/results.json");
    Results::read(&file).unwrap().unwrap()
}

/// The runs without the times that they took, and the memory that programs measure by themselves.
fn timeless(results: &Results) -> Vec<Run> {
    let runs = results.runs.iter().cloned();
    let timeless = |run| Run {
        step_seconds: 0.0,
        step_bytes: None,
        seconds: 0.0,
        made: None,
        ..run
    };
    runs.map(timeless).collect()
}

/// Kills a comparison twice, each time once it has done a few runs.
fn kill_twice(folder: &Path) {
    begin(folder);
    for _ in 0..2 {
        let done = read(folder).runs.len();
        let mut program = compare(folder, &["run", "--jobs=2", ONLY]).spawn().unwrap();
        let since = Instant::now();
        while read(folder).runs.len() < done + 3 {
            assert!(since.elapsed() < Duration::from_secs(120), "no run ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Without a chance to tell its workers.
        program.kill().unwrap();
        program.wait().unwrap();
    }
}

#[test]
fn killed_and_side_by_side_it_comes_to_the_same() {
    let [alone, killed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    begin(alone.path());
    let output = compare(alone.path(), &["run", "--jobs=1", ONLY])
        .output()
        .unwrap();
    let told = succeeded(&output);
    let known = 3 * 6 + 1 + 3 * 2;
    assert!(
        told.contains(&format!("0 done, 0 of them failed; {known} left")),
        "{told}"
    );
    // Of an objective whose best value is at an end of the three, two trials more.
    let all = read(alone.path()).runs.len();
    let beyond = all - known;
    assert!(beyond <= 3 * 2 && beyond.is_multiple_of(2), "{told}");
    assert_eq!(
        told.lines().filter(|line| line.ends_with(" left")).count(),
        all + 1
    );

    kill_twice(killed.path());
    // As of a program that was killed between its results and the end of its claim.
    let claims = killed.path().join("runs/compare/claims");
    fs::write(claims.join("0123456789abcdef"), "").unwrap();
    let output = compare(killed.path(), &["run", "--jobs=2", ONLY])
        .output()
        .unwrap();
    let told = succeeded(&output);
    assert!(!told.contains("\n0 done"), "{told}");
    assert_eq!(
        timeless(&read(killed.path())),
        timeless(&read(alone.path()))
    );
    // The program counts its memory, and nothing of the workers remains.
    assert!(
        read(alone.path())
            .runs
            .iter()
            .all(|run| run.step_bytes > Some(1_000))
    );
    assert_eq!(fs::read_dir(claims).unwrap().count(), 0);
    let folder = killed.path().join("runs/compare");
    let files = fs::read_dir(&folder).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files.len(), 4, "{files:?}");

    let output = compare(killed.path(), &["list", ONLY]).output().unwrap();
    let listed = succeeded(&output);
    let searched = read(alone.path())
        .runs
        .into_iter()
        .filter(|run| run.trial.stage == Stage::Search && run.trial.contender == "info-nce");
    let searched = searched.count();
    for line in [
        format!("info-nce                       {searched}/{searched}     1/1     1/1"),
        format!("{all} done"),
        "; 0 left".into(),
    ] {
        assert!(listed.contains(&line), "{listed}");
    }
    let arguments = ["report", "--page=found.html", "--markdown=found.md"];
    succeeded(&compare(killed.path(), &arguments).output().unwrap());
    let page = fs::read_to_string(killed.path().join("found.html")).unwrap();
    assert!(page.contains("<h1>Which objective, when negatives are false?</h1>"));
}
