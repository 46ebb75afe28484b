//! What the lanes of a warp do together.

use super::{Opcode, Operands, Type};
use crate::program::Decoder;
use crate::warp::{Action, Exec, LANES, Mask, Pred, Reg, each};

pub fn action(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Action, String> {
    // The lanes that take part are the last operand.
    let members = d.operand(x.get(x.len() - 1)?)?;
    let exec = match op.name {
        "shfl" => shuffle(d, op, x)?,
        "vote" => vote(d, op, x)?,
        "redux" => reduction(d, op, x, members)?,
        _ => matching(d, op, x)?,
    };
    Ok(Action::Together(Some(members), exec))
}

/// The lanes that are at the same instruction.
pub fn active(d: &mut Decoder, x: &Operands) -> Result<Exec, String> {
    let to = d.register(x.get(0)?)?;
    Ok(Box::new(move |warp, _, mask| {
        warp.set(to, mask, [mask.into(); LANES]);
        Ok(())
    }))
}

/// `shfl.sync.mode.b32 d{|p}, a, b, c, members`.
fn shuffle(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    op.only(&["sync", "up", "down", "bfly", "idx"])?;
    let (name, valid) = match x.get(0)?.split_once('|') {
        Some((name, valid)) => (name.trim(), Some(d.predicate(valid.trim())?)),
        None => (x.get(0)?, None),
    };
    let to = d.register(name)?;
    let [a, b, c] = [
        d.operand(x.get(1)?)?,
        d.operand(x.get(2)?)?,
        d.operand(x.get(3)?)?,
    ];
    let mode = ["up", "down", "bfly", "idx"]
        .into_iter()
        .find(|mode| op.has(mode));
    let mode = mode.ok_or("no mode")?;
    Ok(Box::new(move |warp, _, mask| {
        let [from, by, bounds] = [a, b, c].map(|register| warp.registers[register]);
        let (mut values, mut held) = (from, 0);
        for lane in each(mask) {
            let (by, clamp) = (by[lane] as i64 & 0x1f, bounds[lane] as i64 & 0x1f);
            let segment = (bounds[lane] >> 8) as i64 & 0x1f;
            let here = lane as i64;
            let most = (here & segment) | (clamp & !segment);
            let least = here & segment;
            let (source, holds) = match mode {
                "up" => (here - by, here - by >= most),
                "down" => (here + by, here + by <= most),
                "bfly" => (here ^ by, here ^ by <= most),
                _ => {
                    let source = least | (by & !segment);
                    (source, source <= most)
                }
            };
            let source = if holds { source as usize } else { lane };
            held |= Mask::from(holds) << lane;
            if mask >> source & 1 == 0 {
                let why = format!("lane {lane} asks for lane {source}, which does not take part");
                return Err(why.into());
            }
            values[lane] = from[source] & 0xffff_ffff;
        }
        warp.set(to, mask, values);
        if let Some(valid) = valid {
            warp.set_predicate(valid, mask, held);
        }
        Ok(())
    }))
}

/// `vote.sync.mode d, {!}a, members`.
fn vote(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    op.only(&["sync", "all", "any", "uni", "ballot"])?;
    let name = x.get(1)?;
    let (a, negated) = (
        d.predicate(name.trim_start_matches('!'))?,
        name.starts_with('!'),
    );
    let holds = move |predicates: &[Mask], mask: Mask| {
        let a = predicates[a];
        if negated { !a & mask } else { a & mask }
    };
    if op.has("ballot") {
        let to = d.register(x.get(0)?)?;
        return Ok(Box::new(move |warp, _, mask| {
            let votes = holds(&warp.predicates, mask);
            warp.set(to, mask, [votes.into(); LANES]);
            Ok(())
        }));
    }
    let to: Pred = d.predicate(x.get(0)?)?;
    let (all, any) = (op.has("all"), op.has("any"));
    Ok(Box::new(move |warp, _, mask| {
        let votes = holds(&warp.predicates, mask);
        let result = match () {
            () if all => votes == mask,
            () if any => votes != 0,
            () => votes == 0 || votes == mask,
        };
        warp.set_predicate(to, mask, if result { Mask::MAX } else { 0 });
        Ok(())
    }))
}

/// `redux.sync.op.type d, a, members`.
fn reduction(d: &mut Decoder, op: &Opcode, x: &Operands, _: Reg) -> Result<Exec, String> {
    let signed = match op.last_type()? {
        Type::S(32) => true,
        Type::U(32) | Type::B(32) => false,
        other => return Err(format!("a reduction of {other:?}")),
    };
    let (to, a) = (d.register(x.get(0)?)?, d.operand(x.get(1)?)?);
    let name = op.parts.get(1).copied().unwrap_or_default();
    let f: fn(i64, i64) -> i64 = match name {
        "add" => |a, b| a.wrapping_add(b),
        "min" => |a, b| a.min(b),
        "max" => |a, b| a.max(b),
        "and" => |a, b| a & b,
        "or" => |a, b| a | b,
        "xor" => |a, b| a ^ b,
        _ => return Err("an unknown reduction".into()),
    };
    Ok(Box::new(move |warp, _, mask| {
        let read = |lane: usize| match warp.registers[a][lane] as u32 {
            value if signed => i64::from(value as i32),
            value => i64::from(value),
        };
        let value = each(mask).map(read).reduce(f).unwrap_or(0) as u32;
        warp.set(to, mask, [value.into(); LANES]);
        Ok(())
    }))
}

/// `match.sync.any.type d, a, members`.
fn matching(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    if !op.has("any") {
        return Err("a match of all".into());
    }
    let bits = op.last_type()?.bits();
    let (to, a) = (d.register(x.get(0)?)?, d.operand(x.get(1)?)?);
    Ok(Box::new(move |warp, _, mask| {
        let all = if bits == 64 {
            u64::MAX
        } else {
            u32::MAX.into()
        };
        let a = warp.registers[a].map(|value| value & all);
        let same = |lane: usize| {
            each(mask)
                .filter(|k| a[*k] == a[lane])
                .map(|k| 1u64 << k)
                .sum()
        };
        let values = std::array::from_fn(same);
        warp.set(to, mask, values);
        Ok(())
    }))
}
