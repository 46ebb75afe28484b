//! Sums of gradients over blocks.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::cubecl::prelude::{CubeCount, CubeDim};
use burn_cubecl::tensor::CubeTensor;

use super::buffers::{empty, zeros};
use super::kernels;
use super::product::product;
use crate::pairwise::Precision;

/// A gradient, to which blocks add.
pub(super) struct Gradient {
    pub sum: CubeTensor,
    /// Whether one product is all of it.
    in_one: bool,
    precision: Precision,
    /// Units of a cube.
    units: usize,
}

impl Gradient {
    /// By `x`, of a type that may differ.
    pub fn new(
        x: &CubeTensor,
        dtype: DType,
        in_one: bool,
        precision: Precision,
        units: usize,
    ) -> Self {
        Self {
            sum: if in_one {
                empty(x, x.shape(), dtype)
            } else {
                zeros(x, x.shape(), dtype)
            },
            in_one,
            precision,
            units,
        }
    }

    /// Adds the product of coefficients and embeddings to the rows from `start` on.
    pub fn add(&mut self, start: usize, coefficients: CubeTensor, embeddings: CubeTensor) {
        if self.in_one {
            product(coefficients, embeddings, &self.sum, self.precision);
            return;
        }
        let shape = [coefficients.shape()[0], embeddings.shape()[1]];
        let part = empty(&self.sum, shape, self.sum.dtype);
        product(coefficients, embeddings, &part, self.precision);
        let len = part.shape().num_elements();
        kernels::accumulate::launch(
            &self.sum.client,
            CubeCount::Static(len.div_ceil(self.units).min(1 << 15) as u32, 1, 1),
            CubeDim::new_1d(self.units as u32),
            self.sum.clone().into_buffer_arg(),
            part.into_buffer_arg(),
            start * shape[1],
            len,
            dtype_to_storage_type(self.sum.dtype),
        );
    }
}
