//! From an opcode and its operands to what is done.

mod access;
mod arithmetic;
mod bits;
mod collective;
mod compare;
mod convert;
mod matrix;

use crate::number::{Lane, Rounding};
use crate::program::Decoder;
use crate::text::split;
use crate::warp::{Action, Exec, LANES, Reg};

/// The type of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Bits, unsigned or signed, and how many.
    B(u32),
    U(u32),
    S(u32),
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    U16x2,
    S16x2,
    Tf32,
    F32,
    F64,
    Pred,
}

impl Type {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "f16x2" => Self::F16x2,
            "bf16x2" => Self::Bf16x2,
            "u16x2" => Self::U16x2,
            "s16x2" => Self::S16x2,
            "tf32" => Self::Tf32,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "pred" => Self::Pred,
            _ => {
                let bits = name.get(1..)?.parse().ok()?;
                if ![8, 16, 32, 64, 128].contains(&bits) {
                    return None;
                }
                match name.as_bytes()[0] {
                    b'b' => Self::B(bits),
                    b'u' => Self::U(bits),
                    b's' => Self::S(bits),
                    _ => return None,
                }
            }
        })
    }

    pub fn bits(self) -> u32 {
        match self {
            Self::B(bits) | Self::U(bits) | Self::S(bits) => bits,
            Self::F16 | Self::Bf16 => 16,
            Self::F64 => 64,
            Self::Pred => 1,
            _ => 32,
        }
    }

    pub fn bytes(self) -> usize {
        self.bits() as usize / 8
    }

    pub fn is_signed(self) -> bool {
        matches!(self, Self::S(_))
    }

    pub fn is_integer(self) -> bool {
        matches!(self, Self::B(_) | Self::U(_) | Self::S(_))
    }
}

/// An opcode, as `cvt.rn.bf16.f32`, in its parts.
pub struct Opcode<'a> {
    pub name: &'a str,
    pub parts: Vec<&'a str>,
}

impl<'a> Opcode<'a> {
    fn new(text: &'a str) -> Self {
        let mut parts = text.split('.');
        let name = parts.next().unwrap_or_default();
        Self {
            name,
            parts: parts.collect(),
        }
    }

    pub fn has(&self, part: &str) -> bool {
        self.parts.contains(&part)
    }

    /// Its types, in order.
    pub fn types(&self) -> Vec<Type> {
        self.parts
            .iter()
            .filter_map(|part| Type::named(part))
            .collect()
    }

    pub fn last_type(&self) -> Result<Type, String> {
        self.types().last().copied().ok_or_else(|| "no type".into())
    }

    pub fn rounding(&self) -> Option<Rounding> {
        self.parts.iter().find_map(|part| {
            Some(match *part {
                "rn" | "rni" => Rounding::Nearest,
                "rz" | "rzi" => Rounding::Zero,
                "rm" | "rmi" => Rounding::Down,
                "rp" | "rpi" => Rounding::Up,
                "rna" => Rounding::NearestAway,
                _ => return None,
            })
        })
    }

    /// Fails on a part that is not among those that are known.
    pub fn only(&self, known: &[&str]) -> Result<(), String> {
        let unknown = |part: &&&str| Type::named(part).is_none() && !known.contains(*part);
        match self.parts.iter().find(unknown) {
            Some(part) => Err(format!("`.{part}` is not known of `{}`", self.name)),
            None => Ok(()),
        }
    }
}

/// Operands as they are written.
pub struct Operands<'a>(Vec<&'a str>);

impl<'a> Operands<'a> {
    pub fn get(&self, k: usize) -> Result<&'a str, String> {
        self.0
            .get(k)
            .copied()
            .ok_or_else(|| format!("operand {k} is missing"))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The registers between braces, or one.
    pub fn vector(&self, k: usize) -> Result<Vec<&'a str>, String> {
        let text = self.get(k)?;
        match text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
        {
            Some(inner) => Ok(split(inner)),
            None => Ok(vec![text]),
        }
    }
}

pub fn action(d: &mut Decoder, opcode: &str, operands: &str) -> Result<Action, String> {
    let op = Opcode::new(opcode);
    let x = Operands(split(operands));
    Ok(match op.name {
        "bra" => Action::Branch(d.label(x.get(0)?)?),
        "brx" => Action::Table(d.operand(x.get(0)?)?, d.targets(x.get(1)?)?),
        "call" => d.call(operands)?,
        "ret" => Action::Return,
        "exit" => Action::Exit,
        "trap" => Action::Trap,
        "bar" | "barrier" if op.has("warp") => {
            let members = d.operand(x.get(0)?)?;
            Action::Together(Some(members), Box::new(|_, _, _| Ok(())))
        }
        "bar" | "barrier" => barrier(&op, &x)?,
        "shfl" | "vote" | "match" | "redux" => collective::action(d, &op, &x)?,
        "wmma" | "mma" | "ldmatrix" | "stmatrix" => matrix::action(d, &op, &x)?,
        _ => Action::Do(exec(d, &op, &x)?),
    })
}

