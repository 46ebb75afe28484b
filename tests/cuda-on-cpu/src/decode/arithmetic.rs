//! Arithmetic of integers and of floating-point numbers.

use super::{Opcode, Operands, Type, binary, by_integer, registers, ternary, unary};
use crate::number::{Bf16, F16, Float, Rounding, extreme, flushed, saturated, sum_to_odd};
use crate::program::Decoder;
use crate::warp::Exec;

const PARTS: [&str; 12] = [
    "rn", "rz", "rm", "rp", "ftz", "sat", "approx", "full", "lo", "hi", "wide", "NaN",
];

pub fn exec(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    if op.has("cc") || ["addc", "subc", "madc"].contains(&op.name) {
        return carried(d, op, x);
    }
    op.only(&PARTS)?;
    match op.last_type()? {
        Type::F16 => floats::<F16>(d, op, x),
        Type::Bf16 => floats::<Bf16>(d, op, x),
        Type::F32 => plain(d, op, x).unwrap_or_else(|| floats::<f32>(d, op, x)),
        Type::F64 => of_f64(d, op, x),
        Type::F16x2 => pairs::<F16>(d, op, x),
        Type::Bf16x2 => pairs::<Bf16>(d, op, x),
        Type::U16x2 | Type::S16x2 => integer_pairs(d, op, x),
        _ => integers(d, op, x),
    }
}

// Integers. --------------------------------------------------------------------------------------

fn integers(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    if op.has("sat") {
        return Err("saturating integers".into());
    }
    let kind = op.last_type()?;
    match (op.name, op.has("wide"), op.has("hi")) {
        ("mul" | "mad", true, _) => return wide(d, op, x),
        ("mul" | "mad", _, true) => return high(d, op, x),
        _ => {}
    }
    by_integer!(kind, |T| {
        Ok(match op.name {
            "add" => binary(registers(d, x)?, |a: T, b: T| a.wrapping_add(b)),
            "sub" => binary(registers(d, x)?, |a: T, b: T| a.wrapping_sub(b)),
            "mul" => binary(registers(d, x)?, |a: T, b: T| a.wrapping_mul(b)),
            "mad" => ternary(registers(d, x)?, |a: T, b: T, c: T| {
                a.wrapping_mul(b).wrapping_add(c)
            }),
            // What is unspecified by zero is all ones, as on hardware.
            "div" => binary(registers(d, x)?, |a: T, b: T| match b {
                0 => !0,
                _ => a.wrapping_div(b),
            }),
            "rem" => binary(registers(d, x)?, |a: T, b: T| match b {
                0 => a,
                _ => a.wrapping_rem(b),
            }),
            "min" => binary(registers(d, x)?, |a: T, b: T| a.min(b)),
            "max" => binary(registers(d, x)?, |a: T, b: T| a.max(b)),
            "neg" => unary(registers(d, x)?, |a: T| (0 as T).wrapping_sub(a)),
            "abs" => unary(registers(d, x)?, |a: T| {
                if i128::from(a) < 0 {
                    (0 as T).wrapping_sub(a)
                } else {
                    a
                }
            }),
            _ => return Err("an unknown opcode".into()),
        })
    })
}

/// Of the two halves of a register.
fn integer_pairs(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let signed = op.last_type()? == Type::S16x2;
    let wide = move |x: u32| {
        if signed {
            i32::from(x as i16)
        } else {
            x as u16 as i32
        }
    };
    let f: fn(i32, i32) -> i32 = match op.name {
        "add" => |a, b| a + b,
        "min" => |a, b| a.min(b),
        "max" => |a, b| a.max(b),
        _ => return Err("an unknown opcode".into()),
    };
    Ok(binary(registers(d, x)?, move |a: u32, b: u32| {
        let half = |k: u32| f(wide(a >> k), wide(b >> k)) as u32 & 0xffff;
        half(0) | half(16) << 16
    }))
}

/// All digits of a product of numbers of half as many bits, and what is added to it.
fn wide(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let product = |kind: Type| -> Result<fn(u64, u64) -> u64, String> {
        Ok(match kind {
            Type::U(16) => |a, b| u64::from(a as u16) * u64::from(b as u16),
            Type::S(16) => |a, b| (i64::from(a as i16) * i64::from(b as i16)) as u64,
            Type::U(32) => |a, b| u64::from(a as u32) * u64::from(b as u32),
            Type::S(32) => |a, b| (i64::from(a as i32) * i64::from(b as i32)) as u64,
            other => return Err(format!("a wide product of {other:?}")),
        })
    };
    let product = product(op.last_type()?)?;
    if op.name == "mad" {
        return Ok(ternary(registers(d, x)?, move |a: u64, b: u64, c: u64| {
            product(a, b).wrapping_add(c)
        }));
    }
    Ok(binary(registers(d, x)?, move |a: u64, b: u64| {
        product(a, b)
    }))
}

