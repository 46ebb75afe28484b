//! The reductions with plain tensor operations and Burn's autodiff: the reference.
//!
//! Holds several `N×M` matrices, forward and backward.

use burn::tensor::{Bool, Tensor};

use super::{LogSumExp, Positives};

/// Stands in for the logit of a left-out pair: its exponential is 0 next to any other logit.
const LEFT_OUT: f32 = -1e30;

/// See [`pairwise::log_sum_exp`](super::log_sum_exp).
pub fn log_sum_exp(
    a: Tensor<2>,
    b: Tensor<2>,
    logit_scale: Tensor<1>,
    positives: Positives,
) -> LogSumExp {
    let logits = a.matmul(b.transpose()) * logit_scale.unsqueeze::<2>();
    let logits = match positives {
        Positives::None => logits,
        Positives::Diagonal => {
            let off_diagonal = Tensor::<2, Bool>::diag_mask(logits.shape(), 0, &logits.device());
            logits.mask_fill(off_diagonal.bool_not(), LEFT_OUT)
        }
    };
    LogSumExp {
        rows: reduce(logits.clone(), 1).squeeze_dim(1),
        columns: reduce(logits, 0).squeeze_dim(0),
    }
}

/// Log-sum-exp along `dim`, kept as a dimension of size 1.
fn reduce(logits: Tensor<2>, dim: usize) -> Tensor<2> {
    let max = logits.clone().detach().max_dim(dim);
    (logits - max.clone()).exp().sum_dim(dim).log() + max
}
