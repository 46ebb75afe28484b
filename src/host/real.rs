//! f32 and f64, and functions of them that compilers turn into vector code.

use burn::tensor::Element;
use bytemuck::Pod;

/// f32 or f64: what tensors hold and kernels compute with. `FMA` says whether the processor has a
/// fused multiply-add.
pub(crate) trait Real:
    Element
    + Pod
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
{
    const ZERO: Self;
    const ONE: Self;
    const NEG_INFINITY: Self;
    /// Smaller than any logit, and finite, so that differences from it are never NaN.
    const LOWEST: Self;

    fn of(x: f64) -> Self;
    fn is_nan(self) -> bool;
    fn abs(self) -> Self;
    fn sqrt(self) -> Self;
    fn ln(self) -> Self;
    fn exponential<const FMA: bool>(self) -> Self;
    /// `log(1 + x)` for `0 ≤ x ≤ 1`.
    fn ln_1p_unit<const FMA: bool>(self) -> Self;
    fn logarithm<const FMA: bool>(self) -> Self;

    /// The larger; `other` where `self` is NaN.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f64::NEG_INFINITY;
    const LOWEST: Self = f64::MIN;

    fn of(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        f64::is_nan(self)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        f64::abs(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }
    fn ln(self) -> Self {
        f64::ln(self)
    }
    #[inline(always)]
    fn exponential<const FMA: bool>(self) -> Self {
        f64::exp(self)
    }
    #[inline(always)]
    fn ln_1p_unit<const FMA: bool>(self) -> Self {
        f64::ln_1p(self)
    }
    #[inline(always)]
    fn logarithm<const FMA: bool>(self) -> Self {
        f64::ln(self)
    }
}

#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f32::NEG_INFINITY;
    const LOWEST: Self = f32::MIN;

    fn of(x: f64) -> Self {
        x as f32
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        f32::abs(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }
    fn ln(self) -> Self {
        f32::ln(self)
    }

    /// Relative error below 2e-7; 0 below −87.3, where results leave the normal range, ∞ above
    /// 88.3.
    ///
    /// `e^x = 2^k·e^r` with `k` the nearest integer to `x/ln 2`, and Cephes' polynomial for `e^r`.
    #[inline(always)]
    fn exponential<const FMA: bool>(self) -> Self {
        const LOW: f32 = -87.3;
        const HIGH: f32 = 88.3;
        // 1.5·2^23: adding it leaves the nearest integer in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let x = if self < LOW { LOW } else { self };
        let x = if x > HIGH { HIGH } else { x };
        let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
        let k = shifted - ROUND;
        let r = fma::<FMA>(k, -0.693_359_4, x);
        let r = fma::<FMA>(k, 2.121_944_4e-4, r);
        let mut p = 1.987_569_1e-4;
        p = fma::<FMA>(p, r, 1.398_2e-3);
        p = fma::<FMA>(p, r, 8.333_452e-3);
        p = fma::<FMA>(p, r, 4.166_579_6e-2);
        p = fma::<FMA>(p, r, 1.666_666_5e-1);
        p = fma::<FMA>(p, r, 5e-1);
        let p = fma::<FMA>(p, r * r, r + 1.0);
        let exponent = shifted
            .to_bits()
            .wrapping_sub(ROUND.to_bits())
            .wrapping_add(127)
            << 23;
        let y = p * f32::from_bits(exponent);
        let y = if self < LOW { 0.0 } else { y };
        if self > HIGH { f32::INFINITY } else { y }
    }

    #[inline(always)]
    fn ln_1p_unit<const FMA: bool>(self) -> Self {
        // What rounding 1 + x lost comes back to first order.
        let u = 1.0 + self;
        u.logarithm::<FMA>() + (self - (u - 1.0)) / u
    }

    /// Relative error below 2e-7 (absolute near 1); Cephes' polynomial.
    #[inline(always)]
    fn logarithm<const FMA: bool>(self) -> Self {
        let tiny = self < f32::MIN_POSITIVE;
        let x = if tiny { self * 8_388_608.0 } else { self };
        let bits = x.to_bits();
        let mantissa = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000); // in [0.5, 1)
        let exponent = ((bits >> 23) as i32 - 126) as f32;
        let low = mantissa < std::f32::consts::FRAC_1_SQRT_2;
        let e = if low { exponent - 1.0 } else { exponent };
        let e = if tiny { e - 23.0 } else { e };
        let r = if low { mantissa + mantissa } else { mantissa } - 1.0;
        let mut p = 7.037_683_6e-2;
        p = fma::<FMA>(p, r, -1.151_461e-1);
        p = fma::<FMA>(p, r, 1.167_699_9e-1);
        p = fma::<FMA>(p, r, -1.242_014_1e-1);
        p = fma::<FMA>(p, r, 1.424_932_3e-1);
        p = fma::<FMA>(p, r, -1.666_805_8e-1);
        p = fma::<FMA>(p, r, 2.000_071_5e-1);
        p = fma::<FMA>(p, r, -2.499_999_4e-1);
        p = fma::<FMA>(p, r, 3.333_333e-1);
        let squared = r * r;
        let mut y = p * r * squared;
        y = fma::<FMA>(e, -2.121_944_4e-4, y);
        y = fma::<FMA>(squared, -0.5, y);
        let y = fma::<FMA>(e, 0.693_359_4, r + y);
        let y = if self == 0.0 { f32::NEG_INFINITY } else { y };
        let y = if self == f32::INFINITY { self } else { y };
        // Negative numbers and NaN.
        if self >= 0.0 { y } else { f32::NAN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(low: f64, high: f64, f: impl Fn(f32) -> f32, g: impl Fn(f64) -> f64) -> f64 {
        (0..=200_000).fold(0.0, |worst: f64, k| {
            let x = (low + (high - low) * k as f64 / 200_000.0) as f32;
            let (actual, expected) = (f(x) as f64, g(x as f64));
            worst.max((actual - expected).abs() / expected.abs().max(1e-30))
        })
    }

    #[test]
    fn exponentials_and_logarithms_are_exact_to_rounding() {
        assert!(worst(-87.2, 88.2, Real::exponential::<true>, f64::exp) < 2e-7);
        assert!(worst(-87.2, 88.2, Real::exponential::<false>, f64::exp) < 2e-7);
        assert!(worst(1e-4, 0.7, |x| x.logarithm::<true>(), f64::ln) < 2e-7);
        assert!(worst(1.4, 1e6, |x| x.logarithm::<false>(), f64::ln) < 2e-7);
        assert!(worst(1e-37, 1e-30, |x| x.logarithm::<true>(), f64::ln) < 2e-7);
        assert!(worst(0.0, 1.0, |x| x.ln_1p_unit::<true>(), f64::ln_1p) < 3e-7);
        assert!(worst(0.0, 1e-6, |x| x.ln_1p_unit::<true>(), f64::ln_1p) < 3e-7);
    }

    #[test]
    fn the_ends_of_the_range_and_nan() {
        let exp = |x: f32| Real::exponential::<true>(x);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::MIN), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        let log = |x: f32| x.logarithm::<true>();
        assert_eq!(log(0.0), f32::NEG_INFINITY);
        assert_eq!(log(f32::INFINITY), f32::INFINITY);
        assert_eq!(log(1.0), 0.0);
        assert!(log(-1.0).is_nan() && log(f32::NAN).is_nan());
    }
}
