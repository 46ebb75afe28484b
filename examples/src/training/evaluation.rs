//! Retrieval over a whole split.

use burn_contrastive::retrieval::{CrossModalMetrics, cross_modal};

use super::step::PairOutput;

/// Retrieval both ways among pairs, each image with its one caption.
pub fn retrieval_of_pairs(pairs: &PairOutput) -> CrossModalMetrics {
    let [count, _] = pairs.images.dims();
    let image_of_text: Vec<usize> = (0..count).collect();
    cross_modal(pairs.images.clone(), pairs.texts.clone(), &image_of_text).metrics()
}
