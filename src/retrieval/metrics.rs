//! The figures that papers report, ready to print, store and average.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::Ranks;

/// Recall at 1, 5 and 10, in percent, and the median and mean rank of one direction. NaN where undefined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RankMetrics {
    /// Percentage of queries whose nearest candidate is a positive.
    #[serde(deserialize_with = "nan_if_null")]
    pub recall_at_1: f64,
    /// Percentage of queries with a positive among the nearest 5.
    #[serde(deserialize_with = "nan_if_null")]
    pub recall_at_5: f64,
    /// Percentage of queries with a positive among the nearest 10.
    #[serde(deserialize_with = "nan_if_null")]
    pub recall_at_10: f64,
    /// Median rank of the best positive, from 1.
    #[serde(deserialize_with = "nan_if_null")]
    pub median_rank: f64,
    /// Mean rank of the best positive, from 1.
    #[serde(deserialize_with = "nan_if_null")]
    pub mean_rank: f64,
}

impl From<&Ranks> for RankMetrics {
    fn from(ranks: &Ranks) -> Self {
        Self {
            recall_at_1: ranks.recall_at(1),
            recall_at_5: ranks.recall_at(5),
            recall_at_10: ranks.recall_at(10),
            median_rank: ranks.median(),
            mean_rank: ranks.mean(),
        }
    }
}

impl RankMetrics {
    /// The sum of the three recalls.
    fn recall_sum(&self) -> f64 {
        self.recall_at_1 + self.recall_at_5 + self.recall_at_10
    }

    fn average(all: impl Iterator<Item = Self> + Clone) -> Self {
        let mean = |figure: fn(&Self) -> f64| {
            let count = all.clone().count() as f64;
            all.clone().map(|one| figure(&one)).sum::<f64>() / count
        };
        Self {
            recall_at_1: mean(|one| one.recall_at_1),
            recall_at_5: mean(|one| one.recall_at_5),
            recall_at_10: mean(|one| one.recall_at_10),
            median_rank: mean(|one| one.median_rank),
            mean_rank: mean(|one| one.mean_rank),
        }
    }
}

/// The usual figures of retrieval both ways.
///
/// `Display` writes a table; serialised to JSON, an undefined figure (NaN) is `null`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CrossModalMetrics {
    /// Images as queries, texts as candidates ("text retrieval").
    pub image_to_text: RankMetrics,
    /// Texts as queries, images as candidates ("image retrieval").
    pub text_to_image: RankMetrics,
    /// R@sum: R@1 + R@5 + R@10 of both directions, in percent; at most 600.
    #[serde(deserialize_with = "nan_if_null")]
    pub recall_sum: f64,
}

impl CrossModalMetrics {
    /// The figures of two directions' ranks.
    pub fn new(image_to_text: &Ranks, text_to_image: &Ranks) -> Self {
        Self::of_directions(image_to_text.into(), text_to_image.into())
    }

    /// The mean of each figure over several evaluations, such as folds or runs.
    ///
    /// # Panics
    /// If `all` is empty.
    #[track_caller]
    pub fn average(all: &[Self]) -> Self {
        assert!(
            !all.is_empty(),
            "all: need at least one evaluation, got none"
        );
        Self::of_directions(
            RankMetrics::average(all.iter().map(|one| one.image_to_text)),
            RankMetrics::average(all.iter().map(|one| one.text_to_image)),
        )
    }

    fn of_directions(image_to_text: RankMetrics, text_to_image: RankMetrics) -> Self {
        Self {
            image_to_text,
            text_to_image,
            recall_sum: image_to_text.recall_sum() + text_to_image.recall_sum(),
        }
    }
}

impl fmt::Display for CrossModalMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<13} {:>6} {:>6} {:>6} {:>11} {:>9}",
            "", "R@1", "R@5", "R@10", "median rank", "mean rank"
        )?;
        for (name, one) in [
            ("image → text", &self.image_to_text),
            ("text → image", &self.text_to_image),
        ] {
            writeln!(
                f,
                "{name:<13} {:>6.2} {:>6.2} {:>6.2} {:>11.1} {:>9.2}",
                one.recall_at_1, one.recall_at_5, one.recall_at_10, one.median_rank, one.mean_rank
            )?;
        }
        write!(f, "{:<13} {:>6.2}", "R@sum", self.recall_sum)
    }
}

/// JSON has no NaN: it is written as `null`.
pub(super) fn nan_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
