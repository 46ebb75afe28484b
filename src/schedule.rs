//! What changes while training proceeds: one set of values, each with a schedule.
//!
//! An objective takes new values by its `with_settings`. A schedule says them for each moment:
//!
//! ```
//! use burn::tensor::Device;
//! use burn_contrastive::objective::SrclConfig;
//! use burn_contrastive::schedule::{Schedule, Settings};
//!
//! // The teacher's share in SRCL's weights, from 1 to 0 over the whole training.
//! let schedules = Settings {
//!     alpha: Some(Schedule::new(1.0, 0.0)),
//!     ..Settings::default()
//! };
//! let objective = SrclConfig::new().init(&Device::default());
//! let halfway = objective.with_settings(&schedules.at(0.5));
//! assert!(halfway.to_string().contains("alpha: 0.5"));
//! ```
//!
//! An objective by name holds its schedules itself:
//! [`Objective::at`](crate::objective::Objective::at).

use serde::{Deserialize, Serialize};

use crate::check::{self, ConfigError};

/// The values of an objective that may change while training proceeds, or (with `T` a
/// [`Schedule`]) how they do. `None` leaves a value as it is; an objective that does not have a
/// value ignores it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    bound(deserialize = "T: Deserialize<'de>"),
    expecting = "an object of what changes, such as {\"alpha\": …}"
)]
pub struct Settings<T = f64> {
    /// The teacher's share α in the weights of negatives, in [0, 1]. SRCL's goes from 1 to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<T>,
    /// The share of soft targets, in [0, 1]. ALBEF's goes from 0 to 0.4 over the first epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_targets: Option<T>,
    /// The factor on a queue's terms in the denominator, in [0, 1]; 0 while the queue fills, say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_weight: Option<T>,
    /// The share of the hardest negatives in VSE++ and ConVSE++, in [0, 1]; the rest is the sum
    /// over all negatives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardest_weight: Option<T>,
    /// The margin of VSE, VSE++, ConVSE++ and max-margin, a difference of cosines (a cosine in
    /// max-margin).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<T>,
}

impl<T> Default for Settings<T> {
    fn default() -> Self {
        Self {
            alpha: None,
            soft_targets: None,
            queue_weight: None,
            hardest_weight: None,
            margin: None,
        }
    }
}

impl<T: Copy> Settings<T> {
    pub(crate) fn all(&self) -> [(&'static str, Option<T>); 5] {
        [
            ("alpha", self.alpha),
            ("soft_targets", self.soft_targets),
            ("queue_weight", self.queue_weight),
            ("hardest_weight", self.hardest_weight),
            ("margin", self.margin),
        ]
    }

    /// Only the values whose names are kept.
    pub(crate) fn filter(self, keep: impl Fn(&str) -> bool) -> Self {
        let only = |name, value: Option<T>| value.filter(|_| keep(name));
        Self {
            alpha: only("alpha", self.alpha),
            soft_targets: only("soft_targets", self.soft_targets),
            queue_weight: only("queue_weight", self.queue_weight),
            hardest_weight: only("hardest_weight", self.hardest_weight),
            margin: only("margin", self.margin),
        }
    }
}

impl Settings<Schedule> {
    /// Checks the schedules. Errors name the value that a schedule is of: `alpha.end`, say.
    ///
    /// # Errors
    ///
    /// As [`Schedule::check`].
    pub fn check(&self) -> Result<(), ConfigError> {
        for (name, schedule) in self.all() {
            let checked = schedule.map_or(Ok(()), |schedule| schedule.check());
            checked.map_err(|error| error.within("Settings", |field| format!("{name}.{field}")))?;
        }
        Ok(())
    }

    /// The values when a share `progress` of the training is done: see [`Schedule::at`].
    ///
    /// # Panics
    ///
    /// Where `progress` is NaN.
    #[track_caller]
    pub fn at(&self, progress: f64) -> Settings {
        let at = |schedule: Option<Schedule>| schedule.map(|schedule| schedule.at(progress));
        Settings {
            alpha: at(self.alpha),
            soft_targets: at(self.soft_targets),
            queue_weight: at(self.queue_weight),
            hardest_weight: at(self.hardest_weight),
            margin: at(self.margin),
        }
    }
}

/// How a value goes from its first to its last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ramp {
    /// In a straight line.
    #[default]
    Linear,
    /// As half a cosine: slow, fast, slow.
    Cosine,
    /// In this many equal steps; the first value holds until the first step, which comes when a
    /// share of `1/(count + 1)` is done.
    Steps(usize),
}

/// How a value changes while training proceeds.
///
/// ```
/// use burn_contrastive::schedule::{Ramp, Schedule};
///
/// let schedule = Schedule::new(1.0, 0.0).with_ramp(Ramp::Cosine);
/// assert_eq!([schedule.at(0.0), schedule.at(1.0)], [1.0, 0.0]);
/// // ALBEF's soft targets: up to 0.4 over the first of 30 epochs.
/// let albef = Schedule::new(0.0, 0.4).with_end(1.0 / 30.0);
/// assert_eq!([albef.at(0.0), albef.at(1.0 / 60.0), albef.at(0.5)], [0.0, 0.2, 0.4]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a schedule, such as {\"from\": 1, \"to\": 0}"
)]
pub struct Schedule {
    /// The first value.
    pub from: f64,
    /// The last value.
    pub to: f64,
    /// The share of the training before the value begins to change, in [0, `end`]. Default 0.
    #[serde(default)]
    pub begin: f64,
    /// The share of the training when the last value is reached, in [0, 1]. Default 1.
    #[serde(default = "whole")]
    pub end: f64,
    /// The way between the two values. Default: linear.
    #[serde(default)]
    pub ramp: Ramp,
}

