//! The orthogonality constraint: positives to cosine 1, negatives to cosine 0 from either side.
//!
//! ```text
//! L = Σ_i ( (1 − c_ii)² + λ Σ_{j≠i} c_ij² )
//! ```
//!
//! This is [`ReCo`](super::ReCo) without the maximum: negatives of a cosine below 0 cost too. The
//! two agree where no cosine is negative. Symbols, cost and degenerate cases are those of ReCo.
//!
//! **Gradient.** `∂L/∂c_ii = −2·(1 − c_ii)`; off the diagonal `∂L/∂c_ij = 2λ·c_ij`.
//!
//! **Source.** "Relaxing Contrastiveness in Multimodal Representation Learning", equation 6, which
//! gives no λ: it is ReCo's. The objective is that of Barlow Twins with samples in the place of
//! features.

use burn::tensor::Tensor;

use super::BatchReduction;
use super::paired::{NON_NEGATIVE, SumOverPairs};
use super::reco::squares;
use crate::pairwise::{Expr, Pairs};

config! {
    /// Configuration of [`Orthogonality`].
    pub struct OrthogonalityConfig {
        /// Weight λ of the negatives, at least 0. Default 0.6, ReCo's.
        negative_weight: f64 = 0.6,
        /// Smallest norm ε that an embedding is divided by, in [1e-30, 1]. Default 1e-7, ReCo's.
        epsilon: f64 = 1e-7,
        /// How the losses of the images become one. Default: their sum (equation 6).
        reduction: BatchReduction = "BatchReduction::Sum",
    }
}

objective! {
    /// The orthogonality constraint on the cosines of paired embeddings; built by
    /// [`OrthogonalityConfig::init`].
    ///
    /// `L = Σ_i ( (1 − c_ii)² + λ Σ_{j≠i} c_ij² )`.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::OrthogonalityConfig;
    ///
    /// let equal = Tensor::<2>::ones([4, 3], &Device::default());
    /// let loss = OrthogonalityConfig::new().init().forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 0.6 * 4.0 * 3.0).abs() < 1e-5);
    /// ```
    Orthogonality = OrthogonalityConfig, "orthogonality";
    ranges: negative_weight in NON_NEGATIVE, epsilon in 1e-30..=1.0;
    parameters: "lambda" = negative_weight, "reduction" = reduction;
    shows: epsilon;
    forward: "The loss of each image: its positive, and its negatives among the texts.";
}

impl SumOverPairs for Orthogonality {
    fn reduction(&self) -> BatchReduction {
        self.config.reduction
    }

    fn cost(&self, image: Tensor<2>, text: Tensor<2>) -> (Pairs, Expr) {
        let OrthogonalityConfig {
            similarity,
            epsilon,
            ..
        } = self.config;
        let [image, text] = [image, text].map(|x| similarity.prepare_above(x, epsilon));
        let pairs = similarity.pairs(image, text);
        let cost = squares(&pairs, pairs.similarity(), self.config.negative_weight);
        (pairs, cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::tests::{assert_close, matrix};

    #[test]
    fn two_pairs_by_hand() {
        // Cosines 0.6 and 0.6 for the positives, 0.8 and −0.8 for the negatives.
        let image = matrix([[1.0, 0.0], [0.0, 2.0]]);
        let text = matrix([[0.6, 0.8], [-0.8, 0.6]]);
        let objective = OrthogonalityConfig::new().with_negative_weight(0.5).init();
        let each = objective.forward_no_reduction(image.clone(), text.clone());
        assert_close(each, [0.16 + 0.5 * 0.64; 2], 1e-6);
        assert_close(objective.forward(image, text), [0.96], 1e-5);
    }
}
