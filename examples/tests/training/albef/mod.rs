//! `albef`, and SRCL on top of it, on the made-up pairs.

mod init;
mod resume;
mod sharding;
mod step;

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::Interrupter;
use burn_contrastive_examples::data::Shard;
use burn_contrastive_examples::systems::albef::{Albef, AlbefConfig};
use burn_contrastive_examples::training::checkpoint::Cursor;
use burn_contrastive_examples::training::config;
use burn_contrastive_examples::training::trainer::Start;
use tempfile::TempDir;

use crate::pairs::{BATCHES, Event, Pairs};
use crate::run::from_scratch;

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

/// The batch that is served `number`th, in shards of so many pairs.
fn batch(number: usize, shard: usize) -> Vec<Shard> {
    let (epoch, batch) = (number / BATCHES, number % BATCHES);
    Pairs::new(shard).batch(Cursor { epoch, batch }).unwrap()
}

/// Gradients, or values, of parameters by their paths.
type Tensors = BTreeMap<String, TensorData>;

struct Read<'a> {
    path: Vec<String>,
    gradients: Option<&'a GradientsParams>,
    found: Tensors,
}

impl ModuleVisitor for Read<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = match self.gradients {
            Some(gradients) => gradients.get::<D>(param.id),
            None => Some(param.val()),
        };
        if let Some(tensor) = tensor {
            self.found.insert(self.path.join("."), tensor.into_data());
        }
    }
}

fn read<M: Module>(module: &M, gradients: Option<&GradientsParams>) -> Tensors {
    let mut read = Read {
        path: Vec::new(),
        gradients,
        found: Tensors::new(),
    };
    module.visit(&mut read);
    read.found
}

fn values<M: Module>(module: &M) -> Tensors {
    read(module, None)
}

/// Checks that both have the same tensors, up to `error` of the largest value of each.
#[track_caller]
fn assert_close(found: &Tensors, expected: &Tensors, error: f64) {
    let paths = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(found), paths(expected));
    for (path, expected) in expected {
        let largest = expected.iter::<f64>().fold(0.1, |a: f64, b| a.max(b.abs()));
        for (found, expected) in found[path].iter::<f64>().zip(expected.iter::<f64>()) {
            let apart = (found - expected).abs();
            assert!(
                apart <= error * largest,
                "{path}: {found} instead of {expected}, of up to {largest}"
            );
        }
    }
}
