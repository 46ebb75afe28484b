//! The softmax contrast: the one module that InfoNCE, ConVSE, DCL, MVN, NT-Xent, SRCL,
//! false-negative removal, InfoCMR, SupCon, ALBEF's image-text contrast and GISTEmbed's filtering
//! are settings of, and whose parts recombine.
//!
//! An anchor `i` must pick its positive among negatives. With `z = s·similarity` the logits, and
//! `P` the anchor's positives:
//!
//! ```text
//! D_i = −(1/|P|)·Σ_{p∈P} log( e^{z_ip} / ( Σ_{p∈P} e^{z_ip} + Σ_{j∈negatives} w_ij·e^{z_ij} ) )
//! L   = mean over i of  f·( λ·D_i(image→text) + (1 − λ)·D_i(text→image) )
//! ```
//!
//! - `s` is [`Contrastive::logit_scale`]; λ is [`Criterion::image_to_text_weight`]; `f` is 1, or 2
//!   under [`Directions::Sum`].
//! - Positives are the pair's other half, and all samples of the same id under
//!   [`SameId::Positive`]. They are in the denominator, unless [`Criterion::decoupled`].
//! - Negatives are the other samples of the batch: embeddings of the other modality, or those of a
//!   momentum encoder ([`Context::momentum`]), and the own modality's under
//!   [`Criterion::within_modality`]. Further ones are in [`Negatives`]: extra ones (a queue),
//!   noise, and each anchor's own hard ones.
//! - No negatives are samples of the same id ([`SameId::LeftOut`]), those that a teacher finds
//!   nearer than the positive ([`Criterion::guided_margin`]), and those that weigh too little
//!   ([`Weighting::Removal`](crate::weighting::Weighting)).
//! - `w` is one, or given by [`Weighting`](crate::weighting::Weighting), or by a function of the
//!   user's: [`Contrastive::with_log_weight`].
//! - A share ε of the target may be spread over all candidates, each counted once
//!   ([`Criterion::label_smoothing`]):
//!   `D_i + ε·(mean over P of z − mean over all candidates of z)`.
//! - A share α may be soft ([`Criterion::soft_targets`]):
//!   `D_i + α·(mean over P of z − mean of z under the targets)`.
//!
//! **How it is computed.** As `log(1 + e^{n − p})`, with `p` the logit of the positive and `n` the
//! log-sum-exp of the negatives: cross-entropy without the difference of two nearly equal terms, so
//! that a loss of 1e-12 is still exact to rounding. Candidates come in groups that share their
//! pairs (the batch, a queue, noise, the own modality). Each group is reduced apart, in one pass;
//! groups are put together by their log-sum-exps, weighted ones before they are divided by their
//! common mean weight.
//!
//! **Cost.** The batch is one pass over its `N²` pairs for both directions, and two matrix products
//! of that size more in the backward pass; with a momentum encoder's candidates it is two passes. A
//! teacher or soft targets add the products of their features, removal adds a pass, and either own
//! modality half a batch. Memory `O(N·D)`.
//!
//! **Degenerate cases.** An anchor without negatives has loss 0 and gradient 0, decoupled too. Hard
//! negatives, noise and the own modality are not weighted: each of them counts one.

mod batch;
mod candidates;
mod context;
mod criterion;
mod late_interaction;
mod loss;

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::tensor::{Device, Int, Tensor};

pub use context::{Context, Ids, Momentum, Negatives, Teacher};
pub use criterion::{Criterion, Directions, SameId};

use self::batch::{Batch, Side};
use self::candidates::{Group, Known, Shared, Source, remove_below};
use self::loss::{Sums, loss};
use crate::check::{self, ConfigError};
use crate::pairwise::{columns, rows, share_memory_budget};
use crate::schedule::Settings;
use crate::similarity::{Embeddings, LogitScale, LogitScaleConfig, rowwise_dot};
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
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// As [`Criterion::check`] and [`LogitScaleConfig::check`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_as("Criterion")
    }

    /// [`check`](Self::check), in the name of the config that the values were set in.
    pub(super) fn check_as(&self, config: &'static str) -> Result<(), ConfigError> {
        self.criterion.check_as(config)?;
        self.logit_scale.check()
    }

    /// Builds the contrast on `device` (an autodiff device where the logit scale is to be learned).
    ///
    /// # Panics
    ///
    /// Where [`check`](Self::check) fails.
    #[track_caller]
    pub fn init(&self, device: &Device) -> Contrastive {
        check::or_panic(self.check());
        self.init_as("Contrastive", device)
    }

    /// The contrast under the name that messages and displays give it, its values checked before.
    #[track_caller]
    pub(super) fn init_as(&self, name: &'static str, device: &Device) -> Contrastive {
        Contrastive {
            logit_scale: self.logit_scale.init(device),
            criterion: self.criterion,
            log_weight: None,
            name,
        }
    }
}

