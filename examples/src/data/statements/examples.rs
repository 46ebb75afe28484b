//! Statements with their two images, as items of a batch.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::Statements;
use crate::data::random::Purpose;
use crate::data::tokenizer::Padding;
use crate::data::{CaptionTokenizer, Draw, Examples, Split, TransformConfig, decode};

/// Statements about two images, as tokens and pixels.
#[derive(Clone)]
pub struct StatedPairs {
    statements: Arc<Statements>,
    tokenizer: Arc<CaptionTokenizer>,
    transform: TransformConfig,
}

/// Two images and what is stated about them, on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedPair {
    /// The left and the right image as [`TransformConfig`] cuts them out, not normalised:
    /// `[3, size, size]` each.
    pub pixels: [Vec<u8>; 2],
    /// The statement's token ids.
    pub tokens: Vec<u32>,
    /// Whether it is true.
    pub label: bool,
    /// Index of the statement in its [`Statements`].
    pub index: usize,
}

impl StatedPairs {
    /// The statements as tokens and pixels.
    ///
    /// # Errors
    ///
    /// If a value of `transform` is out of range.
    pub fn new(
        statements: Arc<Statements>,
        tokenizer: Arc<CaptionTokenizer>,
        transform: TransformConfig,
    ) -> Result<Self> {
        transform.validate()?;
        Ok(Self {
            statements,
            tokenizer,
            transform,
        })
    }
}

impl Examples for StatedPairs {
    type Item = StatedPair;

    const NOUN: &'static str = "statements";

    fn name(&self) -> String {
        let files = self.statements.files.iter();
        let files: Vec<_> = files.map(|file| file.display().to_string()).collect();
        files.join(", ")
    }

    fn indices(&self, split: Split) -> Vec<usize> {
        self.statements.indices(split)
    }

    /// Both images are augmented, each in a way of its own; they stay in their order, of which
    /// statements speak.
    fn load(&self, index: usize, draw: Option<Draw>) -> Result<StatedPair> {
        let item = &self.statements.items[index];
        let place = || self.statements.place(index);
        let mut augmentation = draw.map(|draw| draw.stream(Purpose::Augmentation));
        let mut pixels = |file| {
            let image = decode(file).with_context(place)?;
            anyhow::Ok(match &mut augmentation {
                Some(rng) => self.transform.augment(&image, rng),
                None => self.transform.evaluate(&image),
            })
        };
        let [left, right] = item.images.each_ref();
        let pixels = [pixels(left)?, pixels(right)?];
        let tokens = self.tokenizer.encode(&item.text);
        Ok(StatedPair {
            pixels,
            tokens: tokens.with_context(place)?,
            label: item.label,
            index,
        })
    }

    fn transform(&self) -> &TransformConfig {
        &self.transform
    }

    fn padding(&self) -> Padding {
        self.tokenizer.padding()
    }
}
