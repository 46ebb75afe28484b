//! Moves between registers, and between registers and memory.

use std::sync::Mutex;

use super::{Opcode, Operands, Type};
use crate::memory::{Kind, Space, place, read, write};
use crate::number::{Bf16, F16, Float, Rounding, extreme};
use crate::program::Decoder;
use crate::text::bytes_of;
use crate::warp::{Exec, Reg, each};

pub fn exec(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    match op.name {
        "ld" | "ldu" => load(d, op, x),
        "st" => store(d, op, x),
        "cvta" => window(d, op, x),
        "atom" | "red" => atomic(d, op, x),
        _ => copy(d, op, x),
    }
}

/// `mov`, also of several registers as one and of one as several.
pub fn moved(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let kind = op.last_type()?;
    if kind == Type::Pred {
        let (to, from) = (d.predicate(x.get(0)?)?, d.predicate(x.get(1)?)?);
        return Ok(Box::new(move |warp, _, mask| {
            let value = warp.predicates[from];
            warp.set_predicate(to, mask, value);
            Ok(())
        }));
    }
    let (to, from) = (x.vector(0)?, x.vector(1)?);
    if (to.len() > 1 || from.len() > 1) && kind.bits() > 64 {
        return Err("a register of more than 64 bits".into());
    }
    let to = to
        .into_iter()
        .map(|name| d.register(name))
        .collect::<Result<Vec<_>, _>>()?;
    let from = from
        .into_iter()
        .map(|name| d.operand(name))
        .collect::<Result<Vec<_>, _>>()?;
    let all = if kind.bits() == 64 {
        u64::MAX
    } else {
        (1 << kind.bits()) - 1
    };
    Ok(match (&to[..], &from[..]) {
        (&[to], &[from]) => Box::new(move |warp, _, mask| {
            let values = warp.registers[from].map(|value| value & all);
            warp.set(to, mask, values);
            Ok(())
        }),
        (&[to], _) => {
            let bits = kind.bits() / from.len() as u32;
            Box::new(move |warp, _, mask| {
                let part = |register: Reg, lane| warp.registers[register][lane] & ((1 << bits) - 1);
                let values = std::array::from_fn(|lane| {
                    let parts = from.iter().rev();
                    parts.fold(0, |value, register| value << bits | part(*register, lane))
                });
                warp.set(to, mask, values);
                Ok(())
            })
        }
        (_, &[from]) => {
            let bits = kind.bits() / to.len() as u32;
            Box::new(move |warp, _, mask| {
                let value = warp.registers[from];
                for (k, to) in to.iter().enumerate() {
                    let part = |value: u64| value >> (bits * k as u32) & ((1 << bits) - 1);
                    warp.set(*to, mask, value.map(part));
                }
                Ok(())
            })
        }
        _ => return Err("several registers to several".into()),
    })
}

fn space_of(op: &Opcode, symbol: Option<Space>) -> Space {
    let spaces = [
        ("global", Space::Global),
        ("const", Space::Global),
        ("local", Space::Local),
    ];
    let found = spaces.into_iter().find(|(name, _)| op.has(name));
    match found {
        Some((_, space)) => space,
        None if op.parts.iter().any(|part| part.starts_with("shared")) => Space::Shared,
        // Of the kernel, or of a call.
        None if op.has("param") => match symbol {
            Some(space) => space,
            None => Space::Parameters,
        },
        None => Space::Generic,
    }
}

const ACCESS: [&str; 34] = [
    "global",
    "const",
    "local",
    "shared",
    "shared::cta",
    "shared::cluster",
    "param",
    "volatile",
    "relaxed",
    "acquire",
    "release",
    "acq_rel",
    "weak",
    "gpu",
    "sys",
    "cta",
    "cluster",
    "nc",
    "v2",
    "v4",
    "v8",
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "L1::no_allocate",
    "L1::evict_last",
    "L1::evict_first",
    "L1::evict_unchanged",
    "entry",
    "func",
];

/// Of a load or a store.
struct Access {
    space: Space,
    base: Reg,
    offset: u64,
    registers: Vec<Reg>,
    bytes: usize,
}

