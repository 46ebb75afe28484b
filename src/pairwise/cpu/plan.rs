//! How a pass is divided into blocks and tiles, and which blocks are kept.

use std::ops::Deref;

use super::packed::is_packed;
use super::tile::STRIP;
use crate::host::Real;
use crate::pairwise::blocks::Block;
use crate::pairwise::pass::Pass;

/// Sizes that steer a pass; they change results by rounding at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    /// Rows and columns of a tile: the columns at most [`STRIP`], a symmetric matrix's tiles
    /// square.
    pub tile: [usize; 2],
    /// Rows and columns of a block; a symmetric matrix's blocks are square.
    pub block: [usize; 2],
    /// How many threads share a block. A block's part of a gradient is computed in as many bands.
    pub threads: usize,
}

impl Tiling {
    /// Of a matrix of `[n, m]` similarities of embeddings of a width.
    ///
    /// Large tiles make the products efficient, and enough of them keep all threads busy.
    pub fn new<T: Real>(pass: &Pass, [n, m, width]: [usize; 3], threads: usize) -> Self {
        let block = Self::block::<T>(pass, [m, width]);
        let mut tile = [STRIP.min(n), STRIP.min(m)].map(|side| side.next_power_of_two().max(64));
        if pass.symmetric {
            tile = [tile[0]; 2];
        }
        let [rows, columns] = [block[0].min(n), block[1].min(m)];
        while tile[0] > 64 && rows.div_ceil(tile[0]) * columns.div_ceil(tile[1]) < threads {
            // A symmetric matrix's tiles are square, and half of them are enough.
            tile[0] /= 2;
            tile[1] = if pass.symmetric { tile[0] } else { tile[1] };
        }
        Self {
            tile,
            block,
            threads,
        }
    }

    /// The same for any count of threads: a backward pass finds kept blocks where the forward pass,
    /// maybe of another thread pool, left them.
    fn block<T: Real>(pass: &Pass, [m, width]: [usize; 2]) -> [usize; 2] {
        const SIDE: usize = 64;
        let elements = pass.limits.block / size_of::<T>();
        let multiple = |len: usize| (len / SIDE).max(1) * SIDE;
        // What is packed of a row or a column shares the memory of the block: its embedding, for
        // the similarities and for gradients, and those of teachers.
        let teachers = pass.teachers.iter().map(|teacher| teacher.width);
        let width = 2 * width + teachers.sum::<usize>();
        let packed = if is_packed::<T>() { width } else { 0 };
        if pass.symmetric {
            let half = GAP / 2 + packed;
            return [multiple((elements + half * half).isqrt().saturating_sub(half)); 2];
        }
        let most = if is_packed::<T>() { 2048 } else { 4096 };
        let most = (elements / SIDE)
            .min(most)
            .min(elements / 2 / packed.max(1));
        let columns = multiple(most.min(m.next_multiple_of(SIDE)));
        let rows = elements.saturating_sub(columns * packed) / (columns + GAP + packed);
        [multiple(rows), columns]
    }

    /// The least number of tasks that a thread takes. One thread takes all of them, and rayon then
    /// runs them where they are, without its pool.
    pub fn tasks_each(&self) -> usize {
        if self.threads == 1 { usize::MAX } else { 1 }
    }
}

/// Elements between the rows of a block: were the rows powers of two apart, those of a tile would
/// compete for a few lines of the cache.
const GAP: usize = 16;

/// A block of the matrix, and where it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    block: Block,
    pub kept_at: Option<usize>,
}

impl Deref for Stored {
    type Target = Block;

    fn deref(&self) -> &Block {
        &self.block
    }
}

impl Stored {
    /// From one row to the next.
    pub fn stride(&self) -> usize {
        self.columns.len + GAP
    }

    /// How many elements its similarities take.
    pub fn len(&self) -> usize {
        self.rows.len * self.stride()
    }
}

/// The blocks in order; as many of the first are kept as there is room for, each with the
/// similarities of the teachers behind its own.
pub(super) fn blocks<T>(tiling: &Tiling, pass: &Pass, n: usize, m: usize) -> Vec<Stored> {
    let room = pass.limits.kept / size_of::<T>();
    let mut kept = 0;
    let mut blocks: Vec<_> = Block::all(pass.symmetric, [n, m], tiling.block).collect();
    // One after the other below: what is made of the columns of one serves the next.
    blocks.sort_by_key(|block| block.columns.start);
    let stored = |block| {
        let mut stored = Stored {
            block,
            kept_at: None,
        };
        let end = kept + stored.len() * pass.matrices();
        if end <= room {
            stored.kept_at = Some(kept);
            kept = end;
        }
        stored
    };
    blocks.into_iter().map(stored).collect()
}

/// How many elements of similarities a pass keeps.
pub(super) fn kept_len<T: Real>(pass: &Pass, [n, m, width]: [usize; 3]) -> usize {
    let tiling = Tiling::new::<T>(pass, [n, m, width], rayon::current_num_threads());
    let blocks = blocks::<T>(&tiling, pass, n, m);
    let kept = blocks.iter().filter(|block| block.kept_at.is_some());
    kept.map(|block| block.len() * pass.matrices()).sum()
}
