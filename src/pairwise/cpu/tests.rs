//! What steers a pass (tiles, blocks, bands, what is kept, threads) changes its results by rounding at
//! most, and the passes in plain tensor operations give the same.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rayon::prelude::*;

use super::plan::{Tiling, blocks, kept_len};
use super::tile::Context;
use super::{Inputs, run, run_tiled};
use crate::host::Real;
use crate::pairwise::Precision;
use crate::pairwise::evaluation::Limits;
use crate::pairwise::expr::{Expr, Leaf};
use crate::pairwise::form::{Form, Wanted};
use crate::pairwise::pass::Pass;
use crate::pairwise::reduction::{Axis, Kind, columns, rows};

/// The only place that knows what a tiling consists of.
fn tiling(tile: usize, block: [usize; 2], bands: usize) -> Tiling {
    Tiling {
        tile: [tile; 2],
        block: block.map(|tiles| tiles * tile),
        bands,
    }
}

/// One tile, one block, one band.
fn whole() -> Tiling {
    tiling(512, [1, 1], 1)
}

const D: usize = 3;
/// Widths of the teachers, and of the matrix that holds both.
const TEACHERS: [usize; 2] = [2, 3];
const TEACHER: usize = 5;
/// Vectors of rows and of columns, and scalars.
const BOUND: usize = 2;

