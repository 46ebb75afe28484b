use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::data::testing::{folder, picture, truncate};

fn row(image: &str, answer: &str, split: &str) -> Value {
    json!({"image": image, "question": "what is it?", "answer": answer, "split": split})
}

/// A folder with `questions.json` and two images.
fn own(file: Value) -> TempDir {
    folder(
        &["a.png", "images/b.png"],
        &[("questions.json", file.to_string())],
    )
}

#[test]
fn the_own_form_is_read_with_shares_kinds_and_splits() {
    let soft = json!({
        "image": "images/b.png", "question": " How many? ", "kind": "count", "split": "val",
        "answers": {"two": 0.3, "three": 0.6}, "extra": [1]
    });
    let dir = own(json!({"questions": [row("a.png", " red ", "train"), soft], "made_by": "us"}));
    for path in [dir.path().to_owned(), dir.path().join("questions.json")] {
        let questions = Questions::read(path, false).unwrap();
        let [first, second] = questions.items.as_slice() else {
            panic!("two questions")
        };
        assert_eq!(first.answers, [("red".into(), 1.0)]);
        assert_eq!((first.split, first.kind.as_str()), (Split::Train, ""));
        assert_eq!(second.answers, [("three".into(), 0.6), ("two".into(), 0.3)]);
        assert_eq!(second.question, "How many?");
        assert_eq!(
            (second.split, second.kind.as_str()),
            (Split::Validation, "count")
        );
        assert_eq!(second.image, dir.path().join("images/b.png"));
        assert_eq!(questions.kinds(), ["", "count"]);
        assert_eq!(questions.indices(Split::Validation), [1]);
        let texts: Vec<_> = questions.texts(Split::Validation).collect();
        assert_eq!(texts, ["How many?", "three", "two"]);
        assert!(questions.place(1).ends_with("questions.json, questions[1]"));
        // Only what training has.
        assert_eq!(questions.answers, ["red"]);
    }
}

#[test]
fn answers_are_listed_by_their_shares_in_training() {
    let soft = |answers: Value, split: &str| {
        let mut row = row("a.png", "", split);
        row.as_object_mut().unwrap().remove("answer");
        row["answers"] = answers;
        row
    };
    let rows = json!([
        soft(json!({"b": 0.5, "c": 0.5}), "train"),
        soft(json!({"a": 0.4, "c": 0.1}), "train"),
        soft(json!({"z": 1.0}), "test"),
        soft(json!({"a": 0.1}), "train"),
    ]);
    let dir = own(json!({"questions": rows}));
    assert_eq!(
        Questions::read(dir.path(), false).unwrap().answers,
        ["c", "a", "b"]
    );
    let closed = json!({"answers": ["x", "z", "a", "b", "c", "d"], "questions": rows});
    let dir = own(closed);
    let questions = Questions::read(dir.path(), false).unwrap();
    assert_eq!(questions.answers, ["c", "a", "b", "d", "x", "z"]);
    let dir = own(json!({"questions": [rows[2]]}));
    assert_eq!(Questions::read(dir.path(), false).unwrap().answers, ["z"]);
}

#[test]
fn bad_questions_are_named_and_counted_when_skipped() {
    let with = |key: &str, value: Value| {
        let mut row = row("images/b.png", "red", "test");
        row[key] = value;
        row
    };
    let mut both = row("images/b.png", "red", "test");
    both["answers"] = json!({"red": 1.0});
    let soft = |answers: Value| {
        let mut row = row("images/b.png", "red", "test");
        row.as_object_mut().unwrap().remove("answer");
        row["answers"] = answers;
        row
    };
    for (bad, expected) in [
        (json!(7), "invalid type: integer `7`"),
        (json!({"image": "a.png"}), "missing field `question`"),
        (with("question", json!(" ")), "the question is blank"),
        (with("question", json!(["q"])), "invalid type: sequence"),
        (with("image", json!("")), "the image path is blank"),
        (with("image", json!("none.png")), "cannot read image"),
        (with("image", json!("broken.png")), "broken.png"),
        (with("split", json!("maybe")), "unknown split \"maybe\""),
        (with("answer", json!("")), "an answer is blank"),
        (
            with("answer", json!("mauve")),
            "\"mauve\" is not on the closed list of answers",
        ),
        (with("answer", json!(2)), "invalid type: integer `2`"),
        (both, "both `answer` and `answers`"),
        (soft(json!({})), "it has no answer"),
        (
            soft(json!({"red": 0.0})),
            "\"red\" has the share 0; it must lie in (0, 1]",
        ),
        (soft(json!({"red": 1.5})), "has the share 1.5"),
        (soft(json!({"red": null})), "invalid type: null"),
        (
            soft(json!({"red": 0.6, " red": 0.3})),
            "\"red\" is given twice",
        ),
        (soft(json!({"red": 0.6, "blue": 0.6})), "sum to 1.2"),
    ] {
        let good = row("a.png", "blue", "train");
        let dir = own(json!({"answers": ["red", "blue"], "questions": [good, bad]}));
        picture(&dir.path().join("broken.png"), [1; 3]);
        truncate(&dir.path().join("broken.png"));
        let error = Questions::read(dir.path(), false).unwrap_err().to_string();
        assert!(
            error.contains("questions.json, questions[1]: ")
                && error.contains(expected)
                && error.contains("--skip-bad"),
            "{expected}: {error}"
        );
        let skipped = Questions::read(dir.path(), true).unwrap();
        assert_eq!((skipped.items.len(), skipped.skipped.len()), (1, 1));
        assert!(skipped.skipped[0].reason.contains(expected));
    }
}

