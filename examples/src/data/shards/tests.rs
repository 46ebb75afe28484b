use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::data::named::image_name;
use crate::data::table::split_of;
use crate::data::testing::{ROWS, Small, parquet, picture, png, refusal, rows, two};
use crate::data::{Collection, Pictures};

#[test]
fn patterns_and_folders_name_the_same_shards_and_their_names_the_splits() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in [
        "data/a-train-00.tar",
        "data/a-train-01.tar",
        "data/a-val-0.tar",
        "x/test/0.tar",
    ] {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        two(&at(name));
    }
    // What img2dataset writes beside its archives.
    fs::write(at("data/a-train-00.parquet"), "no images").unwrap();
    fs::write(at("data/a-train-00_stats.json"), "{}").unwrap();
    fs::create_dir(at("x/val")).unwrap();
    fs::rename(at("data/a-val-0.tar"), at("x/val/0.tar")).unwrap();
    two(&at("data/a-val-0.tar"));

    let splits = |path: &str| {
        let collection = Collection::read(at(path), false).unwrap();
        collection
            .examples
            .iter()
            .map(|one| one.split)
            .collect::<Vec<_>>()
    };
    let [train, val, test] = Split::ALL.map(|split| vec![split; 2]);
    let expected = [train.clone(), train.clone(), val.clone()].concat();
    assert_eq!(splits("data"), expected);
    assert_eq!(splits("data/a-{train-{00..01},val-0}.tar"), expected);
    // Folders in a folder; alone they say nothing.
    assert_eq!(splits("x"), [test, val.clone()].concat());
    assert_eq!(splits("x/{val,test}/0.tar")[..2], val);
    assert_eq!(
        splits("x/val/0.tar"),
        ["a.png", "b.png"].map(crate::data::table::split_of)
    );

    let message = refusal(&at("data/a-train-{00..03}.tar"));
    assert!(
        message.contains("a-train-02.tar of ") && message.contains("is missing"),
        "{message}"
    );
    let message = refusal(&at("data/a-train-00.{tar,parquet}"));
    assert!(message.contains("two kinds"), "{message}");
    let message = refusal(&at("data/{0..9999999}.tar"));
    assert!(message.contains("stands for"), "{message}");
    let message = refusal(&at("data/{a,b}.csv"));
    assert!(message.contains("cannot read"), "{message}");
    // A file of that name is itself.
    two(&at("data/{0..3}.tar"));
    assert_eq!(splits("data/{0..3}.tar").len(), 2);
}

#[test]
fn files_of_their_own_are_in_no_shard() {
    assert_eq!(Small::new().collection.shards(&[0, 1]), None);
    let dir = tempfile::tempdir().unwrap();
    let alone = picture(&dir.path().join("a.tar.png"), [1; 3]);
    assert!(Pictures::default().find(&alone).unwrap().decode().is_ok());
}

#[test]
fn the_fingerprint_tells_shards_apart() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (name, first) in [("one", 2), ("two", 3)] {
        fs::create_dir(at(name)).unwrap();
        let pairs: Vec<_> = (0..5).map(|index| (png([index; 3]), "a caption")).collect();
        let groups = [rows(&pairs[..first]), rows(&pairs[first..])];
        parquet(&at(name).join("train.parquet"), ROWS, &groups);
    }
    fs::create_dir(at("three")).unwrap();
    fs::copy(at("one/train.parquet"), at("three/train.parquet")).unwrap();
    let [one, two, three] = ["one", "two", "three"]
        .map(|name| Collection::read(at(name), false).unwrap().fingerprint());
    assert_eq!(one, three);
    assert_ne!(one, two);
}

#[test]
fn what_others_wrote_is_read_as_they_would_read_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/shards");
    let expected: Value =
        serde_json::from_slice(&fs::read(folder.join("shards.json")).unwrap()).unwrap();
    for (file, rows) in expected["files"].as_object().unwrap() {
        let collection = Collection::read(folder.join(file), false).unwrap();
        let rows = rows.as_array().unwrap();
        assert_eq!(collection.examples.len(), rows.len(), "{file}");
        for (index, row) in rows.iter().enumerate() {
            let example = &collection.examples[index];
            assert_eq!(json!(example.captions), row["captions"], "{file}, {index}");
            assert_eq!(image_name(&collection, index), row["name"]);
            let split = row["split"].as_str().and_then(Split::from_name);
            let name = image_name(&collection, index);
            assert_eq!(example.split, split.unwrap_or_else(|| split_of(&name)));
            let image = collection.decode(index).unwrap();
            assert_eq!(image.width(), row["width"].as_u64().unwrap() as u32);
            let pixels = image.iter().map(|value| format!("{value:02x}"));
            assert_eq!(pixels.collect::<String>(), row["pixels"], "{file}, {index}");
        }
    }
}
