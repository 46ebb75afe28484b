//! The sizes of blocks: how much memory they take, and how many launches there are.

use burn::backend::TensorMetadata;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::kernels::Tiling;
use super::plan::{Hardware, Terms, components};
use crate::pairwise::ops::Inputs;
use crate::pairwise::pass::Pass;
use crate::pairwise::reduction::Axis;

/// Bytes that the matrices of a block take at most: 4,096 rows and columns of f32 and of bf16.
const BLOCK: usize = 96 << 20;

/// Bytes up to which one block is all: launches are the time of a small batch.
pub(super) const ALONE: usize = 256 << 20;

/// What the size of a block depends on.
pub(super) struct Sizes<'a> {
    pub hardware: &'a Hardware,
    pub tiling: Tiling,
    pub inputs: &'a Inputs<CubeBackend>,
    pub pass: &'a Pass,
}

impl Sizes<'_> {
    /// Rows and columns of a block whose states are merged at once, and columns of those whose
    /// similarities are there at a time.
    pub fn of_block(
        &self,
        keeps: bool,
        is_fused: bool,
        coefficients: Option<Terms>,
    ) -> ([usize; 2], usize) {
        let (pass, sizes) = (self.pass, self.inputs.sizes());
        let budget = pass.limits.budget;
        let width = self.inputs.a.shape()[1];
        // Products of similarities have so many elements that all multiprocessors are busy.
        let processors = self.hardware.processors;
        let processors = processors.filter(|_| keeps || pass.coefficient.is_some());
        let part = |len, most| match processors {
            Some(processors) => full_waves(len, most, width, processors),
            None => equal_parts(len, most),
        };
        if keeps {
            // The same in both passes, whatever they read and however they are tiled: the one
            // finds what the other left.
            let of_pair = self.inputs.dtype().size() * pass.teachers.len() + 6;
            let pairs = pairs_of(budget, BLOCK, of_pair, sizes);
            let block = block_of(pairs, sizes, false, self.hardware.strips, part);
            return (block, block[1]);
        }
        let [of_pair, bytes] = self.bytes(is_fused, coefficients);
        let pairs = pairs_of(budget, bytes, of_pair, sizes);
        let most_rows = self.hardware.strips.saturating_mul(self.tiling.rows());
        let [rows, columns] = block_of(pairs, sizes, pass.symmetric, most_rows, part);
        if pass.coefficient.is_some() || pass.symmetric {
            return ([rows, columns], columns);
        }
        let together = self.merged_together(rows, self.largest().min(budget.max(1 << 20)));
        let together = (together / columns * columns).clamp(columns, sizes[1].max(columns));
        ([rows, together], columns)
    }

    /// The bytes of a pair, and of a block at most where there are several.
    fn bytes(&self, is_fused: bool, coefficients: Option<Terms>) -> [usize; 2] {
        let (pass, size) = (self.pass, self.inputs.dtype().size());
        let coefficients = coefficients.filter(|_| pass.coefficient.is_some());
        let similarities = usize::from(!(is_fused && coefficients.is_some()));
        let teachers = pass.teachers.iter().filter(|teacher| teacher.named).count();
        let mask = usize::from(pass.named.mask);
        let of_coefficients = coefficients.map_or(0, |terms| terms.count * terms.dtype.size());
        // A mask is there as it is made of and as it is read.
        let of_pair = size * (similarities + teachers + 2 * mask) + of_coefficients;
        let own = usize::max(size * similarities, of_coefficients);
        let others = size * teachers.max(mask);
        let pairs = self.largest() / own;
        let pairs = pairs.min(BLOCK.max(self.gradient()) / others.max(1));
        [of_pair, pairs * of_pair]
    }

    /// The bytes of the larger of both gradients, as a sum over blocks.
    fn gradient(&self) -> usize {
        let elements = |x: &CubeTensor| x.shape().num_elements();
        let largest = elements(&self.inputs.a).max(elements(&self.inputs.b));
        largest * self.inputs.dtype().size()
    }

    /// The bytes of a buffer of a block at most, where there are several blocks.
    ///
    /// Pools of a device have pages as large as the largest allocation that there was, which is at
    /// least a gradient. A block has such a page for itself, as far as something small may have to
    /// lie beside it, or half of one, if that is enough.
    fn largest(&self) -> usize {
        let gradient = self.gradient();
        if self.pass.coefficient.is_none() {
            // The pages of the gradients to come are free.
            BLOCK.max(gradient)
        } else if gradient >= 2 * BLOCK {
            BLOCK
        } else {
            BLOCK.max(gradient - gradient / 8)
        }
    }

    /// Columns beside `rows` whose states are merged at once: so many that what cubes find of them
    /// takes `most` bytes.
    fn merged_together(&self, rows: usize, most: usize) -> usize {
        let (tiling, size) = (self.tiling, self.inputs.dtype().size());
        let strips = rows.div_ceil(tiling.rows());
        let of_column = components(self.pass, Axis::Columns) * strips * size;
        let of_rows = components(self.pass, Axis::Rows) * rows * size;
        let of_span = of_rows + of_column * tiling.span();
        most / of_span.max(1) * tiling.span()
    }
}

