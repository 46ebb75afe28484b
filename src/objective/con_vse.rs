//! ConVSE: InfoNCE as learned for visual-semantic embeddings, both directions added.
//!
//! With `c_ij` the cosine of image `i` and text `j`:
//!
//! ```text
//! L_i = −log( e^{c_ii/τ} / Σ_j e^{c_ij/τ} ) − log( e^{c_ii/τ} / Σ_j e^{c_ji/τ} )
//! L   = mean over i of L_i
//! ```
//!
//! τ is that of [`ConVseConfig::logit_scale`], fixed at 0.1; [`ConVseConfig::directions`] adds the
//! two.
//!
//! **Gradient.** `∂L/∂c_ij = ( p_ij + q_ij − 2·δ_ij ) / (τ·N)`, with `p`, `q` the softmax over row
//! and column.
//!
//! **Cost and degenerate cases.** Those of [`InfoNce`](super::InfoNce), of which this is twice the
//! value at the same temperature. One pair: 0. N equal embeddings: `2·ln N`.
//!
//! **Source.** "Contrastive Learning of Visual-Semantic Embeddings", Jain and Verma, equation 6 and
//! section IV (τ = 0.1).

use super::contrastive::{Criterion, Directions};
use super::entry::preset;
use crate::similarity::LogitScaleConfig;

config! {
    /// Configuration of [`ConVse`].
    pub struct ConVseConfig {
        /// The logit scale. Default: fixed, temperature 0.1 (the paper).
        logit_scale: LogitScaleConfig = "LogitScaleConfig::fixed(0.1)",
        /// Whether the two directions are added or averaged. Default: added (the paper).
        directions: Directions = "Directions::Sum",
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
    criterion(_config) = Criterion::new();
    parameters(config) = [];
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::objective::tests::{assert_close, matrix};

    #[test]
    fn two_orthogonal_pairs_by_hand() {
        // Cosines 1 on the diagonal, 0 off it: each direction is log(1 + e^{(0 − 1)/0.1}).
        let x = matrix([[3.0, 0.0], [0.0, 0.2]]);
        let direction = (-10f32).exp().ln_1p();
        for (directions, count) in [(Directions::Sum, 2.0), (Directions::Mean, 1.0)] {
            let config = ConVseConfig::new().with_directions(directions);
            let objective = config.init(&Device::default());
            let each = objective.forward_no_reduction(x.clone(), x.clone(), ());
            assert_close(each, [count * direction; 2], 1e-5 * count * direction);
        }
    }
}
