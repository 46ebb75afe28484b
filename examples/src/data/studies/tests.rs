use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::data::testing::{folder, picture, truncate};
use crate::data::{
    CaptionTokenizer, Examples, Loader, LoaderConfig, Pair, Shard, TokenizerConfig, TransformConfig,
};

fn row(images: &[&str], split: &str) -> Value {
    json!({"images": images, "sentences": [" One. ", "Two more"], "split": split,
        "labels": {"b": true, "c": null}})
}

fn set(rows: &[Value]) -> TempDir {
    let file = json!({"classes": ["a", "b", "c"], "studies": rows, "made_by": 1});
    folder(
        &["a.png", "images/b.png"],
        &[("studies.json", file.to_string())],
    )
}

#[test]
fn studies_are_read_with_labels_and_splits() {
    let mut second = row(&["a.png"], "dev");
    second["labels"] = Value::Null;
    let dir = set(&[row(&["a.png", "images/b.png"], "train"), second]);
    for path in [dir.path().to_owned(), dir.path().join("studies.json")] {
        let studies = Studies::read(path, Needs::Sentences, false).unwrap();
        let [first, second] = studies.items.as_slice() else {
            panic!("two studies")
        };
        let [a, b] = ["a.png", "images/b.png"].map(|image| dir.path().join(image));
        assert_eq!(first.images, [a.clone(), b]);
        assert_eq!(first.sentences, ["One.", "Two more"]);
        assert_eq!(first.labels, Some(vec![Some(false), Some(true), None]));
        assert_eq!(
            (second.labels.clone(), second.split),
            (None, Split::Validation)
        );
        assert_eq!(studies.sentences(Split::Train).count(), 2);
        assert!(studies.place(1).ends_with("studies.json, studies[1]"));
        let captioned = studies.captioned();
        assert_eq!(captioned.examples[0].image.path(), a);
        assert_eq!(captioned.examples[0].captions, first.sentences);
    }
}

#[test]
fn bad_studies_are_named_and_counted_when_skipped() {
    let with = |key: &str, value: Value| {
        let mut row = row(&["a.png"], "test");
        row[key] = value;
        row
    };
    for (needs, bad, expected) in [
        (Needs::Sentences, json!([]), "invalid length 0"),
        (
            Needs::Sentences,
            json!({"images": ["a.png"]}),
            "missing field `split`",
        ),
        (
            Needs::Sentences,
            with("images", json!([])),
            "it has no image",
        ),
        (
            Needs::Sentences,
            with("images", json!(["a.png", " "])),
            "an image path is blank",
        ),
        (
            Needs::Sentences,
            with("images", json!(["none.png"])),
            "cannot read image",
        ),
        (
            Needs::Sentences,
            with("images", json!(["a.png", "broken.png"])),
            "broken.png",
        ),
        (
            Needs::Sentences,
            with("sentences", json!([])),
            "it has no sentence",
        ),
        (
            Needs::Sentences,
            with("sentences", json!(["x", "\n"])),
            "a sentence is blank",
        ),
        (
            Needs::Sentences,
            with("split", json!("maybe")),
            "unknown split \"maybe\"",
        ),
        (
            Needs::Sentences,
            with("labels", json!({"d": true})),
            "\"d\" is none of the file's",
        ),
        (
            Needs::Sentences,
            with("labels", json!({"a": 1})),
            "expected a boolean",
        ),
        (
            Needs::Labels,
            with("labels", Value::Null),
            "it has no labels",
        ),
        (
            Needs::Sentences,
            with("sentence", json!("x")),
            "unknown field `sentence`",
        ),
    ] {
        let dir = set(&[row(&["a.png"], "train"), bad]);
        picture(&dir.path().join("broken.png"), [1; 3]);
        truncate(&dir.path().join("broken.png"));
        let error = Studies::read(dir.path(), needs, false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("studies.json, studies[1]: ")
                && error.contains(expected)
                && error.contains("--skip-bad"),
            "{expected}: {error}"
        );
        let skipped = Studies::read(dir.path(), needs, true).unwrap();
        assert_eq!((skipped.items.len(), skipped.skipped.len()), (1, 1));
        assert!(skipped.skipped[0].reason.contains(expected));
    }
}

