//! The steps of a pass for a strip of pairs: consecutive columns of one row.

use super::math;
use super::product::Strips;
use crate::host::Real;
use crate::pairwise::expr::{Binary, Leaf, Unary};
use crate::pairwise::pass::Steps;
use crate::pairwise::tape::Op;

/// What expressions read besides similarities.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a, T> {
    pub n: usize,
    pub m: usize,
    /// Vectors of rows, `[K, n]`.
    pub rows: &'a [T],
    /// Vectors of columns, `[K, m]`.
    pub columns: &'a [T],
    pub scalars: &'a [T],
    /// `[n, m]`, not 0 where it holds; empty where no mask is used.
    pub mask: &'a [u8],
}

/// For each step its values.
pub(super) struct Values<T> {
    /// Those of the steps that vary and of the results, `len` each.
    strips: Vec<T>,
    len: usize,
    /// Those of the steps that are the same for all pairs of the row.
    uniform: Vec<T>,
}

impl<T: Real> Values<T> {
    pub fn new(steps: &Steps, len: usize) -> Self {
        let count = steps.tape.ops.len();
        Self {
            strips: vec![T::ZERO; count * len],
            len,
            uniform: vec![T::ZERO; count],
        }
    }

    /// The values of a result.
    #[inline(always)]
    pub fn result(&mut self, step: usize, len: usize) -> &mut [T] {
        &mut self.strips[step * self.len..][..len]
    }

    #[inline(always)]
    pub fn results(&self, [x, y]: [usize; 2], len: usize) -> (&[T], &[T]) {
        let strip = |step: usize| &self.strips[step * self.len..][..len];
        (strip(x), strip(y))
    }
}

/// Where in a tile the similarities of the teachers are read.
#[derive(Clone, Copy)]
pub(super) struct Teachers<'a, T> {
    pub strips: &'a [Option<Strips<T>>],
    pub row: usize,
    pub column: usize,
}

impl<'a, T> Teachers<'a, T> {
    #[inline(always)]
    fn strip(self, k: usize, len: usize) -> &'a [T] {
        let strips = self.strips[k]
            .as_ref()
            .expect("the pass reads this teacher");
        &strips.row(self.row)[self.column..][..len]
    }
}

/// An operand: a value for each pair of the strip, or one for all.
#[derive(Clone, Copy)]
enum Arg<'a, T> {
    Each(&'a [T]),
    All(T),
}

/// What an earlier step computed.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn operand<'a, T: Real>(
    step: usize,
    steps: &Steps,
    context: &Context<'a, T>,
    j0: usize,
    similarities: &'a [T],
    teachers: Teachers<'a, T>,
    done: &'a [T],
    stride: usize,
    uniform: &[T],
) -> Arg<'a, T> {
    let len = similarities.len();
    match steps.tape.ops[step] {
        Op::Leaf(Leaf::Similarity) => Arg::Each(similarities),
        Op::Leaf(Leaf::Teacher(k)) => Arg::Each(teachers.strip(k, len)),
        Op::Leaf(Leaf::Column(c)) => Arg::Each(&context.columns[c * context.m + j0..][..len]),
        _ if steps.varies[step] => Arg::Each(&done[step * stride..][..len]),
        _ => Arg::All(uniform[step]),
    }
}

/// Computes all steps for row `i`, columns `j0..`.
#[inline(always)]
pub(super) fn evaluate<T: Real, const FMA: bool>(
    steps: &Steps,
    context: &Context<T>,
    i: usize,
    j0: usize,
    similarities: &[T],
    teachers: Teachers<T>,
    values: &mut Values<T>,
) {
    let len = similarities.len();
    let stride = values.len;
    let (strips, uniform) = (&mut values.strips, &mut values.uniform);
    for (step, op) in steps.tape.ops.iter().enumerate() {
        let (done, rest) = strips.split_at_mut(step * stride);
        let out = &mut rest[..len];
        macro_rules! arg {
            ($step:expr) => {
                operand(
                    $step,
                    steps,
                    context,
                    j0,
                    similarities,
                    teachers,
                    done,
                    stride,
                    uniform,
                )
            };
        }
        if !steps.varies[step] {
            uniform[step] = of_row::<T, FMA>(*op, context, i, uniform);
            if steps.is_result[step] {
                out.fill(uniform[step]);
            }
            continue;
        }
        match *op {
            Op::Leaf(Leaf::Mask) => mask(out, &context.mask[i * context.m + j0..]),
            // Read where they are, unless a reduction takes them as such.
            Op::Leaf(_) | Op::Constant(_) => {
                if steps.is_result[step] {
                    zip(out, arg!(step), Arg::All(T::ZERO), |x, _| x);
                }
            }
            Op::Detach(x) => zip(out, arg!(x), Arg::All(T::ZERO), |x, _| x),
            Op::Unary(op, x) => {
                let Arg::Each(x) = arg!(x) else {
                    unreachable!("it varies")
                };
                unary::<T, FMA>(op, out, x);
            }
            Op::Binary(op, x, y) => binary(op, out, arg!(x), arg!(y)),
            Op::Select(c, x, y) => select(out, arg!(c), arg!(x), arg!(y)),
        }
    }
}

