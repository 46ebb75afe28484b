//! ConVSE++, the hardest negatives in a contrastive loss with a margin.
//!
//! ```text
//! L_i = [ −log( e^{c_ii/τ} / e^{(max_{j≠i} c_ij + α)/τ} ) ]₊
//!     + [ −log( e^{c_ii/τ} / e^{(max_{j≠i} c_ji + α)/τ} ) ]₊
//! L   = mean over i of L_i
//! ```
//!
//! `c_ij` is the cosine of image `i` and text `j`, α is [`ConVsePlusPlusConfig::margin`] and τ is
//! [`ConVsePlusPlusConfig::temperature`].
//!
//! **It is VSE++ divided by τ**, since `−log(e^a / e^b) = b − a`: the temperature scales the loss
//! and its gradient, and changes nothing else. Gradient, cost, degenerate cases and the warm-up are
//! those of [`VsePlusPlus`].
//!
//! **Source.** "Contrastive Learning of Visual-Semantic Embeddings", equations 12–14 and algorithm
//! 1.

use burn::tensor::Tensor;

use super::paired::{NON_NEGATIVE, POSITIVE};
use super::vse_plus_plus::warm_up;
use super::{BatchReduction, VsePlusPlus, VsePlusPlusConfig};

config! {
    /// Configuration of [`ConVsePlusPlus`].
    pub struct ConVsePlusPlusConfig {
        /// Margin α by which a positive must be more similar than a negative; at least 0. Default
        /// 0.2, VSE++'s.
        margin: f64 = 0.2,
        /// Temperature τ, positive; not learned. Default 0.1 (section IV).
        temperature: f64 = 0.1,
        /// Weight of the hardest negatives, in [0, 1]; the rest is that of the sum over all.
        /// Default 1.
        hardest_weight: f64 = 1.0,
        /// How the losses of the pairs become one. Default: their mean (algorithm 1).
        reduction: BatchReduction = "BatchReduction::Mean",
    }
}

objective! {
    /// Hardest negatives with a margin and a temperature; built by [`ConVsePlusPlusConfig::init`].
    ///
    /// `L = mean_i ( [(max_{j≠i} c_ij + α − c_ii)/τ]₊ + [(max_{j≠i} c_ji + α − c_ii)/τ]₊ )`.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::ConVsePlusPlusConfig;
    ///
    /// let equal = Tensor::<2>::ones([4, 3], &Device::default());
    /// let loss = ConVsePlusPlusConfig::new().init().forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 2.0 * 0.2 / 0.1).abs() < 1e-5);
    /// ```
    ConVsePlusPlus = ConVsePlusPlusConfig, "con-vse-plus-plus";
    ranges: margin in NON_NEGATIVE, hardest_weight in 0.0..=1.0, temperature in POSITIVE;
    parameters: "margin" = margin, "hardest_weight" = hardest_weight, "reduction" = reduction,
        "temperature" = temperature;
    settings: margin, hardest_weight;
    schedules = warm_up();
    forward: "The loss of each pair, both directions added, by the hardest negatives alone.";
}

impl ConVsePlusPlus {
    #[track_caller]
    fn loss(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        self.vse_plus_plus().loss(image, text) * (1.0 / self.config.temperature)
    }

    #[track_caller]
    fn each(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        self.vse_plus_plus().each(image, text) * (1.0 / self.config.temperature)
    }

    fn vse_plus_plus(&self) -> VsePlusPlus {
        VsePlusPlusConfig {
            margin: self.config.margin,
            hardest_weight: self.config.hardest_weight,
            reduction: self.config.reduction,
            similarity: self.config.similarity,
        }
        .init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::tests::{assert_close, matrix};

    #[test]
    fn two_pairs_by_hand() {
        // Cosines 0.6 for the positives and 0.8 for the negatives: 4·[(0.8 + 0.1 − 0.6)/0.5]₊ / 2.
        let image = matrix([[1.0, 0.0], [0.0, 1.0]]);
        let text = matrix([[0.6, 0.8], [0.8, 0.6]]);
        let config = ConVsePlusPlusConfig::new().with_margin(0.1);
        let objective = config.with_temperature(0.5).init();
        assert_close(objective.forward(image, text), [1.2], 1e-6);
    }
}
