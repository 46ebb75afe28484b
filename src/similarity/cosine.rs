//! Cosine similarity of all pairs, and dot products of corresponding rows.

use burn::tensor::Tensor;

use super::l2_normalize;
use crate::check;
use crate::pairwise::exact_product;

/// Cosine similarity of every row of `a` with every row of `b`.
///
/// This materialises the matrix; objectives do not call it.
///
/// # Shapes
///
/// - `a`: `[N, D]`, `b`: `[M, D]`
/// - returns `[N, M]`, values in [-1, 1] up to rounding, in the dtype of the inputs; the similarity
///   of a zero row to everything is 0 (see [`l2_normalize`])
///
/// # Panics
///
/// If the widths, dtypes or devices differ, or a side is empty.
#[track_caller]
pub fn pairwise_cosine_similarity(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    check::comparable("pairwise_cosine_similarity", ("a", &a), ("b", &b));
    exact_product(l2_normalize(a), l2_normalize(b).transpose())
}

/// Dot product of corresponding rows, `Σ_k a_ik·b_ik`: the cosine where both are normalised.
///
/// # Shapes
///
/// - `a`, `b`: `[N, D]`
/// - returns `[N]`
///
/// # Panics
///
/// If the shapes, dtypes or devices differ, or the batch is empty.
#[track_caller]
pub fn rowwise_dot(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    check::paired("rowwise_dot", ("a", &a), ("b", &b));
    (a * b).sum_dim(1).squeeze_dim(1)
}
