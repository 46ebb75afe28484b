//! SRCL: InfoNCE whose negatives weigh less the more they resemble the anchor.
//!
//! With `c_ij` the cosine of image `i` and text `j`, and `w` weights of mean one over the negatives
//! of an anchor, inversely proportional to a similarity that a teacher and the model itself
//! estimate ([`SimilarityRegulation`]):
//!
//! ```text
//! D_i(image→text) = −log( e^{c_ii/τ} / ( e^{c_ii/τ} + Σ_{j≠i} w_ij·e^{c_ij/τ} ) )
//! L = mean over i of  D_i(image→text) + D_i(text→image)
//! ```
//!
//! Text→image normalises its weights over the images of each text.
//!
//! | symbol | here |
//! |---|---|
//! | τ | [`SrclConfig::logit_scale`]: learned, from 0.07, within [0.001, 0.5] (ALBEF) |
//! | α, δ, Norm | [`SrclConfig::regulation`]; [`SrclConfig`] has two readings of the paper |
//! | the sum of the two | [`SrclConfig::directions`]; ALBEF averages |
//!
//! The paper lowers α from 1 to 0 during training:
//! [`Srcl::with_settings`](super::Contrastive::with_settings).
//!
//! **Gradient.** That of InfoNCE with `p_ij ∝ w_ij·e^{c_ij/τ}`; no gradient flows through the
//! weights unless [`SimilarityRegulation::differentiable`] says so.
//!
//! **How it is computed.** Both sums of a weighted mean come from one pass:
//! `log Σ w·e^z = log Σ e^{z + l} − log( Σ e^l / (N − 1) )`, `l = log 1/s`. The negatives of a
//! queue are weighted together with those of the batch; their teacher's features belong to
//! [`Teacher`](super::Teacher).
//!
//! **Cost.** `2·N²·D` products forward, one of them the teacher's, and `2·N²·D` more backward; none
//! of the teacher's where α is 0. `N·D` memory.
//!
//! **Degenerate cases.** One pair: 0. Equal similarities give all weights 1: ConVSE. N equal
//! embeddings: `2·ln N`.
//!
//! **Source.** "Vision Language Pre-training by Contrastive Learning with Cross-Modal Similarity
//! Regulation", Jiang et al. 2023, equations 4–9, figures 3b and 8. It states no temperature τ:
//! this is that of ALBEF, on which the paper builds.

use super::contrastive::{Criterion, Directions};
use super::entry::{Parameter, preset};
use crate::schedule::{Schedule, Settings};
use crate::similarity::LogitScaleConfig;
use crate::weighting::{SimilarityRegulation, Weighting};

config! {
    /// Configuration of [`Srcl`], in two readings of the paper's weights.
    ///
    /// [`new`](Self::new) is the literal one: the equations have no temperature inside the weights.
    /// It is nearly ConVSE: with 511 negatives whose cosines have standard deviation 0.10, 0.15 or
    /// 0.25 no weight is below 0.3, and 0, 1 or 10 % are below 0.7. In the paper's figures about a
    /// fifth is below 0.7, and a false negative weighs 0.08.
    ///
    /// [`calibrated`](Self::calibrated) is fitted to those figures: at its weight temperature of
    /// 0.3 and deviation 0.10, 18 % of the weights are below 0.7, and a negative 0.7 above the mean
    /// cosine weighs about 0.1.
    pub struct SrclConfig {
        /// The logit scale. Default: learned, from temperature 0.07, within [0.001, 0.5] (ALBEF).
        logit_scale: LogitScaleConfig = "LogitScaleConfig::albef()",
        /// The weights of the negatives. Default: the literal reading, at α = 1, where the paper's
        /// training begins.
        regulation: SimilarityRegulation = "SimilarityRegulation::new()",
        /// Whether the two directions are added or averaged. Default: added (the paper, section
        /// 2.1).
        directions: Directions = "Directions::Sum",
    }
}

