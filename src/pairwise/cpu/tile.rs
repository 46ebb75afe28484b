//! What happens to a tile of similarities while it is in cache: expressions are evaluated row by row on
//! strips of numbers, reductions take them in, and the coefficients replace the similarities.

use super::math::{self, Real, largest, sum};
use super::states::States;
use crate::pairwise::expr::{Binary, Leaf, Op, Unary};
use crate::pairwise::form::{Axis, Kind, Pass, Steps};

/// Longest strip, in numbers.
pub(super) const STRIP: usize = 512;

/// What expressions read besides the similarities.
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

/// Room for the steps' numbers: of a strip, and of one pair on the diagonal.
pub(super) struct Scratch<T> {
    strip: Numbers<T>,
    diagonal: Numbers<T>,
}

impl<T: Real> Scratch<T> {
    pub fn new(pass: &Pass) -> Self {
        Self {
            strip: Numbers::new(&pass.off_diagonal, STRIP),
            diagonal: Numbers::new(&pass.on_diagonal, 1),
        }
    }
}

/// For each step its numbers.
struct Numbers<T> {
    /// Those of the steps that vary and of the results, `len` each.
    strips: Vec<T>,
    len: usize,
    /// Those of the steps that are the same for all pairs of the row.
    uniform: Vec<T>,
}

impl<T: Real> Numbers<T> {
    fn new(steps: &Steps, len: usize) -> Self {
        let count = steps.tape.ops.len();
        Self {
            strips: vec![T::ZERO; count * len],
            len,
            uniform: vec![T::ZERO; count],
        }
    }

    /// The numbers of a result.
    #[inline(always)]
    fn result(&mut self, step: usize, len: usize) -> &mut [T] {
        &mut self.strips[step * self.len..][..len]
    }

    #[inline(always)]
    fn results(&self, [x, y]: [usize; 2], len: usize) -> (&[T], &[T]) {
        let strip = |step: usize| &self.strips[step * self.len..][..len];
        (strip(x), strip(y))
    }
}

/// The rows of a tile, each a strip, in a matrix that other tasks work on at the same time.
pub(super) struct Strips<T> {
    start: *mut T,
    stride: usize,
    rows: usize,
    columns: usize,
}

impl<T> Strips<T> {
    /// # Safety
    ///
    /// `rows` strips of `columns` numbers, `stride` apart from `start` on, are the caller's alone for
    /// as long as this lives.
    pub unsafe fn new(start: *mut T, stride: usize, rows: usize, columns: usize) -> Self {
        Self {
            start,
            stride,
            rows,
            columns,
        }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> &[T] {
        assert!(row < self.rows);
        // SAFETY: one of the strips that `new` was promised; `&self` lets nobody write to it.
        unsafe { std::slice::from_raw_parts(self.start.add(row * self.stride), self.columns) }
    }

    #[inline(always)]
    fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows);
        // SAFETY: one of the strips that `new` was promised; `&mut self` gives them out one by one.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.columns) }
    }
}

/// Where in a tile the similarities of the teachers are read.
#[derive(Clone, Copy)]
struct Teachers<'a, T> {
    strips: &'a [Option<Strips<T>>],
    row: usize,
    column: usize,
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

/// One tile: rows `i0..` and columns `j0..` of the matrix.
pub(super) struct Tile<T> {
    pub i0: usize,
    pub j0: usize,
    pub rows: usize,
    /// At most [`STRIP`].
    pub columns: usize,
    /// Similarities in, coefficients out.
    pub similarities: Strips<T>,
    /// The similarities of the teachers that the pass reads.
    pub teachers: Vec<Option<Strips<T>>>,
    /// Whether reductions along columns take part (not on the diagonal tiles of a symmetric matrix).
    pub count_columns: bool,
}

/// Runs `pass` on a tile, with the best instructions of this processor. The states are those of the
/// tile's rows and columns.
pub(super) fn run<T: Real>(
    pass: &Pass,
    context: &Context<T>,
    tile: Tile<T>,
    scratch: &mut Scratch<T>,
    rows: &mut States<T>,
    columns: &mut States<T>,
) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
        {
            // SAFETY: the processor has the instructions.
            return unsafe { run_avx512(pass, context, tile, scratch, rows, columns) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the instructions.
            return unsafe { run_avx2(pass, context, tile, scratch, rows, columns) };
        }
    }
    run_with::<T, { cfg!(target_arch = "aarch64") }>(pass, context, tile, scratch, rows, columns);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
