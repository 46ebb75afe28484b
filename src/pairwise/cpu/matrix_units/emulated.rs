//! What AMX computes, in plain code: to the bit.

use super::{BLOCK, Product, STRIP};

/// As the instruction treats results: below the normal range they are zeros.
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE {
        0f32.copysign(x)
    } else {
        x
    }
}

/// The bf16 in the low and in the high half of a word.
fn halves(word: u32) -> [f32; 2] {
    [word << 16, word & 0xffff_0000].map(|bits| flushed(f32::from_bits(bits)))
}

/// `sums += left · right`: the products of even and of odd elements are summed apart, then both are
/// added. A product of two bf16 is exact in f32, so that nothing is gained by fusing it.
fn multiply_blocks(sums: &mut [f32; STRIP * STRIP], left: &[u32], right: &[u32]) {
    for (m, sums) in sums.chunks_exact_mut(STRIP).enumerate() {
        let mut found = [[0f32; 2]; STRIP];
        for k in 0..STRIP {
            let a = halves(left[m * STRIP + k]);
            for (n, found) in found.iter_mut().enumerate() {
                let b = halves(right[k * STRIP + n]);
                for p in 0..2 {
                    found[p] = flushed(a[p].mul_add(b[p], found[p]));
                }
            }
        }
        for (sum, found) in sums.iter_mut().zip(found) {
            *sum = flushed(flushed(*sum) + flushed(found[0] + found[1]));
        }
    }
}

/// # Safety
///
/// `dst` is the caller's, 32 rows of 32 elements.
pub(super) unsafe fn multiply(product: &Product) {
    let &Product {
        multiplied,
        steps,
        left,
        right,
        dst,
        stride,
        accumulate,
        ..
    } = product;
    let table = &multiplied.table;
    let in_words = |bytes: usize| bytes / size_of::<u32>();
    let block = |strip: &[u32], step: usize, of_step: usize, term: usize| {
        let at = in_words(step * of_step + term);
        strip[at..at + BLOCK].to_vec()
    };
    for (m, left) in left.into_iter().enumerate() {
        for (n, right) in right.into_iter().enumerate() {
            let element = |k: usize| {
                dst.wrapping_add((m * STRIP + k / STRIP) * stride + n * STRIP + k % STRIP)
            };
            let mut sums = [0f32; STRIP * STRIP];
            if accumulate {
                for (k, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller's promise.
                    *sum = unsafe { *element(k) };
                }
            }
            for step in 0..steps {
                for terms in table[2..].chunks_exact(2) {
                    let left = block(left, step, table[0], terms[0]);
                    let right = block(right, step, table[1], terms[1]);
                    multiply_blocks(&mut sums, &left, &right);
                }
            }
            for (k, &sum) in sums.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { *element(k) = sum };
            }
        }
    }
}
