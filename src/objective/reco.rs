//! ReCo, the relaxed contrastive loss: positives to cosine 1, negatives to cosine 0 or below.
//!
//! ```text
//! L = Σ_i ( (1 − c_ii)² + λ Σ_{j≠i} max(0, c_ij)² )
//! ```
//!
//! `c_ij` is the cosine of image `i` and text `j`, each norm at least ε, which is
//! [`ReCoConfig::epsilon`]; λ is [`ReCoConfig::negative_weight`].
//!
//! **Gradient.** `∂L/∂c_ii = −2·(1 − c_ii)`, and off the diagonal `∂L/∂c_ij = 2λ·max(0, c_ij)`: a
//! negative of cosine 0 or less gets none.
//!
//! **Cost.** `N²·D` time, `N·D` memory; value and gradient in one pass over the pairs.
//!
//! **Degenerate cases.** One pair costs `(1 − c)²`. N equal embeddings give `λ·N·(N − 1)`. A row
//! whose norm is below ε is divided by ε, not by its norm: its cosines and its loss approach those
//! of a zero row, 0 and 1, while the gradient by it, up to `1/ε` times that by the cosine, can
//! still move it.
//!
//! **Sources.** "Relaxing Contrastiveness in Multimodal Representation Learning", equation 3,
//! algorithm 1 and section 4.1 (λ, ε). The paper adds ε to a denominator; here ε is a lower bound
//! of each norm, as in `torch.nn.functional.cosine_similarity`. Algorithm 1 prints `norm(1)`; the
//! text, and this crate, mean the l2 norm along the features.

use burn::tensor::Tensor;

use super::BatchReduction;
use super::paired::{NON_NEGATIVE, SumOverPairs};
use crate::pairwise::{Expr, Pairs};

config! {
    /// Configuration of [`ReCo`].
    pub struct ReCoConfig {
        /// Weight λ of the negatives, at least 0. Default 0.6 (section 4.1).
        negative_weight: f64 = 0.6,
        /// Smallest norm ε that an embedding is divided by, in [1e-30, 1]. Default 1e-7 (section
        /// 4.1).
        epsilon: f64 = 1e-7,
        /// How the losses of the images become one. Default: their sum (equation 3).
        reduction: BatchReduction = "BatchReduction::Sum",
    }
}

objective! {
    /// The relaxed contrastive loss over the cosines of paired embeddings; built by
    /// [`ReCoConfig::init`].
    ///
    /// `L = Σ_i ( (1 − c_ii)² + λ Σ_{j≠i} max(0, c_ij)² )`.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::ReCoConfig;
    ///
    /// let equal = Tensor::<2>::ones([4, 3], &Device::default());
    /// let loss = ReCoConfig::new().init().forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 0.6 * 4.0 * 3.0).abs() < 1e-5);
    /// ```
    ReCo = ReCoConfig, "reco";
    ranges: negative_weight in NON_NEGATIVE, epsilon in 1e-30..=1.0;
    parameters: "lambda" = negative_weight, "reduction" = reduction;
    shows: epsilon;
    forward: "The loss of each image: its positive, and its negatives among the texts.";
}

impl SumOverPairs for ReCo {
    fn reduction(&self) -> BatchReduction {
        self.config.reduction
    }

    fn cost(&self, image: Tensor<2>, text: Tensor<2>) -> (Pairs, Expr) {
        let ReCoConfig {
            similarity,
            epsilon,
            ..
        } = self.config;
        let [image, text] = [image, text].map(|x| similarity.prepare_above(x, epsilon));
        let pairs = similarity.pairs(image, text);
        let cosine = pairs.similarity();
        let cost = squares(&pairs, cosine.relu(), self.config.negative_weight);
        (pairs, cost)
    }
}

/// `(1 − c)²` for a positive, `weight` times the square of `negative` for a negative.
pub(super) fn squares(pairs: &Pairs, negative: Expr, weight: f64) -> Expr {
    let positive = (pairs.similarity() - 1.0).square();
    Expr::select(&Expr::diagonal(), &positive, &(negative.square() * weight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::tests::{assert_close, matrix};

    #[test]
    fn two_pairs_by_hand() {
        // Cosines 0.6 and −0.6 for the positives, 0.8 and 0.8 for the negatives.
        let image = matrix([[1.0, 0.0], [0.0, 2.0]]);
        let text = matrix([[0.6, 0.8], [0.8, -0.6]]);
        let objective = ReCoConfig::new().with_negative_weight(0.5).init();
        let each = objective.forward_no_reduction(image.clone(), text.clone());
        assert_close(each, [0.16 + 0.5 * 0.64, 2.56 + 0.5 * 0.64], 1e-6);
        assert_close(objective.forward(image, text), [3.36], 1e-5);
    }

    #[test]
    fn a_norm_below_epsilon_shortens_the_cosine() {
        let [image, text] = [matrix([[3e-9, 4e-9]]), matrix([[0.6, 0.8]])];
        let loss = ReCoConfig::new().init().forward(image, text);
        // 5e-9 of 1e-7: a cosine of 0.05.
        assert_close(loss, [0.95f32.powi(2)], 1e-6);
    }
}
