//! Decoupled contrastive learning (DCL): InfoNCE without the positive in the denominator.
//!
//! With `c_ij` the cosine of image `i` and text `j`:
//!
//! ```text
//! L_i = ½·( log Σ_{j≠i} e^{c_ij/τ} − c_ii/τ ) + ½·( log Σ_{j≠i} e^{c_ji/τ} − c_ii/τ )
//! L   = mean over i of L_i
//! ```
//!
//! The gradient of an anchor does not shrink as its positive comes near, which helps small batches.
//! The loss is not bounded below by 0.
//!
//! | symbol | here |
//! |---|---|
//! | τ | [`DecoupledConfig::logit_scale`], fixed at 0.1 |
//! | the ½s | [`DecoupledConfig::directions`] |
//! | negatives | the other modality's; under [`DecoupledConfig::within_modality`] also the own |
//!
//! **Gradient.** `∂L/∂c_ij = ( p_ij + q_ij ) / (2·τ·N)` off the diagonal, `p`, `q` the softmax over
//! a row's and a column's negatives, and `∂L/∂c_ii = −1/(τ·N)`.
//!
//! **Cost.** That of InfoNCE; within the modality twice that.
//!
//! **Degenerate cases.** One pair has no negatives: loss 0, gradient 0 (the equation would give
//! −∞). N equal embeddings give `ln(N − 1)`.
//!
//! **Source.** Yeh et al. 2022, "Decoupled Contrastive Learning", equation 6. Theirs is for two
//! views of images, with the negatives of both views, as in lightly's `DCLLoss`: `within_modality`.
//! Across modalities the default here is the other one's alone.

use super::contrastive::{Criterion, Directions};
use super::entry::preset;
use crate::similarity::LogitScaleConfig;

config! {
    /// Configuration of [`Decoupled`].
    pub struct DecoupledConfig {
        /// The logit scale. Default: fixed, temperature 0.1 (DCL).
        logit_scale: LogitScaleConfig = "LogitScaleConfig::fixed(0.1)",
        /// Whether the other samples of the anchor's own modality are negatives too. Default false.
        within_modality: bool = false,
        /// Whether the two directions are added or averaged. Default: averaged (lightly).
        directions: Directions = "Directions::Mean",
    }
}

preset! {
    /// Decoupled contrast of paired embeddings; built by [`DecoupledConfig::init`].
    ///
    /// `L = ½·mean_i [ log Σ_{j≠i} e^{c_ij/τ} + log Σ_{j≠i} e^{c_ji/τ} − 2·c_ii/τ ]`.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::DecoupledConfig;
    ///
    /// let device = Device::default();
    /// let equal = Tensor::<2>::ones([4, 3], &device);
    /// let loss = DecoupledConfig::new().init(&device).forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 3f32.ln()).abs() < 1e-5);
    /// ```
    Decoupled = DecoupledConfig, "dcl";
    criterion(config) = Criterion::new()
        .with_decoupled(true)
        .with_within_modality(config.within_modality);
    parameters(config) = [];
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::objective::tests::{assert_close, matrix};

    #[test]
    fn two_orthogonal_pairs_by_hand() {
        // One negative at cosine 0, the positive at 1: 0 − 1/τ, whatever the direction; within the
        // modality one more negative at cosine 0: ln 2 more.
        let x = matrix([[3.0, 0.0], [0.0, 0.2]]);
        for (within, expected) in [(false, -10.0), (true, 2f32.ln() - 10.0)] {
            let config = DecoupledConfig::new().with_within_modality(within);
            let objective = config.init(&Device::default());
            assert_close(objective.forward(x.clone(), x.clone()), [expected], 1e-5);
        }
    }

    #[test]
    fn a_single_pair_costs_nothing() {
        let x = matrix([[1.0, 2.0]]).autodiff().require_grad();
        let objective = DecoupledConfig::new().init(&x.device());
        let loss = objective.forward(x.clone(), x.clone());
        let gradient = x.grad(&loss.backward()).unwrap();
        assert_close(loss.inner(), [0.0], 0.0);
        assert_close(gradient.flatten(0, 1), [0.0, 0.0], 0.0);
    }
}
