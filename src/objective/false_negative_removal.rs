//! False-negative removal: InfoNCE without the negatives to which SRCL gives the lowest weights.
//!
//! A negative that resembles the anchor is taken for a false one, and left out. With `w` the
//! weights of [`SimilarityRegulation`], of mean one over an anchor's negatives, and `t` the
//! threshold:
//!
//! ```text
//! D_i(image→text) = −log( e^{c_ii/τ} / ( e^{c_ii/τ} + Σ_{j≠i, w_ij ≥ t} e^{c_ij/τ} ) )
//! L = mean over i of  D_i(image→text) + D_i(text→image)
//! ```
//!
//! A pair may be kept in one direction and left out in the other: each has weights of its own.
//!
//! | symbol | here |
//! |---|---|
//! | τ | [`FalseNegativeRemovalConfig::logit_scale`]: learned, from 0.07 (ALBEF) |
//! | t | [`FalseNegativeRemovalConfig::threshold`], 0.3 |
//! | α and the weights | [`FalseNegativeRemovalConfig::regulation`] |
//!
//! **Gradient.** That of InfoNCE over the negatives that are kept; which are is a constant.
//!
//! **Cost.** A pass over the pairs more than [`Srcl`](super::Srcl): the weights' means come first.
//! `N·D` memory.
//!
//! **Degenerate cases.** An anchor that keeps no negative costs 0. At threshold 0 all are kept:
//! ConVSE's value. Above the largest weight none is: 0.
//!
//! **Source.** "Vision Language Pre-training by Contrastive Learning with Cross-Modal Similarity
//! Regulation", Jiang et al. 2023, section 4.3 (there ALBEF++) and figure 3a, which peaks at 0.2 to
//! 0.3.

use super::contrastive::{Criterion, Directions};
use super::entry::{Parameter, preset};
use crate::schedule::{Schedule, Settings};
use crate::similarity::LogitScaleConfig;
use crate::weighting::{SimilarityRegulation, Weighting};

config! {
    /// Configuration of [`FalseNegativeRemoval`], in the two readings of
    /// [`SrclConfig`](super::SrclConfig).
    ///
    /// [`new`](Self::new) has the literal weights, at which a threshold of 0.3 removes next to
    /// nothing: of 511 negatives whose cosines have standard deviation 0.10, 0.15 or 0.25 none
    /// weighs less than 0.3. [`calibrated`](Self::calibrated) has weights fitted to the paper's
    /// figures, where a negative 0.7 above the mean cosine weighs about 0.1 and is removed.
    pub struct FalseNegativeRemovalConfig {
        /// The logit scale. Default: learned, from temperature 0.07, within [0.001, 0.5] (ALBEF).
        logit_scale: LogitScaleConfig = "LogitScaleConfig::albef()",
        /// The smallest weight that is kept, where the mean is one; at least 0. Default 0.3 (the
        /// paper, figure 3a).
        threshold: f64 = 0.3,
        /// The weights. Default: the literal reading, at α = 1, a teacher's alone, where SRCL
        /// begins.
        regulation: SimilarityRegulation = "SimilarityRegulation::new()",
        /// Whether the two directions are added or averaged. Default: added (the paper, section
        /// 2.1).
        directions: Directions = "Directions::Sum",
    }
}

impl FalseNegativeRemovalConfig {
    /// The defaults with weights fitted to the paper's figures:
    /// [`SimilarityRegulation::calibrated`].
    pub fn calibrated() -> Self {
        Self::new().with_regulation(SimilarityRegulation::calibrated())
    }
}

preset! {
    /// InfoNCE over the negatives that a teacher does not take for false; built by
    /// [`FalseNegativeRemovalConfig::init`].
    ///
    /// `L = mean_i [ CE over j ∈ {i} ∪ {w_ij ≥ t} + CE over j ∈ {i} ∪ {w_ji ≥ t} ]`. Unless α is 0
    /// the context must hold a [`Teacher`](super::Teacher).
    ///
    /// ```
    /// use burn::tensor::{Device, Distribution, Tensor};
    /// use burn_contrastive::objective::{FalseNegativeRemovalConfig, Teacher};
    ///
    /// let device = Device::default();
    /// let random = |width| Tensor::<2>::random([8, width], Distribution::Default, &device);
    /// let objective = FalseNegativeRemovalConfig::calibrated().init(&device);
    /// let teacher = Teacher::new(random(24), random(24));
    /// let loss = objective.forward_with(random(16), random(16), teacher);
    /// assert_eq!(loss.dims(), [1]);
    /// ```
    FalseNegativeRemoval = FalseNegativeRemovalConfig, "false-negative-removal";
    criterion(config) = Criterion::new().with_weighting(Weighting::Removal {
        regulation: config.regulation,
        threshold: config.threshold,
    });
    parameters(config) = Parameter::regulation(&mut config.regulation)
        .into_iter()
        .chain([Parameter::new("threshold", &mut config.threshold)]);
    schedules = Settings {
        alpha: Some(Schedule::new(1.0, 0.0)),
        ..Settings::default()
    };
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::objective::Teacher;
    use crate::objective::tests::{assert_close, matrix};

    #[test]
    fn the_nearest_negative_is_removed_by_hand() {
        // The teacher's cosines of the first image are 1 (its own text), 1 and −1. At weight
        // temperature ½ the negatives weigh e^{−2} to e^{2}: 0.036 and 1.964. The other anchors
        // have two equal negatives.
        let axes = Tensor::<2>::eye(3, &Device::default());
        let teacher = Teacher::new(
            matrix([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]),
            matrix([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]),
        );
        let objective = FalseNegativeRemovalConfig::new()
            .with_logit_scale(LogitScaleConfig::fixed(1.0))
            .with_regulation(SimilarityRegulation::new().with_weight_temperature(0.5))
            .init(&Device::default());
        let [by_image, _] = objective.forward_directions(axes.clone(), axes, teacher);
        // Students are orthogonal: log(1 + negatives·e^{−1}).
        let expected = [1.0f32, 2.0, 2.0].map(|negatives| (negatives * (-1f32).exp()).ln_1p());
        assert_close(by_image, expected, 1e-6);
    }
}
