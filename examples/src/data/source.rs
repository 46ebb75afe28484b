//! Loads the pairs of a batch: what the threads of a [`PairLoader`](super::PairLoader) do.

use std::sync::Arc;

use anyhow::{Context, Result};
use burn::data::dataset::DatasetError;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rand::RngExt;

use super::loader::LoaderConfig;
use super::prefetch::Stop;
use super::random::{Purpose, stream};
use super::tokenizer::PaddedTokens;
use super::{Batch, CaptionTokenizer, Collection, TransformConfig, decode, plan_batches};

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

/// A batch before it goes to the device.
pub(super) struct HostBatch {
    pub(super) pixels: Vec<f32>,
    pub(super) tokens: PaddedTokens,
    pub(super) image_ids: Vec<usize>,
}

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

    /// The batches of `epoch`, as indices into the collection.
    pub(super) fn plan(&self, epoch: usize) -> Vec<Vec<usize>> {
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

    /// Decodes and tokenizes the pairs `rows`; stops early once the batch is no longer needed.
    pub(super) fn load(&self, epoch: usize, rows: &[usize], stop: &Stop) -> Result<HostBatch> {
        let mut pixels = Vec::with_capacity(rows.len() * self.transform.values());
        let mut captions = Vec::with_capacity(rows.len());
        let mut image_ids = Vec::with_capacity(rows.len());
        for &index in rows {
            if stop.is_set() {
                break;
            }
            let example = &self.collection.examples[index];
            let image = decode(&example.image).with_context(|| self.collection.place(index))?;
            let caption = if self.training {
                let random = |purpose| {
                    let (epoch, index) = (epoch as u64, index as u64);
                    stream(self.config.seed, epoch, index, purpose)
                };
                let mut augmentation = random(Purpose::Augmentation);
                pixels.extend(self.transform.augment(&image, &mut augmentation));
                let choices = 0..example.captions.len();
                &example.captions[random(Purpose::Caption).random_range(choices)]
            } else {
                pixels.extend(self.transform.evaluate(&image));
                &example.captions[0]
            };
            let tokens = self.tokenizer.encode(caption);
            captions.push(tokens.with_context(|| self.collection.place(index))?);
            image_ids.push(index);
        }
        Ok(HostBatch {
            pixels,
            tokens: self.tokenizer.pad(&captions),
            image_ids,
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

impl HostBatch {
    pub(super) fn into_tensors(self, size: usize, device: &Device) -> Batch {
        let rows = self.image_ids.len();
        let (tokens, padding) = self.tokens.into_tensors(rows, device);
        let images = Tensor::from_data(TensorData::new(self.pixels, [rows, 3, size, size]), device);
        Batch {
            images,
            tokens,
            padding,
            image_ids: self.image_ids,
        }
    }
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