#[test]
fn bad_files_are_refused_whether_skipping_or_not() {
    for (text, needs, expected) in [
        (
            "{\n\"studies\": [\n{,",
            Needs::Sentences,
            "studies.json:3:2: not a file of studies",
        ),
        ("", Needs::Sentences, "studies.json:1:0"),
        (
            "{\"studies\": {}}",
            Needs::Sentences,
            "expected an array of studies",
        ),
        ("{\"studies\": []}", Needs::Sentences, "no usable study"),
        ("{\"studies\": []}", Needs::Labels, "names no classes"),
        (
            "{\"classes\": [\"a\", \"a\"], \"studies\": []}",
            Needs::Labels,
            "\"a\" is there twice",
        ),
        (
            "{\"classes\": [\" \"], \"studies\": []}",
            Needs::Labels,
            "classes[0]: \" \" is blank",
        ),
    ] {
        let dir = folder(&[], &[("studies.json", text.to_string())]);
        for skip_bad in [false, true] {
            let error = Studies::read(dir.path(), needs, skip_bad).unwrap_err();
            assert!(
                format!("{error:#}").contains(expected),
                "{expected}: {error:#}"
            );
        }
    }
    let dir = folder(&[], &[]);
    for path in [dir.path().to_owned(), dir.path().join("none")] {
        let error = Studies::read(path, Needs::Sentences, false).unwrap_err();
        assert!(
            format!("{error:#}").contains("expected a studies.json"),
            "{error:#}"
        );
    }
}

#[test]
fn the_fingerprint_tells_sets_apart() {
    let print = |rows: &[Value]| {
        let dir = set(rows);
        Studies::read(dir.path(), Needs::Sentences, false)
            .unwrap()
            .fingerprint()
    };
    let base = row(&["a.png", "images/b.png"], "train");
    let mut seen = BTreeSet::from([print(std::slice::from_ref(&base))]);
    assert!(seen.contains(&print(std::slice::from_ref(&base))));
    let with = |key: &str, value: Value| {
        let mut row = base.clone();
        row[key] = value;
        row
    };
    for other in [
        with("images", json!(["images/b.png", "a.png"])),
        with("images", json!(["a.png"])),
        with("sentences", json!(["One.", "Two more", "three"])),
        with("sentences", json!(["One. Two more"])),
        with("labels", json!({"b": true, "c": false})),
        with("labels", json!({"a": true, "c": null})),
        with("labels", Value::Null),
        with("split", json!("val")),
    ] {
        assert!(seen.insert(print(std::slice::from_ref(&other))), "{other}");
    }
}

fn tokenizer(studies: &Studies) -> Arc<CaptionTokenizer> {
    let config = TokenizerConfig {
        vocab_size: 200,
        ..TokenizerConfig::default()
    };
    let all = Split::ALL
        .into_iter()
        .flat_map(|split| studies.sentences(split));
    Arc::new(CaptionTokenizer::train(all, &config).unwrap())
}

fn plain() -> TransformConfig {
    TransformConfig {
        size: 4,
        ..TransformConfig::default()
    }
}

/// A study with two images of other colours and three sentences, four of them.
fn several() -> (TempDir, Arc<Studies>) {
    let rows: Vec<Value> = (0..4)
        .map(|i| {
            json!({"images": [format!("{i}-0.png"), format!("{i}-1.png")], "split": "train",
                "sentences": ["alpha", "beta beta", "gamma gamma gamma"],
                "labels": {"a": i == 0}})
        })
        .chain([
            json!({"images": ["a.png"], "sentences": ["delta"], "split": "val",
            "labels": {}}),
        ])
        .collect();
    let dir = set(&rows);
    for study in 0..4_u8 {
        for image in 0..2_u8 {
            picture(
                &dir.path().join(format!("{study}-{image}.png")),
                [40 * study + 20 * image; 3],
            );
        }
    }
    let studies = Studies::read(dir.path(), Needs::Labels, false).unwrap();
    (dir, Arc::new(studies))
}

