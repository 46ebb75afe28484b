//! Passes in plain backend operations over blocks: right on every backend.
//!
//! Backends without kernels of their own call [`pass`]. Its forward half is also the dense reference:
//! one block that covers the whole matrix, recorded by Burn's autodiff.

use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{BoolDType, FloatDType, Shape, TensorData};

use super::expr::{Binary, Expr, Leaf, Op, Tape, Unary};
use super::form::{Axis, Kind, Pass, Reduction, Steps};
use super::ops::{Inputs, Outputs};
use crate::tensor::log1p_primitive;

/// Smaller than any logit, and finite, so that differences from it are never NaN.
const LOWEST: f64 = -1e30;

/// Runs a pass. Keeps no similarities.
pub(super) fn pass<B: Backend>(inputs: Inputs<B>, pass: &Pass) -> Outputs<B> {
    // The temporaries of a block share the memory.
    let numbers = pass.memory / inputs.a.dtype().size() / 8;
    let side = ((numbers as f64).sqrt() as usize / 64).max(1) * 64;
    run(inputs, pass, side)
}

/// The results over one block that covers everything: O(N·M) memory.
pub(super) fn results_at_once<B: Backend>(inputs: Inputs<B>, pass: &Pass) -> FloatTensor<B> {
    let [n, m] = inputs.sizes();
    run(inputs, pass, n.max(m)).results
}

fn run<B: Backend>(inputs: Inputs<B>, pass: &Pass, side: usize) -> Outputs<B> {
    let [n, m] = inputs.sizes();
    let anywhere = pass.anywhere();
    let starts = |len: usize| (0..len).step_by(side).map(move |i| (i, side.min(len - i)));
    let mut by_column: Vec<_> = starts(m).map(|_| States::new(Axis::Columns)).collect();
    let mut by_row = Vec::new();
    let mut left: Vec<Option<FloatTensor<B>>> = starts(n).map(|_| None).collect();
    let mut right: Vec<Option<FloatTensor<B>>> = starts(m).map(|_| None).collect();
    for (bi, (i0, rows)) in starts(n).enumerate() {
        let mut states = States::new(Axis::Rows);
        let a = slice_rows::<B>(&inputs.a, i0, rows);
        for (bj, (j0, columns)) in starts(m).enumerate() {
            if pass.symmetric && j0 < i0 {
                continue;
            }
            let b = slice_rows::<B>(&inputs.b, j0, columns);
            let diagonal = i0 < j0 + columns && j0 < i0 + rows;
            let steps = if diagonal {
                &anywhere
            } else {
                &pass.off_diagonal
            };
            let place = Place {
                i0,
                rows,
                j0,
                columns,
                symmetric: pass.symmetric,
            };
            let block = Block::new(&inputs, &steps.tape, place, &a, &b);
            states.take(pass, steps, &block);
            if !(pass.symmetric && i0 == j0) {
                by_column[bj].take(pass, steps, &block);
            }
            let Some(g) = steps.coefficient.map(|step| block.full(step)) else {
                continue;
            };
            if pass.left {
                add::<B>(&mut left[bi], B::float_matmul(g.clone(), b));
            }
            if pass.right || pass.symmetric && i0 != j0 {
                let sum = if pass.symmetric {
                    &mut left[bj]
                } else {
                    &mut right[bj]
                };
                add::<B>(sum, B::float_matmul(B::float_transpose(g), a.clone()));
            }
        }
        by_row.push(states);
    }
    if pass.symmetric {
        for (rows, columns) in by_row.iter_mut().zip(by_column.drain(..)) {
            rows.take_transposed(pass, columns);
        }
    }
    let mut results = Vec::new();
    for (k, reduction) in pass.reductions.iter().enumerate() {
        let blocks = match reduction.axis {
            Axis::Rows => &by_row,
            Axis::Columns => &by_column,
        };
        for result in 0..reduction.kind.results() {
            results.extend(
                blocks
                    .iter()
                    .map(|states| states.result(reduction, k, result)),
            );
        }
    }
    let results = cat::<B>(results);
    let gradient = |wanted: bool, blocks: Vec<Option<FloatTensor<B>>>| match wanted {
        true => cat::<B>(blocks.into_iter().flatten().collect()),
        false => results.clone(),
    };
    Outputs {
        left: gradient(pass.left, left),
        right: gradient(pass.right, right),
        kept: results.clone(),
        results,
    }
}

