//! Symmetric InfoNCE, the objective of CLIP and ConVIRT.
//!
//! Each image must pick its own text among all texts of the batch, and each text its own image.
//! With `c_ij` the cosine of image `i` and text `j`:
//!
//! ```text
//! L_i = −λ · log( e^{s·c_ii} / Σ_j e^{s·c_ij} ) − (1 − λ) · log( e^{s·c_ii} / Σ_j e^{s·c_ji} )
//! L   = mean over i of L_i
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | λ | [`InfoNceConfig::image_to_text_weight`], ½ by default; ConVIRT uses 0.75 |
//! | s | [`InfoNceConfig::logit_scale`], `1/τ`; starts at 1/0.07, learned, in [1, 100] (CLIP) |
//!
//! **Gradient.** With `p_ij`, `q_ij` the softmax of row `i` and of column `j`:
//! `∂L/∂c_ij = s/N · ( λ·(p_ij − δ_ij) + (1 − λ)·(q_ij − δ_ij) )`.
//!
//! **Cost.** `N²·D` time, `N·D` memory; both directions in one pass over the pairs.
//! [`Contrastive`](super::Contrastive) says how it is computed.
//!
//! **Degenerate cases.** One pair without extra negatives: loss 0, gradient 0. N equal embeddings
//! give ln N. A zero row has similarity 0 to everything and gets a zero gradient. Duplicated pairs
//! are counted as negatives of each other, as CLIP does.
//!
//! **Sources.** Radford et al. 2021, figure 3 (CLIP); Zhang et al. 2020, equations 2–4 (ConVIRT).
//! "Vision-Language Contrast" has no temperature: set 1.

use super::contrastive::{Criterion, Directions};
use super::entry::{Parameter, preset};
use crate::similarity::LogitScaleConfig;

config! {
    /// Configuration of [`InfoNce`].
    pub struct InfoNceConfig {
        /// The logit scale. Default: learned, from temperature 0.07, within [1, 100] (CLIP).
        logit_scale: LogitScaleConfig = "LogitScaleConfig::new()",
        /// Weight λ of the image→text direction; text→image weighs 1 − λ. In [0, 1], default ½
        /// (CLIP).
        image_to_text_weight: f64 = 0.5,
        /// Whether the two directions are averaged or added. Default: averaged (CLIP).
        directions: Directions = "Directions::Mean",
    }
}

preset! {
    /// Symmetric InfoNCE over the cosines of paired embeddings; built by [`InfoNceConfig::init`].
    ///
    /// `L = ½ · mean_i [ CE(s·c_i·, i) + CE(s·c_·i, i) ]`: CLIP's loss, `c` the cosines.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::InfoNceConfig;
    ///
    /// let device = Device::default();
    /// let equal = Tensor::<2>::ones([4, 3], &device);
    /// let loss = InfoNceConfig::new().init(&device).forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 4f32.ln()).abs() < 1e-6);
    /// ```
    InfoNce = InfoNceConfig, "info-nce";
    criterion(config) = Criterion::new().with_image_to_text_weight(config.image_to_text_weight);
    parameters(config) = [Parameter::of_field(
        "lambda",
        "image_to_text_weight",
        &mut config.image_to_text_weight,
    )];
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device};

    use super::*;
    use crate::objective::tests::{assert_close, matrix};

    fn at_temperature(temperature: f64) -> InfoNceConfig {
        InfoNceConfig::new().with_logit_scale(LogitScaleConfig::fixed(temperature))
    }

    #[test]
    fn two_orthogonal_pairs_by_hand() {
        // Cosines 1 on the diagonal, 0 off it; at temperature 0.5 each row is log(1 + e^{0 − 2}).
        let x = matrix([[2.0, 0.0], [0.0, 0.5]]);
        let objective = at_temperature(0.5).init(&Device::default());
        let each = objective.forward_no_reduction(x.clone(), x, ());
        assert_close(each, [(-2f32).exp().ln_1p(); 2], 1e-6);
    }

    #[test]
    fn embeddings_of_width_one_have_cosines_of_plus_and_minus_one() {
        let x = matrix([[2.0], [-3.0]]).autodiff().require_grad();
        let objective = at_temperature(1.0).init(&x.device());
        let loss = objective.forward(x.clone(), x.clone());
        let gradient = x.grad(&loss.backward()).unwrap();
        assert_close(loss.inner(), [(-2f32).exp().ln_1p()], 1e-6);
        // Only the sign matters, and a small step does not change it.
        assert_close(gradient.flatten(0, 1), [0.0, 0.0], 0.0);
    }

    #[test]
    fn a_tiny_loss_is_not_rounded_to_zero() {
        // Cosines 1 and −1 at scale 100: log(1 + e^{−200}) is e^{−200} in f64.
        let x = matrix([[1.0, 0.0], [-1.0, 0.0]]).cast(DType::F64);
        let objective = at_temperature(0.01).init(&Device::default());
        let loss = objective.forward(x.clone(), x).into_scalar::<f64>();
        assert!((loss / (-200f64).exp() - 1.0).abs() < 1e-4, "{loss:e}");
    }
}
