//! The parts of a softmax contrast.

use burn::config::Config;
use burn::module::Content;

use super::contrast::Contrast;
use crate::check;
use crate::objective::Reduction;
use crate::similarity::{LogitScale, SimilarityConfig};
use crate::weighting::Weighting;

/// What a sample with the anchor's id is to the anchor, where [`Ids`](crate::objective::Ids) are given.
#[derive(Config, Copy, Debug, PartialEq, Eq)]
pub enum SameId {
    /// A negative like any other.
    Negative,
    /// Neither positive nor negative.
    LeftOut,
    /// A positive: the loss is the mean over an anchor's positives, as in SupCon's "out" form.
    Positive,
}

/// The parts that make up a softmax contrast; see [the module](super::Contrastive) for the equation.
#[derive(Config, Copy, Debug, PartialEq)]
pub struct Criterion {
    /// Weight λ of the image→text direction; text→image weighs 1 − λ. In [0, 1], default ½ (CLIP).
    #[config(default = 0.5)]
    pub image_to_text_weight: f64,
    /// How the two directions become one loss: their mean, weighted by λ, or twice that, which at λ = ½ is their
    /// sum. Default: mean (CLIP).
    #[config(default = "Reduction::Mean")]
    pub directions: Reduction,
    /// Whether the positive is left out of the denominator (DCL). Default false.
    #[config(default = false)]
    pub decoupled: bool,
    /// Whether the other samples of the anchor's own modality are negatives too (MVN, SimCLR). Default false.
    #[config(default = false)]
    pub within_modality: bool,
    /// What a sample with the anchor's id is, where ids are given. Default: left out.
    #[config(default = "SameId::LeftOut")]
    pub same_id: SameId,
    /// How much negatives count. Default: all the same.
    #[config(default = "Weighting::Uniform")]
    pub weighting: Weighting,
    /// Leaves out negatives that a teacher finds more similar to the anchor than the anchor's positive, by
    /// more than this (GISTEmbed, where it is 0). Default: none are left out.
    pub guided_margin: Option<f64>,
    /// Share ε of the target that is spread evenly over all candidates, in [0, 1]. Default 0.
    #[config(default = 0.0)]
    pub label_smoothing: f64,
    /// Share α of the target that is a teacher's, in [0, 1]: its softmax at the same logit scale over the positives and
    /// negatives that it knows, those of the batch and extra ones (distillation; ALBEF's targets). Default 0.
    #[config(default = 0.0)]
    pub soft_targets: f64,
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
    /// Refuses values out of range, in the name of the config that they were set in.
    #[track_caller]
    pub(in crate::objective) fn checked(self, config: &str) -> Self {
        let weight = self.image_to_text_weight;
        check::within(config, "image_to_text_weight", weight, 0.0, 1.0);
        check::within(config, "label_smoothing", self.label_smoothing, 0.0, 1.0);
        // Together they are no more than the target.
        let rest = 1.0 - self.label_smoothing;
        check::within(config, "soft_targets", self.soft_targets, 0.0, rest);
        if let Some(margin) = self.guided_margin {
            check::within(config, "guided_margin", margin, -f64::MAX, f64::MAX);
        }
        self.weighting.check();
        self
    }

    /// Whether ids change anything.
    pub(super) fn asks_ids(&self) -> bool {
        self.same_id != SameId::Negative
    }

    /// The contrast of an objective of this name at this scale.
    pub(in crate::objective) fn with<'a>(
        &'a self,
        caller: &'static str,
        logit_scale: &'a LogitScale,
    ) -> Contrast<'a> {
        Contrast {
            caller,
            criterion: self,
            logit_scale,
            log_weight: self.weighting.log_weight(),
        }
    }

    /// The parts that are not those of CLIP, for a display.
    pub(in crate::objective) fn show(&self, content: Content) -> Content {
        let plain = Self::new();
        let parts = [
            (
                "directions",
                self.directions != plain.directions,
                format!("{:?}", self.directions),
            ),
            ("decoupled", self.decoupled, true.to_string()),
            ("within_modality", self.within_modality, true.to_string()),
            (
                "same_id",
                self.same_id != plain.same_id,
                format!("{:?}", self.same_id),
            ),
            (
                "weighting",
                self.weighting != plain.weighting,
                format!("{:?}", self.weighting),
            ),
            (
                "guided_margin",
                self.guided_margin.is_some(),
                self.guided_margin.unwrap_or_default().to_string(),
            ),
            (
                "soft_targets",
                self.soft_targets > 0.0,
                self.soft_targets.to_string(),
            ),
            (
                "label_smoothing",
                self.label_smoothing > 0.0,
                self.label_smoothing.to_string(),
            ),
            ("normalize", true, self.similarity.normalize.to_string()),
            (
                "evaluation",
                true,
                format!("{:?}", self.similarity.evaluation),
            ),
        ];
        let content = content.add("image_to_text_weight", &self.image_to_text_weight);
        let shown = parts.into_iter().filter(|(_, shown, _)| *shown);
        shown.fold(content, |content, (name, _, value)| {
            content.add(name, &value)
        })
    }
}
