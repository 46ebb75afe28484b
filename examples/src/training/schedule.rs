//! Learning rate over the steps: linear warm-up, then a cosine down to a fraction of the peak.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// How long to train and how the learning rate moves meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Optimiser steps to train for.
    pub steps: usize,
    /// Passes over the training pairs; where given, it takes the place of `steps`.
    pub epochs: Option<usize>,
    /// Steps over which the rate rises linearly to its peak.
    pub warmup_steps: usize,
    /// The last rate as a share of the peak.
    pub final_fraction: f64,
}

impl ScheduleConfig {
    /// Steps to train for, where one epoch has `batches` batches and one step takes
    /// `accumulation` of them.
    pub fn total_steps(&self, batches: usize, accumulation: usize) -> usize {
        match self.epochs {
            Some(epochs) => (epochs.saturating_mul(batches) / accumulation).max(1),
            None => self.steps,
        }
    }

    /// The rate of a step, the first being 0.
    ///
    /// During the warm-up it is `peak · (step + 1) / warmup_steps`; from then on a half cosine from
    /// `peak` towards `final_fraction · peak`, which step `total` would reach.
    pub fn learning_rate(&self, peak: f64, step: usize, total: usize) -> f64 {
        if step < self.warmup_steps {
            return peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let span = total.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / span as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (PI * done).cos());
        peak * (self.final_fraction + (1.0 - self.final_fraction) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(warmup_steps: usize) -> ScheduleConfig {
        ScheduleConfig {
            steps: 100,
            epochs: None,
            warmup_steps,
            final_fraction: 0.1,
        }
    }

    #[test]
    fn warms_up_linearly_then_falls_as_a_cosine() {
        let rate = |step| schedule(10).learning_rate(2.0, step, 110);
        assert_eq!(rate(0), 0.2);
        assert_eq!(rate(4), 1.0);
        assert_eq!(rate(9), 2.0);
        assert_eq!(rate(10), 2.0);
        // Half way down the cosine: the middle of peak and final rate.
        assert!((rate(60) - 1.1).abs() < 1e-12);
        assert!((rate(110) - 0.2).abs() < 1e-12);
        assert!((rate(500) - 0.2).abs() < 1e-12, "stays at the final rate");
    }

    #[test]
    fn never_rises_after_the_warm_up() {
        let rates: Vec<_> = (5..50)
            .map(|s| schedule(5).learning_rate(1.0, s, 50))
            .collect();
        assert!(rates.windows(2).all(|pair| pair[1] <= pair[0]));
    }

    #[test]
    fn no_warm_up_starts_at_the_peak() {
        assert_eq!(schedule(0).learning_rate(3.0, 0, 10), 3.0);
        // A run shorter than its warm-up never divides by zero.
        assert!(schedule(20).learning_rate(3.0, 30, 10).is_finite());
    }

    #[test]
    fn epochs_take_the_place_of_steps() {
        let mut config = schedule(0);
        assert_eq!(config.total_steps(7, 1), 100);
        config.epochs = Some(3);
        assert_eq!(config.total_steps(7, 1), 21);
        assert_eq!(config.total_steps(7, 2), 10);
        assert_eq!(config.total_steps(1, 8), 1);
    }
}
