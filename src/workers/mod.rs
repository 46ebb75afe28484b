//! Workers that share a step: threads, devices, processes or machines, each with a part of the
//! batch.
//!
//! Every worker encodes its own pairs, gathers the embeddings of all, and computes the same loss.
//! Of the similarity matrix it computes its own rows against all columns, no more:
//!
//! ```text
//!                 columns: all texts
//!              ┌───────────────────────┐
//!    worker 0  │ rows of its own       │   results of rows: complete, gathered
//!              ├───────────────────────┤   results of columns: partial, joined
//!    worker 1  │ rows of its own       │   gradient by rows: complete, gathered
//!              ├───────────────────────┤   gradient by columns: partial, added up
//!    worker 2  │ rows of its own       │
//!              └───────────────────────┘
//! ```
//!
//! Work and memory of the pairs fall with the number of workers; what moves is `O(N·D)`. Loss and
//! gradients are those of one worker with the whole batch, up to the rounding of sums in another
//! order.
//!
//! [`Sharding::with_workers`](crate::sharded::Sharding::with_workers) is a whole step, whose loss
//! and gradients are the same bits on every worker: models that are equal stay equal.
//! [`divide`] is what it calls the loss in, for a training loop of one's own: within it all
//! [`Pairs`](crate::pairwise::Pairs), hence every objective of this crate and those written with
//! the engine, divide their pairs. What has no pairs, such as normalisation and products of a row
//! with itself, every worker computes for all rows.
//!
//! | workers | between |
//! |---|---|
//! | [`threads`] | threads of one process, each with a device of its own or all with one |
//! | [`devices`] | the same, with Burn's collectives between CUDA devices (NCCL) |
//! | `mpi::Mpi` | processes, of several machines too: feature `mpi` |
//! | a [`Workers`] of your own | whatever can send bytes |
//!
//! **All workers do the same, in the same order.** Each call that moves something waits for all
//! workers. So they need equal models, the same configuration and the same random numbers where the
//! loss draws some; [`require_equal`] checks what the program says must be equal. Threads need a
//! model each, not clones of one: the graphs of clones meet in their parameters, and Burn loses
//! steps that two threads add to one graph.
//!
//! ```
//! use std::thread;
//!
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_contrastive::objective::InfoNceConfig;
//! use burn_contrastive::workers;
//!
//! let device = Device::default();
//! let image = Tensor::<2>::random([6, 4], Distribution::Default, &device);
//! let text = Tensor::<2>::random([6, 4], Distribution::Default, &device);
//! let loss = || {
//!     let objective = InfoNceConfig::new().init(&device);
//!     objective.forward(image.clone(), text.clone()).into_scalar::<f32>()
//! };
//!
//! let alone = loss();
//! thread::scope(|scope| {
//!     for worker in workers::threads(2) {
//!         scope.spawn(move || {
//!             let shared = workers::divide(&worker, loss);
//!             assert!((shared - alone).abs() < 1e-5);
//!         });
//!     }
//! });
//! ```

#[cfg(feature = "mpi")]
pub mod mpi;
mod tensors;
mod threads;

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Device;

pub(crate) use self::tensors::{
    Moved, all_reduce, collective, gather_rows, gather_values, sum_gradients, sum_on_devices,
    sum_scalar, sum_values,
};
pub use self::threads::{Thread, devices, threads};

/// One of several workers that share a step: see [the module](self).
///
/// Only [`exchange`](Self::exchange) moves anything; the other methods that do are made of it.
pub trait Workers: fmt::Debug + Send + Sync {
    /// How many workers there are.
    fn count(&self) -> usize;

    /// Which of them this one is, from 0.
    fn rank(&self) -> usize;

