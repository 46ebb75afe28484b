//! NdArray: tensors are read without a copy where they are contiguous, and made without one.
#![allow(deprecated)] // Burn retires the backend; this crate keeps it.

use std::borrow::Cow;
use std::sync::Arc;

use burn::backend::NdArray;
use burn::backend::TensorMetadata;
use burn::backend::ndarray::NdArrayTensor;
use burn::backend::ops::FloatTensorOps;

use super::backend::{Number, Readable, pass};
use crate::pairwise::form::Pass;
use crate::pairwise::ops::{Inputs, Outputs, PairwiseOps, without_autodiff};

/// A tensor's numbers. The type that holds them has no name outside Burn, hence a macro.
macro_rules! read {
    ($storage:expr) => {{
        let storage = $storage;
        // Borrowed for as long as the tensor is: the view's own lifetime is shorter.
        let view = storage.view();
        match view.as_slice() {
            // SAFETY: the storage owns the numbers, and is borrowed for the result's lifetime.
            Some(slice) => Cow::Borrowed(unsafe {
                std::slice::from_raw_parts(slice.as_ptr().cast(), slice.len())
            }),
            None => {
                let copied: Vec<_> = view.iter().copied().collect();
                Cow::Owned(bytemuck::cast_slice(&copied).to_vec())
            }
        }
    }};
}

impl Readable for NdArray {
    fn numbers<T: Number>(tensor: &NdArrayTensor) -> Cow<'_, [T]> {
        assert_eq!(tensor.dtype(), T::dtype());
        match tensor {
            NdArrayTensor::F32(storage) => read!(storage),
            NdArrayTensor::F64(storage) => read!(storage),
            _ => unreachable!("checked above"),
        }
    }

    fn booleans(tensor: &NdArrayTensor) -> Cow<'_, [u8]> {
        match tensor {
            NdArrayTensor::Bool(storage) => read!(storage),
            other => unreachable!("{:?} is not a mask", other.dtype()),
        }
    }
}

impl PairwiseOps for NdArray {
    fn pairwise_pass(inputs: Inputs<Self>, form: Arc<Pass>) -> Outputs<Self> {
        pass(inputs, &form)
    }

    without_autodiff!();
}
