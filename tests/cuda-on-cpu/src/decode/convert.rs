//! Conversions between types.

use super::{Opcode, Operands, Type, binary, by_integer, registers, unary};
use crate::number::{Bf16, F16, Float, Lane, Rounding, flushed, saturated, to_integer, to_tf32};
use crate::program::Decoder;
use crate::warp::{Exec, Reg};

pub fn exec(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    op.only(&[
        "rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "rna", "ftz", "sat", "relu",
    ])?;
    let [to, from] = op.types()[..] else {
        return Err("a conversion between other than two types".into());
    };
    let rounding = op.rounding().unwrap_or(Rounding::Nearest);
    match to {
        Type::F16x2 => return paired::<F16>(d, op, x, rounding),
        Type::Bf16x2 => return paired::<Bf16>(d, op, x, rounding),
        _ if op.has("relu") => return Err("conversions that cut what is negative".into()),
        _ => {}
    }
    let r: [Reg; 2] = registers(d, x)?;
    match (to.is_integer(), from.is_integer()) {
        (true, true) => between_integers(r, to, from, op.has("sat")),
        (false, true) => by_integer!(from, |T| from_integer::<T>(r, to, rounding)),
        (true, false) => to_integers(r, to, from, (rounding, op.has("ftz"))),
        (false, false) => between_floats(r, to, from, op),
    }
}

/// Two numbers as the halves of a register, the first above.
fn paired<T: Float>(
    d: &mut Decoder,
    op: &Opcode,
    x: &Operands,
    rounding: Rounding,
) -> Result<Exec, String> {
    if op.last_type()? != Type::F32 {
        return Err("a pair of other than f32".into());
    }
    let least = if op.has("relu") {
        0.0
    } else {
        f64::NEG_INFINITY
    };
    let sat = op.has("sat");
    if sat {
        return Err("a pair that saturates".into());
    }
    let half = move |x: f32| {
        let x = if f64::from(x) < least {
            least
        } else {
            x.into()
        };
        T::rounded(x, rounding).put() as u32
    };
    Ok(binary(registers(d, x)?, move |a: f32, b: f32| {
        half(a) << 16 | half(b)
    }))
}

fn between_integers(r: [Reg; 2], to: Type, from: Type, sat: bool) -> Result<Exec, String> {
    by_integer!(from, |A| {
        by_integer!(to, |T| {
            if sat {
                return Ok(unary(r, |a: A| {
                    let a = i128::from(a).clamp(T::MIN.into(), T::MAX.into());
                    a as T
                }));
            }
            // Signs are those of what is read, whatever is written.
            #[allow(clippy::unnecessary_cast)] // Of one of the types.
            let cast = |a: A| (a as T) as i64 as u64;
            Ok(unary(r, cast))
        })
    })
}

fn from_integer<A: Lane + Integer>(
    r: [Reg; 2],
    to: Type,
    rounding: Rounding,
) -> Result<Exec, String> {
    let nearest = rounding == Rounding::Nearest;
    Ok(match to {
        Type::F32 if nearest => unary(r, |a: A| a.single()),
        Type::F64 if nearest || A::BITS <= 32 => unary(r, |a: A| a.double()),
        _ if A::BITS > 32 && !nearest => return Err("64 bits rounded so".into()),
        Type::F32 => unary(r, move |a: A| f32::rounded(a.double(), rounding)),
        Type::F16 => unary(r, move |a: A| F16::rounded(a.double(), rounding)),
        Type::Bf16 => unary(r, move |a: A| Bf16::rounded(a.double(), rounding)),
        other => return Err(format!("an integer as {other:?}")),
    })
}

/// To the nearest number of a floating-point type.
trait Integer {
    const BITS: u32;
    fn single(self) -> f32;
    fn double(self) -> f64;
}

macro_rules! integers {
    ($($type:ty)+) => {
        $(impl Integer for $type {
            const BITS: u32 = <$type>::BITS;
            fn single(self) -> f32 {
                self as f32
            }
            fn double(self) -> f64 {
                self as f64
            }
        })+
    };
}
integers!(u8 u16 u32 u64 i8 i16 i32 i64);

/// How f64 is made of a register.
fn widening(from: Type, ftz: bool) -> Result<fn(u64) -> f64, String> {
    Ok(match from {
        Type::F16 => |x| F16::get(x).wide(),
        Type::Bf16 => |x| Bf16::get(x).wide(),
        Type::F32 if ftz => |x| flushed(f32::get(x)).into(),
        Type::F32 => |x| f32::get(x).into(),
        Type::F64 => f64::get,
        other => return Err(format!("a conversion of {other:?}")),
    })
}

/// Beyond the range is at its end, and NaN is zero, or the least of 64 bits.
fn to_integers(
    r: [Reg; 2],
    to: Type,
    from: Type,
    (rounding, ftz): (Rounding, bool),
) -> Result<Exec, String> {
    let wide = widening(from, ftz)?;
    by_integer!(to, |T| {
        Ok(unary(r, move |a: u64| to_integer(wide(a), rounding) as T))
    })
}

fn between_floats(r: [Reg; 2], to: Type, from: Type, op: &Opcode) -> Result<Exec, String> {
    let (ftz, sat) = (op.has("ftz"), op.has("sat"));
    let integral = op
        .parts
        .iter()
        .any(|part| ["rni", "rzi", "rmi", "rpi"].contains(part));
    let rounding = op.rounding().unwrap_or(Rounding::Nearest);
    // What kernels do most, as the processor does it.
    match (to, from) {
        _ if ftz || sat || integral => {}
        (Type::F32, Type::Bf16) => return Ok(unary(r, Bf16::single)),
        (Type::F32, Type::F16) => return Ok(unary(r, F16::single)),
        (Type::F64, Type::F32) => return Ok(unary(r, |a: f32| f64::from(a))),
        (Type::F32, Type::F64) if rounding == Rounding::Nearest => {
            return Ok(unary(r, |a: f64| a as f32));
        }
        (Type::Tf32, Type::F32) => return Ok(unary(r, move |a: f32| to_tf32(a, rounding))),
        _ => {}
    }
    let wide = widening(from, ftz)?;
    let read = move |a: u64| {
        let x = wide(a);
        let x = if integral { to_integer(x, rounding) } else { x };
        if sat { saturated(x) } else { x }
    };
    Ok(match to {
        Type::F16 => unary(r, move |a: u64| F16::rounded(read(a), rounding)),
        Type::Bf16 => unary(r, move |a: u64| Bf16::rounded(read(a), rounding)),
        Type::F32 => unary(r, move |a: u64| {
            let x = f32::rounded(read(a), rounding);
            if ftz { flushed(x) } else { x }
        }),
        Type::F64 => unary(r, read),
        other => return Err(format!("a conversion to {other:?}")),
    })
}
