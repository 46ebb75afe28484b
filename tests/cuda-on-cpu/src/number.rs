//! Numbers as registers hold them: 64 bits a lane, of which a type reads the lowest.

/// A type of an instruction's operands.
pub trait Lane: Copy + Send + Sync + 'static {
    fn get(bits: u64) -> Self;
    fn put(self) -> u64;
}

macro_rules! integers {
    ($($type:ty)+) => {
        $(impl Lane for $type {
            #[inline(always)]
            fn get(bits: u64) -> Self {
                bits as $type
            }
            #[inline(always)]
            fn put(self) -> u64 {
                self as u64
            }
        })+
    };
}
integers!(u8 u16 u32 u64 i8 i16 i32 i64);

impl Lane for f32 {
    #[inline(always)]
    fn get(bits: u64) -> Self {
        f32::from_bits(bits as u32)
    }
    #[inline(always)]
    fn put(self) -> u64 {
        self.to_bits().into()
    }
}

impl Lane for f64 {
    #[inline(always)]
    fn get(bits: u64) -> Self {
        f64::from_bits(bits)
    }
    #[inline(always)]
    fn put(self) -> u64 {
        self.to_bits()
    }
}

/// How a result is rounded: `.rn`, `.rz`, `.rm`, `.rp`, and `.rna` of tf32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    Nearest,
    Zero,
    Down,
    Up,
    NearestAway,
}

/// A floating-point type. Every value of one is a value of f64.
pub trait Float: Lane {
    fn wide(self) -> f64;
    fn rounded(x: f64, rounding: Rounding) -> Self;
}

impl Float for f64 {
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    fn rounded(x: f64, _: Rounding) -> Self {
        x
    }
}

impl Float for f32 {
    #[inline(always)]
    fn wide(self) -> f64 {
        self.into()
    }
    #[inline(always)]
    fn rounded(x: f64, rounding: Rounding) -> Self {
        match rounding {
            Rounding::Nearest => x as f32,
            other => f32::from_bits(narrow(x, 8, 23, other) as u32),
        }
    }
}

macro_rules! halves {
    ($($name:ident, $exponent:literal, $mantissa:literal;)+) => {
        $(
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name(pub u16);

            impl Lane for $name {
                #[inline(always)]
                fn get(bits: u64) -> Self {
                    Self(bits as u16)
                }
                #[inline(always)]
                fn put(self) -> u64 {
                    self.0.into()
                }
            }

            impl Float for $name {
                #[inline(always)]
                fn wide(self) -> f64 {
                    self.single().into()
                }
                fn rounded(x: f64, rounding: Rounding) -> Self {
                    Self(narrow(x, $exponent, $mantissa, rounding) as u16)
                }
            }
        )+
    };
}
halves! { F16, 5, 10; Bf16, 8, 7; }