    /// Sends `parts[k]` to worker `k`; what each worker sent to this one, in the order of ranks.
    ///
    /// All workers call it, with as many parts as there are workers, and each call is answered by
    /// the same call of all others. Parts may be empty, and of any length.
    ///
    /// # Errors
    ///
    /// If a worker is lost. No call succeeds from then on.
    fn exchange(&self, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>, Lost>;

    /// What each worker has, in the order of ranks.
    ///
    /// # Errors
    ///
    /// If a worker is lost.
    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, Lost> {
        self.exchange(&vec![mine; self.count()])
    }

    /// What worker 0 has.
    ///
    /// # Errors
    ///
    /// If a worker is lost.
    fn broadcast(&self, mine: &[u8]) -> Result<Vec<u8>, Lost> {
        let nothing: &[u8] = &[];
        let part = if self.rank() == 0 { mine } else { nothing };
        Ok(self.exchange(&vec![part; self.count()])?.swap_remove(0))
    }

    /// The devices of all workers, in the order of ranks, if Burn's collectives connect them. Then
    /// embeddings and gradients move from device to device, not through
    /// [`exchange`](Self::exchange).
    fn devices(&self) -> Option<&[Device]> {
        None
    }

    /// Waits until all workers are here.
    ///
    /// # Errors
    ///
    /// If a worker is lost.
    fn barrier(&self) -> Result<(), Lost> {
        self.gather(&[]).map(|_| ())
    }
}

/// A worker that ended, or that cannot be reached, before the others were done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Whose message is missing; several where it is not known which of them is at fault.
    pub ranks: Vec<usize>,
    /// How many workers there were.
    pub count: usize,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranks: Vec<_> = self.ranks.iter().map(ToString::to_string).collect();
        let workers = if ranks.len() == 1 {
            "worker"
        } else {
            "workers"
        };
        write!(
            f,
            "{workers} {} of 0..{} ended, or cannot be reached",
            ranks.join(", "),
            self.count
        )
    }
}

impl std::error::Error for Lost {}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Workers>>> = const { RefCell::new(None) };
}

/// Calls `f`. All [`Pairs`](crate::pairwise::Pairs) that it reduces, on this thread, are divided
/// among the workers, and so are the backward passes through them, wherever they run.
///
/// All workers call it with the same embeddings of the whole batch. Then `f` returns the same on
/// all of them, and so do the gradients; to rounding, on devices whose own kernels vary.
/// Similarities under [`Evaluation::Dense`](crate::pairwise::Evaluation::Dense) are not divided:
/// every worker computes all.
///
/// # Panics
///
/// Reductions and backward passes panic with the message of [`Lost`] if a worker is lost.
pub fn divide<R>(workers: &Arc<dyn Workers>, f: impl FnOnce() -> R) -> R {
    /// Puts back what was there, also where `f` panics.
    struct Restore(Option<Arc<dyn Workers>>);

    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.with(|current| *current.borrow_mut() = self.0.take());
        }
    }

    let before = CURRENT.with(|current| current.borrow_mut().replace(workers.clone()));
    let _restore = Restore(before);
    f()
}

/// The workers that pairs are divided among; `None` where there is one.
pub(crate) fn current() -> Option<Arc<dyn Workers>> {
    let current = CURRENT.with(|current| current.borrow().clone());
    current.filter(|workers| workers.count() > 1)
}

/// Checks that all workers have the same `value` of what is called `name`.
///
/// # Errors
///
/// On every worker, if one differs from worker 0, with both values; or if a worker is lost.
pub fn require_equal(
    workers: &dyn Workers,
    name: &str,
    value: impl fmt::Display,
) -> Result<(), Unequal> {
    let values = workers
        .gather(value.to_string().as_bytes())
        .map_err(Unequal::Lost)?;
    match values.iter().position(|other| *other != values[0]) {
        None => Ok(()),
        Some(rank) => {
            let [first, other] =
                [0, rank].map(|k| String::from_utf8_lossy(&values[k]).into_owned());
            Err(Unequal::Values {
                name: name.to_owned(),
                first,
                rank,
                other,
            })
        }
    }
}

/// Why [`require_equal`] failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unequal {
    /// A worker has another value.
    Values {
        /// What was compared.
        name: String,
        /// The value of worker 0.
        first: String,
        /// The first worker that has another.
        rank: usize,
        /// Its value.
        other: String,
    },
    /// A worker is lost.
    Lost(Lost),
}

impl fmt::Display for Unequal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Values {
                name,
                first,
                rank,
                other,
            } => write!(
                f,
                "all workers need the same {name}: worker {rank} has {other}, worker 0 has {first}"
            ),
            Self::Lost(lost) => lost.fmt(f),
        }
    }
}

impl std::error::Error for Unequal {}

/// What the worker of that rank has of `len` rows.
pub(crate) fn part(len: usize, rank: usize, count: usize) -> Range<usize> {
    len * rank / count..len * (rank + 1) / count
}

/// What came of an exchange that must not fail: there is no way on without the others.
#[track_caller]
pub(crate) fn all_there<T>(result: Result<T, Lost>) -> T {
    result.unwrap_or_else(|lost| panic!("{lost}"))
}
