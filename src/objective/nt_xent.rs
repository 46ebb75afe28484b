//! NT-Xent, the loss of SimCLR: each of 2·N samples must find its partner among all the others.
//!
//! With the images and the texts as one set `x_0 … x_{2N−1}`, and `i'` the partner of `i`:
//!
//! ```text
//! L = 1/(2·N)·Σ_i −log( e^{cos(x_i, x_i')/τ} / Σ_{j≠i} e^{cos(x_i, x_j)/τ} )
//! ```
//!
//! The two sides may as well be two views of one modality. This is half of [`Mvn`](super::Mvn).
//!
//! | symbol | here |
//! |---|---|
//! | τ | [`NtXentConfig::logit_scale`], fixed at 0.1 |
//! | the mean over the 2·N | [`NtXentConfig::directions`] |
//!
//! **Gradient.** That of a softmax over `2·N − 1` candidates for each of `2·N` anchors.
//!
//! **Cost.** Three blocks of similarities, of two of which half is computed: twice the time of InfoNCE, `N·D` memory.
//!
//! **Degenerate cases.** One pair: 0. N equal embeddings: `ln(2·N − 1)`.
//!
//! **Source.** Chen et al. 2020, equation 1 and algorithm 1 (SimCLR).

use burn::config::Config;

use super::contrastive::{ContrastiveConfig, Criterion, Directions, preset};
use crate::similarity::{LogitScaleConfig, SimilarityConfig};

/// Configuration of [`NtXent`].
#[derive(Config, Debug, PartialEq)]
pub struct NtXentConfig {
    /// The logit scale. Default: fixed, temperature 0.1 (SimCLR).
    #[config(default = "LogitScaleConfig::fixed(0.1)")]
    pub logit_scale: LogitScaleConfig,
    /// Whether the two directions are added or averaged. Default: averaged over all anchors (SimCLR).
    #[config(default = "Directions::Mean")]
    pub directions: Directions,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl NtXentConfig {
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
    /// NT-Xent over the cosines of paired embeddings; built by [`NtXentConfig::init`].
    ///
    /// `L = ½·mean_i [ CE over texts and other images + CE over images and other texts ]`.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::NtXentConfig;
    ///
    /// let device = Device::default();
    /// let equal = Tensor::<2>::ones([4, 3], &device);
    /// let loss = NtXentConfig::new().init(&device).forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 7f32.ln()).abs() < 1e-5);
    /// ```
    NtXent = NtXentConfig, "nt-xent";
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
        let objective = NtXentConfig::new().init(&device);
        let expected = (2.0 * (-10f32).exp()).ln_1p();
        let loss = objective.forward(x.clone(), x).into_scalar::<f32>();
        assert!(
            (loss / expected - 1.0).abs() < 1e-4,
            "{loss} against {expected}"
        );
    }

    #[test]
    #[should_panic(expected = "`temperature` is 0, it must lie in")]
    fn a_temperature_of_zero_is_refused() {
        NtXentConfig::new()
            .with_logit_scale(LogitScaleConfig::new().with_temperature(0.0))
            .init(&Device::default());
    }
}
