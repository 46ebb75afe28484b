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

/// The state of a unit's values `x`, of those that are in the block, with their indices `first`,
/// `first + apart`, ….
#[cube]
pub(super) fn gather<F: Float>(
    x: &Sequence<F>,
    y: &Sequence<F>,
    there: &Sequence<bool>,
    first: usize,
    infinity: F,
    #[comptime] apart: usize,
    #[comptime] kind: Kind,
) -> Components<F> {
    let zero = F::new(0.0);
    match comptime!(kind) {
        Kind::Sum => {
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
        Kind::LogSumExp | Kind::SoftmaxMean => {
            gather_exponentials::<F>(x, y, there, infinity, kind)
        }
        Kind::Max => {
            let mut best = empty::<F>(infinity, kind);
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
                join::<F>(&mut best, &one, kind);
            }
            best
        }
    }
}

/// [`gather`] of sums of exponentials.
#[cube]
fn gather_exponentials<F: Float>(
    x: &Sequence<F>,
    y: &Sequence<F>,
    there: &Sequence<bool>,
    infinity: F,
    #[comptime] kind: Kind,
) -> Components<F> {
    let zero = F::new(0.0);
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
        if comptime!(kind == Kind::SoftmaxMean) {
            weighted += e * select(*there.index(k), *y.index(k), zero);
        }
    }
    Components::<F> {
        a: largest,
        b: sum,
        c: weighted,
    }
}

/// Takes another state into one.
#[cube]
pub(super) fn join<F: Float>(s: &mut Components<F>, t: &Components<F>, #[comptime] kind: Kind) {
    match comptime!(kind) {
        Kind::Sum => s.a += t.a,
        Kind::LogSumExp | Kind::SoftmaxMean => {
            let max = max(s.a, t.a);
            let by_s = (s.a - max).exp();
            let by_t = (t.a - max).exp();
            s.a = max;
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