/// The upper half of a product, and what is added to it.
fn high(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let kind = op.last_type()?;
    by_integer!(kind, |T| {
        let upper = |a: T, b: T| ((i128::from(a) * i128::from(b)) >> T::BITS) as T;
        let word = (1u128 << T::BITS) - 1;
        // Two numbers of 64 bits without a sign have no product in 127.
        let unsigned =
            move |a: T, b: T| (((a as u128 & word) * (b as u128 & word)) >> T::BITS) as T;
        let signed = kind.is_signed();
        let upper = move |a: T, b: T| if signed { upper(a, b) } else { unsigned(a, b) };
        Ok(if op.name == "mad" {
            ternary(registers(d, x)?, move |a: T, b: T, c: T| {
                upper(a, b).wrapping_add(c)
            })
        } else {
            binary(registers(d, x)?, upper)
        })
    })
}

/// Words of longer numbers: a carry in, out, or both.
fn carried(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    op.only(&["cc", "lo", "hi"])?;
    let bits = op.last_type()?.bits();
    let (takes, gives) = (op.name.ends_with('c'), op.has("cc"));
    let word = (1u128 << bits) - 1;
    let (subtracts, multiplies) = (op.name.starts_with("sub"), op.name.starts_with("mad"));
    if op.last_type()?.is_signed() && op.has("hi") {
        return Err("signed words of longer numbers".into());
    }
    let high = if op.has("hi") { bits } else { 0 };
    let to = d.register(x.get(0)?)?;
    let (a, b) = (d.operand(x.get(1)?)?, d.operand(x.get(2)?)?);
    let c = if multiplies { d.operand(x.get(3)?)? } else { b };
    Ok(Box::new(move |warp, _, mask| {
        let [a, b, c] = [a, b, c].map(|register| warp.registers[register]);
        let mut carries = 0;
        let values = std::array::from_fn(|lane| {
            let [a, b, c] = [a, b, c].map(|values| u128::from(values[lane]) & word);
            let carry = u128::from(takes && warp.carries >> lane & 1 == 1);
            let sum = match () {
                () if multiplies => ((a * b) >> high & word) + c + carry,
                () if subtracts => a.wrapping_sub(b).wrapping_sub(carry),
                () => a + b + carry,
            };
            carries |= u32::from(sum > word) << lane;
            (sum & word) as u64
        });
        warp.set(to, mask, values);
        if gives {
            warp.carries = warp.carries & !mask | carries & mask;
        }
        Ok(())
    }))
}

// Floating-point numbers. ------------------------------------------------------------------------

/// f32 as the processor computes it: rounded to the nearest, subnormal numbers kept.
fn plain(d: &mut Decoder, op: &Opcode, x: &Operands) -> Option<Result<Exec, String>> {
    if op.has("ftz")
        || op.has("sat")
        || op.rounding().unwrap_or(Rounding::Nearest) != Rounding::Nearest
    {
        return None;
    }
    Some(match op.name {
        "add" => registers(d, x).map(|r| binary(r, |a: f32, b: f32| a + b)),
        "sub" => registers(d, x).map(|r| binary(r, |a: f32, b: f32| a - b)),
        "mul" => registers(d, x).map(|r| binary(r, |a: f32, b: f32| a * b)),
        "fma" | "mad" => {
            registers(d, x).map(|r| ternary(r, |a: f32, b: f32, c: f32| a.mul_add(b, c)))
        }
        _ => return None,
    })
}

fn of_f64(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    if op.rounding().unwrap_or(Rounding::Nearest) != Rounding::Nearest && op.name != "cvt" {
        return Err("f64 rounded other than to the nearest".into());
    }
    Ok(match op.name {
        "add" => binary(registers(d, x)?, |a: f64, b: f64| a + b),
        "sub" => binary(registers(d, x)?, |a: f64, b: f64| a - b),
        "mul" => binary(registers(d, x)?, |a: f64, b: f64| a * b),
        "div" => binary(registers(d, x)?, |a: f64, b: f64| a / b),
        "fma" | "mad" => ternary(registers(d, x)?, |a: f64, b: f64, c: f64| a.mul_add(b, c)),
        "sqrt" => unary(registers(d, x)?, |a: f64| a.sqrt()),
        "rcp" if op.has("approx") => unary(registers(d, x)?, |a: f64| upper_word(1.0 / a)),
        "rcp" => unary(registers(d, x)?, |a: f64| 1.0 / a),
        "rsqrt" => unary(registers(d, x)?, |a: f64| upper_word(1.0 / a.sqrt())),
        _ => return floats::<f64>(d, op, x),
    })
}

/// The digits of a number's upper 32 bits: what approximations of f64 have.
fn upper_word(x: f64) -> f64 {
    f64::from_bits(x.to_bits() & !0xffff_ffff)
}

/// How a result is made of one that is exact, or has more digits than its type.
#[derive(Clone, Copy)]
struct Finish {
    rounding: Rounding,
    ftz: bool,
    sat: bool,
}

impl Finish {
    fn of(op: &Opcode) -> Self {
        Self {
            rounding: op.rounding().unwrap_or(Rounding::Nearest),
            ftz: op.has("ftz"),
            sat: op.has("sat"),
        }
    }