/// A softmax contrast of paired embeddings; built by [`ContrastiveConfig::init`], or by the config
/// of an objective that is named after its paper.
///
/// Parts that no paper put together go together here:
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
/// assert_eq!(contrast.forward_with(random(8), random(8), context).dims(), [1]);
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
    #[module(skip)]
    name: &'static str,
}

impl Contrastive {
    /// With weights of the user's own in place of those of the criterion's
    /// [`Weighting`](crate::weighting::Weighting); under `Uniform` they weigh, under `Removal` they
    /// remove.
    pub fn with_log_weight(self, log_weight: LogWeight) -> Self {
        Self {
            log_weight: Some(log_weight),
            ..self
        }
    }

    /// The same contrast with other values of what changes during training:
    /// [`alpha`](Settings::alpha), [`soft_targets`](Settings::soft_targets) and
    /// [`queue_weight`](Settings::queue_weight). What is `None` stays.
    ///
    /// # Panics
    ///
    /// Where a value is out of its range.
    #[track_caller]
    pub fn with_settings(mut self, settings: &Settings) -> Self {
        let criterion = &mut self.criterion;
        if let Some(alpha) = settings.alpha {
            criterion.weighting = criterion.weighting.with_alpha(alpha);
        }
        if let Some(soft_targets) = settings.soft_targets {
            criterion.soft_targets = soft_targets;
        }
        if let Some(queue_weight) = settings.queue_weight {
            criterion.queue_weight = queue_weight;
        }
        check::or_panic(criterion.check_as(self.name));
        self
    }

    /// The loss of a batch alone, mean over the pairs, in nats.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`, row `i` of one belongs to row `i` of the other
    /// - returns `[1]`, f64 for f64 embeddings, f32 for all others
    ///
    /// # Panics
    ///
    /// Where shapes, dtypes or devices of `image` and `text` differ, the batch is empty, the
    /// objective was built on another device, or the criterion needs a teacher or a momentum
    /// encoder.
    #[track_caller]
    pub fn forward(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        self.forward_with(image, text, ())
    }

    /// The loss of a batch in its context, mean over the pairs, in nats.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`, row `i` of one belongs to row `i` of the other
    /// - `context`: see the fields of [`Context`]; any part of it alone will do
    /// - returns `[1]`, f64 for f64 embeddings, f32 for all others
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward), and where a part of the context does not fit the batch.
    #[track_caller]
    pub fn forward_with(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        context: impl Into<Context>,
    ) -> Tensor<1> {
        self.forward_no_reduction(image, text, context).mean()
    }

    /// The loss of each pair in its context, both directions put together: see
    /// [`forward_with`](Self::forward_with).
    ///
    /// # Shapes
    ///
    /// - returns `[N]`
    ///
    /// # Panics
    ///
    /// As [`forward_with`](Self::forward_with).
    #[track_caller]
    pub fn forward_no_reduction(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        context: impl Into<Context>,
    ) -> Tensor<1> {
        self.weighted(self.forward_directions(image, text, context))
    }

    /// The losses of both directions as one.
    fn weighted(&self, [image_to_text, text_to_image]: [Tensor<1>; 2]) -> Tensor<1> {
        let weight = self.criterion.image_to_text_weight;
        let factor = match self.criterion.directions {
            Directions::Mean => 1.0,
            Directions::Sum => 2.0,
        };
        image_to_text * (factor * weight) + text_to_image * (factor * (1.0 - weight))
    }

    /// The losses `D_i` of image anchors, then of text anchors, not weighted by λ.
    ///
    /// # Shapes
    ///
    /// - returns `[N]` each
    ///
    /// # Panics
    ///
    /// As [`forward_with`](Self::forward_with).
    #[track_caller]
    pub fn forward_directions(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        context: impl Into<Context>,
    ) -> [Tensor<1>; 2] {
        let criterion = &self.criterion;
        let log_weight = self.log_weight();
        let needs_teacher = criterion.needs_teacher(log_weight.as_ref());
        let both = [image, text];
        let batch = Batch::new(self.name, criterion, needs_teacher, both, context.into());
        let [image, text] = &batch.sides;
        let scale = self
            .logit_scale
            .for_embeddings(self.name, &image.anchors.rows);
        let hard = [image, text].map(|side| hard_negatives(side, &scale));
        let teachers = image.teacher.clone().zip(text.teacher.clone());
        let guides = teachers.filter(|_| criterion.guided_margin.is_some());
        let shared = Shared {
            criterion,
            log_weight: log_weight.as_ref(),
            scale,
            positive_teacher: guides.map(|(image, text)| rowwise_dot(image, text)),
        };
        let groups = groups(batch, &shared);
        self.losses(groups, hard)
    }

    fn log_weight(&self) -> Option<LogWeight> {
        self.log_weight
            .clone()
            .or(self.criterion.weighting.log_weight())
    }

    /// The losses of both directions' anchors, from groups of candidates and the sums over hard
    /// negatives.
    fn losses(&self, mut groups: Vec<Group>, hard: [Option<Sums<Tensor<1>>>; 2]) -> [Tensor<1>; 2] {
        let criterion = &self.criterion;
        if let Some(threshold) = criterion.weighting.threshold() {
            remove_below(&mut groups, threshold);
        }
        let pairs = groups.iter_mut().map(|group| &mut group.pairs);
        share_memory_budget(pairs, criterion.similarity.memory_budget);
        let mut sums = [Vec::new(), Vec::new()];
        for (direction, group) in groups.into_iter().flat_map(|group| group.reduce(criterion)) {
            sums[direction].push(group);
        }
        for (sums, hard) in sums.iter_mut().zip(hard) {
            sums.extend(hard);
        }
        sums.map(|sums| loss(&sums, criterion))
    }
}

