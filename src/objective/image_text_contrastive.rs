//! Image-text contrast with momentum distillation, ALBEF's: candidates and soft targets are those
//! of the model's moving average.
//!
//! With `u` the anchors, `v̂` the candidates of the other modality (the batch's, then a queue's)
//! and `û` the anchors again, where a hat marks features of the momentum encoders:
//!
//! ```text
//! z_ij = s·cos(u_i, v̂_j)        t_ij = s·cos(û_i, v̂_j)
//! y_i  = α·softmax(t_i·) + (1 − α)·onehot(i)
//! D_i  = −Σ_j y_ij·log softmax(z_i·)_j
//! L    = mean over i of  ½·D_i(image→text) + ½·D_i(text→image)
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | s | [`ImageTextContrastiveConfig::logit_scale`]: learned, from temperature 0.07 |
//! | α | [`ImageTextContrastiveConfig::soft_targets`], 0.4 |
//! | `û`, `v̂` | of the batch [`Context::momentum`], of a queue [`Context::negatives`] |
//!
//! ALBEF raises α from 0 over the first epoch: [`ImageTextContrastive::with_settings`]. Where
//! [ids](super::Context::ids) are given, the one-hot part is spread evenly over all candidates of
//! the anchor's id, those of the queue included, as ALBEF does when it is fine-tuned on retrieval.
//!
//! **Gradient.** `∂D_i/∂z_ij = softmax(z_i·)_j − y_ij`. Momentum features and targets are
//! constants, also to the scale.
//!
//! **How it is computed.** As
//! `log(1 + e^{n − z_ii}) + α·(z_ii − mean of z_i· under softmax(t_i·))`, `n` the log-sum-exp of
//! the negatives: exact for tiny losses at α = 0.
//!
//! **Cost.** Images are compared with momentum texts and texts with momentum images, two matrices,
//! and each has a teacher's (unless α is 0): four times the products of InfoNCE forward, and for a
//! queue as much more as it is longer than the batch. `N·D` memory.
//!
//! **Degenerate cases.** One pair without a queue: 0. N equal embeddings: `ln N`. At α = 0 with the
//! model's own features in place of the momentum ones the value is InfoNCE's (the gradient is not:
//! candidates are constants).
//!
//! **Source.** Li et al. 2021, "Align before Fuse", equations 1, 2 and 6, and its code, which
//! scales student and targets alike, takes momentum features for candidates and averages the
//! directions.
//!
//! [`Context::momentum`]: super::Context::momentum
//! [`Context::negatives`]: super::Context::negatives
//! [`ImageTextContrastive::with_settings`]: super::Contrastive::with_settings

use super::contrastive::{Criterion, Directions, SameId};
use super::entry::{Input, Parameter, preset};
use crate::similarity::LogitScaleConfig;

config! {
    /// Configuration of [`ImageTextContrastive`].
    pub struct ImageTextContrastiveConfig {
        /// The logit scale. Default: learned, from temperature 0.07, within [0.001, 0.5] (ALBEF).
        logit_scale: LogitScaleConfig = "LogitScaleConfig::albef()",
        /// Share α of the momentum encoders' targets, in [0, 1]. Default 0.4 (ALBEF).
        soft_targets: f64 = 0.4,
        /// Whether the two directions are averaged or added. Default: averaged (ALBEF).
        directions: Directions = "Directions::Mean",
    }
}

preset! {
    /// ALBEF's image-text contrast with momentum features; built by
    /// [`ImageTextContrastiveConfig::init`].
    ///
    /// `L = ½·mean_i [ CE(z_i·, y_i) + CE(z'_i·, y'_i) ]`, with targets
    /// `y_i = α·softmax(momentum logits) + (1 − α)·onehot(i)`. The momentum features come with the
    /// call.
    ///
    /// ```
    /// use burn::tensor::{Device, Distribution, Tensor};
    /// use burn_contrastive::objective::{Context, ImageTextContrastiveConfig, Momentum, Negatives};
    ///
    /// let device = Device::default();
    /// let random = |rows| Tensor::<2>::random([rows, 16], Distribution::Default, &device);
    /// let context = Context {
    ///     momentum: Some(Momentum::new(random(8), random(8))),
    ///     negatives: Negatives::queue(random(32), random(32)),
    ///     ..Context::default()
    /// };
    /// let objective = ImageTextContrastiveConfig::new().init(&device);
    /// assert_eq!(objective.forward_with(random(8), random(8), context).dims(), [1]);
    /// ```
    ImageTextContrastive = ImageTextContrastiveConfig, "image-text-contrastive";
    criterion(config) = Criterion::new()
        .with_same_id(SameId::Positive)
        .with_soft_targets(config.soft_targets);
    parameters(config) = [Parameter::of_field(
        "momentum_alpha",
        "soft_targets",
        &mut config.soft_targets,
    )];
    needs = [Input::MomentumImage, Input::MomentumText];
    uses = [Input::QueueImage, Input::QueueText];
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::objective::tests::{assert_close, matrix};
    use crate::objective::{Context, Momentum, Negatives};

    #[test]
    fn two_orthogonal_pairs_by_hand() {
        // Image logits 1 and 0; momentum images are exchanged, logits 0 and 1. With q and 1 − q the
        // softmax of (1, 0), the target of the own text is y = α·(1 − q) + (1 − α), and the loss
        // −y·log q − (1 − y)·log(1 − q).
        let x = matrix([[3.0, 0.0], [0.0, 0.2]]);
        let momentum = Momentum::new(x.clone().flip([0]), x.clone());
        let objective = ImageTextContrastiveConfig::new()
            .with_logit_scale(LogitScaleConfig::fixed(1.0))
            .with_soft_targets(0.25)
            .init(&Device::default());
        let each = objective.forward_no_reduction(x.clone(), x, momentum);
        let q = 1.0 / (1.0 + (-1f32).exp());
        let y = 0.25 * (1.0 - q) + 0.75;
        let by_image = -y * q.ln() - (1.0 - y) * (1.0 - q).ln();
        // The logits of texts with momentum images are exchanged too, as their targets' are.
        let by_text = -y * (1.0 - q).ln() - (1.0 - y) * q.ln();
        assert_close(each, [(by_image + by_text) / 2.0; 2], 1e-6);
    }

    #[test]
    fn equal_embeddings_give_the_logarithm_of_the_candidates() {
        let device = Device::default();
        let x = Tensor::<2>::ones([5, 3], &device);
        let context = Context {
            negatives: Negatives {
                text: Some(Tensor::ones([2, 3], &device)),
                ..Negatives::default()
            },
            ..Momentum::new(x.clone(), x.clone()).into()
        };
        let objective = ImageTextContrastiveConfig::new().init(&device);
        let loss = objective.forward_with(x.clone(), x, context);
        // Five images for each text, and five texts and the queue's two for each image.
        assert_close(loss, [(5f32.ln() + 7f32.ln()) / 2.0], 1e-5);
    }
}
