//! AVX-512's products of pairs of bf16: twice the rate of f32. Numbers below the normal range are
//! zeros, as AMX has it, but sums are rounded in another order.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::transmute;

use super::{Product, SIDE, STRIP};

/// Rows of sums that registers hold at a time.
const ROWS: usize = 8;

pub(super) fn is_there() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
}

/// # Safety
///
/// The processor has the instructions. The strips have all steps; `dst` is the
/// caller's, 32 rows of 32 elements.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn multiply(product: &Product) {
    let &Product {
        multiplied,
        steps,
        left,
        right,
        dst,
        stride,
        accumulate,
    } = product;
    let table = &multiplied.table;
    let [of_left, of_right] = [table[0], table[1]];
    for first in (0..SIDE).step_by(ROWS) {
        let left = left[first / STRIP]
            .as_ptr()
            .wrapping_add(first % STRIP * STRIP);
        let out = |row: usize, k: usize| dst.wrapping_add((first + row) * stride + k * STRIP);
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        if accumulate {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (k, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller's promise.
                    *sum = unsafe { _mm512_loadu_ps(out(row, k)) };
                }
            }
        }
        for step in 0..steps {
            for terms in table[2..].chunks_exact(2) {
                let left = left.wrapping_byte_add(step * of_left + terms[0]);
                let right = right.map(|strip| {
                    let strip = strip.as_ptr();
                    strip.wrapping_byte_add(step * of_right + terms[1])
                });
                // SAFETY: the caller's promise.
                unsafe { multiply_block(&mut sums, left, right) };
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (k, &sum) in sums.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { _mm512_storeu_ps(out(row, k), sum) };
            }
        }
    }
}

/// Some rows of a left block by a block of each strip of the right factor.
///
/// # Safety
///
/// The blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply_block(sums: &mut [[__m512; 2]; ROWS], left: *const u32, right: [*const u32; 2]) {
    for k in 0..STRIP {
        // SAFETY: the caller's promise; the two types are 512 bits of any kind.
        let pairs = right.map(|right| unsafe {
            transmute::<__m512i, __m512bh>(_mm512_loadu_si512(right.wrapping_add(k * STRIP).cast()))
        });
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: likewise.
            let pair = unsafe {
                let word = *left.wrapping_add(row * STRIP + k);
                transmute::<__m512i, __m512bh>(_mm512_set1_epi32(word.cast_signed()))
            };
            sums[0] = _mm512_dpbf16_ps(sums[0], pair, pairs[0]);
            sums[1] = _mm512_dpbf16_ps(sums[1], pair, pairs[1]);
        }
    }
}
