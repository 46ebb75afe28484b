use std::fs;
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::data::testing::{folder, picture, truncate};
use crate::data::{
    CaptionTokenizer, Examples, Loader, LoaderConfig, Shard, TokenizerConfig, TransformConfig,
};

fn row(right: &str, label: bool, split: &str) -> Value {
    json!({"images": ["a.png", right], "text": " A. ", "label": label, "split": split})
}

fn own(rows: &[Value]) -> TempDir {
    let file = json!({"statements": rows, "made_by": 1});
    folder(
        &["a.png", "images/b.png"],
        &[("statements.json", file.to_string())],
    )
}

#[test]
fn the_own_form_is_read_with_kinds_and_splits() {
    let mut second = row("a.png", false, "dev");
    second["kind"] = "count".into();
    let dir = own(&[row("images/b.png", true, "train"), second]);
    for path in [dir.path().to_owned(), dir.path().join("statements.json")] {
        let statements = Statements::read(path, false).unwrap();
        let [first, second] = statements.items.as_slice() else {
            panic!("two statements")
        };
        let [a, b] = ["a.png", "images/b.png"].map(|image| dir.path().join(image));
        assert_eq!(first.images, [a.clone(), b]);
        assert_eq!((first.label, first.split), (true, Split::Train));
        assert_eq!((first.text.as_str(), first.kind.as_str()), ("A.", ""));
        assert_eq!(second.images, [a.clone(), a]);
        assert_eq!((second.label, second.split), (false, Split::Validation));
        assert_eq!(statements.kinds(), ["", "count"]);
        assert_eq!(statements.indices(Split::Validation), [1]);
        assert_eq!(statements.texts(Split::Train).collect::<Vec<_>>(), ["A."]);
        assert!(
            statements
                .place(1)
                .ends_with("statements.json, statements[1]")
        );
    }
}

#[test]
fn bad_statements_are_named_and_counted_when_skipped() {
    let with = |key: &str, value: Value| {
        let mut row = row("images/b.png", true, "test");
        row[key] = value;
        row
    };
    for (bad, expected) in [
        (json!([]), "invalid length 0"),
        (
            json!({"images": ["a.png", "a.png"]}),
            "missing field `text`",
        ),
        (with("images", json!(["a.png"])), "invalid length 1"),
        (
            with("images", json!(["a.png", " "])),
            "an image path is blank",
        ),
        (
            with("images", json!(["none.png", "a.png"])),
            "cannot read image",
        ),
        (with("images", json!(["a.png", "broken.png"])), "broken.png"),
        (with("text", json!("\n")), "the statement is blank"),
        (with("label", json!("True")), "expected a boolean"),
        (with("split", json!("maybe")), "unknown split \"maybe\""),
    ] {
        let dir = own(&[row("a.png", true, "train"), bad]);
        picture(&dir.path().join("broken.png"), [1; 3]);
        truncate(&dir.path().join("broken.png"));
        let error = Statements::read(dir.path(), false).unwrap_err().to_string();
        assert!(
            error.contains("statements.json, statements[1]: ")
                && error.contains(expected)
                && error.contains("--skip-bad"),
            "{expected}: {error}"
        );
        let skipped = Statements::read(dir.path(), true).unwrap();
        assert_eq!((skipped.items.len(), skipped.skipped.len()), (1, 1));
        assert!(skipped.skipped[0].reason.contains(expected));
    }
}

