//! Tables of numbers, and histograms by name: what a system measures that others do not.

use serde::{Deserialize, Serialize};

use super::Histogram;
use crate::number;

/// A table of numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its heading.
    pub title: String,
    /// What it says, in a sentence or two; may be empty.
    pub lead: String,
    /// What the rows are: `queries`.
    pub rows_are: String,
    /// The headings of its columns: `Prec@5`.
    pub columns: Vec<String>,
    /// Its rows.
    pub rows: Vec<TableRow>,
}

/// A row of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TableRow {
    /// What the numbers are of.
    pub name: String,
    /// One number for each column; not finite where there is none, `null` in JSON.
    #[serde(with = "number::each_or_null")]
    pub numbers: Vec<f64>,
}

/// A histogram with its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedHistogram {
    /// What it shows: `text–image similarities, by class`.
    pub name: String,
    /// Positives and negatives.
    pub histogram: Histogram,
}
