//! `embed`, `search` and `zero-shot`: weights, tokenizers, data and outputs that do not fit, and
//! ends at any moment.

mod classes;
mod ends;
mod numbers;
mod pairs;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn_contrastive_examples::data::CaptionTokenizer;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::program::{Answer, Place, Program, table};

const EMBED: Program = Program {
    file: env!("CARGO_BIN_EXE_embed"),
    command: &[],
    small: &[],
};

const SEARCH: Program = Program {
    file: env!("CARGO_BIN_EXE_search"),
    ..EMBED
};

const ZERO_SHOT: Program = Program {
    file: env!("CARGO_BIN_EXE_zero-shot"),
    ..EMBED
};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

/// The small vocabulary of CLIP's kind.
pub fn vocabulary() -> Vec<u8> {
    fs::read(format!("{FIXTURES}/tokenizers/bpe_simple_vocab.txt")).unwrap()
}

/// A small CLIP in open_clip's layout, with an embedding for each token of that vocabulary; all
/// weights of its text projection are `projection`, if given.
pub fn write_clip(file: &Path, projection: Option<f32>) {
    let bytes = fs::read(format!("{FIXTURES}/models/clip_open.safetensors")).unwrap();
    let fixture = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = fixture
        .iter()
        .filter_map(|(name, tensor)| {
            let name = name.strip_prefix("weight.")?.to_string();
            Some((name, (tensor.shape().to_vec(), tensor.data().to_vec())))
        })
        .collect();
    let vocabulary = format!("{FIXTURES}/tokenizers/bpe_simple_vocab.txt");
    let tokens = CaptionTokenizer::load(vocabulary, 16).unwrap().vocab_size();
    // More rows, of the same numbers.
    for (name, rows) in [
        ("token_embedding.weight", tokens),
        ("positional_embedding", 16),
    ] {
        let (shape, values) = tensors.get_mut(name).unwrap();
        let length = values.len() / shape[0] * rows;
        *values = values.iter().copied().cycle().take(length).collect();
        shape[0] = rows;
        // A token's embedding is its own.
        for (row, value) in values.chunks_exact_mut(4 * shape[1]).enumerate() {
            let own = (row as f32).sin();
            value[..4].copy_from_slice(&own.to_le_bytes());
        }
    }
    if let Some(projection) = projection {
        let (_, values) = tensors.get_mut("text_projection").unwrap();
        let count = values.len() / 4;
        *values = projection.to_le_bytes().repeat(count);
    }
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name, view)
    });
    safetensors::serialize_to_file(views, None, file).unwrap();
}

/// A place with weights, their vocabulary, and the table of pictures.
fn place() -> Place {
    let place = Place::new();
    write_clip(&place.join("clip.safetensors"), None);
    place.write("vocabulary.txt", vocabulary());
    table(&place, "");
    place
}

/// A command by options, of which `changes` are other ones; those that are `""` are left out, and
/// those that end in `!` have no value.
fn command(
    place: &Place,
    program: Program,
    options: &[(&str, &str)],
    changes: &[(&str, &str)],
) -> Command {
    let mut all: BTreeMap<&str, &str> = options.iter().copied().collect();
    all.extend(changes.iter().copied());
    let arguments = all
        .into_iter()
        .flat_map(|(name, value)| match (name, value) {
            (_, "") => vec![],
            (flag, "!") => vec![flag],
            _ => vec![name, value],
        });
    place.run(program, arguments)
}

/// `embed` on the table.
fn embed(place: &Place, changes: &[(&str, &str)]) -> Command {
    let options = [
        ("--weights", "clip.safetensors"),
        ("--tokenizer", "vocabulary.txt"),
        ("--data", "table.csv"),
        ("--output", "out.safetensors"),
    ];
    command(place, EMBED, &options, changes)
}

/// `search` in what `embed` wrote.
fn search(place: &Place, changes: &[(&str, &str)]) -> Command {
    let options = [
        ("--embeddings", "pairs.safetensors"),
        ("--weights", "clip.safetensors"),
        ("--tokenizer", "vocabulary.txt"),
        ("--text", "picture number 3"),
        ("--output", "out.html"),
    ];
    command(place, SEARCH, &options, changes)
}

