//! The kernels that join what cubes found, and the results.

use burn_cubecl::cubecl::{self, prelude::*};

use super::state::{Components, empty, join, load, store};
use super::{Merging, Resulting, Tiling};
use crate::pairwise::reduction::Kind;

/// What the cubes of a block found along one axis, and where its states are.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Found {
    /// Where the partial states begin, `[component, parts, count]`.
    pub from: usize,
    pub parts: usize,
    pub count: usize,
    /// Where the states of the block begin, and how far apart their components are.
    pub at: usize,
    pub apart: usize,
    /// 1 where the states have not begun.
    pub is_first: u32,
}

/// Joins what the cubes of a block found of its rows and of its columns, each a row of the grid,
/// with the states of all blocks; of a block that is alone it writes the results.
///
/// - `partials`: see [`Found`]
/// - `to`: the states, or the results
/// - `n`, `m`: all rows and columns
#[cube(launch)]
pub(crate) fn merge<F: Float>(
    partials: &[F],
    to: &mut [F],
    rows: Found,
    columns: Found,
    n: usize,
    m: usize,
    infinity: f32,
    #[comptime] merging: Merging,
    #[define(F)] _dtype: ElemType,
) {
    let infinity = F::cast_from(infinity);
    let tiling = comptime!(merging.tiling);
    let mut shared = Shared::<[F]>::new_slice(comptime!(3 * tiling.units()));
    if CUBE_POS_Y == 0 {
        merge_along::<F>(
            partials,
            to,
            &mut shared,
            &rows,
            n,
            m,
            infinity,
            comptime!(merging.rows.clone()),
            tiling,
            merging.is_alone,
        );
    } else {
        merge_along::<F>(
            partials,
            to,
            &mut shared,
            &columns,
            n,
            m,
            infinity,
            comptime!(merging.columns.clone()),
            tiling,
            merging.is_alone,
        );
    }
}

/// [`merge`] along one axis.
#[cube]
fn merge_along<F: Float>(
    partials: &[F],
    to: &mut [F],
    shared: &mut Shared<[F]>,
    found: &Found,
    n: usize,
    m: usize,
    infinity: F,
    #[comptime] reductions: Vec<(Resulting, bool)>,
    #[comptime] tiling: Tiling,
    #[comptime] is_alone: bool,
) {
    #[unroll]
    for k in 0..comptime!(reductions.len()) {
        let (of, is_changed) = comptime!(reductions[k]);
        let state = part_joined::<F>(partials, shared, found, infinity, tiling, of, is_changed);
        merge_one::<F>(to, found, state, n, m, infinity, tiling, of, is_alone);
    }
}

/// What all parts found of an element, to the first line of a cube.
///
/// A cube has as many elements as lanes. Its lines share the parts, and what they found is joined
/// by halves.
#[cube]
fn part_joined<F: Float>(
    partials: &[F],
    shared: &mut Shared<[F]>,
    found: &Found,
    infinity: F,
    #[comptime] tiling: Tiling,
    #[comptime] of: Resulting,
    #[comptime] is_changed: bool,
) -> Components<F> {
    let kind = comptime!(of.reducing.kind);
    let (lanes, lines, units) = comptime!((tiling.lanes, tiling.lines, tiling.units()));
    let (lane, line) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let mut state = empty::<F>(infinity, kind);
    if comptime!(is_changed) {
        // Units beyond the last element join what nobody reads.
        let k = min(CUBE_POS_X as usize * lanes + lane, found.count - 1);
        let mut part = line;
        while part < found.parts {
            let at = (of.reducing.component * found.parts + part) * found.count + k;
            let next = load::<F>(partials, found.from + at, found.parts * found.count, kind);
            join::<F>(&mut state, &next, kind);
            part += lines;
        }
        let place = line * lanes + lane;
        #[unroll]
        for halving in 0..comptime!(lines.ilog2() as usize) {
            let half = comptime!(lines >> (halving + 1));
            store::<F>(shared, place, units, &state, kind);
            sync_cube();
            if line < half {
                let next = load::<F>(&*shared, place + half * lanes, units, kind);
                join::<F>(&mut state, &next, kind);
            }
            sync_cube();
        }
    }
    state
}

