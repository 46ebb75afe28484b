//! Late interaction: similarities and coefficients of rows that consist of several tokens.
//!
//! A block of `r` rows and `c` columns is one of `r·P` and `c·T` tokens. Its product `[r·P, c·T]`
//! is *pooled* to `[r, c]`: the maximum over the tokens of the column, added up over those of the
//! row. The maximum passes its gradient on to one token, so the coefficients `[r, c]` are
//! *unpooled* to `[r·P, c·T]`: `G_ij` where token `p` of row `i` has its closest token of column
//! `j`, 0 elsewhere. From there the gradients are the two products as ever, in the space of tokens.

use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

use super::block::{bool_dtype, indices};
use super::slice_rows;
use super::states::largest;
use crate::pairwise::blocks::Part;

/// The tokens of some rows, `[rows·count, d]`, each row of `tensor` being `count` tokens.
pub(super) fn rows<B: Backend>(
    tensor: &FloatTensor<B>,
    rows: Part,
    count: usize,
) -> FloatTensor<B> {
    let width = tensor.shape()[1] / count;
    let tokens = slice_rows::<B>(tensor, rows);
    B::float_reshape(tokens, Shape::new([rows.len * count, width]))
}

/// From the products of tokens `[r·P, c·T]` to the similarities `Σ_p max_t`, `[r, c]`, and the
/// index of the largest product, `[r·P·c, 1]`: the lowest of equals, the first NaN if there is one.
pub(in crate::pairwise) fn pool<B: Backend>(
    products: FloatTensor<B>,
    [p, t]: [usize; 2],
) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = products.shape();
    let [r, c] = [shape[0] / p, shape[1] / t];
    let products = B::float_reshape(products, Shape::new([r * p * c, t]));
    let [_, closest] = largest::<B>(B::float_detach(products.clone()), 1, Part::from(0..t));
    // Not the maximum itself: of equal products autodiff might choose another one.
    let others = others::<B>(&closest, t);
    let chosen = B::float_mask_fill(products, others, 0.into());
    let largest = B::float_reshape(B::float_sum_dim(chosen, 1), Shape::new([r, p, c]));
    let similarities = B::float_reshape(B::float_sum_dim(largest, 1), Shape::new([r, c]));
    (similarities, closest)
}

/// From the coefficients of pairs `[r, c]` to those of their tokens, `[r·P, c·T]`.
pub(super) fn unpool<B: Backend>(
    coefficients: FloatTensor<B>,
    closest: FloatTensor<B>,
    [p, t]: [usize; 2],
) -> FloatTensor<B> {
    let shape = coefficients.shape();
    let [r, c] = [shape[0], shape[1]];
    let each = B::float_reshape(coefficients, Shape::new([r, 1, c]));
    let each = B::float_expand(each, Shape::new([r, p, c]));
    let each = B::float_reshape(each, Shape::new([r * p * c, 1]));
    let each = B::float_expand(each, Shape::new([r * p * c, t]));
    let each = B::float_mask_fill(each, others::<B>(&closest, t), 0.into());
    B::float_reshape(each, Shape::new([r * p, c * t]))
}

/// The tokens that are not the closest, `[len, t]`.
fn others<B: Backend>(closest: &FloatTensor<B>, t: usize) -> BoolTensor<B> {
    let indices = indices::<B>(closest, Part::from(0..t));
    let indices = B::float_reshape(indices, Shape::new([1, t]));
    let shape = Shape::new([closest.shape()[0], t]);
    let [closest, indices] = [closest.clone(), indices].map(|x| B::float_expand(x, shape.clone()));
    let dtype = bool_dtype::<B>(&closest);
    B::bool_not(B::float_equal(closest, indices, dtype))
}