/// `zero-shot` on pictures in folders.
fn zero_shot(place: &Place, changes: &[(&str, &str)]) -> Command {
    let options = [
        ("--weights", "clip.safetensors"),
        ("--tokenizer", "vocabulary.txt"),
        ("--classes", "classes.json"),
        ("--data", "sorted"),
        ("--output", "out.html"),
        ("--metrics", "out.json"),
    ];
    command(place, ZERO_SHOT, &options, changes)
}

/// What lies in the place and begins with `out`.
fn written(place: &Place) -> Vec<PathBuf> {
    let names = fs::read_dir(place.path()).unwrap();
    let paths = names.map(|entry| entry.unwrap().path());
    let is_output = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("out") || name.starts_with(".tmp")
    };
    paths.filter(is_output).collect()
}

/// Weights and tokenizers that no program takes.
const NO_WEIGHTS: [([(&str, &str); 2], &str); 12] = [
    (
        [("--weights", "absent"), ("--split", "")],
        "absent: no file of weights",
    ),
    (
        [("--weights", "."), ("--split", "")],
        ".: no file of weights",
    ),
    (
        [("--weights", "empty"), ("--split", "")],
        "cannot read empty",
    ),
    ([("--weights", "cut"), ("--split", "")], "cannot read cut"),
    (
        [("--weights", "code.pt"), ("--split", "")],
        "cannot read code.pt",
    ),
    (
        [("--weights", "table.csv"), ("--split", "")],
        "cannot read table.csv",
    ),
    (
        [("--weights", "bert"), ("--split", "")],
        "no dual encoder of images and texts",
    ),
    ([("--weights", "run"), ("--split", "")], "run"),
    (
        [("--weights", "clip.safetensors"), ("--tokenizer", "")],
        "no tokenizer.json lies beside clip.safetensors",
    ),
    (
        [("--weights", "clip.safetensors"), ("--tokenizer", "absent")],
        "cannot load tokenizer absent",
    ),
    (
        [
            ("--weights", "clip.safetensors"),
            ("--tokenizer", "table.csv"),
        ],
        "no tokenizer.json",
    ),
    (
        [
            ("--weights", "clip.safetensors"),
            ("--tokenizer", "bert.txt"),
        ],
        "the tokenizer has 300 tokens, and clip.safetensors embeddings of ",
    ),
];

/// Files of that list. What the code in one would make is returned.
fn write_no_weights(place: &Place) -> PathBuf {
    let whole = fs::read(place.join("clip.safetensors")).unwrap();
    place.write("cut", &whole[..whole.len() / 2]);
    place.write("empty", "");
    let made = place.join("made");
    let call = format!("cos\nsystem\n(S'touch {}'\ntR.", made.display());
    place.write("code.pt", call);
    let copy = |from: &str, to: &str| {
        let bytes = fs::read(format!("{FIXTURES}/{from}")).unwrap();
        place.write(to, bytes);
    };
    copy("tokenizers/vocab.txt", "bert.txt");
    let bert = fs::read(format!("{FIXTURES}/models/bert.safetensors")).unwrap();
    let bert = SafeTensors::deserialize(&bert).unwrap();
    let named = bert
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("weight.")?, tensor)));
    safetensors::serialize_to_file(named, None, &place.join("bert")).unwrap();
    // A run that ended before its first checkpoint.
    place.write("run/config.json", "{}");
    made
}

/// That none of those is taken, and none leaves anything.
fn assert_no_weights(
    count: &mut super::program::Count,
    place: &Place,
    run: impl Fn(&[(&str, &str)]) -> Command,
) {
    let made = write_no_weights(place);
    for (changes, reason) in NO_WEIGHTS {
        let answer = Answer::of(&mut run(&changes));
        count.refused(&format!("{changes:?}"), &answer, reason);
        assert!(written(place).is_empty(), "{changes:?}");
    }
    assert!(!made.exists(), "code in weights was run");
}
