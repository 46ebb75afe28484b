//! `--distributed mpi`: several processes train what one trains; `clip` in all that may happen to
//! it, and every other program.
#![cfg(all(unix, feature = "mpi", feature = "flex"))]

mod programs;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A run of some small steps. Four shards a batch, so that they are the same for one, two and four
/// workers.
const SMALL: [&str; 17] = [
    "data.scenes.train=60",
    "data.scenes.validation=10",
    "data.scenes.test=10",
    "data.scenes.image_size=32",
    "data.batch_size=16",
    "sharding.pairs=4",
    "sharding.mode=recompute",
    "model.image.image_size=16",
    "model.image.patch_size=8",
    "model.image.width=16",
    "model.image.layers=1",
    "model.image.dropout=0.1",
    "model.text.width=16",
    "model.text.layers=1",
    "model.embedding=8",
    "schedule.steps=8",
    "validation.every=4",
];

const CLIP: &str = env!("CARGO_BIN_EXE_clip");

/// `clip` with these arguments on `count` processes, or on one without MPI.
fn clip(folder: &Path, count: Option<usize>, arguments: &[&str]) -> Command {
    run(folder, count, &[CLIP], arguments)
}

/// Likewise the program that those words call, a file and subcommands.
fn run(folder: &Path, count: Option<usize>, words: &[&str], arguments: &[&str]) -> Command {
    let mut command = match count {
        Some(count) => {
            let mut command = mpirun(folder);
            command.args(["-n", &count.to_string()]).args(words);
            command.args(["--distributed", "mpi"]);
            command
        }
        None => {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            command
        }
    };
    command.current_dir(folder).arg("--plain").args(arguments);
    command.args(["--lines-every", "1"]).stdin(Stdio::null());
    command
}

fn small(folder: &Path, count: Option<usize>, arguments: &[&str]) -> Command {
    let mut command = clip(folder, count, arguments);
    command.args(SMALL.iter().flat_map(|pair| ["--set", pair]));
    command
}

fn mpirun(folder: &Path) -> Command {
    let mut command = Command::new("mpirun");
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        // As root, and with fewer cores than processes.
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "true");
    command
}

fn text(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    let streams = streams.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    streams.join("\n--\n")
}

#[track_caller]
fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{command:?}\n{text}");
    text
}

#[track_caller]
fn fail(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = text(&output);
    assert!(!output.status.success(), "{command:?}\n{text}");
    text
}

/// Losses, gradient norms and what validation found.
fn measured(run: &Path) -> Vec<f64> {
    let text = fs::read_to_string(run.join("metrics.json")).unwrap();
    let metrics: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    numbers(&metrics["curves"], &mut found);
    found
}

fn numbers(value: &Value, found: &mut Vec<f64>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| numbers(item, found)),
        Value::Object(fields) => fields.values().for_each(|item| numbers(item, found)),
        other => found.extend(other.as_f64()),
    }
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    assert!(found.len() > 20, "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        let error = (found - expected).abs();
        assert!(
            error <= 1e-4 * (1.0 + expected.abs()),
            "{found}, alone {expected}"
        );
    }
}

/// Most of them, as they lie at the end of the file: not what it begins with, ids of parameters.
fn parameters(run: &Path, step: usize) -> Vec<u8> {
    let model = format!("checkpoints/step-{step:06}/model.bpk");
    let mut file = fs::read(run.join(model)).unwrap();
    file.split_off(file.len() - 50_000)
}

#[test]
fn two_and_four_processes_train_what_one_does_and_only_the_first_writes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    succeed(small(folder.path(), None, &["--output", "alone"]));
    let alone = measured(&at("alone"));
    for count in [1, 2, 4] {
        let name = format!("of-{count}");
        let output = succeed(small(folder.path(), Some(count), &["--output", &name]));
        assert_close(&measured(&at(&name)), &alone);
        let same = parameters(&at(&name), 8) == parameters(&at("alone"), 8);
        assert!(same || count > 1, "one process is not alone");
        // What is said is said once.
        assert_eq!(output.matches("After training").count(), 1, "{output}");
        assert_eq!(output.matches("step 8/8").count(), 1, "{output}");
        let workers = format!("{count} workers, each with {} shard", 4 / count);
        assert_eq!(output.contains(&workers), count > 1, "{output}");
    }
    let mut runs: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    runs.sort();
    assert_eq!(runs, ["alone", "of-1", "of-2", "of-4", "runs"]);
}

#[test]
fn a_run_goes_on_with_another_number_of_processes() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    // Steps that take long enough for a signal to arrive before the last.
    let slow = |count, output: &str| {
        let mut command = small(folder.path(), count, &["--output", output]);
        let settings = [
            "schedule.steps=16",
            "model.image.layers=6",
            "model.image.width=64",
            "model.text.layers=6",
            "model.text.width=64",
        ];
        command.args(settings.iter().flat_map(|pair| ["--set", pair]));
        command
    };
    succeed(slow(None, "alone"));
    let alone = measured(&folder.path().join("alone"));
    // The learning rate follows from the number of steps: an interrupted run, not a shorter one.
    for (count, other) in [(2, Some(4)), (4, None)] {
        fs::remove_dir_all(&run).ok();
        interrupted_after(&mut slow(Some(count), "run"), " 3/16");
        assert!(!run.join("metrics.json").exists());
        let output = succeed(clip(folder.path(), other, &["--resume", "run"]));
        assert!(output.contains("Resuming after step"), "{output}");
        assert_close(&measured(&run), &alone);
    }
}

