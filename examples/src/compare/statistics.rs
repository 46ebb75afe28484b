//! Whether objectives differ, from a few runs of each.
//!
//! Runs with the same seed begin with the same parameters and see the same batches, so that a seed
//! is a block: a figure is taken for the sum of what the objective, the seed and chance add to it.
//! Objectives and seeds are fitted by least squares, and chance is estimated from what is left over
//! of all objectives together. Pairs of two objectives alone would leave three degrees of freedom
//! of four seeds, with which next to nothing can be shown; all objectives together leave dozens.
//! That takes for granted that chance is as large for each objective.

use std::collections::BTreeSet;
use std::f64::consts::PI;

/// A figure of runs that differ in their seeds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Each with its seed, ascending.
    pub values: Vec<(u64, f64)>,
}

/// An estimate of a difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// The estimate.
    pub mean: f64,
    /// Its standard error; `None` without a degree of freedom.
    pub error: Option<f64>,
    /// The degrees of freedom of the error.
    pub freedom: usize,
}

impl Sample {
    /// The mean; NaN of no run.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.numbers().sum();
        sum / self.values.len() as f64
    }

    /// The standard error of the mean; `None` of less than two runs.
    pub fn error(&self) -> Option<f64> {
        let (count, mean) = (self.values.len() as f64, self.mean());
        let squares = self.numbers().map(|number| (number - mean).powi(2));
        (count > 1.0).then(|| (squares.sum::<f64>() / (count - 1.0) / count).sqrt())
    }

    /// Its mean as a difference from nothing; `None` of no run.
    pub fn effect(&self) -> Option<Effect> {
        Some(Effect {
            mean: self.mean(),
            error: self.error(),
            freedom: self.values.len().checked_sub(1)?,
        })
    }

    fn numbers(&self) -> impl Iterator<Item = f64> {
        self.values.iter().map(|(_, value)| *value)
    }

    /// The values of two samples put together, seed by seed; without seeds that only one has.
    pub fn with(&self, other: &Self, together: impl Fn(f64, f64) -> f64) -> Self {
        let values = self.values.iter().filter_map(|&(seed, value)| {
            let (_, others) = other.values.iter().find(|(other, _)| *other == seed)?;
            Some((seed, together(value, *others)))
        });
        Self {
            values: values.collect(),
        }
    }
}

impl Effect {
    /// The two-sided p of the t-test; `None` without an error.
    pub fn p(&self) -> Option<f64> {
        Some(two_sided(self.mean / self.error?, self.freedom))
    }

    /// The interval that holds the true value with a chance of 95 %; `None` without an error.
    pub fn interval(&self) -> Option<[f64; 2]> {
        let reach = quantile(0.05, self.freedom) * self.error?;
        Some([self.mean - reach, self.mean + reach])
    }

    /// The least difference whose two-sided p would be at most `level`.
    pub fn least_shown(&self, level: f64) -> Option<f64> {
        Some(quantile(level, self.freedom) * self.error?)
    }
}

/// How each sample differs from that at `reference`, by least squares with an effect for each
/// sample and for each seed, and an error from all residuals: `None` of those that share no seed
/// with it, not even by way of others, and of the reference.
pub fn differences(samples: &[Sample], reference: usize) -> Vec<Option<Effect>> {
    let mut effects = vec![None; samples.len()];
    let blocks = Blocks::around(samples, reference);
    let others: Vec<usize> = blocks
        .members
        .iter()
        .copied()
        .filter(|&one| one != reference)
        .collect();
    // The equations of the samples, once the seeds are solved for.
    let matrix = others
        .iter()
        .map(|&a| others.iter().map(|&b| blocks.factor(a, b)).collect());
    let Some(inverse) = inverted(matrix.collect()) else {
        return effects;
    };
    let right: Vec<f64> = others.iter().map(|&one| blocks.right_side(one)).collect();
    let mut solved = vec![0.0; samples.len()];
    for (&one, row) in others.iter().zip(&inverse) {
        solved[one] = row.iter().zip(&right).map(|(a, b)| a * b).sum();
    }
    let (squares, freedom) = blocks.left_over(&solved);
    for (place, &one) in others.iter().enumerate() {
        let variance = squares / freedom as f64 * inverse[place][place];
        effects[one] = Some(Effect {
            mean: solved[one],
            error: (freedom > 0).then(|| variance.sqrt()),
            freedom,
        });
    }
    effects
}