/// Numbers for any form.
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

    /// Both sides the same, the mask symmetric.
    fn within(n: usize, seed: u64) -> Self {
        let one = Self::new(n, n, seed);
        let [teacher, _] = one.teacher;
        Self {
            b: one.a.clone(),
            teacher: [teacher.clone(), teacher],
            columns: Vec::new(),
            ..one
        }
    }
}

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
        teachers: TEACHERS.to_vec(),
        limits: Limits {
            precision: Precision::Full,
            budget: 1,
            block: 1,
            kept: 0,
        },
    };
    let both = along_rows
        .iter()
        .zip(&along_columns)
        .map(|(r, c)| match symmetric {
            true => r.clone(),
            false => [r.clone(), c.clone()].concat(),
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
    Form {
        limits: Limits {
            kept,
            ..form.limits
        },
        ..form.clone()
    }
}

/// An upstream gradient for every result.
fn upstream(len: usize) -> Vec<f64> {
    (0..len).map(|k| 0.2 + (1.3 * k as f64).sin()).collect()
}

fn of<T: Real>(numbers: &[f64]) -> Vec<T> {
    numbers.iter().map(|&x| T::of(x)).collect()
}

/// How many numbers a tiling's blocks keep.
fn room<T>(pass: &Pass, tiling: &Tiling, n: usize, m: usize) -> usize {
    let blocks = blocks::<T>(tiling, pass, n, m);
    let ends = blocks
        .iter()
        .filter_map(|b| Some(b.kept_at? + b.len() * pass.matrices()));
    ends.max().unwrap_or(0)
}

/// Results, sums of the backward pass, and gradients by both sides: forward and backward in succession,
/// with this tiling or, without, with the pass's own.
fn evaluate<T: Real>(
    form: &Form,
    problem: &Problem,
    tiling: Option<&Tiling>,
    keep: usize,
) -> [Vec<T>; 4] {
    let &Problem { n, m, .. } = problem;
    let [a, b] = [&problem.a, &problem.b].map(|x| of::<T>(x));
    let teacher = problem.teacher.each_ref().map(|t| of::<T>(t));
    let mut vectors = [&problem.rows, &problem.columns].map(|x| of::<T>(x));
    let scalars = of::<T>(&problem.scalars);
    let go = |pass: &Pass, [rows, columns]: &[Vec<T>; 2], kept: &mut [T]| {
        let inputs = Inputs {
            a: &a,
            b: &b,
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
        Some(tiling) => room::<T>(&pass, tiling, n, m),
        None => kept_len::<T>(&pass, n, m),
    };
    let mut kept = vec![T::ZERO; len];
    let results = go(&pass, &vectors, &mut kept).results;
    assert_eq!(results.len(), form.result_len([n, m]));

    let upstream = of::<T>(&upstream(results.len()));
    let mut at = 0;
    for (axis, is_log_sum_exp) in form.results() {
        let (vectors, len) = match axis {
            Axis::Rows => (&mut vectors[0], n),
            Axis::Columns => (&mut vectors[1], m),
        };
        let shift = |&x: &T| {
            let nothing = is_log_sum_exp && x == T::NEG_INFINITY;
            if nothing { -T::NEG_INFINITY } else { x }
        };
        vectors.extend(results[at..at + len].iter().map(shift));
        vectors.extend_from_slice(&upstream[at..at + len]);
        at += len;
    }
    let pass = form.backward(wanted(form));
    let outputs = go(&pass, &vectors, &mut kept);
    [results, outputs.results, outputs.left, outputs.right]
}

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

/// Everything that a pass may be steered by.
#[derive(Clone, Debug)]
struct Steering {
    n: usize,
    m: usize,
    tile: usize,
    block: [usize; 2],
    band: usize,
    /// In hundredths of the matrix.
    keep: usize,
    threads: usize,
    seed: u64,
}

fn steering() -> impl Strategy<Value = Steering> {
    let size = || prop::sample::select(vec![1usize, 2, 15, 16, 17, 63, 64, 65, 127, 129]);
    let band = prop::sample::select(vec![1usize, 16, 50, 64, 512]);
    let tile = prop::sample::select(vec![7usize, 16, 32, 64]);
    let blocks = (1usize..4, 1usize..5);
    (
        size(),
        size(),
        tile,
        blocks,
        band,
        0usize..130,
        1usize..5,
        any::<u64>(),
    )
        .prop_map(|(n, m, tile, blocks, band, keep, threads, seed)| Steering {
            n,
            m,
            tile,
            block: blocks.into(),
            band,
            keep,
            threads,
            seed,
        })
}

fn with_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.expect("a pool of threads").install(f)
}

fn check(symmetric: bool, steering: &Steering) -> Result<(), TestCaseError> {
    let mut steering = steering.clone();
    if symmetric {
        // Blocks of one set with itself are square.
        steering.m = steering.n;
        steering.block[1] = steering.block[0];
    }
    let Steering {
        n,
        m,
        tile,
        block,
        band,
        keep,
        threads,
        seed,
    } = steering;
    let problem = match symmetric {
        true => Problem::within(n, seed),
        false => Problem::new(n, m, seed),
    };
    let (tiling, keep) = (tiling(tile, block, band), keep * n * m / 100);
    for form in forms(symmetric) {
        let expected = evaluate::<f64>(&form, &problem, Some(&whole()), 0);
        let (steered, own, single) = with_threads(threads, || {
            (
                evaluate::<f64>(&form, &problem, Some(&tiling), keep),
                evaluate::<f64>(&form, &problem, None, keep),
                evaluate::<f32>(&form, &problem, Some(&tiling), keep),
            )
        });
        for (name, found, tolerance) in [
            ("steered", distance(&steered, &expected), 1e-12),
            ("its own tiling", distance(&own, &expected), 1e-12),
        ] {
            prop_assert!(found <= tolerance, "{name}: {found:e} in {form:?}");
        }
        // Of f32 the kinks and the places of maxima may fall on the other side.
        let reads_kinks = form
            .reductions
            .iter()
            .any(|r| r.kind == Kind::Max || format!("{r:?}").contains("Step"));
        let found = distance(&single, &expected);
        prop_assert!(reads_kinks || found <= 1e-4, "f32: {found:e} in {form:?}");
    }
    Ok(())
}

fn settings(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn tiles_blocks_bands_and_threads_change_rounding_alone() {
    proptest!(settings(24), |(steering in steering())| check(false, &steering)?);
}

#[test]
fn tiles_blocks_bands_and_threads_change_rounding_alone_within_one_set() {
    proptest!(settings(24), |(steering in steering())| check(true, &steering)?);
}

#[test]
fn the_same_threads_and_input_give_the_same_bits() {
    let bits =
        |found: [Vec<f32>; 4]| found.map(|v| v.into_iter().map(f32::to_bits).collect::<Vec<_>>());
    for symmetric in [false, true] {
        let problem = match symmetric {
            true => Problem::within(130, 1),
            false => Problem::new(130, 70, 1),
        };
        for form in forms(symmetric) {
            let tiling = tiling(16, [2, 2], 16);
            for tiling in [None, Some(&tiling)] {
                with_threads(4, || {
                    let run = || bits(evaluate::<f32>(&form, &problem, tiling, 4000));
                    let first = run();
                    assert!(first == run(), "one after the other: {form:?}");
                    let again: Vec<_> = (0..6).into_par_iter().map(|_| run()).collect();
                    assert!(
                        again.iter().all(|other| first == *other),
                        "side by side: {form:?}"
                    );
                });
            }
        }
    }
}

/// The blocks cover every pair once (of a symmetric matrix, those on and above the diagonal blocks), and
/// those that are kept lie one after the other within what may be kept.
#[test]
fn blocks_cover_every_pair_once() {
    for (n, m) in [(1, 1), (64, 64), (65, 63), (200, 127)] {
        for symmetric in [false, true] {
            let m = if symmetric { n } else { m };
            for keep in [0, 1, 4096, 16_000, n * m, 20 * n * m] {
                for block in [[1, 1], [2, 2], [4, 4]] {
                    let mut seen = vec![0; n * m];
                    let (mut kept, mut all) = (0, 0);
                    let form = keeping(&forms(symmetric)[0], keep * size_of::<f32>());
                    let pass = Pass {
                        teachers: Vec::new(),
                        ..form.forward(true)
                    };
                    for block in blocks::<f32>(&tiling(16, block, 4), &pass, n, m) {
                        for i in block.rows.start..block.rows.end() {
                            for j in block.columns.start..block.columns.end() {
                                seen[i * m + j] += 1;
                                if block.is_mirrored {
                                    seen[j * m + i] += 1;
                                }
                            }
                        }
                        if let Some(at) = block.kept_at {
                            assert_eq!(at, kept);
                            kept += block.len();
                        }
                        all += block.len();
                    }
                    assert!(seen.iter().all(|&times| times == 1), "{n} × {m}, {block:?}");
                    assert!(kept <= keep);
                    assert!(keep < all || kept == all);
                }
            }
        }
    }
}

#[cfg(feature = "flex")]
mod against_plain_operations {
    use burn::backend::ops::{BoolTensorOps, FloatTensorOps};
    use burn::backend::{Flex, TensorMetadata, tensor::FloatTensor};
    use burn::tensor::{DType, TensorData, read_sync};

    use super::*;
    use crate::pairwise::backward::append_results;
    use crate::pairwise::chunked;
    use crate::pairwise::cpu::backend;
    use crate::pairwise::ops;

    fn tensor(numbers: &[f64], shape: [usize; 2], dtype: DType) -> FloatTensor<Flex> {
        let data = TensorData::new(numbers.to_vec(), shape).convert_dtype(dtype);
        Flex::float_from_data(data, &Default::default())
    }

    fn vector(numbers: &[f64], dtype: DType) -> FloatTensor<Flex> {
        let data = TensorData::new(numbers.to_vec(), [numbers.len()]).convert_dtype(dtype);
        Flex::float_from_data(data, &Default::default())
    }

    fn numbers(tensor: FloatTensor<Flex>) -> Vec<f64> {
        let data = read_sync(Flex::float_into_data(tensor)).expect("a CPU tensor can be read");
        data.convert_dtype(DType::F64)
            .try_to_vec()
            .expect("converted")
    }

    fn inputs(problem: &Problem, symmetric: bool, dtype: DType) -> ops::Inputs<Flex> {
        let &Problem { n, m, .. } = problem;
        let a = tensor(&problem.a, [n, D], dtype);
        ops::Inputs {
            b: tensor(&problem.b, [m, D], dtype),
            teacher_a: tensor(&problem.teacher[0], [n, TEACHER], dtype),
            teacher_b: tensor(&problem.teacher[1], [m, TEACHER], dtype),
            rows: tensor(&problem.rows, [BOUND, n], dtype),
            columns: match symmetric {
                true => tensor(&problem.rows, [BOUND, n], dtype),
                false => tensor(&problem.columns, [BOUND, m], dtype),
            },
            scalars: vector(&problem.scalars, dtype),
            mask: Flex::bool_from_data(
                TensorData::new(problem.mask.clone(), [n, m]),
                &Default::default(),
            ),
            kept: a.clone(),
            a,
        }
    }

    type RunPass = fn(ops::Inputs<Flex>, &Pass) -> ops::Outputs<Flex>;

    fn evaluate(form: &Form, problem: &Problem, dtype: DType, pass: RunPass) -> [Vec<f64>; 4] {
        let mut inputs = inputs(problem, form.symmetric, dtype);
        let results = pass(inputs.clone(), &form.forward(false)).results;
        let upstream = vector(&upstream(results.shape().num_elements()), dtype);
        append_results(&mut inputs, results.clone(), upstream, form);
        let backward = form.backward(wanted(form));
        let outputs = pass(inputs, &backward);
        let right = if backward.right {
            numbers(outputs.right)
        } else {
            Vec::new()
        };
        [
            numbers(results),
            numbers(outputs.results),
            numbers(outputs.left),
            right,
        ]
    }

    #[test]
    fn plain_operations_give_what_the_kernels_give() {
        for (n, m) in [(1, 1), (5, 1), (63, 65), (64, 127), (130, 64)] {
            for symmetric in [false, true] {
                let problem = match symmetric {
                    true => Problem::within(n, 2),
                    false => Problem::new(n, m, 2),
                };
                // Blocks of 64, of 128, and one of everything.
                for side in [1, 128, 192] {
                    for form in forms(symmetric) {
                        let form = Form {
                            limits: Limits {
                                block: 8 * 8 * side * side,
                                ..form.limits
                            },
                            ..form
                        };
                        let own = evaluate(&form, &problem, DType::F64, backend::pass::<Flex>);
                        let plain = evaluate(&form, &problem, DType::F64, chunked::pass::<Flex>);
                        let found = distance(&plain, &own);
                        assert!(
                            found <= 1e-12,
                            "{n} × {m}, blocks of {side}: {found:e} in {form:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn plain_operations_give_what_the_kernels_give_in_f32() {
        let problem = Problem::new(70, 66, 3);
        for form in &forms(false)[..3] {
            let form = Form {
                // Places of maxima are exact or wrong.
                reductions: form
                    .reductions
                    .iter()
                    .filter(|r| r.kind != Kind::Max)
                    .cloned()
                    .collect(),
                ..form.clone()
            };
            let own = evaluate(&form, &problem, DType::F32, backend::pass::<Flex>);
            let plain = evaluate(&form, &problem, DType::F32, chunked::pass::<Flex>);
            assert!(distance(&plain, &own) <= 1e-5, "{form:?}");
        }
    }

    /// Nothing bound, nothing to sum in the backward pass.
    #[test]
    fn a_backward_pass_without_sums_has_its_gradients() {
        let problem = Problem::new(7, 5, 5);
        let logit = Expr::leaf(Leaf::Similarity) * 2.0;
        let form = Form {
            reductions: vec![rows().log_sum_exp(&logit)],
            rows: 0,
            columns: 0,
            scalars: 0,
            ..forms(false)[0].clone()
        };
        let wanted = Wanted {
            rows: false,
            columns: false,
            scalars: false,
            ..wanted(&form)
        };
        let found = [backend::pass::<Flex>, chunked::pass::<Flex>].map(|pass: RunPass| {
            let mut inputs = inputs(&problem, false, DType::F64);
            let results = pass(inputs.clone(), &form.forward(false)).results;
            append_results(&mut inputs, results.clone(), results, &form);
            let outputs = pass(inputs, &form.backward(wanted));
            [
                numbers(outputs.left),
                numbers(outputs.right),
                Vec::new(),
                Vec::new(),
            ]
        });
        assert!(distance(&found[1], &found[0]) <= 1e-12);
    }

    #[test]
    fn value_and_gradient_in_one_pass_are_those_of_two() {
        for symmetric in [false, true] {
            let problem = match symmetric {
                true => Problem::within(70, 4),
                false => Problem::new(70, 66, 4),
            };
            let of_sums = &forms(symmetric)[2];
            let form = Form {
                reductions: of_sums.reductions[..1].to_vec(),
                ..of_sums.clone()
            };
            for pass in [backend::pass::<Flex>, chunked::pass::<Flex>] {
                let mut inputs = inputs(&problem, symmetric, DType::F64);
                let at_once = pass(inputs.clone(), &form.with_gradient(wanted(&form)));
                let results = pass(inputs.clone(), &form.forward(false)).results;
                let len = results.shape().num_elements();
                let upstream = vector(&vec![1.0; len], DType::F64);
                append_results(&mut inputs, results.clone(), upstream, &form);
                let after = pass(inputs, &form.backward(wanted(&form)));
                let one = [
                    numbers(at_once.results),
                    numbers(at_once.left),
                    Vec::new(),
                    Vec::new(),
                ];
                let two = [
                    [numbers(results), numbers(after.results)].concat(),
                    numbers(after.left),
                    Vec::new(),
                    Vec::new(),
                ];
                assert!(distance(&one, &two) <= 1e-12);
            }
        }
    }
}
