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
    #[serde(with = "number::each_or_null")]
    pub numbers: Vec<f64>,
    /// The value as a number, for the chart. A row without one is in the table only.
    pub numeric: Option<f64>,
}
