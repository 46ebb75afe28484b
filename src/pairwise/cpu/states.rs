//! Running reductions: one state for each row or column, component by component.

use super::math::Real;
use crate::pairwise::form::{Axis, Kind, Reduction};

/// Whether `x` takes the place of the maximum so far: larger, or the first NaN.
#[inline(always)]
pub(super) fn beats<T: Real>(x: T, max: T) -> bool {
    x > max || (x.is_nan() && !max.is_nan())
}

/// The states of all reductions along one axis, for `len` rows or columns.
///
/// A reduction has up to three components: a sum; a maximum, the sum relative to it, and the
/// weighted sum relative to it; a maximum and its index.
#[derive(Clone, Debug)]
pub(super) struct States<T> {
    len: usize,
    /// Where each reduction's components begin, and how many they are; none for the other axis's.
    parts: Vec<(usize, usize)>,
    data: Vec<T>,
}

fn components(kind: &Kind) -> usize {
    match kind {
        Kind::Sum(_) => 1,
        Kind::LogSumExp(_) | Kind::Max(_) => 2,
        Kind::SoftmaxMean { .. } => 3,
    }
}

impl<T: Real> States<T> {
    pub fn new(reductions: &[Reduction], axis: Axis, len: usize) -> Self {
        let mut data = Vec::new();
        let parts = reductions
            .iter()
            .map(|r| {
                let at = data.len();
                if r.axis != axis {
                    return (at, 0);
                }
                let first = match r.kind {
                    Kind::Sum(_) => T::ZERO,
                    Kind::LogSumExp(_) | Kind::SoftmaxMean { .. } => T::LOWEST,
                    Kind::Max(_) => T::NEG_INFINITY,
                };
                let count = components(&r.kind);
                data.resize(at + len, first);
                data.resize(at + len * count, T::ZERO);
                (at, count)
            })
            .collect();
        Self { len, parts, data }
    }

    /// The state of one row.
    #[inline(always)]
    pub fn at(&self, reduction: usize, index: usize) -> [T; 3] {
        let (at, count) = self.parts[reduction];
        let mut state = [T::ZERO; 3];
        for (c, value) in state.iter_mut().enumerate().take(count) {
            *value = self.data[at + c * self.len + index];
        }
        state
    }

    #[inline(always)]
    pub fn put(&mut self, reduction: usize, index: usize, state: [T; 3]) {
        let (at, count) = self.parts[reduction];
        for (c, value) in state.into_iter().enumerate().take(count) {
            self.data[at + c * self.len + index] = value;
        }
    }

    /// The components of `count` columns from `start` on; empty where the reduction has fewer.
    #[inline(always)]
    pub fn range(&mut self, reduction: usize, start: usize, count: usize) -> [&mut [T]; 3] {
        let (at, components) = self.parts[reduction];
        let mut rest = &mut self.data[at..];
        std::array::from_fn(|c| {
            if c >= components {
                return &mut [][..];
            }
            let (part, others) = std::mem::take(&mut rest).split_at_mut(self.len);
            rest = others;
            &mut part[start..start + count]
        })
    }

    /// Takes in the states of the rows or columns `start..` of other pairs.
    pub fn merge(&mut self, reductions: &[Reduction], start: usize, other: &mut Self) {
        for (k, reduction) in reductions.iter().enumerate() {
            if self.parts[k].1 > 0 {
                let count = other.len;
                let mine = self.range(k, start, count);
                merge(&reduction.kind, mine, other.range(k, 0, count));
            }
        }
    }

    /// Takes in the states of the other axis: of a symmetric matrix, where the two are one.
    pub fn merge_transposed(&mut self, reductions: &[Reduction], other: &mut Self) {
        for (k, couple) in reductions.chunks_exact(2).enumerate() {
            let len = self.len;
            let mine = self.range(2 * k, 0, len);
            merge(&couple[0].kind, mine, other.range(2 * k + 1, 0, len));
        }
    }

    /// The results of reduction `k`, one vector after the other.
    pub fn results(&mut self, kind: &Kind, k: usize, out: &mut Vec<T>) {
        let len = self.len;
        let [first, second, third] = self.range(k, 0, len);
        match kind {
            Kind::Sum(_) => out.extend_from_slice(first),
            Kind::Max(_) => {
                out.extend_from_slice(first);
                out.extend_from_slice(second);
            }
            Kind::LogSumExp(_) | Kind::SoftmaxMean { .. } => {
                out.extend(
                    first
                        .iter()
                        .zip(&*second)
                        .map(|(&max, &sum)| max + sum.ln()),
                );
                out.extend(third.iter().zip(&*second).map(|(&weighted, &sum)| {
                    if sum == T::ZERO {
                        T::ZERO
                    } else {
                        weighted / sum
                    }
                }));
            }
        }
    }
}

fn merge<T: Real>(kind: &Kind, [a, b, c]: [&mut [T]; 3], [x, y, z]: [&mut [T]; 3]) {
    match kind {
        Kind::Sum(_) => {
            for (sum, new) in a.iter_mut().zip(x) {
                *sum += *new;
            }
        }
        Kind::LogSumExp(_) | Kind::SoftmaxMean { .. } => {
            for i in 0..a.len() {
                let max = x[i].larger(a[i]);
                let (old, new) = (
                    (a[i] - max).exponential::<false>(),
                    (x[i] - max).exponential::<false>(),
                );
                a[i] = max;
                b[i] = b[i] * old + y[i] * new;
                if !c.is_empty() {
                    c[i] = c[i] * old + z[i] * new;
                }
            }
        }
        Kind::Max(_) => {
            for i in 0..a.len() {
                // Equal maxima: the lower index, whichever order the parts come in.
                if beats(x[i], a[i]) || (x[i] == a[i] && y[i] < b[i]) {
                    (a[i], b[i]) = (x[i], y[i]);
                }
            }
        }
    }
}
