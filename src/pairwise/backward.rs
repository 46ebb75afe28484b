//! From the gradients of the results to those of the inputs: one more pass.
//!
//! Let `r` be the results of a form's reductions, one vector each, and `u = ∂L/∂r` the gradient
//! that arrives. What the loss owes to the pair (i, j) is a sum of *contributions*: a factor times
//! the change of an expression of that pair. With `r` and `u` of the pair's row or column,
//!
//! ```text
//! Sum          r = Σ x                                u·dx
//! LogSumExp    r = log Σ e^x                          u·e^(x − r)·dx
//! SoftmaxMean  r₁ = log Σ e^x, r₂ = Σ e^(x − r₁)·y     e^(x − r₁)·((u₁ + u₂·(y − r₂))·dx + u₂·dy)
//! Max                                                 none: `hardest` computes its pairs again
//! ```
//!
//! So the backward pass reads `r` and `u` like any other bound vector: [`append_results`] puts them
//! behind those of the rows or of the columns, each result followed by its gradient, in the order
//! of the results, and [`Appended`] hands out their leaves in the same order. A log-sum-exp of −∞,
//! over nothing, is appended as +∞: `e^(−∞ − ∞)` is 0 where `e^(−∞ + ∞)` would be NaN.
//!
//! The derivative of the contributions by the similarity is the coefficient `G_ij` of the pass.
//! Those by the bound vectors of rows, of columns and by the scalars are its sums, in this order,
//! which [`gradients`] takes apart again. In a symmetric pass (j, i) stands for (i, j) as well:
//! derivatives by a row's vector and by the column's are added, `G` and its transpose too.

use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{DType, Shape};

use super::expr::{Expr, Leaf};
use super::form::{Form, Wanted};
use super::ops::{Inputs, Outputs, PairwiseOps, Unfinished, cast};
use super::pass::Pass;
use super::reduction::{Axis, Kind, Reduction, columns, rows};

/// A factor, and the expression whose derivative it multiplies.
type Contribution = (Expr, Expr);

/// The leaves of the vectors that [`append_results`] appends.
struct Appended {
    rows: usize,
    columns: usize,
}

impl Appended {
    fn next(&mut self, axis: Axis) -> Expr {
        let (next, leaf): (_, fn(usize) -> Leaf) = match axis {
            Axis::Rows => (&mut self.rows, Leaf::Row),
            Axis::Columns => (&mut self.columns, Leaf::Column),
        };
        *next += 1;
        Expr::leaf(leaf(*next - 1))
    }

    /// A result and its gradient.
    fn result(&mut self, axis: Axis) -> [Expr; 2] {
        [self.next(axis), self.next(axis)]
    }
}

/// Puts each result and its gradient behind the vectors of rows or of columns.
pub(super) fn append_results<B: Backend>(
    inputs: &mut Inputs<B>,
    results: FloatTensor<B>,
    upstream: FloatTensor<B>,
    form: &Form,
) {
    let sizes = inputs.sizes();
    let bound = |count: usize, vectors: &FloatTensor<B>| match count {
        0 => Vec::new(),
        _ => vec![vectors.clone()],
    };
    let mut rows = bound(form.rows, &inputs.rows);
    let mut columns = bound(form.columns, &inputs.columns);
    let mut at = 0;
    for (axis, is_log_sum_exp) in form.results() {
        let len = axis.len(sizes);
        let vectors = match axis {
            Axis::Rows => &mut rows,
            Axis::Columns => &mut columns,
        };
        let mut result = slice::<B>(results.clone(), at, len);
        if is_log_sum_exp {
            let bool_dtype = get_or_init_device_settings::<B>(&result.device()).bool_dtype;
            let nothing = B::float_equal_elem(result.clone(), f64::NEG_INFINITY.into(), bool_dtype);
            result = B::float_mask_fill(result, nothing, f64::INFINITY.into());
        }
        for vector in [result, slice::<B>(upstream.clone(), at, len)] {
            vectors.push(B::float_reshape(vector, Shape::new([1, len])));
        }
        at += len;
    }
    if !rows.is_empty() {
        inputs.rows = B::float_cat(rows, 0);
    }
    if form.symmetric {
        inputs.columns = inputs.rows.clone();
    } else if !columns.is_empty() {
        inputs.columns = B::float_cat(columns, 0);
    }
}

impl Form {
    /// The pass from the results and their gradients to the gradients of the inputs.
    pub fn backward(&self, wanted: Wanted) -> Pass {
        let pass = self.with_coefficient(wanted, self.contributions(), Vec::new());
        self.keeping(wanted.coefficients(), pass)
    }

