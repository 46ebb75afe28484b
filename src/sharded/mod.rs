//! Exact large batches: a batch that is encoded in shards, with one loss over all of its pairs.
//!
//! A contrastive loss compares each pair with all others of its batch, so the gradients of several
//! small batches do not add up to that of a large one. Those of *shards* do, once the loss has seen
//! all embeddings:
//!
//! ```text
//! 1. encode each shard                                        embeddings of all pairs
//! 2. one loss over all pairs                                  L and ∂L/∂embeddings
//! 3. of each shard, backward of  Σ embedding · ∂L/∂embedding  ∂L/∂parameters, to be added up
//! ```
//!
//! This is the step of the whole batch, not an approximation: the same loss and gradients, up to
//! the rounding of sums in another order.
//!
//! | [`Sharding`] | encodes | holds at its peak |
//! |---|---|---|
//! | [`recompute`](Sharding::recompute) | twice, one after another | the activations of one shard |
//! | [`keep`](Sharding::keep) | once, several at once | the activations of all shards |
//!
//! and, either way, the embeddings and their gradients, `O(N·D)`. Recomputing is for batches whose
//! activations do not fit; a third more products, if a backward pass costs two forward passes.
//! Keeping is for devices that one shard does not fill: the cores of a CPU, several GPUs.
//!
//! ```
//! use burn::module::{Module, Param};
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_contrastive::objective::InfoNceConfig;
//! use burn_contrastive::sharded::{Encoded, Sharding};
//!
//! #[derive(Module, Debug)]
//! struct Towers {
//!     image: Param<Tensor<2>>,
//!     text: Param<Tensor<2>>,
//! }
//!
//! let device = Device::default().autodiff();
//! let random = |rows, columns| {
//!     Tensor::<2>::random([rows, columns], Distribution::Default, &device)
//! };
//! let model = Towers {
//!     image: Param::from_tensor(random(12, 8)),
//!     text: Param::from_tensor(random(20, 8)),
//! };
//! let objective = InfoNceConfig::new().init(&device);
//!
//! // 10 pairs: shards of 4, 4 and 2.
//! let shards = [4, 4, 2].map(|pairs| (random(pairs, 12), random(pairs, 20)));
//! let step = Sharding::recompute().backward(
//!     &model,
//!     &shards,
//!     |model: &Towers, (image, text)| {
//!         let image = image.clone().matmul(model.image.val());
//!         Encoded::new([image, text.clone().matmul(model.text.val())])
//!     },
//!     |embeddings| {
//!         let [image, text] = embeddings.try_into().unwrap();
//!         objective.forward(image, text)
//!     },
//! );
//! assert_eq!(step.loss.dims(), [1]);
//! assert_eq!(step.embeddings[0].dims(), [10, 8]);
//! // For the optimiser:
//! assert!(step.gradients.get::<2>(model.image.id).is_some());
//! ```
//!
//! **Not accumulation.** Averaging the gradients of several batches, each with its own loss, lowers
//! the variance of the gradient; the negatives of a pair are still those of one small batch.
//!
//! **Several workers.** [`with_workers`](Sharding::with_workers) divides a batch among threads,
//! devices, processes or machines: each passes its own shards, and the step is that of all.
//!
//! **Source.** Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory
//! Limited Setup", 2021 (the gradient cache), for one device.

mod batch;

use std::sync::Arc;
use std::thread;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Bool, Device, Gradients, Int, Tensor};

use self::batch::{Batch, places};
use crate::workers::{self, Workers};

/// What the encoders make of a shard.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// What the loss of the whole batch reads, such as the embeddings of images and of texts: row
    /// by row, `[rows, width]` each. All shards have as many of them, each of one width.
    pub embeddings: Vec<Tensor<2>>,
    /// A loss of this shard alone, `[1]`, which is added to that of the batch: that of a fusion
    /// encoder, say, times the shard's share of the batch.
    pub loss: Option<Tensor<1>>,
}

