//! Whatever a file holds, reading it ends with what it lists or an error, never with a panic.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::testing::picture;
use super::{CaptionTokenizer, Collection, Questions, Statements, TokenizerConfig};

/// A folder with an image, and `list` with this content.
fn folder(list: &str, content: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    picture(&dir.path().join("a.png"), [1; 3]);
    std::fs::write(dir.path().join(list), content).unwrap();
    dir
}

/// Reads both ways; whatever is taken is whole.
fn read(list: &str, content: &[u8]) -> Result<(), TestCaseError> {
    let dir = folder(list, content);
    let read = |skip_bad| Collection::read(dir.path().join(list), skip_bad);
    let (strict, lenient) = (read(false), read(true));
    if let Ok(strict) = &strict {
        prop_assert!(strict.skipped.is_empty());
        let lenient = lenient.as_ref().unwrap();
        prop_assert_eq!(strict.fingerprint(), lenient.fingerprint());
    }
    for collection in strict.iter().chain(&lenient) {
        prop_assert!(!collection.examples.is_empty());
        for example in &collection.examples {
            prop_assert!(!example.captions.is_empty());
            prop_assert!(
                example
                    .captions
                    .iter()
                    .all(|caption| !caption.trim().is_empty())
            );
        }
    }
    Ok(())
}

/// A list of questions or of statements as it is distributed.
struct Layout {
    files: Vec<(&'static str, String)>,
    images: &'static [&'static str],
}

impl Layout {
    /// All of them.
    fn all() -> [Self; 6] {
        let vqa = json!({"questions": [
            {"question_id": 1, "image_id": 2, "question": "what?"},
            {"question_id": 3, "image_id": 2, "question": "how?"},
        ]});
        let people = json!({"annotations": [
            {"question_id": 1, "answers": [{"answer": "red"}, {"answer": "2"}], "answer_type": "x"},
            {"question_id": 3, "answers": [{"answer": "red"}], "answer_type": "y"},
        ]});
        let listed = json!([
            {"image": "a.png", "question": "what?", "answer": ["red", "red"], "dataset": "vqa"},
            {"image": "a.png", "question": "what?", "answer": "blue", "dataset": "vg"},
        ]);
        let line = |of: &str| {
            let mut line = json!({"sentence": "x", "label": "True", "directory": 1});
            line["identifier"] = of.into();
            format!("{line}\n{line}\n")
        };
        [
            Self {
                files: vec![("questions.json", asked())],
                images: &["a.png"],
            },
            Self {
                files: vec![
                    ("answers.txt", "red\nno\n".to_string()),
                    (
                        "train/questions.json",
                        json!([["a?", "no", 0], ["b?", "red", 1]]).to_string(),
                    ),
                    ("test/questions.json", json!([["c?", "red", 0]]).to_string()),
                ],
                images: &[
                    "train/images/0.png",
                    "train/images/1.png",
                    "test/images/0.png",
                ],
            },
            Self {
                files: vec![
                    (
                        "v2_OpenEnded_mscoco_train2014_questions.json",
                        vqa.to_string(),
                    ),
                    ("v2_mscoco_train2014_annotations.json", people.to_string()),
                ],
                images: &["train2014/COCO_train2014_000000000002.jpg"],
            },
            Self {
                files: vec![("vqa_train.json", listed.to_string())],
                images: &["a.png"],
            },
            Self {
                files: vec![("dev.json", line("dev-1-0-0"))],
                images: &["dev/dev-1-0-img0.png", "images/1/dev-1-0-img1.png"],
            },
            Self {
                files: vec![("dev/dev.json", line("1-0"))],
                images: &[
                    "dev/images/1/dev-1-0-0.png",
                    "dev/images/1/dev-1-0-1.png",
                    "dev/images/1/dev-1-0-2.png",
                    "dev/images/1/dev-1-0-3.png",
                    "dev/images/1/dev-1-0-4.png",
                    "dev/images/1/dev-1-0-5.png",
                ],
            },
        ]
    }

