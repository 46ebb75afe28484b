//! What kernels for the CPU share: their two element types, sums of slices, and access to the
//! buffers of the backends whose tensors lie in this program's memory.
#![allow(deprecated)] // Burn retires NdArray; this crate keeps it.

#[cfg(feature = "flex")]
mod flex;
mod lanes;
#[cfg(feature = "ndarray")]
#[allow(unsafe_code)]
mod ndarray;
mod real;

use std::borrow::Cow;

use burn::backend::Backend;
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::tensor::Element;
use bytemuck::Pod;

pub(crate) use self::lanes::{largest, sum};
pub(crate) use self::real::Real;

/// A backend whose tensors lie in this program's memory.
pub(crate) trait HostBackend: Backend {
    /// Row-major; copied only where the tensor's own order is another.
    fn elements<T: Element + Pod>(tensor: &FloatTensor<Self>) -> Cow<'_, [T]>;

    /// One byte each, not 0 for true; copied likewise.
    fn booleans(tensor: &BoolTensor<Self>) -> Cow<'_, [u8]>;
}
