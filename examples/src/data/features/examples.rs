//! Images as pixels or as their features, with captions.

use std::sync::Arc;

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor, TensorData};

use super::FeatureFile;
use crate::data::tokenizer::Padding;
use crate::data::{Draw, Examples, Pair, Pairs, Shard, Split, TransformConfig};

/// What is read of an image.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// The image as [`TransformConfig`] cuts it out, not normalised: `[3, size, size]`.
    Pixels(Vec<u8>),
    /// Its feature.
    Feature(Vec<f32>),
}

/// An image and its caption, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct FeaturePair {
    /// The image, or its feature.
    pub image: Seen,
    /// The caption's token ids.
    pub tokens: Vec<u32>,
}

impl From<Pair> for FeaturePair {
    fn from(pair: Pair) -> Self {
        Self {
            image: Seen::Pixels(pair.pixels),
            tokens: pair.tokens,
        }
    }
}

/// The captioned images of a collection, as the features of a file where there is one.
#[derive(Clone)]
pub struct FeaturePairs {
    pairs: Pairs,
    file: Option<Arc<FeatureFile>>,
}

impl FeaturePairs {
    /// Pairs whose images are the features of the `file`, or pixels.
    pub fn new(pairs: Pairs, file: Option<Arc<FeatureFile>>) -> Self {
        Self { pairs, file }
    }
}

impl Examples for FeaturePairs {
    type Item = FeaturePair;

    const NOUN: &'static str = Pairs::NOUN;

    fn name(&self) -> String {
        self.pairs.name()
    }

    fn indices(&self, split: Split) -> Vec<usize> {
        self.pairs.indices(split)
    }

    fn meanings(&self, indices: &[usize]) -> Vec<usize> {
        self.pairs.meanings(indices)
    }

    /// Features lie in one file, whatever the images do.
    fn shards(&self, indices: &[usize]) -> Option<Vec<usize>> {
        let has_pixels = self.file.is_none();
        has_pixels.then(|| self.pairs.shards(indices))?
    }

    /// One of the captions is drawn, or the first is taken: the same with and without features.
    fn load(&self, index: usize, draw: Option<Draw>) -> Result<FeaturePair> {
        let Some(file) = &self.file else {
            return self.pairs.load(index, draw).map(FeaturePair::from);
        };
        let place = || self.pairs.collection().place(index);
        Ok(FeaturePair {
            image: Seen::Feature(file.feature(index).with_context(place)?),
            tokens: self.pairs.tokens(index, draw)?,
        })
    }

    fn transform(&self) -> &TransformConfig {
        self.pairs.transform()
    }

    fn padding(&self) -> Padding {
        self.pairs.padding()
    }
}

impl Shard<FeaturePair> {
    /// The normalised pixels of all images, `[pairs, 3, size, size]`.
    ///
    /// # Panics
    ///
    /// If they are features.
    pub fn pixels(&self, device: &Device) -> Tensor<4> {
        fn pixels(pair: &FeaturePair) -> &[u8] {
            match &pair.image {
                Seen::Pixels(pixels) => pixels,
                Seen::Feature(_) => panic!("a feature has no pixels"),
            }
        }
        self.images(pixels, device)
    }

    /// The features of all images, `[pairs, D]`.
    ///
    /// # Panics
    ///
    /// If they are pixels.
    pub fn features(&self, device: &Device) -> Tensor<2> {
        let rows = self.items.iter().map(|pair| match &pair.image {
            Seen::Feature(feature) => feature.as_slice(),
            Seen::Pixels(_) => panic!("pixels are no feature"),
        });
        let values = rows.collect::<Vec<_>>().concat();
        let shape = [self.items.len(), values.len() / self.items.len()];
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}

impl FeatureFile {
    /// The features of some images of the collection, `[images, D]`.
    ///
    /// # Errors
    ///
    /// As [`feature`](Self::feature).
    pub fn batch(&self, images: &[usize], device: &Device) -> Result<Tensor<2>> {
        let rows = images.iter().map(|&image| self.feature(image));
        let values = rows.collect::<Result<Vec<_>>>()?.concat();
        let data = TensorData::new(values, [images.len(), self.width]);
        Ok(Tensor::from_data(data, device))
    }
}
