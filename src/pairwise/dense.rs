//! The whole similarity matrix at once, and Burn's autodiff: the reference. O(N·M) memory.

use burn::backend::Dispatch;
use burn::backend::DispatchTensor;

use super::chunked;
use super::form::Form;
use super::ops::Inputs;

/// All results, one after the other; differentiable.
pub(super) fn reduce(inputs: Inputs<Dispatch>, form: &Form) -> DispatchTensor {
    chunked::results_at_once(inputs, &form.forward(0))
}