#[test]
fn an_image_that_is_damaged_costs_every_question_about_it() {
    let rows = [
        ("a.png", "train"),
        ("images/b.png", "train"),
        ("a.png", "test"),
    ];
    let rows = rows.map(|(image, split)| row(image, "red", split));
    let dir = own(json!({"questions": rows}));
    truncate(&dir.path().join("a.png"));
    let questions = Questions::read(dir.path(), true).unwrap();
    assert_eq!(questions.items.len(), 1);
    let splits: Vec<_> = questions.skipped.iter().map(|bad| bad.split).collect();
    assert_eq!(splits, [Some(Split::Train), Some(Split::Test)]);
}

#[test]
fn bad_files_are_refused_whether_skipping_or_not() {
    for (text, expected) in [
        (
            "{\n\"questions\": [\n{,",
            "questions.json:3:2: not a file of questions",
        ),
        ("", "questions.json:1:0"),
        ("[]", "questions.json:1:2: not a file of questions"),
        ("{\"questions\": 7}", "expected an array of questions"),
        ("{\"questions\": []}", "no usable question about an image"),
        ("{\"questions\": [{}]}", "questions.json"),
        (
            "{\"answers\": [], \"questions\": []}",
            "the list of answers is empty",
        ),
        (
            "{\"answers\": [\"a\", \" \"], \"questions\": []}",
            "answers[1]: the answer is blank",
        ),
        (
            "{\"answers\": [\"a\", \"a \"], \"questions\": []}",
            "answers[1]: \"a\" is listed before",
        ),
        ("{\"answers\": [1], \"questions\": []}", "expected a string"),
    ] {
        let dir = folder(&[], &[("questions.json", text.into())]);
        for skip_bad in [false, true] {
            let error = Questions::read(dir.path(), skip_bad).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

#[test]
fn the_error_for_something_else_says_what_is_expected() {
    let dir = folder(&["a.png"], &[]);
    for (path, expected) in [
        (dir.path().join("nowhere"), "cannot read"),
        (dir.path().to_owned(), "holds no list of questions"),
        (dir.path().join("a.png"), "is no .json"),
    ] {
        let error = format!("{:#}", Questions::read(path, false).unwrap_err());
        assert!(
            error.contains(expected) && error.contains("VQA v2"),
            "{error}"
        );
    }
    let empty = || String::new();
    let dir = folder(
        &[],
        &[
            ("questions.json", empty()),
            ("train/questions.json", empty()),
        ],
    );
    let error = Questions::read(dir.path(), false).unwrap_err().to_string();
    assert!(
        error.contains("several lists") && error.contains("train/questions.json"),
        "{error}"
    );
}

#[test]
fn the_fingerprint_is_that_of_what_is_asked_and_answered_wherever_it_lies() {
    let soft = json!({"image": "a.png", "question": "q", "answers": {"x": 0.5, "y": 0.5},
                      "split": "train", "kind": "k"});
    let file = json!({"answers": ["x", "y"], "questions": [soft, row("a.png", "x", "test")]});
    let [a, b] = [own(file.clone()), own(file)].map(|dir| {
        let questions = Questions::read(dir.path(), false);
        questions.unwrap()
    });
    assert_ne!(a.files, b.files);
    assert_eq!(a.fingerprint(), b.fingerprint());
    let changes: [fn(&mut Questions); 7] = [
        |questions| questions.items[0].question.push('!'),
        |questions| questions.items[0].answers[0].1 = 0.4,
        |questions| questions.items[0].answers[0].0.push('!'),
        |questions| questions.items[0].kind.clear(),
        |questions| questions.items[0].split = Split::Test,
        |questions| questions.items.swap(0, 1),
        |questions| questions.answers.swap(0, 1),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut changed = a.clone();
        change(&mut changed);
        assert_ne!(changed.fingerprint(), a.fingerprint(), "change {index}");
    }
}
