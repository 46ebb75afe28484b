use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::data::Questions;
use crate::data::testing::{folder, picture};

/// The data of easy-VQA in small, as the package holds them.
fn easy(train: Value, test: Value) -> TempDir {
    let dir = folder(
        &[],
        &[
            (
                "easy_vqa/data/answers.txt",
                "circle\nyes\nno\nteal\n\n".into(),
            ),
            ("easy_vqa/data/train/questions.json", train.to_string()),
            ("easy_vqa/data/test/questions.json", test.to_string()),
        ],
    );
    for image in 0..40 {
        for part in ["train", "test"] {
            let name = format!("easy_vqa/data/{part}/images/{image}.png");
            picture(&dir.path().join(name), [image; 3]);
        }
    }
    dir
}

#[test]
fn easy_vqa_is_read_and_a_tenth_of_its_training_images_validate() {
    let train: Vec<_> = (0..40)
        .flat_map(|i| {
            [
                json!(["what is it?", "circle", i]),
                json!(["is it teal?", "no", i]),
            ]
        })
        .collect();
    let dir = easy(train.into(), json!([["what colour?", "teal", 11]]));
    for sub in ["", "easy_vqa/data"] {
        let questions = Questions::read(dir.path().join(sub), false).unwrap();
        assert_eq!(questions.files.len(), 2);
        let of = |split| questions.indices(split);
        let [train, validation, test] = Split::ALL.map(|split| of(split).len());
        assert_eq!((train + validation, test), (80, 1));
        // Computed apart from this code, in Python. Of all 4,000 images 405 validate.
        let image = |i: u32| {
            dir.path()
                .join(format!("easy_vqa/data/train/images/{i}.png"))
        };
        let expected = [11, 15, 16, 17, 19, 21, 25, 27, 33].map(image);
        assert_eq!(validation, 2 * expected.len());
        for index in of(Split::Validation) {
            assert!(expected.contains(&questions.items[index].image));
        }
        assert_eq!(questions.items[80].split, Split::Test);
        assert_eq!(questions.kinds(), ["colour", "shape", "yes/no"]);
        assert_eq!(questions.answers, ["circle", "no", "teal", "yes"]);
        assert!(questions.place(80).ends_with("test/questions.json, [0]"));
    }
}

#[test]
fn easy_vqa_with_an_unknown_answer_is_refused_in_the_test_split_too() {
    let good = json!([["q", "no", 0]]);
    for bad in [
        json!(["q", "purple", 1]),
        json!(["q", "no"]),
        json!(["q", "no", 99]),
    ] {
        let dir = easy(good.clone(), json!([["q", "yes", 0], bad]));
        let error = Questions::read(dir.path(), false).unwrap_err().to_string();
        assert!(error.contains("test/questions.json, [1]: "), "{error}");
        assert_eq!(Questions::read(dir.path(), true).unwrap().skipped.len(), 1);
    }
    let dir = easy(good, json!([]));
    fs::remove_file(dir.path().join("easy_vqa/data/test/questions.json")).unwrap();
    let error = Questions::read(dir.path(), true).unwrap_err().to_string();
    assert!(
        error.contains("cannot open") && error.contains("test"),
        "{error}"
    );
}