impl Encoded {
    /// Embeddings without a loss of the shard's own.
    pub fn new(embeddings: impl IntoIterator<Item = Tensor<2>>) -> Self {
        Self {
            embeddings: embeddings.into_iter().collect(),
            loss: None,
        }
    }

    /// With a loss of the shard's own.
    pub fn with_loss(self, loss: Tensor<1>) -> Self {
        Self {
            loss: Some(loss),
            ..self
        }
    }

    /// The values, without their graph.
    fn inner(&self) -> Self {
        Self {
            embeddings: self.embeddings.iter().cloned().map(Tensor::inner).collect(),
            loss: self.loss.clone().map(Tensor::inner),
        }
    }

    /// The gradients of what the shard adds to the loss, where `upstream` are those by its
    /// embeddings.
    fn backward(self, upstream: Vec<Option<Tensor<2>>>) -> Option<Gradients> {
        let pairs = self.embeddings.into_iter().zip(upstream);
        let parts = pairs.filter_map(|(embeddings, gradient)| {
            Some((embeddings * Tensor::from_inner(gradient?)).sum())
        });
        let all = parts.chain(self.loss).reduce(|sum, part| sum + part)?;
        Some(all.backward())
    }
}

/// What a sharded step leaves; all without autodiff. With several workers each has the whole.
#[derive(Debug)]
pub struct Sharded {
    /// The loss of the batch and those of the shards, added up, `[1]`.
    pub loss: Tensor<1>,
    /// The embeddings of the whole batch, shard by shard, `[N, width]` each.
    pub embeddings: Vec<Tensor<2>>,
    /// The gradients of the batch by the parameters of the model.
    pub gradients: GradientsParams,
}

/// How the shards of a batch are encoded: see [the module](self).
#[derive(Clone, Debug)]
pub struct Sharding {
    graphs: Graphs,
    seed: Option<(Device, u64)>,
    workers: Option<Arc<dyn Workers>>,
}

#[derive(Clone, Copy, Debug)]
enum Graphs {
    Recompute,
    Keep { at_once: usize },
}

impl Default for Sharding {
    fn default() -> Self {
        Self::recompute()
    }
}

impl Sharding {
    /// Shards are encoded one after another, twice: once for the loss, once for its gradient.
    pub fn recompute() -> Self {
        Self {
            graphs: Graphs::Recompute,
            seed: None,
            workers: None,
        }
    }

    /// Shards are encoded once and their graphs kept, `at_once` of them at the same time, each on a
    /// thread of its own, and so are their backward passes.
    ///
    /// # Panics
    ///
    /// If `at_once` is 0.
    pub fn keep(at_once: usize) -> Self {
        assert!(
            at_once > 0,
            "Sharding: `at_once` is 0, it must be at least 1"
        );
        Self {
            graphs: Graphs::Keep { at_once },
            seed: None,
            workers: None,
        }
    }

    /// Sets the generator of `device` before each shard is encoded, to a number that follows from
    /// `seed` and the index of the shard, and before the loss. Encoders that draw at random, for
    /// dropout say, then draw the same when they run again, on whichever worker. Another step needs
    /// another seed.
    ///
    /// Burn has one generator for all threads: shards that are [kept](Self::keep) several at once
    /// draw in no order, and are not seeded.
    pub fn with_seed(self, device: &Device, seed: u64) -> Self {
        Self {
            seed: Some((device.clone(), seed)),
            ..self
        }
    }

    /// This worker's shards are a part of the batch, whose shards are those of worker 0, then those
    /// of worker 1, and so on. All [`workers`] call [`backward`](Self::backward) with the same
    /// model and a `loss` that computes the same; each gets the loss, the embeddings and the
    /// gradients of the whole batch. Each computes its part of the similarities of all pairs
    /// ([`workers::divide`]).
    ///
    /// Workers may have different numbers of shards, and encode them in different ways. What `loss`
    /// draws at random must be the same on all: see [`with_seed`](Self::with_seed).
    pub fn with_workers(self, workers: Arc<dyn Workers>) -> Self {
        Self {
            workers: Some(workers),
            ..self
        }
    }

