//! Comparisons, and choices by them.

use super::{Opcode, Operands, Type, by_integer};
use crate::number::{Bf16, F16, Lane};
use crate::program::Decoder;
use crate::warp::{Exec, LANES, Lanes, Mask};

/// The lanes of two registers that compare as asked.
type Compare = Box<dyn Fn(&Lanes, &Lanes) -> Mask + Send + Sync>;

pub fn exec(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    match op.name {
        "setp" => set(d, op, x),
        "selp" => select(d, op, x),
        _ => Err("an unknown opcode".into()),
    }
}

fn select(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    op.only(&[])?;
    let to = d.register(x.get(0)?)?;
    let (a, b) = (d.operand(x.get(1)?)?, d.operand(x.get(2)?)?);
    let by = d.predicate(x.get(3)?)?;
    Ok(Box::new(move |warp, _, mask| {
        let (a, b, by) = (&warp.registers[a], &warp.registers[b], warp.predicates[by]);
        let values = std::array::from_fn(|lane| {
            if by >> lane & 1 == 1 {
                a[lane]
            } else {
                b[lane]
            }
        });
        warp.set(to, mask, values);
        Ok(())
    }))
}

/// `setp.cmp{.bool}.type p{|q}, a, b{, c}`.
fn set(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let names: Vec<&str> = x.get(0)?.split('|').map(str::trim).collect();
    let kind = op.last_type()?;
    if matches!(kind, Type::F16x2 | Type::Bf16x2) {
        return set_pair(d, op, x, &names);
    }
    let compare = comparison(op, kind)?;
    let to = predicates(d, &names)?;
    let (a, b) = (d.operand(x.get(1)?)?, d.operand(x.get(2)?)?);
    let with = ["and", "or", "xor"].into_iter().find(|name| op.has(name));
    let (c, negated) = match with {
        None => (0, false),
        Some(_) => {
            let name = x.get(3)?;
            (
                d.predicate(name.trim_start_matches('!'))?,
                name.starts_with('!'),
            )
        }
    };
    Ok(Box::new(move |warp, _, mask| {
        let holds = compare(&warp.registers[a], &warp.registers[b]);
        let c = if negated {
            !warp.predicates[c]
        } else {
            warp.predicates[c]
        };
        let joined = |holds: Mask| match with {
            None => holds,
            Some("and") => holds & c,
            Some("or") => holds | c,
            Some(_) => holds ^ c,
        };
        for (to, holds) in to.iter().zip([holds, !holds]) {
            if let Some(to) = to {
                warp.set_predicate(*to, mask, joined(holds));
            }
        }
        Ok(())
    }))
}

/// The halves of registers, each with a predicate of its own.
fn set_pair(d: &mut Decoder, op: &Opcode, x: &Operands, names: &[&str]) -> Result<Exec, String> {
    let kind = if op.last_type()? == Type::F16x2 {
        Type::F16
    } else {
        Type::Bf16
    };
    let compare = comparison(op, kind)?;
    if op.has("and") || op.has("or") || op.has("xor") {
        return Err("pairs compared and joined".into());
    }
    let to = predicates(d, names)?;
    let (a, b) = (d.operand(x.get(1)?)?, d.operand(x.get(2)?)?);
    Ok(Box::new(move |warp, _, mask| {
        let (a, b) = (warp.registers[a], warp.registers[b]);
        for (k, to) in to.iter().enumerate() {
            let half = |x: Lanes| x.map(|x| x >> (16 * k));
            if let Some(to) = to {
                warp.set_predicate(*to, mask, compare(&half(a), &half(b)));
            }
        }
        Ok(())
    }))
}

fn predicates(d: &mut Decoder, names: &[&str]) -> Result<Vec<Option<usize>>, String> {
    let each = names.iter().map(|name| match *name {
        "_" => Ok(None),
        name => d.predicate(name).map(Some),
    });
    each.collect()
}

fn comparison(op: &Opcode, kind: Type) -> Result<Compare, String> {
    const KNOWN: [&str; 22] = [
        "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu",
        "gtu", "geu", "num", "nan", "and", "or", "xor", "ftz",
    ];
    op.only(&KNOWN)?;
    let name = op.parts.first().copied().unwrap_or_default();
    match kind {
        Type::F32 if op.has("ftz") => {
            of_floats(name, |x| f64::from(crate::number::flushed(f32::get(x))))
        }
        Type::F32 => of_floats(name, f32::get),
        Type::F64 => of_floats(name, f64::get),
        Type::F16 => of_floats(name, |x| F16::get(x).single()),
        Type::Bf16 => of_floats(name, |x| Bf16::get(x).single()),
        _ => by_integer!(kind, |T| of_integers(name, T::get)),
    }
}

/// By what is read of registers, and a relation of two of that.
fn lanes<T: Copy>(
    read: impl Fn(u64) -> T + Send + Sync + 'static,
    holds: impl Fn(T, T) -> bool + Send + Sync + 'static,
) -> Compare {
    Box::new(move |a, b| {
        (0..LANES).fold(0, |mask, k| {
            mask | Mask::from(holds(read(a[k]), read(b[k]))) << k
        })
    })
}

fn of_integers<T: Copy + Ord + 'static>(
    name: &str,
    read: impl Fn(u64) -> T + Send + Sync + 'static,
) -> Result<Compare, String> {
    Ok(match name {
        "eq" => lanes(read, |a, b| a == b),
        "ne" => lanes(read, |a, b| a != b),
        "lt" | "lo" => lanes(read, |a, b| a < b),
        "le" | "ls" => lanes(read, |a, b| a <= b),
        "gt" | "hi" => lanes(read, |a, b| a > b),
        "ge" | "hs" => lanes(read, |a, b| a >= b),
        _ => return Err("an unknown comparison".into()),
    })
}

/// The names with `u` hold of NaN, the others do not.
// That is what NaN is about.
#[allow(clippy::neg_cmp_op_on_partial_ord, clippy::double_comparisons)]
fn of_floats<T: Copy + PartialOrd + 'static>(
    name: &str,
    read: impl Fn(u64) -> T + Send + Sync + 'static,
) -> Result<Compare, String> {
    Ok(match name {
        "eq" => lanes(read, |a, b| a == b),
        "ne" => lanes(read, |a, b| a < b || a > b),
        "lt" => lanes(read, |a, b| a < b),
        "le" => lanes(read, |a, b| a <= b),
        "gt" => lanes(read, |a, b| a > b),
        "ge" => lanes(read, |a, b| a >= b),
        "equ" => lanes(read, |a, b| !(a < b || a > b)),
        "neu" => lanes(read, |a, b| a != b),
        "ltu" => lanes(read, |a, b| !(a >= b)),
        "leu" => lanes(read, |a, b| !(a > b)),
        "gtu" => lanes(read, |a, b| !(a <= b)),
        "geu" => lanes(read, |a, b| !(a < b)),
        "num" => lanes(read, |a, b| a <= b || a > b),
        "nan" => lanes(read, |a, b| !(a <= b || a > b)),
        _ => return Err("an unknown comparison".into()),
    })
}
