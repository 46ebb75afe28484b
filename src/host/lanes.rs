//! Reductions of a slice.

use super::Real;

/// Elements taken in side by side, so that reductions become vector code.
const LANES: usize = 16;

/// `Σ f(x, y)` in a fixed order, whatever the instructions.
#[inline(always)]
pub(crate) fn sum<T: Real>(x: &[T], y: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (chunks, chunks_y) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (tail, tail_y) = (chunks.remainder(), chunks_y.remainder());
    for (x, y) in chunks.zip(chunks_y) {
        for l in 0..LANES {
            lanes[l] += f(x[l], y[l]);
        }
    }
    let tail = tail
        .iter()
        .zip(tail_y)
        .fold(T::ZERO, |sum, (&x, &y)| sum + f(x, y));
    lanes.into_iter().fold(tail, |sum, lane| sum + lane)
}

/// The largest `f(x)`; NaN is passed over.
#[inline(always)]
pub(crate) fn largest<T: Real>(x: &[T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::LOWEST; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder();
    for x in chunks {
        for l in 0..LANES {
            lanes[l] = f(x[l]).larger(lanes[l]);
        }
    }
    let tail = tail.iter().fold(T::LOWEST, |max, &x| f(x).larger(max));
    lanes.into_iter().fold(tail, |max, lane| lane.larger(max))
}