#[test]
fn one_image_and_one_sentence_are_drawn_apart_by_seed_and_epoch() {
    let (_dir, studies) = several();
    let tokenizer = tokenizer(&studies);
    let pairs = StudyPairs::new(studies, tokenizer, plain()).unwrap();
    let epochs = |seed, workers| {
        let config = LoaderConfig {
            batch_size: 2,
            seed,
            workers,
            ..LoaderConfig::default()
        };
        let loader = Loader::shuffled(pairs.clone(), Split::Train, config).unwrap();
        let mut all: Vec<Pair> = Vec::new();
        for _ in 0..60 {
            let shards: Vec<Vec<Shard>> = loader.iter().map(Result::unwrap).collect();
            all.extend(shards.into_iter().flatten().flat_map(|shard| shard.items));
        }
        all
    };
    let drawn = epochs(1, 1);
    assert_eq!(drawn, epochs(1, 3));
    assert_ne!(drawn, epochs(2, 1));
    let mut seen: BTreeMap<(usize, u8, usize), usize> = BTreeMap::new();
    for pair in &drawn {
        *seen
            .entry((pair.image_id, pair.pixels[0], pair.tokens.len()))
            .or_default() += 1;
    }
    // Every image with every sentence of its study: 4 · 2 · 3.
    assert_eq!(seen.len(), 24, "{seen:?}");

    // Without a draw, the first of both.
    let config = LoaderConfig {
        batch_size: 2,
        ..LoaderConfig::default()
    };
    let loader = Loader::ordered(pairs.clone(), Split::Train, config).unwrap();
    let shards = loader.iter().flat_map(Result::unwrap);
    for pair in shards.flat_map(|shard| shard.items) {
        assert_eq!(pair, pairs.load(pair.image_id, None).unwrap());
        assert_eq!(pair.pixels[0], 40 * pair.image_id as u8);
    }
}

#[test]
fn a_share_of_the_labels_is_nested_in_a_larger_one() {
    let rows: Vec<Value> = (0..50)
        .map(|i| {
            row(
                &["a.png", "images/b.png"],
                if i < 40 { "train" } else { "val" },
            )
        })
        .collect();
    let dir = set(&rows);
    let studies = Arc::new(Studies::read(dir.path(), Needs::Labels, false).unwrap());
    let tokenizer = tokenizer(&studies);
    let images = |share, seed| {
        LabelledImages::new(studies.clone(), &tokenizer, plain(), share, seed).unwrap()
    };
    let kept = |share, seed| {
        let images = images(share, seed);
        let indices = images.indices(Split::Train).into_iter();
        let of = |index| images.images[index];
        indices.map(of).collect::<BTreeSet<_>>()
    };
    assert_eq!(images(1.0, 0).count(Split::Train), [80, 40]);
    assert_eq!(images(0.01, 0).count(Split::Train), [2, 1]);
    assert_eq!(images(0.1, 0).count(Split::Train), [8, 4]);
    assert_eq!(images(0.11, 0).count(Split::Train), [10, 5]);
    assert_eq!(images(0.1, 0).count(Split::Validation), [20, 10]);
    for shares in [0.01, 0.1, 0.3, 1.0].windows(2) {
        assert!(kept(shares[0], 7).is_subset(&kept(shares[1], 7)));
    }
    assert_eq!(kept(0.3, 7), kept(0.3, 7));
    assert_ne!(kept(0.3, 7), kept(0.3, 8));
}

#[test]
fn every_image_has_the_labels_of_its_study() {
    let (_dir, studies) = several();
    let tokenizer = tokenizer(&studies);
    let images = LabelledImages::new(studies, &tokenizer, plain(), 1.0, 0).unwrap();
    let all = images.indices(Split::Train);
    assert_eq!(all.len(), 8);
    for (place, index) in all.into_iter().enumerate() {
        let image = images.load(index, None).unwrap();
        assert_eq!(
            image.pixels[0] as usize,
            40 * (place / 2) + 20 * (place % 2)
        );
        assert_eq!(image.labels, [Some(place < 2), Some(false), Some(false)]);
        assert_eq!(image.index, index);
    }
}
