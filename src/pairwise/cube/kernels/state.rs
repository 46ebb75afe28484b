//! Running states of reductions: see [`Kind::components`].

use burn_cubecl::cubecl::{self, prelude::*};

use crate::pairwise::reduction::Kind;

/// Smaller than any logit, and finite, so that differences from it are never NaN.
const LOWEST: f32 = -1e30;
/// Larger than any index.
const NOWHERE: f32 = 1e30;

/// The components of a state; those that it does not have are 0.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Components<F: Float> {
    pub a: F,
    pub b: F,
    pub c: F,
}

/// The state of nothing.
#[cube]
pub(super) fn empty<F: Float>(infinity: F, #[comptime] kind: Kind) -> Components<F> {
    let zero = F::new(0.0);
    match comptime!(kind) {
        Kind::Sum => Components::<F> {
            a: zero,
            b: zero,
            c: zero,
        },
        Kind::LogSumExp | Kind::SoftmaxMean => Components::<F> {
            a: F::new(LOWEST),
            b: zero,
            c: zero,
        },
        Kind::Max => Components::<F> {
            a: -infinity,
            b: F::new(NOWHERE),
            c: zero,
        },
    }
}

/// Takes a value, `y` beside it and its index into a state, if it is `there`.
#[cube]
pub(super) fn take<F: Float>(
    s: &mut Components<F>,
    x: F,
    y: F,
    there: bool,
    index: usize,
    infinity: F,
    #[comptime] kind: Kind,
) {
    let zero = F::new(0.0);
    let one = match comptime!(kind) {
        Kind::Sum => Components::<F> {
            a: select(there, x, zero),
            b: zero,
            c: zero,
        },
        Kind::LogSumExp | Kind::SoftmaxMean => Components::<F> {
            a: select(there, x, -infinity),
            b: F::new(1.0),
            c: select(there, y, zero),
        },
        Kind::Max => Components::<F> {
            a: select(there, x, -infinity),
            b: select(there, F::cast_from(index), F::new(NOWHERE)),
            c: zero,
        },
    };
    join::<F>(s, &one, kind);
}

/// Takes another state into one.
#[cube]
pub(super) fn join<F: Float>(s: &mut Components<F>, t: &Components<F>, #[comptime] kind: Kind) {
    match comptime!(kind) {
        Kind::Sum => s.a += t.a,
        Kind::LogSumExp | Kind::SoftmaxMean => {
            // By the larger of the two maxima one sum stays as it is. A NaN makes the other one NaN.
            let is_larger = t.a > s.a;
            let smaller = (-(s.a - t.a).abs()).exp();
            let by_s = select(is_larger, smaller, F::new(1.0));
            let by_t = select(is_larger, F::new(1.0), smaller);
            s.a = select(is_larger, t.a, s.a);
            s.b = s.b * by_s + t.b * by_t;
            if comptime!(kind == Kind::SoftmaxMean) {
                s.c = s.c * by_s + t.c * by_t;
            }
        }
        Kind::Max => {
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
pub(super) fn store<F: Float>(
    to: &mut [F],
    at: usize,
    apart: usize,
    value: &Components<F>,
    #[comptime] kind: Kind,
) {
    to[at] = value.a;
    if comptime!(kind.components() > 1) {
        to[at + apart] = value.b;
    }
    if comptime!(kind.components() > 2) {
        to[at + 2 * apart] = value.c;
    }
}

#[cube]
pub(super) fn load<F: Float>(
    from: &[F],
    at: usize,
    apart: usize,
    #[comptime] kind: Kind,
) -> Components<F> {
    let zero = F::new(0.0);
    let b = if comptime!(kind.components() > 1) {
        from[at + apart]
    } else {
        zero
    };
    let c = if comptime!(kind.components() > 2) {
        from[at + 2 * apart]
    } else {
        zero
    };
    Components::<F> { a: from[at], b, c }
}
