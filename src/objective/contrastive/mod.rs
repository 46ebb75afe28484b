//! The softmax contrast: one criterion that InfoNCE, ConVSE, DCL, MVN, NT-Xent, SRCL, false-negative
//! removal, InfoCMR, SupCon and GISTEmbed's filtering are settings of, and whose parts recombine.
//!
//! An anchor `i` must pick its positive among negatives. With `z = s·similarity` the logits, `P` the
//! anchor's positives, and `A` the candidates that its denominator holds:
//!
//! ```text
//! D_i = −(1/|P|)·Σ_{p∈P} log( e^{z_ip} / ( Σ_{p∈P} e^{z_ip} + Σ_{j∈negatives} w_ij·e^{z_ij} ) )
//! L   = mean over i of  f·( λ·D_i(image→text) + (1 − λ)·D_i(text→image) )
//! ```
//!
//! | part | here |
//! |---|---|
//! | s | [`Contrastive::logit_scale`] |
//! | λ, and f (1, or 2 for a sum) | [`Criterion::image_to_text_weight`], [`Criterion::directions`] |
//! | positives P | the pair's other half; all samples of the same id under [`SameId::Positive`] |
//! | positives in the denominator | yes; not under [`Criterion::decoupled`] |
//! | negatives | the batch's other modality; its own under [`Criterion::within_modality`]; extra ones, noise, and each anchor's own hard ones: [`Negatives`] |
//! | no negatives | samples of the same id; what a teacher finds nearer than the positive ([`Criterion::guided_margin`]); what weighs too little ([`Weighting::Removal`](crate::weighting::Weighting)) |
//! | w | one; or [`Weighting`](crate::weighting::Weighting), or weights of one's own: [`Contrastive::with_log_weight`] |
//! | label smoothing ε | [`Criterion::label_smoothing`]: `D_i + ε·(mean over P of z − mean over all candidates of z)`, every candidate counted once |
//! | soft targets α | [`Criterion::soft_targets`]: `D_i + α·(mean over P of z − mean of z under the teacher's softmax)` |
//!
//! **How it is computed.** As `log(1 + e^{n − p})`, with `p` the logit of the positive and `n` the
//! log-sum-exp of the negatives: cross-entropy without the difference of two nearly equal terms, so
//! that a loss of 1e-12 is still exact to rounding. Groups of negatives are joined by their log-sum-exps,
//! weighted ones before they are divided by their common mean weight.
//!
//! **Cost.** The batch is one pass over its `N²` pairs for both directions, two matrix products of that size
//! more in the backward pass; a teacher doubles the products of its pairs, removal adds a pass, and
//! either own modality half a batch. Memory `O(N·D)`.
//!
//! **Degenerate cases.** An anchor without negatives has loss 0 and gradient 0, decoupled too. Hard negatives,
//! noise and the own modality have no teacher's similarity to the anchor that a weight could be of: they
//! count one, and are not normalised with the others.

mod context;
mod contrast;
mod criterion;
mod side;
mod terms;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

pub use context::{Context, Ids, Negatives, Teacher};
pub(super) use contrast::Contrast;
pub use criterion::{Criterion, SameId};
pub(super) use terms::{Blend, Candidates, Group, Terms};

use crate::similarity::{LogitScale, LogitScaleConfig};
use crate::weighting::LogWeight;

/// Configuration of [`Contrastive`].
#[derive(Config, Debug, PartialEq)]
pub struct ContrastiveConfig {
    /// The logit scale. Default: learned, from temperature 0.07, within [1, 100] (CLIP).
    #[config(default = "LogitScaleConfig::new()")]
    pub logit_scale: LogitScaleConfig,
    /// The parts of the contrast. Default: CLIP's.
    #[config(default = "Criterion::new()")]
    pub criterion: Criterion,
}

impl ContrastiveConfig {
    /// Builds the contrast on `device` (an autodiff device where the logit scale is to be learned).
    ///
    /// # Panics
    ///
    /// Where `image_to_text_weight` is not in [0, 1], `label_smoothing` and `soft_targets` not in [0, 1], together too, a value of the
    /// weighting is out of range, or the logit scale's are refused by [`LogitScaleConfig::init`].
    #[track_caller]
    pub fn init(&self, device: &Device) -> Contrastive {
        Contrastive {
            logit_scale: self.logit_scale.init(device),
            criterion: self.criterion.checked("Criterion"),
            log_weight: None,
        }
    }
}

