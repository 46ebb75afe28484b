//! InfoCMR: InfoNCE with hard negatives of each anchor and noise, both directions added.
//!
//! With `c_ij` the cosine of image `i` and text `j`, `h_i` the hard texts (and `h'_i` the hard
//! images) of pair `i`, and `g` noise vectors:
//!
//! ```text
//! H_i = Σ_k e^{cos(image_i, h_ik)/τ}        G_i = Σ_z e^{cos(image_i, g_z)/τ}
//! D_i(image→text) = −log( e^{c_ii/τ} / ( Σ_j e^{c_ij/τ} + H_i + G_i ) )
//! L = mean over i of  D_i(image→text) + D_i(text→image)
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | τ | [`InfoCmrConfig::logit_scale`], fixed at 0.05 |
//! | `h`, `h'` | [`Negatives::hard_text`], [`Negatives::hard_image`]: synthesised ones, say |
//! | `g` | [`Negatives::noise`]; the paper draws 128 of N(0, I) at each step for both directions |
//! | the sum of the two | [`InfoCmrConfig::directions`] |
//!
//! **Gradient.** That of a softmax over all candidates. It reaches hard negatives and noise where
//! they are tracked; the paper's are constants.
//!
//! **Cost.** That of InfoNCE, `N·Z` pairs with `Z` noise vectors, and `N·m` with `m` hard negatives
//! an anchor.
//!
//! **Degenerate cases.** Without hard negatives and noise: ConVSE. One pair without either: 0. N
//! equal embeddings without either: `2·ln N`.
//!
//! **Source.** "ITContrast: Contrastive Learning with Hard Negative Synthesis for Image-Text
//! Matching", Wu et al., equations 6 and 7. Their denominator, printed as `1 + |C̄| Σ`, is read as
//! the sum over the positive and the `|C̄|` negatives.
//!
//! [`Negatives::hard_text`]: super::Negatives::hard_text
//! [`Negatives::hard_image`]: super::Negatives::hard_image
//! [`Negatives::noise`]: super::Negatives::noise

use super::contrastive::{Criterion, Directions};
use super::entry::{Input, preset};
use crate::similarity::LogitScaleConfig;

config! {
    /// Configuration of [`InfoCmr`].
    pub struct InfoCmrConfig {
        /// The logit scale. Default: fixed, temperature 0.05 (the paper, section 4.1).
        logit_scale: LogitScaleConfig = "LogitScaleConfig::fixed(0.05)",
        /// Whether the two directions are added or averaged. Default: added (the paper).
        directions: Directions = "Directions::Sum",
    }
}

preset! {
    /// InfoCMR over the cosines of paired embeddings; built by [`InfoCmrConfig::init`].
    ///
    /// `L = mean_i [ CE over texts, hard texts, noise + CE over images, hard images, noise ]`.
    /// Hard negatives and noise come with the call.
    ///
    /// ```
    /// use burn::tensor::{Device, Distribution, Tensor};
    /// use burn_contrastive::objective::{InfoCmrConfig, Negatives};
    ///
    /// let device = Device::default();
    /// let random = |rows| Tensor::<2>::random([rows, 16], Distribution::Default, &device);
    /// let negatives = Negatives {
    ///     noise: Some(Tensor::random([128, 16], Distribution::Normal(0.0, 1.0), &device)),
    ///     hard_image: Some(random(8 * 3).reshape([8, 3, 16])),
    ///     hard_text: Some(random(8 * 3).reshape([8, 3, 16])),
    ///     ..Negatives::default()
    /// };
    /// let objective = InfoCmrConfig::new().init(&device);
    /// assert_eq!(objective.forward_with(random(8), random(8), negatives).dims(), [1]);
    /// ```
    InfoCmr = InfoCmrConfig, "info-cmr";
    criterion(_config) = Criterion::new();
    parameters(config) = [];
    needs = [Input::Noise];
    uses = [Input::HardImage, Input::HardText];
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::objective::Negatives;
    use crate::objective::tests::{assert_close, matrix};

    #[test]
    fn one_pair_by_hand() {
        // The positive at cosine 1; noise at 0 for both; a hard text at −1 and, twice, a hard image
        // at 0.
        let x = matrix([[2.0, 0.0]]);
        let negatives = Negatives {
            noise: Some(matrix([[0.0, 5.0]])),
            hard_text: Some(matrix([[-1.0, 0.0]]).unsqueeze()),
            hard_image: Some(matrix([[0.0, 1.0], [0.0, 3.0]]).unsqueeze()),
            ..Negatives::default()
        };
        let objective = InfoCmrConfig::new()
            .with_logit_scale(LogitScaleConfig::fixed(1.0))
            .init(&Device::default());
        let loss = objective.forward_with(x.clone(), x, negatives);
        let e = |x: f32| x.exp();
        let expected = (e(-1.0) + e(-2.0)).ln_1p() + (3.0 * e(-1.0)).ln_1p();
        assert_close(loss, [expected], 1e-6);
    }

    #[test]
    #[should_panic(expected = "`negatives.hard_text` has shape [2, 1, 3], it must be [1, m, 2]")]
    fn hard_negatives_of_another_shape_are_refused() {
        let device = Device::default();
        let x = Tensor::<2>::ones([1, 2], &device);
        let negatives = Negatives {
            hard_text: Some(Tensor::ones([2, 1, 3], &device)),
            ..Negatives::default()
        };
        InfoCmrConfig::new()
            .init(&device)
            .forward_with(x.clone(), x, negatives);
    }
}
