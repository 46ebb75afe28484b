//! How much the negatives of a contrastive loss weigh.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Histogram, lossy};
use crate::number;

/// Contrastive weights of the negatives of many batches, counted in equal bins, and the negatives
/// that weigh least.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// Lower edge of the first bin.
    #[serde(with = "number::or_null")]
    pub low: f64,
    /// Upper edge of the last bin.
    #[serde(with = "number::or_null")]
    pub high: f64,
    /// Number of negatives in each bin, the known false ones among them.
    pub all: Vec<u64>,
    /// Number of known false negatives in each bin: of those that match their anchor all the same.
    pub known_false: Vec<u64>,
    /// Mean weight of all negatives; NaN without any.
    #[serde(with = "number::or_null")]
    pub mean: f64,
    /// Mean weight of the known false negatives; NaN without any.
    #[serde(with = "number::or_null")]
    pub mean_of_known_false: f64,
    /// Chance, from 0 to 1, that a known false negative weighs less than another negative, both
    /// drawn at random (the area under the ROC curve). `None` where not measured.
    pub auc: Option<f64>,
    /// Negatives with the lowest weights, lowest first.
    pub lowest: Vec<WeightExample>,
}

/// A negative with its weight. Anchor and candidate are of different modalities, as a rule: one
/// has an image, the other a text. What is `None` is not shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightExample {
    /// File of the anchor's image.
    #[serde(serialize_with = "lossy::path_or_null")]
    pub anchor_image: Option<PathBuf>,
    /// The anchor's text.
    pub anchor_text: Option<String>,
    /// File of the candidate's image.
    #[serde(serialize_with = "lossy::path_or_null")]
    pub candidate_image: Option<PathBuf>,
    /// The candidate's text.
    pub candidate_text: Option<String>,
    /// Weight of the candidate as a negative of the anchor.
    #[serde(with = "number::or_null")]
    pub weight: f64,
    /// Whether the candidate is known to match the anchor.
    pub is_false_negative: bool,
}

impl Weights {
    /// The known false negatives as positives, and all negatives: what a chart of them takes.
    pub(super) fn histogram(&self) -> Histogram {
        Histogram {
            low: self.low,
            high: self.high,
            positive: self.known_false.clone(),
            negative: self.all.clone(),
            positive_mean: self.mean_of_known_false,
            negative_mean: self.mean,
        }
    }
}