/// A step that is the same for all pairs of row `i`.
#[inline(always)]
fn of_row<T: Real, const FMA: bool>(op: Op, context: &Context<T>, i: usize, done: &[T]) -> T {
    match op {
        Op::Leaf(Leaf::Row(k)) => context.rows[k * context.n + i],
        Op::Leaf(Leaf::Scalar(k)) => context.scalars[k],
        Op::Leaf(_) => unreachable!("the other leaves vary"),
        Op::Constant(x) => T::of(x),
        Op::Detach(x) => done[x],
        Op::Unary(op, x) => math::unary::<T, FMA>(op, done[x]),
        Op::Binary(op, x, y) => math::binary(op, done[x], done[y]),
        Op::Select(c, x, y) => {
            if done[c] != T::ZERO {
                done[x]
            } else {
                done[y]
            }
        }
    }
}

#[inline(always)]
fn mask<T: Real>(out: &mut [T], mask: &[u8]) {
    for (out, &set) in out.iter_mut().zip(mask) {
        *out = if set != 0 { T::ONE } else { T::ZERO };
    }
}

/// One loop an operation, so that each becomes vector code.
#[inline(always)]
fn unary<T: Real, const FMA: bool>(op: Unary, out: &mut [T], x: &[T]) {
    match op {
        Unary::Neg => map(out, x, |x| math::unary::<T, FMA>(Unary::Neg, x)),
        Unary::Exp => map(out, x, |x| math::unary::<T, FMA>(Unary::Exp, x)),
        Unary::Log => map(out, x, |x| math::unary::<T, FMA>(Unary::Log, x)),
        Unary::Sqrt => map(out, x, |x| math::unary::<T, FMA>(Unary::Sqrt, x)),
        Unary::Relu => map(out, x, |x| math::unary::<T, FMA>(Unary::Relu, x)),
        Unary::Step => map(out, x, |x| math::unary::<T, FMA>(Unary::Step, x)),
        Unary::Softplus => map(out, x, |x| math::unary::<T, FMA>(Unary::Softplus, x)),
        Unary::Sigmoid => map(out, x, |x| math::unary::<T, FMA>(Unary::Sigmoid, x)),
    }
}

#[inline(always)]
fn binary<T: Real>(op: Binary, out: &mut [T], x: Arg<T>, y: Arg<T>) {
    match op {
        Binary::Add => zip(out, x, y, |x, y| x + y),
        Binary::Sub => zip(out, x, y, |x, y| x - y),
        Binary::Mul => zip(out, x, y, |x, y| x * y),
        Binary::Div => zip(out, x, y, |x, y| x / y),
        Binary::Equal => zip(out, x, y, |x, y| math::binary(Binary::Equal, x, y)),
    }
}

#[inline(always)]
fn map<T: Real>(out: &mut [T], x: &[T], f: impl Fn(T) -> T) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f(x);
    }
}

#[inline(always)]
fn zip<T: Real>(out: &mut [T], x: Arg<T>, y: Arg<T>, f: impl Fn(T, T) -> T) {
    match (x, y) {
        (Arg::Each(x), Arg::Each(y)) => {
            for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
                *out = f(x, y);
            }
        }
        (Arg::Each(x), Arg::All(y)) => map(out, x, |x| f(x, y)),
        (Arg::All(x), Arg::Each(y)) => map(out, y, |y| f(x, y)),
        (Arg::All(x), Arg::All(y)) => out.fill(f(x, y)),
    }
}

/// `x` where the condition is not 0, else `y`.
#[inline(always)]
fn select<T: Real>(out: &mut [T], condition: Arg<T>, x: Arg<T>, y: Arg<T>) {
    let choose = |c: T, x: T, y: T| if c == T::ZERO { y } else { x };
    match (condition, x, y) {
        (Arg::All(c), x, y) => {
            let chosen = if c == T::ZERO { y } else { x };
            zip(out, chosen, Arg::All(T::ZERO), |x, _| x);
        }
        (Arg::Each(c), Arg::Each(x), Arg::Each(y)) => {
            for (out, ((&c, &x), &y)) in out.iter_mut().zip(c.iter().zip(x).zip(y)) {
                *out = choose(c, x, y);
            }
        }
        (Arg::Each(c), x, Arg::All(y)) => zip(out, Arg::Each(c), x, |c, x| choose(c, x, y)),
        (Arg::Each(c), Arg::All(x), y) => zip(out, Arg::Each(c), y, |c, y| choose(c, x, y)),
    }
}
