//! Images as their regions, with captions.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

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
    /// The tokens of what they show, where it is read; otherwise none.
    pub tags: Vec<u32>,
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
    reads_tags: bool,
}

impl RegionPairs {
    /// The regions of images with captions, whose pixels are not read.
    pub fn new(pairs: Pairs) -> Self {
        Self {
            pairs,
            file: Arc::default(),
            reads_tags: false,
        }
    }

    /// Whether what the regions show is read too, which the file must have.
    pub fn with_tags(self, reads_tags: bool) -> Self {
        Self { reads_tags, ..self }
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

    /// The tokens of what the regions of image `index` show, `[SEP]` behind them, as OSCAR has its
    /// second text; none where it is not read.
    ///
    /// # Errors
    ///
    /// As [`RegionFile::tags`].
    pub fn tags(&self, index: usize) -> Result<Vec<u32>> {
        if !self.reads_tags {
            return Ok(Vec::new());
        }
        let tags = self.file()?.tags(index)?;
        let mut tokens = self.pairs.tokenizer().encode(&tags)?;
        if tokens.first() == self.padding().specials.first.as_ref() {
            // `[CLS]` begins a caption.
            tokens.remove(0);
        }
        Ok(tokens)
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
            tags: self.tags(index)?,
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
    /// What they show, where it is read.
    pub tags: Option<Tags>,
}

/// What the regions of several images show, in words.
#[derive(Clone, Debug)]
pub struct Tags {
    /// Token ids, `[images, length]`.
    pub tokens: Tensor<2, Int>,
    /// True where `tokens` is padding, `[images, length]`.
    pub padding: Tensor<2, Bool>,
}

impl RegionBatch {
    /// The same images with the tokens of what their regions show, unless there are none.
    pub fn with_tags(self, tags: &[impl AsRef<[u32]>], padding: Padding, device: &Device) -> Self {
        if tags.iter().all(|tokens| tokens.as_ref().is_empty()) {
            return self;
        }
        let (tokens, padding) = padding.pad(tags).into_tensors(tags.len(), device);
        Self {
            tags: Some(Tags { tokens, padding }),
            ..self
        }
    }

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
            tags: None,
        }
    }
}

impl Shard<RegionPair> {
    /// The regions of all images, whose features have that `width`, with what they show.
    pub fn regions(&self, width: usize, device: &Device) -> RegionBatch {
        let images = self.items.iter().map(|pair| &pair.regions);
        let tags: Vec<_> = self.items.iter().map(|pair| &pair.tags).collect();
        RegionBatch::new(images, width, device).with_tags(&tags, self.padding, device)
    }
}
