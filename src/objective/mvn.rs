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
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::Reduction;
use super::contrastive::{Context, Contrast, Criterion};
use crate::similarity::{LogitScale, LogitScaleConfig, SimilarityConfig};

/// Configuration of [`Mvn`].
#[derive(Config, Debug, PartialEq)]
pub struct MvnConfig {
    /// The logit scale. Default: fixed, temperature 0.1 (ConVSE).
    #[config(default = "LogitScaleConfig::fixed(0.1)")]
    pub logit_scale: LogitScaleConfig,
    /// Whether the two directions are added or averaged. Default: added, as in ConVSE.
    #[config(default = "Reduction::Sum")]
    pub directions: Reduction,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl MvnConfig {
    /// The parts of the objective, to be recombined in a [`Contrastive`](super::Contrastive).
    pub fn criterion(&self) -> Criterion {
        Criterion::new()
            .with_within_modality(true)
            .with_directions(self.directions)
            .with_similarity(self.similarity)
    }

    /// Builds the objective on `device`.
    ///
    /// # Panics
    ///
    /// Where [`LogitScaleConfig::init`] refuses the logit scale's values.
    #[track_caller]
    pub fn init(&self, device: &Device) -> Mvn {
        Mvn {
            logit_scale: self.logit_scale.init(device),
            criterion: self.criterion().checked("MvnConfig"),
        }
    }
}

/// MVN over the cosines of paired embeddings; built by [`MvnConfig::init`].
///
/// `L = mean_i [ CE over texts and other images + CE over images and other texts ]`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Mvn {
    /// The factor between cosines and logits; a parameter where it is learned.
    pub logit_scale: LogitScale,
    #[module(skip)]
    criterion: Criterion,
}

impl Mvn {
    /// The loss, mean over the batch, in nats.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`, row `i` of one belongs to row `i` of the other
    /// - returns `[1]`, f64 for f64 embeddings, f32 for all others
    ///
    /// # Panics
    ///
    /// Where shapes, dtypes or devices of the embeddings differ, the batch is empty, or the
    /// objective was built on another device.
    ///
    /// # Example
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
    #[track_caller]
    pub fn forward(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        self.contrast().mean(image, text, Context::default())
    }

    /// The loss of each pair, `[N]`: see [`forward`](Self::forward).
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    #[track_caller]
    pub fn forward_no_reduction(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        self.contrast().each(image, text, Context::default())
    }

    fn contrast(&self) -> Contrast<'_> {
        self.criterion.with("Mvn", &self.logit_scale)
    }
}

display!(contrast Mvn);

#[cfg(test)]
mod tests {
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
