//! Factors of products as [matrix units](super::matrix_units) read them.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::ops::Range;

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::matrix_units::transpose;
use super::matrix_units::{BLOCK, Elements, STRIP};
use super::memory::Room;
use super::plan::Tiling;
use super::product::Shared;

/// A matrix to be packed.
pub(super) trait Matrix: Copy + Send + Sync {
    /// Reads consecutive elements of a row.
    fn read(&self, row: usize, column: usize, out: &mut [f32]);

    /// Fetches what will be read of some rows, from a column on.
    #[inline(always)]
    fn fetch(&self, _rows: Range<usize>, _column: usize) {}

    /// The first `len` of so many elements of a row, and zeros. (The copy of a count that the
    /// compiler knows is no call.)
    #[inline(always)]
    fn elements<const N: usize>(&self, row: usize, column: usize, len: usize) -> [f32; N] {
        let mut out = [0f32; N];
        if len == N {
            self.read(row, column, &mut out);
        } else {
            self.read(row, column, &mut out[..len]);
        }
        out
    }
}

/// Which factor of a product a matrix becomes, and whether its rows or its columns are summed over.
///
/// The strips of a factor are along the other side of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub is_left: bool,
    pub sums_rows: bool,
}

/// A packed factor: strip by strip, step by step, term by term.
#[derive(Default)]
pub(super) struct Panels {
    words: Room,
    /// Words of a step, and steps.
    of_step: usize,
    steps: usize,
}

impl Panels {
    /// Packs `[rows, columns]` of a matrix, from its first element on.
    pub fn pack(
        &mut self,
        matrix: impl Matrix,
        [rows, columns]: [usize; 2],
        role: Role,
        elements: Elements,
        tiling: &Tiling,
    ) {
        let (len, sum) = if role.sums_rows {
            (columns, rows)
        } else {
            (rows, columns)
        };
        self.of_step = elements.terms() * BLOCK;
        self.steps = sum.div_ceil(elements.in_step());
        // Two strips are multiplied at a time.
        let strips = len.div_ceil(2 * STRIP) * 2;
        let strip_len = self.strip_len();
        // All of it is written: what it holds does not matter.
        let words = Shared::new(self.words.of::<u32>(strips * strip_len));
        // Along the rows of the matrix, as they lie in memory.
        let (steps, of_step) = (self.steps, self.of_step);
        let tasks = if role.sums_rows { steps } else { strips };
        let tasks = (0..tasks).into_par_iter();
        tasks.with_min_len(tiling.tasks_each()).for_each(|task| {
            let (strips, steps) = if role.sums_rows {
                (0..strips, task..task + 1)
            } else {
                (task..task + 1, 0..steps)
            };
            let first = steps.start * elements.in_step();
            for strip in strips {
                let start = strip * STRIP;
                let len = STRIP.min(len.saturating_sub(start));
                let at = words.at(strip * strip_len + steps.start * of_step);
                // SAFETY: these steps of the strip are this task's.
                let words = unsafe { std::slice::from_raw_parts_mut(at, steps.len() * of_step) };
                let summed = [first, sum - first];
                pack(matrix, [start, len], summed, role, elements, words);
            }
        });
    }

    /// From one strip to the next. Were strips powers of two apart, the parts of them that are
    /// multiplied at a time would compete for a few lines of the cache.
    fn strip_len(&self) -> usize {
        (self.steps + self.steps / 16) * self.of_step
    }

    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Two strips, the first of which has that index, from a step on.
    pub fn strips(&self, index: usize, step: usize) -> [&[u32]; 2] {
        [index, index + 1].map(|index| {
            let strip = &self.words.all::<u32>()[index * self.strip_len()..][..self.strip_len()];
            &strip[step * self.of_step..]
        })
    }
}

/// Packs one strip, `len` rows (or columns) from `start` on, of as many elements of the sum as
/// `words` has room for; beyond the matrix there are zeros.
pub(super) fn pack(
    matrix: impl Matrix,
    [start, len]: [usize; 2],
    [first, sum]: [usize; 2],
    role: Role,
    elements: Elements,
    words: &mut [u32],
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
        // SAFETY: the processor has the instructions.
        unsafe { pack_avx512(matrix, [start, len], [first, sum], role, elements, words) };
        return;
    }
    let transpose = |words: &mut Lines| {
        let old = *words;
        for (k, line) in words.iter_mut().enumerate() {
            for (word, old) in line.iter_mut().zip(&old) {
                *word = old[k];
            }
        }
    };
    let strip = [start, len];
    pack_with(
        matrix,
        strip,
        [first, sum],
        role,
        elements,
        words,
        transpose,
    );
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn pack_avx512(
    matrix: impl Matrix,
    strip: [usize; 2],
    sum: [usize; 2],
    role: Role,
    elements: Elements,
    words: &mut [u32],
) {
    let transpose = |words: &mut Lines| transpose(words);
    pack_with(matrix, strip, sum, role, elements, words, transpose);
}

