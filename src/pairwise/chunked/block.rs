//! The expressions' values for the pairs of one block.

use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{BoolDType, FloatDType, Shape, TensorData};

use super::{Product, slice_rows, tokens};
use crate::pairwise::blocks::{Block, Part};
use crate::pairwise::expr::{Binary, Leaf, Unary};
use crate::pairwise::ops::Inputs;
use crate::pairwise::pass::{Pass, Teacher};
use crate::pairwise::tape::{Op, Tape};
use crate::tensor::log1p_primitive;

/// What a step computed: one value for all pairs, or a tensor that broadcasts to the block's shape.
#[derive(Clone)]
enum Value<B: Backend> {
    Uniform(f64),
    Tensor(FloatTensor<B>),
}

/// What each step of a tape computed in a block.
pub(super) struct Values<B: Backend> {
    steps: Vec<Value<B>>,
    pub block: Block,
    pub shape: Shape,
    /// For each token of a row and each column, the index of its closest token in the column; once
    /// a step read the similarity of rows with several tokens.
    closest: Option<FloatTensor<B>>,
    product: Product<B>,
    /// Any tensor of the device and dtype.
    like: FloatTensor<B>,
}

impl<B: Backend> Values<B> {
    pub fn new(
        inputs: &Inputs<B>,
        pass: &Pass,
        tape: &Tape,
        block: &Block,
        product: Product<B>,
    ) -> Self {
        let mut values = Self {
            steps: Vec::with_capacity(tape.ops.len()),
            block: *block,
            shape: Shape::new([block.rows.len, block.columns.len]),
            closest: None,
            product,
            like: inputs.a.clone(),
        };
        for op in &tape.ops {
            let value = match *op {
                Op::Constant(x) => Value::Uniform(x),
                Op::Leaf(leaf) => Value::Tensor(values.leaf(inputs, pass, leaf)),
                Op::Unary(op, x) => match &values.steps[x] {
                    Value::Uniform(x) => Value::Uniform(op.at(*x)),
                    Value::Tensor(x) => Value::Tensor(unary::<B>(op, x.clone())),
                },
                Op::Detach(x) => match &values.steps[x] {
                    Value::Uniform(x) => Value::Uniform(*x),
                    Value::Tensor(x) => Value::Tensor(B::float_detach(x.clone())),
                },
                Op::Binary(op, x, y) => {
                    let [x, y] = [x, y].map(|step| values.steps[step].clone());
                    Value::Tensor(binary::<B>(op, x, y, &values.like))
                }
                Op::Select(c, x, y) => Value::Tensor(values.select(c, x, y)),
            };
            values.steps.push(value);
        }
        values
    }

    fn leaf(&mut self, inputs: &Inputs<B>, pass: &Pass, leaf: Leaf) -> FloatTensor<B> {
        let Block { rows, columns, .. } = self.block;
        let product = self.product;
        let products = |a: FloatTensor<B>, b: FloatTensor<B>| product(a, B::float_transpose(b));
        let vector = |vectors: &FloatTensor<B>, k: usize, part: Part| {
            let part = part.start..part.end();
            B::float_slice(vectors.clone(), &[(k..k + 1).into(), part.into()])
        };
        let upright = |x: FloatTensor<B>| B::float_reshape(x, Shape::new([rows.len, 1]));
        match leaf {
            Leaf::Similarity if pass.has_tokens() => self.pool(inputs, pass),
            Leaf::Similarity => products(
                slice_rows::<B>(&inputs.a, rows),
                slice_rows::<B>(&inputs.b, columns),
            ),
            Leaf::Teacher(k) => products(
                teacher_rows::<B>(&inputs.teacher_a, &pass.teachers[k], rows),
                teacher_rows::<B>(&inputs.teacher_b, &pass.teachers[k], columns),
            ),
            Leaf::Row(k) => upright(vector(&inputs.rows, k, rows)),
            Leaf::Column(k) => vector(&inputs.columns, k, columns),
            Leaf::Scalar(k) => B::float_reshape(
                B::float_slice(inputs.scalars.clone(), &[(k..k + 1).into()]),
                Shape::new([1, 1]),
            ),
            Leaf::Mask => {
                let (rows, columns) = (rows.start..rows.end(), columns.start..columns.end());
                let mask = B::bool_slice(inputs.mask.clone(), &[rows.into(), columns.into()]);
                to_float::<B>(mask, &self.like)
            }
            Leaf::Diagonal => {
                let rows_of_all = Part {
                    start: pass.first_row + rows.start,
                    ..rows
                };
                let [i, j] = [rows_of_all, columns].map(|part| indices::<B>(&self.like, part));
                equal::<B>(
                    upright(i),
                    B::float_reshape(j, Shape::new([1, columns.len])),
                )
            }
        }
    }

