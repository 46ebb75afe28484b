//! Learning rate over the steps: linear warm-up, then down to a fraction of the peak.

use std::f64::consts::PI;

use anyhow::{Result, ensure};
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
    /// The rate that the warm-up rises from, as a share of the peak.
    #[serde(default)]
    pub initial_fraction: f64,
    /// How the rate falls from its peak.
    #[serde(default)]
    pub decay: Decay,
    /// Where `decay` is `steps`: the shares of the steps after the warm-up when the rate falls by
    /// `step_factor`, ascending.
    #[serde(default)]
    pub milestones: Vec<f64>,
    /// Where `decay` is `steps`: what each milestone multiplies the rate by.
    #[serde(default = "tenth")]
    pub step_factor: f64,
    /// The last rate as a share of the peak, for a cosine and a line.
    pub final_fraction: f64,
}

/// How a learning rate falls from its peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// As half a cosine.
    #[default]
    Cosine,
    /// In a straight line.
    Linear,
    /// By a factor at each milestone.
    Steps,
    /// Not at all.
    Constant,
}

fn tenth() -> f64 {
    0.1
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
    /// During the warm-up it goes in a straight line from `initial_fraction · peak` to `peak`, which
    /// its last step has; from then on `decay` takes it towards `final_fraction · peak`, which step
    /// `total` would reach.
    pub fn learning_rate(&self, peak: f64, step: usize, total: usize) -> f64 {
        if step < self.warmup_steps {
            let done = (step + 1) as f64 / self.warmup_steps as f64;
            return peak * (self.initial_fraction + (1.0 - self.initial_fraction) * done);
        }
        let span = total.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / span as f64).min(1.0);
        let left = match self.decay {
            Decay::Cosine => 0.5 * (1.0 + (PI * done).cos()),
            Decay::Linear => 1.0 - done,
            Decay::Constant => return peak,
            Decay::Steps => {
                let passed = self.milestones.iter().filter(|share| done >= **share);
                return peak * self.step_factor.powi(passed.count() as i32);
            }
        };
        peak * (self.final_fraction + (1.0 - self.final_fraction) * left)
    }

    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        ensure!(self.steps > 0, "schedule.steps must be at least 1");
        ensure!(
            self.epochs != Some(0),
            "schedule.epochs must be at least 1, or null"
        );
        for (key, share) in [
            ("initial_fraction", self.initial_fraction),
            ("final_fraction", self.final_fraction),
            ("step_factor", self.step_factor),
        ] {
            ensure!(
                (0.0..=1.0).contains(&share),
                "schedule.{key} = {share} must be in [0, 1]"
            );
        }
        let ascending = self.milestones.is_sorted();
        let shares = self
            .milestones
            .iter()
            .all(|share| (0.0..=1.0).contains(share));
        ensure!(
            ascending && shares,
            "schedule.milestones = {:?} must be ascending shares of the steps, in [0, 1]",
            self.milestones
        );
        ensure!(
            self.decay != Decay::Steps || !self.milestones.is_empty(),
            "schedule.decay = steps needs schedule.milestones, such as [0.5]"
        );
        Ok(())
    }
}

impl Default for ScheduleConfig {
    /// 300 steps, 30 of them to warm up, then a cosine down to zero.
    fn default() -> Self {
        Self {
            steps: 300,
            epochs: None,
            warmup_steps: 30,
            initial_fraction: 0.0,
            decay: Decay::Cosine,
            milestones: Vec::new(),
            step_factor: tenth(),
            final_fraction: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(warmup_steps: usize) -> ScheduleConfig {
        ScheduleConfig {
            steps: 100,
            warmup_steps,
            final_fraction: 0.1,
            ..ScheduleConfig::default()
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
    fn other_shapes_fall_as_their_names_say() {
        let rates = |config: ScheduleConfig| {
            [10, 60, 109, 110].map(|step| config.learning_rate(2.0, step, 110))
        };
        let close = |found: [f64; 4], expected: [f64; 4]| {
            let close = found
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-9);
            assert!(close, "{found:?} is not {expected:?}");
        };
        let with = |decay| ScheduleConfig {
            decay,
            milestones: vec![0.5, 1.0],
            ..schedule(10)
        };
        close(rates(with(Decay::Linear)), [2.0, 1.1, 0.218, 0.2]);
        close(rates(with(Decay::Constant)), [2.0; 4]);
        close(rates(with(Decay::Steps)), [2.0, 0.2, 0.2, 0.02]);
        // ALBEF warms up from a tenth of its peak.
        let warm = ScheduleConfig {
            initial_fraction: 0.1,
            ..schedule(10)
        };
        assert!((warm.learning_rate(2.0, 4, 110) - 2.0 * 0.55).abs() < 1e-12);
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let steps = |milestones| ScheduleConfig {
            decay: Decay::Steps,
            milestones,
            ..schedule(0)
        };
        assert!(steps(vec![0.2, 0.7]).check().is_ok());
        for (config, expected) in [
            (steps(vec![]), "needs schedule.milestones"),
            (steps(vec![0.7, 0.2]), "must be ascending"),
            (steps(vec![f64::NAN]), "in [0, 1]"),
        ] {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
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
