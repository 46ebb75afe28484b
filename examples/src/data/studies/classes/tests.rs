use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::data::TokenizerConfig;
use crate::data::testing::folder;

fn plain() -> TransformConfig {
    TransformConfig {
        size: 4,
        ..TransformConfig::default()
    }
}

fn retrieval(change: impl FnOnce(&mut Value)) -> TempDir {
    let mut file = json!({"classes": ["a", "b"],
        "query_images": [{"image": "a.png", "class": "b"}],
        "query_sentences": [{"sentence": " It is a. ", "class": "a"}],
        "candidates": [{"image": "images/b.png", "class": "a"}, {"image": "a.png", "class": "b"},
            {"image": "a.png", "class": "a"}]});
    change(&mut file);
    folder(
        &["a.png", "images/b.png"],
        &[("retrieval.json", file.to_string())],
    )
}

fn read(dir: &TempDir, skip_bad: bool) -> Result<ClassRetrieval> {
    ClassRetrieval::read(&dir.path().join("retrieval.json"), skip_bad)
}

#[test]
fn queries_and_candidates_are_read_and_embedded_in_order() {
    let dir = retrieval(|_| {});
    let found = read(&dir, false).unwrap();
    assert_eq!(found.labels(), [vec![1], vec![0], vec![0, 1, 0]]);
    assert_eq!(found.query_sentences[0].item, "It is a.");
    let config = TokenizerConfig {
        vocab_size: 60,
        ..TokenizerConfig::default()
    };
    let tokenizer = Arc::new(CaptionTokenizer::train(["It is a."].iter(), &config).unwrap());
    let images = found.images(&tokenizer, plain(), 2).unwrap();
    assert_eq!(images.num_images(), 4);
    assert_eq!(images.image_path(1), dir.path().join("images/b.png"));
    let sentences = found.sentences(&tokenizer, 8, &Device::default()).unwrap();
    assert_eq!(sentences.len(), 1);
    assert_eq!(sentences[0].tokens.dims()[0], 1);
}

#[test]
fn bad_queries_and_candidates_are_named() {
    for (list, bad, expected) in [
        (
            "query_images",
            json!({"image": "none.png", "class": "b"}),
            "cannot read image",
        ),
        (
            "query_images",
            json!({"image": "a.png", "class": "d"}),
            "\"d\" is none of the file's",
        ),
        (
            "candidates",
            json!({"image": " ", "class": "b"}),
            "an image path is blank",
        ),
        (
            "candidates",
            json!({"image": "a.png"}),
            "missing field `class`",
        ),
        (
            "query_sentences",
            json!({"sentence": "", "class": "b"}),
            "the sentence is blank",
        ),
        ("query_sentences", json!("a"), "invalid type"),
    ] {
        let dir = retrieval(|file| file[list].as_array_mut().unwrap().insert(1, bad));
        let error = read(&dir, false).unwrap_err().to_string();
        assert!(
            error.contains(&format!("retrieval.json, {list}[1]: ")) && error.contains(expected),
            "{expected}: {error}"
        );
        let skipped = read(&dir, true).unwrap();
        assert_eq!(skipped.skipped.len(), 1);
        assert!(skipped.skipped[0].reason.contains(expected));
    }
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 4] = [
        (|file| file["candidates"] = json!([]), "no candidates"),
        (
            |file| file["query_sentences"] = json!([]),
            "no query_sentences",
        ),
        (
            |file| file["candidates"][1]["class"] = json!("a"),
            "queries of the class \"b\" have no candidate",
        ),
        (
            |file| file["classes"] = json!(["a", "b", "a"]),
            "\"a\" is there twice",
        ),
    ];
    for (change, expected) in cases {
        let error = read(&retrieval(change), true).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(read(&retrieval(|file| *file = json!([])), true).is_err());
}

#[test]
fn the_file_beside_the_studies_is_found() {
    let dir = folder(&["a.png"], &[("studies.json", "{}".to_string())]);
    assert_eq!(ClassRetrieval::beside(dir.path()).unwrap(), None);
    let file = dir.path().join("retrieval.json");
    std::fs::write(&file, "{}").unwrap();
    for path in [dir.path().to_owned(), dir.path().join("studies.json")] {
        assert_eq!(ClassRetrieval::beside(&path).unwrap(), Some(file.clone()));
    }
}
