//! Sums of gradients over blocks.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::prelude::{CubeCount, CubeDim};
use burn_cubecl::tensor::CubeTensor;

use super::buffers::{empty, zeros};
use super::kernels;
use super::plan::Terms;
use super::product::product;

/// A gradient, to which blocks add.
pub(super) struct Gradient {
    pub sum: CubeTensor,
    /// Whether one block is all of it.
    in_one: bool,
    /// Units of a cube.
    units: usize,
}

impl Gradient {
    /// Of this shape, on the device of `like`.
    pub fn new(like: &CubeTensor, shape: Shape, dtype: DType, in_one: bool, units: usize) -> Self {
        let sum = if in_one {
            empty(like, shape, dtype)
        } else {
            zeros(like, shape, dtype)
        };
        Self { sum, in_one, units }
    }

    /// Adds the product of coefficients and embeddings, of which these are the terms, to the rows
    /// from `start` on.
    pub fn add(&mut self, start: usize, coefficients: &[CubeTensor], embeddings: &[CubeTensor]) {
        let multiplied = Terms::multiplied(coefficients.len(), embeddings.len());
        for (k, [i, j]) in multiplied.enumerate() {
            let (left, right) = (coefficients[i].clone(), embeddings[j].clone());
            if self.in_one && k == 0 {
                product(left, right, &self.sum);
                continue;
            }
            let shape = [left.shape()[0], right.shape()[1]];
            let part = empty(&self.sum, shape, self.sum.dtype);
            product(left, right, &part);
            self.accumulate(start * shape[1], part);
        }
    }

    /// Adds to the elements from `at` on.
    fn accumulate(&self, at: usize, part: CubeTensor) {
        let len = part.shape().num_elements();
        kernels::accumulate::launch(
            &self.sum.client,
            CubeCount::Static(len.div_ceil(self.units).min(1 << 15) as u32, 1, 1),
            CubeDim::new_1d(self.units as u32),
            self.sum.clone().into_buffer_arg(),
            part.into_buffer_arg(),
            at,
            len,
            dtype_to_storage_type(self.sum.dtype),
        );
    }
}
