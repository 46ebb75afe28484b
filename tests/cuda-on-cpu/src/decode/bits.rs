//! Instructions on bits.

use super::{Opcode, Operands, Type, binary, by_integer, registers, ternary, unary};
use crate::program::Decoder;
use crate::warp::Exec;

/// Of predicates: `and.pred`, and the others.
pub fn of_predicates(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let (to, a) = (d.predicate(x.get(0)?)?, d.predicate(x.get(1)?)?);
    let f: fn(u32, u32) -> u32 = match op.name {
        "and" => |a, b| a & b,
        "or" => |a, b| a | b,
        "xor" => |a, b| a ^ b,
        _ => |a, _| !a,
    };
    let b = if op.name == "not" {
        a
    } else {
        d.predicate(x.get(2)?)?
    };
    Ok(Box::new(move |warp, _, mask| {
        let value = f(warp.predicates[a], warp.predicates[b]);
        warp.set_predicate(to, mask, value);
        Ok(())
    }))
}

pub fn exec(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let kind = op.last_type()?;
    match op.name {
        "shf" => return funnel(d, op, x),
        "prmt" if op.parts == ["b32"] => {
            return Ok(ternary(registers(d, x)?, permuted));
        }
        "bfi" => return inserted(d, kind, x),
        "bfe" => return extracted(d, kind, x),
        "lop3" => return logic(d, x),
        _ => {}
    }
    op.only(&[])?;
    by_integer!(kind, |T| {
        // Shifts by more than there are bits leave none, or the sign.
        let most = T::BITS - 1;
        Ok(match op.name {
            "and" => binary(registers(d, x)?, |a: T, b: T| a & b),
            "or" => binary(registers(d, x)?, |a: T, b: T| a | b),
            "xor" => binary(registers(d, x)?, |a: T, b: T| a ^ b),
            "not" => unary(registers(d, x)?, |a: T| !a),
            "cnot" => unary(registers(d, x)?, |a: T| T::from(a == 0)),
            "shl" => binary(registers(d, x)?, move |a: T, b: u32| {
                a.checked_shl(b).unwrap_or(0)
            }),
            "shr" if kind.is_signed() => {
                binary(registers(d, x)?, move |a: T, b: u32| a >> b.min(most))
            }
            "shr" => binary(registers(d, x)?, move |a: T, b: u32| {
                a.checked_shr(b).unwrap_or(0)
            }),
            "popc" => unary(registers(d, x)?, |a: T| a.count_ones()),
            "clz" => unary(registers(d, x)?, |a: T| a.leading_zeros()),
            "brev" => unary(registers(d, x)?, |a: T| a.reverse_bits()),
            _ => return Err("an unknown opcode".into()),
        })
    })
}

/// Four of eight bytes.
fn permuted(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    (0..4).fold(0, |result, k| {
        let which = selector >> (4 * k) & 0xf;
        let byte = (bytes >> (8 * (which & 7))) as u8;
        // Its sign alone, if asked for.
        let byte = if which & 8 == 0 {
            byte
        } else {
            ((byte as i8) >> 7) as u8
        };
        result | u32::from(byte) << (8 * k)
    })
}

/// A shift of two registers as one.
fn funnel(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    op.only(&["l", "r", "wrap", "clamp"])?;
    let (left, wraps) = (op.has("l"), op.has("wrap"));
    Ok(ternary(registers(d, x)?, move |a: u32, b: u32, c: u32| {
        let by = if wraps { c & 31 } else { c.min(32) };
        let both = u64::from(b) << 32 | u64::from(a);
        if left {
            (both << by >> 32) as u32
        } else {
            (both >> by) as u32
        }
    }))
}

fn extracted(d: &mut Decoder, kind: Type, x: &Operands) -> Result<Exec, String> {
    let bits = kind.bits();
    let signed = kind.is_signed();
    Ok(ternary(
        registers(d, x)?,
        move |a: u64, start: u64, len: u64| {
            let (start, len) = (start as u32 & 0xff, len as u32 & 0xff);
            let unused = 64 - bits;
            let a = if signed {
                i128::from((a << unused) as i64 >> unused)
            } else {
                i128::from((a << unused) >> unused)
            };
            let moved = a >> start.min(127);
            match len {
                0 => 0,
                64.. => moved as u64,
                _ if signed => ((moved as i64) << (64 - len) >> (64 - len)) as u64,
                _ => moved as u64 & ((1 << len) - 1),
            }
        },
    ))
}

/// `bfi d, a, b, start, len`: bits of `a` into `b`.
fn inserted(d: &mut Decoder, kind: Type, x: &Operands) -> Result<Exec, String> {
    let to = d.register(x.get(0)?)?;
    let mut from = [0; 4];
    for (k, register) in from.iter_mut().enumerate() {
        *register = d.operand(x.get(k + 1)?)?;
    }
    let bits = kind.bits();
    Ok(Box::new(move |warp, _, mask| {
        let [a, b, start, len] = from.map(|register| &warp.registers[register]);
        let values = std::array::from_fn(|lane| {
            let (start, len) = (start[lane] as u32 & 0xff, (len[lane] as u32 & 0xff).min(64));
            let field = if len == 0 { 0 } else { u64::MAX >> (64 - len) };
            let field = field.checked_shl(start).unwrap_or(0) & (u64::MAX >> (64 - bits));
            let moved = a[lane].checked_shl(start).unwrap_or(0);
            b[lane] & !field | moved & field
        });
        warp.set(to, mask, values);
        Ok(())
    }))
}

/// Any function of three bits, by its table.
fn logic(d: &mut Decoder, x: &Operands) -> Result<Exec, String> {
    let table = crate::names::number(x.get(4)?).ok_or("no table")? as u32;
    Ok(ternary(registers(d, x)?, move |a: u32, b: u32, c: u32| {
        (0..8).filter(|k| table >> k & 1 == 1).fold(0, |result, k| {
            let of = |x: u32, bit: u32| if k & bit == 0 { !x } else { x };
            result | of(a, 4) & of(b, 2) & of(c, 1)
        })
    }))
}