/// How many pairs a block has at most, of so many bytes each, in `largest` bytes.
fn pairs_of(budget: usize, largest: usize, of_pair: usize, [n, m]: [usize; 2]) -> usize {
    if n * m * of_pair <= budget.min(ALONE) {
        n * m
    } else {
        budget.min(largest) / of_pair
    }
}

/// Rows, and columns, of a block are multiples of this, where the sides allow.
const STEP: usize = 128;

/// Rows and columns of a block of so many pairs, at most `most_rows`: a launch has a cube for each
/// strip of them, along an axis that some devices limit to 65,535. A side that is cut is as long as
/// `part` makes it of its length and the most that there may be: a multiple of [`STEP`].
fn block_of(
    pairs: usize,
    [n, m]: [usize; 2],
    square: bool,
    most_rows: usize,
    part: impl Fn(usize, usize) -> usize,
) -> [usize; 2] {
    if n * m <= pairs && n <= most_rows {
        return [n, m];
    }
    let side = (pairs as f64).sqrt() as usize;
    if square {
        return [part(n, side); 2];
    }
    // What one side does not need, the other may have.
    if n <= side {
        [n, part(m, pairs / n.max(1))]
    } else if m <= side {
        [part(n, (pairs / m.max(1)).min(most_rows)), m]
    } else {
        let rows = part(n, side);
        [rows, part(m, pairs / rows)]
    }
}

/// The length of equal parts of `len`, as few as there can be with at most `most` in each.
fn equal_parts(len: usize, most: usize) -> usize {
    let most = (most / STEP).max(1) * STEP;
    let parts = len.div_ceil(most);
    len.div_ceil(parts).next_multiple_of(STEP).min(most)
}

/// The same, but more parts where the product of gradients of fewer rows, `[part, width]`, leaves
/// fewer multiprocessors idle: each takes 128 × 128 elements at a time.
fn full_waves(len: usize, most: usize, width: usize, processors: usize) -> usize {
    let fill = |part: &usize| {
        let tiles = part / STEP * width.div_ceil(STEP);
        tiles as f64 / tiles.next_multiple_of(processors) as f64
    };
    let longest = equal_parts(len, most);
    let parts = len.div_ceil(longest);
    let candidates = || {
        let parts = (parts..=2 * parts).map(|parts| len.div_ceil(parts).next_multiple_of(STEP));
        parts.filter(|part| *part <= most.max(STEP))
    };
    let best = candidates().map(|part| fill(&part)).fold(0.0, f64::max);
    let full = candidates().find(|part| fill(part) >= FULL.min(best));
    full.unwrap_or(longest)
}

/// The share of multiprocessors that is enough: beyond it fewer blocks are worth more.
const FULL: f64 = 0.85;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_no_more_strips_than_a_launch_takes() {
        // A GPU's tiles have 32 rows, and grids of CUDA 65,535 cubes along their second axis.
        let rows = 65_535 * 32;
        let sizes = [10_000_000, 8];
        let block = |most_rows| {
            block_of((256 << 20) / 4, sizes, false, most_rows, |_, rows| {
                rows / STEP * STEP
            })
        };
        let [narrow, columns] = block(rows);
        assert_eq!([narrow, columns], [rows / 128 * 128, 8]);
        assert!(narrow.div_ceil(32) <= 65_535);
        // Where nothing limits them, all that the budget allows.
        let [all, _] = block(usize::MAX);
        assert_eq!(all, (256 << 20) / 4 / 8);
    }

    #[test]
    fn products_of_gradients_fill_their_waves() {
        // An H100, and 4 to 10 bytes a pair: coefficients in place, and as one to three bf16. (Less
        // wide embeddings would need blocks beyond the budget, and are a small part of the time.)
        let fill = |strips: usize, width: usize| {
            let tiles = strips / 128 * width.div_ceil(128);
            tiles as f64 / tiles.next_multiple_of(132) as f64
        };
        for width in [512, 640, 768, 1024, 1536] {
            for of_pair in [4, 6, 8, 10] {
                let pairs = (256 << 20) / of_pair;
                let part = |len, most| full_waves(len, most, width, 132);
                let block = block_of(pairs, [65_536; 2], false, usize::MAX, part);
                assert!(block[0] * block[1] <= pairs && 3 * block[0] * block[1] > pairs);
                for side in block {
                    assert!(fill(side, width) >= 0.85, "{side} of width {width}");
                }
            }
        }
    }

    #[test]
    fn a_small_matrix_is_one_block_and_a_large_one_has_small_ones() {
        let block = |n: usize, budget| {
            let pairs = pairs_of(budget, BLOCK, 10, [n, n]);
            block_of(pairs, [n, n], false, usize::MAX, equal_parts)
        };
        assert_eq!(block(4_100, 1 << 30), [4_100; 2]);
        let [rows, columns] = block(65_536, 1 << 30);
        assert!(rows * columns * 10 <= BLOCK && rows * columns * 20 > BLOCK);
        // Nor do small ones exceed the budget.
        let [rows, columns] = block(4_100, 20 << 20);
        assert!(rows * columns * 10 <= 20 << 20);
    }
}
