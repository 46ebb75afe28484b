//! The pairwise engine: every family against the oracle, its invariants, and hostile input.

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use burn_contrastive::pairwise::{
    Evaluation, Expr, Pairs, Positives, Reduction, columns, hardest, log_add_exp, rows,
    soft_targets, softmax, softmax_above, weighted_softmax,
};
use proptest::prelude::*;

use super::info_nce::assert_panics;
use super::{Backend, assert_close, numbers, on, random};
use crate::oracle::pairwise::{self as oracle, Family, Inputs};
use crate::oracle::{Matrix, dot, log_sum_exp};

/// How to evaluate.
#[derive(Clone, Debug)]
struct How {
    device: Device,
    dtype: DType,
    evaluation: Evaluation,
    budget: usize,
}

impl How {
    fn new(backend: &Backend, dtype: DType) -> Self {
        Self {
            device: backend.device.clone().autodiff(),
            dtype,
            evaluation: Evaluation::Auto,
            budget: 1 << 20,
        }
    }

    fn with(&self, evaluation: Evaluation, budget: usize) -> Self {
        Self {
            evaluation,
            budget,
            ..self.clone()
        }
    }

    fn vector(&self, values: &[f64]) -> Tensor<1> {
        let data = TensorData::new(values.to_vec(), [values.len()]);
        Tensor::from_data(data.convert_dtype(self.dtype), (&self.device, self.dtype))
    }
}

/// Pairs, and the expressions of what was bound to them.
struct Bound<'a> {
    inputs: &'a Inputs,
    how: &'a How,
    pairs: Pairs,
    c: Expr,
    rows: Vec<Expr>,
    columns: Vec<Expr>,
    scalars: Vec<Expr>,
}

impl Bound<'_> {
    fn mask(&self) -> Tensor<2, Bool> {
        let shape = [self.inputs.n(), self.inputs.m()];
        Tensor::from_data(TensorData::new(self.inputs.mask.clone(), shape), &self.how.device)
    }

    fn labels(&self) -> Positives {
        let [rows, columns] = self.inputs.labels.each_ref().map(|labels| {
            let data = TensorData::new(labels.clone(), [labels.len()]);
            Tensor::<1, Int>::from_data(data, &self.how.device)
        });
        Positives::Labels { rows, columns }
    }

    fn teacher(&mut self) -> Expr {
        let [a, b] = self.inputs.teacher.each_ref().map(|t| on(&self.how.device, t, self.how.dtype));
        self.pairs.teacher(a, b)
    }
}

/// A use of the engine, and the same by loops.
struct Case {
    name: &'static str,
    actual: fn(Bound) -> Vec<Tensor<1>>,
    expected: Family,
    /// Step of the finite differences.
    step: f64,
}

/// Numbers for any case.
fn inputs(n: usize, m: usize, width: usize, seed: u64) -> Inputs {
    let vector = |len, k| random(1, len, seed + k).values;
    let id = |i: usize| [-3, 1 << 25, (1 << 25) + 1, 7, i64::from(i32::MIN)][i % 5];
    Inputs {
        a: random(n, width, seed),
        b: random(m, width, seed + 1),
        rows: vec![vector(n, 2), vector(n, 3)],
        columns: vec![vector(m, 4), vector(m, 5)],
        scalars: vec![1.3, -0.4],
        within: false,
        teacher: [random(n, 2, seed + 6), random(m, 2, seed + 7)],
        mask: random(n, m, seed + 8).values.iter().map(|&x| x > 0.2).collect(),
        labels: [(0..n).map(id).collect(), (0..m).map(|j| id(j / 2)).collect()],
    }
}

/// Numbers for the cases of one set with itself.
fn inputs_within(n: usize, width: usize, seed: u64) -> Inputs {
    let inputs = inputs(n, n, width, seed);
    let [teacher, _] = inputs.teacher;
    let [labels, _] = inputs.labels;
    let mask = (0..n * n).map(|k| (k / n * (k % n)) % 3 == 1).collect();
    Inputs {
        within: true,
        columns: Vec::new(),
        teacher: [teacher.clone(), teacher],
        mask,
        labels: [labels.clone(), labels],
        ..inputs
    }
}