impl Access {
    fn new(
        d: &mut Decoder,
        op: &Opcode,
        address: &str,
        registers: Vec<Reg>,
    ) -> Result<Self, String> {
        let hint = |part: &&str| part.starts_with("L2::") || part.starts_with("L1::");
        let parts = op
            .parts
            .iter()
            .copied()
            .filter(|part| !hint(part))
            .collect();
        Opcode {
            name: op.name,
            parts,
        }
        .only(&ACCESS)?;
        let (base, offset, symbol) = d.address(address)?;
        let bytes = op.last_type()?.bytes();
        if !matches!(bytes, 1 | 2 | 4 | 8) {
            return Err(format!("accesses of {bytes} bytes"));
        }
        Ok(Self {
            space: space_of(op, symbol),
            base,
            offset,
            registers,
            bytes,
        })
    }
}

fn load(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let to = x
        .vector(0)?
        .into_iter()
        .map(|name| d.register(name))
        .collect::<Result<_, _>>()?;
    let a = Access::new(d, op, x.get(1)?, to)?;
    let unused = if op.last_type()?.is_signed() {
        64 - 8 * a.bytes as u32
    } else {
        0
    };
    Ok(Box::new(move |warp, block, mask| {
        for lane in each(mask) {
            let address = warp.registers[a.base][lane].wrapping_add(a.offset);
            let all = a.bytes * a.registers.len();
            let from = place((warp, block), (a.space, address, lane), all, Kind::Read)?;
            for (k, to) in a.registers.iter().enumerate() {
                let value = read(from.wrapping_add(k * a.bytes), a.bytes);
                warp.registers[*to][lane] = ((value << unused) as i64 >> unused) as u64;
            }
        }
        Ok(())
    }))
}

fn store(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let from = x
        .vector(1)?
        .into_iter()
        .map(|name| d.operand(name))
        .collect::<Result<_, _>>()?;
    let a = Access::new(d, op, x.get(0)?, from)?;
    Ok(Box::new(move |warp, block, mask| {
        for lane in each(mask) {
            let address = warp.registers[a.base][lane].wrapping_add(a.offset);
            let all = a.bytes * a.registers.len();
            let to = place((warp, block), (a.space, address, lane), all, Kind::Write)?;
            for (k, from) in a.registers.iter().enumerate() {
                write(
                    to.wrapping_add(k * a.bytes),
                    a.bytes,
                    warp.registers[*from][lane],
                );
            }
        }
        Ok(())
    }))
}

/// Between addresses of a space and generic ones.
fn window(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let space = space_of(op, None);
    let (to, from) = (d.register(x.get(0)?)?, d.operand(x.get(1)?)?);
    let start = Decoder::window(space);
    let start = if op.has("to") {
        start.wrapping_neg()
    } else {
        start
    };
    Ok(super::unary([to, from], move |a: u64| {
        a.wrapping_add(start)
    }))
}

/// `cp.async`, at once.
fn copy(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    if !op.has("async") || op.has("bulk") || op.has("mbarrier") {
        return Err("an unknown opcode".into());
    }
    if op
        .parts
        .iter()
        .any(|part| part.starts_with("commit") || part.starts_with("wait"))
    {
        return Ok(Box::new(|_, _, _| Ok(())));
    }
    let (to, to_offset, _) = d.address(x.get(0)?)?;
    let (from, from_offset, _) = d.address(x.get(1)?)?;
    let bytes = crate::names::number(x.get(2)?).ok_or("no size")? as usize;
    // What is beyond this many bytes of the source is zero.
    let there = match x.len() {
        3 => d.constant(bytes as u64),
        _ => d.operand(x.get(3)?)?,
    };
    Ok(Box::new(move |warp, block, mask| {
        for lane in each(mask) {
            let at = |register: Reg, offset| warp.registers[register][lane].wrapping_add(offset);
            let (to, from) = (at(to, to_offset), at(from, from_offset));
            let there = (warp.registers[there][lane] as u32 as usize).min(bytes);
            let mut values = [0; 16];
            for (k, value) in values.iter_mut().take(there).enumerate() {
                let address = (Space::Global, from + k as u64, lane);
                *value = read(place((warp, block), address, 1, Kind::Read)?, 1);
            }
            let to = place((warp, block), (Space::Shared, to, lane), bytes, Kind::Write)?;
            for (k, value) in values.into_iter().take(bytes).enumerate() {
                write(to.wrapping_add(k), 1, value);
            }
        }
        Ok(())
    }))
}