/// Samples that share seeds, some by way of others, and all seeds of theirs.
struct Blocks<'a> {
    samples: &'a [Sample],
    members: BTreeSet<usize>,
    seeds: BTreeSet<u64>,
}

impl<'a> Blocks<'a> {
    fn around(samples: &'a [Sample], one: usize) -> Self {
        let mut blocks = Self {
            samples,
            members: BTreeSet::from([one]),
            seeds: BTreeSet::new(),
        };
        let seeds_of = |one: usize| samples[one].values.iter().map(|(seed, _)| *seed);
        let mut before = 0;
        while before < blocks.members.len() {
            before = blocks.members.len();
            blocks
                .seeds
                .extend(blocks.members.iter().copied().flat_map(seeds_of));
            let shares = |one: &usize| seeds_of(*one).any(|seed| blocks.seeds.contains(&seed));
            blocks.members.extend((0..samples.len()).filter(shares));
        }
        blocks
    }

    fn value(&self, one: usize, seed: u64) -> Option<f64> {
        let mut values = self.samples[one].values.iter();
        values
            .find(|(other, _)| *other == seed)
            .map(|(_, value)| *value)
    }

    /// The values of a seed, each less what its sample adds.
    fn of_seed(&self, seed: u64, added: impl Fn(usize) -> f64) -> Vec<f64> {
        let members = self.members.iter();
        let less = members.filter_map(|&one| Some(self.value(one, seed)? - added(one)));
        less.collect()
    }

    fn factor(&self, a: usize, b: usize) -> f64 {
        let both = self.samples[a].with(&self.samples[b], |_, _| 0.0);
        let shares = both.values.iter();
        let shares = shares.map(|&(seed, _)| 1.0 / self.of_seed(seed, |_| 0.0).len() as f64);
        let own = if a == b { both.values.len() } else { 0 };
        own as f64 - shares.sum::<f64>()
    }

    fn right_side(&self, one: usize) -> f64 {
        let values = self.samples[one].values.iter();
        let above = values.map(|&(seed, value)| value - mean(&self.of_seed(seed, |_| 0.0)));
        above.sum()
    }

