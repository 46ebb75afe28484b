//! SigLIP, a binary classification of every pair by a sigmoid.
//!
//! ```text
//! L_i = −Σ_j log σ( y_ij·(s·c_ij + b) ),   y_ii = 1, y_ij = −1 for j ≠ i
//! L   = mean over i of L_i
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | `c_ij` | cosine of image `i` and text `j` |
//! | s | [`SigLip::logit_scale`]; starts at 10, learned by its logarithm |
//! | b | [`SigLip::bias`]; starts at −10, learned |
//!
//! **Gradient.** `∂L/∂z_ij = −y_ij·σ(−y_ij·z_ij) / N` by the logit `z_ij = s·c_ij + b`.
//!
//! **How it is computed.** As `softplus(−y·z)`, exact for large logits of either sign.
//!
//! **Cost.** `N²·D` time, `N·D` memory; value and gradient, also those by s and b, in one pass over
//! the pairs.
//!
//! **Degenerate cases.** One pair costs `softplus(−z)`: unlike a softmax it is not 0. N equal
//! embeddings give `softplus(−s − b) + (N − 1)·softplus(s + b)`. A zero row has similarity 0 to
//! everything and gets a zero gradient.
//!
//! **Source.** Zhai et al. 2023, algorithm 1 ("Sigmoid Loss for Language Image Pre-Training"). The
//! scale is not clamped there; here it is kept within [1e-6, 1e6] unless configured.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::BatchReduction;
use super::entry::{Parameter, Scale, by_name};
use super::paired::{FINITE, SumOverPairs};
use crate::check::{self, ConfigError};
use crate::pairwise::{Expr, Pairs};
use crate::similarity::{LogitScale, LogitScaleConfig};

config! {
    /// Configuration of [`SigLip`].
    pub struct SigLipConfig {
        /// The logit scale. Default: learned, from 10 (temperature 0.1), within [1e-6, 1e6].
        logit_scale: LogitScaleConfig =
            "LogitScaleConfig::new().with_temperature(0.1).with_min(1e-6).with_max(1e6)",
        /// Initial bias of the logits, finite. Default −10: most pairs are negatives.
        bias: f64 = "-10.0",
        /// Whether the bias is learned. Default true.
        learn_bias: bool = true,
        /// How the losses of the images become one. Default: their mean.
        reduction: BatchReduction = "BatchReduction::Mean",
    }
}

impl SigLipConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Where `bias` is not finite, or [`LogitScaleConfig::check`] fails.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::range(
            "SigLipConfig",
            "bias",
            self.bias,
            *FINITE.start(),
            *FINITE.end(),
        )?;
        self.logit_scale.check()
    }

    /// Builds the objective on `device` (an autodiff device where scale or bias are to be learned).
    ///
    /// # Panics
    ///
    /// Where [`check`](Self::check) fails.
    #[track_caller]
    pub fn init(&self, device: &Device) -> SigLip {
        check::or_panic(self.check());
        let bias = Tensor::<1>::from_data([self.bias], device);
        SigLip {
            logit_scale: self.logit_scale.init(device),
            bias: Param::from_tensor(bias).set_require_grad(self.learn_bias),
            config: self.clone(),
        }
    }
}

/// The pairwise sigmoid loss over the cosines of paired embeddings; built by
/// [`SigLipConfig::init`].
///
/// `L = −mean_i Σ_j log σ( y_ij·(s·c_ij + b) )`, `y_ij` = 1 on the diagonal and −1 off it, in
/// nats. The embeddings must be on the device that the objective was built on.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::objective::SigLipConfig;
///
/// let device = Device::default();
/// let equal = Tensor::<2>::ones([4, 3], &device);
/// // Logits 10·1 − 10 = 0: every pair is positive with probability ½.
/// let loss = SigLipConfig::new().init(&device).forward(equal.clone(), equal);
/// assert!((loss.into_scalar::<f32>() - 4.0 * 2f32.ln()).abs() < 1e-4);
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct SigLip {
    /// The factor between cosines and logits; a parameter where it is learned.
    pub logit_scale: LogitScale,
    /// What is added to every logit, `[1]`; a parameter where it is learned.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    config: SigLipConfig,
}

forward!(SigLip, "The loss of each image, over all texts, in nats.");

impl SumOverPairs for SigLip {
    fn reduction(&self) -> BatchReduction {
        self.config.reduction
    }

    fn cost(&self, image: Tensor<2>, text: Tensor<2>) -> (Pairs, Expr) {
        check::built_on("SigLip", &self.bias.device(), &image);
        let scale = self
            .logit_scale
            .value_as(check::compute_dtype(image.dtype()));
        let [image, text] = [image, text].map(|x| self.config.similarity.prepare(x));
        let mut pairs = self.config.similarity.pairs(image, text);
        let (scale, bias) = (pairs.scalar(scale), pairs.scalar(self.bias.val()));
        let logit = pairs.similarity() * scale + bias;
        let (positive, negative) = ((-&logit).softplus(), logit.softplus());
        let cost = Expr::select(&Expr::diagonal(), &positive, &negative);
        (pairs, cost)
    }
}

display!(SigLip: [logit_scale, bias] reduction,);

by_name! {
    SigLip = SigLipConfig, "siglip";
    parameters(config) = [
        Parameter::new("scale", Scale(&mut config.logit_scale)),
        Parameter::new("bias", &mut config.bias),
        Parameter::new("reduction", &mut config.reduction),
    ];
    scales(objective) = vec![&mut objective.logit_scale];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::tests::{assert_close, matrix};

    #[test]
    fn two_orthogonal_pairs_by_hand() {
        // Logits 3·1 − 1 = 2 on the diagonal and −1 off it.
        let x = matrix([[2.0, 0.0], [0.0, 0.5]]);
        let objective = SigLipConfig::new()
            .with_logit_scale(LogitScaleConfig::fixed(1.0 / 3.0))
            .with_bias(-1.0)
            .init(&Device::default());
        let expected = (-2f32).exp().ln_1p() + (-1f32).exp().ln_1p();
        assert_close(objective.forward(x.clone(), x), [expected], 1e-6);
    }

    #[test]
    fn a_bias_that_is_not_learned_gets_no_gradient() {
        let x = matrix([[2.0, 0.0], [0.0, 0.5]]).autodiff();
        let objective = SigLipConfig::new().with_learn_bias(false).init(&x.device());
        let gradients = objective.forward(x.clone(), x).backward();
        assert!(objective.bias.val().grad(&gradients).is_none());
        let scale = &objective.logit_scale.log_scale;
        assert!(scale.val().grad(&gradients).is_some());
    }
}
