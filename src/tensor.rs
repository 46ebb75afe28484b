//! What Burn's tensors lack: constants for either kind of device, and an exact `log1p`.

use burn::tensor::kind::Autodiff;
use burn::tensor::{GradientCheckpointingStrategy, Tensor};

/// `x` as a constant in the autodiff context of `other`: plain, autodiff, or with gradient checkpointing.
pub(crate) fn constant_like<const D: usize, const E: usize, K: Autodiff, L: Autodiff>(
    x: Tensor<D, K>,
    other: &Tensor<E, L>,
) -> Tensor<D, K> {
    constant_in(x, other.gradient_checkpointing_strategy())
}

/// `x` as a constant: without autodiff for `None`.
pub(crate) fn constant_in<const D: usize, K: Autodiff>(
    x: Tensor<D, K>,
    context: Option<GradientCheckpointingStrategy>,
) -> Tensor<D, K> {
    let x = x.without_autodiff();
    match context {
        Some(strategy) => x.autodiff().with_gradient_checkpointing_strategy(strategy),
        None => x,
    }
}
