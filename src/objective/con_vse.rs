//! ConVSE: InfoNCE as learned for visual-semantic embeddings, both directions added.
//!
//! With `c_ij` the cosine of image `i` and text `j`:
//!
//! ```text
//! L_i = −log( e^{c_ii/τ} / Σ_j e^{c_ij/τ} ) − log( e^{c_ii/τ} / Σ_j e^{c_ji/τ} )
//! L   = mean over i of L_i
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | τ | [`ConVseConfig::logit_scale`], fixed at 0.1 |
//! | the sum of the two | [`ConVseConfig::directions`] |
//!
//! **Gradient.** `∂L/∂c_ij = ( p_ij + q_ij − 2·δ_ij ) / (τ·N)`, with `p`, `q` the softmax over row and column.
//!
//! **Cost and degenerate cases.** Those of [`InfoNce`](super::InfoNce), of which this is twice the value at the
//! same temperature. One pair: 0. N equal embeddings: `2·ln N`.
//!
//! **Source.** "Contrastive Learning of Visual-Semantic Embeddings", Jain and Verma, equation 6 and §IV (τ = 0.1).

use burn::config::Config;

use super::contrastive::{ContrastiveConfig, Criterion, Directions, preset};
use crate::similarity::{LogitScaleConfig, SimilarityConfig};

/// Configuration of [`ConVse`].
#[derive(Config, Debug, PartialEq)]
pub struct ConVseConfig {
    /// The logit scale. Default: fixed, temperature 0.1 (the paper).
    #[config(default = "LogitScaleConfig::fixed(0.1)")]
    pub logit_scale: LogitScaleConfig,
    /// Whether the two directions are added or averaged. Default: added (the paper).
    #[config(default = "Directions::Sum")]
    pub directions: Directions,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl ConVseConfig {
    /// The parts of the objective, to be recombined.
    pub fn contrastive(&self) -> ContrastiveConfig {
        let criterion = Criterion::new()
            .with_directions(self.directions)
            .with_similarity(self.similarity);
        ContrastiveConfig::new()
            .with_logit_scale(self.logit_scale.clone())
            .with_criterion(criterion)
    }
}

preset! {
    /// ConVSE over the cosines of paired embeddings; built by [`ConVseConfig::init`].
    ///
    /// `L = mean_i [ CE(c_i·/τ, i) + CE(c_·i/τ, i) ]`, `c_ij = cos(image_i, text_j)`.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::ConVseConfig;
    ///
    /// let device = Device::default();
    /// let equal = Tensor::<2>::ones([4, 3], &device);
    /// let loss = ConVseConfig::new().init(&device).forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 2.0 * 4f32.ln()).abs() < 1e-5);
    /// ```
    ConVse = ConVseConfig, "con-vse";
    parameters(config) = [];
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn two_orthogonal_pairs_by_hand() {
        // Cosines 1 on the diagonal, 0 off it: each direction is log(1 + e^{(0 − 1)/0.1}).
        let device = Device::default();
        let x = Tensor::<2>::from_data([[3.0, 0.0], [0.0, 0.2]], &device);
        let objective = ConVseConfig::new().init(&device);
        let expected = 2.0 * (-10f32).exp().ln_1p();
        let each = objective.forward_no_reduction(x.clone(), x.clone(), ());
        for loss in each.into_data().try_to_vec::<f32>().unwrap() {
            assert!(
                (loss / expected - 1.0).abs() < 1e-5,
                "{loss} against {expected}"
            );
        }
        let averaged = ConVseConfig::new().with_directions(Directions::Mean);
        let mean = averaged
            .init(&device)
            .forward(x.clone(), x)
            .into_scalar::<f32>();
        assert!((mean / expected - 0.5).abs() < 1e-5);
    }

    #[test]
    #[should_panic(expected = "`temperature` is 0, it must lie in")]
    fn a_temperature_of_zero_is_refused() {
        ConVseConfig::new()
            .with_logit_scale(LogitScaleConfig::new().with_temperature(0.0))
            .init(&Device::default());
    }

    #[test]
    fn displays_what_it_is_made_of() {
        let shown = ConVseConfig::new().init(&Device::default()).to_string();
        assert!(
            shown.contains("ConVse") && shown.contains("directions: Sum"),
            "{shown}"
        );
    }
}