    /// The number of workers that share a batch: 1 without [`with_workers`](Self::with_workers).
    pub fn workers(&self) -> usize {
        self.workers.as_ref().map_or(1, |workers| workers.count())
    }

    /// The step of a whole batch.
    ///
    /// `encode` runs the encoders of a model on a shard: of a copy of `model`, without gradients
    /// where no graph is wanted, else with a graph of its own. All parameters that it reads must be
    /// those of the model that it is given. Parameters that have not been drawn yet are drawn
    /// before anything else.
    ///
    /// `loss` takes the embeddings of all shards, in the order of [`Encoded::embeddings`],
    /// `[N, width]` each, to a loss `[1]`. The parameters that it reads, such as a learned logit
    /// scale, have gradients if they are of `model`, which may be a tuple of modules.
    ///
    /// # Panics
    ///
    /// If there is no shard, if shards differ in what they have but for the number of rows, if
    /// something is on a device without autodiff, or if a shard has other embeddings when it is
    /// encoded again: see [`with_seed`](Self::with_seed). With several workers also if one has no
    /// shard, or others than worker 0, and with the message of [`Lost`](workers::Lost) if one ends.
    pub fn backward<M: Module + Sync, S: Sync>(
        &self,
        model: &M,
        shards: &[S],
        encode: impl Fn(&M, &S) -> Encoded + Sync,
        loss: impl FnOnce(Vec<Tensor<2>>) -> Tensor<1>,
    ) -> Sharded {
        let workers = self.workers.as_ref().filter(|workers| workers.count() > 1);
        let [before, all] = places(shards.len(), workers);
        // A copy shares what is not drawn yet, its need of gradients included.
        model.visit(&mut Draw);
        let encode = |model: &M, k: usize| {
            self.seed(before + k);
            let encoded = encode(model, &shards[k]);
            check_autodiff(&encoded, k);
            encoded
        };
        let loss = |embeddings| {
            self.seed_alone(all);
            match workers {
                Some(workers) => workers::divide(workers, || loss(embeddings)),
                None => loss(embeddings),
            }
        };
        let mut sum = GradientsAccumulator::new();
        let mut add = |gradients: Option<GradientsParams>| {
            gradients
                .into_iter()
                .for_each(|part| sum.accumulate(model, part));
        };
        // Those by the parameters of a copy.
        let backward = |copy: &M, shard: Encoded, upstream| {
            let gradients = shard.backward(upstream)?;
            Some(GradientsParams::from_grads(gradients, copy))
        };
        let batch = match self.graphs {
            Graphs::Recompute => {
                // Not `valid`, which turns dropout off. And a graph would stay in memory until a
                // backward pass.
                let frozen = model.clone().no_grad();
                let encoded = (0..shards.len()).map(|k| encode(&frozen, k).inner());
                let encoded: Vec<_> = encoded.collect();
                let batch = Batch::new(model, &encoded, loss, workers);
                let copy = model.clone().map(&mut Detach);
                for (k, first) in encoded.iter().enumerate() {
                    let again = encode(&copy, k);
                    check_equal(&again, first, k);
                    add(backward(&copy, again, batch.upstream(k)));
                }
                batch
            }
            Graphs::Keep { at_once } => {
                let mut encoded = Vec::with_capacity(shards.len());
                let forward = |k| {
                    let copy = model.clone().map(&mut Detach);
                    let shard = encode(&copy, k);
                    (copy, shard)
                };
                in_order(0..shards.len(), at_once, forward, |shard| {
                    encoded.push(shard)
                });
                let inner: Vec<_> = encoded.iter().map(|(_, shard)| shard.inner()).collect();
                let batch = Batch::new(model, &inner, loss, workers);
                let upstream = encoded.into_iter().enumerate();
                let upstream = upstream.map(|(k, (copy, shard))| (copy, shard, batch.upstream(k)));
                let backward =
                    |(copy, shard, upstream): (M, _, _)| backward(&copy, shard, upstream);
                in_order(upstream, at_once, backward, add);
                batch
            }
        };
        // All workers have the gradients by what the loss reads, to rounding: one adds them.
        if workers.is_none_or(|workers| workers.rank() == 0) {
            sum.accumulate(model, batch.gradients);
        }
        let gradients = sum.grads();
        Sharded {
            loss: batch.loss,
            embeddings: batch.embeddings,
            gradients: match workers {
                Some(workers) => workers::sum_gradients(&**workers, model, gradients),
                None => gradients,
            },
        }
    }

