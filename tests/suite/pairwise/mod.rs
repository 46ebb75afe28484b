//! The pairwise engine: every family against the oracle, invariants, and degenerate input.

mod degenerate;
#[cfg(feature = "_cube")]
mod device;
mod families;
mod gradients;
mod invariants;
mod labels;
mod values;

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use burn_contrastive::pairwise::{
    Evaluation, Expr, Pairs, Positives, Reduction, columns, hardest, log_add_exp, rows,
};

use families::{KINKED, SMOOTH, both, cases, edge_case, families, log_sum_exps, on_diagonal};

use super::*;
use crate::oracle::pairwise::{self as oracle, Family, Inputs};
use crate::oracle::{Matrix, dot, log_sum_exp};

/// The settings of an evaluation.
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
            device: backend.autodiff(),
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

/// Pairs, and the expressions of the vectors and scalars bound to them.
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

/// A use of the engine, and the same by naive loops.
struct Case {
    name: &'static str,
    actual: fn(Bound) -> Vec<Tensor<1>>,
    expected: Family,
    /// Step of the finite differences.
    step: f64,
}

/// Inputs of any case between two sets.
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

/// Inputs of the cases within one set.
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
    let pairs = if inputs.within {
        Pairs::within(a.clone())
    } else {
        Pairs::new(a.clone(), b.clone())
    };
    let mut pairs = pairs
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
        Some(g) => elements(g),
        None => vec![0.0; v.dims()[0]],
    };
    let by_matrix = |t: &Tensor<2>| match t.grad(&gradients) {
        Some(g) => elements(g),
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
        values: results.into_iter().map(elements).collect(),
        gradients: found,
    }
}

/// Values and derivatives by the oracle: which elements of each leaf, and their derivatives.
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
                "{name}: {what}, element {k}: {a:e}, expected {e:e} (largest {scale:e}, \
                 tolerance {tolerance:e})"
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
    [a, b].map(|t| gradient(t, &gradients))
}
