//! Signals at any moment, closed pipes, full disks, two programs at once.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::program::{Answer, Count, Place, in_disk, metrics, parameters, signal, spawn, table};

/// Begins a run of many steps.
fn begin(place: &Place, steps: usize) -> Command {
    let steps = format!("schedule.steps={steps}");
    let mut command = place.small(&["--output", "run", "--data", "table.csv"]);
    command.args(["--lines-every", "1", "--set", &steps]);
    command.args(["--set", "checkpoints.every=1"]);
    command
}

/// The losses in a run's results.
fn losses(place: &Place) -> Vec<serde_json::Value> {
    let metrics = metrics(&place.join("run"));
    metrics["curves"]["loss"].as_array().unwrap().clone()
}

/// A run that is killed again and again ends with the results of one that was left alone.
#[test]
fn killed_at_any_moment_a_run_goes_on_to_the_same_results() {
    let mut count = Count::new("kill -9");
    let alone = Place::new();
    table(&alone, "");
    count.taken("alone", &Answer::of(&mut begin(&alone, 30)));
    let place = Place::new();
    table(&place, "");
    for number in 0..12_u64 {
        let mut command = if place.join("run/config.json").exists() {
            place.clip(["--resume", "run"])
        } else {
            begin(&place, 30)
        };
        let mut child = spawn(&mut command);
        thread::sleep(Duration::from_millis(30 + 47 * number));
        signal(&child, "-KILL");
        child.wait().unwrap();
        count.survived();
    }
    count.taken("resumed", &Answer::of(&mut place.clip(["--resume", "run"])));
    assert_eq!(losses(&place), losses(&alone));
    let [killed, alone] = [&place, &alone].map(|place| parameters(&place.join("run")));
    assert!(killed == alone, "the parameters differ");
}

#[test]
fn interrupted_at_any_moment_a_run_ends_with_130_and_can_go_on() {
    let mut count = Count::new("SIGINT and SIGTERM");
    let place = Place::new();
    table(&place, "");
    let mut saved = 0;
    for number in 0..10_u64 {
        let mut command = if place.join("run/checkpoints").exists() {
            place.clip(["--resume", "run"])
        } else {
            begin(&place, 1_000_000)
        };
        let child = spawn(&mut command);
        thread::sleep(Duration::from_millis(100 + 97 * number));
        signal(&child, if number % 2 == 0 { "-INT" } else { "-TERM" });
        let answer = Answer::of_child(child);
        assert!(!answer.err.contains("panicked"), "{}", answer.err);
        // Before it listens to signals, one ends it as it ends any program.
        if answer.status.code().is_some() {
            assert_eq!(answer.status.code(), Some(130), "{}", answer.err);
        }
        if answer.out.contains("Interrupted; saved") {
            saved += 1;
            assert!(answer.out.contains("--resume run"), "{}", answer.out);
        }
        count.survived();
    }
    assert!(saved > 0, "no interruption came during training");
    let mut command = place.clip(["--resume", "run", "--set", "schedule.steps=1"]);
    count.taken("to its end", &Answer::of(&mut command));
}

/// As under `nohup`, when the terminal goes away.
#[test]
fn a_hang_up_that_is_ignored_ends_nothing() {
    let mut count = Count::new("SIGHUP");
    let place = Place::new();
    table(&place, "");
    let clip = begin(&place, 40);
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(clip.get_program());
    command.args(clip.get_args()).current_dir(place.path());
    let mut child = spawn(&mut command);
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("step") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "it ended");
        signal(&child, "-HUP");
    }
    thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    count.taken("ignored", &Answer::of_child(child));
    assert_eq!(losses(&place).len(), 40);
}

