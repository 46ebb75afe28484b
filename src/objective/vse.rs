//! VSE, the sum of hinges: every negative closer than the positive by less than a margin costs.
//!
//! ```text
//! L_i = Σ_{j≠i} [α + c_ij − c_ii]₊ + Σ_{j≠i} [α + c_ji − c_ii]₊
//! L   = mean over i of L_i
//! ```
//!
//! `c_ij` is the cosine of image `i` and text `j`, α is [`VseConfig::margin`], 0.2 by default.
//!
//! **Gradient.** `∂L/∂c_ij = ( [α + c_ij > c_ii] + [α + c_ij > c_jj] ) / N` off the diagonal, and
//! `∂L/∂c_ii` is minus the count of violations of anchors `i`, over `N`. At the kink it is 0.
//!
//! **Cost.** `N²·D` time, `N·D` memory; value and gradient in one pass over the pairs.
//!
//! **Degenerate cases.** One pair has no negatives: loss 0, gradient 0. N equal embeddings give
//! `2·(N − 1)·α`. A zero row has similarity 0 to everything and gets a zero gradient.
//!
//! **Sources.** Faghri et al. 2018, equation 5 (VSE++, where this is the baseline); "Contrastive
//! Learning of Visual-Semantic Embeddings", equation 2. Faghri's code sums over the batch:
//! [`BatchReduction::Sum`].

use burn::tensor::Tensor;

use super::BatchReduction;
use super::paired::{NON_NEGATIVE, SumOverPairs};
use crate::pairwise::{Expr, Pairs, columns, rows};

config! {
    /// Configuration of [`Vse`].
    pub struct VseConfig {
        /// Margin α by which a positive must be more similar than a negative; at least 0. Default
        /// 0.2 (VSE++).
        margin: f64 = 0.2,
        /// How the losses of the pairs become one. Default: their mean.
        reduction: BatchReduction = "BatchReduction::Mean",
    }
}

objective! {
    /// The sum of hinges over the cosines of paired embeddings; built by [`VseConfig::init`].
    ///
    /// `L = mean_i Σ_{j≠i} ( [α + c_ij − c_ii]₊ + [α + c_ji − c_ii]₊ )`.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::VseConfig;
    ///
    /// let equal = Tensor::<2>::ones([4, 3], &Device::default());
    /// let loss = VseConfig::new().init().forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 2.0 * 3.0 * 0.2).abs() < 1e-5);
    /// ```
    Vse = VseConfig, "vse";
    ranges: margin in NON_NEGATIVE;
    parameters: "margin" = margin, "reduction" = reduction;
    settings: margin;
    forward: "The loss of each pair: the violations of its image and those of its text.";
}

impl SumOverPairs for Vse {
    fn reduction(&self) -> BatchReduction {
        self.config.reduction
    }

    fn cost(&self, image: Tensor<2>, text: Tensor<2>) -> (Pairs, Expr) {
        let (pairs, [by_image, by_text]) = self.hinges(image, text);
        (pairs, by_image + by_text)
    }

    fn each(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        let (pairs, [by_image, by_text]) = self.hinges(image, text);
        let sums = pairs.reduce(&[rows().sum(&by_image), columns().sum(&by_text)]);
        sums[0].clone() + sums[1].clone()
    }
}

impl Vse {
    /// What a pair violates of its image's margin, and of its text's.
    #[track_caller]
    fn hinges(&self, image: Tensor<2>, text: Tensor<2>) -> (Pairs, [Expr; 2]) {
        let [image, text] = [image, text].map(|x| self.config.similarity.prepare(x));
        let positive = image.dot(&text);
        let mut pairs = self.config.similarity.pairs(image, text);
        let similarity = pairs.similarity();
        let anchors = [pairs.row(positive.clone()), pairs.column(positive)];
        // A margin of −∞ at positives: their hinge is 0, and NaN where they are NaN.
        let (diagonal, never) = (Expr::diagonal(), Expr::constant(f64::NEG_INFINITY));
        let margin = Expr::select(&diagonal, &never, &Expr::constant(self.config.margin));
        let hinges = anchors.map(|own| (&similarity - own + &margin).relu());
        (pairs, hinges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::tests::{assert_close, three_pairs};

    #[test]
    fn three_pairs_by_hand() {
        let [image, text] = three_pairs();
        let config = VseConfig::new().with_margin(0.5);
        let objective = config.init();
        let each = objective.forward_no_reduction(image.clone(), text.clone());
        // Rows: 0.5 + 0; 0.5 + 0.5; 0. Columns: 0; 1.5 + 0 (1 and −1 against 0); 0.
        assert_close(each, [0.5, 1.0 + 1.5, 0.0], 1e-6);
        for (reduction, expected) in [(BatchReduction::Mean, 1.0), (BatchReduction::Sum, 3.0)] {
            let objective = config.clone().with_reduction(reduction).init();
            let loss = objective.forward(image.clone(), text.clone());
            assert_close(loss, [expected], 1e-6);
        }
    }
}
