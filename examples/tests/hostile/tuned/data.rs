//! Questions and statements: rows, lists, and the forms in which they are distributed.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{list, start, start_on, with_albef};
use crate::program::{Count, NLVR2, Place, Program, VQA, picture, question, statement};

/// A list with one more row.
fn with_row(place: &Place, program: Program, row: &Value) {
    let file = match program.command {
        ["vqa"] => {
            json!({"questions": (0..12).map(question).chain([row.clone()]).collect::<Vec<_>>()})
        }
        _ => json!({"statements": (0..12).map(statement).chain([row.clone()]).collect::<Vec<_>>()}),
    };
    place.write(list(program), file.to_string());
}

#[test]
fn rows_are_read_or_refused_with_their_place() {
    let mut count = Count::new("rows of questions and statements");
    let place = with_albef();
    let with = |mut row: Value, key: &str, value: Value| {
        row[key] = value;
        row
    };
    let long = "x".repeat(100_000);
    let asked = |key: &str, value: Value| with(question(0), key, value);
    let stated = |key: &str, value: Value| with(statement(0), key, value);
    let vqa = [
        (asked("question", " \t".into()), "the question is blank"),
        (asked("question", 7.into()), "invalid type"),
        (asked("answer", "".into()), "an answer is blank"),
        (asked("answer", Value::Null), "it has no answer"),
        (
            asked("answers", json!({"red": 1.0})),
            "both `answer` and `answers`",
        ),
        (asked("image", "none.png".into()), "none.png"),
        (asked("image", "/dev/zero".into()), "it is not a file"),
        (asked("image", json!(long)), "cannot read image"),
        (asked("image", "questions.json".into()), "cannot read image"),
        (asked("split", json!(long)), "unknown split"),
        (asked("split", Value::Null), "invalid type"),
        (json!([]), "invalid length"),
        (Value::Null, "invalid type"),
    ];
    let nlvr2 = [
        (stated("text", "".into()), "the statement is blank"),
        (stated("label", "True".into()), "invalid type"),
        (stated("label", 1.into()), "invalid type"),
        (stated("images", json!(["00.png"])), "invalid length 1"),
        (
            stated("images", json!(["00.png", "00.png", "00.png"])),
            "length",
        ),
        (stated("images", json!(["00.png", "none.png"])), "none.png"),
        (stated("images", json!(["none.png", "00.png"])), "none.png"),
        (
            stated("images", json!(["00.png", "/dev/zero"])),
            "it is not a file",
        ),
        (
            stated("images", json!(["", "00.png"])),
            "an image path is blank",
        ),
        (stated("split", "tset".into()), "unknown split"),
        (stated("split", json!(long)), "unknown split"),
    ];
    for (program, rows) in [(VQA, &vqa[..]), (NLVR2, &nlvr2)] {
        for (row, reason) in rows {
            with_row(&place, program, row);
            let answer = start(&place, program, &[]);
            count.refused(reason, &answer, reason);
            let name = list(program);
            let many = name.strip_suffix(".json").unwrap();
            assert!(
                answer.err.contains(&format!("{name}, {many}[12]: ")),
                "{}",
                answer.err
            );
            assert!(answer.err.lines().count() == 1, "{}", answer.err);
            assert!(!place.join("run").exists(), "{reason}");
        }
        let answer = start_on(&place, program, list(program), &["--skip-bad"]);
        count.taken("--skip-bad", &answer);
        assert!(answer.out.contains("Left out as bad: "), "{}", answer.out);
    }
    // Odd, and good.
    for row in [
        asked("answer", "never given before".into()),
        asked("answer", json!(long)),
        asked("question", json!(long)),
        asked("question", "<script>\u{0}\u{202e}青 🙂".into()),
        asked("kind", json!(long)),
    ] {
        with_row(&place, VQA, &row);
        count.taken("a question", &start(&place, VQA, &[]));
    }
    for row in [
        stated("text", json!(long)),
        stated("kind", "<script>\u{202e}".into()),
        stated("images", json!(["00.png", "00.png"])),
    ] {
        with_row(&place, NLVR2, &row);
        count.taken("a statement", &start(&place, NLVR2, &[]));
    }
}