/// Values, and gradients by every leaf of [`Inputs::leaves`], of the weighted sum of the results.
struct Evaluated {
    values: Vec<Vec<f64>>,
    gradients: Vec<Vec<f64>>,
}

fn evaluate(case: &Case, inputs: &Inputs, how: &How) -> Evaluated {
    let track = |t: Tensor<2>| t.require_grad();
    let a = track(on(&how.device, &inputs.a, how.dtype));
    let b = track(on(&how.device, &inputs.b, how.dtype));
    let leaf = |values: &[f64]| how.vector(values).require_grad();
    let [row_leaves, column_leaves] = [&inputs.rows, &inputs.columns]
        .map(|vectors| vectors.iter().map(|v| leaf(v)).collect::<Vec<_>>());
    let scalar_leaves: Vec<_> = inputs.scalars.chunks(1).map(leaf).collect();
    let mut pairs = match inputs.within {
        true => Pairs::within(a.clone()),
        false => Pairs::new(a.clone(), b.clone()),
    }
    .with_evaluation(how.evaluation)
    .with_memory_budget(how.budget);
    let shared = if inputs.within { &row_leaves } else { &column_leaves };
    let rows = row_leaves.iter().map(|v| pairs.row(v.clone())).collect();
    let columns = shared.iter().map(|v| pairs.column(v.clone())).collect();
    let scalars = scalar_leaves.iter().map(|v| pairs.scalar(v.clone())).collect();
    let results = (case.actual)(Bound {
        inputs,
        how,
        c: pairs.similarity(),
        pairs,
        rows,
        columns,
        scalars,
    });
    let weighted = |(k, result): (usize, &Tensor<1>)| {
        let len = result.dims()[0];
        let weights: Vec<_> = (0..len).map(|i| oracle::weight(k, i)).collect();
        (result.clone() * how.vector(&weights).cast(result.dtype())).sum()
    };
    let parts = results.iter().enumerate().map(weighted);
    let loss = parts.reduce(|x, y| x + y).expect("a result");
    let gradients = loss.backward();
    let by_vector = |v: &Tensor<1>| match v.grad(&gradients) {
        Some(g) => numbers(g),
        None => vec![0.0; v.dims()[0]],
    };
    let by_matrix = |t: &Tensor<2>| match t.grad(&gradients) {
        Some(g) => numbers(g),
        None => vec![0.0; t.dims().iter().product()],
    };
    let mut found = vec![by_matrix(&a)];
    if !inputs.within {
        found.push(by_matrix(&b));
    }
    let vectors = row_leaves.iter().chain(&column_leaves).chain(&scalar_leaves);
    found.extend(vectors.map(by_vector));
    Evaluated {
        values: results.into_iter().map(numbers).collect(),
        gradients: found,
    }
}

/// What is right, with at most `count` derivatives of each leaf.
struct Expected {
    values: Vec<Vec<f64>>,
    gradients: Vec<Vec<(usize, f64)>>,
}

fn expected(case: &Case, inputs: &Inputs, count: usize) -> Expected {
    Expected {
        values: (case.expected)(inputs, inputs),
        gradients: oracle::gradients(case.expected, inputs, case.step, count),
    }
}

#[track_caller]
fn assert_matches(name: &str, actual: &Evaluated, expected: &Expected, tolerance: f64) {
    let close = |what: String, actual: &[f64], expected: &[f64]| {
        assert_eq!(actual.len(), expected.len(), "{name}: {what}");
        let finite = |x: &f64| if x.is_finite() { x.abs() } else { 0.0 };
        let scale = expected.iter().map(finite).fold(0.0, f64::max);
        for (k, (a, e)) in actual.iter().zip(expected).enumerate() {
            assert!(
                a == e || (a - e).abs() <= tolerance * scale + 1e-12,
                "{name}: {what}, element {k}: {a:e} against {e:e} (largest {scale:e}, tolerance {tolerance:e})"
            );
        }
    };
    assert_eq!(actual.values.len(), expected.values.len(), "{name}");
    for (k, (a, e)) in actual.values.iter().zip(&expected.values).enumerate() {
        close(format!("result {k}"), a, e);
    }
    assert_eq!(actual.gradients.len(), expected.gradients.len(), "{name}");
    for (k, (a, e)) in actual.gradients.iter().zip(&expected.gradients).enumerate() {
        let (which, e): (Vec<usize>, Vec<f64>) = e.iter().copied().unzip();
        let a: Vec<_> = which.into_iter().map(|i| a[i]).collect();
        close(format!("gradient by leaf {k}"), &a, &e);
    }
}

