//! Batches of examples, such as image–caption pairs, behind Burn's [`DataLoader`].
//!
//! Burn's own multi-threaded loader hands batches over as they are finished, gives each thread a
//! fixed part of the data and cannot start in the middle. Here
//!
//! - the order of an epoch is drawn at its start from seed and epoch
//!   ([`plan_batches`](super::plan_batches), or of images in shards
//!   [`plan_buffered`](super::plan_buffered)), and what an image's caption and crop are, from seed,
//!   epoch and image: the number of threads changes nothing;
//! - threads prepare items, a bounded number ahead, whatever the size of a batch; they never touch
//!   the device, and a [`Shard`]'s tensors are made by whoever needs them;
//! - [`Loader::seek`] starts an epoch at any batch without decoding what comes before.
//!
//! What an example is, and how it is loaded, is its [`Examples`]' to say.
//!
//! **An image that cannot be decoded**, though it could when its collection was read, ends the
//! epoch with an error that names its file and row.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::prefetch::Prefetch;
use super::source::{Examples, Pairs, Shards, Source, failed};
use super::{CaptionTokenizer, Collection, Shard, Split, TransformConfig};

/// How examples are put into batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderConfig {
    /// Pairs in a batch.
    pub batch_size: usize,
    /// Pairs in a shard of a batch; the last has what is left.
    pub shard: usize,
    /// Of the workers that share a training batch, which one this is, and how many there are: each
    /// has an equal part of its pairs.
    pub part: [usize; 2],
    /// Threads that decode images; has no influence on what the batches hold.
    pub workers: usize,
    /// Pairs prepared ahead, also of a batch that is larger; at least `workers` keeps every thread
    /// busy. No influence on what the batches hold.
    pub prefetch: usize,
    /// Decides order, captions, crops and flips.
    pub seed: u64,
    /// Share of a batch's pairs that share their meaning with another pair of it, where meanings
    /// are known (see [`plan_batches`](super::plan_batches)).
    pub equal_meaning: f64,
    /// Of as many pairs batches are made at a time, in the order of their shards (see
    /// [`plan_buffered`](super::plan_buffered)); `None` makes them of all pairs, or of
    /// [`BUFFER`] where the images lie in shards.
    pub shuffle_buffer: Option<usize>,
}

/// Pairs of which batches are made at a time, where their images lie in shards.
pub const BUFFER: usize = 10_000;

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            batch_size: 64,
            shard: 64,
            part: [0, 1],
            workers: 2,
            prefetch: 256,
            seed: 0,
            equal_meaning: 0.0,
            shuffle_buffer: None,
        }
    }
}

impl LoaderConfig {
    fn validate(&self) -> Result<()> {
        for (name, value) in [
            ("batch_size", self.batch_size),
            ("shard", self.shard),
            ("workers", self.workers),
            ("prefetch", self.prefetch),
        ] {
            ensure!(value > 0, "{name} is 0; it must be at least 1");
        }
        let [worker, workers] = self.part;
        ensure!(
            worker < workers && self.batch_size.is_multiple_of(workers),
            "part {worker} of {workers}: the parts of a batch of {} pairs are not equal",
            self.batch_size
        );
        ensure!(
            (0.0..=1.0).contains(&self.equal_meaning),
            "equal_meaning is {}; it must lie in 0..=1",
            self.equal_meaning
        );
        Ok(())
    }
}

/// Batches of the examples of one split, epoch after epoch, each as its shards.
///
/// Each [`iter`](DataLoader::iter) is one epoch; the next one is the following epoch.
pub struct Loader<E> {
    source: Arc<Source<E>>,
    position: Arc<Mutex<Position>>,
}

/// Batches of image–caption pairs.
pub type PairLoader = Loader<Pairs>;

#[derive(Clone, Copy)]
struct Position {
    epoch: usize,
    batch: usize,
}

impl<E> Clone for Loader<E> {
    fn clone(&self) -> Self {
        Self {
            source: self.source.clone(),
            position: self.position.clone(),
        }
    }
}

impl PairLoader {
    /// [`shuffled`](Loader::shuffled) batches of pairs: one caption of each image is drawn at
    /// random.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, or `split` does not fill a batch.
    pub fn new(
        collection: Arc<Collection>,
        split: Split,
        tokenizer: Arc<CaptionTokenizer>,
        transform: TransformConfig,
        config: LoaderConfig,
    ) -> Result<Self> {
        Self::shuffled(Pairs::new(collection, tokenizer, transform)?, split, config)
    }

    /// Batches of pairs [in the order](Loader::ordered) of the file, each image with its first
    /// caption.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, or `split` is empty.
    pub fn in_order(
        collection: Arc<Collection>,
        split: Split,
        tokenizer: Arc<CaptionTokenizer>,
        transform: TransformConfig,
        config: LoaderConfig,
    ) -> Result<Self> {
        Self::ordered(Pairs::new(collection, tokenizer, transform)?, split, config)
    }
}

impl<E: Examples> Loader<E> {
    /// Batches to train on: shuffled anew in each epoch, images augmented, full batches only.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, or `split` does not fill a batch.
    pub fn shuffled(examples: E, split: Split, config: LoaderConfig) -> Result<Self> {
        let loader = Self::build(examples, split, config, true)?;
        let source = &loader.source;
        let (found, needed) = (source.indices.len(), source.config.batch_size);
        ensure!(
            found >= needed,
            "{}: split {split} has {found} {}, fewer than one batch; \
             lower data.batch_size from {needed}",
            source.examples.name(),
            E::NOUN,
        );
        Ok(loader)
    }