    /// Value and gradient in one pass: for sums whose upstream gradient is one value that scales
    /// everything, and can therefore wait.
    pub fn with_gradient(&self, wanted: Wanted) -> Pass {
        let contribution = |r: &Reduction| match r.kind {
            Kind::Sum => (Expr::constant(1.0), r.exprs[0].clone()),
            other => panic!("{other:?} needs its result before its gradient"),
        };
        let contributions = self.reductions.iter().map(contribution).collect();
        let pass = self.with_coefficient(wanted, contributions, self.reductions.clone());
        self.keeping(false, pass)
    }

    fn contributions(&self) -> Vec<Contribution> {
        let mut appended = Appended {
            rows: self.rows,
            columns: self.columns,
        };
        let mut contributions = Vec::new();
        for Reduction { axis, kind, exprs } in &self.reductions {
            let [r, u] = appended.result(*axis);
            let x = &exprs[0];
            match kind {
                Kind::Sum => contributions.push((u, x.clone())),
                Kind::LogSumExp => contributions.push((u * (x - &r).exp(), x.clone())),
                Kind::SoftmaxMean => {
                    let ([mean, u2], y) = (appended.result(*axis), &exprs[1]);
                    let p = (x - &r).exp();
                    let by_x = &p * &(&u + &(&u2 * &(y - &mean)));
                    contributions.push((by_x, x.clone()));
                    contributions.push((p * u2, y.clone()));
                }
                Kind::Max => {
                    appended.result(*axis);
                }
            }
        }
        contributions
    }

    fn with_coefficient(
        &self,
        wanted: Wanted,
        contributions: Vec<Contribution>,
        mut reductions: Vec<Reduction>,
    ) -> Pass {
        let contributions = merged(contributions);
        let slope = |by: Leaf| {
            contributions
                .iter()
                .filter_map(|(factor, x)| Some(factor.clone() * x.derivative(by)?))
                .reduce(|x, y| x + y)
                .unwrap_or_else(|| Expr::constant(0.0))
        };
        if wanted.rows {
            reductions.extend((0..self.rows).map(|k| {
                let mut by_row = slope(Leaf::Row(k));
                if self.symmetric {
                    by_row = by_row + slope(Leaf::Column(k)).transposed();
                }
                rows().sum(&by_row)
            }));
        }
        if wanted.columns {
            reductions.extend((0..self.columns).map(|k| columns().sum(&slope(Leaf::Column(k)))));
        }
        if wanted.scalars {
            reductions.extend((0..self.scalars).map(|k| rows().sum(&slope(Leaf::Scalar(k)))));
        }
        if reductions.is_empty() {
            // Not every backend has empty tensors.
            reductions.push(rows().sum(&Expr::constant(0.0)));
        }
        let coefficient = wanted.coefficients().then(|| {
            let g = slope(Leaf::Similarity);
            if self.symmetric {
                &g + &g.transposed()
            } else {
                g
            }
        });
        Pass {
            left: wanted.left,
            right: wanted.right && !self.symmetric,
            // Of a pass with its value only that of a sum over all pairs is asked.
            only_totals: !(wanted.rows || wanted.columns || self.symmetric),
            ..self.pass(reductions, coefficient)
        }
    }
}

/// Contributions of the same expression share its derivative.
fn merged(contributions: Vec<Contribution>) -> Vec<Contribution> {
    let mut merged: Vec<Contribution> = Vec::new();
    for (factor, x) in contributions {
        match merged.iter_mut().find(|(_, other)| *other == x) {
            Some((sum, _)) => *sum = &*sum + factor,
            None => merged.push((factor, x)),
        }
    }
    merged
}

/// The gradients by `a`, `b`, the vectors of rows, of columns, and the scalars, from a pass with
/// coefficients whose sums for them begin at `at` among the results. [`Finish`] completes those by
/// `a` and `b`.
pub(super) fn gradients<B: Backend>(
    outputs: Outputs<B>,
    mut at: usize,
    [n, m]: [usize; 2],
    form: &Form,
    wanted: Wanted,
) -> [Option<FloatTensor<B>>; 5] {
    let mut take = |count: usize, len: usize| {
        at += count * len;
        let sums = slice::<B>(outputs.results.clone(), at - count * len, count * len);
        B::float_reshape(sums, Shape::new([count, len]))
    };
    let rows = wanted.rows.then(|| take(form.rows, n));
    let columns = wanted.columns.then(|| take(form.columns, m));
    let scalars = wanted.scalars.then(|| {
        let sums = B::float_sum_dim(take(form.scalars, n), 1);
        B::float_reshape(sums, Shape::new([form.scalars]))
    });
    [
        wanted.left.then_some(outputs.left),
        wanted.right.then_some(outputs.right),
        rows,
        columns,
        scalars,
    ]
}

