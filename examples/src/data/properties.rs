//! Whatever a file holds, reading it ends with what it lists or an error, never with a panic.

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

/// Reads both ways, as questions or as statements by the name; whatever is taken is whole.
fn read_asked(list: &str, content: &[u8]) -> Result<(), TestCaseError> {
    let dir = folder(list, content);
    let file = dir.path().join(list);
    if list == "dev.json" {
        for image in ["dev/dev-1-0-img0.png", "dev/dev-1-0-img1.png"] {
            picture(&dir.path().join(image), [1; 3]);
        }
    }
    let questions = [false, true].map(|skip_bad| Questions::read(&file, skip_bad));
    if let [Ok(strict), lenient] = &questions {
        prop_assert!(strict.skipped.is_empty());
        let lenient = lenient.as_ref().unwrap();
        prop_assert_eq!(strict.fingerprint(), lenient.fingerprint());
    }
    for questions in questions.iter().flatten() {
        prop_assert!(!questions.items.is_empty() && !questions.answers.is_empty());
        for item in &questions.items {
            prop_assert!(!item.question.trim().is_empty() && !item.answers.is_empty());
            let shares = item.answers.iter().map(|(_, share)| *share);
            prop_assert!(shares.sum::<f32>() <= 1.01);
        }
    }
    let statements = [false, true].map(|skip_bad| Statements::read(&file, skip_bad));
    if let [Ok(strict), lenient] = &statements {
        prop_assert!(strict.skipped.is_empty());
        let lenient = lenient.as_ref().unwrap();
        prop_assert_eq!(strict.fingerprint(), lenient.fingerprint());
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
    fn damaged_tokenizers(bytes in mutated(tokenizer())) {
        let dir = folder("tokenizer.json", &bytes);
        if let Ok(tokenizer) = CaptionTokenizer::load(dir.path().join("tokenizer.json"), 12) {
            let _ = tokenizer.encode("a red square");
            let _ = tokenizer.cuts("a red square");
            tokenizer.fingerprint();
        }
    }
}