fn cat<B: Backend>(mut tensors: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    match tensors.len() {
        1 => tensors.remove(0),
        _ => B::float_cat(tensors, 0),
    }
}

fn add<B: Backend>(sum: &mut Option<FloatTensor<B>>, more: FloatTensor<B>) {
    *sum = Some(match sum.take() {
        Some(sum) => B::float_add(sum, more),
        None => more,
    });
}

fn slice_rows<B: Backend>(tensor: &FloatTensor<B>, start: usize, len: usize) -> FloatTensor<B> {
    let width = tensor.shape()[1];
    match len == tensor.shape()[0] {
        true => tensor.clone(),
        false => B::float_slice(
            tensor.clone(),
            &[(start..start + len).into(), (0..width).into()],
        ),
    }
}

fn bool_dtype<B: Backend>(tensor: &FloatTensor<B>) -> BoolDType {
    get_or_init_device_settings::<B>(&tensor.device()).bool_dtype
}

fn float_dtype<B: Backend>(tensor: &FloatTensor<B>) -> FloatDType {
    tensor.dtype().into()
}

fn is_nan<B: Backend>(x: &FloatTensor<B>) -> BoolTensor<B> {
    B::float_is_nan(x.clone(), bool_dtype::<B>(x))
}

/// What a step computed: a number for all pairs, or a tensor that the block's shape broadcasts.
#[derive(Clone)]
enum Value<B: Backend> {
    Number(f64),
    Tensor(FloatTensor<B>),
}

/// The values of an expression for the pairs of some rows with some columns.
pub(super) fn values<B: Backend>(inputs: &Inputs<B>, x: &Expr, place: Place) -> FloatTensor<B> {
    let mut tape = Tape::default();
    let step = tape.push(x);
    let a = slice_rows::<B>(&inputs.a, place.i0, place.rows);
    let b = slice_rows::<B>(&inputs.b, place.j0, place.columns);
    Block::new(inputs, &tape, place, &a, &b).full(step)
}

/// Where a block lies in the matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The first row, and how many.
    pub i0: usize,
    pub rows: usize,
    /// The first column, and how many.
    pub j0: usize,
    pub columns: usize,
    /// Whether columns share the vectors of the rows.
    pub symmetric: bool,
}

/// One block: the expressions' values for its pairs.
struct Block<B: Backend> {
    values: Vec<Value<B>>,
    place: Place,
    shape: Shape,
    /// Any tensor of the device and dtype.
    like: FloatTensor<B>,
}

impl<B: Backend> Block<B> {
    fn new(
        inputs: &Inputs<B>,
        tape: &Tape,
        place: Place,
        a: &FloatTensor<B>,
        b: &FloatTensor<B>,
    ) -> Self {
        let Place {
            i0,
            rows,
            j0,
            columns,
            symmetric,
        } = place;
        let products =
            |a: FloatTensor<B>, b: FloatTensor<B>| B::float_matmul(a, B::float_transpose(b));
        let vector = |vectors: &FloatTensor<B>, k: usize, start: usize, len: usize| {
            B::float_slice(
                vectors.clone(),
                &[(k..k + 1).into(), (start..start + len).into()],
            )
        };
        let mut values: Vec<Value<B>> = Vec::with_capacity(tape.ops.len());
        for op in &tape.ops {
            let value = match *op {
                Op::Constant(x) => Value::Number(x),
                Op::Leaf(leaf) => Value::Tensor(match leaf {
                    Leaf::Similarity => products(a.clone(), b.clone()),
                    Leaf::Teacher => products(
                        slice_rows::<B>(&inputs.teacher_a, i0, rows),
                        slice_rows::<B>(&inputs.teacher_b, j0, columns),
                    ),
                    Leaf::Row(k) => {
                        B::float_reshape(vector(&inputs.rows, k, i0, rows), Shape::new([rows, 1]))
                    }
                    Leaf::Column(k) => {
                        let vectors = if symmetric {
                            &inputs.rows
                        } else {
                            &inputs.columns
                        };
                        vector(vectors, k, j0, columns)
                    }
                    Leaf::Scalar(k) => B::float_reshape(
                        B::float_slice(inputs.scalars.clone(), &[(k..k + 1).into()]),
                        Shape::new([1, 1]),
                    ),
                    Leaf::Mask => B::bool_into_float(
                        B::bool_slice(
                            inputs.mask.clone(),
                            &[(i0..i0 + rows).into(), (j0..j0 + columns).into()],
                        ),
                        float_dtype::<B>(a),
                    ),
                    Leaf::Diagonal => {
                        let (i, j) = (numbers::<B>(a, i0, rows), numbers::<B>(a, j0, columns));
                        let i = B::float_reshape(i, Shape::new([rows, 1]));
                        equal::<B>(i, B::float_reshape(j, Shape::new([1, columns])))
                    }
                }),
                Op::Unary(op, x) => match &values[x] {
                    Value::Number(x) => Value::Number(op.at(*x)),
                    Value::Tensor(x) => Value::Tensor(unary::<B>(op, x.clone())),
                },
                Op::Detach(x) => match &values[x] {
                    Value::Number(x) => Value::Number(*x),
                    Value::Tensor(x) => Value::Tensor(B::float_detach(x.clone())),
                },
                Op::Binary(op, x, y) => {
                    Value::Tensor(binary::<B>(op, values[x].clone(), values[y].clone(), a))
                }
                Op::Select(c, x, y) => {
                    let shape = Shape::new([rows, columns]);
                    let full = |step: usize| full::<B>(&values[step], &shape, a);
                    let otherwise = B::float_equal_elem(full(c), 0.into(), bool_dtype::<B>(a));
                    Value::Tensor(match values[y] {
                        Value::Number(y) => B::float_mask_fill(full(x), otherwise, y.into()),
                        Value::Tensor(_) => B::float_mask_where(full(x), otherwise, full(y)),
                    })
                }
            };
            values.push(value);
        }
        Self {
            values,
            place,
            shape: Shape::new([rows, columns]),
            like: a.clone(),
        }
    }