/// What turns the gradients of a pass into those by embeddings.
#[derive(Clone, Debug)]
pub(super) struct Finish<B: Backend> {
    /// The embeddings and the vectors of their side, where the similarities are divided by norms.
    norms: Option<[FloatTensor<B>; 2]>,
    /// Whether the embeddings were multiplied by the third vector of their side.
    has_scale: bool,
    dtype: DType,
}

impl<B: PairwiseOps> Finish<B> {
    /// For the left and for the right side.
    pub fn sides(inputs: &Inputs<B>, form: &Form) -> [Self; 2] {
        let side = |x: &FloatTensor<B>, vectors: &FloatTensor<B>, has_scale| Self {
            has_scale,
            norms: form.has_norms.then(|| [x.clone(), vectors.clone()]),
            dtype: x.dtype(),
        };
        [
            side(&inputs.a, &inputs.rows, form.has_scale),
            side(&inputs.b, &inputs.columns, false),
        ]
    }

    /// The gradient `[n, d]` times `factor`, `[1, 1]`, in the dtype of the embeddings.
    pub fn run(self, gradient: FloatTensor<B>, factor: Option<FloatTensor<B>>) -> FloatTensor<B> {
        if self.norms.is_none() && self.dtype == gradient.dtype() {
            // An operation of its own would part what Burn may fuse.
            return match factor {
                Some(factor) => B::float_mul(gradient, factor),
                None => gradient,
            };
        }
        let (has_norms, has_factor) = (self.norms.is_some(), factor.is_some());
        let any = || [gradient.clone(), gradient.clone()];
        let [x, vectors] = self.norms.unwrap_or_else(any);
        B::finished(Unfinished {
            factor: factor.unwrap_or_else(|| gradient.clone()),
            gradient,
            x,
            vectors,
            has_norms,
            has_scale: self.has_scale,
            has_factor,
            dtype: self.dtype,
        })
    }
}

impl<B: Backend> Unfinished<B> {
    /// The gradient times the factor, in the dtype of the embeddings.
    ///
    /// With norms, which the pass held constant, without its part along the direction `u` of each
    /// embedding, `g − (g·u)·u`; some rows at a time, since each step is another copy.
    pub(crate) fn in_plain_operations(self) -> FloatTensor<B> {
        assert!(
            !self.has_scale,
            "only kernels multiply rows by their scales"
        );
        let [rows, width] = self.gradient.shape().dims();
        let dtype = self.dtype;
        let step = (CHUNK / width).max(1);
        let parts = (0..rows).step_by(step).map(|start| {
            let range = start..rows.min(start + step);
            let mut part = slice_of::<B>(&self.gradient, range.clone(), 0..width);
            if self.has_factor {
                part = B::float_mul(part, self.factor.clone());
            }
            if self.has_norms {
                let x = slice_of::<B>(&self.x, range.clone(), 0..width);
                part = across::<B>(part, x, slice_of::<B>(&self.vectors, 1..2, range));
            }
            cast::<B>(part, dtype)
        });
        let mut parts: Vec<_> = parts.collect();
        match parts.len() {
            1 => parts.remove(0),
            _ => B::float_cat(parts, 0),
        }
    }
}

/// Elements of a gradient that are finished at a time: 16 MiB of f32.
const CHUNK: usize = 1 << 22;

fn across<B: Backend>(
    gradient: FloatTensor<B>,
    x: FloatTensor<B>,
    reciprocal: FloatTensor<B>,
) -> FloatTensor<B> {
    let upright = Shape::new([x.shape()[0], 1]);
    let x = cast::<B>(x, gradient.dtype());
    let direction = B::float_mul(x, B::float_reshape(reciprocal, upright));
    let along = B::float_sum_dim(B::float_mul(gradient.clone(), direction.clone()), 1);
    B::float_sub(gradient, B::float_mul(direction, along))
}

fn slice_of<B: Backend>(
    x: &FloatTensor<B>,
    rows: Range<usize>,
    columns: Range<usize>,
) -> FloatTensor<B> {
    B::float_slice(x.clone(), &[rows.into(), columns.into()])
}

pub(super) fn slice<B: Backend>(
    tensor: FloatTensor<B>,
    start: usize,
    len: usize,
) -> FloatTensor<B> {
    B::float_slice(tensor, &[(start..start + len).into()])
}