impl Bf16 {
    #[inline(always)]
    pub fn single(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

impl F16 {
    #[inline(always)]
    pub fn single(self) -> f32 {
        let (sign, rest) = (u32::from(self.0 & 0x8000) << 16, u32::from(self.0 & 0x7fff));
        let magnitude = match rest {
            0x7c00.. => f32::from_bits(0x7f80_0000 | (rest & 0x3ff) << 13),
            0x0400.. => f32::from_bits((rest << 13) + (112 << 23)),
            _ => rest as f32 / (1 << 24) as f32,
        };
        f32::from_bits(magnitude.to_bits() | sign)
    }
}

/// The bits of `x` in a format of so many bits.
pub fn narrow(x: f64, exponent: u32, mantissa: u32, rounding: Rounding) -> u64 {
    let infinity = ((1u64 << exponent) - 1) << mantissa;
    let sign = (x.to_bits() >> 63) << (exponent + mantissa);
    if x.is_nan() {
        return infinity | ((1 << mantissa) - 1);
    }
    if x.is_infinite() {
        return sign | infinity;
    }
    let magnitude = x.abs().to_bits();
    // The value is `digits · 2^(power − 52)`.
    let (power, digits) = match (magnitude >> 52) as i32 {
        0 => (-1022, magnitude),
        biased => (biased - 1023, magnitude & ((1 << 52) - 1) | 1 << 52),
    };
    let least = 2 - (1 << (exponent - 1));
    let shift = (power.max(least) - power + 52 - mantissa as i32) as u32;
    let (kept, rest, half) = match shift {
        0 => (digits, 0, 1),
        1..=63 => (
            digits >> shift,
            digits & ((1 << shift) - 1),
            1 << (shift - 1),
        ),
        _ => (0, u64::from(digits > 0), 2),
    };
    let up = match rounding {
        Rounding::Nearest => rest > half || (rest == half && kept & 1 == 1),
        Rounding::NearestAway => rest >= half,
        Rounding::Zero => false,
        Rounding::Down => rest > 0 && sign > 0,
        Rounding::Up => rest > 0 && sign == 0,
    };
    // A carry out of the digits is one into the exponent.
    let base = ((power.max(least) - least) as u64) << mantissa;
    let bits = base + kept + u64::from(up);
    if bits < infinity {
        return sign | bits;
    }
    let stays_finite = match rounding {
        Rounding::Nearest | Rounding::NearestAway => false,
        Rounding::Zero => true,
        Rounding::Down => sign == 0,
        Rounding::Up => sign > 0,
    };
    sign | (infinity - u64::from(stays_finite))
}

/// `x + y`, where what does not fit in 53 bits sets the last of them: rounded once more, to less
/// than 52 bits, it is as if it had been rounded once.
pub fn sum_to_odd(x: f64, y: f64) -> f64 {
    let sum = x + y;
    let of_y = sum - x;
    let error = (x - (sum - of_y)) + (y - of_y);
    if !sum.is_finite() || error == 0.0 || error.is_nan() || sum.to_bits() & 1 == 1 {
        return sum;
    }
    let away = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if away {
        sum.to_bits() + 1
    } else {
        sum.to_bits() - 1
    })
}

/// Subnormal numbers as zeros of their sign.
#[inline(always)]
pub fn flushed(x: f32) -> f32 {
    if x.is_subnormal() {
        0f32.copysign(x)
    } else {
        x
    }
}

/// What `.sat` makes of a number: between 0 and 1, and 0 for a NaN.
pub fn saturated(x: f64) -> f64 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) }
}

/// The smaller, or the larger: the other of a NaN, unless NaN is to be kept.
#[inline(always)]
pub fn extreme<T: Float>(a: T, b: T, largest: bool, keeps_nan: bool) -> T {
    let (x, y) = (a.wide(), b.wide());
    if x.is_nan() || y.is_nan() {
        let of_two = x.is_nan() && y.is_nan();
        return match () {
            () if of_two || keeps_nan => T::rounded(f64::NAN, Rounding::Nearest),
            () if x.is_nan() => b,
            () => a,
        };
    }
    // −0 is less than +0.
    let a_is_less = x < y || (x == y && x.is_sign_negative());
    if a_is_less != largest { a } else { b }
}

/// Rounded to an integer.
pub fn to_integer(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => x.round_ties_even(),
        Rounding::NearestAway => x.round(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
    }
}

