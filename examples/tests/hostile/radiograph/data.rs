//! Studies, and queries with candidates: rows and whole files.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::{start, start_on, with_radiograph};
use crate::program::{Count, LINEAR, Place, RADIOGRAPH, study};

/// The list with one more study.
fn with_row(place: &Place, row: &Value) {
    let rows: Vec<_> = (0..12).map(study).chain([row.clone()]).collect();
    let file = json!({"classes": ["third", "even"], "studies": rows});
    place.write("studies.json", file.to_string());
}

fn with(mut row: Value, key: &str, value: Value) -> Value {
    row[key] = value;
    row
}

fn without(mut row: Value, key: &str) -> Value {
    row.as_object_mut().unwrap().remove(key);
    row
}

fn pipe(place: &Place, name: &str) {
    let made = Command::new("mkfifo").arg(place.join(name)).status();
    assert!(made.unwrap().success());
}

/// A name as no file has one.
fn long() -> String {
    "x".repeat(100_000)
}

/// Rows that neither program takes.
fn bad_studies() -> Vec<(Value, &'static str)> {
    let of = |key: &str, value: Value| with(study(0), key, value);
    vec![
        (of("images", json!([])), "it has no image"),
        (of("images", json!([" "])), "an image path is blank"),
        (of("images", json!("00.png")), "invalid type"),
        (of("images", json!([7])), "invalid type"),
        (of("images", Value::Null), "invalid type"),
        (of("images", json!(["00.png", "none.png"])), "none.png"),
        (of("images", json!(["/dev/zero"])), "it is not a file"),
        (of("images", json!(["pipe.png"])), "it is not a file"),
        (of("images", json!(["00.png", "html.png"])), "html.png"),
        (of("images", json!([long()])), "cannot read image"),
        (of("sentences", json!(["red", "\t"])), "a sentence is blank"),
        (of("sentences", json!("red")), "invalid type"),
        (
            of("labels", json!({"green": true})),
            "\"green\" is none of the file's classes",
        ),
        (of("labels", json!({"even": 1})), "invalid type"),
        (of("labels", json!(["red"])), "invalid type"),
        (of("split", json!("tset")), "unknown split"),
        (of("split", json!(long())), "unknown split"),
        (of("split", Value::Null), "invalid type"),
        (of("id", json!(7)), "unknown field `id`"),
        (without(study(0), "images"), "missing field `images`"),
        (without(study(0), "split"), "missing field `split`"),
        (json!([]), "invalid length"),
        (Value::Null, "invalid type"),
    ]
}

#[test]
fn studies_are_read_or_refused_with_their_place() {
    let mut count = Count::new("rows of studies");
    let place = with_radiograph();
    pipe(&place, "pipe.png");
    place.write("html.png", "<html>404</html>");
    let of = |key: &str, value: Value| with(study(0), key, value);
    let sentences = [
        (of("sentences", json!([])), "it has no sentence"),
        (without(study(0), "sentences"), "it has no sentence"),
    ];
    let labels = [
        (of("labels", Value::Null), "it has no labels"),
        (without(study(0), "labels"), "it has no labels"),
    ];
    for (program, own) in [(RADIOGRAPH, &sentences), (LINEAR, &labels)] {
        for (row, reason) in bad_studies().iter().chain(own) {
            with_row(&place, row);
            let answer = start(&place, program, &[]);
            count.refused(reason, &answer, reason);
            let err = &answer.err;
            assert!(err.contains("studies.json, studies[12]: "), "{err}");
            assert!(err.lines().count() == 1, "{err}");
            assert!(!place.join("run").exists(), "{reason}");
        }
        let answer = start_on(&place, program, "studies.json", &["--skip-bad"]);
        count.taken("--skip-bad", &answer);
        assert!(answer.out.contains("Left out as bad: 1"), "{}", answer.out);
    }
    // Odd, and good.
    for row in [
        study(0),
        of("images", json!(["00.png", "00.png"])),
        of("sentences", json!([long()])),
        of("sentences", json!(["<script>\u{0}\u{202e}青 🙂"])),
        of("labels", json!({})),
    ] {
        with_row(&place, &row);
        for program in [RADIOGRAPH, LINEAR] {
            count.taken("a study", &start(&place, program, &[]));
        }
    }
}