    fn full(&self, step: usize) -> FloatTensor<B> {
        full::<B>(&self.values[step], &self.shape, &self.like)
    }
}

fn full<B: Backend>(value: &Value<B>, shape: &Shape, like: &FloatTensor<B>) -> FloatTensor<B> {
    match value {
        Value::Number(x) => B::float_full(
            shape.clone(),
            (*x).into(),
            &like.device(),
            float_dtype::<B>(like),
        ),
        Value::Tensor(x) if x.shape() == *shape => x.clone(),
        Value::Tensor(x) => B::float_expand(x.clone(), shape.clone()),
    }
}

/// `start, start + 1, …`
fn numbers<B: Backend>(like: &FloatTensor<B>, start: usize, len: usize) -> FloatTensor<B> {
    let numbers: Vec<f64> = (start..start + len).map(|i| i as f64).collect();
    let data = TensorData::new(numbers, [len]).convert_dtype(like.dtype());
    B::float_from_data(data, &like.device())
}

fn to_float<B: Backend>(x: BoolTensor<B>, like: &FloatTensor<B>) -> FloatTensor<B> {
    B::bool_into_float(x, float_dtype::<B>(like))
}

fn equal<B: Backend>(x: FloatTensor<B>, y: FloatTensor<B>) -> FloatTensor<B> {
    let like = x.clone();
    to_float::<B>(B::float_equal(x, y, bool_dtype::<B>(&like)), &like)
}

fn unary<B: Backend>(op: Unary, x: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = bool_dtype::<B>(&x);
    let relu = |x: FloatTensor<B>| {
        let negative = B::float_lower_equal_elem(x.clone(), 0.into(), dtype);
        B::float_mask_fill(x, negative, 0.into())
    };
    match op {
        Unary::Neg => B::float_neg(x),
        Unary::Exp => B::float_exp(x),
        Unary::Log => B::float_log(x),
        Unary::Sqrt => B::float_sqrt(x),
        Unary::Relu => relu(x),
        Unary::Step => {
            let positive = B::float_greater_elem(x.clone(), 0.into(), dtype);
            let step = to_float::<B>(positive, &x);
            B::float_mask_fill(step, is_nan::<B>(&x), f64::NAN.into())
        }
        Unary::Softplus => {
            let e = B::float_exp(B::float_neg(B::float_abs(x.clone())));
            B::float_add(relu(x), log1p_primitive::<B>(e))
        }
        Unary::Sigmoid => {
            let e = B::float_exp(B::float_neg(x));
            B::float_recip(B::float_add_scalar(e, 1.into()))
        }
    }
}

