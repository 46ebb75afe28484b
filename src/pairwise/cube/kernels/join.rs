//! The kernels that join what cubes found, and the results.

use burn_cubecl::cubecl::{self, prelude::*};

use super::Reducing;
use super::state::{Components, empty, join, load, store};
use crate::pairwise::reduction::Kind;

/// Joins the states that the cubes of a block found of its rows (or columns) with those of all.
///
/// - `partials`: from `from` on `[component, parts, count]`
/// - `states`: `[component, len]`; the block's begin at `at`
#[cube(launch)]
pub(crate) fn merge<F: Float>(
    partials: &[F],
    states: &mut [F],
    from: usize,
    parts: usize,
    count: usize,
    at: usize,
    len: usize,
    is_first: u32,
    infinity: f32,
    #[comptime] reductions: Vec<(Reducing, bool)>,
    #[define(F)] _dtype: ElemType,
) {
    let infinity = F::cast_from(infinity);
    let is_first = is_first == 1;
    let k = ABSOLUTE_POS_X as usize;
    if k < count {
        #[unroll]
        for r in 0..comptime!(reductions.len()) {
            let reducing = comptime!(reductions[r].0);
            let place = comptime!(reducing.component) * len + at + k;
            let nothing = empty::<F>(infinity, reducing.kind);
            let known = load::<F>(&*states, place, len, reducing.kind);
            let mut state = Components::<F> {
                a: select(is_first, nothing.a, known.a),
                b: select(is_first, nothing.b, known.b),
                c: select(is_first, nothing.c, known.c),
            };
            if comptime!(reductions[r].1) {
                for part in 0..parts {
                    let next = load::<F>(
                        partials,
                        from + (reducing.component * parts + part) * count + k,
                        parts * count,
                        reducing.kind,
                    );
                    join::<F>(&mut state, &next, reducing.kind);
                }
            }
            store::<F>(states, place, len, &state, reducing.kind);
        }
    }
}

/// The results of the states of all rows (or columns).
///
/// Each reduction's results begin after so many vectors of rows and so many of columns.
#[cube(launch)]
pub(crate) fn finish<F: Float>(
    states: &[F],
    results: &mut [F],
    len: usize,
    n: usize,
    m: usize,
    infinity: f32,
    #[comptime] reductions: Vec<(Reducing, [usize; 2])>,
    #[define(F)] _dtype: ElemType,
) {
    let infinity = F::cast_from(infinity);
    let zero = F::new(0.0);
    let k = ABSOLUTE_POS_X as usize;
    if k < len {
        #[unroll]
        for r in 0..comptime!(reductions.len()) {
            let reducing = comptime!(reductions[r].0);
            let state = load::<F>(
                states,
                comptime!(reducing.component) * len + k,
                len,
                reducing.kind,
            );
            let at = comptime!(reductions[r].1[0]) * n + comptime!(reductions[r].1[1]) * m + k;
            match comptime!(reducing.kind) {
                Kind::Sum => results[at] = state.a,
                Kind::LogSumExp => results[at] = log_sum::<F>(&state, infinity),
                Kind::SoftmaxMean => {
                    results[at] = log_sum::<F>(&state, infinity);
                    results[at + len] = select(state.b == zero, zero, state.c / state.b);
                }
                Kind::Max => {
                    results[at] = state.a;
                    results[at + len] = state.b;
                }
            }
        }
    }
}

/// −∞ over nothing.
#[cube]
fn log_sum<F: Float>(state: &Components<F>, infinity: F) -> F {
    select(state.b == F::new(0.0), -infinity, state.a + state.b.ln())
}

/// Adds `x` to `sum` from `at` on.
#[cube(launch)]
pub(crate) fn accumulate<F: Float>(
    sum: &mut [F],
    x: &[F],
    at: usize,
    len: usize,
    #[define(F)] _dtype: ElemType,
) {
    let step = (CUBE_COUNT_X * CUBE_DIM_X) as usize;
    let mut k = ABSOLUTE_POS_X as usize;
    while k < len {
        sum[at + k] += x[k];
        k += step;
    }
}
