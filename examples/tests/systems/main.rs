//! Small runs of the systems from data to report, interrupted and resumed, and what they refuse.

mod albef;
mod clip;
mod embed;
mod it_contrast;
mod late_interaction;
mod nlvr;
mod radiograph;
mod recomputed;
mod shards;
mod visual_semantic;
mod vqa;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;
use burn::train::Interrupter;
use burn_contrastive_examples::report::Metrics;
use burn_contrastive_examples::training::run::{Ended, Folder, Options, Program};

/// Burn has one random generator per process, so tests that initialize models run one at a time.
fn exclusively() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Settings of a `clip` that is of no use but quick.
const TINY_CLIP: [&str; 7] = [
    "data.batch_size=16",
    "model.image.image_size=32",
    "model.image.width=24",
    "model.image.layers=1",
    "model.text.width=24",
    "model.text.layers=1",
    "model.embedding=12",
];

/// The results of a finished run.
fn metrics(run: &Path) -> Metrics {
    serde_json::from_slice(&fs::read(run.join("metrics.json")).unwrap()).unwrap()
}

/// What interrupts a run after its first step.
fn stopped() -> Interrupter {
    let interrupter = Interrupter::new();
    interrupter.stop(Some("test"));
    interrupter
}

/// A run in `folder` of the program that those words call, with scenes in the folder `scenes`.
fn options(folder: Folder, scenes: &Path, program: &[&str]) -> Options {
    let words = program.iter().chain(&["--resume"]);
    Options {
        folder,
        scenes: scenes.to_path_buf(),
        device: Device::flex(),
        device_name: "flex".to_string(),
        workers: 2,
        dashboard: false,
        lines_every: 50,
        team: Arc::default(),
        command: program.join(" "),
        to_resume: words.map(ToString::to_string).collect(),
        stage_of: None,
    }
}

/// That a run does not go on with another value in a file of features, and does with what it was.
fn assert_no_other_value<S: Program>(file: &Path, go_on: impl Fn() -> anyhow::Result<Ended<S>>) {
    let whole = fs::read(file).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(file, &changed).unwrap();
    let message = format!("{:#}", go_on().err().unwrap());
    assert!(message.contains("features of them"), "{message}");
    fs::write(file, &whole).unwrap();
    assert!(matches!(go_on().unwrap(), Ended::Reached(_)));
}
