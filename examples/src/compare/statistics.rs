//! Means of a few runs, and whether two objectives differ.
//!
//! Runs with the same seed begin with the same parameters and see the same batches, so that they
//! are compared in pairs. With four seeds a test by ranks cannot find a difference at all: the
//! smallest two-sided p of Wilcoxon's is 2/2⁴ = 0.125. The paired t-test can, and what it takes
//! for granted, that differences are normally distributed, four of them cannot contradict. It is
//! corrected for the number of objectives by Holm's method, which holds whatever the dependence
//! between them: all are compared with the same runs.

use std::f64::consts::PI;

/// A figure of runs that differ in their seeds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Each with its seed, ascending.
    pub values: Vec<(u64, f64)>,
}

/// How a sample differs from another one in pairs of the same seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The number of pairs.
    pub pairs: usize,
    /// The mean difference.
    pub mean: f64,
    /// Its standard error; `None` of one pair.
    pub error: Option<f64>,
    /// The two-sided p of the paired t-test; `None` of one pair.
    pub p: Option<f64>,
}

impl Sample {
    /// The mean; NaN of no run.
    pub fn mean(&self) -> f64 {
        mean(&self.numbers())
    }

    /// The standard error of the mean; `None` of less than two runs.
    pub fn error(&self) -> Option<f64> {
        error(&self.numbers())
    }

    fn numbers(&self) -> Vec<f64> {
        self.values.iter().map(|(_, value)| *value).collect()
    }

    /// How it differs from `other`; `None` without a seed that both have.
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        let of_seed = |seed: u64| other.values.iter().find(|(other, _)| *other == seed);
        let pairs = self.values.iter();
        let pairs = pairs.filter_map(|(seed, value)| Some(value - of_seed(*seed)?.1));
        let differences: Vec<f64> = pairs.collect();
        let (mean, error) = (mean(&differences), error(&differences));
        (!differences.is_empty()).then(|| Difference {
            pairs: differences.len(),
            mean,
            error,
            p: error.map(|error| two_sided(mean / error, differences.len() - 1)),
        })
    }
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

fn error(numbers: &[f64]) -> Option<f64> {
    let count = numbers.len() as f64;
    let mean = mean(numbers);
    let squares = numbers.iter().map(|number| (number - mean).powi(2));
    (numbers.len() > 1).then(|| (squares.sum::<f64>() / (count - 1.0) / count).sqrt())
}

/// The chance that Student's t with so many degrees of freedom is as far from 0 as `t`: 1 for NaN,
/// the t of equal samples. (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4.)
fn two_sided(t: f64, freedom: usize) -> f64 {
    if t.is_nan() {
        return 1.0;
    }
    let angle = (t.abs() / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let is_odd = freedom % 2 == 1;
    let mut term = if is_odd { cosine } else { 1.0 };
    let (mut sum, mut index) = (0.0, 2 + usize::from(is_odd));
    while index <= freedom {
        sum += term;
        term *= cosine * cosine * (index - 1) as f64 / index as f64;
        index += 2;
    }
    let within = if is_odd {
        2.0 / PI * (angle + sine * sum)
    } else {
        sine * sum
    };
    (1.0 - within).clamp(0.0, 1.0)
}

/// The p values of several tests, each adjusted for their number by Holm's method (Holm 1979):
/// below a level α for the tests whose null hypotheses are rejected, where the chance of even one
/// wrong rejection is at most α.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let (mut adjusted, mut least) = (vec![1.0; p.len()], 0.0_f64);
    for (place, &test) in order.iter().enumerate() {
        least = least.max((p.len() - place) as f64 * p[test]);
        adjusted[test] = least.min(1.0);
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: &[f64]) -> Sample {
        Sample {
            values: (1..).zip(values.iter().copied()).collect(),
        }
    }

    #[test]
    fn student_t_has_the_values_of_tables() {
        // The 97.5 % quantiles.
        for (freedom, t) in [
            (1, 12.706_204_7),
            (2, 4.302_652_7),
            (3, 3.182_446_3),
            (4, 2.776_445_1),
            (7, 2.364_624_3),
            (10, 2.228_138_9),
        ] {
            assert!((two_sided(t, freedom) - 0.05).abs() < 1e-7, "{freedom}");
            assert!((two_sided(-t, freedom) - 0.05).abs() < 1e-7, "{freedom}");
        }
        assert_eq!(two_sided(0.0, 3), 1.0);
        assert!(two_sided(f64::INFINITY, 3) < 1e-15);
    }

    #[test]
    fn a_difference_is_that_of_equal_seeds() {
        let one = sample(&[5.0, 7.0, 9.0, 8.0]);
        // Seeds 2 to 4 are shared.
        let other = Sample {
            values: vec![(2, 6.0), (3, 7.0), (4, 5.0), (9, 100.0)],
        };
        let found = one.difference(&other).unwrap();
        assert_eq!((found.pairs, found.mean), (3, 2.0));
        // Differences 1, 2 and 3: deviation 1, t = 2·√3 with 2 degrees of freedom.
        assert!((found.error.unwrap() - 1.0 / 3.0_f64.sqrt()).abs() < 1e-12);
        assert!((found.p.unwrap() - 0.074_179_9).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn few_or_equal_runs_prove_nothing() {
        let one = sample(&[5.0]).difference(&sample(&[4.0, 9.0])).unwrap();
        assert_eq!((one.mean, one.error, one.p), (1.0, None, None));
        assert_eq!(sample(&[]).difference(&sample(&[1.0])), None);
        let equal = sample(&[5.0, 6.0])
            .difference(&sample(&[5.0, 6.0]))
            .unwrap();
        assert_eq!((equal.mean, equal.p), (0.0, Some(1.0)));
        assert!(sample(&[]).mean().is_nan() && sample(&[3.0]).error().is_none());
    }

    #[test]
    fn holm_multiplies_by_what_is_left_and_keeps_the_order() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        let expected = [0.03, 0.06, 0.06, 0.02];
        for (found, expected) in adjusted.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{adjusted:?}");
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert_eq!(holm(&[]), [0.0; 0]);
    }
}