/// A barrier of all threads of a block.
fn barrier(op: &Opcode, x: &Operands) -> Result<Action, String> {
    op.only(&["sync", "aligned", "cta", "all"])?;
    match (x.len(), x.get(0)?) {
        (1, "0") => Ok(Action::Barrier),
        _ => Err("a barrier of a part of a block".into()),
    }
}

fn exec(d: &mut Decoder, op: &Opcode, x: &Operands) -> Result<Exec, String> {
    match op.name {
        "mov" => access::moved(d, op, x),
        "ld" | "ldu" | "st" | "atom" | "red" | "cvta" | "cp" => access::exec(d, op, x),
        "setp" | "set" | "selp" | "slct" => compare::exec(d, op, x),
        "cvt" => convert::exec(d, op, x),
        "activemask" => collective::active(d, x),
        // All that they order is in order already; their hints say nothing about results.
        "membar" | "fence" | "prefetch" | "prefetchu" | "nanosleep" | "griddepcontrol"
        | "discard" | "applypriority" => Ok(Box::new(|_, _, _| Ok(()))),
        "and" | "or" | "xor" | "not" if op.has("pred") => bits::of_predicates(d, op, x),
        "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "bfe" | "bfi" | "prmt"
        | "popc" | "clz" | "brev" | "bfind" | "lop3" | "bmsk" => bits::exec(d, op, x),
        _ => arithmetic::exec(d, op, x),
    }
}

// What is done to every lane. --------------------------------------------------------------------

pub fn unary<A: Lane, T: Lane>(
    [to, a]: [Reg; 2],
    f: impl Fn(A) -> T + Send + Sync + 'static,
) -> Exec {
    Box::new(move |warp, _, mask| {
        let a = &warp.registers[a];
        let mut values = [0; LANES];
        for lane in 0..LANES {
            values[lane] = f(A::get(a[lane])).put();
        }
        warp.set(to, mask, values);
        Ok(())
    })
}

pub fn binary<A: Lane, B: Lane, T: Lane>(
    [to, a, b]: [Reg; 3],
    f: impl Fn(A, B) -> T + Send + Sync + 'static,
) -> Exec {
    Box::new(move |warp, _, mask| {
        let (a, b) = (&warp.registers[a], &warp.registers[b]);
        let mut values = [0; LANES];
        for lane in 0..LANES {
            values[lane] = f(A::get(a[lane]), B::get(b[lane])).put();
        }
        warp.set(to, mask, values);
        Ok(())
    })
}

pub fn ternary<A: Lane, C: Lane, T: Lane>(
    [to, a, b, c]: [Reg; 4],
    f: impl Fn(A, A, C) -> T + Send + Sync + 'static,
) -> Exec {
    Box::new(move |warp, _, mask| {
        let [a, b, c] = [a, b, c].map(|register| &warp.registers[register]);
        let mut values = [0; LANES];
        for lane in 0..LANES {
            values[lane] = f(A::get(a[lane]), A::get(b[lane]), C::get(c[lane])).put();
        }
        warp.set(to, mask, values);
        Ok(())
    })
}

/// The register that is written, and those that are read.
pub fn registers<const N: usize>(d: &mut Decoder, x: &Operands) -> Result<[Reg; N], String> {
    let mut found = [0; N];
    for (k, register) in found.iter_mut().enumerate() {
        *register = match k {
            0 => d.register(x.get(0)?)?,
            _ => d.operand(x.get(k)?)?,
        };
    }
    Ok(found)
}

/// An expression for each integer type of so many bits, called `$T`.
macro_rules! by_integer {
    ($type:expr, |$T:ident| $value:expr) => {
        match $type {
            $crate::decode::Type::S(8) => {
                type $T = i8;
                $value
            }
            $crate::decode::Type::S(16) => {
                type $T = i16;
                $value
            }
            $crate::decode::Type::S(32) => {
                type $T = i32;
                $value
            }
            $crate::decode::Type::S(64) => {
                type $T = i64;
                $value
            }
            $crate::decode::Type::U(8) | $crate::decode::Type::B(8) => {
                type $T = u8;
                $value
            }
            $crate::decode::Type::U(16) | $crate::decode::Type::B(16) => {
                type $T = u16;
                $value
            }
            $crate::decode::Type::U(32) | $crate::decode::Type::B(32) => {
                type $T = u32;
                $value
            }
            $crate::decode::Type::U(64) | $crate::decode::Type::B(64) => {
                type $T = u64;
                $value
            }
            other => Err(format!("{other:?} is no integer")),
        }
    };
}
pub(crate) use by_integer;
