//! The kernels: everything but the matrix products.
//!
//! A cube of 32 × 8 units walks along a strip of 32 rows, one tile of 128 columns after the other. Of
//! each tile a unit takes 4 × 4 pairs (see [`Tiling`]), computes the expressions of each, and reduces them along its
//! rows, in registers until the strip ends, and along its columns, which the cube joins tile by tile.
//! What a cube found goes to a place of its own, and [`merge`] adds these up in their order: the same
//! numbers, bit for bit, in every run.

#![allow(clippy::needless_range_loop)] // Kernels have no iterators.

use burn_cubecl::cubecl::{self, ir::ConstantValue, prelude::*};

use crate::pairwise::expr::{Binary, Leaf, Op, Unary};
use crate::pairwise::form::Kind;

/// Units along a row, and along a column.
pub(super) const LANES: usize = 32;
pub(super) const LINES: usize = 8;
/// Tiles that a cube walks along.
const TILES: usize = 8;

/// How the pairs of a tile are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tiling {
    /// Rows, and columns, that a unit takes.
    each: usize,
}

impl Tiling {
    /// Registers are what a GPU has plenty of. A processor that plays one, told by its narrow planes, has
    /// few, and takes seconds to compile what a unit does sixteen times.
    pub fn of(plane: u32) -> Self {
        let each = if (1..16).contains(&plane) { 1 } else { 4 };
        Self { each }
    }

    /// Rows of a tile.
    pub fn rows(self) -> usize {
        LINES * self.each
    }

    /// Columns of a tile.
    pub fn columns(self) -> usize {
        LANES * self.each
    }

    /// Columns of the strip of a cube.
    pub fn span(self) -> usize {
        TILES * self.columns()
    }

    /// Numbers that a cube shares: of each unit the components of one state, for each of its rows (or columns).
    pub fn shared(self) -> usize {
        3 * LANES * LINES * self.each
    }
}

/// Units of a cube of the kernels that have one unit a number.
pub(super) const UNITS: usize = 256;

/// Smaller than any logit, and finite, so that differences from it are never NaN.
const LOWEST: f32 = -1e30;
/// Larger than any index.
const NOWHERE: f32 = 1e30;

/// How a reduction accumulates: what the components of its state are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// The sum.
    Sum,
    /// The maximum, and the sum relative to it.
    LogSumExp,
    /// Likewise, and the weighted sum.
    SoftmaxMean,
    /// The maximum and its index.
    Max,
}

impl State {
    pub fn of(kind: &Kind) -> Self {
        match kind {
            Kind::Sum(_) => Self::Sum,
            Kind::LogSumExp(_) => Self::LogSumExp,
            Kind::SoftmaxMean { .. } => Self::SoftmaxMean,
            Kind::Max(_) => Self::Max,
        }
    }

    pub fn components(self) -> usize {
        match self {
            Self::Sum => 1,
            Self::LogSumExp | Self::Max => 2,
            Self::SoftmaxMean => 3,
        }
    }
}

/// A reduction within a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reducing {
    pub state: State,
    /// The steps that it reads.
    pub steps: [usize; 2],
    /// The number of its first component among those of its axis.
    pub component: usize,
}

/// What a kernel computes of each pair, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Program {
    pub tiling: Tiling,
    pub ops: Vec<Op>,
    pub rows: Vec<Reducing>,
    pub columns: Vec<Reducing>,
    /// The components of all states along the rows, whether this kernel computes them or not.
    pub row_components: usize,
    pub coefficient: Option<usize>,
    /// Whether coefficients go to a matrix of their own, in another type.
    pub apart: bool,
}

/// The components of a state; those that it does not have are 0.
#[derive(CubeType, Clone, Copy)]
struct Components<F: Float> {
    a: F,
    b: F,
    c: F,
}

/// Where a block lies, and where the bound numbers are among the vectors.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Place {
    /// Of the block.
    pub rows: usize,
    pub columns: usize,
    /// The first row and column.
    pub i0: usize,
    pub j0: usize,
    /// Of the whole matrix.
    pub n: usize,
    pub m: usize,
    /// Where the vectors of columns and the scalars begin.
    pub columns_at: usize,
    pub scalars_at: usize,
}

