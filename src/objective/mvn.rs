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
//! τ is that of [`MvnConfig::logit_scale`], fixed at 0.1; [`MvnConfig::directions`] adds the two.
//!
//! **Gradient.** That of a softmax over `2·N − 1` candidates for each of `2·N` anchors.
//!
//! **Cost.** Three matrices of similarities, of which the two within a modality are symmetric and
//! half computed: twice the time of InfoNCE, `N·D` memory.
//!
//! **Degenerate cases.** One pair: 0. N equal embeddings: `2·ln(2·N − 1)`.
//!
//! **Source.** "Contrastive Learning of Visual-Semantic Embeddings", Jain and Verma, section III.
//! The objective is theirs: a reading of Alayrac et al. 2020, "Self-Supervised MultiModal Versatile
//! Networks". They state no temperature for it: 0.1 is that of their other objectives.

use super::contrastive::{Criterion, Directions};
use super::entry::preset;
use crate::similarity::LogitScaleConfig;

config! {
    /// Configuration of [`Mvn`].
    pub struct MvnConfig {
        /// The logit scale. Default: fixed, temperature 0.1 (ConVSE).
        logit_scale: LogitScaleConfig = "LogitScaleConfig::fixed(0.1)",
        /// Whether the two directions are added or averaged. Default: added, as in ConVSE.
        directions: Directions = "Directions::Sum",
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
    criterion(_config) = Criterion::new().with_within_modality(true);
    parameters(config) = [];
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::objective::NtXentConfig;
    use crate::objective::tests::{assert_close, matrix};

    #[test]
    fn two_orthogonal_pairs_by_hand() {
        // Each anchor: its positive at cosine 1, one negative of either modality at cosine 0.
        let x = matrix([[3.0, 0.0], [0.0, 0.2]]);
        let direction = (2.0 * (-10f32).exp()).ln_1p();
        let device = Device::default();
        let sum = MvnConfig::new().init(&device).forward(x.clone(), x.clone());
        assert_close(sum, [2.0 * direction], 2e-4 * direction);
        // NT-Xent is half of it.
        let mean = NtXentConfig::new().init(&device).forward(x.clone(), x);
        assert_close(mean, [direction], 1e-4 * direction);
    }
}
