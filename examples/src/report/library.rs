//! From the figures that the library computes to those that a report shows.

use burn_contrastive::retrieval::{CrossModalMetrics, RankMetrics, SimilarityHistogram};

use super::{DirectionScores, Histogram, RetrievalScores};

impl From<&RankMetrics> for DirectionScores {
    fn from(metrics: &RankMetrics) -> Self {
        Self {
            recall_at_1: metrics.recall_at_1,
            recall_at_5: metrics.recall_at_5,
            recall_at_10: metrics.recall_at_10,
            median_rank: metrics.median_rank,
            mean_rank: metrics.mean_rank,
        }
    }
}

impl From<&CrossModalMetrics> for RetrievalScores {
    fn from(metrics: &CrossModalMetrics) -> Self {
        Self {
            image_to_text: (&metrics.image_to_text).into(),
            text_to_image: (&metrics.text_to_image).into(),
        }
    }
}

impl From<SimilarityHistogram> for Histogram {
    fn from(histogram: SimilarityHistogram) -> Self {
        Self {
            low: -1.0,
            high: 1.0,
            positive: histogram.positive_counts,
            negative: histogram.negative_counts,
            positive_mean: histogram.positive.mean,
            negative_mean: histogram.negative.mean,
        }
    }
}
