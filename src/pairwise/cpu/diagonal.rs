//! The pairs on the diagonal of a block that is multiplied by
//! [matrix units](super::matrix_units).

use super::Inputs;
use super::embeddings::Embeddings;
use super::product::Shared;
use crate::host::Real;
use crate::pairwise::blocks::{Block, Part};

/// Their coefficients. Where row `i` matches column `i`, that one coefficient outweighs all others
/// of its row, and rounding it would be most of the gradient's error: it is multiplied in f32.
pub(super) struct Diagonal {
    /// The row, and the column, of the first of them.
    first: [usize; 2],
    coefficients: Vec<f32>,
}

impl Diagonal {
    /// Takes them out of the block, which has zeros in their places then. Row 0 matches the column
    /// `first_row`.
    ///
    /// # Safety
    ///
    /// The coefficients of the block, whose rows are `stride` apart, are the caller's.
    pub unsafe fn take(
        block: &Block,
        first_row: usize,
        (coefficients, stride): (Shared<f32>, usize),
    ) -> Self {
        let [rows, columns] = [block.rows, block.columns];
        let start = columns.start.max(rows.start + first_row);
        let end = columns.end().min(rows.end() + first_row).max(start);
        let coefficients = (start..end).map(|j| {
            let [row, column] = [j - first_row - rows.start, j - columns.start];
            // SAFETY: the caller's promise.
            std::mem::take(unsafe { &mut *coefficients.at(row * stride + column) })
        });
        Self {
            first: [start - first_row, start],
            coefficients: coefficients.collect(),
        }
    }

    /// Adds what they contribute to those rows of the left gradient, or of the right one.
    pub fn add<T: Real>(&self, inputs: &Inputs<T>, is_left: bool, own: Part, gradient: &mut [f32]) {
        let d = inputs.d;
        let [own_at, other_at] = if is_left { [0, 1] } else { [1, 0] };
        let others = Embeddings::own(inputs)[other_at].from(self.first[other_at]);
        let first = self.first[own_at];
        let mut other = vec![0f32; d];
        for row in own.start.max(first)..own.end().min(first + self.coefficients.len()) {
            let coefficient = self.coefficients[row - first];
            others.read(row - first, &mut other);
            let gradient = &mut gradient[(row - own.start) * d..][..d];
            for (gradient, other) in gradient.iter_mut().zip(&other) {
                *gradient += coefficient * other;
            }
        }
    }
}
