//! The blocks of a pass, and the loop over them.

use std::ops::Range;

use super::pass::{Pass, Steps};

/// A block of the matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub rows: Part,
    pub columns: Part,
    /// Whether it stands for its transpose too: an off-diagonal block of a symmetric pass.
    pub is_mirrored: bool,
    /// Whether its columns are its rows once more: a diagonal block of a symmetric pass.
    pub is_own_transpose: bool,
}

/// Some consecutive rows, or columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Among the parts of its side.
    pub index: usize,
    pub start: usize,
    pub len: usize,
}

impl Part {
    /// The parts of a side, each at most `size` long.
    pub fn all(len: usize, size: usize) -> impl Iterator<Item = Self> {
        (0..len)
            .step_by(size)
            .enumerate()
            .map(move |(index, start)| Self {
                index,
                start,
                len: size.min(len - start),
            })
    }

    /// One alone.
    pub fn from(range: Range<usize>) -> Self {
        Self {
            index: 0,
            start: range.start,
            len: range.len(),
        }
    }

    pub fn end(self) -> usize {
        self.start + self.len
    }
}

impl Block {
    /// One alone.
    pub fn new(rows: Part, columns: Part) -> Self {
        Self {
            rows,
            columns,
            is_mirrored: false,
            is_own_transpose: false,
        }
    }

    /// The blocks of an `[n, m]` matrix, row by row; of a symmetric one those on and above the
    /// diagonal.
    pub fn all(
        symmetric: bool,
        [n, m]: [usize; 2],
        size: [usize; 2],
    ) -> impl Iterator<Item = Self> {
        let pairs = Part::all(n, size[0])
            .flat_map(move |rows| Part::all(m, size[1]).map(move |columns| (rows, columns)));
        pairs
            .filter(move |(rows, columns)| !symmetric || columns.start >= rows.start)
            .map(move |(rows, columns)| Self {
                rows,
                columns,
                is_mirrored: symmetric && columns.start != rows.start,
                is_own_transpose: symmetric && columns.start == rows.start,
            })
    }

    fn crosses_diagonal(&self, first_row: usize) -> bool {
        let (start, end) = (first_row + self.rows.start, first_row + self.rows.end());
        start < self.columns.end() && self.columns.start < end
    }
}

/// The left or the right side: embeddings, or the gradient by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// What the loop over blocks needs of tensors.
pub(super) trait Sweep {
    /// The coefficients of a block.
    type Coefficients: Clone;

    /// Takes a block into the reductions; its coefficients, where `steps` have some.
    fn reduce(&mut self, block: &Block, steps: &Steps) -> Option<Self::Coefficients>;

    fn transposed(coefficients: Self::Coefficients) -> Self::Coefficients;

    /// Adds the product of coefficients `[to.len, from.1.len]` with embeddings to rows of a
    /// gradient.
    fn add(&mut self, to: (Side, Part), coefficients: Self::Coefficients, from: (Side, Part));
}

/// One pass, block by block.
pub(super) fn run(pass: &Pass, sizes: [usize; 2], size: [usize; 2], sweep: &mut impl Sweep) {
    let anywhere = pass.anywhere();
    for block in Block::all(pass.symmetric, sizes, size) {
        let steps = if block.crosses_diagonal(pass.first_row) {
            &anywhere
        } else {
            &pass.off_diagonal
        };
        let Some(g) = sweep.reduce(&block, steps) else {
            continue;
        };
        run_gradients(pass, &block, g, sweep);
    }
}

fn run_gradients<S: Sweep>(pass: &Pass, block: &Block, g: S::Coefficients, sweep: &mut S) {
    let (rows, columns) = (block.rows, block.columns);
    if pass.left {
        sweep.add((Side::Left, rows), g.clone(), (Side::Right, columns));
    }
    // A symmetric matrix has one gradient: what would go to the right goes to the left.
    let transposed_to = if block.is_mirrored {
        pass.left.then_some(Side::Left)
    } else {
        pass.right.then_some(Side::Right)
    };
    if let Some(to) = transposed_to {
        sweep.add((to, columns), S::transposed(g), (Side::Left, rows));
    }
}