/// Everything of the one within `tolerance` of the other, relative to the largest element.
#[track_caller]
fn assert_same(name: &str, actual: &Evaluated, expected: &Evaluated, tolerance: f64) {
    let all = |gradients: &[Vec<f64>]| {
        let numbered = |g: &Vec<f64>| g.iter().copied().enumerate().collect();
        gradients.iter().map(numbered).collect()
    };
    let expected = Expected {
        values: expected.values.clone(),
        gradients: all(&expected.gradients),
    };
    assert_matches(name, actual, &expected, tolerance);
}

// --- the families ---------------------------------------------------------------------------------

fn on_diagonal((i, j): (usize, usize)) -> bool {
    i == j
}

fn both(results: [Vec<f64>; 2]) -> Vec<Vec<f64>> {
    results.into()
}

/// Steps of finite differences: of smooth functions, and of those with kinks, which a small step does not cross.
const SMOOTH: f64 = 7e-4;
const KINKED: f64 = 1e-5;

/// Every family, and what else pairs can be asked for.
fn families() -> Vec<Case> {
    vec![
        Case {
            name: "softmax with margins, labels left out",
            step: SMOOTH,
            actual: |mut x| {
                let logit = &x.c * &x.scalars[0] * 3.0 + &x.rows[0] - &x.columns[1];
                let left_out = x.labels().of(&mut x.pairs);
                let both = softmax(x.pairs, &logit, &left_out);
                vec![both.rows, both.columns]
            },
            expected: |x, _| {
                let logit = |p| 3.0 * x.scalars[0] * x.similarity(p) + x.row(0, p) - x.column(1, p);
                both(oracle::softmax(x, logit, |p| x.same_label(p)))
            },
        },
        Case {
            name: "softmax of everything",
            step: SMOOTH,
            actual: |mut x| {
                let left_out = Positives::None.of(&mut x.pairs);
                let both = softmax(x.pairs, &(&x.c * 4.0), &left_out);
                vec![both.rows, both.columns]
            },
            expected: |x, _| both(oracle::softmax(x, |p| 4.0 * x.similarity(p), |_| false)),
        },
        Case {
            name: "weighted softmax, the weights with their gradient",
            step: SMOOTH,
            actual: |mut x| {
                let left_out = Positives::Diagonal.of(&mut x.pairs);
                let logit = &x.c * &x.scalars[0];
                let log_weight = &x.c * &x.scalars[1] + &x.rows[1];
                let both = weighted_softmax(x.pairs, &logit, &log_weight, &left_out);
                vec![both.rows, both.columns]
            },
            expected: |x, _| {
                both(oracle::weighted_softmax(
                    x,
                    |p| x.scalars[0] * x.similarity(p),
                    |p| x.scalars[1] * x.similarity(p) + x.row(1, p),
                    on_diagonal,
                ))
            },
        },
        Case {
            name: "weighted softmax, the weights constant, a mask left out",
            step: SMOOTH,
            actual: |mut x| {
                let mask = x.mask();
                let left_out = Positives::Mask(mask).of(&mut x.pairs);
                let log_weight = (&x.c * 2.0 - &x.columns[0]).detach();
                let both = weighted_softmax(x.pairs, &(&x.c * 3.0), &log_weight, &left_out);
                vec![both.rows, both.columns]
            },
            expected: |x, held| {
                both(oracle::weighted_softmax(
                    x,
                    |p| 3.0 * x.similarity(p),
                    |p| 2.0 * held.similarity(p) - held.column(0, p),
                    |p| x.masked(p),
                ))
            },
        },
        Case {
            name: "removal by weight",
            step: SMOOTH,
            actual: |x| {
                let logit = &x.c * &x.scalars[0] + &x.columns[0];
                let log_weight = &x.c * 2.0;
                let both = softmax_above(x.pairs, &logit, &log_weight, 0.8, &Expr::diagonal());
                vec![both.rows, both.columns]
            },
            expected: |x, held| {
                both(oracle::softmax_above(
                    x,
                    |p| x.scalars[0] * x.similarity(p) + x.column(0, p),
                    |p| 2.0 * held.similarity(p),
                    0.8,
                    on_diagonal,
                ))
            },
        },
        Case {
            name: "soft targets of a teacher",
            step: SMOOTH,
            actual: |mut x| {
                let target = x.teacher() * 3.0;
                let logit = &x.c * &x.scalars[0] + &x.rows[0];
                let of = |s: burn_contrastive::pairwise::SoftTargets| {
                    [s.cross_entropy(), s.log_sum_exp, s.target_log_sum_exp, s.mean_logit]
                };
                soft_targets(x.pairs, &logit, &target).into_iter().flat_map(of).collect()
            },
            expected: |x, _| expected_soft_targets(x, |x, p| 3.0 * x.teacher(p)),
        },
        Case {
            name: "soft targets of its own",
            step: SMOOTH,
            actual: |x| {
                let target = &x.c * 2.0 + &x.columns[1];
                let logit = &x.c * &x.scalars[0] + &x.rows[0];
                let of = |s: burn_contrastive::pairwise::SoftTargets| {
                    [s.cross_entropy(), s.log_sum_exp, s.target_log_sum_exp, s.mean_logit]
                };
                soft_targets(x.pairs, &logit, &target).into_iter().flat_map(of).collect()
            },
            expected: |x, _| {
                expected_soft_targets(x, |x, p| 2.0 * x.similarity(p) + x.column(1, p))
            },
        },
        Case {
            name: "sum of hinges",
            step: KINKED,
            actual: |x| {
                let hinge = |own: &Expr| {
                    let cost = (&(&x.c - own) + 0.2).relu();
                    Expr::select(&Expr::diagonal(), &Expr::constant(0.0), &cost)
                };
                vec![x.pairs.total(&(hinge(&x.rows[0]) + hinge(&x.columns[1])))]
            },
            expected: |x, _| {
                let hinge = |c: f64, own: f64| (0.2 + c - own).max(0.0);
                let cost = |p| {
                    let c = x.similarity(p);
                    hinge(c, x.row(0, p)) + hinge(c, x.column(1, p))
                };
                vec![vec![x.pairs().filter(|&p| !on_diagonal(p)).map(cost).sum()]]
            },
        },
        Case {
            name: "SigLIP's sum",
            step: SMOOTH,
            actual: |mut x| {
                let positive = x.labels().of(&mut x.pairs);
                let logit = &x.c * &x.scalars[0] * 5.0 + &x.scalars[1];
                let cost = Expr::select(&positive, &(-&logit), &logit).softplus();
                vec![x.pairs.total(&cost)]
            },
            expected: |x, _| {
                let cost = |p| {
                    let logit = 5.0 * x.scalars[0] * x.similarity(p) + x.scalars[1];
                    oracle::softplus(if x.same_label(p) { -logit } else { logit })
                };
                vec![vec![x.pairs().map(cost).sum()]]
            },
        },
        Case {
            name: "ReCo's sums, positives to one and negatives below zero",
            step: KINKED,
            actual: |x| {
                let positive = (&x.c - &Expr::constant(1.0)).square();
                let negative = x.c.relu().square() * 0.1;
                let cost = Expr::select(&Expr::diagonal(), &positive, &negative);
                x.pairs.reduce(&[rows().sum(&cost), columns().sum(&cost)])
            },
            expected: |x, _| {
                both(oracle::sums(x, |p| {
                    let c = x.similarity(p);
                    if on_diagonal(p) { (c - 1.0).powi(2) } else { 0.1 * c.max(0.0).powi(2) }
                }))
            },
        },
        Case {
            name: "hardest, a mask left out",
            step: KINKED,
            actual: |mut x| {
                let mask = x.mask();
                let left_out = x.pairs.mask(mask);
                hardest(x.pairs, &left_out).map(|h| h.similarity).into()
            },
            expected: |x, _| {
                let similarities = |found: Vec<(f64, usize)>| found.into_iter().map(|f| f.0).collect();
                oracle::hardest(x, |p| x.masked(p)).map(similarities).into()
            },
        },
        Case {
            name: "every operator and every leaf",
            step: SMOOTH,
            actual: |mut x| {
                let teacher = x.teacher();
                let mask = x.mask();
                let mask = x.pairs.mask(mask);
                let [u, v] = [&x.rows[0], &x.rows[1]];
                let [y, z] = [&x.columns[0], &x.columns[1]];
                let smooth = (x.c.square() + 1.0).sqrt().log() / (u + 3.0);
                let gate = (&x.c * &x.scalars[0]).sigmoid() * y - (-&x.c).exp() * &mask;
                let held = x.c.detach() * &x.c * v + teacher.exp() * (&x.c - &teacher).softplus();
                let value = smooth + gate + held * &x.scalars[1];
                let weight = &x.c * &x.scalars[0] + z;
                x.pairs.reduce(&[
                    rows().sum(&value),
                    columns().softmax_mean(&weight, &value),
                    columns().sum(&(&value * &weight)),
                    rows().log_sum_exp(&(&value + &weight)),
                ])
            },
            expected: |x, held| {
                let mask = |p| f64::from(u8::from(x.masked(p)));
                let value = |p| {
                    let (c, t) = (x.similarity(p), x.teacher(p));
                    (c * c + 1.0).sqrt().ln() / (x.row(0, p) + 3.0)
                        + (oracle::sigmoid(c * x.scalars[0]) * x.column(0, p) - (-c).exp() * mask(p))
                        + (held.similarity(p) * c * x.row(1, p) + t.exp() * oracle::softplus(c - t))
                            * x.scalars[1]
                };
                let weight = |p| x.similarity(p) * x.scalars[0] + x.column(1, p);
                let [by_row, _] = oracle::sums(x, value);
                let [_, [sum, mean]] = oracle::softmax_mean(x, weight, value);
                let [_, product] = oracle::sums(x, |p| value(p) * weight(p));
                let [log_sum_exp, _] = oracle::softmax(x, |p| value(p) + weight(p), |_| false);
                vec![by_row, sum, mean, product, log_sum_exp]
            },
        },
    ]
}