impl SrclConfig {
    /// The defaults with weights fitted to the paper's figures:
    /// [`SimilarityRegulation::calibrated`].
    pub fn calibrated() -> Self {
        Self::new().with_regulation(SimilarityRegulation::calibrated())
    }
}

preset! {
    /// Similarity-regulated contrast of paired embeddings; built by [`SrclConfig::init`].
    ///
    /// `L = mean_i [ log(1 + Σ_{j≠i} w_ij·e_ij / e_ii) + log(1 + Σ_{j≠i} w_ji·e_ji / e_ii) ]`,
    /// `e_ij = e^{cos(image_i, text_j)/τ}`. Unless α is 0 the context must hold a
    /// [`Teacher`](super::Teacher).
    ///
    /// ```
    /// use burn::tensor::{Device, Distribution, Tensor};
    /// use burn_contrastive::objective::{SrclConfig, Teacher};
    /// use burn_contrastive::schedule::Settings;
    ///
    /// let device = Device::default();
    /// let random = |width| Tensor::<2>::random([8, width], Distribution::Default, &device);
    /// let (image, text) = (random(16), random(16));
    ///
    /// let srcl = SrclConfig::new().init(&device);
    /// let teacher = Teacher::new(random(24), random(24));
    /// let first = srcl.forward_with(image.clone(), text.clone(), teacher);
    /// // At the end of training the weights are the model's own.
    /// let last = srcl.with_settings(&Settings { alpha: Some(0.0), ..Settings::default() });
    /// let last = last.forward(image, text);
    /// assert!(first.dims() == [1] && last.dims() == [1]);
    /// ```
    Srcl = SrclConfig, "srcl";
    criterion(config) = Criterion::new().with_weighting(Weighting::Regulation(config.regulation));
    parameters(config) = Parameter::regulation(&mut config.regulation);
    schedules = Settings {
        alpha: Some(Schedule::new(1.0, 0.0)),
        ..Settings::default()
    };
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::objective::tests::{assert_close, matrix};
    use crate::objective::{Srcl, Teacher};

    fn at_temperature(temperature: f64) -> Srcl {
        let config = SrclConfig::new().with_logit_scale(LogitScaleConfig::fixed(temperature));
        config.init(&Device::default())
    }

    #[test]
    fn three_pairs_by_hand() {
        // Orthogonal students: e_ii = e^{1/τ}, all others 1; only Σ w = N − 1 = 2 enters.
        let x = Tensor::<2>::eye(3, &Device::default());
        let teacher = matrix([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]);
        let teacher = Teacher::new(teacher.clone(), teacher);
        let loss = at_temperature(0.5).forward_with(x.clone(), x, teacher);
        assert_close(loss, [2.0 * (2.0 * (-2f32).exp()).ln_1p()], 1e-6);
    }

    #[test]
    fn two_negatives_by_hand() {
        // The cosines of the first image with the texts are 1, 0 and −1, its teacher's with the
        // negatives 1 and 0: these weigh in proportion e^{−1} : 1.
        let image = matrix([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]);
        let text = matrix([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]);
        let teacher = Teacher::new(
            matrix([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]),
            matrix([[0.6, 0.8], [2.0, 0.0], [0.0, 3.0]]),
        );
        let [by_image, _] = at_temperature(1.0).forward_directions(image, text, teacher);
        let [alike, unlike] = [(-1f32).exp(), 1.0];
        let weight = |w: f32| 2.0 * w / (alike + unlike);
        let expected = (weight(alike) * (-1f32).exp() + weight(unlike) * (-2f32).exp()).ln_1p();
        assert_close(by_image.slice(0..1), [expected], 1e-6);
    }

    #[test]
    #[should_panic(expected = "Srcl: `teacher` is missing")]
    fn a_missing_teacher_is_refused() {
        let x = Tensor::<2>::ones([2, 3], &Device::default());
        at_temperature(1.0).forward(x.clone(), x);
    }
}
