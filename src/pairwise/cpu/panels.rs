//! Factors of products as [matrix units](super::matrix_units) read them.

use rayon::prelude::*;

use super::matrix_units::{BLOCK, STEP, STRIP};
use super::memory::zeros;
use super::product::Shared;

/// A matrix to be packed.
pub(super) trait Matrix: Copy + Send + Sync {
    /// Reads consecutive elements of a row.
    fn read(&self, row: usize, column: usize, out: &mut [f32]);

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
    words: Vec<u32>,
    terms: usize,
    steps: usize,
}

impl Panels {
    /// Packs `[rows, columns]` of a matrix, from its first element on.
    pub fn pack(
        &mut self,
        matrix: impl Matrix,
        [rows, columns]: [usize; 2],
        role: Role,
        terms: usize,
    ) {
        let (len, sum) = if role.sums_rows {
            (columns, rows)
        } else {
            (rows, columns)
        };
        self.terms = terms;
        self.steps = sum.div_ceil(STEP);
        // Two strips are multiplied at a time.
        let strips = len.div_ceil(2 * STRIP) * 2;
        let strip_len = self.strip_len();
        if self.words.len() < strips * strip_len {
            // All of it is written: what it holds does not matter.
            self.words = zeros(strips * strip_len);
        }
        let strips = self.words[..strips * strip_len].par_chunks_exact_mut(strip_len);
        strips.enumerate().for_each(|(k, words)| {
            let start = k * STRIP;
            let len = STRIP.min(len.saturating_sub(start));
            pack(matrix, [start, len], [0, sum], role, terms, words);
        });
    }

    fn strip_len(&self) -> usize {
        self.steps * self.terms * BLOCK
    }

    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Two strips, the first of which has that index, from a step on.
    pub fn strips(&self, index: usize, step: usize) -> [&[u32]; 2] {
        [index, index + 1].map(|index| {
            let strip = &self.words[index * self.strip_len()..][..self.strip_len()];
            &strip[step * self.terms * BLOCK..]
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
    terms: usize,
    words: &mut [u32],
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
        // SAFETY: the processor has the instructions.
        unsafe { pack_avx512(matrix, [start, len], [first, sum], role, terms, words) };
        return;
    }
    pack_with(matrix, [start, len], [first, sum], role, terms, words);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn pack_avx512(
    matrix: impl Matrix,
    strip: [usize; 2],
    sum: [usize; 2],
    role: Role,
    terms: usize,
    words: &mut [u32],
) {
    pack_with(matrix, strip, sum, role, terms, words);
}

#[inline(always)]
fn pack_with(
    matrix: impl Matrix,
    [start, len]: [usize; 2],
    [first, sum]: [usize; 2],
    role: Role,
    terms: usize,
    words: &mut [u32],
) {
    if len == 0 {
        words.fill(0);
        return;
    }
    for (step, blocks) in words.chunks_exact_mut(terms * BLOCK).enumerate() {
        let from = first + step * STEP;
        let summed = STEP.min(sum.saturating_sub(step * STEP));
        let blocks = blocks.chunks_exact_mut(BLOCK);
        if role.sums_rows {
            let mut rows = [[0f32; STRIP]; STEP];
            for (k, row) in rows.iter_mut().enumerate().take(summed) {
                *row = matrix.elements(from + k, start, len);
            }
            for block in blocks {
                let mut found = [[0u32; STRIP]; STRIP];
                for (words, pair) in found.iter_mut().zip(rows.as_chunks_mut::<2>().0) {
                    let [low, high] = pair;
                    for ((word, low), high) in words.iter_mut().zip(low).zip(high) {
                        *word = split(low) >> 16 | split(high);
                    }
                }
                write(block, &found, role.is_left);
            }
        } else {
            let mut rows = [[0f32; STEP]; STRIP];
            for (k, row) in rows.iter_mut().enumerate().take(len) {
                *row = matrix.elements(start + k, from, summed);
            }
            for block in blocks {
                let mut found = [[0u32; STRIP]; STRIP];
                for (words, row) in found.iter_mut().zip(&mut rows) {
                    for (word, [low, high]) in words.iter_mut().zip(row.as_chunks_mut::<2>().0) {
                        *word = split(low) >> 16 | split(high);
                    }
                }
                write(block, &found, !role.is_left);
            }
        }
    }
}

/// Writes a block. A left one has a row for each row of the strip, a right one for each pair of the
/// sum.
#[inline(always)]
fn write(block: &mut [u32], words: &[[u32; STRIP]; STRIP], is_transposed: bool) {
    for (row, out) in block.chunks_exact_mut(STRIP).enumerate() {
        if is_transposed {
            for (word, words) in out.iter_mut().zip(words) {
                *word = words[row];
            }
        } else {
            out.copy_from_slice(&words[row]);
        }
    }
}

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
}