fn expected_soft_targets(
    x: &Inputs,
    target: impl Fn(&Inputs, (usize, usize)) -> f64,
) -> Vec<Vec<f64>> {
    let logit = |p| x.scalars[0] * x.similarity(p) + x.row(0, p);
    let sums = oracle::softmax(x, logit, |_| false);
    let means = oracle::softmax_mean(x, |p| target(x, p), logit);
    let of = |(sum, [target, mean]): (Vec<f64>, [Vec<f64>; 2])| {
        let cross_entropy = sum.iter().zip(&mean).map(|(s, m)| s - m).collect();
        [cross_entropy, sum, target, mean]
    };
    sums.into_iter().zip(means).flat_map(of).collect()
}

/// Uses of one set with itself.
fn families_within() -> Vec<Case> {
    vec![
        Case {
            name: "softmax within one set",
            step: SMOOTH,
            actual: |mut x| {
                let logit = &x.c * &x.scalars[0] * 3.0 + &x.rows[0] + &x.columns[0];
                let same = x.labels().of(&mut x.pairs);
                let logit = logit.except(&same);
                x.pairs.reduce(&[rows().log_sum_exp(&logit)])
            },
            expected: |x, _| {
                let logit =
                    |p| 3.0 * x.scalars[0] * x.similarity(p) + x.row(0, p) + x.column(0, p);
                let [by_row, _] = oracle::softmax(x, logit, |p| x.same_label(p));
                vec![by_row]
            },
        },
        Case {
            name: "means and sums within one set",
            step: SMOOTH,
            actual: |mut x| {
                let teacher = x.teacher();
                let mask = x.mask();
                let mask = x.pairs.mask(mask);
                let value = (&x.rows[1] * &x.columns[1]).sigmoid() * &x.c + &mask * &x.c.square();
                let weight = &teacher + &(&x.c * &x.scalars[1]);
                let off = Expr::select(&Expr::diagonal(), &x.scalars[0], &value);
                x.pairs.reduce(&[
                    rows().softmax_mean(&weight, &value),
                    rows().sum(&off),
                    rows().sum(&value.softplus()),
                ])
            },
            expected: |x, _| {
                let value = |p| {
                    let c = x.similarity(p);
                    oracle::sigmoid(x.row(1, p) * x.column(1, p)) * c
                        + if x.masked(p) { c * c } else { 0.0 }
                };
                let weight = |p| x.teacher(p) + x.similarity(p) * x.scalars[1];
                let [[sum, mean], _] = oracle::softmax_mean(x, weight, value);
                let off = |p| if on_diagonal(p) { x.scalars[0] } else { value(p) };
                let [by_row, _] = oracle::sums(x, off);
                let [softplus, _] = oracle::sums(x, |p| oracle::softplus(value(p)));
                vec![sum, mean, by_row, softplus]
            },
        },
        Case {
            name: "total within one set",
            step: SMOOTH,
            actual: |x| {
                let cost = (&x.c * &x.scalars[0] + &x.rows[0] + &x.columns[0]).exp();
                vec![x.pairs.total(&cost.except(&Expr::constant(0.0)))]
            },
            expected: |x, _| {
                let cost = |p| (x.similarity(p) * x.scalars[0] + x.row(0, p) + x.column(0, p)).exp();
                vec![vec![x.pairs().map(cost).sum()]]
            },
        },
    ]
}