    /// For a shard, which may be encoded beside others.
    fn seed(&self, shard: usize) {
        if !matches!(self.graphs, Graphs::Keep { at_once: 2.. }) {
            self.seed_alone(shard);
        }
    }

    fn seed_alone(&self, index: usize) {
        if let Some((device, seed)) = &self.seed {
            // Far apart for neighbouring shards and neighbouring seeds (the constant is that of
            // splitmix64).
            device.seed(
                seed.wrapping_add(index as u64)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    ^ seed,
            );
        }
    }
}

/// Reads all parameters, so that those are drawn that have not been.
struct Draw;

impl ModuleVisitor for Draw {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        param.val();
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        param.val();
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        param.val();
    }
}

/// Makes parameters the leaves of a graph of their own, where there was one. Graphs that meet in a
/// parameter become one to Burn, with one lock, and steps that two threads add to it while it is
/// made are lost.
struct Detach;

impl ModuleMapper for Detach {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| {
            let is_leaf = value.is_require_grad();
            value.detach().set_require_grad(is_leaf)
        })
    }
}

/// Runs `f` on all items, `at_once` of them at the same time; `take` has the results in order.
fn in_order<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    at_once: usize,
    f: impl Fn(T) -> R + Sync,
    mut take: impl FnMut(R),
) {
    let mut items = items.into_iter();
    if at_once == 1 {
        return items.for_each(|item| take(f(item)));
    }
    loop {
        let wave: Vec<T> = items.by_ref().take(at_once).collect();
        if wave.is_empty() {
            return;
        }
        let results = thread::scope(|scope| {
            let started: Vec<_> = wave
                .into_iter()
                .map(|item| {
                    let f = &f;
                    scope.spawn(move || f(item))
                })
                .collect();
            let joined = started.into_iter().map(thread::ScopedJoinHandle::join);
            joined.collect::<Vec<_>>()
        });
        for result in results {
            take(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    }
}

fn check_autodiff(encoded: &Encoded, k: usize) {
    let embeddings = encoded.embeddings.iter().map(Tensor::device);
    let devices = embeddings.chain(encoded.loss.iter().map(Tensor::device));
    for device in devices {
        assert!(
            device.is_autodiff(),
            "Sharding: what shard {k} was encoded to is on a device without autodiff: build the \
             encoders on `device.autodiff()`"
        );
    }
}

/// Checks that the second encoding is the first but for rounding, which a device may do otherwise.
fn check_equal(again: &Encoded, first: &Encoded, k: usize) {
    let Some(sums) = again
        .embeddings
        .iter()
        .zip(&first.embeddings)
        .map(|(x, y)| {
            let x = x.clone().inner();
            let square = |x: Tensor<2>| x.powf_scalar(2.0).sum();
            Tensor::cat(vec![square(x - y.clone()), square(y.clone())], 0)
        })
        .reduce(|a, b| a + b)
    else {
        return;
    };
    let sums: Vec<f64> = sums.into_data().iter::<f64>().collect();
    // NaN is no difference: it is for the loss to show.
    let differ = sums[0] > 1e-4 * sums[1];
    assert!(
        !differ,
        "Sharding: the embeddings of shard {k} are others when it is encoded again, so its \
         gradients would be wrong: if the encoders draw at random (dropout), use `with_seed`"
    );
}