fn binary<B: Backend>(
    op: Binary,
    x: Value<B>,
    y: Value<B>,
    like: &FloatTensor<B>,
) -> FloatTensor<B> {
    use Value::{Number, Tensor};
    let one = || Shape::new([1, 1]);
    match (op, x, y) {
        (Binary::Add, Tensor(x), Number(y)) | (Binary::Add, Number(y), Tensor(x)) => {
            B::float_add_scalar(x, y.into())
        }
        (Binary::Mul, Tensor(x), Number(y)) | (Binary::Mul, Number(y), Tensor(x)) => {
            B::float_mul_scalar(x, y.into())
        }
        (Binary::Sub, Tensor(x), Number(y)) => B::float_sub_scalar(x, y.into()),
        (Binary::Div, Tensor(x), Number(y)) => B::float_div_scalar(x, y.into()),
        (op, x, y) => {
            let (x, y) = match (x, y) {
                (Tensor(x), Tensor(y)) => (x, y),
                (x, y) => {
                    let tensor = |value: Value<B>| match value {
                        Tensor(x) => x,
                        number => full::<B>(&number, &one(), like),
                    };
                    (tensor(x), tensor(y))
                }
            };
            match op {
                Binary::Add => B::float_add(x, y),
                Binary::Sub => B::float_sub(x, y),
                Binary::Mul => B::float_mul(x, y),
                Binary::Div => B::float_div(x, y),
                Binary::Equal => equal::<B>(x, y),
            }
        }
    }
}

/// The running reductions of a block of rows, or of columns.
struct States<B: Backend> {
    axis: Axis,
    /// For each reduction its components, `None` until a block counts. A sum; a maximum, the sum
    /// relative to it, and the weighted sum relative to it; a maximum and its index.
    states: Vec<Option<Vec<FloatTensor<B>>>>,
    /// Any tensor, and the shape that a component has.
    like: Option<(FloatTensor<B>, Shape)>,
}

impl<B: Backend> States<B> {
    fn new(axis: Axis) -> Self {
        Self {
            axis,
            states: Vec::new(),
            like: None,
        }
    }

    fn take(&mut self, pass: &Pass, steps: &Steps, block: &Block<B>) {
        let dim = match self.axis {
            Axis::Rows => 1,
            Axis::Columns => 0,
        };
        self.states.resize_with(pass.reductions.len(), || None);
        let mut shape = block.shape.clone();
        shape[dim] = 1;
        self.like.get_or_insert_with(|| (block.like.clone(), shape));
        for (k, reduction) in pass.reductions.iter().enumerate() {
            let (true, Some([x, y])) = (reduction.axis == self.axis, steps.reductions[k]) else {
                continue;
            };
            let (x, y) = (block.full(x), block.full(y));
            let new = match &reduction.kind {
                Kind::Sum(_) => vec![B::float_sum_dim(x, dim)],
                Kind::LogSumExp(_) | Kind::SoftmaxMean { .. } => {
                    let max = B::float_detach(B::float_max_dim(x.clone(), dim));
                    let max = B::float_clamp_min(max, LOWEST.into());
                    let e = B::float_exp(B::float_sub(x, max.clone()));
                    let mut new = vec![max, B::float_sum_dim(e.clone(), dim)];
                    if let Kind::SoftmaxMean { .. } = reduction.kind {
                        new.push(B::float_sum_dim(B::float_mul(e, y), dim));
                    }
                    new
                }
                Kind::Max(_) => {
                    let first = if dim == 1 {
                        block.place.j0
                    } else {
                        block.place.i0
                    };
                    largest::<B>(x, dim, first)
                }
            };
            self.merge(&reduction.kind, k, new);
        }
    }

