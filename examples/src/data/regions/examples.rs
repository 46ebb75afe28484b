//! Images as their regions, with captions.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use burn::tensor::{Bool, Device, Tensor, TensorData};

use super::{RegionFile, Regions};
use crate::data::tokenizer::Padding;
use crate::data::{Collection, Draw, Examples, Pairs, Shard, Split, TransformConfig};

/// Numbers that say where a region is: `x0 y0 x1 y1 w h`.
pub const POSITION: usize = 6;

/// The regions of an image and a caption of it, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionPair {
    /// The regions.
    pub regions: Regions,
    /// Most regions that an image of the file has.
    pub room: usize,
    /// The caption's token ids.
    pub tokens: Vec<u32>,
    /// Index of the image in its collection.
    pub image_id: usize,
    /// Equal for two pairs exactly if their captions say the same, where that is known; otherwise
    /// that of no other image.
    pub meaning: usize,
}

/// The captioned images of a collection, as regions of a file, which may come after: before it is
/// [given](Self::give) nothing can be loaded.
#[derive(Clone)]
pub struct RegionPairs {
    pairs: Pairs,
    file: Arc<OnceLock<RegionFile>>,
}

impl RegionPairs {
    /// The regions of images with captions, whose pixels are not read.
    pub fn new(pairs: Pairs) -> Self {
        Self {
            pairs,
            file: Arc::default(),
        }
    }

    /// Gives the file of regions to this and to all its clones; one that is there already stays.
    pub fn give(&self, file: RegionFile) {
        // It is the same file: a run has one.
        let _ = self.file.set(file);
    }

    /// The file of regions.
    ///
    /// # Errors
    ///
    /// If it has not been given.
    pub fn file(&self) -> Result<&RegionFile> {
        let file = self.file.get();
        file.context("there is no file of regions yet")
    }

    /// The captioned images.
    pub fn collection(&self) -> &Arc<Collection> {
        self.pairs.collection()
    }
}

impl Examples for RegionPairs {
    type Item = RegionPair;

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

    /// One of the captions is drawn, or the first is taken.
    fn load(&self, index: usize, draw: Option<Draw>) -> Result<RegionPair> {
        let file = self.file()?;
        Ok(RegionPair {
            regions: file.regions(index)?,
            room: file.room(),
            tokens: self.pairs.tokens(index, draw)?,
            image_id: index,
            meaning: self.pairs.meaning(index),
        })
    }

    fn transform(&self) -> &TransformConfig {
        self.pairs.transform()
    }

    fn padding(&self) -> Padding {
        self.pairs.padding()
    }
}

/// The regions of several images as tensors, padded to the image with most.
#[derive(Clone, Debug)]
pub struct RegionBatch {
    /// Feature and position of each region, `[images, regions, D + 6]`.
    pub regions: Tensor<3>,
    /// True where `regions` is padding, `[images, regions]`.
    pub padding: Tensor<2, Bool>,
}

impl RegionBatch {
    /// The tensors of images whose features have that `width`.
    ///
    /// # Panics
    ///
    /// If a feature is of another width.
    pub fn new<'a>(
        images: impl Iterator<Item = &'a Regions> + Clone,
        width: usize,
        device: &Device,
    ) -> Self {
        let most = images.clone().map(|image| image.boxes.len()).max();
        let (most, inside) = (most.unwrap_or(0), width + POSITION);
        let (mut values, mut padding) = (Vec::new(), Vec::new());
        let mut rows = 0;
        for image in images {
            let count = image.boxes.len();
            assert_eq!(
                image.features.len(),
                count * width,
                "features of another width"
            );
            let positions = image.positions();
            for (feature, position) in image
                .features
                .chunks_exact(width)
                .zip(positions.chunks_exact(POSITION))
            {
                values.extend_from_slice(feature);
                values.extend_from_slice(position);
            }
            rows += 1;
            values.resize(rows * most * inside, 0.0);
            padding.extend((0..most).map(|region| region >= count));
        }
        let values = TensorData::new(values, [rows, most, inside]);
        let padding = TensorData::new(padding, [rows, most]);
        Self {
            regions: Tensor::from_data(values, device),
            padding: Tensor::from_data(padding, device),
        }
    }
}

impl Shard<RegionPair> {
    /// The regions of all images, whose features have that `width`.
    pub fn regions(&self, width: usize, device: &Device) -> RegionBatch {
        let images = self.items.iter().map(|pair| &pair.regions);
        RegionBatch::new(images, width, device)
    }
}
