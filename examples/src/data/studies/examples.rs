//! Studies as items of a batch: an image with a sentence, or an image with its labels.

use std::sync::Arc;

use anyhow::{Context, Result};
use rand::RngExt;
use rand::seq::SliceRandom;

use super::Studies;
use crate::data::random::{Purpose, stream};
use crate::data::tokenizer::Padding;
use crate::data::{CaptionTokenizer, Draw, Examples, Pair, Split, TransformConfig, decode};

/// Studies of which one image and one sentence are drawn in every epoch.
#[derive(Clone)]
pub struct StudyPairs {
    studies: Arc<Studies>,
    tokenizer: Arc<CaptionTokenizer>,
    transform: TransformConfig,
}

impl StudyPairs {
    /// The studies as tokens and pixels.
    ///
    /// # Errors
    ///
    /// If a value of `transform` is out of range.
    pub fn new(
        studies: Arc<Studies>,
        tokenizer: Arc<CaptionTokenizer>,
        transform: TransformConfig,
    ) -> Result<Self> {
        transform.validate()?;
        Ok(Self {
            studies,
            tokenizer,
            transform,
        })
    }
}

impl Examples for StudyPairs {
    type Item = Pair;

    const NOUN: &'static str = "studies";

    fn name(&self) -> String {
        self.studies.file.display().to_string()
    }

    fn indices(&self, split: Split) -> Vec<usize> {
        self.studies.indices(split)
    }

    /// Image and sentence are drawn apart; without a draw they are the first.
    fn load(&self, index: usize, draw: Option<Draw>) -> Result<Pair> {
        let study = &self.studies.items[index];
        let place = || self.studies.place(index);
        let choose = |purpose, count| match draw {
            Some(draw) => draw.stream(purpose).random_range(0..count),
            None => 0,
        };
        let image = &study.images[choose(Purpose::StudyImage, study.images.len())];
        let sentence = &study.sentences[choose(Purpose::Caption, study.sentences.len())];
        let image = decode(image).with_context(place)?;
        Ok(Pair {
            pixels: self.transform.seen(&image, draw),
            tokens: self.tokenizer.encode(sentence).with_context(place)?,
            image_id: index,
            // What a study says is not known to be what another says.
            meaning: index,
        })
    }

    fn transform(&self) -> &TransformConfig {
        &self.transform
    }

    fn padding(&self) -> Padding {
        self.tokenizer.padding()
    }
}

/// The images of studies, each with the labels of its study.
#[derive(Clone)]
pub struct LabelledImages {
    studies: Arc<Studies>,
    transform: TransformConfig,
    padding: Padding,
    /// The study of each, and which of its images it is.
    pub(super) images: Arc<Vec<(usize, usize)>>,
}

/// An image with its labels, on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledImage {
    /// The image as [`TransformConfig`] cuts it out, not normalised: `[3, size, size]`.
    pub pixels: Vec<u8>,
    /// Of each class whether the image is of it, where that is known.
    pub labels: Vec<Option<bool>>,
    /// Index of the image among all [`LabelledImages`].
    pub index: usize,
}

impl LabelledImages {
    /// All images of the studies but those of the training studies that a `share` of 1 would have
    /// besides: the training studies are put into an order that `seed` decides, and the first of
    /// them, a share of all, rounded up, stay. So a smaller share has a part of a larger one's.
    ///
    /// # Errors
    ///
    /// If a value of `transform` is out of range.
    pub fn new(
        studies: Arc<Studies>,
        tokenizer: &CaptionTokenizer,
        transform: TransformConfig,
        share: f64,
        seed: u64,
    ) -> Result<Self> {
        transform.validate()?;
        let mut training = studies.indices(Split::Train);
        training.shuffle(&mut stream(seed, 0, 0, Purpose::LabelSubset));
        // Not 71 of 1,000 for 7 %, because of rounding.
        let kept = (share * training.len() as f64 - 1e-9).ceil() as usize;
        let mut is_kept = vec![true; studies.items.len()];
        for &left_out in training.iter().skip(kept) {
            is_kept[left_out] = false;
        }
        let kept = (0..studies.items.len()).filter(|&study| is_kept[study]);
        let images = kept.flat_map(|study| {
            let images = 0..studies.items[study].images.len();
            images.map(move |image| (study, image))
        });
        Ok(Self {
            images: Arc::new(images.collect()),
            studies,
            transform,
            padding: tokenizer.padding(),
        })
    }

    /// The studies.
    pub fn studies(&self) -> &Studies {
        &self.studies
    }

    /// Whether a label of a split is known.
    pub fn knows_any(&self, split: Split) -> bool {
        let studies = self.indices(split).into_iter();
        let studies = studies.map(|index| &self.studies.items[self.images[index].0]);
        let mut labels = studies.flat_map(|study| study.labels.iter().flatten());
        labels.any(Option::is_some)
    }

    /// The number of images of a split, and of the studies that they are of.
    pub fn count(&self, split: Split) -> [usize; 2] {
        let indices = self.indices(split);
        let mut studies: Vec<_> = indices.iter().map(|&index| self.images[index].0).collect();
        studies.dedup();
        [indices.len(), studies.len()]
    }
}

impl Examples for LabelledImages {
    type Item = LabelledImage;

    const NOUN: &'static str = "images";

    fn name(&self) -> String {
        self.studies.file.display().to_string()
    }

    fn indices(&self, split: Split) -> Vec<usize> {
        let of_split = |index: &usize| self.studies.items[self.images[*index].0].split == split;
        (0..self.images.len()).filter(of_split).collect()
    }

    fn load(&self, index: usize, draw: Option<Draw>) -> Result<LabelledImage> {
        let (study, image) = self.images[index];
        let item = &self.studies.items[study];
        let image = decode(&item.images[image]).with_context(|| self.studies.place(study))?;
        let labels = item.labels.clone();
        Ok(LabelledImage {
            pixels: self.transform.seen(&image, draw),
            labels: labels.unwrap_or_else(|| vec![None; self.studies.classes.len()]),
            index,
        })
    }

    fn transform(&self) -> &TransformConfig {
        &self.transform
    }

    fn padding(&self) -> Padding {
        self.padding
    }
}