/// All cases, with inputs of about these sizes.
fn cases(n: usize, m: usize, width: usize, seed: u64) -> Vec<(Case, Inputs)> {
    let between = families().into_iter().map(|case| (case, inputs(n, m, width, seed)));
    let within = families_within()
        .into_iter()
        .map(|case| (case, inputs_within(n.max(m), width, seed)));
    between.chain(within).collect()
}

// --- right values ---------------------------------------------------------------------------------

pub fn every_family_matches_the_oracle(backend: &Backend) {
    for (case, inputs) in cases(7, 5, 4, 100) {
        println!("{}", case.name);
        let expected = expected(&case, &inputs, usize::MAX);
        let how = How::new(backend, DType::F32);
        assert_matches(case.name, &evaluate(&case, &inputs, &how), &expected, 2e-5);
    }
}

pub fn every_family_matches_the_oracle_in_f64(backend: &Backend) {
    assert!(backend.dtypes.contains(&DType::F64));
    let how = How::new(backend, DType::F64);
    for (n, m) in [(7, 5), (4, 9)] {
        for (case, inputs) in cases(n, m, 4, 110) {
            let expected = expected(&case, &inputs, usize::MAX);
            for evaluation in [Evaluation::Auto, Evaluation::Streaming, Evaluation::Dense] {
                println!("{}, {evaluation:?}", case.name);
                let actual = evaluate(&case, &inputs, &how.with(evaluation, 1 << 20));
                assert_matches(case.name, &actual, &expected, f64_tolerance(&case));
            }
        }
    }
}

