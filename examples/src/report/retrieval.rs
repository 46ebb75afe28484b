//! The retrieval table: how often a query finds its counterpart, by chance, before and after
//! training.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::number;

/// Scores of the queries of one direction. Recall in percent; ranks count from one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectionScores {
    /// Percentage of queries with a match at rank 1.
    #[serde(with = "number::or_null")]
    pub recall_at_1: f64,
    /// Percentage of queries with a match among the first 5.
    #[serde(with = "number::or_null")]
    pub recall_at_5: f64,
    /// Percentage of queries with a match among the first 10.
    #[serde(with = "number::or_null")]
    pub recall_at_10: f64,
    /// Median rank of the first match.
    #[serde(with = "number::or_null")]
    pub median_rank: f64,
    /// Mean rank of the first match.
    #[serde(with = "number::or_null")]
    pub mean_rank: f64,
}

/// Scores of both directions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetrievalScores {
    /// The query is an image, the matches are its captions.
    pub image_to_text: DirectionScores,
    /// The query is a caption, the match is its image.
    pub text_to_image: DirectionScores,
}

impl RetrievalScores {
    /// Sum of the six recalls (R@sum), 600 at best.
    pub fn r_sum(&self) -> f64 {
        self.image_to_text.recall_sum() + self.text_to_image.recall_sum()
    }

    /// The expected scores of a random order, exact: `captions[i]` is the number of captions of
    /// image `i`.
    ///
    /// A query with `c` matches among `m` candidates has none in the first `k` with probability
    /// `Π_{i<k} (m − c − i) / (m − i)`. The median rank is that of all queries together: the
    /// smallest rank by which half of them are expected to have found a match. An image without a
    /// caption is not a query, but a candidate.
    pub fn chance(captions: &[usize]) -> Self {
        let texts: usize = captions.iter().sum();
        let mut images_with = BTreeMap::<usize, usize>::new();
        for &count in captions.iter().filter(|&&count| count > 0) {
            *images_with.entry(count).or_default() += 1;
        }
        Self {
            image_to_text: DirectionScores::chance(texts, &images_with),
            text_to_image: DirectionScores::chance(captions.len(), &BTreeMap::from([(1, texts)])),
        }
    }
}

impl DirectionScores {
    fn recall_sum(&self) -> f64 {
        self.recall_at_1 + self.recall_at_5 + self.recall_at_10
    }

    /// Expected scores of queries over `candidates` in random order; `queries` counts them by their
    /// number of matches.
    fn chance(candidates: usize, queries: &BTreeMap<usize, usize>) -> Self {
        let all: usize = queries.values().sum();
        // misses[k]: expected share of queries without a match in the first k.
        let mut misses = vec![0.0; candidates + 1];
        let mut mean_rank = 0.0;
        for (&matches, &count) in queries {
            let share = count as f64 / all.max(1) as f64;
            mean_rank += share * (candidates as f64 + 1.0) / (matches as f64 + 1.0);
            let mut miss = share;
            for (k, total) in misses.iter_mut().enumerate() {
                *total += miss;
                let others = candidates.saturating_sub(matches + k) as f64;
                miss *= others / (candidates - k).max(1) as f64;
            }
        }
        let recall = |k: usize| 100.0 * (1.0 - misses[k.min(candidates)]);
        let median = misses.iter().position(|&miss| miss <= 0.5 + 1e-12);
        if all == 0 {
            return Self {
                recall_at_1: f64::NAN,
                recall_at_5: f64::NAN,
                recall_at_10: f64::NAN,
                median_rank: f64::NAN,
                mean_rank: f64::NAN,
            };
        }
        Self {
            recall_at_1: recall(1),
            recall_at_5: recall(5),
            recall_at_10: recall(10),
            median_rank: median.map_or(f64::NAN, |rank| rank as f64),
            mean_rank,
        }
    }
}

/// The retrieval table of a run on its held-out pairs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    /// Which pairs were searched, as a reader should see it: `test`, `test, 5 folds of 1,000
    /// images`.
    pub split: String,
    /// Number of images searched.
    pub images: u64,
    /// Number of captions searched.
    pub captions: u64,
    /// What a random order scores ([`RetrievalScores::chance`]).
    pub chance: Option<RetrievalScores>,
    /// The model before its first step.
    pub before: Option<RetrievalScores>,
    /// The trained model.
    pub after: Option<RetrievalScores>,
    /// The trained model, its first results reordered by matching each with the query.
    #[serde(default)]
    pub reranked: Option<RetrievalScores>,
    /// How many of the first results were reordered.
    #[serde(default)]
    pub reranked_top: Option<u64>,
}

impl Retrieval {
    /// The rows with their names, in the order of the table.
    pub(super) fn rows(&self) -> impl Iterator<Item = (String, RetrievalScores)> {
        let reranked = self.reranked_top.map_or_else(
            || "reranked".to_string(),
            |top| format!("reranked, top {}", number::grouped(top)),
        );
        [
            ("chance".to_string(), self.chance),
            ("before training".to_string(), self.before),
            ("after training".to_string(), self.after),
            (reranked, self.reranked),
        ]
        .into_iter()
        .filter_map(|(name, scores)| Some((name, scores?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} differs from {b}");
    }

    #[test]
    fn chance_of_single_captions_is_k_over_n() {
        let scores = RetrievalScores::chance(&[1; 200]);
        for direction in [scores.image_to_text, scores.text_to_image] {
            close(direction.recall_at_1, 0.5);
            close(direction.recall_at_5, 2.5);
            close(direction.recall_at_10, 5.0);
            close(direction.mean_rank, 100.5);
            close(direction.median_rank, 100.0);
        }
        close(scores.r_sum(), 16.0);
    }

    #[test]
    fn chance_of_several_captions_matches_enumeration() {
        // 3 images with 2 captions each: 6 candidates. The first match of a query is at rank r with
        // probability 5/15, 4/15, 3/15, 2/15, 1/15 for r = 1..5, counting the 15 places of its two
        // captions.
        let scores = RetrievalScores::chance(&[2; 3]);
        close(scores.image_to_text.recall_at_1, 100.0 * 5.0 / 15.0);
        close(scores.image_to_text.recall_at_5, 100.0);
        close(
            scores.image_to_text.mean_rank,
            (5.0 + 8.0 + 9.0 + 8.0 + 5.0) / 15.0,
        );
        close(scores.image_to_text.median_rank, 2.0);
        close(scores.text_to_image.recall_at_1, 100.0 / 3.0);
        close(scores.text_to_image.recall_at_10, 100.0);
    }

    #[test]
    fn chance_of_nothing_has_no_value() {
        assert!(RetrievalScores::chance(&[]).r_sum().is_nan());
        assert!(RetrievalScores::chance(&[0, 0]).r_sum().is_nan());
    }
}