fn run_avx512<T: Real>(
    pass: &Pass,
    context: &Context<T>,
    tile: Tile<T>,
    scratch: &mut Scratch<T>,
    rows: &mut States<T>,
    columns: &mut States<T>,
) {
    run_with::<T, true>(pass, context, tile, scratch, rows, columns);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<T: Real>(
    pass: &Pass,
    context: &Context<T>,
    tile: Tile<T>,
    scratch: &mut Scratch<T>,
    rows: &mut States<T>,
    columns: &mut States<T>,
) {
    run_with::<T, true>(pass, context, tile, scratch, rows, columns);
}

#[inline(always)]
fn run_with<T: Real, const FMA: bool>(
    pass: &Pass,
    context: &Context<T>,
    mut tile: Tile<T>,
    scratch: &mut Scratch<T>,
    row_states: &mut States<T>,
    column_states: &mut States<T>,
) {
    let (off, on) = (&pass.off_diagonal, &pass.on_diagonal);
    let len = tile.columns;
    for row in 0..tile.rows {
        let i = tile.i0 + row;
        let strip = tile.similarities.row_mut(row);
        let teachers = Teachers {
            strips: &tile.teachers,
            row,
            column: 0,
        };
        evaluate::<T, FMA>(
            off,
            context,
            i,
            tile.j0,
            strip,
            teachers,
            &mut scratch.strip,
        );
        // Where in the strip the diagonal is: that one pair is evaluated by steps of its own.
        let diagonal = (tile.j0..tile.j0 + len).contains(&i).then(|| i - tile.j0);
        if let Some(p) = diagonal {
            let teachers = Teachers {
                column: p,
                ..teachers
            };
            let numbers = &mut scratch.diagonal;
            evaluate::<T, FMA>(on, context, i, i, &strip[p..p + 1], teachers, numbers);
        }
        for (k, reduction) in pass.reductions.iter().enumerate() {
            if reduction.axis == Axis::Columns && !tile.count_columns {
                continue;
            }
            let (kind, mut start, mut count) = (&reduction.kind, 0, len);
            let (x, y) = match (off.reductions[k], diagonal.map(|p| (p, on.reductions[k]))) {
                (Some(steps), None) => scratch.strip.results(steps, len),
                (Some([x, y]), Some((p, special))) => {
                    let [u, v] = match special {
                        Some(steps) => {
                            let (u, v) = scratch.diagonal.results(steps, 1);
                            [u[0], v[0]]
                        }
                        None => neutral(kind),
                    };
                    scratch.strip.result(y, len)[p] = v;
                    scratch.strip.result(x, len)[p] = u;
                    scratch.strip.results([x, y], len)
                }
                (None, Some((p, Some(steps)))) => {
                    (start, count) = (p, 1);
                    scratch.diagonal.results(steps, 1)
                }
                (None, _) => continue,
            };
            match reduction.axis {
                Axis::Rows => {
                    let mut state = row_states.at(k, row);
                    take_row::<T, FMA>(kind, x, y, tile.j0 + start, &mut state);
                    row_states.put(k, row, state);
                }
                Axis::Columns => {
                    let states = column_states.range(k, start, count);
                    take_columns::<T, FMA>(kind, x, y, i, states);
                }
            }
        }
        if let (Some(step), Some(special)) = (off.coefficient, on.coefficient) {
            strip.copy_from_slice(scratch.strip.result(step, len));
            if let Some(p) = diagonal {
                strip[p] = scratch.diagonal.result(special, 1)[0];
            }
        }
    }
}

/// What changes no reduction of this kind.
#[inline(always)]
fn neutral<T: Real>(kind: &Kind) -> [T; 2] {
    match kind {
        Kind::Sum(_) => [T::ZERO; 2],
        Kind::LogSumExp(_) | Kind::Max(_) => [T::NEG_INFINITY; 2],
        Kind::SoftmaxMean { .. } => [T::NEG_INFINITY, T::ZERO],
    }
}

/// An operand: a number for each pair of the strip, or one for all.
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
fn evaluate<T: Real, const FMA: bool>(
    steps: &Steps,
    context: &Context<T>,
    i: usize,
    j0: usize,
    similarities: &[T],
    teachers: Teachers<T>,
    numbers: &mut Numbers<T>,
) {
    let len = similarities.len();
    let Numbers {
        strips,
        len: stride,
        uniform,
    } = numbers;
    let stride = *stride;
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
            let number = |k: usize| uniform[k];
            uniform[step] = match *op {
                Op::Leaf(Leaf::Row(k)) => context.rows[k * context.n + i],
                Op::Leaf(Leaf::Scalar(k)) => context.scalars[k],
                Op::Leaf(_) => unreachable!("the other leaves vary"),
                Op::Constant(x) => T::of(x),
                Op::Detach(x) => number(x),
                Op::Unary(op, x) => math::unary::<T, FMA>(op, number(x)),
                Op::Binary(op, x, y) => math::binary(op, number(x), number(y)),
                Op::Select(c, x, y) => {
                    if number(c) != T::ZERO {
                        number(x)
                    } else {
                        number(y)
                    }
                }
            };
            if steps.is_result[step] {
                out.fill(uniform[step]);
            }
            continue;
        }
        match *op {
            Op::Leaf(Leaf::Mask) => {
                let mask = &context.mask[i * context.m + j0..][..len];
                for (out, &set) in out.iter_mut().zip(mask) {
                    *out = if set != 0 { T::ONE } else { T::ZERO };
                }
            }
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
                // One loop an operation, so that each becomes vector code.
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
            Op::Binary(op, x, y) => {
                let (x, y) = (arg!(x), arg!(y));
                match op {
                    Binary::Add => zip(out, x, y, |x, y| x + y),
                    Binary::Sub => zip(out, x, y, |x, y| x - y),
                    Binary::Mul => zip(out, x, y, |x, y| x * y),
                    Binary::Div => zip(out, x, y, |x, y| x / y),
                    Binary::Equal => zip(out, x, y, |x, y| math::binary(Binary::Equal, x, y)),
                }
            }
            Op::Select(c, x, y) => {
                select(out, arg!(c), arg!(x), arg!(y));
            }
        }
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

/// Takes a strip into the state of its row.
#[inline(always)]
fn take_row<T: Real, const FMA: bool>(
    kind: &Kind,
    x: &[T],
    y: &[T],
    j0: usize,
    state: &mut [T; 3],
) {
    match kind {
        Kind::Sum(_) => state[0] += sum(x, x, |x, _| x),
        Kind::LogSumExp(_) => {
            let max = largest(x, |x| x).larger(state[0]);
            let rescale = (state[0] - max).exponential::<FMA>();
            let new = sum(x, x, |x, _| (x - max).exponential::<FMA>());
            *state = [max, state[1] * rescale + new, T::ZERO];
        }
        Kind::SoftmaxMean { .. } => {
            let max = largest(x, |x| x).larger(state[0]);
            let rescale = (state[0] - max).exponential::<FMA>();
            let new = sum(x, x, |x, _| (x - max).exponential::<FMA>());
            let weighted = sum(x, y, |x, y| (x - max).exponential::<FMA>() * y);
            *state = [max, state[1] * rescale + new, state[2] * rescale + weighted];
        }
        Kind::Max(_) => {
            // A sum that is a number has no NaN among its terms; most strips have nothing to offer.
            let max = largest(x, |x| x);
            if max <= state[0] && !sum(x, x, |x, _| x).is_nan() {
                return;
            }
            for (j, &x) in x.iter().enumerate() {
                if super::states::beats(x, state[0]) {
                    *state = [x, T::of((j0 + j) as f64), T::ZERO];
                }
            }
        }
    }
}

/// Takes a strip into the states of its columns.
#[inline(always)]
fn take_columns<T: Real, const FMA: bool>(
    kind: &Kind,
    x: &[T],
    y: &[T],
    i: usize,
    [first, second, third]: [&mut [T]; 3],
) {
    // log-sum-exp one by one, with one exponential: of −|x − max|.
    let step = |x: T, max: &mut T| {
        let gap = x - *max;
        let e = (-gap.abs()).exponential::<FMA>();
        let above = gap > T::ZERO;
        *max = if above { x } else { *max };
        // What multiplies the old sum, and what is added.
        match above {
            true => (e, T::ONE),
            false => (T::ONE, e),
        }
    };
    match kind {
        Kind::Sum(_) => {
            for (sum, &x) in first.iter_mut().zip(x) {
                *sum += x;
            }
        }
        Kind::LogSumExp(_) => {
            for ((max, sum), &x) in first.iter_mut().zip(second).zip(x) {
                let (old, new) = step(x, max);
                *sum = *sum * old + new;
            }
        }
        Kind::SoftmaxMean { .. } => {
            let states = first.iter_mut().zip(second).zip(third);
            for (((max, sum), weighted), (&x, &y)) in states.zip(x.iter().zip(y)) {
                let (old, new) = step(x, max);
                *sum = *sum * old + new;
                *weighted = *weighted * old + new * y;
            }
        }
        Kind::Max(_) => {
            let i = T::of(i as f64);
            for ((max, index), &x) in first.iter_mut().zip(second).zip(x) {
                let better = super::states::beats(x, *max);
                *max = if better { x } else { *max };
                *index = if better { i } else { *index };
            }
        }
    }
}