#[inline(always)]
fn pack_with(
    matrix: impl Matrix,
    strip: [usize; 2],
    [first, sum]: [usize; 2],
    role: Role,
    elements: Elements,
    words: &mut [u32],
    transpose: impl Fn(&mut Lines),
) {
    if strip[1] == 0 {
        words.fill(0);
        return;
    }
    // A left block has a line for each row of the strip, a right one for each word of the sum.
    let is_transposed = role.is_left == role.sums_rows;
    let write = |block: &mut [u32], mut words: Lines| {
        if is_transposed {
            transpose(&mut words);
        }
        block.copy_from_slice(words.as_flattened());
    };
    let of_step = elements.terms() * BLOCK;
    for (step, blocks) in words.chunks_exact_mut(of_step).enumerate() {
        let at = step * elements.in_step();
        let summed = elements.in_step().min(sum.saturating_sub(at));
        let summed = [first + at, summed];
        let [rows, columns] = if role.sums_rows {
            let next = at + elements.in_step();
            let end = sum.min(next + elements.in_step());
            matrix.fetch(first + next..first + end, strip[0]);
            [summed, strip]
        } else {
            [strip, summed]
        };
        match elements {
            Elements::F32 => {
                let lines = read::<STRIP, STRIP>(matrix, rows, columns);
                write(blocks, bytemuck::cast(lines));
            }
            Elements::Bf16(_) if role.sums_rows => {
                let mut lines = read::<{ 2 * STRIP }, STRIP>(matrix, rows, columns);
                for block in blocks.chunks_exact_mut(BLOCK) {
                    let mut found = [[0u32; STRIP]; STRIP];
                    for (words, pair) in found.iter_mut().zip(lines.as_chunks_mut::<2>().0) {
                        let [low, high] = pair;
                        for ((word, low), high) in words.iter_mut().zip(low).zip(high) {
                            *word = split(low) >> 16 | split(high);
                        }
                    }
                    write(block, found);
                }
            }
            Elements::Bf16(_) => {
                let mut lines = read::<STRIP, { 2 * STRIP }>(matrix, rows, columns);
                for block in blocks.chunks_exact_mut(BLOCK) {
                    let mut found = [[0u32; STRIP]; STRIP];
                    for (words, line) in found.iter_mut().zip(&mut lines) {
                        let pairs = line.as_chunks_mut::<2>().0;
                        for (word, [low, high]) in words.iter_mut().zip(pairs) {
                            *word = split(low) >> 16 | split(high);
                        }
                    }
                    write(block, found);
                }
            }
        }
    }
}

/// So many elements of so many rows of a matrix, from one on each; beyond them zeros.
#[inline(always)]
fn read<const ROWS: usize, const COLUMNS: usize>(
    matrix: impl Matrix,
    [row, rows]: [usize; 2],
    [column, columns]: [usize; 2],
) -> [[f32; COLUMNS]; ROWS] {
    let mut lines = [[0f32; COLUMNS]; ROWS];
    if [rows, columns] == [ROWS, COLUMNS] {
        for (k, line) in lines.iter_mut().enumerate() {
            matrix.read(row + k, column, line);
        }
        return lines;
    }
    for (k, line) in lines.iter_mut().enumerate().take(rows) {
        *line = matrix.elements(row + k, column, columns);
    }
    lines
}

/// The words of a block.
type Lines = [[u32; STRIP]; STRIP];

/// Takes the nearest bf16 from a number: its bits, in the high half of a word. What is left is
/// the rest.
#[inline(always)]
fn split(x: &mut f32) -> u32 {
    let bits = x.to_bits();
    // To the nearest, of two the even one.
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // Of a NaN the rounding would leave an infinity or a zero.
    let nearest = if x.is_nan() {
        bits | 0x0040_0000
    } else {
        nearest
    };
    let nearest = nearest & 0xffff_0000;
    *x -= f32::from_bits(nearest);
    nearest
}

/// The coefficients of a block.
#[derive(Clone, Copy)]
pub(super) struct Coefficients {
    start: Shared<f32>,
    stride: usize,
}

impl Coefficients {
    /// # Safety
    ///
    /// What is read of the matrix, whose rows are `stride` apart, is the caller's to read for as
    /// long as this is in use.
    pub unsafe fn new(start: Shared<f32>, stride: usize) -> Self {
        Self { start, stride }
    }
}

impl Matrix for Coefficients {
    #[inline(always)]
    fn read(&self, row: usize, column: usize, out: &mut [f32]) {
        let at = self.start.at(row * self.stride + column);
        // SAFETY: `new` was promised it.
        out.copy_from_slice(unsafe { std::slice::from_raw_parts(at, out.len()) });
    }

    #[inline(always)]
    fn fetch(&self, rows: Range<usize>, column: usize) {
        #[cfg(target_arch = "x86_64")]
        for row in rows {
            let at = self.start.at(row * self.stride + column);
            // SAFETY: any address may be fetched.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
        }
    }
}
