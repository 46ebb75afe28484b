//! MVN: InfoNCE whose negatives are also those of the anchor's own modality, both directions added.
//!
//! With `c` the cosines across the modalities, `v` those among images, `t` those among texts:
//!
//! ```text
//! L_i = −log( e^{c_ii/τ} / ( Σ_j e^{c_ij/τ} + Σ_{j≠i} e^{v_ij/τ} ) )
//!       −log( e^{c_ii/τ} / ( Σ_j e^{c_ji/τ} + Σ_{j≠i} e^{t_ij/τ} ) )
//! L   = mean over i of L_i
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | τ | [`MvnConfig::logit_scale`], fixed at 0.1 |
//! | the sum of the two | [`MvnConfig::directions`] |
//!
//! **Gradient.** That of a softmax over `2·N − 1` candidates for each of `2·N` anchors.
//!
//! **Cost.** Three blocks of similarities, of two of which half is computed: twice the time of InfoNCE, `N·D` memory.
//!
//! **Degenerate cases.** One pair: 0. N equal embeddings: `2·ln(2·N − 1)`.
//!
//! **Sources.** Alayrac et al. 2020, "Self-Supervised MultiModal Versatile Networks", as adapted in "Contrastive Learning of
//! Visual-Semantic Embeddings", Jain and Verma, §III. The latter states no temperature for it: 0.1 is that of its other objectives.

use burn::config::Config;

use super::contrastive::{ContrastiveConfig, Criterion, Directions, preset};
use crate::similarity::{LogitScaleConfig, SimilarityConfig};

/// Configuration of [`Mvn`].
#[derive(Config, Debug, PartialEq)]
pub struct MvnConfig {
    /// The logit scale. Default: fixed, temperature 0.1 (ConVSE).
    #[config(default = "LogitScaleConfig::fixed(0.1)")]
    pub logit_scale: LogitScaleConfig,
    /// Whether the two directions are added or averaged. Default: added, as in ConVSE.
    #[config(default = "Directions::Sum")]
    pub directions: Directions,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl MvnConfig {
    /// The parts of the objective, to be recombined.
    pub fn contrastive(&self) -> ContrastiveConfig {
        let criterion = Criterion::new()
            .with_within_modality(true)
            .with_directions(self.directions)
            .with_similarity(self.similarity);
        ContrastiveConfig::new()
            .with_logit_scale(self.logit_scale.clone())
            .with_criterion(criterion)
    }
}

preset! {
    /// MVN over the cosines of paired embeddings; built by [`MvnConfig::init`].
    ///
    /// `L = mean_i [ CE over texts and other images + CE over images and other texts ]`.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::MvnConfig;
    ///
    /// let device = Device::default();
    /// let equal = Tensor::<2>::ones([4, 3], &device);
    /// let loss = MvnConfig::new().init(&device).forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 2.0 * 7f32.ln()).abs() < 1e-5);
    /// ```
    Mvn = MvnConfig, "mvn";
    parameters(config) = [];
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn two_orthogonal_pairs_by_hand() {
        // Each anchor: its positive at cosine 1, one negative of either modality at cosine 0.
        let device = Device::default();
        let x = Tensor::<2>::from_data([[3.0, 0.0], [0.0, 0.2]], &device);
        let objective = MvnConfig::new().init(&device);
        let expected = 2.0 * (2.0 * (-10f32).exp()).ln_1p();
        let loss = objective.forward(x.clone(), x).into_scalar::<f32>();
        assert!(
            (loss / expected - 1.0).abs() < 1e-4,
            "{loss} against {expected}"
        );
    }

    #[test]
    #[should_panic(expected = "`temperature` is 0, it must lie in")]
    fn a_temperature_of_zero_is_refused() {
        MvnConfig::new()
            .with_logit_scale(LogitScaleConfig::new().with_temperature(0.0))
            .init(&Device::default());
    }
}
