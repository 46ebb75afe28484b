//! Buffers without gaps between their rows, which kernels index by row and column alone.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::zspace::metadata::Metadata;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::{empty_device_contiguous_dtype, zeros_client};
use burn_cubecl::tensor::CubeTensor;

use super::kernels;
use super::plan::Terms;
use crate::pairwise::blocks::Part;

pub(super) fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    unpadded(empty_device_contiguous_dtype(
        like.client.clone(),
        like.device.clone(),
        shape.into(),
        dtype,
    ))
}

/// Zeros without padding: Burn's own allocation of a matrix pads its rows on CUDA and ROCm, that of
/// a vector does not.
pub(super) fn zeros(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    let len = Shape::new([shape.num_elements()]);
    let flat = zeros_client(like.client.clone(), like.device.clone(), len, dtype);
    unpadded(CubeBackend::float_reshape(flat, shape))
}

/// A tensor that kernels may index by row and column alone.
pub(super) fn unpadded(x: CubeTensor) -> CubeTensor {
    assert!(
        x.is_contiguous(),
        "a buffer of {:?} {:?} has gaps between its rows",
        x.dtype,
        x.shape()
    );
    x
}

/// The matrix that begins at an element of a buffer. A slice of Burn's would be a copy where its
/// end is not where a view may end.
pub(super) fn matrix_at(buffer: &CubeTensor, at: usize, shape: [usize; 2]) -> CubeTensor {
    let end = at + shape[0] * shape[1];
    assert!(
        end <= buffer.shape().num_elements(),
        "a matrix ends at {end} in a buffer of {:?}",
        buffer.shape()
    );
    let start = (at * buffer.dtype.size()) as u64;
    CubeTensor::new(
        buffer.client.clone(),
        buffer.handle.clone().offset_start(start),
        Metadata::new(shape, [shape[1], 1]),
        buffer.device.clone(),
        buffer.dtype,
    )
}

/// Some rows of a matrix.
pub(super) fn rows_of(x: &CubeTensor, rows: Part) -> CubeTensor {
    if rows.len == x.shape()[0] {
        return x.clone();
    }
    let width = x.shape()[1];
    let at = rows.start * width;
    if x.is_contiguous() && (at * x.dtype.size()).is_multiple_of(kernels::PLANE) {
        return matrix_at(x, at, [rows.len, width]);
    }
    let rows = rows.start..rows.end();
    into_contiguous(CubeBackend::float_slice(
        x.clone(),
        &[rows.into(), (0..width).into()],
    ))
}

/// Matrices of one shape in one buffer, each beginning where a view of the buffer may.
pub(super) struct Planes {
    pub buffer: CubeTensor,
    shape: [usize; 2],
    count: usize,
}

impl Planes {
    /// For terms of a matrix; of one element, if there are none.
    pub fn new(like: &CubeTensor, shape: [usize; 2], terms: Terms) -> Self {
        let apart = kernels::plane(shape[0] * shape[1]);
        Self {
            buffer: empty(like, [(terms.count * apart).max(1)], terms.dtype),
            shape,
            count: terms.count,
        }
    }

    pub fn each(self) -> Vec<CubeTensor> {
        let apart = kernels::plane(self.shape[0] * self.shape[1]);
        let plane = |k: usize| matrix_at(&self.buffer, k * apart, self.shape);
        (0..self.count).map(plane).collect()
    }
}
