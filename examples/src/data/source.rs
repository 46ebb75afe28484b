//! Plans batches and loads their pairs: what the threads of a [`PairLoader`](super::PairLoader) do.

use std::sync::Arc;

use anyhow::{Context, Result};
use burn::data::dataset::DatasetError;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rand::RngExt;

use super::loader::LoaderConfig;
use super::random::{Purpose, stream};
use super::tokenizer::PaddedTokens;
use super::{CaptionTokenizer, Collection, Pair, TransformConfig, decode, plan_batches};

/// What the worker threads share.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) collection: Arc<Collection>,
    pub(super) tokenizer: Arc<CaptionTokenizer>,
    pub(super) transform: TransformConfig,
    pub(super) config: LoaderConfig,
    pub(super) training: bool,
    /// Indices into the collection.
    pub(super) indices: Vec<usize>,
    /// For each of `indices`, equal where the captions say the same.
    pub(super) meanings: Vec<usize>,
}

/// The shards of a batch, each the indices of its pairs into the collection.
pub(super) type Shards = Vec<Vec<usize>>;

impl Source {
    pub(super) fn batches(&self) -> usize {
        let size = self.config.batch_size;
        if self.training {
            self.indices.len() / size
        } else {
            self.indices.len().div_ceil(size)
        }
    }

    pub(super) fn items(&self) -> usize {
        if self.training {
            self.batches() * self.config.batch_size
        } else {
            self.indices.len()
        }
    }

    /// This worker's part of the batches of `epoch`. Each is divided here and nowhere else: all
    /// shards but the last have as many pairs as configured.
    pub(super) fn plan(&self, epoch: usize) -> Vec<Shards> {
        let [worker, workers] = self.config.part;
        let batches = self.batches_of(epoch).into_iter();
        let shards = |batch: Vec<usize>| {
            let at = |worker| batch.len() * worker / workers;
            let own = &batch[at(worker)..at(worker + 1)];
            own.chunks(self.config.shard).map(<[_]>::to_vec).collect()
        };
        batches.map(shards).collect()
    }

    fn batches_of(&self, epoch: usize) -> Vec<Vec<usize>> {
        let size = self.config.batch_size;
        if !self.training {
            return self.indices.chunks(size).map(<[usize]>::to_vec).collect();
        }
        let mut rng = stream(self.config.seed, epoch as u64, 0, Purpose::Order);
        let plan = plan_batches(&self.meanings, size, self.config.equal_meaning, &mut rng);
        plan.into_iter()
            .map(|batch| batch.into_iter().map(|row| self.indices[row]).collect())
            .collect()
    }

    /// Decodes and tokenizes a pair.
    pub(super) fn load(&self, epoch: usize, index: usize) -> Result<Pair> {
        let example = &self.collection.examples[index];
        let image = decode(&example.image).with_context(|| self.collection.place(index))?;
        let (pixels, caption) = if self.training {
            let random = |purpose| stream(self.config.seed, epoch as u64, index as u64, purpose);
            let choices = 0..example.captions.len();
            (
                self.transform
                    .augment(&image, &mut random(Purpose::Augmentation)),
                &example.captions[random(Purpose::Caption).random_range(choices)],
            )
        } else {
            (self.transform.evaluate(&image), &example.captions[0])
        };
        let tokens = self.tokenizer.encode(caption);
        Ok(Pair {
            pixels,
            tokens: tokens.with_context(|| self.collection.place(index))?,
            image_id: index,
        })
    }
}

/// The error of a job, or of one that panicked.
pub(super) fn failed(error: Option<anyhow::Error>) -> DatasetError {
    let message = error.map_or_else(
        || "a loader thread panicked".to_owned(),
        |error| format!("{error:#}"),
    );
    DatasetError::new(std::io::Error::other(message))
}

impl PaddedTokens {
    /// Token ids and padding, `[rows, length]` each.
    pub(super) fn into_tensors(
        self,
        rows: usize,
        device: &Device,
    ) -> (Tensor<2, Int>, Tensor<2, Bool>) {
        let shape = [rows, self.length];
        (
            Tensor::from_data(TensorData::new(self.ids, shape), device),
            Tensor::from_data(TensorData::new(self.padding, shape), device),
        )
    }
}
