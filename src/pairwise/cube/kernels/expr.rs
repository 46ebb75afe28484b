//! The expressions of one pair.

use burn_cubecl::cubecl::{self, ir::ConstantValue, prelude::*};

use crate::pairwise::expr::{Binary, Leaf, Unary};
use crate::pairwise::tape::Op;
use crate::tensor::artanh_terms;

/// Where a block lies, and where the vectors of columns and the scalars are in the buffer of bound
/// values.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
#[expand(derive(Clone))]
pub(crate) struct Place {
    /// Of the block.
    pub rows: usize,
    pub columns: usize,
    /// The first row and column.
    pub i0: usize,
    pub j0: usize,
    /// Of the whole matrix, or of this worker's part of it, whose first row is `first_row`.
    pub n: usize,
    pub m: usize,
    pub first_row: usize,
    /// Where the vectors of columns and the scalars begin.
    pub columns_at: usize,
    pub scalars_at: usize,
}

/// One pair.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Pair<F: Float> {
    pub similarity: F,
    pub mask: F,
    /// Where in a matrix of the block.
    pub here: usize,
    pub i: usize,
    pub j: usize,
    pub infinity: F,
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
        Leaf::Diagonal => select(place.first_row + pair.i == pair.j, F::new(1.0), F::new(0.0)),
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
        Unary::Softplus => select(x <= zero, zero, x) + log1p_unit::<F>((-x.abs()).exp()),
        Unary::Sigmoid => {
            // The exponential of the other is often there already.
            let smaller = (-x.abs()).exp();
            select(x >= zero, one, smaller) / (one + smaller)
        }
    }
}

/// `log(1 + x)` for `0 ≤ x ≤ 1`, exact to rounding; see [`artanh_terms`].
#[cube]
fn log1p_unit<F: Float>(x: F) -> F {
    let terms = comptime!(artanh_terms(F::size().comptime() == 8));
    let s = x / (x + F::new(2.0));
    let square = s * s;
    let mut series = finite::<F>(comptime!(1.0 / (2 * terms - 1) as f64));
    #[unroll]
    for k in 1..terms {
        series = series * square + finite::<F>(comptime!(1.0 / (2 * (terms - k) - 1) as f64));
    }
    F::new(2.0) * s * series
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

/// The values of all steps for one pair.
#[cube]
pub(super) fn evaluate<F: Float>(
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
