//! Passes on the CPU: their settings change results by rounding at most, and they agree with the
//! same passes in plain tensor operations. Here is what both tests share: inputs, forms, and an
//! evaluation forward and backward.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::embeddings::Rows;
use super::evaluate::Context;
use super::plan::{Tiling, blocks, kept_len};
use super::{Inputs, run, run_tiled};
use crate::host::Real;
use crate::pairwise::Precision;
use crate::pairwise::evaluation::Limits;
use crate::pairwise::expr::{Expr, Leaf};
use crate::pairwise::form::{Form, Wanted};
use crate::pairwise::pass::Pass;
use crate::pairwise::reduction::{Axis, Kind, columns, rows};

mod full;
#[cfg(feature = "flex")]
mod objectives;
#[cfg(feature = "flex")]
mod plain;
mod precision;
mod steering;
mod system;

/// A tiling of square tiles, with `block` in tiles.
fn tiling(tile: usize, block: [usize; 2], threads: usize) -> Tiling {
    Tiling {
        tile: [tile; 2],
        block: block.map(|tiles| tiles * tile),
        threads,
    }
}

/// The whole matrix as one tile, one block and one band.
fn whole() -> Tiling {
    tiling(512, [1, 1], 1)
}

const D: usize = 3;
/// Widths of the teachers, and of the matrix that holds both.
const TEACHERS: [usize; 2] = [2, 3];
const TEACHER: usize = 5;
/// Vectors of rows and of columns, and scalars.
const BOUND: usize = 2;

/// Inputs of any form.
#[derive(Clone)]
struct Problem {
    n: usize,
    m: usize,
    a: Vec<f64>,
    b: Vec<f64>,
    teacher: [Vec<f64>; 2],
    rows: Vec<f64>,
    columns: Vec<f64>,
    scalars: Vec<f64>,
    mask: Vec<bool>,
}

impl Problem {
    fn new(n: usize, m: usize, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut random =
            |len: usize| -> Vec<f64> { (0..len).map(|_| rng.random_range(-1.0..1.0)).collect() };
        Self {
            n,
            m,
            a: random(n * D),
            b: random(m * D),
            teacher: [random(n * TEACHER), random(m * TEACHER)],
            rows: random(BOUND * n),
            columns: random(BOUND * m),
            scalars: random(BOUND),
            mask: (0..n * m).map(|k| (k / m) * (k % m) % 3 == 1).collect(),
        }
    }

    /// `[n, m]`, or where `symmetric` the pairs within one set of `n`, with a symmetric mask.
    fn of(symmetric: bool, n: usize, m: usize, seed: u64) -> Self {
        let one = Self::new(n, if symmetric { n } else { m }, seed);
        if !symmetric {
            return one;
        }
        let [teacher, _] = one.teacher;
        Self {
            b: one.a.clone(),
            teacher: [teacher.clone(), teacher],
            columns: Vec::new(),
            ..one
        }
    }
}

const LIMITS: Limits = Limits {
    precision: Precision::Highest,
    budget: 1,
    block: 1,
    kept: 0,
};

/// Forms that use every reduction, every leaf, and both axes.
fn forms(symmetric: bool) -> Vec<Form> {
    let leaf = Expr::leaf;
    let c = leaf(Leaf::Similarity);
    let [u, u2] = [0, 1].map(|k| leaf(Leaf::Row(k)));
    let [v, v2] = [0, 1].map(|k| leaf(Leaf::Column(k)));
    let [s, s2] = [0, 1].map(|k| leaf(Leaf::Scalar(k)));
    let (mask, diagonal) = (leaf(Leaf::Mask), Expr::diagonal());
    // The same for (i, j) and (j, i).
    let logit = &c * &s * 3.0 + &u + &v;
    let [teacher, other] = [0, 1].map(|k| leaf(Leaf::Teacher(k)));
    let weight = &teacher * 2.0 + &(&u2 * &v2);
    let value = &c.square() * &s2 + (&u2 + &v2).sigmoid() + &mask * &c.exp();
    let hinge = (&c - 0.1).relu().except(&Expr::constant(0.0));
    let along_rows = [
        vec![
            rows().log_sum_exp(&logit.except(&diagonal)),
            rows().sum(&hinge),
        ],
        vec![rows().softmax_mean(&weight, &value)],
        vec![rows().sum(&Expr::select(&diagonal, &value, &(&c * &mask * &other)))],
        vec![
            rows().log_sum_exp(&logit.except(&mask)),
            rows().softmax_mean(&(&weight + &c).except(&diagonal), &logit),
            rows().sum(&(&value * &other).softplus()),
        ],
    ];
    let along_columns = [
        vec![columns().log_sum_exp(&(&logit - &v2 * &c).except(&diagonal))],
        vec![
            columns().softmax_mean(&weight, &(&value * &u)),
            columns().sum(&(&value * &v)),
        ],
        vec![
            columns().max(&c),
            rows().max(&c.except(&diagonal)),
            columns().sum(&c),
        ],
        vec![columns().sum(&(&u - &c).step())],
    ];
    let with = |reductions| Form {
        reductions,
        rows: BOUND,
        columns: if symmetric { 0 } else { BOUND },
        scalars: BOUND,
        symmetric,
        has_norms: false,
        has_scale: false,
        teachers: TEACHERS.to_vec(),
        tokens: [1, 1],
        limits: LIMITS,
        workers: None,
    };
    let both = along_rows.iter().zip(&along_columns).map(|(r, c)| {
        if symmetric {
            r.clone()
        } else {
            [r.clone(), c.clone()].concat()
        }
    });
    both.map(with).collect()
}