    /// Writes it into a folder.
    fn write(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for image in self.images {
            picture(&dir.path().join(image), [1; 3]);
        }
        for (name, text) in &self.files {
            let file = dir.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        dir
    }
}

/// One of the layouts, one of its files, and what that holds once it is damaged.
fn damaged_layout() -> impl Strategy<Value = (usize, usize, Vec<u8>)> {
    let files = Layout::all().into_iter().enumerate();
    let files = files.flat_map(|(layout, all)| {
        let files = all.files.into_iter().enumerate();
        files.map(move |(file, (_, text))| (layout, file, text))
    });
    proptest::sample::select(files.collect::<Vec<_>>()).prop_flat_map(|(layout, file, text)| {
        mutated(text).prop_map(move |bytes| (layout, file, bytes))
    })
}

/// What is said of a list that is refused: short, and of which file.
fn assert_named<T>(dir: &Path, read: &anyhow::Result<T>) -> Result<(), TestCaseError> {
    if let Err(error) = read {
        let error = format!("{error:#}");
        prop_assert!(error.contains(dir.to_str().unwrap()), "{}", error);
        prop_assert!(error.chars().count() < 2_000, "{}", error);
    }
    Ok(())
}

/// Reads both ways, as questions or as statements by the name; whatever is taken is whole.
fn read_asked(list: &str, content: &[u8]) -> Result<(), TestCaseError> {
    let dir = folder(list, content);
    if list == "dev.json" {
        for image in ["dev/dev-1-0-img0.png", "dev/dev-1-0-img1.png"] {
            picture(&dir.path().join(image), [1; 3]);
        }
    }
    read_at(&dir.path().join(list))
}

fn read_at(path: &Path) -> Result<(), TestCaseError> {
    let questions = [false, true].map(|skip_bad| Questions::read(path, skip_bad));
    if let [Ok(strict), lenient] = &questions {
        prop_assert!(strict.skipped.is_empty());
        let lenient = lenient.as_ref().unwrap();
        prop_assert_eq!(strict.fingerprint(), lenient.fingerprint());
    }
    for questions in &questions {
        assert_named(path, questions)?;
    }
    for questions in questions.iter().flatten() {
        prop_assert!(!questions.items.is_empty() && !questions.answers.is_empty());
        for item in &questions.items {
            prop_assert!(!item.question.trim().is_empty() && !item.answers.is_empty());
            let shares = item.answers.iter().map(|(_, share)| *share);
            prop_assert!(shares.sum::<f32>() <= 1.01);
        }
    }
    let statements = [false, true].map(|skip_bad| Statements::read(path, skip_bad));
    if let [Ok(strict), lenient] = &statements {
        prop_assert!(strict.skipped.is_empty());
        let lenient = lenient.as_ref().unwrap();
        prop_assert_eq!(strict.fingerprint(), lenient.fingerprint());
    }
    for statements in &statements {
        assert_named(path, statements)?;
    }
    for statements in statements.iter().flatten() {
        prop_assert!(!statements.items.is_empty());
        for item in &statements.items {
            prop_assert!(!item.text.trim().is_empty());
        }
    }
    Ok(())
}

/// Text made of what means something in a table, and of anything.
fn table() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => Just("a.png".to_string()),
        4 => Just(",".to_string()),
        2 => Just("\t".to_string()),
        4 => Just("\n".to_string()),
        1 => Just("\r\n".to_string()),
        1 => Just("\r".to_string()),
        2 => Just("\"".to_string()),
        1 => Just("\u{feff}".to_string()),
        2 => Just("red".to_string()),
        1 => Just("image,caption,split\n".to_string()),
        2 => Just("train".to_string()),
        1 => any::<String>(),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!("a.png")),
        Just(json!("train")),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let key = prop_oneof![
            "images|filename|filepath|split|sentences|raw|tokens|scene|file_name",
            "image|question|answer|answers|kind|text|label|sentence|identifier|directory",
            any::<String>(),
        ];
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((key, inner), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// `text` with some of its bytes changed, and perhaps cut off.
fn mutated(text: String) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((0..text.len(), any::<u8>()), 0..6);
    let end = prop_oneof![3 => Just(text.len()), 1 => 0..text.len()];
    (changes, end).prop_map(move |(changes, end)| {
        let mut bytes = text.clone().into_bytes();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(end);
        bytes
    })
}

fn karpathy() -> String {
    json!({"dataset": "x", "images": [{
        "filename": "a.png", "split": "train", "sentences": [{"raw": "a red circle"}],
        "filepath": "", "imgid": 0, "sentids": [0],
    }]})
    .to_string()
}