/// One pair.
#[derive(CubeType, Clone, Copy)]
struct Pair<F: Float> {
    similarity: F,
    mask: F,
    /// Where in a matrix of the block.
    here: usize,
    i: usize,
    j: usize,
    infinity: F,
}

#[cube]
fn constant<F: Float>(#[comptime] value: f64, infinity: F) -> F {
    if comptime!(value == f64::INFINITY) {
        infinity
    } else if comptime!(value == f64::NEG_INFINITY) {
        -infinity
    } else if comptime!(value.is_nan()) {
        // Not every shader language has a literal for it.
        infinity + (-infinity)
    } else {
        finite::<F>(value)
    }
}

/// In all digits that `F` has.
#[cube]
fn finite<F: Float>(#[comptime] value: f64) -> F {
    intrinsic!(|scope| {
        let elem = F::elem_type(scope);
        elem.constant(ConstantValue::Float(value)).into()
    })
}

#[cube]
fn leaf<F: Float>(
    pair: &Pair<F>,
    teachers: &[F],
    vectors: &[F],
    place: &Place,
    #[comptime] leaf: Leaf,
) -> F {
    match comptime!(leaf) {
        Leaf::Similarity => pair.similarity,
        Leaf::Teacher(k) => teachers[k * place.rows * place.columns + pair.here],
        Leaf::Mask => pair.mask,
        Leaf::Row(k) => vectors[k * place.n + pair.i],
        Leaf::Column(k) => vectors[place.columns_at + k * place.m + pair.j],
        Leaf::Scalar(k) => vectors[place.scalars_at + k],
        Leaf::Diagonal => select(pair.i == pair.j, F::new(1.0), F::new(0.0)),
    }
}

#[cube]
fn unary<F: Float>(x: F, #[comptime] op: Unary) -> F {
    let zero = F::new(0.0);
    let one = F::new(1.0);
    match comptime!(op) {
        Unary::Neg => -x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        // NaN is not smaller than 0, and stays.
        Unary::Relu => select(x <= zero, zero, x),
        Unary::Step => select(x > zero, one, select(x <= zero, zero, x)),
        Unary::Softplus => select(x <= zero, zero, x) + (-x.abs()).exp().log1p(),
        Unary::Sigmoid => one / (one + (-x).exp()),
    }
}

#[cube]
fn binary<F: Float>(x: F, y: F, #[comptime] op: Binary) -> F {
    match comptime!(op) {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Div => x / y,
        Binary::Equal => select(x == y, F::new(1.0), F::new(0.0)),
    }
}

/// The numbers of all steps for one pair.
#[cube]
fn evaluate<F: Float>(
    pair: &Pair<F>,
    teachers: &[F],
    vectors: &[F],
    place: &Place,
    #[comptime] ops: Vec<Op>,
) -> Sequence<F> {
    let mut values = Sequence::<F>::new();
    #[unroll]
    for k in 0..comptime!(ops.len()) {
        let value = match comptime!(ops[k]) {
            Op::Leaf(which) => leaf::<F>(pair, teachers, vectors, place, which),
            Op::Constant(value) => constant::<F>(value, pair.infinity),
            Op::Unary(op, x) => unary::<F>(*values.index(x), op),
            Op::Binary(op, x, y) => binary::<F>(*values.index(x), *values.index(y), op),
            // Not `!=`, which some shader languages deny of NaN.
            Op::Select(c, x, y) => select(
                *values.index(c) == F::new(0.0),
                *values.index(y),
                *values.index(x),
            ),
            Op::Detach(x) => *values.index(x),
        };
        values.push(value);
    }
    values
}

/// The state of nothing.
#[cube]
fn empty<F: Float>(infinity: F, #[comptime] state: State) -> Components<F> {
    let zero = F::new(0.0);
    match comptime!(state) {
        State::Sum => Components::<F> {
            a: zero,
            b: zero,
            c: zero,
        },
        State::LogSumExp | State::SoftmaxMean => Components::<F> {
            a: F::new(LOWEST),
            b: zero,
            c: zero,
        },
        State::Max => Components::<F> {
            a: -infinity,
            b: F::new(NOWHERE),
            c: zero,
        },
    }
}