/// Takes what a block found of an element into its state, or makes it the result.
#[cube]
fn merge_one<F: Float>(
    to: &mut [F],
    found: &Found,
    state: Components<F>,
    n: usize,
    m: usize,
    infinity: F,
    #[comptime] tiling: Tiling,
    #[comptime] of: Resulting,
    #[comptime] is_alone: bool,
) {
    let kind = comptime!(of.reducing.kind);
    let k = CUBE_POS_X as usize * comptime!(tiling.lanes) + UNIT_POS_X as usize;
    if UNIT_POS_Y == 0 && k < found.count {
        if comptime!(is_alone) {
            result::<F>(to, &state, k, found.count, n, m, infinity, of);
        } else {
            let place = of.reducing.component * found.apart + found.at + k;
            let mut all = load::<F>(&*to, place, found.apart, kind);
            let nothing = empty::<F>(infinity, kind);
            let is_first = found.is_first == 1;
            all.a = select(is_first, nothing.a, all.a);
            all.b = select(is_first, nothing.b, all.b);
            all.c = select(is_first, nothing.c, all.c);
            join::<F>(&mut all, &state, kind);
            store::<F>(to, place, found.apart, &all, kind);
        }
    }
}

/// The results of the states of all rows and of all columns, each a row of the grid.
#[cube(launch)]
pub(crate) fn finish<F: Float>(
    states: &[F],
    results: &mut [F],
    n: usize,
    m: usize,
    columns_at: usize,
    infinity: f32,
    #[comptime] rows: Vec<Resulting>,
    #[comptime] columns: Vec<Resulting>,
    #[define(F)] _dtype: ElemType,
) {
    let infinity = F::cast_from(infinity);
    let k = ABSOLUTE_POS_X as usize;
    if CUBE_POS_Y == 0 {
        if k < n {
            #[unroll]
            for r in 0..comptime!(rows.len()) {
                let of = comptime!(rows[r]);
                let at = of.reducing.component * n + k;
                let state = load::<F>(states, at, n, of.reducing.kind);
                result::<F>(results, &state, k, n, n, m, infinity, of);
            }
        }
    } else if k < m {
        #[unroll]
        for r in 0..comptime!(columns.len()) {
            let of = comptime!(columns[r]);
            let at = columns_at + of.reducing.component * m + k;
            let state = load::<F>(states, at, m, of.reducing.kind);
            result::<F>(results, &state, k, m, n, m, infinity, of);
        }
    }
}

/// Writes the results of an element, of `len` along its axis.
#[cube]
fn result<F: Float>(
    results: &mut [F],
    state: &Components<F>,
    k: usize,
    len: usize,
    n: usize,
    m: usize,
    infinity: F,
    #[comptime] of: Resulting,
) {
    let zero = F::new(0.0);
    let at = comptime!(of.before[0]) * n + comptime!(of.before[1]) * m + k;
    match comptime!(of.reducing.kind) {
        Kind::Sum => results[at] = state.a,
        Kind::LogSumExp => results[at] = log_sum::<F>(state, infinity),
        Kind::SoftmaxMean => {
            results[at] = log_sum::<F>(state, infinity);
            results[at + len] = select(state.b == zero, zero, state.c / state.b);
        }
        Kind::Max => {
            results[at] = state.a;
            results[at + len] = state.b;
        }
    }
}

/// −∞ over nothing.
#[cube]
fn log_sum<F: Float>(state: &Components<F>, infinity: F) -> F {
    select(state.b == F::new(0.0), -infinity, state.a + state.b.ln())
}

/// Of each component the sums that units found, `[component, unit]`, as `each` results.
#[cube(launch)]
pub(crate) fn gather<F: Float>(
    found: &[F],
    results: &mut [F],
    len: usize,
    each: usize,
    units: usize,
    #[define(F)] _dtype: ElemType,
) {
    let k = ABSOLUTE_POS;
    if k < len {
        let start = k / each * units;
        let mut sum = F::new(0.0);
        let mut unit = k % each;
        while unit < units {
            sum += found[start + unit];
            unit += each;
        }
        results[k] = sum;
    }
}