fn asked() -> String {
    json!({
        "answers": ["red", "blue"],
        "questions": [
            {"image": "a.png", "question": "what?", "answers": {"red": 0.5}, "split": "train"},
            {"image": "a.png", "question": "what?", "answer": "blue", "split": "val"},
        ],
        "statements": [
            {"images": ["a.png", "a.png"], "text": "Red.", "label": true, "split": "train"},
        ],
    })
    .to_string()
}

fn line() -> String {
    let line = json!({"sentence": "x", "label": "True", "identifier": "dev-1-0-0", "directory": 1});
    format!("{line}\n{line}\n")
}

fn tokenizer() -> String {
    let captions = ["a red circle", "a blue square"];
    let config = TokenizerConfig {
        vocab_size: 60,
        ..Default::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokenizer.json");
    let tokenizer = CaptionTokenizer::train(captions.into_iter(), &config).unwrap();
    tokenizer.save(&file).unwrap();
    std::fs::read_to_string(file).unwrap()
}

/// Whole, they are taken.
#[test]
fn lists_as_they_are_distributed() {
    for (index, layout) in Layout::all().iter().enumerate() {
        let dir = layout.write();
        let count = if index < 4 {
            Questions::read(dir.path(), false).unwrap().items.len()
        } else {
            Statements::read(dir.path(), false).unwrap().items.len()
        };
        assert_eq!(count, [2, 3, 2, 2, 2, 12][index]);
    }
}

/// Nor is it waited for, or quoted whole.
#[test]
fn pipes_and_endless_words_are_refused() {
    let long = "x".repeat(3_000_000);
    for (list, text) in [
        ("questions.json", json!({"questions": long})),
        ("questions.json", json!({"questions": [long]})),
        (
            "questions.json",
            json!({"answers": [long, long], "questions": []}),
        ),
        (
            "vqa_train.json",
            json!([{"image": long, "question": "q", "answer": "a"}]),
        ),
        ("statements.json", json!({"statements": [{"images": long}]})),
    ] {
        read_asked(list, text.to_string().as_bytes()).unwrap();
    }
    #[cfg(unix)]
    for layout in Layout::all() {
        for (name, _) in &layout.files {
            let dir = layout.write();
            let file = dir.path().join(name);
            std::fs::remove_file(&file).unwrap();
            let made = std::process::Command::new("mkfifo").arg(&file).status();
            assert!(made.unwrap().success());
            read_at(dir.path()).unwrap();
            assert!(Questions::read(dir.path(), true).is_err());
            assert!(Statements::read(dir.path(), true).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(300)
    })]

    #[test]
    fn tables(text in table()) {
        read("table.csv", text.as_bytes())?;
        read("table.tsv", text.as_bytes())?;
    }

    #[test]
    fn bytes(bytes in vec(any::<u8>(), 0..400)) {
        for list in ["list.csv", "list.tsv", "list.json"] {
            read(list, &bytes)?;
        }
    }

    #[test]
    fn split_files_of_any_values(value in value()) {
        read("list.json", value.to_string().as_bytes())?;
        let images = json!({"images": [value]});
        read("list.json", images.to_string().as_bytes())?;
    }

    #[test]
    fn damaged_split_files(bytes in mutated(karpathy())) {
        read("list.json", &bytes)?;
    }

    #[test]
    fn questions_and_statements_of_any_values(value in value()) {
        let row = json!({"questions": [value], "statements": [value]});
        for text in [value.to_string(), row.to_string()] {
            for list in ["list.json", "vqa_train.json"] {
                read_asked(list, text.as_bytes())?;
            }
        }
    }

    #[test]
    fn damaged_questions_and_statements(bytes in mutated(asked())) {
        read_asked("list.json", &bytes)?;
    }

    #[test]
    fn damaged_lines(bytes in mutated(line())) {
        read_asked("dev.json", &bytes)?;
    }

    #[test]
    fn damaged_lists_as_they_are_distributed((layout, file, bytes) in damaged_layout()) {
        let layout = &Layout::all()[layout];
        let dir = layout.write();
        read_at(dir.path())?;
        std::fs::write(dir.path().join(layout.files[file].0), bytes)?;
        read_at(dir.path())?;
    }

    #[test]
    fn damaged_tokenizers(bytes in mutated(tokenizer())) {
        let dir = folder("tokenizer.json", &bytes);
        if let Ok(tokenizer) = CaptionTokenizer::load(dir.path().join("tokenizer.json"), 12) {
            let _ = tokenizer.encode("a red square");
            let _ = tokenizer.cuts("a red square");
            tokenizer.fingerprint();
        }
    }
}
