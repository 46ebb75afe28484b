//! The operators of expressions.

use crate::host::Real;
use crate::pairwise::expr::{Binary, Unary};

/// [`Unary`] of either type.
#[inline(always)]
pub(super) fn unary<T: Real, const FMA: bool>(op: Unary, x: T) -> T {
    match op {
        Unary::Neg => -x,
        Unary::Exp => x.exponential::<FMA>(),
        Unary::Log => x.logarithm::<FMA>(),
        Unary::Sqrt => x.sqrt(),
        Unary::Relu => relu(x),
        Unary::Step => {
            let step = if x > T::ZERO { T::ONE } else { T::ZERO };
            if x <= T::ZERO || x > T::ZERO { step } else { x }
        }
        Unary::Softplus => relu(x) + (-x.abs()).exponential::<FMA>().ln_1p_unit::<FMA>(),
        Unary::Sigmoid => T::ONE / (T::ONE + (-x).exponential::<FMA>()),
    }
}

#[inline(always)]
fn relu<T: Real>(x: T) -> T {
    if x <= T::ZERO { T::ZERO } else { x }
}

/// [`Binary`] of either type.
#[inline(always)]
pub(super) fn binary<T: Real>(op: Binary, x: T, y: T) -> T {
    match op {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Div => x / y,
        Binary::Equal => {
            if x == y {
                T::ONE
            } else {
                T::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_agree_with_their_definition() {
        let ops = [
            Unary::Neg,
            Unary::Exp,
            Unary::Log,
            Unary::Sqrt,
            Unary::Relu,
            Unary::Step,
            Unary::Softplus,
            Unary::Sigmoid,
        ];
        for op in ops {
            for x in [-30.0, -2.5, -0.0, 0.0, 0.3, 7.0, 40.0] {
                let expected = op.at(x);
                let actual = [
                    unary::<f64, true>(op, x),
                    unary::<f32, true>(op, x as f32) as f64,
                ];
                for (value, tolerance) in actual.into_iter().zip([1e-15, 3e-7]) {
                    assert!(
                        value == expected
                            || value.is_nan() && expected.is_nan()
                            || (value - expected).abs() <= tolerance * expected.abs(),
                        "{op:?} at {x}: {value:e} against {expected:e}"
                    );
                }
            }
            assert!(unary::<f32, true>(op, f32::NAN).is_nan(), "{op:?}");
        }
    }
}