#[test]
fn a_label_that_is_given_twice_is_refused() {
    let mut count = Count::new("labels that are given twice");
    let place = with_radiograph();
    let list = fs::read_to_string(place.join("studies.json")).unwrap();
    let twice = "\"even\":true,\"even\":false";
    place.write("studies.json", list.replacen("\"even\":true", twice, 1));
    for program in [RADIOGRAPH, LINEAR] {
        let answer = start(&place, program, &[]);
        let reason = "studies.json, studies[0]: `even` is given twice";
        count.refused("twice", &answer, reason);
    }
}

/// Files that list none, or lack a split.
fn write_no_studies(place: &Place) {
    fs::create_dir(place.join("empty")).unwrap();
    pipe(place, "pipe.json");
    place.write("deep.json", "[".repeat(200_000));
    let random: Vec<u8> = (0..=255).cycle().take(9000).collect();
    place.write("random.json", random);
    let whole = fs::read(place.join("studies.json")).unwrap();
    place.write("half.json", &whole[..whole.len() / 2]);
    place.write(
        "latin.json",
        b"{\"classes\": [\"gr\xfcn\"], \"studies\": []}",
    );
    let listed = |name: &str, file: Value| place.write(name, file.to_string());
    listed("list.json", json!([study(0)]));
    listed("quoted.json", json!({"studies": "x".repeat(90_000)}));
    listed("none.json", json!({"classes": ["even"], "studies": []}));
    listed("bad.json", json!({"classes": ["even"], "studies": [7, 8]}));
    listed(
        "blank.json",
        json!({"classes": ["red", " "], "studies": [study(0)]}),
    );
    listed(
        "twice.json",
        json!({"classes": ["red", "red"], "studies": [study(0)]}),
    );
    listed("number.json", json!({"classes": 2, "studies": [study(0)]}));
    let split = |rows: std::ops::Range<usize>| {
        let rows: Vec<_> = rows.map(study).collect();
        json!({"classes": ["third", "even"], "studies": rows})
    };
    listed("train.json", split(0..8));
    listed("test.json", split(8..12));
    listed("untested.json", split(0..10));
}

#[test]
fn files_that_list_no_studies_are_refused_with_a_hint() {
    let mut count = Count::new("files of studies");
    let place = with_radiograph();
    write_no_studies(&place);
    for (data, reason) in [
        ("absent", "expected a studies.json, or a folder with one"),
        ("empty", "holds no list of studies; expected a studies.json"),
        ("pipe.json", "holds no list of studies"),
        ("/dev/zero", "holds no list of studies"),
        ("00.png", "00.png:1:1: not a file of studies"),
        ("table.csv", "table.csv:1:1: not a file of studies"),
        ("deep.json", "deep.json:1:"),
        ("random.json", "random.json:1:"),
        ("half.json", "half.json:1:"),
        ("latin.json", "latin.json:1:"),
        ("list.json", "list.json:1:"),
        ("quoted.json", "expected an array of studies"),
        ("none.json", "none.json gives no usable study"),
        ("bad.json", "the first of 2 bad rows: "),
        ("blank.json", "blank.json, classes[1]: \" \" is blank"),
        (
            "twice.json",
            "twice.json, classes[1]: \"red\" is there twice",
        ),
        ("number.json", "number.json:1:"),
        ("radiograph/config.json", "missing field `studies`"),
        ("train.json", "train.json"),
        ("test.json", "test.json"),
        ("untested.json", "untested.json"),
    ] {
        for program in [RADIOGRAPH, LINEAR] {
            let answer = start_on(&place, program, data, &["--skip-bad"]);
            count.refused(data, &answer, reason);
            assert!(!place.join("run").exists(), "{data}");
        }
    }
    let nameless = json!({"studies": [study(0)]});
    place.write("nameless.json", nameless.to_string());
    let answer = start_on(&place, LINEAR, "nameless.json", &[]);
    count.refused("no classes", &answer, "nameless.json names no classes");
}

/// Queries and candidates of the images of the table.
fn retrieval() -> Value {
    let image = |index: usize| {
        let class = ["red", "blue"][index % 2];
        json!({"image": format!("{index:02}.png"), "class": class})
    };
    let images = |indices: std::ops::Range<usize>| indices.map(image).collect::<Vec<_>>();
    json!({"classes": ["red", "blue"], "query_images": images(0..4),
           "query_sentences": [{"sentence": "It is small.", "class": "red"}],
           "candidates": images(4..10)})
}

