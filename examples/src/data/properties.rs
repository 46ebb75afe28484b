//! Whatever a file holds, reading it ends with a collection or an error, never with a panic.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::testing::picture;
use super::{CaptionTokenizer, Collection, TokenizerConfig};

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
    fn damaged_tokenizers(bytes in mutated(tokenizer())) {
        let dir = folder("tokenizer.json", &bytes);
        if let Ok(tokenizer) = CaptionTokenizer::load(dir.path().join("tokenizer.json"), 12) {
            let _ = tokenizer.encode("a red square");
            let _ = tokenizer.cuts("a red square");
            tokenizer.fingerprint();
        }
    }
}