// Atomic operations. -----------------------------------------------------------------------------

/// What is there, and what two operands make of it.
type Update = Box<dyn Fn(u64, u64, u64) -> u64 + Send + Sync>;

/// One at a time, of all blocks.
static ATOMIC: Mutex<()> = Mutex::new(());

fn atomic(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    let kind = op.last_type()?;
    let bytes = bytes_of(op.parts.last().ok_or("no type")?).unwrap_or(kind.bytes());
    let update = update(op, kind)?;
    let first = usize::from(op.name == "atom");
    let to = if first == 1 {
        d.register(x.get(0)?)?
    } else {
        d.fresh()
    };
    let (base, offset, symbol) = d.address(x.get(first)?)?;
    let a = d.operand(x.get(first + 1)?)?;
    let b = if x.len() > first + 2 {
        d.operand(x.get(first + 2)?)?
    } else {
        a
    };
    let space = space_of(op, symbol);
    Ok(Box::new(move |warp, block, mask| {
        let _alone = ATOMIC.lock();
        for lane in each(mask) {
            let address = warp.registers[base][lane].wrapping_add(offset);
            let at = place((warp, block), (space, address, lane), bytes, Kind::Atomic)?;
            let before = read(at, bytes);
            let [a, b] = [a, b].map(|register| warp.registers[register][lane]);
            write(at, bytes, update(before, a, b));
            warp.registers[to][lane] = before;
        }
        Ok(())
    }))
}

fn update(op: &Opcode, kind: Type) -> Result<Update, String> {
    let of = |name: &str| op.has(name);
    Ok(match kind {
        Type::F32 => of_floats::<f32>(op)?,
        Type::F64 => of_floats::<f64>(op)?,
        Type::F16 => of_floats::<F16>(op)?,
        Type::Bf16 => of_floats::<Bf16>(op)?,
        Type::F16x2 | Type::Bf16x2 => return Err("atomics of pairs".into()),
        _ if of("cas") => {
            let all = if kind.bits() == 64 {
                u64::MAX
            } else {
                (1 << kind.bits()) - 1
            };
            Box::new(move |there, a, b| if there == a & all { b } else { there })
        }
        _ if of("exch") => Box::new(|_, a, _| a),
        _ if of("and") => Box::new(|there, a, _| there & a),
        _ if of("or") => Box::new(|there, a, _| there | a),
        _ if of("xor") => Box::new(|there, a, _| there ^ a),
        _ if of("add") => Box::new(|there, a, _| there.wrapping_add(a)),
        _ if of("min") || of("max") => {
            let (largest, bits, signed) = (of("max"), kind.bits(), kind.is_signed());
            let key = move |x: u64| {
                let x = x << (64 - bits);
                if signed { x ^ 1 << 63 } else { x }
            };
            Box::new(move |there, a, _| {
                if (key(a) > key(there)) == largest {
                    a
                } else {
                    there
                }
            })
        }
        _ => return Err("an unknown atomic operation".into()),
    })
}

fn of_floats<T: Float>(op: &Opcode) -> Result<Update, String> {
    let f: fn(T, T) -> T = match () {
        () if op.has("add") => |a, b| T::rounded(a.wide() + b.wide(), Rounding::Nearest),
        () if op.has("min") => |a, b| extreme(a, b, false, false),
        () if op.has("max") => |a, b| extreme(a, b, true, false),
        () if op.has("exch") => |_, b| b,
        () => return Err("an unknown atomic operation".into()),
    };
    Ok(Box::new(move |there, a, _| {
        f(T::get(there), T::get(a)).put()
    }))
}
