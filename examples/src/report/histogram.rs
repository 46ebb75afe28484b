//! How the similarities of matching and of other pairs are distributed.

use serde::{Deserialize, Serialize};

use crate::number;

/// Similarities of positive (matching) and negative (all other) pairs, counted in equal bins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Lower edge of the first bin.
    pub low: f64,
    /// Upper edge of the last bin.
    pub high: f64,
    /// Number of positive pairs in each bin.
    pub positive: Vec<u64>,
    /// Number of negative pairs in each bin.
    pub negative: Vec<u64>,
    /// Mean similarity of the positive pairs; NaN without any.
    #[serde(with = "number::or_null")]
    pub positive_mean: f64,
    /// Mean similarity of the negative pairs; NaN without any.
    #[serde(with = "number::or_null")]
    pub negative_mean: f64,
}

impl Histogram {
    /// Chance that a positive pair is more similar than a negative one, both drawn at random (the
    /// area under the ROC curve), a tie counting half: exact up to pairs that share a bin. `None`
    /// without positives or negatives.
    pub fn separation(&self) -> Option<f64> {
        let (mut below, mut wins) = (0.0, 0.0);
        for (&positive, &negative) in self.positive.iter().zip(&self.negative) {
            wins += positive as f64 * (below + 0.5 * negative as f64);
            below += negative as f64;
        }
        let pairs = total(&self.positive) * total(&self.negative);
        (pairs > 0.0).then(|| wins / pairs)
    }

    /// Counts as a density, whose integral over the bounds is one: positives and negatives then
    /// compare, although there are far more negatives.
    pub(super) fn density(&self, counts: &[u64]) -> Vec<f64> {
        let width = (self.high - self.low) / counts.len().max(1) as f64;
        let area = total(counts) * width;
        let density = |&count: &u64| if area > 0.0 { count as f64 / area } else { 0.0 };
        counts.iter().map(density).collect()
    }

    /// Whether there is nothing to draw.
    pub(crate) fn is_blank(&self) -> bool {
        let nothing = total(&self.positive) + total(&self.negative) == 0.0;
        nothing || !(self.low.is_finite() && self.high.is_finite() && self.low < self.high)
    }
}

fn total(counts: &[u64]) -> f64 {
    counts.iter().map(|&count| count as f64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(positive: &[u64], negative: &[u64]) -> Histogram {
        Histogram {
            low: -0.5,
            high: 1.0,
            positive: positive.to_vec(),
            negative: negative.to_vec(),
            positive_mean: 0.5,
            negative_mean: 0.0,
        }
    }

    #[test]
    fn density_integrates_to_one() {
        let counted = histogram(&[1, 0, 7, 12], &[0; 4]);
        let width = 1.5 / 4.0;
        let integral = counted.density(&counted.positive).iter().sum::<f64>() * width;
        assert!((integral - 1.0).abs() < 1e-12);
        assert_eq!(counted.density(&counted.negative), [0.0; 4]);
    }

    #[test]
    fn separation_is_one_when_apart_and_half_when_alike() {
        assert_eq!(histogram(&[0, 0, 2], &[9, 4, 0]).separation(), Some(1.0));
        assert_eq!(histogram(&[2, 0, 0], &[0, 4, 9]).separation(), Some(0.0));
        assert_eq!(histogram(&[0, 3, 0], &[0, 5, 0]).separation(), Some(0.5));
        assert_eq!(histogram(&[0, 3, 0], &[0, 0, 0]).separation(), None);
    }

    #[test]
    fn unusable_bounds_or_no_counts_are_blank() {
        assert!(histogram(&[0], &[0]).is_blank());
        assert!(histogram(&[], &[]).is_blank());
        let mut reversed = histogram(&[1], &[1]);
        assert!(!reversed.is_blank());
        reversed.high = -1.0;
        assert!(reversed.is_blank());
    }
}
