//! Results by the value of one parameter.

use serde::{Deserialize, Serialize};

use crate::number;

/// Results of runs that differ in one parameter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// What was compared.
    pub title: String,
    /// The parameter that differs: `removal threshold`.
    pub parameter: String,
    /// What was measured: `image → text R@1`.
    pub columns: Vec<String>,
    /// The results by the value of the parameter, in the order of the table.
    pub rows: Vec<SweepRow>,
    /// What they are compared with. Its `value` is a name: `SRCL`.
    pub baseline: Option<SweepRow>,
}

/// Results of one value of the parameter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SweepRow {
    /// The value, as the table shows it: `0.3`, `none`.
    pub value: String,
    /// One number for each column; not finite where there is none, `null` in JSON.
    #[serde(with = "each_or_null")]
    pub numbers: Vec<f64>,
    /// The value as a number, for the chart. A row without one is in the table only.
    pub numeric: Option<f64>,
}

/// As [`number::or_null`], for each number of a list.
mod each_or_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::number::or_null;

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Number(#[serde(with = "or_null")] f64);

    pub fn serialize<S: Serializer>(numbers: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(numbers.iter().map(|&number| Number(number)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let numbers = Vec::<Number>::deserialize(deserializer)?;
        Ok(numbers.into_iter().map(|Number(number)| number).collect())
    }
}
