//! VSE++, the hardest hinges: of each anchor only the most similar negative counts.
//!
//! ```text
//! L_i = [α + max_{j≠i} c_ij − c_ii]₊ + [α + max_{j≠i} c_ji − c_ii]₊
//! L   = mean over i of L_i
//! ```
//!
//! `c_ij` is the cosine of image `i` and text `j`, α is [`VsePlusPlusConfig::margin`].
//!
//! **Warm-up.** From a random start the hardest negatives alone can drive all embeddings to one
//! point. Training then begins with the sum over all negatives ([`Vse`]): with the weight `w` of
//! the hardest ([`VsePlusPlusConfig::hardest_weight`]) the loss is `(1 − w)·L_sum + w·L`. A part of
//! weight 0 is not computed. [`VsePlusPlus::with_settings`] changes `w` during training. Faghri et
//! al. change it from 0 to 1 after an epoch. By name the objective does so over the second quarter
//! of the training.
//!
//! **Gradient.** One negative an anchor: −1/N by the positive and +1/N by the hardest, where the
//! hinge is open. Of equally similar negatives it is the one of the lowest index.
//!
//! **Cost.** `N²·D` time forward for the maxima, `N·D` backward and in memory.
//!
//! **Degenerate cases.** One pair has no negatives: loss 0, gradient 0. N equal embeddings give 2α.
//! A zero row has similarity 0 to everything and gets a zero gradient.
//!
//! **Sources.** Faghri et al. 2018, equation 6; "Contrastive Learning of Visual-Semantic
//! Embeddings", equations 3–5. Faghri's code sums over the batch: [`BatchReduction::Sum`].

use burn::tensor::Tensor;

use super::paired::{NON_NEGATIVE, SumOverPairs};
use super::{BatchReduction, Vse, VseConfig};
use crate::pairwise::{Expr, hardest};
use crate::schedule::{Schedule, Settings};

config! {
    /// Configuration of [`VsePlusPlus`].
    pub struct VsePlusPlusConfig {
        /// Margin α by which a positive must be more similar than a negative; at least 0. Default
        /// 0.2 (VSE++).
        margin: f64 = 0.2,
        /// Weight of the hardest negatives, in [0, 1]; the rest is that of the sum over all.
        /// Default 1.
        hardest_weight: f64 = 1.0,
        /// How the losses of the pairs become one. Default: their mean.
        reduction: BatchReduction = "BatchReduction::Mean",
    }
}

objective! {
    /// The hardest hinges over the cosines of paired embeddings; built by
    /// [`VsePlusPlusConfig::init`].
    ///
    /// `L = mean_i ( [α + max_{j≠i} c_ij − c_ii]₊ + [α + max_{j≠i} c_ji − c_ii]₊ )`.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::VsePlusPlusConfig;
    /// use burn_contrastive::schedule::Settings;
    ///
    /// let equal = Tensor::<2>::ones([4, 3], &Device::default());
    /// let objective = VsePlusPlusConfig::new().init();
    /// let loss = objective.forward(equal.clone(), equal.clone());
    /// assert!((loss.into_scalar::<f32>() - 2.0 * 0.2).abs() < 1e-6);
    ///
    /// // Halfway through a warm-up: half of it from three negatives each way.
    /// let settings = Settings { hardest_weight: Some(0.5), ..Settings::default() };
    /// let loss = objective.with_settings(&settings).forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - (0.5 * 0.4 + 0.5 * 1.2)).abs() < 1e-6);
    /// ```
    VsePlusPlus = VsePlusPlusConfig, "vse-plus-plus";
    ranges: margin in NON_NEGATIVE, hardest_weight in 0.0..=1.0;
    parameters: "margin" = margin, "hardest_weight" = hardest_weight, "reduction" = reduction;
    settings: margin, hardest_weight;
    schedules = warm_up();
    forward: "The loss of each pair by the hardest negatives alone, both directions added";
}

/// From the sum over all negatives to the hardest, in the second quarter of the training.
pub(super) fn warm_up() -> Settings<Schedule> {
    Settings {
        hardest_weight: Some(Schedule::new(0.0, 1.0).with_begin(0.25).with_end(0.5)),
        ..Settings::default()
    }
}

impl VsePlusPlus {
    #[track_caller]
    pub(super) fn loss(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        let hardest = self.config.hardest_weight;
        let of_sum = |image, text| self.vse().loss(image, text) * (1.0 - hardest);
        let of_hardest = |image: Tensor<2>, text| {
            let count = image.dims()[0];
            let sum = self.each(image, text).sum();
            self.config.reduction.of_sum(sum, count) * hardest
        };
        if hardest == 0.0 {
            of_sum(image, text)
        } else if hardest == 1.0 {
            of_hardest(image, text)
        } else {
            of_sum(image.clone(), text.clone()) + of_hardest(image, text)
        }
    }

    #[track_caller]
    pub(super) fn each(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        let similarity = self.config.similarity;
        let [image, text] = [image, text].map(|x| similarity.prepare(x));
        let positive = image.dot(&text);
        let [by_image, by_text] =
            hardest(similarity.pairs(image, text), &Expr::diagonal()).map(|hardest| {
                let violation = hardest.similarity - positive.clone() + self.config.margin;
                // Not `relu`, which loses NaN on some backends.
                let closed = violation.clone().lower_equal_elem(0.0);
                violation.mask_fill(closed, 0.0)
            });
        by_image + by_text
    }

    /// The sum over all negatives, where the warm-up begins.
    fn vse(&self) -> Vse {
        VseConfig {
            margin: self.config.margin,
            reduction: self.config.reduction,
            similarity: self.config.similarity,
        }
        .init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::tests::{assert_close, three_pairs};

    fn with_hardest_weight(weight: f64) -> VsePlusPlus {
        let settings = Settings {
            hardest_weight: Some(weight),
            ..Settings::default()
        };
        VsePlusPlusConfig::new().init().with_settings(&settings)
    }

    #[test]
    fn three_pairs_by_hand() {
        let [image, text] = three_pairs();
        let objective = VsePlusPlusConfig::new().with_margin(0.5).init();
        let each = objective.forward_no_reduction(image, text);
        // Rows: 0.5; 0.5; 0. Columns: 0; 1.5; 0.
        assert_close(each, [0.5, 2.0, 0.0], 1e-6);
    }

    #[test]
    fn a_warm_up_begins_with_the_sum_over_all_negatives() {
        let [image, text] = three_pairs();
        let at = |weight| {
            let loss = with_hardest_weight(weight).forward(image.clone(), text.clone());
            loss.into_scalar::<f32>()
        };
        let sum = VseConfig::new().init();
        let sum = sum.forward(image.clone(), text.clone());
        let sum = sum.into_scalar::<f32>();
        assert_eq!(at(0.0), sum);
        assert!((at(0.25) - (0.75 * sum + 0.25 * at(1.0))).abs() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "`hardest_weight` is 1.5, it must lie in [0, 1]")]
    fn a_setting_out_of_its_range_is_refused() {
        with_hardest_weight(1.5);
    }
}
