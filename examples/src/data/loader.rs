//! Batches of image–caption pairs behind Burn's [`DataLoader`].
//!
//! Burn's own multi-threaded loader hands batches over as they are finished, gives each thread a
//! fixed part of the data and cannot start in the middle. Here
//!
//! - the order of an epoch is drawn at its start from seed and epoch
//!   ([`plan_batches`](super::plan_batches)), and what an image's caption and crop are, from seed,
//!   epoch and image: the number of threads changes nothing;
//! - threads prepare whole batches a few ahead and hand them over in order; they never touch the
//!   device, tensors are made on the thread that takes the batch;
//! - [`PairLoader::seek`] starts an epoch at any batch without decoding what comes before.
//!
//! **An image that cannot be decoded**, though it could when its collection was read, ends the
//! epoch with an error that names its file and row.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::prefetch::{Prefetch, Stop};
use super::source::{HostBatch, Source, failed};
use super::{Batch, CaptionTokenizer, Collection, Split, TransformConfig};

/// How pairs are put into batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderConfig {
    /// Pairs in a batch.
    pub batch_size: usize,
    /// Threads that decode images; has no influence on what the batches hold.
    pub workers: usize,
    /// Batches prepared ahead; at least `workers` keeps every thread busy. No influence on what the
    /// batches hold.
    pub prefetch: usize,
    /// Decides order, captions, crops and flips.
    pub seed: u64,
    /// Share of a batch's pairs that share their meaning with another pair of it, where meanings
    /// are known (see [`plan_batches`](super::plan_batches)).
    pub equal_meaning: f64,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            batch_size: 64,
            workers: 2,
            prefetch: 4,
            seed: 0,
            equal_meaning: 0.0,
        }
    }
}

impl LoaderConfig {
    fn validate(&self) -> Result<()> {
        for (name, value) in [
            ("batch_size", self.batch_size),
            ("workers", self.workers),
            ("prefetch", self.prefetch),
        ] {
            ensure!(value > 0, "{name} is 0; it must be at least 1");
        }
        ensure!(
            (0.0..=1.0).contains(&self.equal_meaning),
            "equal_meaning is {}; it must lie in 0..=1",
            self.equal_meaning
        );
        Ok(())
    }
}

/// Batches of the pairs of one split, epoch after epoch.
///
/// Each [`iter`](DataLoader::iter) is one epoch; the next one is the following epoch.
#[derive(Clone)]
pub struct PairLoader {
    source: Arc<Source>,
    position: Arc<Mutex<Position>>,
    device: Device,
}

#[derive(Clone, Copy)]
struct Position {
    epoch: usize,
    batch: usize,
}

impl PairLoader {
    /// Batches to train on: shuffled anew in each epoch, one caption of each image drawn at random,
    /// images augmented, full batches only.
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
        device: &Device,
    ) -> Result<Self> {
        let loader = Self::build(
            collection, split, tokenizer, transform, config, device, true,
        )?;
        let (found, needed) = (loader.source.indices.len(), loader.source.config.batch_size);
        ensure!(
            found >= needed,
            "{}: split {split} has {found} images, fewer than one batch; \
             lower data.batch_size from {needed}",
            loader.source.collection.file.display()
        );
        Ok(loader)
    }

    /// Batches to validate on: every image once, in the order of the file, with its first caption,
    /// the largest centred square; the last batch may be smaller. Every epoch is the same.
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
        device: &Device,
    ) -> Result<Self> {
        Self::build(
            collection, split, tokenizer, transform, config, device, false,
        )
    }

    fn build(
        collection: Arc<Collection>,
        split: Split,
        tokenizer: Arc<CaptionTokenizer>,
        transform: TransformConfig,
        config: LoaderConfig,
        device: &Device,
        training: bool,
    ) -> Result<Self> {
        config.validate()?;
        transform.validate()?;
        let indices = collection.indices(split);
        ensure!(
            !indices.is_empty(),
            "{} has no image in split {split}",
            collection.file.display()
        );
        let meanings = collection.meanings(&indices);
        let source = Source {
            collection,
            tokenizer,
            transform,
            config,
            training,
            indices,
            meanings,
        };
        Ok(Self::over(source, Position { epoch: 0, batch: 0 }, device))
    }

    fn over(source: Source, position: Position, device: &Device) -> Self {
        Self {
            source: Arc::new(source),
            position: Arc::new(Mutex::new(position)),
            device: device.clone(),
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

impl DataLoader<Batch> for PairLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
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
        let skipped = plan.drain(..start.batch).map(|batch| batch.len()).sum();
        let sizes: Vec<usize> = plan.iter().map(Vec::len).collect();
        let source = self.source.clone();
        let LoaderConfig {
            workers, prefetch, ..
        } = source.config;
        let load = move |batch: usize, stop: &Stop| source.load(start.epoch, &plan[batch], stop);
        Box::new(PairIterator {
            batches: Prefetch::new(sizes.len(), workers, prefetch, load),
            sizes: sizes.into_iter(),
            processed: skipped,
            total: self.source.items(),
            size: self.source.transform.size as usize,
            device: self.device.clone(),
            failed: false,
        })
    }

    fn num_items(&self) -> usize {
        self.source.items()
    }

    /// The same loader for another device; both go through the epochs together.
    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    /// A loader over the images `start..end` of this one's split, which goes through the epochs on
    /// its own.
    ///
    /// # Panics
    ///
    /// If `start..end` is no range of the split's images.
    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        let source = &self.source;
        let count = source.indices.len();
        assert!(
            start <= end && end <= count,
            "slice: {start}..{end} is no range of the {count} images"
        );
        let indices = source.indices[start..end].to_vec();
        let meanings = source.collection.meanings(&indices);
        let position = Position {
            epoch: self.lock().epoch,
            batch: 0,
        };
        Arc::new(Self::over(
            Source {
                indices,
                meanings,
                ..(**source).clone()
            },
            position,
            &self.device,
        ))
    }
}

struct PairIterator {
    batches: Prefetch<Result<HostBatch>>,
    sizes: std::vec::IntoIter<usize>,
    processed: usize,
    total: usize,
    /// Side of an image in pixels.
    size: usize,
    device: Device,
    failed: bool,
}

impl Iterator for PairIterator {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let batch = self.batches.next()?;
        self.processed += self.sizes.next().unwrap_or(0);
        match batch {
            Some(Ok(batch)) => Some(Ok(batch.into_tensors(self.size, &self.device))),
            failure => {
                self.failed = true;
                Some(Err(failed(failure.and_then(Result::err))))
            }
        }
    }
}

impl DataLoaderIterator<Batch> for PairIterator {
    fn progress(&self) -> Progress {
        Progress::new(self.processed, self.total, Some("pairs".to_owned()))
    }
}

#[cfg(test)]
mod tests;
