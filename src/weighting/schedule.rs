//! How a share changes as training proceeds.

use burn::config::Config;

use crate::check;

/// The way from the first to the last value.
#[derive(Config, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// In a straight line.
    Linear,
    /// Half a cosine: slow, fast, slow.
    Cosine,
    /// In this many equal steps; the first value holds until the first step, at `1/(count + 1)`.
    Steps(usize),
}

/// Configuration of an [`AlphaSchedule`].
#[derive(Config, Copy, Debug, PartialEq)]
pub struct AlphaScheduleConfig {
    /// The way between the two values. Default: linear.
    #[config(default = "Shape::Linear")]
    pub shape: Shape,
    /// The value at the beginning, in [0, 1]. Default 1: weights of the teacher alone (SRCL).
    #[config(default = 1.0)]
    pub from: f64,
    /// The value at the end, in [0, 1]. Default 0: weights of the student alone (SRCL).
    #[config(default = 0.0)]
    pub to: f64,
}

impl AlphaScheduleConfig {
    /// Checks the values.
    ///
    /// # Panics
    ///
    /// Where `from` or `to` is not in [0, 1], or there are no steps.
    #[track_caller]
    pub fn init(&self) -> AlphaSchedule {
        check::within("AlphaScheduleConfig", "from", self.from, 0.0, 1.0);
        check::within("AlphaScheduleConfig", "to", self.to, 0.0, 1.0);
        assert!(
            self.shape != Shape::Steps(0),
            "AlphaScheduleConfig: `shape` has no steps, it needs one at least"
        );
        AlphaSchedule(*self)
    }
}

/// A share α as a function of the progress of training: of the teacher in SRCL's weights (1 → 0), or of the
/// soft targets in ALBEF's contrast (0 → 0.4 over the first epoch).
///
/// ```
/// use burn_contrastive::weighting::{AlphaScheduleConfig, Shape};
///
/// let schedule = AlphaScheduleConfig::new().with_shape(Shape::Cosine).init();
/// assert_eq!([schedule.at(0.0), schedule.at(1.0)], [1.0, 0.0]);
/// assert!((schedule.at(0.5) - 0.5).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlphaSchedule(AlphaScheduleConfig);

impl AlphaSchedule {
    /// The value when a part `progress` of the training is done: 0 at the beginning, 1 at the end,
    /// the end's value from there on.
    ///
    /// # Panics
    ///
    /// Where `progress` is NaN.
    #[track_caller]
    pub fn at(&self, progress: f64) -> f64 {
        assert!(!progress.is_nan(), "AlphaSchedule: `progress` is NaN");
        let done = progress.clamp(0.0, 1.0);
        let AlphaScheduleConfig { shape, from, to } = self.0;
        let way = match shape {
            Shape::Linear => done,
            Shape::Cosine => (1.0 - (std::f64::consts::PI * done).cos()) / 2.0,
            Shape::Steps(count) => ((done * (count + 1) as f64).floor() / count as f64).min(1.0),
        };
        // Exact at both ends.
        from * (1.0 - way) + to * way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape_goes_down_from_one_to_zero() {
        for shape in [
            Shape::Linear,
            Shape::Cosine,
            Shape::Steps(1),
            Shape::Steps(4),
        ] {
            let schedule = AlphaScheduleConfig::new().with_shape(shape).init();
            assert_eq!([schedule.at(-1.0), schedule.at(0.0)], [1.0, 1.0]);
            assert_eq!([schedule.at(1.0), schedule.at(7.0)], [0.0, 0.0]);
            let values: Vec<f64> = (0..=100).map(|k| schedule.at(k as f64 / 100.0)).collect();
            assert!(
                values.windows(2).all(|w| w[1] <= w[0]),
                "{shape:?}: {values:?}"
            );
        }
    }

    #[test]
    fn quarters_by_hand() {
        let at = |shape| {
            let schedule = AlphaScheduleConfig::new().with_shape(shape).init();
            [0.25, 0.5, 0.75].map(|progress| schedule.at(progress))
        };
        assert_eq!(at(Shape::Linear), [0.75, 0.5, 0.25]);
        assert_eq!(at(Shape::Steps(1)), [1.0, 0.0, 0.0]);
        assert_eq!(at(Shape::Steps(3)), [1.0 - 1.0 / 3.0, 1.0 - 2.0 / 3.0, 0.0]);
        let cosine = at(Shape::Cosine);
        assert!((cosine[0] - (1.0 + 0.5f64.sqrt()) / 2.0).abs() < 1e-12);
        let albef = AlphaScheduleConfig::new()
            .with_from(0.0)
            .with_to(0.4)
            .init();
        assert!((albef.at(0.5) - 0.2).abs() < 1e-12);
    }

    #[test]
    #[should_panic(expected = "`from` is 1.5, it must lie in [0, 1]")]
    fn a_share_past_one_is_refused() {
        AlphaScheduleConfig::new().with_from(1.5).init();
    }
}
