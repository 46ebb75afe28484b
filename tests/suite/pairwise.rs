//! The pairwise engine: every family against the oracle, its invariants, and hostile input.

#[cfg(feature = "_cube")]
pub mod device;

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use burn_contrastive::pairwise::{
    Evaluation, Expr, Pairs, Positives, Reduction, SoftTargets, columns, hardest, log_add_exp,
    rows, soft_targets, softmax, softmax_above, weighted_softmax,
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
        Tensor::from_data(
            TensorData::new(self.inputs.mask.clone(), shape),
            &self.how.device,
        )
    }

    fn labels(&self) -> Positives {
        let [rows, columns] = self.inputs.labels.each_ref().map(|labels| {
            let data = TensorData::new(labels.clone(), [labels.len()]);
            Tensor::<1, Int>::from_data(data, &self.how.device)
        });
        Positives::Labels { rows, columns }
    }

    fn teacher(&mut self) -> Expr {
        let [a, b] = self
            .inputs
            .teacher
            .each_ref()
            .map(|t| on(&self.how.device, t, self.how.dtype));
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
        mask: random(n, m, seed + 8)
            .values
            .iter()
            .map(|&x| x > 0.2)
            .collect(),
        labels: [
            (0..n).map(id).collect(),
            (0..m).map(|j| id(j / 2)).collect(),
        ],
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
    let shared = if inputs.within {
        &row_leaves
    } else {
        &column_leaves
    };
    let rows = row_leaves.iter().map(|v| pairs.row(v.clone())).collect();
    let columns = shared.iter().map(|v| pairs.column(v.clone())).collect();
    let scalars = scalar_leaves
        .iter()
        .map(|v| pairs.scalar(v.clone()))
        .collect();
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
    let vectors = row_leaves
        .iter()
        .chain(&column_leaves)
        .chain(&scalar_leaves);
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
                soft_target_results(x.pairs, &logit, &target)
            },
            expected: |x, _| expected_soft_targets(x, |x, p| 3.0 * x.teacher(p)),
        },
        Case {
            name: "soft targets of its own",
            step: SMOOTH,
            actual: |x| {
                let target = &x.c * 2.0 + &x.columns[1];
                let logit = &x.c * &x.scalars[0] + &x.rows[0];
                soft_target_results(x.pairs, &logit, &target)
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
                    if on_diagonal(p) {
                        (c - 1.0).powi(2)
                    } else {
                        0.1 * c.max(0.0).powi(2)
                    }
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
                let similarities =
                    |found: Vec<(f64, usize)>| found.into_iter().map(|f| f.0).collect();
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
                        + (oracle::sigmoid(c * x.scalars[0]) * x.column(0, p)
                            - (-c).exp() * mask(p))
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

/// All that soft targets give, along the rows and along the columns.
fn soft_target_results(pairs: Pairs, logit: &Expr, target: &Expr) -> Vec<Tensor<1>> {
    let results = |s: SoftTargets| {
        [
            s.cross_entropy(),
            s.log_sum_exp,
            s.target_log_sum_exp,
            s.mean_logit,
        ]
    };
    soft_targets(pairs, logit, target)
        .into_iter()
        .flat_map(results)
        .collect()
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
                let logit = |p| 3.0 * x.scalars[0] * x.similarity(p) + x.row(0, p) + x.column(0, p);
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
                let off = |p| {
                    if on_diagonal(p) {
                        x.scalars[0]
                    } else {
                        value(p)
                    }
                };
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
                let cost =
                    |p| (x.similarity(p) * x.scalars[0] + x.row(0, p) + x.column(0, p)).exp();
                vec![vec![x.pairs().map(cost).sum()]]
            },
        },
    ]
}

/// All cases, with inputs of about these sizes.
fn cases(n: usize, m: usize, width: usize, seed: u64) -> Vec<(Case, Inputs)> {
    let between = families()
        .into_iter()
        .map(|case| (case, inputs(n, m, width, seed)));
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
        for (case, inputs) in cases(140, 130, 3, 120) {
            println!("{} in {dtype:?}", case.name);
            let dense = evaluate(&case, &inputs, &reference);
            // The reference itself: all values, and some derivatives of each leaf.
            if dtype == DType::F64 && case.step == SMOOTH && !inputs.within {
                assert_matches(case.name, &dense, &expected(&case, &inputs, 1), 1e-8);
            }
            let how = How::new(backend, dtype);
            let mut runs = vec![how.with(Evaluation::Streaming, 1 << 20)];
            runs.extend(budgets(dtype).map(|budget| how.with(Evaluation::Auto, budget)));
            for how in runs {
                assert_same(
                    case.name,
                    &evaluate(&case, &inputs, &how),
                    &dense,
                    tolerance,
                );
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
            let logit =
                (&x.c * &x.scalars[0] + &x.rows[0] - &x.columns[0]).except(&Expr::diagonal());
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
            [
                oracle::softmax(x, logit, on_diagonal),
                oracle::sums(x, value),
                max,
            ]
            .concat()
        },
    }
}

pub fn sizes_around_a_tile(backend: &Backend) {
    let case = edge_case();
    for (n, m) in [
        (1, 1),
        (2, 1),
        (1, 2),
        (1, 129),
        (65, 1),
        (63, 64),
        (129, 65),
        (127, 128),
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
        let kept = evaluate(&case, &inputs, &how.with(Evaluation::Auto, 1 << 20));
        assert_same(&name, &kept, &dense, 1e-12);
    }
}

