//! The matrix of cosines, one block at a time.

use std::ops::Range;

use burn::tensor::{DType, FloatDType, Int, Tensor, TensorData};

/// How many similarities are held at a time: `rows` × `columns` of the matrix.
///
/// Rows are images (or queries), columns texts (or candidates). The default, 512 × 2,048, keeps a matrix product busy on two CPU
/// cores and costs at most 24 MiB; a GPU likes larger ones.
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
    pub const BYTES_PER_SIMILARITY: usize = 24;

    /// Blocks of `rows` × `columns`.
    ///
    /// # Panics
    /// If either is 0 or above 2²⁴ (counts in a block are exact in f32 up to there).
    #[track_caller]
    pub fn new(rows: usize, columns: usize) -> Self {
        for (name, length) in [("rows", rows), ("columns", columns)] {
            assert!(
                (1..=1 << 24).contains(&length),
                "{name}: a block needs 1 to 2^24 {name}, got {length}"
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
    /// Check, detach, widen and normalise the embeddings; the names are those of the caller's arguments.
    #[track_caller]
    pub(super) fn new(
        (rows_name, rows): (&str, Tensor<2>),
        (columns_name, columns): (&str, Tensor<2>),
    ) -> Self {
        let [row_count, width] = rows.dims();
        let [column_count, columns_width] = columns.dims();
        for (name, count) in [(rows_name, row_count), (columns_name, column_count)] {
            assert!(count > 0, "{name}: need at least one embedding, got none");
        }
        assert!(
            width > 0,
            "{rows_name}: embeddings need at least one dimension, got shape [{row_count}, 0]"
        );
        assert_eq!(
            width, columns_width,
            "{columns_name}: need embeddings of {rows_name}' width, {width}, got shape [{column_count}, {columns_width}]"
        );
        assert!(
            rows.device() == columns.device(),
            "{columns_name}: need {rows_name}' device, {:?}, got {:?}",
            rows.device(),
            columns.device()
        );
        let (dtype, epsilon) = if [rows.dtype(), columns.dtype()].contains(&DType::F64) {
            (FloatDType::F64, f64::EPSILON)
        } else {
            (FloatDType::F32, f64::from(f32::EPSILON))
        };
        let rows = rows.inner().cast(dtype);
        let columns = columns.inner().cast(dtype);
        Self {
            finite_rows: finite(&rows),
            finite_columns: finite(&columns),
            rows: l2_normalize(rows),
            columns: l2_normalize(columns),
            tie: 2.0 * epsilon * (width as f64).sqrt(),
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

/// Rows of unit norm; a zero row stays zero.
fn l2_normalize(rows: Tensor<2>) -> Tensor<2> {
    let largest = rows.clone().abs().max_dim(1);
    let largest = largest.clone().mask_fill(largest.equal_elem(0.0), 1.0);
    let rows = rows / largest;
    let norm = rows.clone().square().sum_dim(1).sqrt();
    let norm = norm.clone().mask_fill(norm.equal_elem(0.0), 1.0);
    rows / norm
}
