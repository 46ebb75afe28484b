//! Tensors between plain devices and autodiff ones.

use burn::tensor::Tensor;
use burn::tensor::kind::Autodiff;

/// `x` as a constant in the autodiff context of `other`: plain, autodiff, or with gradient checkpointing.
pub(crate) fn constant_like<const D: usize, const E: usize, K: Autodiff, L: Autodiff>(
    x: Tensor<D, K>,
    other: &Tensor<E, L>,
) -> Tensor<D, K> {
    let x = x.without_autodiff();
    match other.gradient_checkpointing_strategy() {
        Some(strategy) => x.autodiff().with_gradient_checkpointing_strategy(strategy),
        None => x,
    }
}
