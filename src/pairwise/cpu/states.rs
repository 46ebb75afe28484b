//! Running reductions: one state for each row or column, component by component.

use crate::host::{Real, largest, sum};
use crate::pairwise::pass::Pass;
use crate::pairwise::reduction::{Axis, Kind, Reduction};

/// Whether `x` replaces the maximum so far: larger, or the first NaN.
#[inline(always)]
fn beats<T: Real>(x: T, max: T) -> bool {
    x > max || (x.is_nan() && !max.is_nan())
}

/// The states of all reductions along one axis, for `len` rows or columns.
///
/// What the components of a state are: [`Kind::components`].
#[derive(Clone, Debug)]
pub(super) struct States<T> {
    len: usize,
    /// Where each reduction's components begin, and how many they are; none for the other axis's.
    parts: Vec<(usize, usize)>,
    data: Vec<T>,
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
                    Kind::Sum => T::ZERO,
                    Kind::LogSumExp | Kind::SoftmaxMean => T::LOWEST,
                    Kind::Max => T::NEG_INFINITY,
                };
                let count = r.kind.components();
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
                merge(reduction.kind, mine, other.range(k, 0, count));
            }
        }
    }

    /// Takes in the states of the other axis: of a symmetric matrix, where the two are one.
    pub fn merge_transposed(&mut self, reductions: &[Reduction], other: &mut Self) {
        for (k, pair) in reductions.chunks_exact(2).enumerate() {
            let len = self.len;
            let mine = self.range(2 * k, 0, len);
            merge(pair[0].kind, mine, other.range(2 * k + 1, 0, len));
        }
    }

    /// The results of reduction `k`, one vector after the other.
    pub fn results(&mut self, kind: Kind, k: usize, out: &mut Vec<T>) {
        let len = self.len;
        let [first, second, third] = self.range(k, 0, len);
        match kind {
            Kind::Sum => out.extend_from_slice(first),
            Kind::Max => {
                out.extend_from_slice(first);
                out.extend_from_slice(second);
            }
            Kind::LogSumExp | Kind::SoftmaxMean => {
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

/// The states of all reductions of a pass, for some rows and columns.
pub(super) struct Both<T> {
    pub rows: States<T>,
    pub columns: States<T>,
}

impl<T: Real> Both<T> {
    pub fn new(pass: &Pass, [rows, columns]: [usize; 2]) -> Self {
        Self {
            rows: States::new(&pass.reductions, Axis::Rows, rows),
            columns: States::new(&pass.reductions, Axis::Columns, columns),
        }
    }

    /// Takes in the states of the rows from `i0` and the columns from `j0` of other pairs.
    pub fn merge(&mut self, pass: &Pass, [i0, j0]: [usize; 2], other: &mut Self) {
        self.rows.merge(&pass.reductions, i0, &mut other.rows);
        self.columns.merge(&pass.reductions, j0, &mut other.columns);
    }

    /// All results, one after the other.
    pub fn results(mut self, pass: &Pass) -> Vec<T> {
        if pass.symmetric {
            // The columns above the diagonal are the rows below it.
            self.rows
                .merge_transposed(&pass.reductions, &mut self.columns);
        }
        let sizes = [self.rows.len, self.columns.len];
        let mut results = Vec::with_capacity(pass.result_len(sizes));
        for (k, reduction) in pass.resulting() {
            let states = match reduction.axis {
                Axis::Rows => &mut self.rows,
                Axis::Columns => &mut self.columns,
            };
            states.results(reduction.kind, k, &mut results);
        }
        results
    }
}

fn merge<T: Real>(kind: Kind, [a, b, c]: [&mut [T]; 3], [x, y, z]: [&mut [T]; 3]) {
    match kind {
        Kind::Sum => {
            for (sum, new) in a.iter_mut().zip(x) {
                *sum += *new;
            }
        }
        Kind::LogSumExp | Kind::SoftmaxMean => {
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
        Kind::Max => {
            for i in 0..a.len() {
                // Equal maxima: the lower index, whichever order the parts come in.
                if beats(x[i], a[i]) || (x[i] == a[i] && y[i] < b[i]) {
                    (a[i], b[i]) = (x[i], y[i]);
                }
            }
        }
    }
}

/// Takes a strip into the state of its row.
#[inline(always)]
pub(super) fn take_row<T: Real, const FMA: bool>(
    kind: Kind,
    x: &[T],
    y: &[T],
    j0: usize,
    state: &mut [T; 3],
) {
    match kind {
        Kind::Sum => state[0] += sum(x, x, |x, _| x),
        Kind::LogSumExp => {
            let max = largest(x, |x| x).larger(state[0]);
            let rescale = (state[0] - max).exponential::<FMA>();
            let new = sum(x, x, |x, _| (x - max).exponential::<FMA>());
            *state = [max, state[1] * rescale + new, T::ZERO];
        }
        Kind::SoftmaxMean => {
            let max = largest(x, |x| x).larger(state[0]);
            let rescale = (state[0] - max).exponential::<FMA>();
            let new = sum(x, x, |x, _| (x - max).exponential::<FMA>());
            let weighted = sum(x, y, |x, y| (x - max).exponential::<FMA>() * y);
            *state = [max, state[1] * rescale + new, state[2] * rescale + weighted];
        }
        Kind::Max => {
            // A sum that is not NaN has no NaN among its terms; most strips have nothing larger.
            let max = largest(x, |x| x);
            if max <= state[0] && !sum(x, x, |x, _| x).is_nan() {
                return;
            }
            for (j, &x) in x.iter().enumerate() {
                if beats(x, state[0]) {
                    *state = [x, T::of((j0 + j) as f64), T::ZERO];
                }
            }
        }
    }
}

/// Takes a strip into the states of its columns.
#[inline(always)]
pub(super) fn take_columns<T: Real, const FMA: bool>(
    kind: Kind,
    x: &[T],
    y: &[T],
    i: usize,
    [first, second, third]: [&mut [T]; 3],
) {
    // log-sum-exp one by one, with one exponential: of −|x − max|.
    let step = |x: T, max: &mut T| {
        let gap = x - *max;
        let e = (-gap.abs()).exponential::<FMA>();
        let above = gap > T::ZERO;
        *max = if above { x } else { *max };
        // What multiplies the old sum, and what is added.
        if above { (e, T::ONE) } else { (T::ONE, e) }
    };
    match kind {
        Kind::Sum => {
            for (sum, &x) in first.iter_mut().zip(x) {
                *sum += x;
            }
        }
        Kind::LogSumExp => {
            for ((max, sum), &x) in first.iter_mut().zip(second).zip(x) {
                let (old, new) = step(x, max);
                *sum = *sum * old + new;
            }
        }
        Kind::SoftmaxMean => {
            let states = first.iter_mut().zip(second).zip(third);
            for (((max, sum), weighted), (&x, &y)) in states.zip(x.iter().zip(y)) {
                let (old, new) = step(x, max);
                *sum = *sum * old + new;
                *weighted = *weighted * old + new * y;
            }
        }
        Kind::Max => {
            let i = T::of(i as f64);
            for ((max, index), &x) in first.iter_mut().zip(second).zip(x) {
                let better = beats(x, *max);
                *max = if better { x } else { *max };
                *index = if better { i } else { *index };
            }
        }
    }
}
