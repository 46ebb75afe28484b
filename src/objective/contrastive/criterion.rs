//! The parts of a softmax contrast.

use burn::config::Config;
use burn::module::Content;

use crate::check::{self, ConfigError};
use crate::similarity::SimilarityConfig;
use crate::weighting::{LogWeight, Weighting};

/// What a sample with the anchor's id is to the anchor, where [`Ids`](super::Ids) are given.
#[derive(Config, Copy, Debug, PartialEq, Eq)]
pub enum SameId {
    /// A negative like any other.
    Negative,
    /// Neither positive nor negative.
    LeftOut,
    /// A positive: the loss is the mean over an anchor's positives, as in SupCon's "out" form.
    Positive,
}

/// How the losses of the two directions become one.
#[derive(Config, Copy, Debug, PartialEq, Eq)]
pub enum Directions {
    /// Their mean, weighted by λ.
    Mean,
    /// Twice their mean: at λ = ½ their sum.
    Sum,
}

/// The parts that make up a softmax contrast; see [`Contrastive`](super::Contrastive) for the
/// equation.
#[derive(Config, Copy, Debug, PartialEq)]
pub struct Criterion {
    /// Weight λ of the image→text direction; text→image weighs 1 − λ. In [0, 1], default ½ (CLIP).
    #[config(default = 0.5)]
    pub image_to_text_weight: f64,
    /// How the two directions become one loss. Default: their mean (CLIP).
    #[config(default = "Directions::Mean")]
    pub directions: Directions,
    /// Whether the positive is left out of the denominator (DCL). Default false.
    #[config(default = false)]
    pub decoupled: bool,
    /// Whether the other samples of the anchor's own modality are negatives too (MVN, SimCLR).
    /// Default false.
    #[config(default = false)]
    pub within_modality: bool,
    /// What a sample with the anchor's id is, where ids are given. Default: left out.
    #[config(default = "SameId::LeftOut")]
    pub same_id: SameId,
    /// How much negatives count. Default: all the same.
    #[config(default = "Weighting::Uniform")]
    pub weighting: Weighting,
    /// Leaves out negatives that a teacher finds more similar to the anchor than the anchor's
    /// positive, by more than this (GISTEmbed, where it is 0). Default: none are left out.
    pub guided_margin: Option<f64>,
    /// Share ε of the target that is spread evenly over all candidates, in [0, 1]. Default 0.
    #[config(default = 0.0)]
    pub label_smoothing: f64,
    /// Share α of the target that is soft, in [0, 1]: the softmax, at the same logit scale, of a
    /// momentum encoder's similarities ([`Context::momentum`](super::Context::momentum)), or of a
    /// teacher's where there is no momentum encoder, over the candidates of the batch and a queue
    /// (distillation; ALBEF's targets). Default 0.
    #[config(default = 0.0)]
    pub soft_targets: f64,
    /// Factor on the terms of extra negatives (a queue) in the denominator, in [0, 1]; 0 leaves
    /// them out. For a queue that is to count from some time on. Default 1.
    #[config(default = 1.0)]
    pub queue_weight: f64,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl Default for Criterion {
    fn default() -> Self {
        Self::new()
    }
}

impl Criterion {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Where `image_to_text_weight`, `label_smoothing`, `soft_targets` (also together) or
    /// `queue_weight` is not in [0, 1], `guided_margin` is not finite, or the weighting's values
    /// are out of range.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_as("Criterion")
    }

    /// [`check`](Self::check), in the name of the config that the values were set in.
    pub(super) fn check_as(&self, config: &'static str) -> Result<(), ConfigError> {
        let unit = |field, value| check::range(config, field, value, 0.0, 1.0);
        unit("image_to_text_weight", self.image_to_text_weight)?;
        unit("label_smoothing", self.label_smoothing)?;
        unit("queue_weight", self.queue_weight)?;
        // Together they are no more than the whole target.
        let rest = 1.0 - self.label_smoothing;
        check::range(config, "soft_targets", self.soft_targets, 0.0, rest)?;
        if let Some(margin) = self.guided_margin {
            check::range(config, "guided_margin", margin, -f64::MAX, f64::MAX)?;
        }
        self.weighting.check()
    }

    /// Whether the filter of negatives, or these weights, read a teacher's features.
    pub(super) fn needs_teacher(&self, log_weight: Option<&LogWeight>) -> bool {
        self.guided_margin.is_some() || log_weight.is_some_and(LogWeight::needs_teacher)
    }

    /// The parts that are not those of CLIP, for a display.
    pub(super) fn show(&self, content: Content) -> Content {
        let parts = |criterion: &Self| {
            [
                ("directions", format!("{:?}", criterion.directions)),
                ("decoupled", format!("{:?}", criterion.decoupled)),
                (
                    "within_modality",
                    format!("{:?}", criterion.within_modality),
                ),
                ("same_id", format!("{:?}", criterion.same_id)),
                ("weighting", format!("{:?}", criterion.weighting)),
                ("guided_margin", format!("{:?}", criterion.guided_margin)),
                (
                    "label_smoothing",
                    format!("{:?}", criterion.label_smoothing),
                ),
                ("soft_targets", format!("{:?}", criterion.soft_targets)),
                ("queue_weight", format!("{:?}", criterion.queue_weight)),
            ]
        };
        let mut content = content.add("image_to_text_weight", &self.image_to_text_weight);
        for ((name, own), (_, clip)) in parts(self).iter().zip(parts(&Self::new())) {
            if *own != clip {
                content = content.add(name, own);
            }
        }
        self.similarity.show(content)
    }
}