/// f32 with the 10 digits of tf32.
pub fn to_tf32(x: f32, rounding: Rounding) -> f32 {
    let bits = narrow(x.into(), 8, 10, rounding) as u32;
    f32::from_bits(bits << 13)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_to_the_nearest_and_ties_to_even() {
        let bf16 = |x: f64| Bf16::rounded(x, Rounding::Nearest).wide();
        assert_eq!(bf16(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(bf16(1.0 + 3.0 / 256.0), 1.0 + 4.0 / 256.0);
        assert_eq!(bf16(1.0 + 1.0 / 256.0 + 1e-9), 1.0 + 2.0 / 256.0);
        assert_eq!(bf16(f64::MAX), f64::INFINITY);
        assert_eq!(bf16(2f64.powi(-133)), 2f64.powi(-133));
        assert_eq!(bf16(2f64.powi(-134)), 0.0);
        assert_eq!(bf16(3.0 * 2f64.powi(-135)), 2f64.powi(-133));
        let f16 = |x: f64| F16::rounded(x, Rounding::Nearest).wide();
        assert_eq!(f16(65519.9), 65504.0);
        assert_eq!(f16(65520.0), f64::INFINITY);
        assert_eq!(f16(-2f64.powi(-24)), -2f64.powi(-24));
        assert!(f16(f64::NAN).is_nan() && bf16(f64::NAN).is_nan());
        assert_eq!(F16::rounded(f64::NAN, Rounding::Nearest), F16(0x7fff));
    }

    #[test]
    fn every_half_is_itself_after_a_round_trip() {
        for bits in 0..=u16::MAX {
            for (wide, back) in [
                (
                    F16(bits).wide(),
                    F16::rounded(F16(bits).wide(), Rounding::Nearest).0,
                ),
                (
                    Bf16(bits).wide(),
                    Bf16::rounded(Bf16(bits).wide(), Rounding::Nearest).0,
                ),
            ] {
                assert!(wide.is_nan() || back == bits, "{bits:x} {wide} {back:x}");
            }
        }
    }

    #[test]
    fn narrowing_to_f32_is_as_the_processor_does_it() {
        let mut seed = 1u64;
        for _ in 0..200_000 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let x = f64::from_bits(seed);
            let bits = narrow(x, 8, 23, Rounding::Nearest) as u32;
            assert!(x.is_nan() || bits == (x as f32).to_bits(), "{x:e}");
            let x = f64::from((seed >> 32) as i32) * 2f64.powi(-160) + 1e-60;
            assert_eq!(
                narrow(x, 8, 23, Rounding::Nearest) as u32,
                (x as f32).to_bits(),
                "{x:e}"
            );
        }
    }

    #[test]
    fn directed_rounding_goes_its_way() {
        let f = |x: f64, rounding| f32::rounded(x, rounding);
        let tenth = 0.1f64;
        let (below, above) = (f(tenth, Rounding::Down), f(tenth, Rounding::Up));
        assert!(f64::from(below) < tenth && f64::from(above) > tenth);
        assert_eq!(above.to_bits(), below.to_bits() + 1);
        assert_eq!(f(tenth, Rounding::Zero), below);
        assert_eq!(f(-tenth, Rounding::Zero), -below);
        assert_eq!(f(-tenth, Rounding::Down), -above);
        assert_eq!(f(1e300, Rounding::Down), f32::MAX);
        assert_eq!(f(1e300, Rounding::Up), f32::INFINITY);
    }

    /// `a · b + c`.
    fn fused<T: Float>(a: T, b: T, c: T, rounding: Rounding) -> T {
        T::rounded(sum_to_odd(a.wide() * b.wide(), c.wide()), rounding)
    }

    #[test]
    fn a_fused_product_is_rounded_once() {
        // Next to a tie of f16: rounded to f64 first, the small term would be lost.
        let (a, b, c) = (F16(0x3c01), F16(0x3c00), F16(0x0001));
        assert_eq!(fused(a, b, c, Rounding::Nearest), F16(0x3c01));
        assert_eq!(fused(a, b, c, Rounding::Up), F16(0x3c02));
        for (a, b, c) in [
            (1.1f32, 3.3, -3.63),
            (1e-20, 1e-20, 1.0),
            (1e30, 1e8, -1e38),
        ] {
            assert_eq!(fused(a, b, c, Rounding::Nearest), a.mul_add(b, c));
        }
        let tie = 1.0 + 2f64.powi(-24);
        assert_eq!(sum_to_odd(tie, 2f64.powi(-80)) as f32, 1.0 + 2f32.powi(-23));
        assert_eq!(sum_to_odd(tie, -2f64.powi(-80)) as f32, 1.0);
    }

    #[test]
    fn extremes_pass_over_nan_unless_asked_to_keep_it() {
        assert_eq!(extreme(f32::NAN, 2.0, false, false), 2.0);
        assert_eq!(extreme(2.0, f32::NAN, true, false), 2.0);
        assert!(extreme(2.0, f32::NAN, true, true).is_nan());
        assert!(extreme(f32::NAN, f32::NAN, true, false).is_nan());
        assert_eq!(extreme(-0.0f32, 0.0, true, false).to_bits(), 0);
        assert_eq!(extreme(0.0f32, -0.0, false, false).to_bits(), 1 << 31);
    }

    #[test]
    fn tf32_has_ten_digits() {
        assert_eq!(
            to_tf32(1.0 + 1.0 / 2048.0, Rounding::NearestAway),
            1.0 + 1.0 / 1024.0
        );
        assert_eq!(to_tf32(1.0 + 1.0 / 2048.0, Rounding::Nearest), 1.0);
    }
}
