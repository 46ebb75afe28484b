//! The kernels: everything but the matrix products.
//!
//! A cube of a GPU has 32 × 8 units and walks along a strip of 32 rows, one tile of 128 columns after
//! the other (see [`Tiling`]). Of each tile a unit takes 4 × 4 pairs, computes the expressions of
//! each, and reduces them along its rows, in registers until the strip ends, and along its columns,
//! which the cube joins tile by tile. Every cube writes its states to a place of its own, and
//! [`merge`] joins these in their order: the same bits in every run.

#![allow(clippy::needless_range_loop)] // Kernels have no iterators.

mod expr;
mod join;
mod reduce;
mod state;

use crate::pairwise::reduction::Kind;
use crate::pairwise::tape::Op;

pub(crate) use self::expr::PlaceLaunch;
pub(crate) use self::join::{accumulate, finish, merge};
pub(crate) use self::reduce::block;

/// The size of a cube, and how the pairs of a tile are divided among its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tiling {
    /// Units along a row, and along a column.
    pub lanes: usize,
    pub lines: usize,
    /// Rows, and columns, that a unit takes; neither lanes nor lines are fewer.
    pub each: usize,
    /// Tiles that a cube walks along.
    pub tiles: usize,
}

impl Tiling {
    /// A GPU has registers for sixteen pairs a unit. A CPU that emulates one has few, and takes
    /// seconds to compile the steps of sixteen pairs; its planes are narrow.
    pub fn of(plane: u32) -> Self {
        Self {
            lanes: 32,
            lines: 8,
            each: if (1..16).contains(&plane) { 1 } else { 4 },
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

    /// Values that a cube shares: of each unit the components of one state, for each of its rows
    /// (or columns).
    pub fn shared(self) -> usize {
        3 * self.units() * self.each
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
pub(super) const PLANE: usize = 512;

/// From one plane of so many elements to the next.
pub(super) fn plane(elements: usize) -> usize {
    elements.next_multiple_of(PLANE)
}
