//! `albef`, and SRCL on top of it, on the made-up pairs.

mod init;
mod resume;
mod sharding;
mod step;

use burn::tensor::Device;
use burn::train::Interrupter;
use burn_contrastive_examples::systems::albef::{Albef, AlbefConfig};
use burn_contrastive_examples::training::config;
use burn_contrastive_examples::training::trainer::Start;
use tempfile::TempDir;

use crate::pairs::Event;
use crate::run::from_scratch;
use crate::tensors::{assert_close, batch, read, values};

type TrainingConfig = config::TrainingConfig<AlbefConfig>;

/// Pairs in the queue: no multiple of the eight of a batch.
const QUEUE: usize = 20;

fn config(pairs: &[&str]) -> TrainingConfig {
    let small = [
        "seed=3",
        "model.image.image_size=16",
        "model.image.patch_size=8",
        "model.image.width=16",
        "model.image.layers=1",
        "model.bert.vocabulary=32",
        "model.bert.context=16",
        "model.bert.width=16",
        "model.bert.layers=2",
        "model.bert.fusion_layers=1",
        "model.bert.intermediate=24",
        "model.embedding=8",
        "tokens=16",
        "momentum.momentum=0.9",
        "momentum.queue=20",
        "data.batch_size=8",
        "schedule.steps=12",
        "schedule.warmup_steps=2",
        "validation.every=4",
        "checkpoints.every=5",
    ];
    let pairs: Vec<String> = small.iter().chain(pairs).map(ToString::to_string).collect();
    TrainingConfig::load(None, &pairs).unwrap()
}

/// SRCL's configuration with a teacher that was trained for two steps in that folder.
fn with_teacher(pairs: &[&str]) -> (TrainingConfig, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let teacher = config(&["objective=info-nce", "schedule.steps=2", "seed=8"]);
    from_scratch(&teacher, folder.path(), Event::None, Interrupter::new()).unwrap();
    let run = format!("teacher.run={}", folder.path().display());
    let pairs = [&["objective=srcl", &run][..], pairs].concat();
    (config(&pairs), folder)
}

fn fresh(config: &TrainingConfig) -> Start<Albef> {
    Start::fresh(config, &Device::flex()).unwrap()
}
