//! Whether the losses of a batch are added up or averaged.

use burn::config::Config;
use burn::tensor::Tensor;

/// How the losses of a batch's pairs become one.
#[derive(Config, Copy, Debug, PartialEq, Eq)]
pub enum BatchReduction {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
}

impl BatchReduction {
    /// Of `count` losses whose sum is given.
    pub(crate) fn of_sum<const D: usize>(self, sum: Tensor<D>, count: usize) -> Tensor<D> {
        match self {
            // A product: Burn differentiates a quotient by a scalar in f32.
            Self::Mean => sum * (1.0 / count as f64),
            Self::Sum => sum,
        }
    }
}