fn wanted(form: &Form) -> Wanted {
    Wanted {
        left: true,
        right: !form.symmetric,
        rows: true,
        columns: !form.symmetric,
        scalars: true,
    }
}

/// The same with room for similarities from the forward to the backward pass.
fn keeping(form: &Form, kept: usize) -> Form {
    let limits = Limits {
        kept,
        ..form.limits
    };
    Form {
        limits,
        ..form.clone()
    }
}

/// An upstream gradient for every result.
fn upstream(len: usize) -> Vec<f64> {
    (0..len).map(|k| 0.2 + (1.3 * k as f64).sin()).collect()
}

fn cast<T: Real>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&x| T::of(x)).collect()
}

/// How many elements a tiling's blocks keep.
fn kept_by<T>(pass: &Pass, tiling: &Tiling, n: usize, m: usize) -> usize {
    let blocks = blocks::<T>(tiling, pass, n, m);
    let ends = blocks
        .iter()
        .filter_map(|b| Some(b.kept_at? + b.len() * pass.matrices()));
    ends.max().unwrap_or(0)
}

/// Results, sums of the backward pass, and gradients by both sides, of a forward pass and then a
/// backward pass, with this tiling or, if `None`, with the one that each pass chooses.
fn evaluate<T: Real>(
    form: &Form,
    problem: &Problem,
    tiling: Option<&Tiling>,
    keep: usize,
) -> [Vec<T>; 4] {
    let &Problem { n, m, .. } = problem;
    let [a, b] = [&problem.a, &problem.b].map(|x| cast::<T>(x));
    let teacher = problem.teacher.each_ref().map(|t| cast::<T>(t));
    let mut vectors = [&problem.rows, &problem.columns].map(|x| cast::<T>(x));
    let scalars = cast::<T>(&problem.scalars);
    let go = |pass: &Pass, [rows, columns]: &[Vec<T>; 2], kept: &mut [T]| {
        let inputs = Inputs {
            a: Rows::Own(&a),
            b: Rows::Own(&b),
            d: D,
            teachers: [&teacher[0], &teacher[1]],
            context: Context {
                n,
                m,
                rows,
                columns: if form.symmetric { rows } else { columns },
                scalars: &scalars,
                mask: bytemuck::cast_slice(&problem.mask),
            },
        };
        match tiling {
            Some(tiling) => run_tiled(pass, &inputs, kept, tiling),
            None => run(pass, &inputs, kept),
        }
    };
    let form = &keeping(form, keep * size_of::<T>());
    let pass = form.forward(true);
    let len = match tiling {
        Some(tiling) => kept_by::<T>(&pass, tiling, n, m),
        None => kept_len::<T>(&pass, [n, m, D]),
    };
    let mut kept = vec![T::ZERO; len];
    let results = go(&pass, &vectors, &mut kept).results;
    assert_eq!(results.len(), form.result_len([n, m]));

    let upstream = cast::<T>(&upstream(results.len()));
    let mut start = 0;
    for (axis, is_log_sum_exp) in form.results() {
        let (vectors, len) = match axis {
            Axis::Rows => (&mut vectors[0], n),
            Axis::Columns => (&mut vectors[1], m),
        };
        let shift = |&x: &T| {
            let nothing = is_log_sum_exp && x == T::NEG_INFINITY;
            if nothing { -T::NEG_INFINITY } else { x }
        };
        vectors.extend(results[start..start + len].iter().map(shift));
        vectors.extend_from_slice(&upstream[start..start + len]);
        start += len;
    }
    let pass = form.backward(wanted(form));
    let outputs = go(&pass, &vectors, &mut kept);
    [results, outputs.results, outputs.left, outputs.right]
}

/// The largest difference, relative to the largest expected element of its vector or to one.
fn distance<T: Real + Into<f64>>(actual: &[Vec<T>; 4], expected: &[Vec<f64>; 4]) -> f64 {
    let mut worst: f64 = 0.0;
    for (actual, expected) in actual.iter().zip(expected) {
        assert_eq!(actual.len(), expected.len());
        let finite = expected.iter().filter(|x| x.is_finite());
        let largest = finite.fold(1.0, |m: f64, x| m.max(x.abs()));
        for (&x, &y) in actual.iter().zip(expected) {
            let x: f64 = x.into();
            let far = if x == y { 0.0 } else { (x - y).abs() / largest };
            worst = if far.is_nan() {
                f64::INFINITY
            } else {
                worst.max(far)
            };
        }
    }
    worst
}