/// A question, its image and the answers that people gave.
type Asked = (u64, u64, Vec<&'static str>);

/// VQA v2 in small: what is asked in each subset.
fn vqa(subsets: &[(&str, Vec<Asked>)]) -> TempDir {
    let mut files = Vec::new();
    let mut images = Vec::new();
    for (subset, rows) in subsets {
        let asked: Vec<_> = rows
            .iter()
            .map(|(id, image, _)| json!({"question_id": id, "image_id": image, "question": "q?"}))
            .collect();
        let annotated: Vec<_> = rows
            .iter()
            .rev()
            .map(|(id, image, answers)| {
                let answers: Vec<_> = answers.iter().map(|a| json!({"answer": a})).collect();
                json!({"question_id": id, "image_id": image, "answers": answers,
                       "answer_type": "other", "multiple_choice_answer": "x"})
            })
            .collect();
        let asked = json!({"info": {}, "questions": asked});
        let annotated = json!({"annotations": annotated});
        files.push((vqa_questions(subset), asked.to_string()));
        let name = format!("v2_mscoco_{subset}_annotations.json");
        files.push((name, annotated.to_string()));
        for (_, image, _) in rows {
            images.push(format!("{subset}/COCO_{subset}_{image:012}.jpg"));
        }
    }
    let images: Vec<_> = images.iter().map(String::as_str).collect();
    let files: Vec<_> = files.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    folder(&images, &files)
}

#[test]
fn vqa_joins_questions_with_their_answers_and_counts_who_gave_them() {
    let mut people = vec!["red"; 7];
    people.extend(["orange"; 3]);
    let mut train: Vec<_> = (0..9).map(|id| (id, 12, vec!["yes"; 10])).collect();
    train.push((9, 13, people));
    let dir = vqa(&[
        ("train2014", train),
        ("val2014", vec![(70, 5, vec!["blue"; 10])]),
    ]);
    let questions = Questions::read(dir.path(), false).unwrap();
    assert_eq!(questions.items.len(), 11);
    assert_eq!(
        questions.items[9].answers,
        [("red".into(), 0.7), ("orange".into(), 0.3)]
    );
    assert!(
        questions.items[9]
            .image
            .ends_with("train2014/COCO_train2014_000000000013.jpg")
    );
    assert_eq!(questions.indices(Split::Validation), [10]);
    assert_eq!(questions.items[10].answers, [("blue".into(), 1.0)]);
    assert_eq!(questions.kinds(), ["other"]);
    // Nine training questions have this answer, and none another as often.
    assert_eq!(questions.answers, ["yes"]);
    let file = dir.path().join(vqa_questions("val2014"));
    let questions = Questions::read(file, false).unwrap();
    assert_eq!(
        (questions.items.len(), questions.answers),
        (1, vec!["blue".to_owned()])
    );
}

#[test]
fn vqa_questions_without_their_annotation_are_refused() {
    let dir = vqa(&[("train2014", vec![(1, 1, vec!["a"]), (2, 1, vec!["b"])])]);
    let file = dir.path().join("v2_mscoco_train2014_annotations.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("\"question_id\":2", "\"question_id\":1"),
    )
    .unwrap();
    let error = Questions::read(dir.path(), false).unwrap_err().to_string();
    assert!(
        error.contains("annotations[1]: question 1 is annotated before"),
        "{error}"
    );
    let questions = Questions::read(dir.path(), true).unwrap();
    assert_eq!((questions.items.len(), questions.skipped.len()), (1, 2));
    let reason = &questions.skipped[1].reason;
    assert!(
        reason.contains("questions[1]: question 2 has no annotation"),
        "{reason}"
    );
    fs::remove_file(&file).unwrap();
    let error = Questions::read(dir.path(), true).unwrap_err().to_string();
    assert!(
        error.contains("cannot open") && error.contains("annotations"),
        "{error}"
    );
}

#[test]
fn lists_of_albef_are_read_with_their_weights() {
    let train = json!([
        {"image": "val2014/c.png", "question": "q", "answer": ["no", "yes", "no", "no"],
         "dataset": "vqa", "question_id": 1},
        {"image": "vg/d.png", "question": "q", "answer": "red", "dataset": "vg"},
    ]);
    let val = json!([{"image": "vg/d.png", "question": "q", "answer": [], "dataset": "vqa"}]);
    let dir = folder(
        &["val2014/c.png", "vg/d.png"],
        &[
            ("vqa_train.json", train.to_string()),
            ("vqa_val.json", val.to_string()),
        ],
    );
    let error = Questions::read(dir.path(), false).unwrap_err().to_string();
    assert!(
        error.contains("vqa_val.json, [0]: it has no answer"),
        "{error}"
    );
    let questions = Questions::read(dir.path(), true).unwrap();
    assert_eq!(
        questions.items[0].answers,
        [("no".into(), 0.75), ("yes".into(), 0.25)]
    );
    assert_eq!(questions.items[1].answers, [("red".into(), 0.5)]);
    assert_eq!(questions.answers, ["no", "red", "yes"]);
    assert_eq!(
        Questions::read(dir.path().join("vqa_train.json"), false)
            .unwrap()
            .items
            .len(),
        2
    );
}