/// The batch, and for each direction the extra negatives, the noise and the own modality, where
/// there are any.
fn groups(batch: Batch, shared: &Shared) -> Vec<Group> {
    let similarity = shared.criterion.similarity;
    let Batch { sides, noise, ids } = batch;
    let batch_ids = both(&ids, &ids);
    let mut groups = batch_groups(&sides, &batch_ids, shared);
    for (direction, side) in sides.into_iter().enumerate() {
        let along_rows = [(direction, rows())];
        if let Some(extra) = side.extra.filter(|_| shared.criterion.queue_weight > 0.0) {
            let known = Known {
                teacher: both(&side.teacher, &extra.teacher),
                // A queue holds what a momentum encoder gave.
                momentum: side
                    .momentum
                    .map(|own| [own, extra.embeddings.clone()].map(Embeddings::values)),
                ids: both(&ids, &extra.ids),
            };
            let pairs = similarity.pairs(side.anchors.clone(), extra.embeddings);
            groups.push(shared.group(Source::Extra, pairs, &along_rows, known));
        }
        if let Some(noise) = &noise {
            let pairs = similarity.pairs(side.anchors.clone(), noise.clone());
            groups.push(shared.group(Source::Noise, pairs, &along_rows, Known::default()));
        }
        if shared.criterion.within_modality {
            let known = Known {
                teacher: both(&side.teacher, &side.teacher),
                momentum: None,
                ids: batch_ids.clone(),
            };
            let pairs = similarity.pairs_within(side.anchors);
            groups.push(shared.group(Source::OwnModality, pairs, &along_rows, known));
        }
    }
    groups
}

/// The pairs of the batch, which both directions read; with a momentum encoder's candidates each
/// direction has pairs of its own.
fn batch_groups(
    [image, text]: &[Side; 2],
    ids: &Option<[Tensor<1, Int>; 2]>,
    shared: &Shared,
) -> Vec<Group> {
    let similarity = shared.criterion.similarity;
    let group = |anchors: &Side, others: &Side, candidates: &Embeddings, views: &[_]| {
        let known = Known {
            teacher: both(&anchors.teacher, &others.teacher),
            momentum: both(&anchors.momentum, &others.momentum)
                .map(|both| both.map(Embeddings::values)),
            ids: ids.clone(),
        };
        let pairs = similarity.pairs(anchors.anchors.clone(), candidates.clone());
        shared.group(Source::Batch, pairs, views, known)
    };
    match (&image.momentum, &text.momentum) {
        (Some(image_candidates), Some(text_candidates)) => vec![
            group(image, text, text_candidates, &[(0, rows())]),
            group(text, image, image_candidates, &[(1, rows())]),
        ],
        _ => vec![group(
            image,
            text,
            &text.anchors,
            &[(0, rows()), (1, columns())],
        )],
    }
}

/// The sums over each anchor's own hard negatives.
fn hard_negatives(side: &Side, scale: &Tensor<1>) -> Option<Sums<Tensor<1>>> {
    let hard = side.hard.clone()?;
    // Not as a product of matrices, which Burn may round to tf32 on a GPU.
    let anchors = side.anchors.clone().values().unsqueeze_dim::<3>(1);
    let similarities = (hard * anchors).sum_dim(2).squeeze_dim::<2>(2);
    Some(Sums::of_negatives(
        similarities * scale.clone().unsqueeze::<2>(),
    ))
}

fn both<T: Clone>(a: &Option<T>, b: &Option<T>) -> Option<[T; 2]> {
    a.clone().zip(b.clone()).map(Into::into)
}

impl ModuleDisplay for Contrastive {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let content = content
            .set_top_level_type(self.name)
            .add("logit_scale", &self.logit_scale);
        self.criterion.show(content).optional()
    }
}

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
    fn the_display_names_the_objective_and_what_differs_from_clip() {
        let shown = SrclConfig::new().init(&Device::default()).to_string();
        for part in ["Srcl", "directions: Sum", "weighting: Regulation"] {
            assert!(shown.contains(part), "{shown}");
        }
        assert!(!shown.contains("decoupled"), "{shown}");
    }
}