#[test]
fn a_reader_that_goes_away_costs_no_results() {
    let mut count = Count::new("closed and full outputs");
    for lines in 0..8 {
        let place = Place::new();
        table(&place, "");
        let mut child = spawn(&mut begin(&place, 3));
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        for _ in 0..lines {
            reader.read_line(&mut line).unwrap();
        }
        drop(reader);
        count.taken("closed", &Answer::of_child(child));
        assert_eq!(losses(&place).len(), 3);
    }
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let place = Place::new();
    table(&place, "");
    let child = begin(&place, 3)
        .stdout(full())
        .stderr(Stdio::piped())
        .spawn();
    let answer = Answer::of_child(child.unwrap());
    count.refused(
        "stdout is full",
        &answer,
        "standard output could not be written",
    );
    assert_eq!(losses(&place).len(), 3);
    let mut again = begin(&place, 3);
    let child = again.stdout(full()).stderr(full()).spawn().unwrap();
    assert_eq!(Answer::of_child(child).status.code(), Some(1));
}

#[test]
fn two_at_once_do_not_mix() {
    let mut count = Count::new("two at once");
    let place = Place::new();
    table(&place, "");
    // The same folder: one runs, the others are told.
    let children: Vec<_> = (0..4).map(|_| spawn(&mut begin(&place, 20))).collect();
    let answers: Vec<_> = children.into_iter().map(Answer::of_child).collect();
    let mut taken = 0;
    for answer in &answers {
        if !count.answered("the same --output", answer) {
            taken += 1;
        } else {
            let told = ["another program is working on", "already holds a run"];
            assert!(
                told.iter().any(|reason| answer.err.contains(reason)),
                "{}",
                answer.err
            );
        }
    }
    assert_eq!((taken, losses(&place).len()), (1, 20));
    // Resuming a run that is going on.
    let child = spawn(&mut place.clip(["--resume", "run", "--set", "schedule.steps=1000000"]));
    let last_step = || {
        let checkpoints = fs::read_dir(place.join("run/checkpoints")).unwrap();
        let names = checkpoints.flatten().map(|entry| entry.file_name());
        let steps = names.filter_map(|name| {
            let step = name.to_str()?.strip_prefix("step-")?;
            step.parse::<usize>().ok()
        });
        steps.max()
    };
    // It holds the lock once it has saved a step of its own.
    while last_step() <= Some(20) {
        thread::sleep(Duration::from_millis(5));
    }
    let answer = Answer::of(&mut place.clip(["--resume", "run"]));
    count.refused(
        "a run that goes on",
        &answer,
        "another program is working on",
    );
    signal(&child, "-INT");
    assert_eq!(Answer::of_child(child).status.code(), Some(130));

    // Without a name each gets a folder, and all of them one set of scenes.
    let place = Place::new();
    let scenes = ["train=16", "validation=4", "test=4"].map(|pair| format!("data.scenes.{pair}"));
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = place.small(&[]);
            command.args(scenes.iter().flat_map(|pair| ["--set", pair.as_str()]));
            spawn(&mut command)
        })
        .collect();
    for child in children {
        count.taken("the same second", &Answer::of_child(child));
    }
    let names = fs::read_dir(place.join("runs")).unwrap().flatten();
    let names = names.map(|entry| entry.file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("clip-")).count(), 4);
}

/// In a file system of its own, which only some machines let a test make.
#[test]
fn on_a_full_disk_a_run_fails_and_begins_anew_when_there_is_room() {
    let mut count = Count::new("full disks");
    let place = Place::new();
    table(&place, "");
    fs::create_dir(place.join("disk")).unwrap();
    let script = r#"
        "$@"; echo "first $?"
        rm disk/filler
        "$@"; echo "second $?"
    "#;
    // From no room for the lock to no room for the second checkpoint.
    for filled in [204_800, 200_000, 190_000, 180_000, 160_000, 120_000, 80_000] {
        let clip = place.small(&["--output", "disk/run", "--data", "table.csv"]);
        let Some(answer) = in_disk(&place, "200k", filled, script, &clip) else {
            return;
        };
        count.answered("full", &answer);
        assert!(
            answer.out.contains("second 0"),
            "{filled}: {}{}",
            answer.out,
            answer.err
        );
        if answer.out.contains("first 1") {
            assert!(
                answer.err.contains("No space left"),
                "{filled}: {}",
                answer.err
            );
        } else {
            assert!(
                answer.err.contains("already holds a run"),
                "{filled}: {}",
                answer.err
            );
        }
    }
}