    fn read<T: Float>(self, x: T) -> f64 {
        let wide = x.wide();
        // Only f32 has the flag.
        if self.ftz {
            flushed(wide as f32).into()
        } else {
            wide
        }
    }

    fn write<T: Float>(self, x: f64) -> T {
        let x = if self.sat { saturated(x) } else { x };
        let narrow = T::rounded(x, self.rounding);
        if self.ftz && (narrow.wide() as f32).is_subnormal() {
            return T::rounded(0f64.copysign(x), self.rounding);
        }
        narrow
    }
}

/// Of a type with at most 24 digits: results in f64 have more than twice as many.
fn floats<T: Float>(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let exact = operation(op)?;
    if let Operation::Bits(f) = exact {
        let sign = 1u64 << (op.last_type()?.bits() - 1);
        return Ok(unary(registers(d, x)?, move |a: u64| f(a, sign)));
    }
    let finish = Finish::of(op);
    Ok(match exact {
        Operation::One(f) => unary(registers(d, x)?, move |a: T| {
            finish.write::<T>(f(finish.read(a)))
        }),
        Operation::Two(f) => binary(registers(d, x)?, move |a: T, b: T| {
            finish.write::<T>(f(finish.read(a), finish.read(b)))
        }),
        _ => ternary(registers(d, x)?, move |a: T, b: T, c: T| {
            finish.write::<T>(fused(finish.read(a), finish.read(b), finish.read(c)))
        }),
    })
}

/// Of the two halves of a register.
fn pairs<T: Float>(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let finish = Finish::of(op);
    let halves = |a: u32, f: &dyn Fn(usize, T) -> T| {
        let of = |k: usize| f(k, T::get(u64::from(a >> (16 * k)))).put() as u32 & 0xffff;
        of(0) | of(1) << 16
    };
    let half = |b: u32, k: usize| T::get(u64::from(b >> (16 * k)));
    Ok(match operation(op)? {
        Operation::Bits(f) => unary(registers(d, x)?, move |a: u32| {
            halves(a, &|_, a| T::get(f(a.put(), 1 << 15)))
        }),
        Operation::One(f) => unary(registers(d, x)?, move |a: u32| {
            halves(a, &|_, a| finish.write(f(finish.read(a))))
        }),
        Operation::Two(f) => binary(registers(d, x)?, move |a: u32, b: u32| {
            halves(a, &|k, a| {
                finish.write(f(finish.read(a), finish.read(half(b, k))))
            })
        }),
        Operation::Fused => ternary(registers(d, x)?, move |a: u32, b: u32, c: u32| {
            halves(a, &|k, a: T| {
                finish.write(fused(a.wide(), half(b, k).wide(), half(c, k).wide()))
            })
        }),
    })
}

enum Operation {
    /// Of the bits, and that of the sign.
    Bits(fn(u64, u64) -> u64),
    One(fn(f64) -> f64),
    Two(fn(f64, f64) -> f64),
    Fused,
}

fn fused(a: f64, b: f64, c: f64) -> f64 {
    sum_to_odd(a * b, c)
}

fn operation(op: &Opcode) -> Result<Operation, String> {
    use Operation::{Bits, Fused, One, Two};
    Ok(match (op.name, op.has("NaN")) {
        ("add", _) => Two(sum_to_odd),
        ("sub", _) => Two(|a, b| sum_to_odd(a, -b)),
        ("mul", _) => Two(|a, b| a * b),
        ("fma" | "mad", _) => Fused,
        ("min", keeps) if keeps => Two(|a, b| extreme(a, b, false, true)),
        ("min", _) => Two(|a, b| extreme(a, b, false, false)),
        ("max", keeps) if keeps => Two(|a, b| extreme(a, b, true, true)),
        ("max", _) => Two(|a, b| extreme(a, b, true, false)),
        ("neg", _) => Bits(|a, sign| a ^ sign),
        ("abs", _) => Bits(|a, sign| a & !sign),
        ("div", _) if op.has("approx") => Two(|a, b| {
            // Its reciprocal would be subnormal.
            if b.abs() > 2f64.powi(126) && b.is_finite() && a.is_finite() {
                0.0
            } else {
                a / b
            }
        }),
        ("div", _) => Two(|a, b| a / b),
        ("rcp", _) => One(|a| 1.0 / a),
        ("sqrt", _) => One(f64::sqrt),
        ("rsqrt", _) => One(|a| 1.0 / a.sqrt()),
        ("ex2", _) => One(f64::exp2),
        ("lg2", _) => One(f64::log2),
        ("sin", _) => One(f64::sin),
        ("cos", _) => One(f64::cos),
        ("tanh", _) => One(|a| {
            // An approximation of 11 digits; no better here.
            f64::from_bits((a.tanh().to_bits() + (1 << 41)) & !((1 << 42) - 1))
        }),
        ("copysign", _) => Two(|a, b| b.copysign(a)),
        _ => return Err("an unknown opcode".into()),
    })
}
