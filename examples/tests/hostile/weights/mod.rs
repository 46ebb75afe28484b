//! `--init`, `--init-image` and `--init-text` with files of published weights: what is taken, and
//! what is refused.

mod damaged;
mod towers;
mod whole;

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::program::{Answer, Place, Program};

/// Tensors of f32 by their names: shapes and values.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Settings of a run on the weights of the fixture of ALBEF, but for the sizes of its encoders.
const SMALL: [&str; 10] = [
    "data.batch_size=4",
    "data.tokenizer=vocab.txt",
    "model.embedding=6",
    "tokens=10",
    "rerank=2",
    "momentum.queue=6",
    "schedule.steps=2",
    "schedule.warmup_steps=0",
    "checkpoints.every=1",
    "init.new=[\"cross_attention\"]",
];

/// The sizes of its encoders.
const SIZES: [&str; 12] = [
    "model.image.image_size=12",
    "model.image.patch_size=4",
    "model.image.width=12",
    "model.image.layers=2",
    "model.image.heads=3",
    "model.bert.vocabulary=30",
    "model.bert.context=10",
    "model.bert.width=12",
    "model.bert.layers=4",
    "model.bert.fusion_layers=2",
    "model.bert.heads=3",
    "model.bert.intermediate=20",
];

/// The weights of a fixture whose names begin with `prefix`, without it.
fn weights(fixture: &str, prefix: &str) -> Tensors {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let bytes = std::fs::read(format!("{folder}/{fixture}.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().filter_map(|(name, tensor)| {
        let name = name.strip_prefix("weight.")?.strip_prefix(prefix)?;
        let words = tensor.data().chunks_exact(4);
        let values = words.map(|word| f32::from_le_bytes(word.try_into().unwrap()));
        let shape = tensor.shape().to_vec();
        Some((name.to_string(), (shape, values.collect())))
    });
    tensors.collect()
}

/// Writes a file of safetensors.
fn write(file: &Path, tensors: &Tensors) {
    let bytes = tensors.iter().map(|(name, (shape, values))| {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        (name, shape, bytes)
    });
    let bytes: Vec<_> = bytes.collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap();
        (name.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, file).unwrap();
}

/// BERT's special tokens and letters, as many as the fixtures have embeddings.
fn vocabulary(place: &Place, size: usize) {
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_string);
    let letters = ('a'..='z').map(|letter| letter.to_string());
    let all: Vec<_> = specials.into_iter().chain(letters).take(size).collect();
    place.write("vocab.txt", all.join("\n"));
}

/// A run in the folder `run` with these options and settings.
fn run(place: &Place, program: Program, options: &[&str], pairs: &[&str]) -> Answer {
    let mut command = place.run(program, ["--output", "run", "--data", "table.csv"]);
    command.args(options);
    command.args(pairs.iter().flat_map(|pair| ["--set", pair]));
    Answer::of(&mut command)
}
