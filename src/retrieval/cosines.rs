//! The cosines between two sets of embeddings, compared in blocks.

use std::ops::Range;

use burn::tensor::{DType, Tensor};

use crate::check;
use crate::pairwise::{Expr, Pairs};
use crate::similarity::{l2_normalize, rowwise_dot};
use crate::tensor::{read, select_rows, values_like};

/// Rows and columns of a block of cosines that is read from the device: 4 MiB in f32.
pub(super) const BLOCK: [usize; 2] = [512, 2048];

/// Largest number of rows or columns: a count of them is exact in f32.
const MOST: usize = 1 << 24;

/// The cosines between the rows of two sets of embeddings, on the device without autodiff.
pub(super) struct Cosines {
    pub pairs: Pairs,
    /// The normalised embeddings of rows and of columns.
    sides: [Tensor<2>; 2],
    /// Which rows, and which columns, hold neither NaN nor infinity.
    pub finite: [Vec<bool>; 2],
    /// Two cosines that differ by no more than this are equal.
    pub tie: f64,
}

impl Cosines {
    /// Checks, widens and normalises the embeddings; the names are those of the caller and its
    /// arguments.
    #[track_caller]
    pub fn new(
        caller: &str,
        (rows_name, rows): (&'static str, Tensor<2>),
        (columns_name, columns): (&'static str, Tensor<2>),
    ) -> Self {
        let sides = [rows, columns].map(Tensor::without_autodiff);
        let [rows, columns] = &sides;
        check::comparable(caller, (rows_name, rows), (columns_name, columns));
        for (name, side) in [(rows_name, rows), (columns_name, columns)] {
            let count = side.dims()[0];
            assert!(
                count <= MOST,
                "{caller}: `{name}` has {count} rows, it may have {MOST} at most"
            );
        }
        let dtype = check::compute_dtype(rows.dtype());
        let epsilon = match dtype {
            DType::F64 => f64::EPSILON,
            _ => f64::from(f32::EPSILON),
        };
        let width = rows.dims()[1] as f64;
        let sides = sides.map(|side| side.cast(dtype));
        let finite = sides.each_ref().map(finite_rows);
        let sides = sides.map(l2_normalize);
        let [rows, columns] = sides.clone();
        Self {
            pairs: Pairs::new(rows, columns),
            sides,
            finite,
            tie: 2.0 * epsilon * width.sqrt(),
        }
    }

    /// Rows × columns.
    pub fn dims(&self) -> [usize; 2] {
        self.finite.each_ref().map(Vec::len)
    }

    /// Whether no embedding holds a NaN or an infinity.
    pub fn all_finite(&self) -> bool {
        self.finite.iter().flatten().all(|&finite| finite)
    }

    /// Values as a vector beside the embeddings.
    pub fn vector(&self, values: Vec<f64>) -> Tensor<1> {
        let shape = [values.len()];
        values_like(values, shape, &self.sides[0])
    }

    /// 1 where row and column have the same label, else 0; labels are below 2²⁴.
    pub fn same_label(&mut self, rows: &[usize], columns: &[usize]) -> Expr {
        let [rows, columns] = [rows, columns]
            .map(|labels| self.vector(labels.iter().map(|&label| label as f64).collect()));
        self.pairs.row(rows).equal(&self.pairs.column(columns))
    }

    /// The cosine of each column with the row whose index is given for it.
    pub fn of_columns(&self, rows: &[usize]) -> Vec<f64> {
        let mut cosines = Vec::with_capacity(rows.len());
        for columns in spans(rows.len(), BLOCK[0]) {
            let own = select_rows(&self.sides[0], rows[columns.clone()].iter().copied());
            let columns = self.sides[1]
                .clone()
                .narrow(0, columns.start, columns.len());
            cosines.extend(read(rowwise_dot(own, columns)));
        }
        cosines
    }

    /// Blocks of this many rows and columns, or less, that cover the matrix: of all spans of rows,
    /// the spans of columns in order.
    pub fn blocks(
        &self,
        [height, width]: [usize; 2],
    ) -> impl Iterator<Item = (Range<usize>, Vec<Range<usize>>)> {
        let [rows, columns] = self.dims();
        spans(rows, height).map(move |rows| (rows, spans(columns, width).collect()))
    }
}

/// Consecutive spans of `length` or less that cover `0..total`.
fn spans(total: usize, length: usize) -> impl Iterator<Item = Range<usize>> {
    (0..total)
        .step_by(length)
        .map(move |start| start..(start + length).min(total))
}

fn finite_rows(embeddings: &Tensor<2>) -> Vec<bool> {
    let finite = embeddings.clone().is_finite().all_dim(1).into_data();
    finite.iter::<bool>().collect()
}