    fn merge(&mut self, kind: &Kind, k: usize, new: Vec<FloatTensor<B>>) {
        let Some(old) = self.states[k].take() else {
            self.states[k] = Some(new);
            return;
        };
        let dtype = bool_dtype::<B>(&new[0]);
        let merged = match kind {
            Kind::Sum(_) => vec![B::float_add(old[0].clone(), new[0].clone())],
            Kind::LogSumExp(_) | Kind::SoftmaxMean { .. } => {
                let larger = B::float_greater(new[0].clone(), old[0].clone(), dtype);
                let max = B::float_mask_where(old[0].clone(), larger, new[0].clone());
                let factor =
                    |own: &FloatTensor<B>| B::float_exp(B::float_sub(own.clone(), max.clone()));
                let (by_old, by_new) = (factor(&old[0]), factor(&new[0]));
                let sums = old.iter().zip(&new).skip(1).map(|(old, new)| {
                    B::float_add(
                        B::float_mul(old.clone(), by_old.clone()),
                        B::float_mul(new.clone(), by_new.clone()),
                    )
                });
                let sums: Vec<_> = sums.collect();
                [vec![max], sums].concat()
            }
            Kind::Max(_) => {
                // Blocks come in order, so that of equal maxima the earlier is the lower.
                let larger = B::float_greater(new[0].clone(), old[0].clone(), dtype);
                let first_nan =
                    B::bool_and(is_nan::<B>(&new[0]), B::bool_not(is_nan::<B>(&old[0])));
                let better = B::bool_or(larger, first_nan);
                old.iter()
                    .zip(&new)
                    .map(|(old, new)| B::float_mask_where(old.clone(), better.clone(), new.clone()))
                    .collect()
            }
        };
        self.states[k] = Some(merged);
    }

    /// Takes in the columns' states of a symmetric matrix, as rows.
    fn take_transposed(&mut self, pass: &Pass, other: Self) {
        for (couple, state) in other.states.into_iter().enumerate() {
            let Some(state) = state else { continue };
            let state = state.into_iter().map(B::float_transpose).collect();
            self.merge(&pass.reductions[couple].kind, couple - 1, state);
        }
    }

    /// One of the vectors that reduction `k` results in.
    fn result(&self, reduction: &Reduction, k: usize, result: usize) -> FloatTensor<B> {
        let (like, shape) = self
            .like
            .as_ref()
            .expect("every row and column meets a block");
        let dtype = bool_dtype::<B>(like);
        let constant = |x: f64| full::<B>(&Value::Number(x), shape, like);
        let value = match (&reduction.kind, self.states.get(k).and_then(Option::as_ref)) {
            (Kind::Sum(_), None) => constant(0.0),
            (Kind::LogSumExp(_) | Kind::SoftmaxMean { .. }, None) => {
                constant(if result == 0 { f64::NEG_INFINITY } else { 0.0 })
            }
            (Kind::Max(_), None) => unreachable!("every block counts"),
            (Kind::Sum(_) | Kind::Max(_), Some(state)) => state[result].clone(),
            (Kind::LogSumExp(_) | Kind::SoftmaxMean { .. }, Some(state)) => {
                // Over nothing the sum is 0; the logarithm of 1 keeps the gradient finite.
                let nothing = B::float_equal_elem(state[1].clone(), 0.into(), dtype);
                let sum = B::float_mask_fill(state[1].clone(), nothing.clone(), 1.into());
                match result {
                    0 => {
                        let value = B::float_add(B::float_log(sum), state[0].clone());
                        B::float_mask_fill(value, nothing, f64::NEG_INFINITY.into())
                    }
                    _ => B::float_div(state[2].clone(), sum),
                }
            }
        };
        B::float_reshape(value, Shape::new([shape.num_elements()]))
    }
}

/// The largest numbers along `dim` and their indices, counted from `first`: the lowest index of
/// equals, and NaN is larger than anything.
fn largest<B: Backend>(x: FloatTensor<B>, dim: usize, first: usize) -> Vec<FloatTensor<B>> {
    let dtype = bool_dtype::<B>(&x);
    let nan = is_nan::<B>(&x);
    let numbers_only = B::float_mask_fill(x.clone(), nan.clone(), f64::NEG_INFINITY.into());
    let max = B::float_max_dim(numbers_only, dim);
    let any_nan = B::float_max_dim(to_float::<B>(nan.clone(), &x), dim);
    let any_nan = B::float_greater_elem(any_nan, 0.into(), dtype);
    let max = B::float_mask_fill(max, any_nan, f64::NAN.into());
    let is_max = B::bool_or(
        nan,
        B::float_equal(x.clone(), B::float_expand(max.clone(), x.shape()), dtype),
    );
    let shape = x.shape();
    let mut line = Shape::new([1, 1]);
    line[dim] = shape[dim];
    // The largest of the negated indices is the lowest.
    let indices = B::float_reshape(numbers::<B>(&x, first, shape[dim]), line);
    let negated = B::float_expand(B::float_neg(indices), shape);
    let negated = B::float_mask_fill(negated, B::bool_not(is_max), f64::NEG_INFINITY.into());
    let index = B::float_neg(B::float_max_dim(negated, dim));
    vec![max, index]
}