/// The state of a unit's numbers `x`, those that are `there`, with their indices `first`, `first + apart`, ….
#[cube]
fn gather<F: Float>(
    x: &Sequence<F>,
    y: &Sequence<F>,
    there: &Sequence<bool>,
    first: usize,
    infinity: F,
    #[comptime] apart: usize,
    #[comptime] state: State,
) -> Components<F> {
    let zero = F::new(0.0);
    match comptime!(state) {
        State::Sum => {
            let mut sum = zero;
            #[unroll]
            for k in 0..comptime!(x.len()) {
                sum += select(*there.index(k), *x.index(k), zero);
            }
            Components::<F> {
                a: sum,
                b: zero,
                c: zero,
            }
        }
        State::LogSumExp | State::SoftmaxMean => {
            let mut largest = F::new(LOWEST);
            #[unroll]
            for k in 0..comptime!(x.len()) {
                largest = max(largest, select(*there.index(k), *x.index(k), -infinity));
            }
            let mut sum = zero;
            let mut weighted = zero;
            #[unroll]
            for k in 0..comptime!(x.len()) {
                let x = select(*there.index(k), *x.index(k), -infinity);
                let e = (x - largest).exp();
                sum += e;
                if comptime!(state == State::SoftmaxMean) {
                    weighted += e * select(*there.index(k), *y.index(k), zero);
                }
            }
            Components::<F> {
                a: largest,
                b: sum,
                c: weighted,
            }
        }
        State::Max => {
            let mut best = empty::<F>(infinity, state);
            #[unroll]
            for k in 0..comptime!(x.len()) {
                let one = Components::<F> {
                    a: select(*there.index(k), *x.index(k), -infinity),
                    b: select(
                        *there.index(k),
                        F::cast_from(first + comptime!(k * apart)),
                        F::new(NOWHERE),
                    ),
                    c: zero,
                };
                join::<F>(&mut best, &one, state);
            }
            best
        }
    }
}

/// Takes another state into one.
#[cube]
fn join<F: Float>(s: &mut Components<F>, t: &Components<F>, #[comptime] state: State) {
    match comptime!(state) {
        State::Sum => s.a += t.a,
        State::LogSumExp | State::SoftmaxMean => {
            let max = max(s.a, t.a);
            let by_s = (s.a - max).exp();
            let by_t = (t.a - max).exp();
            s.a = max;
            s.b = s.b * by_s + t.b * by_t;
            if comptime!(state == State::SoftmaxMean) {
                s.c = s.c * by_s + t.c * by_t;
            }
        }
        State::Max => {
            // NaN is larger than anything, and of equals the lower index counts.
            let nan_s = bool::cast_from(s.a.is_nan());
            let nan_t = bool::cast_from(t.a.is_nan());
            let larger = t.a > s.a || (nan_t && !nan_s);
            let equal = t.a == s.a || (nan_t && nan_s);
            let better = larger || (equal && t.b < s.b);
            s.a = select(better, t.a, s.a);
            s.b = select(better, t.b, s.b);
        }
    }
}

/// Writes a state to its places in `to`, `apart` from each other.
#[cube]
fn store<F: Float>(
    to: &mut [F],
    at: usize,
    apart: usize,
    value: &Components<F>,
    #[comptime] state: State,
) {
    to[at] = value.a;
    if comptime!(state.components() > 1) {
        to[at + apart] = value.b;
    }
    if comptime!(state.components() > 2) {
        to[at + 2 * apart] = value.c;
    }
}

#[cube]
fn load<F: Float>(from: &[F], at: usize, apart: usize, #[comptime] state: State) -> Components<F> {
    let zero = F::new(0.0);
    let b = if comptime!(state.components() > 1) {
        from[at + apart]
    } else {
        zero
    };
    let c = if comptime!(state.components() > 2) {
        from[at + 2 * apart]
    } else {
        zero
    };
    Components::<F> { a: from[at], b, c }
}