    /// The similarities of rows with several tokens.
    fn pool(&mut self, inputs: &Inputs<B>, pass: &Pass) -> FloatTensor<B> {
        let Block { rows, columns, .. } = self.block;
        let [p, t] = pass.tokens;
        let a = tokens::rows::<B>(&inputs.a, rows, p);
        let b = tokens::rows::<B>(&inputs.b, columns, t);
        let products = (self.product)(a, B::float_transpose(b));
        let (similarity, closest) = tokens::pool::<B>(products, pass.tokens);
        self.closest = Some(closest);
        similarity
    }

    /// The values of the coefficient, a step, for every pair; of tokens where rows consist of
    /// several.
    pub fn coefficients(&mut self, inputs: &Inputs<B>, pass: &Pass, step: usize) -> FloatTensor<B> {
        let coefficients = self.full(step);
        if !pass.has_tokens() {
            return coefficients;
        }
        if self.closest.is_none() {
            // No step read the similarity.
            self.pool(inputs, pass);
        }
        let closest = self.closest.take().expect("pooled above");
        tokens::unpool::<B>(coefficients, closest, pass.tokens)
    }

    fn select(&self, c: usize, x: usize, y: usize) -> FloatTensor<B> {
        let bool_dtype = bool_dtype::<B>(&self.like);
        let otherwise = B::float_equal_elem(self.full(c), 0.into(), bool_dtype);
        match self.steps[y] {
            Value::Uniform(y) => B::float_mask_fill(self.full(x), otherwise, y.into()),
            Value::Tensor(_) => B::float_mask_where(self.full(x), otherwise, self.full(y)),
        }
    }

    /// The values of a step for every pair.
    pub fn full(&self, step: usize) -> FloatTensor<B> {
        full::<B>(&self.steps[step], &self.shape, &self.like)
    }

    pub fn zeros(&self) -> FloatTensor<B> {
        constant::<B>(0.0, &self.shape, &self.like)
    }
}

/// Some rows of the embeddings of one teacher.
fn teacher_rows<B: Backend>(
    tensor: &FloatTensor<B>,
    teacher: &Teacher,
    rows: Part,
) -> FloatTensor<B> {
    if teacher.width == tensor.shape()[1] {
        return slice_rows::<B>(tensor, rows);
    }
    let columns = teacher.at..teacher.at + teacher.width;
    let rows = rows.start..rows.end();
    B::float_slice(tensor.clone(), &[rows.into(), columns.into()])
}

pub(super) fn bool_dtype<B: Backend>(tensor: &FloatTensor<B>) -> BoolDType {
    get_or_init_device_settings::<B>(&tensor.device()).bool_dtype
}

fn float_dtype<B: Backend>(tensor: &FloatTensor<B>) -> FloatDType {
    tensor.dtype().into()
}

pub(super) fn is_nan<B: Backend>(x: &FloatTensor<B>) -> BoolTensor<B> {
    B::float_is_nan(x.clone(), bool_dtype::<B>(x))
}

pub(super) fn constant<B: Backend>(x: f64, shape: &Shape, like: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_full(
        shape.clone(),
        x.into(),
        &like.device(),
        float_dtype::<B>(like),
    )
}

fn full<B: Backend>(value: &Value<B>, shape: &Shape, like: &FloatTensor<B>) -> FloatTensor<B> {
    match value {
        Value::Uniform(x) => constant::<B>(*x, shape, like),
        Value::Tensor(x) if x.shape() == *shape => x.clone(),
        Value::Tensor(x) => B::float_expand(x.clone(), shape.clone()),
    }
}

/// The indices of some rows or columns.
pub(super) fn indices<B: Backend>(like: &FloatTensor<B>, part: Part) -> FloatTensor<B> {
    let indices: Vec<f64> = (part.start..part.end()).map(|i| i as f64).collect();
    let data = TensorData::new(indices, [part.len]).convert_dtype(like.dtype());
    B::float_from_data(data, &like.device())
}

pub(super) fn to_float<B: Backend>(x: BoolTensor<B>, like: &FloatTensor<B>) -> FloatTensor<B> {
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
    use Value::{Tensor, Uniform};
    let one = || Shape::new([1, 1]);
    match (op, x, y) {
        (Binary::Add, Tensor(x), Uniform(y)) | (Binary::Add, Uniform(y), Tensor(x)) => {
            B::float_add_scalar(x, y.into())
        }
        (Binary::Mul, Tensor(x), Uniform(y)) | (Binary::Mul, Uniform(y), Tensor(x)) => {
            B::float_mul_scalar(x, y.into())
        }
        (Binary::Sub, Tensor(x), Uniform(y)) => B::float_sub_scalar(x, y.into()),
        (Binary::Div, Tensor(x), Uniform(y)) => B::float_div_scalar(x, y.into()),
        (op, x, y) => {
            let (x, y) = match (x, y) {
                (Tensor(x), Tensor(y)) => (x, y),
                (x, y) => {
                    let tensor = |value: Value<B>| match value {
                        Tensor(x) => x,
                        uniform => full::<B>(&uniform, &one(), like),
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
