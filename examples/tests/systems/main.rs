//! Small runs of the systems from data to report, interrupted and resumed, and what they refuse.

mod albef;
mod clip;
mod it_contrast;
mod nlvr;
mod radiograph;
mod visual_semantic;
mod vqa;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;
use burn_contrastive_examples::training::run::{Folder, Options};

/// Burn has one random generator per process, so tests that initialize models run one at a time.
fn exclusively() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
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