/// Of finite differences, whose rounding errors a small step amplifies.
fn f64_tolerance(case: &Case) -> f64 {
    if case.step == KINKED { 1e-9 } else { 1e-10 }
}

/// Budgets in bytes: no room for more than a tile, for one kept block, for a few of them, for everything.
fn budgets(dtype: DType) -> [usize; 4] {
    [1, 128 * 128, 3 * 128 * 128, 1 << 20].map(|numbers| numbers * dtype.size())
}

pub fn blocks_and_what_is_kept_change_nothing(backend: &Backend) {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
        let reference = How::new(backend, DType::F64).with(Evaluation::Dense, 0);
        for (case, inputs) in cases(200, 150, 3, 120) {
            println!("{} in {dtype:?}", case.name);
            let dense = evaluate(&case, &inputs, &reference);
            // The reference itself: all values, and some derivatives of each leaf.
            if dtype == DType::F64 && case.step == SMOOTH && !inputs.within {
                assert_matches(case.name, &dense, &expected(&case, &inputs, 2), 1e-8);
            }
            let how = How::new(backend, dtype);
            let mut runs = vec![how.with(Evaluation::Streaming, 1 << 20)];
            runs.extend(budgets(dtype).map(|budget| how.with(Evaluation::Auto, budget)));
            for how in runs {
                assert_same(case.name, &evaluate(&case, &inputs, &how), &dense, tolerance);
            }
        }
    }
}