/// Values in the place of some of its own, with a part of what is said about them.
fn changes() -> Vec<(&'static str, Value, &'static str)> {
    let image = |image: &str| json!([{"image": image, "class": "red"}]);
    let sentence = |text: &str, class: &str| json!([{"sentence": text, "class": class}]);
    let few = json!(retrieval()["candidates"].as_array().unwrap()[..4]);
    vec![
        (
            "classes",
            json!(["red"]),
            "query_images[1]: \"blue\" is none of",
        ),
        (
            "classes",
            json!(["red", "blue", ""]),
            "classes[2]: \"\" is blank",
        ),
        (
            "classes",
            json!(["red", "red"]),
            "classes[1]: \"red\" is there twice",
        ),
        ("query_images", json!([]), "gives no query_images"),
        ("query_sentences", json!([]), "gives no query_sentences"),
        ("candidates", json!([]), "gives no candidates"),
        (
            "candidates",
            few,
            "4 candidates, and Prec@5 needs at least 5",
        ),
        (
            "candidates",
            image("00.png"),
            "class \"blue\" have no candidate",
        ),
        ("query_images", image("none.png"), "query_images[0]: "),
        ("candidates", image("table.csv"), "candidates[0]: "),
        ("candidates", image("/dev/zero"), "it is not a file"),
        ("query_images", image(" "), "an image path is blank"),
        (
            "query_sentences",
            sentence("\n", "red"),
            "the sentence is blank",
        ),
        (
            "query_sentences",
            sentence("x", "green"),
            "[0]: \"green\" is none",
        ),
        ("query_sentences", image("00.png"), "unknown field `image`"),
        ("candidates", json!(["00.png"]), "candidates[0]: "),
        ("candidates", Value::Null, "expected an array of images"),
    ]
}

/// Contents of the file that are refused, likewise.
fn bad_retrieval() -> Vec<(String, &'static str)> {
    let changed = changes().into_iter();
    let changed = changed.map(|(key, value, reason)| (with(retrieval(), key, value), reason));
    let whole = [
        (
            without(retrieval(), "query_images"),
            "missing field `query_images`",
        ),
        (without(retrieval(), "classes"), "missing field `classes`"),
        (json!([]), "not a file of queries and candidates"),
    ];
    let files = changed
        .chain(whole)
        .map(|(file, reason)| (file.to_string(), reason));
    let none = ["", &"[".repeat(200_000)].map(|text| (text.into(), "retrieval.json:1:"));
    files.chain(none).collect()
}

#[test]
fn queries_and_candidates_are_read_or_refused_with_their_place() {
    let mut count = Count::new("queries and candidates");
    let place = with_radiograph();
    for (content, reason) in &bad_retrieval() {
        place.write("retrieval.json", content);
        let answer = start(&place, RADIOGRAPH, &[]);
        count.refused(reason, &answer, reason);
        assert!(answer.err.contains("retrieval.json"), "{}", answer.err);
        assert!(!place.join("run").exists(), "{reason}");
    }
    let odd = with(
        retrieval(),
        "query_images",
        json!([
            {"image": "00.png", "class": "red"}, {"image": "00.png", "class": "red"},
            {"image": "none.png", "class": "red"},
        ]),
    );
    place.write("retrieval.json", odd.to_string());
    let answer = start_on(&place, RADIOGRAPH, "studies.json", &["--skip-bad"]);
    count.taken("--skip-bad", &answer);
    assert!(answer.out.contains("2 query images"), "{}", answer.out);
    place.write("retrieval.json", retrieval().to_string());
    // Fewer than 50 candidates, and none of 10.
    let answer = start(&place, RADIOGRAPH, &[]);
    count.taken("six candidates", &answer);
    let said = &answer.out;
    assert!(
        said.contains("Prec@5") && !said.contains("Prec@10"),
        "{said}"
    );
    assert!(!said.contains("NaN"), "{said}");
    fs::create_dir(place.join("folder")).unwrap();
    pipe(&place, "pipe.json");
    for path in ["absent.json", "folder", "pipe.json"] {
        let answer = start(&place, RADIOGRAPH, &[&format!("retrieval={path}")]);
        count.refused(path, &answer, path);
        assert!(!place.join("run").exists(), "{path}");
    }
}
