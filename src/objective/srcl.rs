//! SRCL: InfoNCE whose negatives count the less the more they resemble the anchor.
//!
//! With `c_ij` the cosine of image `i` and text `j`, and `w` weights of mean one over the negatives of an
//! anchor, inversely proportional to a similarity that a teacher and the model itself estimate
//! ([`SimilarityRegulation`]):
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
//! | α, δ, Norm | [`SrclConfig::regulation`]; α goes from 1 to 0 by [`Srcl::with_settings`](super::Contrastive::with_settings) |
//! | the sum of the two | [`SrclConfig::directions`]; ALBEF averages |
//!
//! **Gradient.** The weights regulate, no gradient flows through them (by default): that of InfoNCE with
//! `p_ij ∝ w_ij·e^{c_ij/τ}`.
//!
//! **How it is computed.** Both sums of a weighted mean come out of one pass:
//! `log Σ w·e^z = log Σ e^{z + l} − log( Σ e^l / (N − 1) )`, `l = log 1/s`. Extra negatives (a queue) are weighted together
//! with those of the batch: their teacher's features belong to [`Teacher`](super::Teacher).
//!
//! **Cost.** `2·N²·D` products forward, one of them the teacher's, and `2·N²·D` more backward; none of the
//! teacher's where α is 0. `N·D` memory.
//!
//! **Degenerate cases.** One pair: 0. Equal similarities give all weights 1: ConVSE. N equal embeddings: `2·ln N`.
//!
//! **Source.** "Vision Language Pre-training by Contrastive Learning with Cross-Modal Similarity
//! Regulation", Jiang et al. 2023, equations 4–9. The temperature is stated nowhere: it is ALBEF's, on which the
//! paper builds.

use burn::config::Config;

use super::contrastive::{ContrastiveConfig, Criterion, Directions, preset};
use super::named::Parameter;
use crate::schedule::{Schedule, Settings};
use crate::similarity::{LogitScaleConfig, SimilarityConfig};
use crate::weighting::{SimilarityRegulation, Weighting};

/// Configuration of [`Srcl`].
#[derive(Config, Debug, PartialEq)]
pub struct SrclConfig {
    /// The logit scale. Default: learned, from temperature 0.07, within [0.001, 0.5] (ALBEF).
    #[config(default = "LogitScaleConfig::albef()")]
    pub logit_scale: LogitScaleConfig,
    /// The weights of the negatives. Default: α = 1, the beginning of training (the paper).
    #[config(default = "SimilarityRegulation::new()")]
    pub regulation: SimilarityRegulation,
    /// Whether the two directions are added or averaged. Default: added (the paper, §2.1).
    #[config(default = "Directions::Sum")]
    pub directions: Directions,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl SrclConfig {
    /// The defaults with weights as in the paper's figures: [`SimilarityRegulation::calibrated`].
    pub fn calibrated() -> Self {
        Self::new().with_regulation(SimilarityRegulation::calibrated())
    }

    /// The parts of the objective, to be recombined.
    pub fn contrastive(&self) -> ContrastiveConfig {
        let criterion = Criterion::new()
            .with_directions(self.directions)
            .with_weighting(Weighting::Regulation(self.regulation))
            .with_similarity(self.similarity);
        ContrastiveConfig::new()
            .with_logit_scale(self.logit_scale.clone())
            .with_criterion(criterion)
    }
}

preset! {
    /// Similarity-regulated contrast of paired embeddings; built by [`SrclConfig::init`].
    ///
    /// `L = mean_i [ −log( e_ii / (e_ii + Σ_{j≠i} w_ij·e_ij) ) − log( e_ii / (e_ii + Σ_{j≠i} w_ji·e_ji) ) ]`,
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
    use crate::objective::Teacher;

    #[test]
    fn three_pairs_by_hand() {
        // Orthogonal students: e_ii = e^{1/τ}, all others 1, so only Σ w matters, which is N − 1 = 2.
        let device = Device::default();
        let x = Tensor::<2>::eye(3, &device);
        let teacher = Tensor::<2>::from_data([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], &device);
        let objective = SrclConfig::new()
            .with_logit_scale(LogitScaleConfig::fixed(0.5))
            .init(&device);
        let loss = objective.forward_with(x.clone(), x, Teacher::new(teacher.clone(), teacher));
        let expected = 2.0 * (2.0 * (-2f32).exp()).ln_1p();
        assert!((loss.into_scalar::<f32>() - expected).abs() < 1e-6);
    }

    #[test]
    fn two_negatives_by_hand() {
        // The first image meets texts at cosines 1, 0 and −1; its teacher finds the negatives at
        // 1 and 0, so that their weights are in proportion e^{−1} : 1.
        let device = Device::default();
        let image = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], &device);
        let text = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], &device);
        let (teacher_image, teacher_text) = (
            Tensor::<2>::from_data([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], &device),
            Tensor::<2>::from_data([[0.6, 0.8], [2.0, 0.0], [0.0, 3.0]], &device),
        );
        let objective = SrclConfig::new()
            .with_logit_scale(LogitScaleConfig::fixed(1.0))
            .init(&device);
        let [by_image, _] =
            objective.forward_directions(image, text, Teacher::new(teacher_image, teacher_text));
        let (alike, unlike) = ((-1f64).exp(), 1.0);
        let weight = |w: f64| 2.0 * w / (alike + unlike);
        let expected =
            (weight(alike) * (-1f64).exp() + weight(unlike) * (-2f64).exp()).ln_1p() as f32;
        let loss = by_image.into_data().try_to_vec::<f32>().unwrap()[0];
        assert!((loss - expected).abs() < 1e-6, "{loss} against {expected}");
    }

    #[test]
    #[should_panic(expected = "Srcl: `teacher` is missing")]
    fn a_missing_teacher_is_refused() {
        let x = Tensor::<2>::ones([2, 3], &Device::default());
        SrclConfig::new()
            .init(&Device::default())
            .forward(x.clone(), x);
    }

    #[test]
    #[should_panic(expected = "`alpha` is 1.5, it must lie in [0, 1]")]
    fn a_share_past_one_is_refused() {
        SrclConfig::new()
            .with_regulation(SimilarityRegulation::new().with_alpha(1.5))
            .init(&Device::default());
    }
}