#[test]
fn bad_files_are_refused_whether_skipping_or_not() {
    for (text, expected) in [
        (
            "{\n\"statements\": [\n{,",
            "statements.json:3:2: not a file of statements",
        ),
        ("", "statements.json:1:0"),
        ("{\"statements\": {}}", "expected an array of statements"),
        (
            "{\"statements\": []}",
            "no usable statement about two images",
        ),
        ("{\"statements\": [{}]}", "statements.json"),
    ] {
        let dir = folder(&[], &[("statements.json", text.into())]);
        for skip_bad in [false, true] {
            let error = format!("{:#}", Statements::read(dir.path(), skip_bad).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

#[test]
fn the_error_for_something_else_says_what_is_expected() {
    let dir = folder(&["a.png"], &[]);
    for (path, expected) in [
        (dir.path().join("nowhere"), "cannot read"),
        (dir.path().to_owned(), "holds no list of statements"),
        (dir.path().join("a.png"), "is no .json"),
    ] {
        let error = format!("{:#}", Statements::read(path, false).unwrap_err());
        assert!(
            error.contains(expected) && error.contains("NLVR2"),
            "{error}"
        );
    }
    let dir = folder(
        &[],
        &[("statements.json", "".into()), ("dev.json", "".into())],
    );
    let error = Statements::read(dir.path(), false).unwrap_err().to_string();
    assert!(
        error.contains("several lists") && error.contains("dev.json"),
        "{error}"
    );
}

/// A line of NLVR2 or NLVR.
fn line(identifier: &str, label: &str) -> Value {
    json!({"sentence": "One is red.", "label": label, "identifier": identifier, "synset": "x"})
}

fn lines(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn nlvr2_is_read_wherever_its_images_are_kept() {
    let mut train = line("train-7-1-2", "False");
    train["directory"] = 23.into();
    let dev = [line("dev-840-0-0", "True"), line("dev-840-0-1", "false")];
    let images = [
        "images/train/23/train-7-1-img0.png",
        "images/train/23/train-7-1-img1.png",
        "dev/dev-840-0-img0.png",
        "dev/dev-840-0-img1.png",
        "images/test1-1-0-img0.png",
        "images/test1-1-0-img1.png",
    ];
    let dir = folder(
        &images,
        &[
            ("train.json", lines(&[train])),
            ("dev.json", format!("\u{feff}{}\n", lines(&dev))),
            ("test1.json", lines(&[line("test1-1-0-0", "True")])),
        ],
    );
    let statements = Statements::read(dir.path(), false).unwrap();
    let found: Vec<_> = statements
        .items
        .iter()
        .map(|item| (item.split, item.label))
        .collect();
    let validation = Split::Validation;
    assert_eq!(
        found,
        [
            (Split::Train, false),
            (validation, true),
            (validation, false),
            (Split::Test, true)
        ]
    );
    for (item, pair) in statements.items.iter().zip([0, 1, 1, 2]) {
        for (image, name) in item.images.iter().zip(&images[2 * pair..]) {
            assert_eq!(image, &dir.path().join(name));
        }
    }
    assert!(statements.place(2).ends_with("dev.json, line 2"));
    let dev = Statements::read(dir.path().join("dev.json"), false).unwrap();
    assert_eq!(dev.items.len(), 2);
}

#[test]
fn bad_lines_are_named_and_counted_when_skipped() {
    let good = line("dev-1-0-0", "True");
    let mut number = good.clone();
    number["label"] = 1.into();
    let mut blank = good.clone();
    blank["sentence"] = "".into();
    for (bad, expected) in [
        ("{".to_owned(), "EOF"),
        ("[]".to_owned(), "invalid length 0"),
        ("{\"sentence\": \"x\"}".to_owned(), "missing field `label`"),
        (number.to_string(), "the label is 1; expected true or false"),
        (
            line("dev-1-0-0", "maybe").to_string(),
            "the label is \"maybe\"",
        ),
        (line("dev", "True").to_string(), "the identifier is \"dev\""),
        (
            line("dev-2-0-0", "True").to_string(),
            "image dev-2-0-img0.png not found in",
        ),
        (blank.to_string(), "the statement is blank"),
    ] {
        let dir = folder(
            &["images/dev-1-0-img0.png", "images/dev-1-0-img1.png"],
            &[("dev.json", format!("{good}\n\n{bad}\n"))],
        );
        let error = Statements::read(dir.path(), false).unwrap_err().to_string();
        assert!(
            error.contains("dev.json, line 3: ") && error.contains(expected),
            "{error}"
        );
        let skipped = Statements::read(dir.path(), true).unwrap();
        assert_eq!((skipped.items.len(), skipped.skipped.len()), (1, 1));
    }
    let dir = folder(&[], &[("dev.json", "x".repeat(2 << 20))]);
    let error = Statements::read(dir.path(), true).unwrap_err().to_string();
    assert!(
        error.contains("line 1: the line is longer than 1 MiB"),
        "{error}"
    );
}

#[test]
fn nlvr_has_six_pictures_a_line_each_of_which_is_both_images() {
    let nlvr = |identifier: &str, label: &str| {
        let mut line = line(identifier, label);
        line["directory"] = "57".into();
        line
    };
    let images: Vec<_> = (0..6)
        .map(|i| format!("dev/images/57/dev-1-0-{i}.png"))
        .collect();
    let names: Vec<_> = images.iter().map(String::as_str).collect();
    let files = [("dev/dev.json", lines(&[nlvr("1-0", "true")]))];
    let dir = folder(&names, &files);
    for path in [dir.path().to_owned(), dir.path().join("dev/dev.json")] {
        let statements = Statements::read(path, false).unwrap();
        assert_eq!(statements.items.len(), 6);
        for (item, image) in statements.items.iter().zip(&images) {
            let image = dir.path().join(image);
            assert_eq!(item.images, [image.clone(), image]);
            assert!(item.label);
            assert_eq!(
                (item.split, item.place),
                (Split::Validation, Place::Line(1))
            );
        }
    }
    fs::remove_file(dir.path().join(&images[4])).unwrap();
    let error = Statements::read(dir.path(), false).unwrap_err().to_string();
    assert!(
        error.contains("dev.json, line 1: cannot read image"),
        "{error}"
    );
    assert_eq!(Statements::read(dir.path(), true).unwrap().items.len(), 5);
    let dir = folder(&names, &[("dev/dev.json", lines(&[line("1-0", "true")]))]);
    let error = Statements::read(dir.path(), false).unwrap_err().to_string();
    assert!(error.contains("line 1: it has no directory"), "{error}");
}

#[test]
fn the_fingerprint_is_that_of_what_is_stated_wherever_it_lies() {
    let rows = [
        row("images/b.png", true, "train"),
        row("a.png", false, "test"),
    ];
    let [a, b] = [own(&rows), own(&rows)].map(|dir| Statements::read(dir.path(), false).unwrap());
    assert_ne!(a.files, b.files);
    assert_eq!(a.fingerprint(), b.fingerprint());
    let changes: [fn(&mut Statements); 6] = [
        |statements| statements.items[0].text.push('!'),
        |statements| statements.items[0].label = false,
        |statements| statements.items[0].kind.push('x'),
        |statements| statements.items[0].split = Split::Test,
        |statements| statements.items[0].images.swap(0, 1),
        |statements| statements.items.swap(0, 1),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut changed = a.clone();
        change(&mut changed);
        assert_ne!(changed.fingerprint(), a.fingerprint(), "change {index}");
    }
}

#[test]
fn an_item_has_both_images_in_order_the_statement_and_its_label() {
    let dir = own(&[
        row("images/b.png", true, "train"),
        row("a.png", false, "train"),
    ]);
    picture(&dir.path().join("images/b.png"), [200, 30, 7]);
    let statements = Arc::new(Statements::read(dir.path(), false).unwrap());
    let tokenizer = TokenizerConfig {
        vocab_size: 300,
        ..TokenizerConfig::default()
    };
    let tokenizer = CaptionTokenizer::train(statements.texts(Split::Train), &tokenizer).unwrap();
    let tokenizer = Arc::new(tokenizer);
    let transform = TransformConfig {
        size: 4,
        ..TransformConfig::default()
    };
    let pairs = StatedPairs::new(statements.clone(), tokenizer.clone(), transform).unwrap();
    let of = |colour: [u8; 3]| colour.into_iter().flat_map(|value| [value; 16]);
    let [a, b] = [[9; 3], [200, 30, 7]].map(|colour| of(colour).collect::<Vec<_>>());
    let expected = StatedPair {
        pixels: [a.clone(), b],
        tokens: tokenizer.encode("A.").unwrap(),
        label: true,
        index: 0,
    };
    assert_eq!(pairs.load(0, None).unwrap(), expected);
    let second = pairs.load(1, None).unwrap();
    assert_eq!((second.label, second.index), (false, 1));
    assert_eq!(second.pixels, [a.clone(), a]);

    let config = LoaderConfig {
        batch_size: 2,
        ..LoaderConfig::default()
    };
    let error = Loader::ordered(pairs.clone(), Split::Test, config.clone());
    let error = error.err().unwrap().to_string();
    assert!(
        error.ends_with("statements.json has no statement in split test"),
        "{error}"
    );
    let loader = Loader::shuffled(pairs.clone(), Split::Train, config).unwrap();
    let labels = |batch: Vec<Shard<StatedPair>>| {
        let items = batch.into_iter().flat_map(|shard| shard.items);
        let mut labels: Vec<_> = items.map(|item| (item.index, item.label)).collect();
        labels.sort();
        labels
    };
    for batch in loader.iter() {
        assert_eq!(labels(batch.unwrap()), [(0, true), (1, false)]);
    }

    fs::remove_file(dir.path().join("images/b.png")).unwrap();
    let error = format!("{:#}", pairs.load(0, None).unwrap_err());
    assert!(
        error.contains("statements.json, statements[0]: ") && error.contains("b.png"),
        "{error}"
    );
}
