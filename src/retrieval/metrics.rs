//! The metrics that papers report, ready to print, store and average.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::Ranks;
use super::cross_modal::check_pairs;

/// Recall at 1, 5 and 10, in percent, and median and mean rank of one direction. NaN if undefined.
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

    /// Expectations if the positives of each query, whose numbers are given, are at random places
    /// among the candidates and other positives do not count, as in [`Ranks`].
    fn chance(positives: &[usize], candidates: usize) -> Self {
        let reached = |k| {
            let all = positives
                .iter()
                .map(|&own| chance_of_rank_within(k, own, candidates));
            all.sum::<f64>() / positives.len() as f64
        };
        // With p positives, a negative comes before all of them with probability 1 / (p + 1).
        let expected = |&own: &usize| 1.0 + (candidates - own) as f64 / (own + 1) as f64;
        let (mut below, mut median) = (0, candidates);
        while median - below > 1 {
            let middle = below + (median - below) / 2;
            if reached(middle) >= 0.5 {
                median = middle;
            } else {
                below = middle;
            }
        }
        Self {
            recall_at_1: 100.0 * reached(1),
            recall_at_5: 100.0 * reached(5),
            recall_at_10: 100.0 * reached(10),
            median_rank: median as f64,
            mean_rank: positives.iter().map(expected).sum::<f64>() / positives.len() as f64,
        }
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

/// The usual metrics of retrieval in both directions.
///
/// `Display` writes a table. In JSON an undefined value (NaN) is `null`.
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
    /// The metrics of the ranks of both directions.
    pub fn new(image_to_text: &Ranks, text_to_image: &Ranks) -> Self {
        Self::of_directions(image_to_text.into(), text_to_image.into())
    }

    /// The expected metrics of random embeddings, a baseline for a model.
    ///
    /// Exact for ranks drawn uniformly; `image_of_text` as in
    /// [`cross_modal`](super::cross_modal()). The median rank is the smallest that at least half
    /// of the queries are expected to reach.
    ///
    /// # Panics
    ///
    /// If `image_of_text` is empty or leaves an image below its greatest index without a text.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_contrastive::retrieval::CrossModalMetrics;
    ///
    /// // 100 images, 5 captions each.
    /// let image_of_text: Vec<usize> = (0..500).map(|text| text / 5).collect();
    /// let chance = CrossModalMetrics::chance(&image_of_text);
    /// assert!((chance.text_to_image.recall_at_1 - 1.0).abs() < 1e-9);
    /// assert!((chance.text_to_image.mean_rank - 50.5).abs() < 1e-9);
    /// ```
    #[track_caller]
    pub fn chance(image_of_text: &[usize]) -> Self {
        assert!(
            !image_of_text.is_empty(),
            "chance: `image_of_text` is empty: it needs at least one text"
        );
        let images = 1 + image_of_text.iter().max().expect("not empty");
        let texts = image_of_text.len();
        check_pairs("chance", [images, texts], image_of_text);
        let mut captions = vec![0; images];
        for &image in image_of_text {
            captions[image] += 1;
        }
        Self::of_directions(
            RankMetrics::chance(&captions, texts),
            RankMetrics::chance(&vec![1; texts], images),
        )
    }

    /// The mean of each metric over several evaluations, such as folds or runs.
    ///
    /// # Panics
    ///
    /// If `all` is empty.
    #[track_caller]
    pub fn average(all: &[Self]) -> Self {
        assert!(
            !all.is_empty(),
            "average: `all` is empty: it needs at least one evaluation"
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

/// The probability that the rank of the best of `positives` among `candidates` is at most `k`: that
/// not all positives are outside the first `k` places.
fn chance_of_rank_within(k: usize, positives: usize, candidates: usize) -> f64 {
    let outside = candidates.saturating_sub(k);
    let miss =
        (0..positives).map(|one| outside.saturating_sub(one) as f64 / (candidates - one) as f64);
    1.0 - miss.product::<f64>()
}

/// JSON has no NaN: serde writes it as `null`.
pub(super) fn nan_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rank of the best positive in each order of a few candidates.
    fn every_rank(positives: usize, candidates: usize) -> Vec<usize> {
        fn extend(
            order: &mut Vec<usize>,
            positives: usize,
            candidates: usize,
            ranks: &mut Vec<usize>,
        ) {
            if let Some(rank) = order.iter().position(|&one| one < positives) {
                // Every order of the rest has the same rank.
                let rest: usize = (1..=candidates - order.len()).product();
                ranks.extend(std::iter::repeat_n(rank + 1, rest));
                return;
            }
            for next in 0..candidates {
                if !order.contains(&next) {
                    order.push(next);
                    extend(order, positives, candidates, ranks);
                    order.pop();
                }
            }
        }
        let mut ranks = Vec::new();
        extend(&mut Vec::new(), positives, candidates, &mut ranks);
        ranks
    }

    #[test]
    fn chance_is_the_mean_over_all_orders() {
        for (positives, candidates) in [(1, 1), (1, 6), (2, 6), (3, 7), (6, 6)] {
            let ranks = every_rank(positives, candidates);
            let exact = Ranks::new(ranks.into_iter().map(Some).collect());
            let chance = RankMetrics::chance(&[positives], candidates);
            for (k, recall) in [
                (1, chance.recall_at_1),
                (5, chance.recall_at_5),
                (10, chance.recall_at_10),
            ] {
                let expected = exact.recall_at(k);
                assert!(
                    (recall - expected).abs() < 1e-9,
                    "{positives} of {candidates}, k {k}: {recall}, {expected}"
                );
            }
            assert!((chance.mean_rank - exact.mean()).abs() < 1e-9);
            assert!(exact.recall_at(chance.median_rank as usize) >= 50.0);
            assert!(
                chance.median_rank == 1.0
                    || exact.recall_at(chance.median_rank as usize - 1) < 50.0
            );
        }
    }

    #[test]
    fn chance_depends_on_the_number_of_captions() {
        let chance = CrossModalMetrics::chance(&[0, 1, 0, 0]);
        // Image 0 has three of four texts, image 1 one of four.
        assert_eq!(chance.image_to_text.recall_at_1, 50.0);
        assert_eq!(chance.text_to_image.recall_at_1, 50.0);
        assert_eq!(chance.image_to_text.mean_rank, (1.25 + 2.5) / 2.0);
    }
}
