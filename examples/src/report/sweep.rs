//! Results by the value of a parameter.

use serde::{Deserialize, Serialize};

use crate::number;

/// Results of runs that differ in a parameter, or in several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// What was compared.
    pub title: String,
    /// The parameter that differs: `removal threshold`; several with commas between.
    pub parameter: String,
    /// What was measured: `image → text R@1`.
    pub columns: Vec<String>,
    /// The results by the value of the parameter, in the order of the table.
    pub rows: Vec<SweepRow>,
    /// What they are compared with. Its `value` is a name: `SRCL`.
    pub baseline: Option<SweepRow>,
}

/// Results of one value of the parameter, perhaps of several runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SweepRow {
    /// The value, as the table shows it: `0.3`, `none`.
    pub value: String,
    /// One number for each column, the mean of the runs; not finite where there is none, `null` in
    /// JSON.
    #[serde(with = "number::each_or_null")]
    pub numbers: Vec<f64>,
    /// The value as a number, for the chart. Where no row has one, the chart names the rows.
    pub numeric: Option<f64>,
    /// The runs that the row is the mean of, which differ in their seeds; empty where it is one.
    #[serde(default)]
    pub runs: Vec<SweepRun>,
    /// For each column, the [standard deviation](Self::deviation) of the runs; empty where it is
    /// one.
    #[serde(default, with = "number::each_or_null")]
    pub deviations: Vec<f64>,
    /// For each column, the [standard error](Self::standard_error) of the mean; empty where there
    /// is one run.
    #[serde(default, with = "number::each_or_null")]
    pub standard_errors: Vec<f64>,
}

/// One of the runs of a row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SweepRun {
    /// The name of its folder.
    pub name: String,
    /// One number for each column; not finite where there is none, `null` in JSON.
    #[serde(with = "number::each_or_null")]
    pub numbers: Vec<f64>,
}

impl SweepRow {
    /// The mean of runs that differ in their seeds.
    pub fn of_runs(value: String, numeric: Option<f64>, mut runs: Vec<SweepRun>) -> Self {
        let columns = runs.first().map_or(0, |run| run.numbers.len());
        let mean = |column| {
            let numbers = runs.iter().map(|run| run.numbers[column]);
            numbers.sum::<f64>() / runs.len() as f64
        };
        let numbers = (0..columns).map(mean).collect();
        if runs.len() < 2 {
            runs.clear();
        }
        let mut row = Self {
            value,
            numbers,
            numeric,
            runs,
            ..Self::default()
        };
        let all = 0..columns;
        row.deviations = all.clone().filter_map(|at| row.deviation(at)).collect();
        row.standard_errors = all.filter_map(|at| row.standard_error(at)).collect();
        row
    }

    /// The standard deviation of the runs in a column, of a sample (divided by one less than their
    /// number); `None` where there is one run.
    pub fn deviation(&self, column: usize) -> Option<f64> {
        if self.runs.len() < 2 {
            return None;
        }
        let mean = self.numbers[column];
        let squares = self.runs.iter().map(|run| run.numbers[column] - mean);
        let sum: f64 = squares.map(|difference| difference * difference).sum();
        Some((sum / (self.runs.len() - 1) as f64).sqrt())
    }

    /// The standard error of the mean in a column: the deviation divided by the root of the number
    /// of runs; `None` where there is one run.
    pub fn standard_error(&self, column: usize) -> Option<f64> {
        let deviation = self.deviation(column)?;
        Some(deviation / (self.runs.len() as f64).sqrt())
    }

    /// The run that is the median by its last number, which for retrieval is R@sum: what 004 §IV.B
    /// compares with other methods. Of an even number, the lower of the two in the middle.
    pub fn median(&self) -> Option<&SweepRun> {
        let last = |run: &&SweepRun| run.numbers.last().copied().unwrap_or(f64::NAN);
        let mut runs: Vec<&SweepRun> = self.runs.iter().collect();
        runs.sort_by(|a, b| last(a).total_cmp(&last(b)));
        runs.get(runs.len().saturating_sub(1) / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(numbers: &[[f64; 2]]) -> SweepRow {
        let runs = (0..).zip(numbers).map(|(seed, numbers)| SweepRun {
            name: format!("seed-{seed}"),
            numbers: numbers.to_vec(),
        });
        SweepRow::of_runs("0.1".into(), Some(0.1), runs.collect())
    }

    #[test]
    fn a_row_is_the_mean_of_its_runs_with_the_deviation_of_a_sample() {
        let row = row(&[[1.0, 30.0], [2.0, 10.0], [6.0, 20.0]]);
        assert_eq!(row.numbers, [3.0, 20.0]);
        assert_eq!(row.deviation(0), Some(7_f64.sqrt()));
        assert_eq!(row.deviation(1), Some(10.0));
        assert_eq!(row.standard_error(1), Some(10.0 / 3_f64.sqrt()));
        assert_eq!(row.deviations, [7_f64.sqrt(), 10.0]);
        let errors = [7_f64.sqrt() / 3_f64.sqrt(), 10.0 / 3_f64.sqrt()];
        assert_eq!(row.standard_errors, errors);
        assert_eq!(row.median().unwrap().name, "seed-2");
    }

    #[test]
    fn one_run_has_no_deviation_and_of_two_the_lower_is_the_median() {
        let one = row(&[[1.0, 30.0]]);
        assert_eq!(one.numbers, [1.0, 30.0]);
        assert_eq!((one.deviation(0), one.median()), (None, None));
        assert_eq!(one.standard_error(0), None);
        assert!(one.deviations.is_empty() && one.standard_errors.is_empty());
        let two = row(&[[1.0, 30.0], [2.0, 10.0]]);
        assert_eq!(two.median().unwrap().name, "seed-1");
    }

    #[test]
    fn a_run_without_a_number_leaves_the_mean_without_one() {
        let row = row(&[[f64::NAN, 30.0], [2.0, 10.0]]);
        assert!(row.numbers[0].is_nan() && row.deviation(0).unwrap().is_nan());
        assert_eq!(row.numbers[1], 20.0);
    }
}