/// A case that reads everything of a tile's edges: rows, columns, the diagonal, both gradients.
fn edge_case() -> Case {
    Case {
        name: "edges",
        step: SMOOTH,
        actual: |mut x| {
            let mask = x.mask();
            let mask = x.pairs.mask(mask);
            let logit = (&x.c * &x.scalars[0] + &x.rows[0] - &x.columns[0]).except(&Expr::diagonal());
            let value = &x.c.square() * &mask + &x.columns[1];
            let max = hardest(x.pairs.clone(), &Expr::constant(0.0)).map(|h| h.similarity);
            let results = x.pairs.reduce(&[
                rows().log_sum_exp(&logit),
                columns().log_sum_exp(&logit),
                rows().sum(&value),
                columns().sum(&value),
            ]);
            [results, max.into()].concat()
        },
        expected: |x, _| {
            let logit = |p| x.scalars[0] * x.similarity(p) + x.row(0, p) - x.column(0, p);
            let value = |p| {
                let c = x.similarity(p);
                c * c * f64::from(u8::from(x.masked(p))) + x.column(1, p)
            };
            let max = oracle::hardest(x, |_| false);
            let max = max.map(|found| found.into_iter().map(|f| f.0).collect());
            [oracle::softmax(x, logit, on_diagonal), oracle::sums(x, value), max].concat()
        },
    }
}

pub fn sizes_around_a_tile(backend: &Backend) {
    let case = edge_case();
    for (n, m) in [
        (1, 1),
        (2, 1),
        (1, 2),
        (1, 130),
        (130, 1),
        (63, 64),
        (64, 65),
        (65, 63),
        (127, 129),
        (129, 64),
        (128, 128),
    ] {
        let inputs = inputs(n, m, 3, 130 + n as u64);
        let name = format!("{n} × {m}");
        println!("{name}");
        let how = How::new(backend, DType::F64);
        let actual = evaluate(&case, &inputs, &how.with(Evaluation::Streaming, 1));
        // Of few sampled derivatives the largest may be small: the tolerance is relative to that.
        assert_matches(&name, &actual, &expected(&case, &inputs, 1), 1e-7);
        let dense = evaluate(&case, &inputs, &how.with(Evaluation::Dense, 1));
        assert_same(&name, &actual, &dense, 1e-12);
        for budget in budgets(DType::F64) {
            let actual = evaluate(&case, &inputs, &how.with(Evaluation::Auto, budget));
            assert_same(&name, &actual, &dense, 1e-12);
        }
    }
}

pub fn one_pair_one_row_and_one_column_match_the_oracle(backend: &Backend) {
    let case = edge_case();
    for (n, m) in [(1, 1), (1, 3), (3, 1), (2, 2)] {
        let inputs = inputs(n, m, 4, 140);
        let how = How::new(backend, DType::F32);
        let actual = evaluate(&case, &inputs, &how);
        assert_matches(&format!("{n} × {m}"), &actual, &expected(&case, &inputs, usize::MAX), 2e-5);
    }
}

/// Half precision is widened to f32: right for the rounded inputs, gradients rounded on their way back.
pub fn half_precision_is_widened(backend: &Backend) {
    for dtype in backend.half_dtypes() {
        let how = How::new(backend, dtype);
        let rounded = |m: &Matrix| Matrix::new(m.rows, m.width, numbers(backend.tensor(m, dtype)));
        let vectors = |v: &[Vec<f64>]| v.iter().map(|v| numbers(how.vector(v))).collect();
        let case = edge_case();
        let inputs = inputs(9, 6, 16, 150);
        let inputs = Inputs {
            a: rounded(&inputs.a),
            b: rounded(&inputs.b),
            rows: vectors(&inputs.rows),
            columns: vectors(&inputs.columns),
            scalars: numbers(how.vector(&inputs.scalars)),
            ..inputs
        };
        let actual = evaluate(&case, &inputs, &how);
        let expected = expected(&case, &inputs, usize::MAX);
        let values = |values: &[Vec<f64>]| Evaluated {
            values: values.to_vec(),
            gradients: Vec::new(),
        };
        assert_same("values", &values(&actual.values), &values(&expected.values), 1e-5);
        let ulp = if dtype == DType::F16 { 1e-3 } else { 8e-3 };
        // The weights of the loss are rounded as well.
        assert_matches("gradients", &actual, &expected, 3.0 * ulp);
    }
}

