//! The batch that shards, of one worker or of several, make together: its loss and its gradients.

use std::sync::Arc;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::Encoded;
use crate::workers::{self, Workers};

/// How many shards other workers have before those of this one, and how many there are.
pub(super) fn places(shards: usize, workers: Option<&Arc<dyn Workers>>) -> [usize; 2] {
    let Some(workers) = workers else {
        assert!(shards > 0, "Sharding: there is no shard");
        return [0, shards];
    };
    let counts = workers::gather_values(&**workers, &[shards as u64]).concat();
    if let Some(without) = counts.iter().position(|&count| count == 0) {
        panic!(
            "Sharding: worker {without} has no shard, of 0..{}, which have {counts:?}: every \
             worker needs one",
            workers.count()
        );
    }
    let sum = |counts: &[u64]| counts.iter().sum::<u64>() as usize;
    [sum(&counts[..workers.rank()]), sum(&counts)]
}

/// The loss of the batch and its gradients.
pub(super) struct Batch {
    pub loss: Tensor<1>,
    pub embeddings: Vec<Tensor<2>>,
    /// By the parameters that the loss reads.
    pub gradients: GradientsParams,
    by_embeddings: Vec<Option<Tensor<2>>>,
    /// For each shard, where its rows begin in each of the embeddings, and how many they are.
    rows: Vec<Vec<(usize, usize)>>,
}

impl Batch {
    pub fn new<M: Module>(
        model: &M,
        shards: &[Encoded],
        loss: impl FnOnce(Vec<Tensor<2>>) -> Tensor<1>,
        workers: Option<&Arc<dyn Workers>>,
    ) -> Self {
        check_shapes(shards, workers);
        let outputs = shards[0].embeddings.len();
        let mut next = vec![0; outputs];
        let own = (0..outputs).map(|output| {
            let parts = shards.iter().map(|shard| shard.embeddings[output].clone());
            Tensor::cat(parts.collect(), 0)
        });
        let mut embeddings: Vec<Tensor<2>> = own.collect();
        if let Some(workers) = workers {
            let counts = embeddings.iter().map(|x| x.dims()[0] as u64);
            let counts = workers::gather_values(&**workers, &counts.collect::<Vec<_>>());
            for (k, next) in next.iter_mut().enumerate() {
                let before = counts[..workers.rank()].iter();
                *next = before.map(|counts| counts[k] as usize).sum();
            }
            let gather = |x| workers::gather_rows(&**workers, x);
            embeddings = embeddings.into_iter().map(gather).collect();
        }
        let rows = shards.iter().map(|shard| {
            let each = shard.embeddings.iter().zip(&mut next);
            let each = each.map(|(embeddings, next)| {
                let (start, count) = (*next, embeddings.dims()[0]);
                *next += count;
                (start, count)
            });
            each.collect()
        });
        let rows = rows.collect();

        let leaves = embeddings.iter().cloned().map(Tensor::from_inner);
        let leaves: Vec<_> = leaves.map(Tensor::require_grad).collect();
        let of_batch = loss(leaves.clone());
        let gradients = of_batch.backward();
        let by_embeddings = leaves.iter().map(|leaf| leaf.grad(&gradients)).collect();

        let of_shards = shards.iter().filter_map(|shard| shard.loss.clone());
        let of_batch = of_batch.inner();
        let loss = match workers {
            Some(workers) => {
                let counted = if workers.rank() == 0 { 1.0 } else { 0.0 };
                let own = of_shards.fold(of_batch * counted, |sum, loss| sum + loss);
                workers::sum_scalar(&**workers, own)
            }
            None => of_shards.fold(of_batch, |sum, loss| sum + loss),
        };
        Self {
            loss,
            embeddings,
            gradients: GradientsParams::from_grads(gradients, model),
            by_embeddings,
            rows,
        }
    }

    /// The gradients by the embeddings of shard `k`.
    pub fn upstream(&self, k: usize) -> Vec<Option<Tensor<2>>> {
        let each = self.by_embeddings.iter().zip(&self.rows[k]);
        let part = |(gradient, &(start, count)): (&Option<Tensor<2>>, &(usize, usize))| {
            let gradient = gradient.clone()?;
            Some(gradient.narrow(0, start, count))
        };
        each.map(part).collect()
    }
}

fn check_shapes(shards: &[Encoded], workers: Option<&Arc<dyn Workers>>) {
    let widths = |shard: &Encoded| -> Vec<usize> {
        let embeddings = shard.embeddings.iter();
        embeddings.map(|embeddings| embeddings.dims()[1]).collect()
    };
    let expected = widths(&shards[0]);
    for (k, shard) in shards.iter().enumerate() {
        let found = widths(shard);
        assert!(
            found == expected,
            "Sharding: shard {k} has embeddings of widths {found:?}, shard 0 of {expected:?}: all \
             shards need the same"
        );
        assert!(
            shard.loss.is_some() == shards[0].loss.is_some(),
            "Sharding: of the shards 0 and {k}, one has a loss of its own and the other has none"
        );
    }
    if let Some(workers) = workers {
        let loss = if shards[0].loss.is_some() {
            "with a loss"
        } else {
            "without a loss"
        };
        let found = format!("widths {expected:?}, {loss} of their own");
        workers::require_equal(&**workers, "kind of shards", found)
            .unwrap_or_else(|error| panic!("Sharding: {error}"));
    }
}