fn whole() -> f64 {
    1.0
}

impl Schedule {
    /// From one value to another over the whole training, in a straight line.
    pub fn new(from: f64, to: f64) -> Self {
        Self {
            from,
            to,
            begin: 0.0,
            end: 1.0,
            ramp: Ramp::Linear,
        }
    }

    /// With another [`begin`](Self::begin).
    pub fn with_begin(self, begin: f64) -> Self {
        Self { begin, ..self }
    }

    /// With another [`end`](Self::end).
    pub fn with_end(self, end: f64) -> Self {
        Self { end, ..self }
    }

    /// With another [`ramp`](Self::ramp).
    pub fn with_ramp(self, ramp: Ramp) -> Self {
        Self { ramp, ..self }
    }

    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Where `from` or `to` is not finite, `end` is not in [0, 1] or `begin` not in [0, `end`], or
    /// there are no steps.
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = "Schedule";
        check::range(name, "from", self.from, -f64::MAX, f64::MAX)?;
        check::range(name, "to", self.to, -f64::MAX, f64::MAX)?;
        check::range(name, "end", self.end, 0.0, 1.0)?;
        check::range(name, "begin", self.begin, 0.0, self.end)?;
        if self.ramp == Ramp::Steps(0) {
            let problem = "has no steps, it needs at least one";
            return Err(ConfigError::new(name, "ramp", problem));
        }
        Ok(())
    }

    /// The value when a share `progress` of the training is done: 0 at its beginning, 1 at its end.
    ///
    /// # Panics
    ///
    /// Where `progress` is NaN, or [`check`](Self::check) fails.
    #[track_caller]
    pub fn at(&self, progress: f64) -> f64 {
        check::or_panic(self.check());
        assert!(!progress.is_nan(), "Schedule: `progress` is NaN");
        let done = if progress >= self.end {
            1.0
        } else {
            ((progress - self.begin) / (self.end - self.begin)).max(0.0)
        };
        let way = match self.ramp {
            Ramp::Linear => done,
            Ramp::Cosine => (1.0 - (std::f64::consts::PI * done).cos()) / 2.0,
            Ramp::Steps(count) => ((done * (count + 1) as f64).floor() / count as f64).min(1.0),
        };
        // Exact at both ends.
        self.from * (1.0 - way) + self.to * way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(ramp: Ramp) -> Schedule {
        Schedule::new(1.0, 0.0).with_ramp(ramp)
    }

    #[test]
    fn every_ramp_goes_from_its_first_to_its_last_value_without_turning_back() {
        for ramp in [Ramp::Linear, Ramp::Cosine, Ramp::Steps(1), Ramp::Steps(4)] {
            let schedule = down(ramp);
            assert_eq!([schedule.at(-1.0), schedule.at(0.0)], [1.0, 1.0]);
            assert_eq!([schedule.at(1.0), schedule.at(7.0)], [0.0, 0.0]);
            let values: Vec<f64> = (0..=100).map(|k| schedule.at(k as f64 / 100.0)).collect();
            assert!(
                values.windows(2).all(|w| w[1] <= w[0]),
                "{ramp:?}: {values:?}"
            );
        }
    }

    #[test]
    fn quarters_by_hand() {
        let at = |ramp| [0.25, 0.5, 0.75].map(|progress| down(ramp).at(progress));
        assert_eq!(at(Ramp::Linear), [0.75, 0.5, 0.25]);
        assert_eq!(at(Ramp::Steps(1)), [1.0, 0.0, 0.0]);
        assert_eq!(at(Ramp::Steps(3)), [1.0 - 1.0 / 3.0, 1.0 - 2.0 / 3.0, 0.0]);
        let cosine = at(Ramp::Cosine);
        assert!((cosine[0] - (1.0 + 0.5f64.sqrt()) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_value_changes_between_begin_and_end_alone() {
        let schedule = Schedule::new(0.0, 2.0).with_begin(0.2).with_end(0.6);
        let at = [0.0, 0.2, 0.4, 0.6, 1.0].map(|progress| schedule.at(progress));
        for (value, expected) in at.into_iter().zip([0.0, 0.0, 1.0, 2.0, 2.0]) {
            assert!((value - expected).abs() < 1e-12, "{at:?}");
        }
        let jump = Schedule::new(0.0, 1.0).with_begin(0.5).with_end(0.5);
        assert_eq!([jump.at(0.4), jump.at(0.5)], [0.0, 1.0]);
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let error = Schedule::new(f64::NAN, 0.0).check().unwrap_err();
        assert_eq!((error.config(), error.field()), ("Schedule", "from"));
        let reversed = Schedule::new(0.0, 1.0).with_begin(0.5).with_end(0.4);
        assert_eq!(reversed.check().unwrap_err().field(), "begin");
        assert_eq!(down(Ramp::Steps(0)).check().unwrap_err().field(), "ramp");
    }

    #[test]
    fn settings_read_json_and_refuse_what_they_do_not_have() {
        let json = r#"{"alpha": {"from": 1.0, "to": 0.0}}"#;
        let schedules: Settings<Schedule> = serde_json::from_str(json).unwrap();
        assert_eq!(schedules.at(0.25).alpha, Some(0.75));
        let unknown = serde_json::from_str::<Settings>(r#"{"beta": 1.0}"#);
        assert!(unknown.unwrap_err().to_string().contains("beta"));
    }
}