/// Tells the first worker to end once the output has `line`; all stop after the same step.
fn interrupted_after(command: &mut Command, line: &str) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    end_in_time(child.id());
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    output.find(|found| found.as_ref().unwrap().contains(line));
    signal("-TERM", workers(child.id())[0]);
    let rest: Vec<_> = output.map(Result::unwrap).collect();
    child.wait().unwrap();
    let rest = rest.join("\n");
    assert!(rest.contains("Interrupted; saved"), "{rest}");
    assert!(
        rest.contains("mpirun -n ") && rest.contains("--distributed mpi"),
        "{rest}"
    );
}

/// The processes that `mpirun` has started, in the order of their ranks.
fn workers(mpirun: u32) -> Vec<u32> {
    let children = format!("/proc/{mpirun}/task/{mpirun}/children");
    let children = fs::read_to_string(children).unwrap();
    let ids = children.split_whitespace().map(|id| id.parse().unwrap());
    let rank = |id: &u32| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let mut variables = environment.split('\0');
        variables.find_map(|v| {
            v.strip_prefix("OMPI_COMM_WORLD_RANK=")?
                .parse::<usize>()
                .ok()
        })
    };
    let mut ids: Vec<u32> = ids.filter(|id| rank(id).is_some()).collect();
    ids.sort_by_key(rank);
    assert!(!ids.is_empty());
    ids
}

/// Nothing here takes three minutes.
fn end_in_time(mpirun: u32) {
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(180));
        // Unless the number is another process's by then.
        let command = fs::read_to_string(format!("/proc/{mpirun}/cmdline"));
        if command.is_ok_and(|command| command.contains("mpirun")) {
            signal("-TERM", mpirun);
        }
    });
}

fn signal(signal: &str, process: u32) {
    let mut kill = Command::new("kill");
    let status = kill.args([signal, &process.to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_process_that_is_killed_ends_the_others_with_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ["--output", "run", "--set", "checkpoints.every=2"];
    let mut command = small(folder.path(), Some(3), &settings);
    command.args([
        "--set",
        "data.batch_size=12",
        "--set",
        "schedule.steps=100000",
    ]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    end_in_time(child.id());
    let errors = BufReader::new(child.stderr.take().unwrap());
    let errors = thread::spawn(|| errors.lines().map(Result::unwrap).collect::<Vec<_>>());
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    output.find(|line| line.as_ref().unwrap().contains(" 5/100000"));
    // The others are not told before they have waited.
    let killed = Instant::now();
    signal("-KILL", workers(child.id())[1]);
    output.for_each(|line| drop(line.unwrap()));
    let status = child.wait().unwrap();
    assert!(!status.success());
    assert!(
        killed.elapsed() < Duration::from_secs(10),
        "{:?}",
        killed.elapsed()
    );
    let errors = errors.join().unwrap().join("\n");
    let says = "worker 1 of 0..3 ended, or cannot be reached; the last good checkpoint is ";
    assert!(errors.contains(says), "{errors}");
    assert!(
        errors.contains("checkpoints/step-") && errors.contains("--resume "),
        "{errors}"
    );
    // It is good.
    let more = ["--resume", "run", "--set", "schedule.steps=1"];
    let resumed = clip(folder.path(), None, &more).output().unwrap();
    assert!(resumed.status.success(), "{}", text(&resumed));
}

#[test]
fn what_cannot_be_shared_is_refused_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let uneven = small(folder.path(), Some(3), &["--output", "uneven"]);
    let output = fail(uneven);
    let says = "data.batch_size = 16 cannot be divided among 3 workers: it needs to be a multiple \
                of 3";
    assert!(output.contains(says), "{output}");

    let mut none = small(folder.path(), Some(4), &["--output", "none"]);
    none.args(["--set", "data.batch_size=2"]);
    let output = fail(none);
    assert!(
        output.contains("data.batch_size = 2 cannot be divided among 4 workers"),
        "{output}"
    );

    for (own, says) in [
        (["--set", "seed=5"], "worker 1 has seed = 5, worker 0 has 0"),
        (
            ["--set", "optimizer.learning_rate=0.5"],
            "worker 1 has optimizer.learning_rate = 0.5, worker 0 has 0.001",
        ),
    ] {
        let mut different = mpirun(folder.path());
        let common = || {
            let settings = SMALL.iter().flat_map(|pair| ["--set", pair]);
            let common = ["--distributed", "mpi", "--plain", "--output", "different"];
            common.into_iter().chain(settings)
        };
        different.args(["-n", "1", CLIP]).args(common());
        different
            .args([":", "-n", "1", CLIP])
            .args(common())
            .args(own);
        let output = fail(different);
        assert!(output.contains(says), "{output}");
    }
    let names = ["uneven", "none", "different"];
    assert!(names.iter().all(|name| !folder.path().join(name).exists()));
}
