//! `compare` at a toy size: the whole of it, interrupted and side by side, with every figure
//! computed again from the embeddings; and what it refuses.
#![cfg(unix)]

mod batches;
mod files;
mod least_squares;
mod naive;
mod published;
mod refusals;
mod side_by_side;
mod tables;
mod whole;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;
use burn_contrastive_examples::compare::setup::Setup;
use burn_contrastive_examples::compare::work::Comparison;

/// Burn has one random generator per process, so tests that train run one at a time.
fn exclusively() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Encoders that are of no use but quick, on few small scenes.
const TOY: [&str; 16] = [
    "data.batch_size=10",
    "data.scenes.train=160",
    "data.scenes.image_size=16",
    "model.image.image_size=16",
    "model.image.patch_size=8",
    "model.image.width=8",
    "model.image.heads=1",
    "model.image.layers=1",
    "model.text.vocabulary=300",
    "model.text.context=24",
    "model.text.width=8",
    "model.text.heads=1",
    "model.text.layers=1",
    "model.embedding=8",
    "schedule.steps=4",
    "schedule.warmup_steps=1",
];

/// The setup of a toy, at two rates.
fn toy() -> Setup {
    let mut setup = Setup::new();
    let settings = TOY.map(String::from);
    setup.training = setup.training.with(None, &settings).unwrap();
    let protocol = &mut setup.protocol;
    protocol.rates = vec![0.0, 0.6];
    protocol.seeds = 2;
    protocol.fewer_seeds = 1;
    protocol.validation = 20;
    protocol.test = 30;
    protocol.probe_batches = 2;
    protocol.looks = 2;
    setup.check().unwrap();
    setup
}

/// A comparison in `folder`, with scenes beside it, of some objectives or of all.
fn comparison(folder: &Path, setup: Setup, only: &[&str]) -> Comparison {
    Comparison {
        setup,
        only: only.iter().map(ToString::to_string).collect(),
        folder: folder.join("results"),
        scenes: folder.to_path_buf(),
        keeps_embeddings: true,
        jobs: 1,
        device: Device::flex(),
    }
}