/// Computes the expressions of every pair of a block, writes the coefficients and what the cubes found.
///
/// - `similarity`, `mask`: `[R, C]`
/// - `teachers`: `[teacher, R, C]`
/// - `vectors`: the bound vectors of rows, those of columns, the scalars
/// - `partials`: for the rows `[component, cube along the row, R]`, then for the columns
///   `[component, cube along the column, C]`
#[allow(unused_mut)] // What the kernel assigns to later must be declared so, also where Rust sees no need.
#[cube(launch_unchecked)]
pub(super) fn block<F: Float, H: Float>(
    similarity: &mut [F],
    teachers: &[F],
    mask: &[F],
    vectors: &[F],
    partials: &mut [F],
    coefficients: &mut [H],
    place: Place,
    infinity: f32,
    #[comptime] program: Program,
    #[comptime] with_mask: bool,
    #[define(F, H)] _dtypes: [ElemType; 2],
) {
    let each = comptime!(program.tiling.each);
    let rows = comptime!(program.tiling.rows());
    let columns = comptime!(program.tiling.columns());
    let infinity = F::cast_from(infinity);
    let lane = UNIT_POS_X as usize;
    let line = UNIT_POS_Y as usize;
    let (split, strip) = (CUBE_POS_X as usize, CUBE_POS_Y as usize);
    let (splits, strips) = (CUBE_COUNT_X as usize, CUBE_COUNT_Y as usize);
    let columns_at = comptime!(program.row_components) * splits * place.rows;
    let mut shared = Shared::<[F]>::new_slice(comptime!(program.tiling.shared()));

    // The states of this unit's rows, until the strip ends.
    let mut by_row = Sequence::<Components<F>>::new();
    #[unroll]
    for k in 0..comptime!(program.rows.len()) {
        #[unroll]
        for _ in 0..each {
            let mut nothing = empty::<F>(infinity, comptime!(program.rows[k].state));
            by_row.push(nothing);
        }
    }

    let start = split * comptime!(program.tiling.span());
    let tiles = min(TILES, (place.columns - start).div_ceil(columns));
    for tile in 0..tiles {
        let c0 = start + tile * columns;
        let mut values = Sequence::<Sequence<F>>::new();
        let mut there = Sequence::<bool>::new();
        #[unroll]
        for e in 0..comptime!(each * each) {
            let r = strip * rows + line + comptime!(e / each * LINES);
            let c = c0 + lane + comptime!(e % each * LANES);
            let inside = r < place.rows && c < place.columns;
            // Units beyond the block read its last pair, which does not count.
            let r = min(r, place.rows - 1);
            let c = min(c, place.columns - 1);
            let here = r * place.columns + c;
            let pair = Pair::<F> {
                similarity: similarity[here],
                mask: if comptime!(with_mask) {
                    mask[here]
                } else {
                    F::new(0.0)
                },
                here,
                i: place.i0 + r,
                j: place.j0 + c,
                infinity,
            };
            let of_pair = evaluate::<F>(
                &pair,
                teachers,
                vectors,
                &place,
                comptime!(program.ops.clone()),
            );
            if comptime!(program.coefficient.is_some()) {
                let g = *of_pair.index(comptime!(program.coefficient.unwrap()));
                if inside {
                    if comptime!(program.apart) {
                        coefficients[here] = H::cast_from(g);
                    } else {
                        similarity[here] = g;
                    }
                }
            }
            values.push(of_pair);
            there.push(inside);
        }

        #[unroll]
        for k in 0..comptime!(program.rows.len()) {
            let reducing = comptime!(program.rows[k]);
            #[unroll]
            for e in 0..each {
                let (x, y, counts) = line_of::<F>(
                    &values,
                    &there,
                    reducing.steps,
                    comptime!(e * each),
                    1usize,
                    each,
                );
                let first = place.j0 + c0 + lane;
                let new = gather::<F>(&x, &y, &counts, first, infinity, LANES, reducing.state);
                join::<F>(
                    by_row.index_mut(comptime!(k * each + e)),
                    &new,
                    reducing.state,
                );
            }
        }

        #[unroll]
        for k in 0..comptime!(program.columns.len()) {
            let reducing = comptime!(program.columns[k]);
            #[unroll]
            for e in 0..each {
                let (x, y, counts) = line_of::<F>(&values, &there, reducing.steps, e, each, each);
                let first = place.i0 + strip * rows + line;
                let found = gather::<F>(&x, &y, &counts, first, infinity, LINES, reducing.state);
                let column = lane + comptime!(e * LANES);
                store::<F>(
                    &mut shared,
                    line * columns + column,
                    comptime!(LINES * columns),
                    &found,
                    reducing.state,
                );
            }
            sync_cube();
            let column = line * LANES + lane;
            if column < columns && c0 + column < place.columns {
                let mut found =
                    load::<F>(&shared, column, comptime!(LINES * columns), reducing.state);
                for other in 1..LINES {
                    let next = load::<F>(
                        &shared,
                        other * columns + column,
                        comptime!(LINES * columns),
                        reducing.state,
                    );
                    join::<F>(&mut found, &next, reducing.state);
                }
                store::<F>(
                    partials,
                    columns_at
                        + (reducing.component * strips + strip) * place.columns
                        + c0
                        + column,
                    strips * place.columns,
                    &found,
                    reducing.state,
                );
            }
            sync_cube();
        }
    }

    #[unroll]
    for k in 0..comptime!(program.rows.len()) {
        let reducing = comptime!(program.rows[k]);
        #[unroll]
        for e in 0..each {
            let row = line + comptime!(e * LINES);
            store::<F>(
                &mut shared,
                lane * rows + row,
                comptime!(LANES * rows),
                by_row.index(comptime!(k * each + e)),
                reducing.state,
            );
        }
        sync_cube();
        let row = line * LANES + lane;
        if row < rows && strip * rows + row < place.rows {
            let mut found = load::<F>(&shared, row, comptime!(LANES * rows), reducing.state);
            for other in 1..LANES {
                let next = load::<F>(
                    &shared,
                    other * rows + row,
                    comptime!(LANES * rows),
                    reducing.state,
                );
                join::<F>(&mut found, &next, reducing.state);
            }
            store::<F>(
                partials,
                (reducing.component * splits + split) * place.rows + strip * rows + row,
                splits * place.rows,
                &found,
                reducing.state,
            );
        }
        sync_cube();
    }
}