#[test]
fn lists_that_are_none_are_refused_with_a_hint() {
    let mut count = Count::new("lists of questions and statements");
    let place = with_albef();
    fs::create_dir(place.join("empty")).unwrap();
    place.write("text.txt", "what? red");
    place.write("deep.json", "[".repeat(200_000));
    place.write(
        "random.json",
        (0..=255).cycle().take(9000).collect::<Vec<u8>>(),
    );
    place.write(
        "half.json",
        &fs::read(place.join("questions.json")).unwrap()[..300],
    );
    place.write(
        "quoted.json",
        json!({"questions": "x".repeat(90_000)}).to_string(),
    );
    let train = [question(0), question(1), question(2), question(3)];
    place.write("train.json.json", json!({"questions": train}).to_string());
    let closed = json!({"answers": ["red", "red"], "questions": train});
    place.write("closed.json", closed.to_string());
    let test: Vec<_> = (10..12).map(statement).collect();
    place.write("test.json.json", json!({"statements": test}).to_string());
    for (program, data, reason) in [
        (VQA, "absent", "expected a questions.json"),
        (VQA, "empty", "holds no list of questions"),
        (VQA, "text.txt", "is no .json"),
        (VQA, "table.csv", "is no .json"),
        (VQA, "deep.json", "deep.json:1:"),
        (VQA, "random.json", "random.json:1:"),
        (VQA, "half.json", "half.json:1:"),
        (VQA, "quoted.json", "expected an array of questions"),
        (VQA, "statements.json", "missing field `questions`"),
        (VQA, "train.json.json", "has no question in split val"),
        (
            VQA,
            "closed.json",
            "closed.json, answers[1]: \"red\" is listed before",
        ),
        (VQA, "/dev/zero", "neither a file nor a folder"),
        (NLVR2, "absent", "expected a statements.json"),
        (NLVR2, "empty", "holds no list of statements"),
        (NLVR2, "table.csv", "is no .json"),
        (NLVR2, "questions.json", "missing field `statements`"),
        (NLVR2, "deep.json", "deep.json:1:"),
        (NLVR2, "test.json.json", "has no statement in split train"),
        (NLVR2, "albef/config.json", "missing field `statements`"),
    ] {
        let answer = start_on(&place, program, data, &["--skip-bad"]);
        count.refused(data, &answer, reason);
        assert!(!place.join("run").exists(), "{data}");
    }
}

/// Their forms as they are distributed: from the file to the report.
#[test]
fn every_layout_is_trained_on() {
    let mut count = Count::new("layouts");
    let place = with_albef();
    let write = |name: &str, images: &[String], text: String| {
        place.write(name, text);
        images
            .iter()
            .for_each(|image| picture(&place.join(image), [9, 120, 30]));
    };
    let lines = |rows: Vec<Value>| {
        rows.iter()
            .map(|row| format!("{row}\n"))
            .collect::<String>()
    };
    for (split, count) in [("train", 40), ("test", 3)] {
        let rows: Vec<_> = (0..count).map(|i| json!(["is it red?", "no", i])).collect();
        let images: Vec<_> = (0..count)
            .map(|i| format!("easy/{split}/images/{i}.png"))
            .collect();
        write(
            &format!("easy/{split}/questions.json"),
            &images,
            json!(rows).to_string(),
        );
    }
    place.write("easy/answers.txt", "no\nyes\n");
    for (subset, count) in [("train2014", 9), ("val2014", 3)] {
        let questions = (0..count)
            .map(|id| json!({"question_id": id, "image_id": id / 2, "question": "what?"}));
        let people = (0..count).map(
            |id| json!({"question_id": id, "answers": [{"answer": "yes"}], "answer_type": "other"}),
        );
        let questions = json!({"questions": questions.collect::<Vec<_>>()});
        let people = json!({"annotations": people.collect::<Vec<_>>()});
        let images = (0..count).map(|id| format!("vqa/{subset}/COCO_{subset}_{:012}.jpg", id / 2));
        let name = format!("vqa/v2_OpenEnded_mscoco_{subset}_questions.json");
        write(&name, &images.collect::<Vec<_>>(), questions.to_string());
        place.write(
            &format!("vqa/v2_mscoco_{subset}_annotations.json"),
            people.to_string(),
        );
    }
    for (split, count) in [("train", 8), ("dev", 2), ("test1", 2)] {
        let rows = (0..count).map(|i| {
            json!({"sentence": "Both.", "label": "True", "identifier": format!("{split}-{i}-0-0")})
        });
        let images = (0..2 * count)
            .map(|i| format!("nlvr2/images/{split}/{split}-{}-0-img{}.png", i / 2, i % 2));
        write(
            &format!("nlvr2/{split}.json"),
            &images.collect::<Vec<_>>(),
            lines(rows.collect()),
        );
    }
    for (split, count) in [("train", 2), ("dev", 1), ("test", 1)] {
        let rows = (0..count).map(|i| {
            json!({"sentence": "One.", "label": "false", "identifier": format!("{i}-0"),
                   "directory": "4"})
        });
        let images = (0..6 * count)
            .map(|i| format!("nlvr/{split}/images/4/{split}-{}-0-{}.png", i / 6, i % 6));
        let name = format!("nlvr/{split}/{split}.json");
        write(&name, &images.collect::<Vec<_>>(), lines(rows.collect()));
    }
    for (program, data) in [
        (VQA, "easy"),
        (VQA, "vqa"),
        (NLVR2, "nlvr2"),
        (NLVR2, "nlvr"),
    ] {
        count.taken(data, &start_on(&place, program, data, &[]));
        assert!(place.join("run/report.html").is_file());
    }
    // One of the images of a pair, one of the six, and one that many ask about.
    for (program, data, image) in [
        (VQA, "easy", "easy/train/images/7.png"),
        (VQA, "vqa", "vqa/val2014/COCO_val2014_000000000000.jpg"),
        (NLVR2, "nlvr2", "nlvr2/images/dev/dev-1-0-img1.png"),
        (NLVR2, "nlvr", "nlvr/train/images/4/train-1-0-5.png"),
    ] {
        fs::remove_file(place.join(image)).unwrap();
        let answer = start_on(&place, program, data, &[]);
        count.refused(
            image,
            &answer,
            Path::new(image).file_name().unwrap().to_str().unwrap(),
        );
        assert!(answer.err.contains(".json, "), "{}", answer.err);
        assert!(!place.join("run").exists(), "{image}");
    }
}