    /// Batches to validate on: every example once, in the order of the file, images as their
    /// largest centred squares; the last batch may be smaller. Every epoch is the same.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, or `split` is empty.
    pub fn ordered(examples: E, split: Split, config: LoaderConfig) -> Result<Self> {
        Self::build(examples, split, config, false)
    }

    fn build(examples: E, split: Split, config: LoaderConfig, training: bool) -> Result<Self> {
        config.validate()?;
        let indices = examples.indices(split);
        ensure!(
            !indices.is_empty(),
            "{} has no {} in split {split}",
            examples.name(),
            E::NOUN.trim_end_matches('s'),
        );
        let meanings = examples.meanings(&indices);
        let source = Source {
            shards: examples.shards(&indices),
            examples: Arc::new(examples),
            config,
            training,
            indices,
            meanings,
        };
        Ok(Self::over(source, Position { epoch: 0, batch: 0 }))
    }

    fn over(source: Source<E>, position: Position) -> Self {
        Self {
            source: Arc::new(source),
            position: Arc::new(Mutex::new(position)),
        }
    }

    /// Makes the next [`iter`](DataLoader::iter) start at batch `batch` of epoch `epoch` (both
    /// counted from 0); nothing before is decoded. What follows is what a loader that was never
    /// interrupted would give.
    ///
    /// # Panics
    ///
    /// If `batch` is greater than [`batches_per_epoch`](Self::batches_per_epoch). Equal is allowed:
    /// an epoch with nothing left.
    pub fn seek(&self, epoch: usize, batch: usize) {
        let batches = self.batches_per_epoch();
        assert!(
            batch <= batches,
            "seek: batch {batch} lies beyond the {batches} batches of an epoch"
        );
        *self.lock() = Position { epoch, batch };
    }

    /// Batches in a whole epoch.
    pub fn batches_per_epoch(&self) -> usize {
        self.source.batches()
    }

    fn lock(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: Examples> DataLoader<Vec<Shard<E::Item>>> for Loader<E> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Vec<Shard<E::Item>>> + 'a> {
        let start = {
            let mut position = self.lock();
            let start = *position;
            *position = Position {
                epoch: start.epoch + 1,
                batch: 0,
            };
            start
        };
        let mut plan = self.source.plan(start.epoch);
        let skipped = plan.drain(..start.batch);
        let skipped: usize = skipped.map(|batch| items_of(&batch)).sum();
        let [_, of_all] = self.source.config.part;
        let order: Vec<usize> = plan.iter().flatten().flatten().copied().collect();
        let source = self.source.clone();
        let LoaderConfig {
            workers, prefetch, ..
        } = source.config;
        let (count, epoch) = (order.len(), start.epoch);
        let load = move |place: usize| source.load(epoch, order[place]);
        Box::new(Epoch {
            source: self.source.clone(),
            batches: plan.into_iter(),
            loaded: Prefetch::new(count, workers, prefetch, load),
            processed: skipped * of_all,
            failed: false,
        })
    }

    fn num_items(&self) -> usize {
        self.source.items()
    }

    /// The same loader: shards are on the host. Both go through the epochs together.
    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<Vec<Shard<E::Item>>>> {
        Arc::new(self.clone())
    }

    /// A loader over the examples `start..end` of this one's split, which goes through the epochs
    /// on its own.
    ///
    /// # Panics
    ///
    /// If `start..end` is no range of the split's examples.
    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Vec<Shard<E::Item>>>> {
        let source = &self.source;
        let count = source.indices.len();
        assert!(
            start <= end && end <= count,
            "slice: {start}..{end} is no range of the {count} examples"
        );
        let indices = source.indices[start..end].to_vec();
        let meanings = source.examples.meanings(&indices);
        let position = Position {
            epoch: self.lock().epoch,
            batch: 0,
        };
        Arc::new(Self::over(
            Source {
                shards: source.examples.shards(&indices),
                indices,
                meanings,
                examples: source.examples.clone(),
                config: source.config.clone(),
                training: source.training,
            },
            position,
        ))
    }
}

struct Epoch<E: Examples> {
    source: Arc<Source<E>>,
    batches: std::vec::IntoIter<Shards>,
    /// The items of all batches that are left, in order.
    loaded: Prefetch<Result<E::Item>>,
    processed: usize,
    failed: bool,
}

impl<E: Examples> Epoch<E> {
    fn batch(&mut self, shards: &Shards) -> Result<Vec<Shard<E::Item>>, DatasetError> {
        let mut item = || match self.loaded.next() {
            Some(Some(Ok(item))) => Ok(item),
            failure => Err(failed(failure.flatten().and_then(Result::err))),
        };
        let shard = |shard: &Vec<usize>| {
            Ok(Shard {
                items: shard.iter().map(|_| item()).collect::<Result<_, _>>()?,
                transform: self.source.examples.transform().clone(),
                padding: self.source.examples.padding(),
            })
        };
        shards.iter().map(shard).collect()
    }
}

impl<E: Examples> Iterator for Epoch<E> {
    type Item = Result<Vec<Shard<E::Item>>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let shards = self.batches.next()?;
        let [_, workers] = self.source.config.part;
        self.processed += items_of(&shards) * workers;
        let batch = self.batch(&shards);
        self.failed = batch.is_err();
        Some(batch)
    }
}

impl<E: Examples> DataLoaderIterator<Vec<Shard<E::Item>>> for Epoch<E> {
    fn progress(&self) -> Progress {
        let total = self.source.items();
        Progress::new(self.processed, total, Some("items".to_owned()))
    }
}

fn items_of(shards: &Shards) -> usize {
    shards.iter().map(Vec::len).sum()
}

#[cfg(test)]
mod tests;
