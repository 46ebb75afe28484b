//! Plans batches and loads their items: what the threads of a [`Loader`](super::Loader) do.

use std::sync::Arc;

use anyhow::{Context, Result};
use burn::data::dataset::DatasetError;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::loader::{BUFFER, LoaderConfig};
use super::random::{Purpose, stream};
use super::tokenizer::{PaddedTokens, Padding};
use super::{CaptionTokenizer, Collection, Pair, Split, TransformConfig, plan_buffered};

/// Examples on disk, and how one of them becomes an item of a batch.
pub trait Examples: Send + Sync + 'static {
    /// An example on the host, ready to become a row of tensors.
    type Item: Send + Sync + 'static;

    /// What the examples are called in messages, in the plural.
    const NOUN: &'static str;

    /// The file that lists them, for messages.
    fn name(&self) -> String;

    /// Indices of the examples of `split`, ascending.
    fn indices(&self, split: Split) -> Vec<usize>;

    /// For each of `indices` an id that two share exactly if a batch should not hold both, unless
    /// asked to.
    fn meanings(&self, indices: &[usize]) -> Vec<usize> {
        (0..indices.len()).collect()
    }

    /// For each of `indices`, ascending, a number that neighbours share exactly if they lie in the
    /// same shard, which is read nearly from beginning to end; `None` where any example can be read
    /// as well as the next.
    fn shards(&self, _indices: &[usize]) -> Option<Vec<usize>> {
        None
    }

    /// Decodes and tokenizes an example. What is drawn at random comes from the `draw` of its
    /// epoch; without one, nothing is.
    ///
    /// # Errors
    ///
    /// If a file cannot be read; the message names the example's place.
    fn load(&self, index: usize, draw: Option<Draw>) -> Result<Self::Item>;

    /// How pixels are normalised.
    fn transform(&self) -> &TransformConfig;

    /// How texts are padded.
    fn padding(&self) -> Padding;
}

/// The random numbers of one example in one epoch.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    seed: u64,
    epoch: u64,
    index: u64,
}

impl Draw {
    /// Those for `purpose`.
    pub fn stream(self, purpose: Purpose) -> ChaCha8Rng {
        stream(self.seed, self.epoch, self.index, purpose)
    }
}

/// Image–caption pairs.
#[derive(Clone)]
pub struct Pairs {
    collection: Arc<Collection>,
    tokenizer: Arc<CaptionTokenizer>,
    transform: TransformConfig,
    /// Of each example of the collection.
    meanings: Arc<Vec<usize>>,
}

impl Pairs {
    /// The captioned images of a collection, as tokens and pixels.
    ///
    /// # Errors
    ///
    /// If a value of `transform` is out of range.
    pub fn new(
        collection: Arc<Collection>,
        tokenizer: Arc<CaptionTokenizer>,
        transform: TransformConfig,
    ) -> Result<Self> {
        transform.validate()?;
        let all: Vec<usize> = (0..collection.examples.len()).collect();
        Ok(Self {
            meanings: Arc::new(collection.meanings(&all)),
            collection,
            tokenizer,
            transform,
        })
    }

    /// The captioned images.
    pub fn collection(&self) -> &Arc<Collection> {
        &self.collection
    }

    /// What makes tokens of their captions.
    pub(super) fn tokenizer(&self) -> &CaptionTokenizer {
        &self.tokenizer
    }

    /// What two images share exactly if their captions say the same; see [`Pair::meaning`].
    pub(super) fn meaning(&self, index: usize) -> usize {
        self.meanings[index]
    }

    /// The tokens of a caption of an image: one is drawn, or the first is taken.
    pub(super) fn tokens(&self, index: usize, draw: Option<Draw>) -> Result<Vec<u32>> {
        let captions = &self.collection.examples[index].captions;
        let caption = draw.map_or(0, |draw| {
            draw.stream(Purpose::Caption)
                .random_range(0..captions.len())
        });
        let tokens = self.tokenizer.encode(&captions[caption]);
        tokens.with_context(|| self.collection.place(index))
    }
}

impl Examples for Pairs {
    type Item = Pair;

    const NOUN: &'static str = "images";

    fn name(&self) -> String {
        self.collection.file.display().to_string()
    }

    fn indices(&self, split: Split) -> Vec<usize> {
        self.collection.indices(split)
    }

    fn meanings(&self, indices: &[usize]) -> Vec<usize> {
        self.collection.meanings(indices)
    }

    fn shards(&self, indices: &[usize]) -> Option<Vec<usize>> {
        self.collection.shards(indices)
    }

    /// One of the captions is drawn, or the first is taken.
    fn load(&self, index: usize, draw: Option<Draw>) -> Result<Pair> {
        let image = self.collection.decode(index)?;
        Ok(Pair {
            pixels: self.transform.seen(&image, draw),
            tokens: self.tokens(index, draw)?,
            image_id: index,
            meaning: self.meaning(index),
        })
    }

    fn transform(&self) -> &TransformConfig {
        &self.transform
    }

    fn padding(&self) -> Padding {
        self.tokenizer.padding()
    }
}

/// What the worker threads share.
pub(super) struct Source<E> {
    pub(super) examples: Arc<E>,
    pub(super) config: LoaderConfig,
    pub(super) training: bool,
    /// Of the split's examples.
    pub(super) indices: Vec<usize>,
    /// For each of `indices`, equal where two should not meet in a batch.
    pub(super) meanings: Vec<usize>,
    /// For each of `indices`, equal for neighbours in the same shard on disk.
    pub(super) shards: Option<Vec<usize>>,
}

/// The shards of a batch, each the indices of its examples.
pub(super) type Shards = Vec<Vec<usize>>;

impl<E: Examples> Source<E> {
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
        let in_shards = self.shards.as_ref().map(|_| BUFFER.max(size));
        let buffer = self.config.shuffle_buffer.or(in_shards);
        let one = vec![0; self.indices.len()];
        let plan = plan_buffered(
            &self.meanings,
            self.shards.as_ref().unwrap_or(&one),
            buffer.unwrap_or(usize::MAX),
            size,
            self.config.equal_meaning,
            &mut rng,
        );
        plan.into_iter()
            .map(|batch| batch.into_iter().map(|row| self.indices[row]).collect())
            .collect()
    }

    /// Decodes and tokenizes an example.
    pub(super) fn load(&self, epoch: usize, index: usize) -> Result<E::Item> {
        let draw = Draw {
            seed: self.config.seed,
            epoch: epoch as u64,
            index: index as u64,
        };
        self.examples.load(index, self.training.then_some(draw))
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
