//! Whether parts of a loss are added up or averaged.

use burn::config::Config;
use burn::tensor::Tensor;

/// How the parts of a loss become one number: the losses of a batch's pairs, or the two directions.
#[derive(Config, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    /// Of `count` parts whose sum is given.
    pub(crate) fn of_sum<const D: usize>(self, sum: Tensor<D>, count: usize) -> Tensor<D> {
        match self {
            // A product: Burn differentiates a quotient by a number in f32.
            Self::Mean => sum * (1.0 / count as f64),
            Self::Sum => sum,
        }
    }
}
