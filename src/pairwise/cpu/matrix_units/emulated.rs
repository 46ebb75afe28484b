//! What AMX computes, in plain code: to the bit.

use super::{BLOCK, Product, STRIP};

/// As the instruction rounds: to nearest, and what is then below the normal range to zero, where
/// "then" is as if exponents had no end. Operands below the range are zeros too.
fn rounded(x: f64) -> f32 {
    // What is below by no more than half a last place is rounded into the range.
    const LEAST: f64 = f32::MIN_POSITIVE as f64 * (1.0 - 0.25 * f32::EPSILON as f64);
    let is_below = x.abs() < LEAST;
    (if is_below { 0f64.copysign(x) } else { x }) as f32
}

/// The bf16 in the low and in the high half of a word.
fn halves(word: u32) -> [f32; 2] {
    [word << 16, word & 0xffff_0000].map(|bits| rounded(f32::from_bits(bits).into()))
}

/// `sums += left · right`: the products of even and of odd elements are summed apart, then both are
/// added. Each step is rounded once: f64 holds a product of two bf16 exactly, and adds an f32 so
/// closely that no second rounding shows.
fn multiply_blocks(sums: &mut [f32; STRIP * STRIP], left: &[u32], right: &[u32]) {
    for (m, sums) in sums.chunks_exact_mut(STRIP).enumerate() {
        let mut found = [[0f32; 2]; STRIP];
        for k in 0..STRIP {
            let a = halves(left[m * STRIP + k]);
            for (n, found) in found.iter_mut().enumerate() {
                let b = halves(right[k * STRIP + n]);
                for p in 0..2 {
                    let [a, b, sum] = [a[p], b[p], found[p]].map(f64::from);
                    found[p] = rounded(a * b + sum);
                }
            }
        }
        let added = |x: f32, y: f32| rounded(f64::from(x) + f64::from(y));
        for (sum, [even, odd]) in sums.iter_mut().zip(found) {
            *sum = added(rounded((*sum).into()), added(even, odd));
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
