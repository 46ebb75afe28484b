//! The matrix of cosines, one block at a time.

use std::ops::Range;

use burn::tensor::{DType, Int, Tensor, TensorData};

use crate::check;
use crate::similarity::l2_normalize;

/// How many similarities are held at a time: `rows` × `columns` of the matrix.
///
/// Rows are images (or queries), columns texts (or candidates). The default, 512 × 2,048, keeps a matrix product busy on two CPU
/// cores and costs at most 16 MiB; a GPU likes larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    rows: usize,
    columns: usize,
}

impl Default for Blocks {
    fn default() -> Self {
        Self::new(512, 2048)
    }
}

impl Blocks {
    /// Bound on the bytes an evaluation holds for each similarity of a block (in f32; an f64 evaluation holds twice that).
    pub const BYTES_PER_SIMILARITY: usize = 16;

    /// Blocks of `rows` × `columns`.
    ///
    /// # Panics
    /// If either is 0 or above 2²⁴ (counts in a block are exact in f32 up to there).
    #[track_caller]
    pub fn new(rows: usize, columns: usize) -> Self {
        for (name, length) in [("rows", rows), ("columns", columns)] {
            assert!(
                (1..=1 << 24).contains(&length),
                "Blocks: `{name}` is {length}, it must lie in [1, 2^24]"
            );
        }
        Self { rows, columns }
    }

    /// Consecutive spans of rows covering `0..total`.
    pub(super) fn row_spans(&self, total: usize) -> Vec<Range<usize>> {
        spans(total, self.rows)
    }

    /// Consecutive spans of columns covering `0..total`.
    pub(super) fn column_spans(&self, total: usize) -> Vec<Range<usize>> {
        spans(total, self.columns)
    }
}

fn spans(total: usize, length: usize) -> Vec<Range<usize>> {
    (0..total)
        .step_by(length)
        .map(|start| start..(start + length).min(total))
        .collect()
}

/// The cosines between the rows of two sets of embeddings, computed as they are asked for.
pub(super) struct Cosines {
    rows: Tensor<2>,
    columns: Tensor<2>,
    /// Which rows hold neither NaN nor infinity.
    pub(super) finite_rows: Vec<bool>,
    /// Which columns hold neither NaN nor infinity.
    pub(super) finite_columns: Vec<bool>,
    /// Two cosines that differ by no more than this are equal.
    pub(super) tie: f64,
}

impl Cosines {
    /// Check, detach, widen and normalise the embeddings; the names are those of the caller and its arguments.
    #[track_caller]
    pub(super) fn new(
        caller: &str,
        (rows_name, rows): (&'static str, Tensor<2>),
        (columns_name, columns): (&'static str, Tensor<2>),
    ) -> Self {
        let (rows, columns) = (rows.inner(), columns.inner());
        check::comparable(caller, (rows_name, &rows), (columns_name, &columns));
        let dtype = check::compute_dtype(rows.dtype());
        let epsilon = match dtype {
            DType::F64 => f64::EPSILON,
            _ => f64::from(f32::EPSILON),
        };
        let width = rows.dims()[1] as f64;
        let (rows, columns) = (rows.cast(dtype), columns.cast(dtype));
        Self {
            finite_rows: finite(&rows),
            finite_columns: finite(&columns),
            rows: l2_normalize(rows),
            columns: l2_normalize(columns),
            tie: 2.0 * epsilon * width.sqrt(),
        }
    }

    /// Rows × columns.
    pub(super) fn dims(&self) -> [usize; 2] {
        [self.finite_rows.len(), self.finite_columns.len()]
    }

    /// Whether no embedding holds a NaN or an infinity.
    pub(super) fn all_finite(&self) -> bool {
        self.finite_rows
            .iter()
            .chain(&self.finite_columns)
            .all(|&finite| finite)
    }

    /// The cosines of a block, `[rows.len(), columns.len()]`.
    pub(super) fn block(&self, rows: &Range<usize>, columns: &Range<usize>) -> Tensor<2> {
        let rows = self.rows.clone().narrow(0, rows.start, rows.len());
        let columns = self.columns.clone().narrow(0, columns.start, columns.len());
        rows.matmul(columns.transpose())
    }

    /// Numbers on the embeddings' device as one column, `[values.len(), 1]`.
    pub(super) fn int_column(&self, values: impl IntoIterator<Item = usize>) -> Tensor<2, Int> {
        let values: Vec<i32> = values
            .into_iter()
            .map(|value| i32::try_from(value).expect("an index below 2^31"))
            .collect();
        let shape = [values.len(), 1];
        Tensor::from_data(
            TensorData::new(values, shape),
            (&self.rows.device(), DType::I32),
        )
    }
}

/// Which rows hold neither NaN nor infinity.
fn finite(embeddings: &Tensor<2>) -> Vec<bool> {
    let broken = embeddings.clone().is_finite().bool_not().any_dim(1);
    broken
        .into_data()
        .iter::<bool>()
        .map(|broken| !broken)
        .collect()
}