/// Where f32 must lose digits, it loses no more than the dense evaluation in f32 does.
pub fn hard_numbers_are_as_good_as_dense_ones(backend: &Backend) {
    let case = Case {
        name: "softmax",
        step: SMOOTH,
        actual: |x| {
            let both = softmax(x.pairs, &(&x.c * &x.scalars[0]), &Expr::diagonal());
            vec![both.rows, both.columns]
        },
        expected: |x, _| both(oracle::softmax(x, |p| x.scalars[0] * x.similarity(p), on_diagonal)),
    };
    let plain = inputs(9, 7, 8, 160);
    let normalized = |m: &Matrix| {
        let rows = (0..m.rows).flat_map(|i| crate::oracle::normalize(m.row(i)));
        Matrix::new(m.rows, m.width, rows.collect())
    };
    let repeated = |m: &Matrix| {
        let mut m = m.clone();
        m.values.copy_within(0..3 * m.width, 3 * m.width);
        m
    };
    let with_zeros = |m: &Matrix| {
        let mut m = m.clone();
        m.values[..2 * m.width].fill(0.0);
        m
    };
    let changed = |name, change: &dyn Fn(&Matrix) -> Matrix, scale| {
        let (a, b) = (change(&plain.a), change(&plain.b));
        let inputs = Inputs { a, b, scalars: vec![scale], ..plain.clone() };
        (name, inputs)
    };
    for (name, inputs) in [
        changed("logits of ten thousand", &Matrix::clone, 1e4),
        changed("temperature of a thousandth", &normalized, 1e3),
        changed("duplicates", &repeated, 20.0),
        changed("zero rows", &with_zeros, 20.0),
        changed("all zero", &|m| Matrix::new(m.rows, m.width, vec![0.0; m.values.len()]), 20.0),
    ] {
        // What f32 makes of the inputs is no error of the engine's.
        let rounded = |m: &Matrix| Matrix::new(m.rows, m.width, m.values.iter().map(|&v| f64::from(v as f32)).collect());
        let inputs = Inputs { a: rounded(&inputs.a), b: rounded(&inputs.b), ..inputs };
        let how = How::new(backend, DType::F32);
        let actual = evaluate(&case, &inputs, &how);
        let dense = evaluate(&case, &inputs, &how.with(Evaluation::Dense, 0));
        let exact = match backend.dtypes.contains(&DType::F64) {
            true => evaluate(&case, &inputs, &How::new(backend, DType::F64)),
            false => {
                let step = 2e-3 / inputs.scalars[0].max(1.0);
                let expected = expected(
                    &Case { step, ..case },
                    &inputs,
                    usize::MAX,
                );
                let gradients = expected.gradients.iter();
                Evaluated {
                    values: expected.values,
                    gradients: gradients.map(|g| g.iter().map(|g| g.1).collect()).collect(),
                }
            }
        };
        let oracle = Evaluated {
            values: (case.expected)(&inputs, &inputs),
            gradients: exact.gradients.clone(),
        };
        assert_same(name, &exact, &oracle, 1e-12);
        let error = |one: &Evaluated| {
            let distances = |x: &[Vec<f64>], y: &[Vec<f64>]| -> Vec<(f64, f64)> {
                let pair = |(x, y): (&Vec<f64>, &Vec<f64>)| {
                    let far = |(x, y): (&f64, &f64)| if x == y { 0.0 } else { (x - y).abs() };
                    let largest = y.iter().fold(0.0, |m: f64, y| m.max(y.abs()));
                    (x.iter().zip(y).map(far).fold(0.0, f64::max), largest)
                };
                x.iter().zip(y).map(pair).collect()
            };
            [distances(&one.values, &exact.values), distances(&one.gradients, &exact.gradients)].concat()
        };
        for (k, ((own, largest), (theirs, _))) in error(&actual).into_iter().zip(error(&dense)).enumerate() {
            assert!(
                own <= 2.0 * theirs + 1e-6 * largest + 1e-7,
                "{name}, {k}: an error of {own:e} where the dense evaluation has {theirs:e} (largest {largest:e})"
            );
        }
    }
}
