//! Running reductions of some rows, or of some columns.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

use super::block::{Values, bool_dtype, constant, indices, is_nan, to_float};
use crate::pairwise::blocks::Part;
use crate::pairwise::reduction::{Axis, Kind, Reduction};

/// Smaller than any logit, and finite, so that differences from it are never NaN.
const LOWEST: f64 = -1e30;

/// The components of a state, see [`Kind::components`]: `[len, 1]` of rows, `[1, len]` of columns.
type State<B> = Vec<FloatTensor<B>>;

/// The states of all reductions for some rows, or columns.
pub(super) struct States<B: Backend> {
    /// For each reduction of the pass; `None` until a block counts.
    states: Vec<Option<State<B>>>,
    /// Of a component.
    shape: Shape,
}

/// The state of a reduction over one block.
pub(super) fn of_block<B: Backend>(
    reduction: &Reduction,
    values: &Values<B>,
    [x, y]: [usize; 2],
) -> State<B> {
    let (dim, along) = match reduction.axis {
        Axis::Rows => (1, values.block.columns),
        Axis::Columns => (0, values.block.rows),
    };
    let x = values.full(x);
    match reduction.kind {
        Kind::Sum => vec![B::float_sum_dim(x, dim)],
        Kind::LogSumExp | Kind::SoftmaxMean => {
            let max = B::float_detach(B::float_max_dim(x.clone(), dim));
            let max = B::float_clamp_min(max, LOWEST.into());
            let e = B::float_exp(B::float_sub(x, max.clone()));
            let mut state = vec![max, B::float_sum_dim(e.clone(), dim)];
            if reduction.kind == Kind::SoftmaxMean {
                state.push(B::float_sum_dim(B::float_mul(e, values.full(y)), dim));
            }
            state
        }
        Kind::Max => largest::<B>(x, dim, along).into(),
    }
}

impl<B: Backend> States<B> {
    pub fn new(axis: Axis, len: usize) -> Self {
        Self {
            states: Vec::new(),
            shape: match axis {
                Axis::Rows => Shape::new([len, 1]),
                Axis::Columns => Shape::new([1, len]),
            },
        }
    }

    /// Takes in the state of later pairs.
    pub fn merge(&mut self, k: usize, kind: Kind, new: State<B>) {
        if self.states.len() <= k {
            self.states.resize_with(k + 1, || None);
        }
        self.states[k] = Some(match self.states[k].take() {
            Some(old) => merged::<B>(kind, old, new),
            None => new,
        });
    }

    /// One of the vectors that reduction `k` results in.
    pub fn result(
        &self,
        k: usize,
        kind: Kind,
        result: usize,
        like: &FloatTensor<B>,
    ) -> FloatTensor<B> {
        let is_log_sum_exp = [Kind::LogSumExp, Kind::SoftmaxMean].contains(&kind) && result == 0;
        let value = match (kind, self.states.get(k).and_then(Option::as_ref)) {
            (_, None) => {
                let nothing = if is_log_sum_exp {
                    f64::NEG_INFINITY
                } else {
                    0.0
                };
                constant::<B>(nothing, &self.shape, like)
            }
            (Kind::Sum | Kind::Max, Some(state)) => state[result].clone(),
            (Kind::LogSumExp | Kind::SoftmaxMean, Some(state)) => {
                // Over nothing the sum is 0; the logarithm of 1 keeps the gradient finite.
                let is_zero = bool_dtype::<B>(like);
                let nothing = B::float_equal_elem(state[1].clone(), 0.into(), is_zero);
                let sum = B::float_mask_fill(state[1].clone(), nothing.clone(), 1.into());
                if is_log_sum_exp {
                    let value = B::float_add(B::float_log(sum), state[0].clone());
                    B::float_mask_fill(value, nothing, f64::NEG_INFINITY.into())
                } else {
                    B::float_div(state[2].clone(), sum)
                }
            }
        };
        B::float_reshape(value, Shape::new([self.shape.num_elements()]))
    }
}

fn merged<B: Backend>(kind: Kind, old: State<B>, new: State<B>) -> State<B> {
    let dtype = bool_dtype::<B>(&new[0]);
    match kind {
        Kind::Sum => vec![B::float_add(old[0].clone(), new[0].clone())],
        Kind::LogSumExp | Kind::SoftmaxMean => {
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
        Kind::Max => {
            // Blocks come in order, so that of equal maxima the earlier is the lower.
            let larger = B::float_greater(new[0].clone(), old[0].clone(), dtype);
            let first_nan = B::bool_and(is_nan::<B>(&new[0]), B::bool_not(is_nan::<B>(&old[0])));
            let better = B::bool_or(larger, first_nan);
            old.into_iter()
                .zip(new)
                .map(|(old, new)| B::float_mask_where(old, better.clone(), new))
                .collect()
        }
    }
}

/// The largest values along `dim` and their indices, those of `along`: the lowest index of equals,
/// and NaN is larger than anything.
pub(super) fn largest<B: Backend>(
    x: FloatTensor<B>,
    dim: usize,
    along: Part,
) -> [FloatTensor<B>; 2] {
    let dtype = bool_dtype::<B>(&x);
    let nan = is_nan::<B>(&x);
    let not_nan = B::float_mask_fill(x.clone(), nan.clone(), f64::NEG_INFINITY.into());
    let max = B::float_max_dim(not_nan, dim);
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
    let indices = B::float_reshape(indices::<B>(&x, along), line);
    let negated = B::float_expand(B::float_neg(indices), shape);
    let negated = B::float_mask_fill(negated, B::bool_not(is_max), f64::NEG_INFINITY.into());
    let index = B::float_neg(B::float_max_dim(negated, dim));
    [max, index]
}
