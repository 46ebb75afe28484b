//! The kernels: everything but the matrix products.
//!
//! A cube of a GPU has 32 × 8 units and walks along a strip of 32 rows, one tile of 128 columns after
//! the other (see [`Tiling`]). Of each tile a unit takes 4 × 4 pairs, those of a column at a time. It
//! computes the expressions of each, and reduces them along its rows, in registers until the strip
//! ends, and along its columns, which the cube joins tile by tile. Every cube writes its states to a
//! place of its own, and [`merge`] joins these in a fixed order: the same bits in every run.

#![allow(clippy::needless_range_loop)] // Kernels have no iterators.

mod epilogue;
mod expr;
mod join;
mod reduce;
mod rows;
mod state;

use crate::pairwise::reduction::Kind;
use crate::pairwise::tape::Op;

pub(crate) use self::epilogue::{Epilogue, MultipliedLaunch, Onto, TargetLaunch};
pub(crate) use self::expr::PlaceLaunch;
pub(crate) use self::join::{FoundLaunch, finish, gather, merge};
pub(crate) use self::reduce::{GroupLaunch, block};
pub(crate) use self::rows::{gradients, norms};

/// The size of a cube, and how the pairs of a tile are divided among its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tiling {
    /// Units along a row, and along a column: powers of two.
    pub lanes: usize,
    pub lines: usize,
    /// Rows, and columns, that a unit takes: a power of two, neither more than lanes nor lines.
    pub each: usize,
    /// Tiles that a cube walks along.
    pub tiles: usize,
}

impl Tiling {
    /// A GPU has registers for four pairs of a unit at a time. A CPU that emulates one has few, and
    /// takes seconds to compile the steps of several pairs; its planes are narrow. On Burn's `cpu`
    /// a plane is one unit: each unit of a cube is a thread, and a barrier keeps its core busy.
    pub fn of(plane: u32) -> Self {
        let (lanes, lines, each) = match plane {
            1 => (1, 1, 1),
            2..16 => (32, 8, 1),
            _ => (32, 8, 4),
        };
        Self {
            lanes,
            lines,
            each,
            tiles: 8,
        }
    }

    /// Units of a cube, also of the kernels that have one unit an element.
    pub fn units(self) -> usize {
        self.lanes * self.lines
    }

    /// Rows of a tile.
    pub fn rows(self) -> usize {
        self.lines * self.each
    }

    /// Columns of a tile.
    pub fn columns(self) -> usize {
        self.lanes * self.each
    }

    /// Columns of the strip of a cube.
    pub fn span(self) -> usize {
        self.tiles * self.columns()
    }

    /// Values that a cube shares: of each unit, and of one lane more, so many components for each of
    /// its rows (or columns).
    pub fn shared(self, components: usize) -> usize {
        components * self.rows() * (self.lanes + 1)
    }
}

/// A reduction within a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reducing {
    pub kind: Kind,
    /// The steps that it reads.
    pub steps: [usize; 2],
    /// The index of its first component among those of its axis.
    pub component: usize,
}

/// A reduction with the place of its results: after so many vectors of rows and so many of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Resulting {
    pub reducing: Reducing,
    pub before: [usize; 2],
}

/// What is merged of a block, along its rows and its columns, and whether the block changed it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Merging {
    pub tiling: Tiling,
    pub rows: Vec<(Resulting, bool)>,
    pub columns: Vec<(Resulting, bool)>,
    /// Whether there is no other block.
    pub is_alone: bool,
}

/// What a kernel computes of each pair, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Program {
    pub tiling: Tiling,
    pub ops: Vec<Op>,
    pub rows: Vec<Reducing>,
    pub columns: Vec<Reducing>,
    /// The components of all states along the rows, whether this kernel computes them or not.
    pub row_components: usize,
    pub coefficient: Option<usize>,
    /// How many terms coefficients are written as, each in a plane of its own; none where they take
    /// the place of the similarities.
    pub terms: usize,
}

/// Planes begin where a view of a buffer may: at multiples of 512 bytes at most.
pub(crate) const PLANE: usize = 512;

/// From one plane of so many elements to the next.
pub(super) fn plane(elements: usize) -> usize {
    elements.next_multiple_of(PLANE)
}

impl Program {
    /// Values that a cube shares: of rows and columns one after the other.
    fn shared(&self) -> usize {
        let components = components(&self.rows).max(components(&self.columns));
        self.tiling.shared(components).max(1)
    }

    /// Where the cube shares the states of a reduction along the rows.
    fn row_at(&self, k: usize) -> usize {
        self.tiling.shared(components(&self.rows[..k]))
    }

    /// Where the cube shares the states of a reduction along the columns.
    fn column_at(&self, k: usize) -> usize {
        components(&self.columns[..k]) * self.tiling.lines * self.tiling.columns()
    }
}

fn components(reductions: &[Reducing]) -> usize {
    reductions.iter().map(|r| r.kind.components()).sum()
}
