//! Batches of the made-up pairs, and the tensors of a module by their paths.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use burn_contrastive_examples::data::Shard;
use burn_contrastive_examples::training::checkpoint::Cursor;

use crate::pairs::{BATCHES, Pairs};

/// The batch that is served `number`th, in shards of so many pairs.
pub fn batch(number: usize, shard: usize) -> Vec<Shard> {
    let (epoch, batch) = (number / BATCHES, number % BATCHES);
    Pairs::new(shard).batch(Cursor { epoch, batch }).unwrap()
}

/// Gradients, or values, of parameters by their paths.
pub type Tensors = BTreeMap<String, TensorData>;

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

pub fn read<M: Module>(module: &M, gradients: Option<&GradientsParams>) -> Tensors {
    let mut read = Read {
        path: Vec::new(),
        gradients,
        found: Tensors::new(),
    };
    module.visit(&mut read);
    read.found
}

pub fn values<M: Module>(module: &M) -> Tensors {
    read(module, None)
}

/// Checks that both have the same tensors, up to `error` of the largest value of each.
#[track_caller]
pub fn assert_close(found: &Tensors, expected: &Tensors, error: f64) {
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