pub fn one_pair_one_row_and_one_column_match_the_oracle(backend: &Backend) {
    let case = edge_case();
    for (n, m) in [(1, 1), (1, 3), (3, 1), (2, 2)] {
        let inputs = inputs(n, m, 4, 140);
        let how = How::new(backend, DType::F32);
        let actual = evaluate(&case, &inputs, &how);
        assert_matches(
            &format!("{n} × {m}"),
            &actual,
            &expected(&case, &inputs, usize::MAX),
            2e-5,
        );
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
        assert_same(
            "values",
            &values(&actual.values),
            &values(&expected.values),
            1e-5,
        );
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
        expected: |x, _| {
            both(oracle::softmax(
                x,
                |p| x.scalars[0] * x.similarity(p),
                on_diagonal,
            ))
        },
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
        let inputs = Inputs {
            a,
            b,
            scalars: vec![scale],
            ..plain.clone()
        };
        (name, inputs)
    };
    for (name, inputs) in [
        changed("logits of ten thousand", &Matrix::clone, 1e4),
        changed("temperature of a thousandth", &normalized, 1e3),
        changed("duplicates", &repeated, 20.0),
        changed("zero rows", &with_zeros, 20.0),
        changed(
            "all zero",
            &|m| Matrix::new(m.rows, m.width, vec![0.0; m.values.len()]),
            20.0,
        ),
    ] {
        // What f32 makes of the inputs is no error of the engine's.
        let rounded = |m: &Matrix| {
            Matrix::new(
                m.rows,
                m.width,
                m.values.iter().map(|&v| f64::from(v as f32)).collect(),
            )
        };
        let inputs = Inputs {
            a: rounded(&inputs.a),
            b: rounded(&inputs.b),
            ..inputs
        };
        let how = How::new(backend, DType::F32);
        let actual = evaluate(&case, &inputs, &how);
        let dense = evaluate(&case, &inputs, &how.with(Evaluation::Dense, 0));
        let exact = match backend.dtypes.contains(&DType::F64) {
            true => evaluate(&case, &inputs, &How::new(backend, DType::F64)),
            false => {
                let step = 2e-3 / inputs.scalars[0].max(1.0);
                let expected = expected(&Case { step, ..case }, &inputs, usize::MAX);
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
            [
                distances(&one.values, &exact.values),
                distances(&one.gradients, &exact.gradients),
            ]
            .concat()
        };
        for (k, ((own, largest), (theirs, _))) in
            error(&actual).into_iter().zip(error(&dense)).enumerate()
        {
            assert!(
                own <= 2.0 * theirs + 1e-6 * largest + 1e-7,
                "{name}, {k}: an error of {own:e} where the dense evaluation has {theirs:e} (largest {largest:e})"
            );
        }
    }
}

// --- the two sides, autodiff, and what is shared --------------------------------------------------

/// Log-sum-exps of rows and columns and the sum of squares, off the diagonal.
fn reductions(c: &Expr) -> [Reduction; 3] {
    let logit = (c * 3.0).except(&Expr::diagonal());
    let square = c.square();
    [
        rows().log_sum_exp(&logit),
        columns().log_sum_exp(&logit),
        rows().sum(&square),
    ]
}

fn loss(results: &[Tensor<1>]) -> Tensor<1> {
    let sums = results.iter().map(|r| (r.clone() * r.clone()).sum());
    sums.reduce(|x, y| x + y).expect("a result")
}

fn gradients_of(a: &Tensor<2>, b: &Tensor<2>, loss: Tensor<1>) -> [Vec<f64>; 2] {
    let gradients = loss.backward();
    [a, b].map(|t| numbers(t.grad(&gradients).expect("a gradient")))
}

pub fn strided_tensors_match_contiguous_ones(backend: &Backend) {
    let (a, b) = (random(5, 4, 200), random(6, 4, 201));
    let device = backend.device.clone().autodiff();
    let strided = |m: &Matrix| {
        let columns = (0..m.width).flat_map(|k| (0..m.rows).map(move |i| m.row(i)[k]));
        let transposed = Matrix::new(m.width, m.rows, columns.collect());
        on(&device, &transposed, DType::F32).require_grad()
    };
    let (at, bt) = (strided(&a), strided(&b));
    let mask: Vec<bool> = (0..30).map(|k| k % 4 == 1).collect();
    let mask = |strides: bool| match strides {
        // The transpose of the transposed mask.
        true => {
            let columns = (0..6).flat_map(|j| (0..5).map(move |i| i * 6 + j));
            let data = columns.map(|k| mask[k]).collect::<Vec<_>>();
            Tensor::<2, Bool>::from_data(TensorData::new(data, [6, 5]), &device).transpose()
        }
        false => Tensor::from_data(TensorData::new(mask.clone(), [5, 6]), &device),
    };
    let run = |a: Tensor<2>, b: Tensor<2>, strides: bool| {
        let mut pairs = Pairs::new(a, b);
        let masked = pairs.mask(mask(strides));
        let x = pairs.similarity().square() * &masked + &pairs.similarity();
        pairs.reduce(&[rows().sum(&x), columns().log_sum_exp(&x)])
    };
    let results = run(at.clone().transpose(), bt.clone().transpose(), true);
    let by_strided = gradients_of(&at, &bt, loss(&results));
    let (ac, bc) = (on(&device, &a, DType::F32), on(&device, &b, DType::F32));
    let (ac, bc) = (ac.require_grad(), bc.require_grad());
    let expected = run(ac.clone(), bc.clone(), false);
    let by_contiguous = gradients_of(&ac, &bc, loss(&expected));
    for (actual, expected) in results.into_iter().zip(expected) {
        assert_close(&numbers(actual), &numbers(expected), 1e-6);
    }
    for ((strided, contiguous), m) in by_strided.iter().zip(&by_contiguous).zip([&a, &b]) {
        let columns = (0..m.width).flat_map(|k| (0..m.rows).map(move |i| i * m.width + k));
        assert_close(
            strided,
            &columns.map(|k| contiguous[k]).collect::<Vec<_>>(),
            1e-6,
        );
    }
}

pub fn an_untracked_side_changes_nothing_for_the_other(backend: &Backend) {
    let device = backend.device.clone().autodiff();
    let tensor = |seed| on(&device, &random(5, 4, seed), DType::F32);
    let scale = || Tensor::<1>::from_data([2.0f32], &device);
    let run = |a: &Tensor<2>, b: &Tensor<2>, s: &Tensor<1>, whole: bool| {
        let mut pairs = Pairs::new(a.clone(), b.clone());
        let logit = pairs.similarity() * &pairs.scalar(s.clone());
        match whole {
            true => pairs.total(&logit.softplus()),
            false => loss(&pairs.reduce(&reductions(&logit))),
        }
        .backward()
    };
    for whole in [true, false] {
        let (a, b, s) = (
            tensor(202).require_grad(),
            tensor(203).require_grad(),
            scale().require_grad(),
        );
        let all = run(&a, &b, &s, whole);
        let [by_a, by_b] = [&a, &b].map(|t| numbers(t.grad(&all).unwrap()));
        let by_s = numbers(s.grad(&all).unwrap());
        let (fa, fb, fs) = (tensor(202), tensor(203), scale());
        for (a, b, s) in [
            (&a, &fb, &fs),
            (&fa, &b, &fs),
            (&fa, &fb, &s),
            (&a, &fb, &s),
        ] {
            let gradients = run(a, b, s, whole);
            for (t, expected) in [(a, &by_a), (b, &by_b)] {
                assert_eq!(t.grad(&gradients).is_some(), t.is_require_grad());
                if let Some(g) = t.grad(&gradients) {
                    assert_close(&numbers(g), expected, 1e-6);
                }
            }
            assert_eq!(s.grad(&gradients).is_some(), s.is_require_grad());
            if let Some(g) = s.grad(&gradients) {
                assert_close(&numbers(g), &by_s, 1e-6);
            }
        }
        // Nothing tracked at all, on an autodiff device and on the plain one.
        let pairs = Pairs::new(fa.clone(), fb.clone());
        let on_autodiff = pairs.clone().total(&pairs.similarity());
        let pairs = Pairs::new(fa.inner(), fb.inner());
        let on_plain = pairs.clone().total(&pairs.similarity());
        assert_close(&numbers(on_autodiff), &numbers(on_plain), 1e-6);
    }
}

pub fn works_under_gradient_checkpointing(backend: &Backend) {
    let inputs = inputs(4, 5, 3, 204);
    let how = How::new(backend, DType::F32);
    let checkpointing = How {
        device: backend.device.clone().autodiff().gradient_checkpointing(),
        ..how.clone()
    };
    // Two passes, the second of which reads the first's results.
    let removal = families()
        .into_iter()
        .find(|case| case.name == "removal by weight");
    for case in [edge_case(), removal.expect("a family")] {
        let actual = evaluate(&case, &inputs, &checkpointing);
        assert_same(case.name, &actual, &evaluate(&case, &inputs, &how), 1e-6);
    }
    // Embeddings that are computed themselves, cheaply enough to be computed again.
    let gradient = |device: &Device| {
        let x = on(device, &random(4, 3, 205), DType::F32).require_grad();
        let pairs = Pairs::new(x.clone().tanh(), x.clone() * 2.0);
        let results = pairs.clone().reduce(&reductions(&pairs.similarity()));
        let twice = loss(&results) + pairs.clone().total(&pairs.similarity().exp());
        numbers(x.grad(&twice.backward()).unwrap())
    };
    assert_close(
        &gradient(&checkpointing.device),
        &gradient(&how.device),
        1e-6,
    );
}

pub fn results_used_twice_have_twice_the_gradient(backend: &Backend) {
    let device = backend.device.clone().autodiff();
    let tensor = |seed| on(&device, &random(5, 4, seed), DType::F32).require_grad();
    let (a, b) = (tensor(206), tensor(207));
    let pairs = Pairs::new(a.clone(), b.clone());
    let run = || pairs.clone().reduce(&reductions(&pairs.similarity()));
    let once = gradients_of(&a, &b, loss(&run()));
    let results = run();
    let total = run()[0].clone().sum() + loss(&results) + loss(&results) - results[0].clone().sum();
    for (twice, once) in gradients_of(&a, &b, total).iter().zip(&once) {
        let expected: Vec<_> = once.iter().map(|g| 2.0 * g).collect();
        assert_close(twice, &expected, 1e-5);
    }
    let total = pairs.clone().total(&pairs.similarity().exp());
    let scaled = gradients_of(&a, &b, total.clone() * total.clone());
    let once = gradients_of(&a, &b, pairs.clone().total(&pairs.similarity().exp()));
    let factor = 2.0 * numbers(total)[0];
    for (scaled, once) in scaled.iter().zip(&once) {
        assert_close(
            scaled,
            &once.iter().map(|g| factor * g).collect::<Vec<_>>(),
            1e-5,
        );
    }
}

pub fn reducing_to_a_scalar_is_the_function_of_the_results(backend: &Backend) {
    let device = backend.device.clone().autodiff();
    let tensor = |seed| on(&device, &random(5, 4, seed), DType::F32).require_grad();
    let (a, b) = (tensor(208), tensor(209));
    let pairs = Pairs::new(a.clone(), b.clone());
    for evaluation in [Evaluation::Auto, Evaluation::Dense] {
        let pairs = pairs.clone().with_evaluation(evaluation);
        let reductions = reductions(&pairs.similarity());
        let direct = loss(&pairs.clone().reduce(&reductions));
        let scalar = pairs.reduce_to_scalar(&reductions, |results| loss(&results));
        assert_close(&numbers(scalar.clone()), &numbers(direct.clone()), 1e-6);
        let expected = gradients_of(&a, &b, direct);
        for (actual, expected) in gradients_of(&a, &b, scalar).iter().zip(&expected) {
            assert_close(actual, expected, 1e-6);
        }
    }
}

pub fn a_teacher_is_a_constant(backend: &Backend) {
    let device = backend.device.clone().autodiff();
    let tensor = |seed| on(&device, &random(5, 4, seed), DType::F32).require_grad();
    let [a, b, ta, tb] = [210, 211, 212, 213].map(tensor);
    let mut pairs = Pairs::new(a.clone(), b.clone());
    let x = pairs.teacher(ta.clone(), tb.clone()) * &pairs.similarity();
    let gradients = pairs.total(&x).backward();
    assert!(a.grad(&gradients).is_some() && b.grad(&gradients).is_some());
    assert!(ta.grad(&gradients).is_none() && tb.grad(&gradients).is_none());
}

// --- labels, masks, ties --------------------------------------------------------------------------

pub fn labels_are_compared_exactly(backend: &Backend) {
    let device = &backend.device;
    let check = |rows_of: &[i64], columns_of: &[i64], dtypes: [DType; 2]| {
        let labels = |labels: &[i64], dtype| {
            let data = TensorData::new(labels.to_vec(), [labels.len()]).convert_dtype(dtype);
            Tensor::<1, Int>::from_data(data, (device, dtype))
        };
        let embeddings = |n| Tensor::<2>::ones([n, 1], device);
        let mut pairs = Pairs::new(embeddings(rows_of.len()), embeddings(columns_of.len()));
        let same = pairs.same_label(labels(rows_of, dtypes[0]), labels(columns_of, dtypes[1]));
        let place = pairs.row(Tensor::<1, Int>::arange(0..rows_of.len() as i64, device).float());
        let two = (Expr::constant(0.5) * &place).exp() * &same;
        let found = pairs.reduce(&[rows().sum(&same), columns().sum(&two)]);
        let counts = rows_of
            .iter()
            .map(|r| columns_of.iter().filter(|c| r == *c).count() as f64);
        let sums = columns_of.iter().map(|c| {
            let same = rows_of.iter().enumerate().filter(|(_, r)| *r == c);
            same.map(|(i, _)| (0.5 * i as f64).exp()).sum::<f64>()
        });
        let expected = [counts.collect::<Vec<_>>(), sums.collect()];
        for (found, expected) in found.into_iter().zip(expected) {
            assert_close(&numbers(found), &expected, 1e-6);
        }
    };
    let big = 1 << 24;
    let narrow = [
        0,
        1,
        -1,
        7,
        big,
        big + 1,
        -big,
        -big - 1,
        big - 1,
        1 << 22,
        -(1 << 22),
    ];
    let ends = [
        i64::from(i32::MIN),
        i64::from(i32::MAX),
        i64::from(i32::MIN) + 1,
        5,
        -5,
    ];
    for (x, y) in [(&narrow[..], &narrow[..]), (&ends, &narrow), (&ends, &ends)] {
        check(x, y, [DType::I32, DType::I32]);
    }
    if device.supports_dtype(DType::I64) {
        let wide = [
            0,
            1 << 22,
            1 << 44,
            1 << 53,
            (1 << 53) + 1,
            i64::MAX,
            i64::MAX - 1,
            i64::MIN,
            i64::MIN + 1,
            -(1 << 44),
            -1,
        ];
        check(&wide, &wide, [DType::I64, DType::I64]);
        check(&wide, &narrow, [DType::I64, DType::I32]);
        check(&narrow, &wide, [DType::I32, DType::I64]);
    }
    let small = [0, 1, 2, 100, 127, 64];
    for dtype in [DType::I16, DType::I8, DType::U8, DType::U32] {
        if device.supports_dtype(dtype) {
            check(&small, &small, [dtype, dtype]);
        }
    }
}

pub fn ties_go_to_the_lowest_index(backend: &Backend) {
    // Rows and columns in groups of equal embeddings.
    let a = Matrix::new(
        6,
        2,
        [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]].repeat(2).concat(),
    );
    let b = Matrix::new(
        5,
        2,
        [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]].concat(),
    );
    let tensor = |m| backend.tensor(m, DType::F32);
    let [by_row, by_column] = hardest(Pairs::new(tensor(&a), tensor(&b)), &Expr::constant(0.0));
    let indices = |index: Tensor<1, Int>| numbers(index.float());
    assert_eq!(indices(by_row.index), [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
    assert_eq!(indices(by_column.index), [2.0, 0.0, 0.0, 2.0, 0.0]);
    let [by_row, by_column] = hardest(Pairs::new(tensor(&a), tensor(&b)), &Expr::diagonal());
    assert_eq!(indices(by_row.index), [1.0, 2.0, 0.0, 1.0, 1.0, 0.0]);
    assert_eq!(indices(by_column.index), [2.0, 0.0, 0.0, 2.0, 0.0]);
    assert_close(&numbers(by_row.similarity), &[1.0; 6], 1e-6);
}

pub fn ties_in_different_tiles_go_to_the_lowest_index(backend: &Backend) {
    let equal = Tensor::<2>::ones([150, 2], &backend.device);
    for budget in [1, 1 << 20] {
        let pairs = Pairs::new(equal.clone(), equal.clone()).with_memory_budget(budget);
        let [by_row, by_column] = hardest(pairs, &Expr::diagonal());
        let mut expected = vec![0.0; 150];
        expected[0] = 1.0;
        assert_eq!(numbers(by_row.index.float()), expected);
        assert_eq!(numbers(by_column.index.float()), expected);
    }
}

// --- degenerate and hostile input -----------------------------------------------------------------

pub fn over_nothing_the_value_is_minus_infinity_and_the_gradient_zero(backend: &Backend) {
    let (n, m, width) = (5, 4, 3);
    let device = backend.device.clone().autodiff();
    let tensor = |rows, seed| on(&device, &random(rows, width, seed), DType::F32).require_grad();
    // Nothing is left of row 2 and of column 1.
    let mask = |device: &Device| {
        let left_out = (0..n * m).map(|k| k / m == 2 || k % m == 1 || k == 7);
        let data = TensorData::new(left_out.collect::<Vec<_>>(), [n, m]);
        Tensor::<2, Bool>::from_data(data, device)
    };
    type Run = fn(Pairs, Expr, &Expr) -> [Tensor<1>; 2];
    let runs: [(&str, Run); 4] = [
        ("softmax", |pairs, c, left_out| {
            let found = softmax(pairs, &(c * 2.0), left_out);
            [found.rows, found.columns]
        }),
        ("weighted", |pairs, c, left_out| {
            let found = weighted_softmax(pairs, &(&c * 2.0), &c, left_out);
            [found.rows, found.columns]
        }),
        ("above", |pairs, c, left_out| {
            let found = softmax_above(pairs, &(&c * 2.0), &c, 0.7, left_out);
            [found.rows, found.columns]
        }),
        ("hardest", |pairs, _, left_out| {
            hardest(pairs, left_out).map(|h| h.similarity)
        }),
    ];
    for (name, run) in runs {
        for evaluation in [Evaluation::Auto, Evaluation::Dense] {
            let (a, b) = (tensor(n, 220), tensor(m, 221));
            let mut pairs = Pairs::new(a.clone(), b.clone()).with_evaluation(evaluation);
            let (c, left_out) = (pairs.similarity(), pairs.mask(mask(&device)));
            let [by_row, by_column] = run(pairs, c, &left_out);
            let (found_rows, found_columns) = (numbers(by_row.clone()), numbers(by_column.clone()));
            for (k, x) in found_rows.iter().enumerate() {
                assert_eq!(
                    *x == f64::NEG_INFINITY,
                    k == 2,
                    "{name}, {evaluation:?}: {found_rows:?}"
                );
                assert!(k == 2 || x.is_finite());
            }
            for (k, x) in found_columns.iter().enumerate() {
                assert_eq!(
                    *x == f64::NEG_INFINITY,
                    k == 1,
                    "{name}, {evaluation:?}: {found_columns:?}"
                );
                assert!(k == 1 || x.is_finite());
            }
            let gradients = (by_row.sum() + by_column.sum()).backward();
            let [by_a, by_b] = [&a, &b].map(|t| numbers(t.grad(&gradients).unwrap()));
            assert!(
                by_a.iter().chain(&by_b).all(|g| g.is_finite()),
                "{name}, {evaluation:?}: {by_a:?} {by_b:?}"
            );
            assert!(
                by_a[2 * width..3 * width].iter().all(|&g| g == 0.0),
                "{name}: {by_a:?}"
            );
            assert!(
                by_b[width..2 * width].iter().all(|&g| g == 0.0),
                "{name}: {by_b:?}"
            );
            assert!(by_a[..2 * width].iter().all(|&g| g != 0.0) || name == "hardest");
        }
    }
}

pub fn nan_spreads_to_exactly_what_reads_it(backend: &Backend) {
    let (n, m, width) = (6, 5, 3);
    let device = backend.device.clone().autodiff();
    let good = random(m, width, 222);
    let mut bad = random(n, width, 223);
    bad.values[2 * width + 1] = f64::NAN;
    let b = || on(&device, &good, DType::F32).require_grad();
    let a = || on(&device, &bad, DType::F32).require_grad();
    let is_nan = |values: Vec<f64>| values.into_iter().map(f64::is_nan).collect::<Vec<_>>();
    let only_row_2: Vec<_> = (0..n).map(|i| i == 2).collect();
    let by_rows: Vec<_> = (0..n * width).map(|k| k / width == 2).collect();
    type Reduce = fn(&Expr) -> [Reduction; 2];
    let reductions: [(&str, Reduce); 4] = [
        ("sum", |x| [rows().sum(x), columns().sum(x)]),
        ("log-sum-exp", |x| {
            [rows().log_sum_exp(x), columns().log_sum_exp(x)]
        }),
        ("relu", |x| {
            [rows().sum(&x.relu()), columns().sum(&x.softplus())]
        }),
        ("mean", |x| {
            [rows().softmax_mean(x, x), columns().softmax_mean(x, x)]
        }),
    ];
    for (name, reduce) in reductions {
        for evaluation in [Evaluation::Auto, Evaluation::Dense] {
            let run = |a: &Tensor<2>, b: &Tensor<2>, axis: usize| {
                let pairs = Pairs::new(a.clone(), b.clone()).with_evaluation(evaluation);
                let reductions = reduce(&(pairs.similarity() * 2.0));
                pairs
                    .reduce(&reductions[axis..axis + 1])
                    .pop()
                    .expect("a result")
            };
            println!("{name}, {evaluation:?}");
            let (a, b) = (a(), b());
            let result = run(&a, &b, 0);
            assert_eq!(is_nan(numbers(result.clone())), only_row_2);
            if name == "relu" && evaluation == Evaluation::Dense {
                continue; // To Burn's autodiff the slope at NaN is 1.
            }
            let [by_a, by_b] = gradients_of(&a, &b, result.sum());
            // The slope of a sum reads the other side alone, and of that what is multiplied with it.
            let linear = name == "sum";
            let only_middle: Vec<_> = (0..m * width).map(|k| !linear || k % width == 1).collect();
            assert_eq!(
                is_nan(by_a),
                by_rows.iter().map(|x| *x && !linear).collect::<Vec<_>>()
            );
            assert_eq!(is_nan(by_b), only_middle);
            // Every column reads row 2.
            let result = run(&a, &b, 1);
            assert!(numbers(result.clone()).iter().all(|x| x.is_nan()));
            let [by_a, by_b] = gradients_of(&a, &b, result.sum());
            assert_eq!(is_nan(by_b), only_middle);
            assert!(
                is_nan(by_a)[2 * width..3 * width]
                    .iter()
                    .all(|&x| x != linear)
            );
        }
    }
    let (a, b) = (a(), b());
    let [by_row, by_column] = hardest(Pairs::new(a.clone(), b.clone()), &Expr::constant(0.0));
    assert_eq!(is_nan(numbers(by_row.similarity)), only_row_2);
    assert_eq!(numbers(by_column.index.float()), vec![2.0; m]);
    assert!(
        numbers(by_column.similarity.clone())
            .iter()
            .all(|x| x.is_nan())
    );
    let [_, by_b] = gradients_of(&a, &b, by_column.similarity.sum());
    assert!(by_b.iter().any(|g| g.is_nan()));
    // Left out, it has no influence on the others' values.
    let mut pairs = Pairs::new(a, b);
    let mask: Vec<_> = (0..n * m).map(|k| k / m == 2).collect();
    let left_out = pairs.mask(Tensor::from_data(TensorData::new(mask, [n, m]), &device));
    let found = softmax(pairs.clone(), &pairs.similarity(), &left_out);
    assert!(numbers(found.columns).iter().all(|x| x.is_finite()));
}

pub fn nan_in_a_bound_number_is_nan_where_it_is_read(backend: &Backend) {
    let device = &backend.device;
    let tensor = |rows, seed| backend.tensor(&random(rows, 3, seed), DType::F32);
    let vector = |len: usize, bad: usize| {
        let values: Vec<f32> = (0..len)
            .map(|k| if k == bad { f32::NAN } else { 0.5 })
            .collect();
        Tensor::<1>::from_data(TensorData::new(values, [len]), device)
    };
    let is_nan = |t: &Tensor<1>| {
        numbers(t.clone())
            .into_iter()
            .map(f64::is_nan)
            .collect::<Vec<_>>()
    };
    let mut pairs = Pairs::new(tensor(4, 224), tensor(5, 225));
    let x = pairs.similarity() * &pairs.row(vector(4, 1));
    let found = pairs.reduce(&[rows().log_sum_exp(&x), columns().sum(&x)]);
    assert_eq!(is_nan(&found[0]), [false, true, false, false]);
    assert_eq!(is_nan(&found[1]), [true; 5]);
    let mut pairs = Pairs::new(tensor(4, 224), tensor(5, 225));
    let x = (pairs.similarity() - &pairs.column(vector(5, 3))).relu();
    let found = pairs.reduce(&[rows().sum(&x), columns().log_sum_exp(&x)]);
    assert_eq!(is_nan(&found[0]), [true; 4]);
    assert_eq!(is_nan(&found[1]), [false, false, false, true, false]);
}

pub fn log_sum_exps_of_groups_are_joined(backend: &Backend) {
    let device = backend.device.clone().autodiff();
    let groups = [
        [1.0, f32::NEG_INFINITY, f32::NEG_INFINITY, 1e4, -1e4],
        [2.0, 3.0, f32::NEG_INFINITY, -1e4, -1e4],
        [
            0.5,
            f32::NEG_INFINITY,
            f32::NEG_INFINITY,
            1e4,
            f32::NEG_INFINITY,
        ],
    ];
    let leaves = groups.map(|g| Tensor::<1>::from_data(g, &device).require_grad());
    let joined = log_add_exp(&leaves);
    let column = |k: usize| groups.map(|g| f64::from(g[k]));
    let expected: Vec<_> = (0..5).map(|k| log_sum_exp(&column(k))).collect();
    for (actual, expected) in numbers(joined.clone()).iter().zip(&expected) {
        assert!(actual == expected || (actual - expected).abs() < 1e-6 * expected.abs());
    }
    let gradients = joined.sum().backward();
    for (leaf, group) in leaves.iter().zip(groups) {
        let softmax = group
            .iter()
            .zip(&expected)
            .map(|(&x, total)| match total.is_finite() {
                true => (f64::from(x) - total).exp(),
                false => 0.0,
            });
        assert_close(
            &numbers(leaf.grad(&gradients).unwrap()),
            &softmax.collect::<Vec<_>>(),
            1e-5,
        );
    }
    let bad = Tensor::<1>::from_data([f32::NAN, 1.0], &device);
    let found = numbers(log_add_exp(&[bad, Tensor::from_data([0.0, 0.0], &device)]));
    assert!(found[0].is_nan() && found[1].is_finite());
}

// --- invariants -----------------------------------------------------------------------------------

/// Runs `check` on a handful of random shapes (rows, columns, width, seed).
fn for_shapes(check: impl Fn(usize, usize, usize, u64) -> Result<(), TestCaseError>) {
    let settings = ProptestConfig {
        cases: 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(settings, |(n in 1usize..9, m in 1usize..9, width in 1usize..6, seed in 0..u64::MAX / 2)| {
        check(n, m, width, seed)?;
    });
}

fn prop_same(actual: &[Vec<f64>], expected: &[Vec<f64>]) -> Result<(), TestCaseError> {
    prop_assert_eq!(actual.len(), expected.len());
    for (a, e) in actual.iter().zip(expected) {
        prop_assert_eq!(a.len(), e.len());
        let largest = e.iter().fold(1.0, |largest: f64, y| largest.max(y.abs()));
        for (k, (x, y)) in a.iter().zip(e).enumerate() {
            let close = x == y || (x - y).abs() <= 2e-5 * largest;
            prop_assert!(close, "element {k}: {x} against {y}, the largest {largest}");
        }
    }
    Ok(())
}

/// Values and gradients of log-sum-exps and sums that no diagonal enters.
fn evaluate_plain(backend: &Backend, a: &Matrix, b: &Matrix) -> Vec<Vec<f64>> {
    let device = backend.device.clone().autodiff();
    let leaf = |m| on(&device, m, DType::F32).require_grad();
    let (a, b) = (leaf(a), leaf(b));
    let pairs = Pairs::new(a.clone(), b.clone());
    let logit = pairs.similarity() * 2.0;
    let cost = logit.softplus();
    let results = pairs.reduce(&[
        rows().log_sum_exp(&logit),
        rows().sum(&cost),
        columns().log_sum_exp(&logit),
        columns().sum(&cost),
    ]);
    let gradients = gradients_of(&a, &b, loss(&results));
    results.into_iter().map(numbers).chain(gradients).collect()
}

pub fn permuting_rows_permutes_results(backend: &Backend) {
    for_shapes(|n, m, width, seed| {
        let (a, b) = (random(n, width, seed), random(m, width, seed + 1));
        let by = seed as usize % n;
        let mut rotated = a.clone();
        rotated.values.rotate_left(width * by);
        let mut expected = evaluate_plain(backend, &a, &b);
        expected[0].rotate_left(by);
        expected[1].rotate_left(by);
        expected[4].rotate_left(width * by);
        prop_same(&evaluate_plain(backend, &rotated, &b), &expected)
    });
}

pub fn swapping_the_sides_swaps_rows_and_columns(backend: &Backend) {
    for_shapes(|n, m, width, seed| {
        let (a, b) = (random(n, width, seed), random(m, width, seed + 1));
        let e = evaluate_plain(backend, &a, &b);
        let expected = [2, 3, 0, 1, 5, 4].map(|k: usize| e[k].clone());
        prop_same(&evaluate_plain(backend, &b, &a), &expected)
    });
}

/// One set with itself: the results along the rows, and the gradient of both sides together.
pub fn within_is_a_set_with_itself(backend: &Backend) {
    let check = |n: usize, width: usize, seed: u64, budget: usize| {
        let device = backend.device.clone().autodiff();
        let values = random(n, width, seed);
        let weights = random(1, n, seed + 1);
        let weights = || {
            let data = TensorData::new(weights.values.clone(), [n]).convert_dtype(DType::F32);
            Tensor::<1>::from_data(data, &device).require_grad()
        };
        let leaf = || on(&device, &values, DType::F32).require_grad();
        let run = |mut pairs: Pairs, u: &Tensor<1>| {
            pairs = pairs.with_memory_budget(budget);
            let (by_row, by_column) = (pairs.row(u.clone()), pairs.column(u.clone()));
            let logit = &(pairs.similarity() * 2.0) + &(by_row + by_column);
            let left_out = logit.except(&Expr::diagonal());
            pairs.reduce(&[
                rows().log_sum_exp(&left_out),
                rows().softmax_mean(&logit, &logit.softplus()),
                rows().sum(&logit.exp()),
            ])
        };
        let finite = |results: &[Tensor<1>]| loss(&results[1..]) + results[0].clone().sum();
        let (x, u) = (leaf(), weights());
        let within = run(Pairs::within(x.clone()), &u);
        let gradients = finite(&within).backward();
        let own = [
            numbers(x.grad(&gradients).unwrap()),
            numbers(u.grad(&gradients).unwrap()),
        ];
        let (a, b, u) = (leaf(), leaf(), weights());
        let between = run(Pairs::new(a.clone(), b.clone()), &u);
        let gradients = finite(&between).backward();
        let sides = [&a, &b].map(|t| numbers(t.grad(&gradients).unwrap()));
        let sum = sides[0].iter().zip(&sides[1]).map(|(x, y)| x + y).collect();
        let expected = [sum, numbers(u.grad(&gradients).unwrap())];
        let values = |results: Vec<Tensor<1>>| results.into_iter().map(numbers).collect::<Vec<_>>();
        prop_same(&values(within), &values(between))?;
        prop_same(&own, &expected)
    };
    for_shapes(|n, _, width, seed| check(n, width, seed, 1 << 20));
    check(150, 3, 230, 1).unwrap();
    check(70, 3, 231, 1 << 20).unwrap();
}

pub fn a_pair_that_is_left_out_changes_nothing(backend: &Backend) {
    for_shapes(|n, m, width, seed| {
        let device = backend.device.clone().autodiff();
        let (a, b) = (random(n, width, seed), random(m, width, seed + 1));
        let run = |columns_of: &Matrix, extra: bool| {
            let leaf = |m| on(&device, m, DType::F32).require_grad();
            let (a, b) = (leaf(&a), leaf(columns_of));
            let mut pairs = Pairs::new(a.clone(), b.clone());
            let count = columns_of.rows;
            let last: Vec<f32> = (0..count)
                .map(|j| f32::from(u8::from(extra && j + 1 == count)))
                .collect();
            let left_out = pairs.column(Tensor::from_data(TensorData::new(last, [count]), &device));
            let logit = pairs.similarity() * 3.0;
            let value = Expr::select(&left_out, &Expr::constant(0.0), &logit.exp());
            let logit = logit.except(&left_out);
            let results = pairs.reduce(&[
                rows().log_sum_exp(&logit),
                rows().sum(&value),
                rows().softmax_mean(&logit, &value),
            ]);
            let [by_a, mut by_b] = gradients_of(&a, &b, loss(&results));
            let by_last = by_b.split_off(m * width);
            assert!(by_last.iter().all(|&g| g == 0.0), "{by_last:?}");
            results
                .into_iter()
                .map(numbers)
                .chain([by_a, by_b])
                .collect::<Vec<_>>()
        };
        let longer = [&b.values[..], &random(1, width, seed + 2).values].concat();
        let longer = Matrix::new(m + 1, width, longer);
        prop_same(&run(&longer, true), &run(&b, false))
    });
}

pub fn the_scale_has_the_slope_of_the_results(backend: &Backend) {
    for_shapes(|n, m, width, seed| {
        let (a, b) = (random(n, width, seed), random(m, width, seed + 1));
        let device = backend.device.clone().autodiff();
        let scale = Tensor::<1>::from_data([1.5f32], &device).require_grad();
        let mut pairs = Pairs::new(on(&device, &a, DType::F32), on(&device, &b, DType::F32));
        let logit = pairs.similarity() * &pairs.scalar(scale.clone());
        let results = pairs.reduce(&[rows().log_sum_exp(&logit), columns().log_sum_exp(&logit)]);
        let total = results[0].clone().sum() + results[1].clone().sum();
        let found = numbers(scale.grad(&total.backward()).unwrap());
        let value = |s: &[f64]| {
            let logit = |i: usize, j: usize| s[0] * dot(a.row(i), b.row(j));
            let row = |i| log_sum_exp(&(0..m).map(|j| logit(i, j)).collect::<Vec<_>>());
            let column = |j| log_sum_exp(&(0..n).map(|i| logit(i, j)).collect::<Vec<_>>());
            (0..n).map(row).sum::<f64>() + (0..m).map(column).sum::<f64>()
        };
        prop_same(&[found], &[crate::oracle::gradient(value, &[1.5], 1e-4)])
    });
}

// --- misuse ---------------------------------------------------------------------------------------

pub fn misuse_panics_with_what_is_wrong(backend: &Backend) {
    let device = &backend.device;
    let matrix = |n, width| Tensor::<2>::ones([n, width], device);
    let vector = |n| Tensor::<1>::ones([n], device);
    let mask = |n, m| Tensor::<2>::ones([n, m], device).greater_elem(0.0);
    let pairs = || Pairs::new(matrix(4, 3), matrix(5, 3));
    assert_panics("a vector of rows has 5 numbers, there are 4 rows", || {
        pairs().row(vector(5));
    });
    assert_panics("a vector of rows has 1 numbers, there are 4 rows", || {
        pairs().row(vector(1));
    });
    assert_panics(
        "a vector of columns has 4 numbers, there are 5 columns",
        || {
            pairs().column(vector(4));
        },
    );
    assert_panics("a scalar has shape [2], it must be [1]", || {
        pairs().scalar(vector(2));
    });
    assert_panics(
        "a mask has shape [5, 4], there can be one of [4, 5]",
        || {
            pairs().mask(mask(5, 4));
        },
    );
    assert_panics("there can be one of [4, 5]", || {
        let mut pairs = pairs();
        pairs.mask(mask(4, 5));
        pairs.mask(mask(4, 5));
    });
    assert_panics("they need 4 and 5 rows, and one width", || {
        pairs().teacher(matrix(5, 2), matrix(4, 2));
    });
    assert_panics("they need 4 and 5 rows, and one width", || {
        pairs().teacher(matrix(4, 2), matrix(5, 3));
    });
    assert_panics("a vector of columns has 4 numbers, there are 5", || {
        let ids = Tensor::<1, Int>::zeros([4], device);
        pairs().same_label(ids.clone(), ids);
    });
    assert_panics("pairs within one set are reduced along rows", || {
        let pairs = Pairs::within(matrix(4, 3));
        let c = pairs.similarity();
        pairs.reduce(&[rows().sum(&c), columns().sum(&c)]);
    });
    assert_panics("`a` has width 3, `b` has width 2", || {
        Pairs::new(matrix(4, 3), matrix(4, 2));
    });
    assert_panics("`b` is empty, shape [0, 3]", || {
        Pairs::new(matrix(4, 3), matrix(4, 3).slice([0..0, 0..3]));
    });
    assert_panics("is on an autodiff device, the other is not", || {
        Pairs::new(
            matrix(4, 3),
            Tensor::ones([4, 3], &device.clone().autodiff()),
        );
    });
    assert_panics("there is nothing to add", || {
        log_add_exp(&[]);
    });
}
