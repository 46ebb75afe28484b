//! Max-margin, the cosine-embedding loss over all pairs.
//!
//! ```text
//! L_i = 1 − c_ii + Σ_{j≠i} [c_ij − m]₊
//! L   = mean over i of L_i
//! ```
//!
//! `c_ij` is the cosine of image `i` and text `j`, m is [`MaxMarginConfig::margin`].
//!
//! **Gradient.** `∂L/∂c_ii = −1/N`; off the diagonal `∂L/∂c_ij = 1/N` where `c_ij > m`, else 0.
//!
//! **Cost.** `N²·D` time, `N·D` memory; value and gradient in one pass over the pairs.
//!
//! **Degenerate cases.** One pair costs `1 − c`. N equal embeddings give `(N − 1)·(1 − m)`. A zero
//! row has similarity 0 to everything and gets a zero gradient.
//!
//! **Sources.** The form is that of PyTorch's `CosineEmbeddingLoss`, over all `N²` pairs and
//! divided by `N` instead of `N²`. Its origin is Hadsell et al. 2006, whose contrastive loss is
//! another formula, in squared distances. "Relaxing Contrastiveness in Multimodal Representation
//! Learning" (ReCo) compares with a max-margin loss without giving a formula.

use burn::tensor::Tensor;

use super::BatchReduction;
use super::paired::{FINITE, SumOverPairs};
use crate::pairwise::{Expr, Pairs};

config! {
    /// Configuration of [`MaxMargin`].
    pub struct MaxMarginConfig {
        /// Cosine m above which a negative costs; finite. Default 0.5, a choice of this crate.
        margin: f64 = 0.5,
        /// How the losses of the images become one. Default: their mean.
        reduction: BatchReduction = "BatchReduction::Mean",
    }
}

objective! {
    /// The cosine-embedding loss over all pairs; built by [`MaxMarginConfig::init`].
    ///
    /// `L = mean_i ( 1 − c_ii + Σ_{j≠i} [c_ij − m]₊ )`.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::MaxMarginConfig;
    ///
    /// let equal = Tensor::<2>::ones([4, 3], &Device::default());
    /// let loss = MaxMarginConfig::new().init().forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 3.0 * 0.5).abs() < 1e-5);
    /// ```
    MaxMargin = MaxMarginConfig, "max-margin";
    ranges: margin in FINITE;
    parameters: "margin" = margin, "reduction" = reduction;
    settings: margin;
    forward: "The loss of each image: its positive, and its negatives among the texts.";
}

impl SumOverPairs for MaxMargin {
    fn reduction(&self) -> BatchReduction {
        self.config.reduction
    }

    fn cost(&self, image: Tensor<2>, text: Tensor<2>) -> (Pairs, Expr) {
        let [image, text] = [image, text].map(|x| self.config.similarity.prepare(x));
        let pairs = self.config.similarity.pairs(image, text);
        let similarity = pairs.similarity();
        let pull = Expr::constant(1.0) - &similarity;
        let push = (&similarity - self.config.margin).relu();
        (pairs, Expr::select(&Expr::diagonal(), &pull, &push))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::tests::{assert_close, matrix};

    #[test]
    fn two_pairs_by_hand() {
        // Cosines 0.6 for the positives, 0.8 for the negatives.
        let image = matrix([[1.0, 0.0], [0.0, 1.0]]);
        let text = matrix([[0.6, 0.8], [0.8, 0.6]]);
        for (margin, expected) in [(0.5, 0.4 + 0.3), (0.9, 0.4)] {
            let objective = MaxMarginConfig::new().with_margin(margin).init();
            let loss = objective.forward(image.clone(), text.clone());
            assert_close(loss, [expected], 1e-6);
        }
    }
}
