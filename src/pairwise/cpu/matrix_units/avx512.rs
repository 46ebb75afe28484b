//! AVX-512: products of f32, and of pairs of bf16 at twice the rate. Of these, numbers below the
//! normal range are zeros, as AMX has it, but sums are rounded in another order.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_permutex2var_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::transmute;

use super::{Product, STRIP};

/// Rows of sums that registers hold at a time.
const ROWS: usize = 8;

/// Steps whose products are added one after the other, before their sum is added to `dst`. Rounding
/// errors grow with how many follow each other.
const DEPTH: usize = 16;

pub(super) fn has_bf16() -> bool {
    has_f32() && is_x86_feature_detected!("avx512bf16")
}

pub(super) fn has_f32() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// A product whose words `add` multiplies and adds to a sum.
macro_rules! multiply {
    ($product:expr, $add:expr) => {{
        let &Product {
            multiplied,
            steps,
            left,
            right,
            dst,
            stride,
            accumulate,
            rows,
        } = $product;
        let table = &multiplied.table;
        let [of_left, of_right] = [table[0], table[1]];
        for first in (0..rows).step_by(ROWS) {
            let left = left[first / STRIP]
                .as_ptr()
                .wrapping_add(first % STRIP * STRIP);
            let out = |row: usize, k: usize| dst.wrapping_add((first + row) * stride + k * STRIP);
            // (At least once: of no steps the sums are zero.)
            for start in (0..steps.max(1)).step_by(DEPTH) {
                let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
                for step in start..steps.min(start + DEPTH) {
                    for terms in table[2..].chunks_exact(2) {
                        let left = left.wrapping_byte_add(step * of_left + terms[0]);
                        let right = right.map(|strip| {
                            let strip = strip.as_ptr();
                            strip.wrapping_byte_add(step * of_right + terms[1])
                        });
                        for k in 0..STRIP {
                            // SAFETY: the caller's promise: the blocks can be read.
                            let words = right.map(|right| unsafe {
                                _mm512_loadu_ps(right.wrapping_add(k * STRIP).cast())
                            });
                            for (row, sums) in sums.iter_mut().enumerate() {
                                // SAFETY: likewise.
                                let word = unsafe { *left.wrapping_add(row * STRIP + k) };
                                let word = _mm512_set1_ps(f32::from_bits(word));
                                sums[0] = $add(sums[0], word, words[0]);
                                sums[1] = $add(sums[1], word, words[1]);
                            }
                        }
                    }
                }
                for (row, sums) in sums.iter().enumerate() {
                    for (k, &sum) in sums.iter().enumerate() {
                        // SAFETY: the caller's promise.
                        unsafe {
                            let sum = if accumulate || start > 0 {
                                _mm512_add_ps(_mm512_loadu_ps(out(row, k)), sum)
                            } else {
                                sum
                            };
                            _mm512_storeu_ps(out(row, k), sum);
                        }
                    }
                }
            }
        }
    }};
}

/// # Safety
///
/// The processor has the instructions. The strips have all steps; `dst` is the
/// caller's, 32 rows of 32 elements.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn multiply_bf16(product: &Product) {
    multiply!(product, |sum, x: __m512, y: __m512| {
        // SAFETY: the types are 512 bits of any kind.
        let [x, y] = [x, y].map(|x| unsafe { transmute::<__m512, __m512bh>(x) });
        _mm512_dpbf16_ps(sum, x, y)
    });
}

/// # Safety
///
/// As of [`multiply_bf16`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn multiply_f32(product: &Product) {
    multiply!(product, |sum, x, y| _mm512_fmadd_ps(x, y, sum));
}

/// Which words of two lines make the low and the high halves of both, one word of each in turn.
const HALVES: [[u32; STRIP]; 2] = {
    let mut halves = [[0; STRIP]; 2];
    let mut k = 0;
    while k < STRIP {
        halves[0][k] = (k / 2 + k % 2 * STRIP) as u32;
        halves[1][k] = halves[0][k] + STRIP as u32 / 2;
        k += 1;
    }
    halves
};

/// Transposes 16 × 16 words. (In loops: functions of the standard library that took closures would
/// be compiled without these instructions.)
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::pairwise::cpu) fn transpose(words: &mut [[u32; STRIP]; STRIP]) {
    // SAFETY: the types are the same bits.
    let [low, high] = unsafe { transmute::<[[u32; STRIP]; 2], [__m512i; 2]>(HALVES) };
    let mut lines = [low; STRIP];
    for (line, words) in lines.iter_mut().zip(&*words) {
        // SAFETY: likewise.
        *line = unsafe { transmute::<[u32; STRIP], __m512i>(*words) };
    }
    // The index of a word, row and column as one number of eight bits, is rotated by one bit.
    for _ in 0..4 {
        let old = lines;
        for k in 0..STRIP / 2 {
            let [x, y] = [old[k], old[k + STRIP / 2]];
            lines[2 * k] = _mm512_permutex2var_epi32(x, low, y);
            lines[2 * k + 1] = _mm512_permutex2var_epi32(x, high, y);
        }
    }
    for (line, words) in lines.iter().zip(words) {
        // SAFETY: likewise.
        *words = unsafe { transmute::<__m512i, [u32; STRIP]>(*line) };
    }
}
