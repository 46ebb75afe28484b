//! Reductions over all pairs of two sets of embeddings: the engine under the objectives.
//!
//! An objective never forms the similarity matrix `S = A·Bᵀ` itself. It asks this module for a
//! reduction of it ([`log_sum_exp`] so far) and does the rest with `O(N)` tensors. How a reduction
//! is evaluated is this module's business alone: today [`dense`], with plain tensor operations and
//! Burn's autodiff, which holds the `N×M` matrix and runs on every device.

pub mod dense;

use burn::tensor::Tensor;

/// Which pairs of a reduction are positives, hence left out of the negatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positives {
    /// Row `i` and column `i` are a positive pair; both sides have the same number of rows.
    Diagonal,
    /// Every pair is a negative.
    None,
}

/// Log-sum-exp over the negatives of every row and of every column of a logit matrix.
#[derive(Clone, Debug)]
pub struct LogSumExp {
    /// Over each row's negatives, `[N]`.
    pub rows: Tensor<1>,
    /// Over each column's negatives, `[M]`.
    pub columns: Tensor<1>,
}

/// Log-sum-exp over the negatives of the logits `z_ij = logit_scale · a_i·b_j`, both ways:
/// `rows_i = log Σ_j e^{z_ij}` and `columns_j = log Σ_i e^{z_ij}`, the positives left out.
///
/// Differentiable in `a`, `b` and `logit_scale`. A running maximum keeps it exact for logits of any
/// size.
///
/// # Shapes
///
/// - `a`: `[N, D]`, `b`: `[M, D]`, f32 or f64
/// - `logit_scale`: `[1]`, of the same dtype
///
/// # Panics
///
/// Where the diagonal holds the positives and either `N ≠ M`, or `N = 1`, which leaves no negative
/// (the log-sum-exp of nothing is −∞, a value that has no gradient: callers treat it apart).
#[track_caller]
pub fn log_sum_exp(
    a: Tensor<2>,
    b: Tensor<2>,
    logit_scale: Tensor<1>,
    positives: Positives,
) -> LogSumExp {
    let ([n, _], [m, _]) = (a.dims(), b.dims());
    if positives == Positives::Diagonal {
        assert!(
            n == m && n > 1,
            "log_sum_exp: `a` has {n} rows, `b` has {m}: with positives on the diagonal both need the same number, at least 2"
        );
    }
    dense::log_sum_exp(a, b, logit_scale, positives)
}
