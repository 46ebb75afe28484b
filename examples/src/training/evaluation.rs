//! Retrieval over a whole split: every image and every caption once.

use anyhow::{Context, Result};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_contrastive::retrieval::{
    CrossModal, CrossModalMetrics, SimilarityHistogram, cross_modal, similarity_histogram,
};
use burn_contrastive::similarity::l2_normalize;

use super::step::PairOutput;
use crate::data::EvaluationSet;
use crate::models::DualEncoder;

/// Retrieval both ways among pairs, each image with its one caption.
pub fn retrieval_of_pairs(pairs: &PairOutput) -> CrossModalMetrics {
    let [count, _] = pairs.images.dims();
    let image_of_text: Vec<usize> = (0..count).collect();
    cross_modal(pairs.images.clone(), pairs.texts.clone(), &image_of_text).metrics()
}

/// The embeddings of an evaluation set.
pub struct Embedded {
    /// One row an image.
    images: Tensor<2>,
    /// One row a caption.
    texts: Tensor<2>,
    image_of_caption: Vec<usize>,
}

impl Embedded {
    /// Embeds all images and captions of `set`, `batch_size` at a time.
    ///
    /// # Errors
    ///
    /// If an image cannot be read.
    pub fn new(
        model: &DualEncoder,
        set: &EvaluationSet,
        batch_size: usize,
        device: &Device,
    ) -> Result<Self> {
        let model = model.valid();
        let device = device.clone().inner();
        let images = set
            .image_batches(batch_size, &device)
            .map(|images| Ok(model.embed_image(images?)))
            .collect::<Result<Vec<_>>>()
            .context("an image of the evaluation could not be read")?;
        let texts = set
            .caption_batches(batch_size, &device)
            .map(|captions| captions.map(|batch| model.embed_text(batch.tokens, batch.padding)))
            .collect::<Result<Vec<_>, _>>()
            .context("a caption of the evaluation could not be read")?;
        Ok(Self {
            images: l2_normalize(Tensor::cat(images, 0)),
            texts: l2_normalize(Tensor::cat(texts, 0)),
            image_of_caption: set.image_of_caption().to_vec(),
        })
    }

    /// Ranks both ways.
    pub fn ranks(&self) -> CrossModal {
        cross_modal(
            self.images.clone(),
            self.texts.clone(),
            &self.image_of_caption,
        )
    }

    /// Similarities of all pairs in `bins` bins, matching ones apart.
    pub fn histogram(&self, bins: usize) -> SimilarityHistogram {
        similarity_histogram(
            self.images.clone(),
            self.texts.clone(),
            &self.image_of_caption,
            bins,
        )
    }

    /// The `k` images most similar to a caption, best first, with their similarities.
    pub fn images_for(&self, caption: usize, k: usize) -> Vec<(usize, f64)> {
        nearest(
            self.texts.clone().narrow(0, caption, 1),
            self.images.clone(),
            k,
        )
    }

    /// The `k` captions most similar to an image, best first, with their similarities.
    pub fn captions_for(&self, image: usize, k: usize) -> Vec<(usize, f64)> {
        nearest(
            self.images.clone().narrow(0, image, 1),
            self.texts.clone(),
            k,
        )
    }
}

fn nearest(query: Tensor<2>, candidates: Tensor<2>, k: usize) -> Vec<(usize, f64)> {
    let similarities = query.matmul(candidates.transpose()).into_data();
    let mut ranked: Vec<(usize, f64)> = similarities.iter::<f64>().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(k);
    ranked
}
