//! How the weights of one direction are distributed.

/// How the weights of one direction are distributed; from
/// [`BatchWeights::histogram`](super::BatchWeights::histogram).
#[derive(Clone, Debug, PartialEq)]
pub struct WeightHistogram {
    /// Number of weights in equal bins of [0, `upper`]. A bin includes its lower edge, the last one
    /// all larger weights. NaN is in no bin.
    pub counts: Vec<u64>,
    /// The last edge.
    pub upper: f64,
    /// Mean: 1 by construction, NaN without negatives.
    pub mean: f64,
    /// Standard deviation (of the population).
    pub deviation: f64,
    /// The smallest weight; ∞ without negatives.
    pub smallest: f64,
    /// The largest weight; −∞ without negatives.
    pub largest: f64,
}

impl WeightHistogram {
    pub(super) fn new(bins: usize, upper: f64) -> Self {
        Self {
            counts: vec![0; bins],
            upper,
            mean: 0.0,
            deviation: 0.0,
            smallest: f64::INFINITY,
            largest: f64::NEG_INFINITY,
        }
    }

    /// The edges of the bins: one more than there are bins.
    pub fn edges(&self) -> Vec<f64> {
        let bins = self.counts.len();
        let edge = |bin| self.upper * bin as f64 / bins as f64;
        (0..=bins).map(edge).collect()
    }

    /// Counts a weight. Until [`averaged`](Self::averaged), mean and deviation hold sums.
    pub(super) fn add(&mut self, weight: f64) {
        let bins = self.counts.len();
        if !weight.is_nan() {
            let bin = (weight / self.upper * bins as f64) as usize;
            self.counts[bin.min(bins - 1)] += 1;
        }
        self.mean += weight;
        // Most weights are close to their mean, 1: no digits cancel.
        self.deviation += (weight - 1.0).powi(2);
        self.smallest = self.smallest.min(weight);
        self.largest = self.largest.max(weight);
    }

    pub(super) fn averaged(self, count: f64) -> Self {
        let mean = self.mean / count;
        let variance = self.deviation / count - (mean - 1.0).powi(2);
        // Rounding may take it below 0; NaN stays.
        let variance = if variance < 0.0 { 0.0 } else { variance };
        Self {
            mean,
            deviation: variance.sqrt(),
            ..self
        }
    }
}
