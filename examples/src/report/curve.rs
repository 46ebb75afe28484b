//! A quantity over the optimisation steps.

use serde::{Deserialize, Serialize};

use crate::number;

/// One value of a [`Curve`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Number of optimisation steps done.
    pub step: u64,
    /// The value; not finite where the quantity had none, `null` in JSON.
    #[serde(with = "number::or_null")]
    pub value: f64,
}

/// One of several curves, told apart by their names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamedCurve {
    /// What it is a curve of.
    pub name: String,
    /// The curve.
    pub curve: Curve,
    /// A value to compare it with, if there is one.
    #[serde(default)]
    pub reference: Option<Reference>,
}

/// A value that a curve is compared with, drawn as a horizontal line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// What the value is: `ln N`.
    pub label: String,
    /// The value; no line where it is not finite, `null` in JSON.
    #[serde(with = "number::or_null")]
    pub value: f64,
}

/// A quantity over the optimisation steps, in their order. Serialises as a list of points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Curve {
    /// The points, by increasing step.
    pub points: Vec<Point>,
}

impl Curve {
    /// Appends the value after `step` steps.
    pub fn push(&mut self, step: u64, value: f64) {
        self.points.push(Point { step, value });
    }

    /// Whether no point has a finite value.
    pub fn is_blank(&self) -> bool {
        self.finite().next().is_none()
    }

    /// The points with a finite value.
    pub(super) fn finite(&self) -> impl DoubleEndedIterator<Item = Point> + '_ {
        self.points
            .iter()
            .copied()
            .filter(|point| point.value.is_finite())
    }

    /// Exponential moving average over about `window` points, without the bias towards the first
    /// ones that a plain one has. Values that are not finite stay as they are and do not enter the
    /// average.
    pub fn smoothed(&self, window: f64) -> Self {
        let keep = 1.0 - 1.0 / window.max(1.0);
        let (mut sum, mut weight) = (0.0, 0.0);
        let points = self.points.iter().map(|&point| {
            if !point.value.is_finite() {
                return point;
            }
            sum = keep * sum + (1.0 - keep) * point.value;
            weight = keep * weight + (1.0 - keep);
            Point {
                value: sum / weight,
                ..point
            }
        });
        Self {
            points: points.collect(),
        }
    }

    /// The same curve in about `limit` points: the smallest and the largest of each stretch, so
    /// that spikes remain. A stretch without any finite value leaves one point without a value.
    pub(super) fn thinned(&self, limit: usize) -> Self {
        if self.points.len() <= limit {
            return self.clone();
        }
        let stretch = self.points.len().div_ceil((limit / 2).max(1));
        let mut points = Vec::with_capacity(limit);
        for part in self.points.chunks(stretch) {
            let finite = || part.iter().filter(|point| point.value.is_finite());
            let by_value = |a: &&Point, b: &&Point| a.value.total_cmp(&b.value);
            match (finite().min_by(by_value), finite().max_by(by_value)) {
                (Some(low), Some(high)) if low.step < high.step => points.extend([*low, *high]),
                (Some(low), Some(high)) if low.step > high.step => points.extend([*high, *low]),
                (Some(low), Some(_)) => points.push(*low),
                _ => points.push(part[0]),
            }
        }
        Self { points }
    }
}

impl FromIterator<(u64, f64)> for Curve {
    fn from_iter<I: IntoIterator<Item = (u64, f64)>>(points: I) -> Self {
        let mut curve = Self::default();
        for (step, value) in points {
            curve.push(step, value);
        }
        curve
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_a_constant_from_its_first_point() {
        let curve: Curve = (0..50).map(|step| (step, 3.0)).collect();
        for point in curve.smoothed(10.0).points {
            assert!((point.value - 3.0).abs() < 1e-12);
        }
    }

    #[test]
    fn smoothing_continues_after_a_gap() {
        let curve: Curve = [(0, 2.0), (1, f64::NAN), (2, 2.0)].into_iter().collect();
        let smooth = curve.smoothed(5.0);
        assert!(smooth.points[1].value.is_nan());
        assert!((smooth.points[2].value - 2.0).abs() < 1e-12);
    }

    #[test]
    fn thinning_keeps_spikes_order_and_gaps() {
        let mut curve: Curve = (0..10_000).map(|step| (step, 1.0)).collect();
        curve.points[5_000].value = 9.0;
        for point in &mut curve.points[7_000..7_500] {
            point.value = f64::NAN;
        }
        let thin = curve.thinned(400);
        assert!(thin.points.len() <= 400);
        assert!(thin.points.iter().any(|point| point.value == 9.0));
        assert!(thin.points.iter().any(|point| point.value.is_nan()));
        assert!(thin.points.is_sorted_by(|a, b| a.step < b.step));
    }
}