/// What a reduction reads of one of a unit's rows, or of one of its columns.
#[cube]
fn line_of<F: Float>(
    values: &Sequence<Sequence<F>>,
    there: &Sequence<bool>,
    #[comptime] steps: [usize; 2],
    #[comptime] first: usize,
    #[comptime] apart: usize,
    #[comptime] count: usize,
) -> (Sequence<F>, Sequence<F>, Sequence<bool>) {
    let mut x = Sequence::<F>::new();
    let mut y = Sequence::<F>::new();
    let mut counts = Sequence::<bool>::new();
    #[unroll]
    for k in 0..count {
        let of_pair = values.index(comptime!(first + k * apart));
        x.push(*of_pair.index(comptime!(steps[0])));
        y.push(*of_pair.index(comptime!(steps[1])));
        counts.push(*there.index(comptime!(first + k * apart)));
    }
    (x, y, counts)
}

/// Takes what the cubes of a block found of its rows (or columns) into the states of all.
///
/// - `partials`: from `from` on `[component, parts, count]`
/// - `states`: `[component, len]`; the block's begin at `at`
#[cube(launch)]
pub(super) fn merge<F: Float>(
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
            let nothing = empty::<F>(infinity, reducing.state);
            let known = load::<F>(&*states, place, len, reducing.state);
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
                        reducing.state,
                    );
                    join::<F>(&mut state, &next, reducing.state);
                }
            }
            store::<F>(states, place, len, &state, reducing.state);
        }
    }
}

/// The results of the states of all rows (or columns).
///
/// Each reduction's results begin after so many vectors of rows and so many of columns.
#[cube(launch)]
pub(super) fn finish<F: Float>(
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
                reducing.state,
            );
            let at = comptime!(reductions[r].1[0]) * n + comptime!(reductions[r].1[1]) * m + k;
            match comptime!(reducing.state) {
                State::Sum => results[at] = state.a,
                State::LogSumExp => results[at] = log_sum::<F>(&state, infinity),
                State::SoftmaxMean => {
                    results[at] = log_sum::<F>(&state, infinity);
                    results[at + len] = select(state.b == zero, zero, state.c / state.b);
                }
                State::Max => {
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
pub(super) fn accumulate<F: Float>(
    sum: &mut [F],
    x: &[F],
    at: usize,
    len: usize,
    #[define(F)] _dtype: ElemType,
) {
    let step = CUBE_COUNT_X as usize * UNITS;
    let mut k = ABSOLUTE_POS_X as usize;
    while k < len {
        sum[at + k] += x[k];
        k += step;
    }
}
