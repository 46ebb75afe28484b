//! NdArray.

use std::borrow::Cow;

use burn::backend::ndarray::NdArrayTensor;
use burn::backend::{NdArray, TensorMetadata};
use burn::tensor::Element;
use bytemuck::Pod;

use super::HostBackend;

/// A tensor's elements. The type that holds them has no name outside Burn, hence a macro.
macro_rules! read {
    ($storage:expr) => {{
        let storage = $storage;
        // Borrowed for as long as the tensor is: the view's own lifetime is shorter.
        let view = storage.view();
        match view.as_slice() {
            // SAFETY: the storage owns the elements, and is borrowed for the result's lifetime.
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

impl HostBackend for NdArray {
    fn elements<T: Element + Pod>(tensor: &NdArrayTensor) -> Cow<'_, [T]> {
        assert_eq!(tensor.dtype(), T::dtype());
        match tensor {
            NdArrayTensor::F32(storage) => read!(storage),
            NdArrayTensor::F64(storage) => read!(storage),
            _ => unreachable!("there are no others"),
        }
    }

    fn booleans(tensor: &NdArrayTensor) -> Cow<'_, [u8]> {
        match tensor {
            NdArrayTensor::Bool(storage) => read!(storage),
            other => unreachable!("{:?} is not a mask", other.dtype()),
        }
    }
}
