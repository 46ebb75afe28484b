//! False-negative removal: InfoNCE without the negatives that SRCL would weigh least.
//!
//! A negative that resembles the anchor is taken for a false one, and left out. With `w` the weights of
//! [`SimilarityRegulation`], of mean one over an anchor's negatives, and `t` the threshold:
//!
//! ```text
//! D_i(image→text) = −log( e^{c_ii/τ} / ( e^{c_ii/τ} + Σ_{j≠i, w_ij ≥ t} e^{c_ij/τ} ) )
//! L = mean over i of  D_i(image→text) + D_i(text→image)
//! ```
//!
//! A pair may stay in one direction and go in the other: each anchor judges by its own weights.
//!
//! | symbol | here |
//! |---|---|
//! | τ | [`FalseNegativeRemovalConfig::logit_scale`]: learned, from 0.07, within [0.001, 0.5] (ALBEF) |
//! | t | [`FalseNegativeRemovalConfig::threshold`], 0.3 |
//! | α and the weights | [`FalseNegativeRemovalConfig::regulation`] |
//!
//! **Gradient.** That of InfoNCE over the negatives that stay; which do is a constant.
//!
//! **Cost.** A pass over the pairs more than [`Srcl`](super::Srcl): the weights' means come first. `N·D` memory.
//!
//! **Degenerate cases.** An anchor that keeps no negative costs 0. At threshold 0 nothing goes: ConVSE's value. Past the
//! largest weight everything goes: 0. Under the literal reading of the weights (weight temperature 1) cosines of −1 and 1
//! differ by a factor e² in weight, and 0.3 is seldom reached: see [`SimilarityRegulation`].
//!
//! **Source.** "Vision Language Pre-training by Contrastive Learning with Cross-Modal Similarity
//! Regulation", Jiang et al. 2023, §4.3 (there ALBEF++) and figure 3a, which peaks at 0.2 to 0.3.

use burn::config::Config;

use super::contrastive::{ContrastiveConfig, Criterion, Directions, preset};
use super::named::Parameter;
use crate::schedule::{Schedule, Settings};
use crate::similarity::{LogitScaleConfig, SimilarityConfig};
use crate::weighting::{SimilarityRegulation, Weighting};

/// Configuration of [`FalseNegativeRemoval`].
#[derive(Config, Debug, PartialEq)]
pub struct FalseNegativeRemovalConfig {
    /// The logit scale. Default: learned, from temperature 0.07, within [0.001, 0.5] (ALBEF).
    #[config(default = "LogitScaleConfig::albef()")]
    pub logit_scale: LogitScaleConfig,
    /// The smallest weight that stays, where the mean is one. Default 0.3 (the paper, figure 3a).
    #[config(default = 0.3)]
    pub threshold: f64,
    /// The weights. Default: α = 1, a teacher's alone, as [`Srcl`](super::Srcl) begins.
    #[config(default = "SimilarityRegulation::new()")]
    pub regulation: SimilarityRegulation,
    /// Whether the two directions are added or averaged. Default: added (the paper, §2.1).
    #[config(default = "Directions::Sum")]
    pub directions: Directions,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl FalseNegativeRemovalConfig {
    /// The defaults with weights as in the paper's figures: [`SimilarityRegulation::calibrated`].
    ///
    /// At the literal weights of [`new`](Self::new) a threshold of 0.3 removes next to nothing:
    /// cosines of deviation 0.1 give no weight below 0.7.
    pub fn calibrated() -> Self {
        Self::new().with_regulation(SimilarityRegulation::calibrated())
    }

    /// The parts of the objective, to be recombined.
    pub fn contrastive(&self) -> ContrastiveConfig {
        let criterion = Criterion::new()
            .with_directions(self.directions)
            .with_weighting(Weighting::Removal {
                regulation: self.regulation,
                threshold: self.threshold,
            })
            .with_similarity(self.similarity);
        ContrastiveConfig::new()
            .with_logit_scale(self.logit_scale.clone())
            .with_criterion(criterion)
    }
}

preset! {
    /// InfoNCE over the negatives that a teacher does not take for false; built by
    /// [`FalseNegativeRemovalConfig::init`].
    ///
    /// `L = mean_i [ CE over j ∈ {i} ∪ {w_ij ≥ t} + CE over j ∈ {i} ∪ {w_ji ≥ t} ]`. Unless α is 0 the
    /// context must hold a [`Teacher`](super::Teacher).
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

    #[test]
    fn the_nearest_negative_goes_by_hand() {
        // To the first image's teacher the texts are at 1 (its own), 1 and −1. At weight temperature ½ the
        // negatives weigh e^{−2} to e^{2}: 0.036 and 1.964. The other anchors see two equal negatives.
        let device = Device::default();
        let axes = Tensor::<2>::eye(3, &device);
        let teacher_image = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], &device);
        let teacher_text = Tensor::<2>::from_data([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], &device);
        let config = FalseNegativeRemovalConfig::new()
            .with_logit_scale(LogitScaleConfig::fixed(1.0))
            .with_regulation(SimilarityRegulation::new().with_weight_temperature(0.5));
        let [by_image, _] = config.init(&device).forward_directions(
            axes.clone(),
            axes,
            Teacher::new(teacher_image, teacher_text),
        );
        // Students are orthogonal: log(1 + negatives·e^{−1}).
        let expected = [1.0f32, 2.0, 2.0].map(|negatives| (negatives * (-1f32).exp()).ln_1p());
        for (loss, expected) in by_image
            .into_data()
            .try_to_vec::<f32>()
            .unwrap()
            .into_iter()
            .zip(expected)
        {
            assert!((loss - expected).abs() < 1e-6, "{loss} against {expected}");
        }
    }

    #[test]
    #[should_panic(expected = "`threshold` is -1, it must be finite and at least 0")]
    fn a_negative_threshold_is_refused() {
        FalseNegativeRemovalConfig::new()
            .with_threshold(-1.0)
            .init(&Device::default());
    }
}
