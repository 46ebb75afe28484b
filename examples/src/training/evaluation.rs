//! Retrieval over a whole split.

use burn::tensor::Tensor;
use burn_contrastive::retrieval::{CrossModalMetrics, cross_modal};
use std::collections::HashMap;

use super::step::PairOutput;

/// Losses and embeddings of the batches of a split, until all are there.
///
/// Every row is a caption; an image that several captions share counts once.
#[derive(Default)]
pub struct Gathered {
    losses: Vec<Tensor<1>>,
    images: Vec<Tensor<2>>,
    texts: Vec<Tensor<2>>,
    rows: HashMap<usize, usize>,
    image_of_text: Vec<usize>,
}

impl Gathered {
    /// Adds a batch, whose row `i` is a caption of image `image_ids[i]`.
    pub fn add(&mut self, output: &PairOutput, image_ids: &[usize]) {
        for (row, &id) in image_ids.iter().enumerate() {
            let next = self.rows.len();
            let image = *self.rows.entry(id).or_insert(next);
            if image == next {
                self.images.push(output.images.clone().narrow(0, row, 1));
            }
            self.image_of_text.push(image);
        }
        self.texts.push(output.texts.clone());
        self.losses.push(output.loss.clone());
    }

    /// Mean loss and retrieval both ways; `None` without any batch.
    pub fn scores(self) -> Option<(f64, CrossModalMetrics)> {
        if self.losses.is_empty() {
            return None;
        }
        let loss = Tensor::cat(self.losses, 0).mean().into_scalar::<f64>();
        let images = Tensor::cat(self.images, 0);
        let texts = Tensor::cat(self.texts, 0);
        Some((loss, cross_modal(images, texts, &self.image_of_text).metrics()))
    }
}