    /// The squares of what neither samples nor seeds explain, and its degrees of freedom.
    fn left_over(&self, solved: &[f64]) -> (f64, usize) {
        let (mut squares, mut count) = (0.0, 0);
        for &seed in &self.seeds {
            let left = self.of_seed(seed, |one| solved[one]);
            let of_seed = mean(&left);
            squares += left
                .iter()
                .map(|value| (value - of_seed).powi(2))
                .sum::<f64>();
            count += left.len();
        }
        let fitted = self.members.len() + self.seeds.len() - 1;
        (squares, count.saturating_sub(fitted))
    }
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

/// The inverse of a symmetric positive definite matrix; `None` of one that is not.
fn inverted(mut matrix: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    let size = matrix.len();
    let unit = |row: usize| (0..size).map(move |column| f64::from(u8::from(row == column)));
    let mut inverse: Vec<Vec<f64>> = (0..size).map(|row| unit(row).collect()).collect();
    for pivot in 0..size {
        let by = matrix[pivot][pivot];
        if by.is_nan() || by < 1e-9 {
            return None;
        }
        for rows in [&mut matrix, &mut inverse] {
            rows[pivot].iter_mut().for_each(|value| *value /= by);
        }
        for row in (0..size).filter(|row| *row != pivot) {
            let factor = matrix[row][pivot];
            for rows in [&mut matrix, &mut inverse] {
                let of_pivot = rows[pivot].clone();
                let values = rows[row].iter_mut().zip(of_pivot);
                values.for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
    }
    Some(inverse)
}

/// The t of Student's distribution whose two-sided p is `level`, by bisection.
fn quantile(level: f64, freedom: usize) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    while two_sided(high, freedom) > level && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if two_sided(middle, freedom) > level {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
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
    fn quantiles_are_where_the_chance_is() {
        // scipy.stats.t.ppf([0.975, 1 − 0.05/14], 31).
        assert!((quantile(0.05, 31) - 2.039_513_45).abs() < 1e-7);
        assert!((quantile(0.05 / 7.0, 31) - 2.880_444_16).abs() < 1e-7);
    }

    #[test]
    fn differences_are_those_of_least_squares() {
        let sample = |values: &[(u64, f64)]| Sample {
            values: values.to_vec(),
        };
        let samples = [
            sample(&[(1, 5.0), (2, 7.0), (3, 6.5), (4, 8.0)]),
            sample(&[(1, 6.1), (2, 8.3), (3, 7.4), (4, 9.9)]),
            sample(&[(1, 4.2), (2, 6.6)]),
            sample(&[(2, 9.0), (3, 7.7)]),
            sample(&[(1, 5.5)]),
            // Shares no seed with any.
            sample(&[(9, 1.0), (8, 2.0)]),
        ];
        // By numpy.linalg.lstsq on a column for each sample but the first and for each seed; the
        // variance is that of the residuals, the sum of squares over 13 − 8, times the diagonal of
        // the inverse of XᵀX; p by scipy.stats.t with 5 degrees of freedom.
        let expected = [
            (1.3, 0.203_399_676_9, 0.001_388_929_38),
            (-0.597_142_857_1, 0.265_757_293_0, 0.074_561_771_7),
            (1.682_857_142_9, 0.265_757_293_0, 0.001_448_533_70),
            (0.634_285_714_3, 0.356_882_190_6, 0.135_666_382_8),
        ];
        let found = differences(&samples, 0);
        assert_eq!((found[0], found[5]), (None, None));
        for (found, (mean, error, p)) in found[1..5].iter().flatten().zip(expected) {
            assert_eq!(found.freedom, 5);
            assert!((found.mean - mean).abs() < 1e-9, "{found:?}");
            assert!((found.error.unwrap() - error).abs() < 1e-9, "{found:?}");
            assert!((found.p().unwrap() - p).abs() < 1e-9, "{found:?}");
        }
        let [low, high] = found[2].unwrap().interval().unwrap();
        assert!((low + 1.280_293_727_2).abs() < 1e-7 && (high - 0.086_008_012_9).abs() < 1e-7);
        // With another reference, the same the other way round.
        let other = differences(&samples, 1)[0].unwrap();
        assert!((other.mean + 1.3).abs() < 1e-9);
        assert!((other.error.unwrap() - expected[0].1).abs() < 1e-9);
    }

    #[test]
    fn of_two_with_all_seeds_it_is_the_paired_test() {
        let pair = [sample(&[5.0, 7.0, 9.0]), sample(&[6.0, 9.0, 12.0])];
        // Differences 1, 2 and 3: deviation 1, t = 2·√3 with 2 degrees of freedom.
        let found = differences(&pair, 0)[1].unwrap();
        assert_eq!(found.freedom, 2);
        assert!((found.mean - 2.0).abs() < 1e-12);
        assert!((found.error.unwrap() - 1.0 / 3.0_f64.sqrt()).abs() < 1e-12);
        assert!((found.p().unwrap() - 0.074_179_9).abs() < 1e-6);
    }

    #[test]
    fn few_or_equal_runs_prove_nothing() {
        let one = differences(&[sample(&[4.0, 9.0]), sample(&[5.0])], 0)[1].unwrap();
        assert_eq!((one.mean, one.error, one.p()), (1.0, None, None));
        assert_eq!(differences(&[sample(&[]), sample(&[1.0])], 0), [None, None]);
        let equal = sample(&[5.0, 6.0]);
        let equal = differences(&[equal.clone(), equal], 0)[1].unwrap();
        assert_eq!((equal.mean, equal.p()), (0.0, Some(1.0)));
        assert!(sample(&[]).mean().is_nan() && sample(&[3.0]).error().is_none());
        assert_eq!(sample(&[]).effect(), None);
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