/// A softmax contrast of paired embeddings, of parts of the user's choice; built by
/// [`ContrastiveConfig::init`].
///
/// The objectives named after papers are settings of this one; parts that no paper put together go
/// together here:
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_contrastive::objective::{Context, ContrastiveConfig, Criterion, Negatives, Teacher};
/// use burn_contrastive::weighting::{SimilarityRegulation, Weighting};
///
/// let device = Device::default();
/// let random = |rows| Tensor::<2>::random([rows, 16], Distribution::Default, &device);
/// // Decoupled, with negatives weighted half by a teacher and half by themselves, and noise.
/// let regulation = SimilarityRegulation::new().with_alpha(0.5);
/// let contrast = ContrastiveConfig::new()
///     .with_criterion(
///         Criterion::new()
///             .with_decoupled(true)
///             .with_weighting(Weighting::Regulation(regulation)),
///     )
///     .init(&device);
/// let context = Context {
///     negatives: Negatives { noise: Some(random(5)), ..Negatives::default() },
///     teacher: Some(Teacher::new(random(8), random(8))),
///     ..Context::default()
/// };
/// assert_eq!(contrast.forward(random(8), random(8), context).dims(), [1]);
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Contrastive {
    /// The factor between similarities and logits; a parameter where it is learned.
    pub logit_scale: LogitScale,
    #[module(skip)]
    criterion: Criterion,
    #[module(skip)]
    log_weight: Option<LogWeight>,
}

impl Contrastive {
    /// Of parts that were checked.
    pub(in crate::objective) fn of(logit_scale: LogitScale, criterion: Criterion) -> Self {
        Self {
            logit_scale,
            criterion,
            log_weight: None,
        }
    }

    /// With weights of the user's own in place of those of the criterion's
    /// [`Weighting`](crate::weighting::Weighting); under `Uniform` they weigh, under `Removal` they remove.
    pub fn with_log_weight(self, log_weight: LogWeight) -> Self {
        Self {
            log_weight: Some(log_weight),
            ..self
        }
    }

    /// The loss, mean over the batch, in nats.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`, row `i` of one belongs to row `i` of the other
    /// - `context`: see its fields
    /// - returns `[1]`, f64 for f64 embeddings, f32 for all others
    ///
    /// # Panics
    ///
    /// Where shapes, dtypes or devices of the embeddings differ, the batch is empty, the objective was
    /// built on another device, or the context lacks a teacher that the criterion asks.
    #[track_caller]
    pub fn forward(&self, image: Tensor<2>, text: Tensor<2>, context: Context) -> Tensor<1> {
        self.contrast().mean(image, text, context)
    }

    /// The loss of each pair, both directions joined: see [`forward`](Self::forward).
    ///
    /// # Shapes
    ///
    /// - returns `[N]`
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    #[track_caller]
    pub fn forward_no_reduction(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        context: Context,
    ) -> Tensor<1> {
        self.contrast().each(image, text, context)
    }

    /// The losses `D_i` of image anchors, then of text anchors, not weighted by λ.
    ///
    /// # Shapes
    ///
    /// - returns `[N]` each
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    #[track_caller]
    pub fn forward_directions(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        context: Context,
    ) -> [Tensor<1>; 2] {
        self.contrast().directions(image, text, context)
    }

    fn contrast(&self) -> Contrast<'_> {
        self.criterion
            .with("Contrastive", &self.logit_scale)
            .with_log_weight(self.log_weight.clone())
    }
}

display!(contrast Contrastive);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::SrclConfig;
    use crate::weighting::{Norm, SimilarityRegulation, Weighting};

    #[test]
    fn a_config_survives_json() {
        let regulation = SimilarityRegulation::new().with_norm(Norm::Softmax { delta: 3.0 });
        let criterion = Criterion::new()
            .with_decoupled(true)
            .with_same_id(SameId::Positive)
            .with_guided_margin(Some(0.1))
            .with_weighting(Weighting::Removal {
                regulation,
                threshold: 0.3,
            });
        let config = ContrastiveConfig::new().with_criterion(criterion);
        let json = serde_json::to_string(&config).unwrap();
        let read: ContrastiveConfig = serde_json::from_str(&json).unwrap();
        assert_eq!(read, config);
    }

    #[test]
    fn displays_the_parts_that_are_not_clips() {
        let config = ContrastiveConfig::new().with_criterion(SrclConfig::new().criterion());
        let shown = config.init(&Device::default()).to_string();
        assert!(
            shown.contains("directions: Sum") && shown.contains("weighting: Regulation"),
            "{shown}"
        );
        assert!(!shown.contains("decoupled"), "{shown}");
    }
}
