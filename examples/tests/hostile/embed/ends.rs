//! Signals at any moment, closed pipes, full disks, two programs at once.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use super::super::program::{Answer, Count, Place, in_disk, signal, spawn};
use super::classes::with_classes;
use super::{embed, place, search, written, zero_shot};

/// A place with so many captions that embedding them takes a while, one at a time.
fn with_captions() -> Place {
    let place = place();
    let rows = (0..1_500).map(|index| format!("{:02}.png,caption {index}\n", index % 12));
    place.write(
        "many.csv",
        format!("image,caption\n{}", rows.collect::<String>()),
    );
    place
}

fn embed_many(place: &Place, output: &str) -> Command {
    let changes = [
        ("--data", "many.csv"),
        ("--batch-size", "1"),
        ("--output", output),
    ];
    embed(place, &changes)
}

#[test]
fn ended_at_any_moment_the_same_command_goes_on_to_the_same_bytes() {
    let mut count = Count::new("embed: kill -9, SIGINT and SIGTERM");
    let place = with_captions();
    let begun = Instant::now();
    let answer = Answer::of(&mut embed_many(&place, "alone.safetensors"));
    count.taken("alone", &answer);
    let takes = begun.elapsed();
    let alone = fs::read(place.join("alone.safetensors")).unwrap();
    let output = place.join("out.safetensors");
    let mut went_on = 0;
    for number in 1..12 {
        if output.exists() {
            fs::remove_file(&output).unwrap();
        }
        let child = spawn(&mut embed_many(&place, "out.safetensors"));
        thread::sleep(takes * number / 12);
        signal(&child, ["-KILL", "-INT", "-TERM"][number as usize % 3]);
        let answer = Answer::of_child(child);
        assert!(!answer.err.contains("panicked"), "{}", answer.err);
        // Before it listens to signals, one ends it as it ends any program.
        let code = answer.status.code();
        assert!(
            matches!(code, None | Some(0 | 130)),
            "{code:?}: {}",
            answer.err
        );
        assert_eq!(output.exists(), code == Some(0));
        went_on += u32::from(answer.out.contains("Going on after"));
        count.survived();
    }
    let _ = fs::remove_file(&output);
    count.taken(
        "to its end",
        &Answer::of(&mut embed_many(&place, "out.safetensors")),
    );
    assert!(fs::read(&output).unwrap() == alone, "the bytes differ");
    assert!(went_on > 0, "none came after the first row");
    assert!(!place.join("out.safetensors.part").exists());
}

#[test]
fn a_reader_that_goes_away_costs_no_embeddings() {
    let mut count = Count::new("embed and search: closed and full outputs");
    let place = place();
    let mut child = spawn(&mut embed(&place, &[("--output", "pairs.safetensors")]));
    drop(child.stdout.take());
    count.taken("embed", &Answer::of_child(child));
    let mut child = spawn(&mut search(&place, &[]));
    drop(child.stdout.take());
    count.taken("search", &Answer::of_child(child));
    assert!(place.join("out.html").exists());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = search(&place, &[("--output", "full.html")]);
    let child = command.stdout(full).stderr(Stdio::piped()).spawn();
    let answer = Answer::of_child(child.unwrap());
    count.refused("full", &answer, "standard output could not be written");
    assert!(place.join("full.html").exists());
}

#[test]
fn a_classification_that_is_ended_leaves_both_files_or_none() {
    let mut count = Count::new("zero-shot: kill -9, SIGINT and SIGTERM");
    let place = with_classes();
    let begun = Instant::now();
    count.taken("alone", &Answer::of(&mut zero_shot(&place, &[])));
    let takes = begun.elapsed();
    let named = || ["out.html", "out.json"].map(|name| fs::read(place.join(name)).ok());
    let alone = named();
    for number in 1..13 {
        for output in written(&place) {
            fs::remove_file(output).unwrap();
        }
        let child = spawn(&mut zero_shot(&place, &[]));
        thread::sleep(takes * number / 12);
        let kind = ["-KILL", "-INT", "-TERM"][number as usize % 3];
        signal(&child, kind);
        let answer = Answer::of_child(child);
        assert!(!answer.err.contains("panicked"), "{}", answer.err);
        if kind == "-KILL" {
            // It may come between two names. A file that has its own is whole.
            for (file, whole) in named().iter().zip(&alone) {
                assert!(file.is_none() || file == whole, "half a file has its name");
            }
        } else {
            // It may be ended after both have their names and before it says so.
            let files = written(&place).len();
            let is_done = answer.status.success();
            assert!(
                files == 2 || (files == 0 && !is_done),
                "{kind}: {files} files"
            );
        }
        count.survived();
    }
}

#[test]
fn of_two_at_once_one_is_told() {
    let mut count = Count::new("embed: two at once");
    let place = with_captions();
    let children: Vec<_> = (0..3)
        .map(|_| spawn(&mut embed_many(&place, "out.safetensors")))
        .collect();
    let mut taken = 0;
    for child in children {
        let answer = Answer::of_child(child);
        if count.answered("the same --output", &answer) {
            let told = ["another program writes", "exists already"];
            let is_told = told.iter().any(|reason| answer.err.contains(reason));
            assert!(is_told, "{}", answer.err);
        } else {
            taken += 1;
        }
    }
    assert_eq!(taken, 1);
    count.taken(
        "alone",
        &Answer::of(&mut embed_many(&place, "alone.safetensors")),
    );
    let [out, alone] =
        ["out", "alone"].map(|name| fs::read(place.join(&format!("{name}.safetensors"))));
    assert!(out.unwrap() == alone.unwrap(), "the bytes differ");
}

/// In a file system of its own, which only some machines let a test make.
#[test]
fn on_a_full_disk_nothing_half_written_has_a_name() {
    let mut count = Count::new("embed and search: full disks");
    let place = with_captions();
    count.taken(
        "alone",
        &Answer::of(&mut embed_many(&place, "pairs.safetensors")),
    );
    fs::create_dir(place.join("disk")).unwrap();
    let script = r#"
        "$@"; echo "first $?"
        ls disk
        rm disk/filler
        "$@"; echo "second $?"
        cmp disk/out pairs.safetensors && echo same
    "#;
    let full = |command: Command, filled| in_disk(&place, "128k", filled, script, &command);
    for filled in [131_072, 127_000, 110_000, 90_000] {
        let Some(answer) = full(embed_many(&place, "disk/out"), filled) else {
            return;
        };
        let full = answer.out.contains("first 1") && answer.err.contains("No space left");
        assert!(full, "{filled}: {}{}", answer.out, answer.err);
        assert!(!answer.out.contains("\nout\n"), "{filled}: {}", answer.out);
        let whole = answer.out.contains("second 0") && answer.out.contains("same");
        assert!(whole, "{filled}: {}{}", answer.out, answer.err);
        count.survived();
    }
    let answer = full(search(&place, &[("--output", "disk/page")]), 131_072).unwrap();
    let full = answer.out.contains("first 1") && answer.err.contains("No space left");
    assert!(full, "{}{}", answer.out, answer.err);
    assert!(!answer.out.contains("\npage\n"), "{}", answer.out);
    assert!(answer.out.contains("second 0"), "{}", answer.err);
    count.survived();
}
