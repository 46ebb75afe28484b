//! Sums of gradients over blocks.

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;

use super::buffers::{empty, zeros};
use super::kernels::Epilogue;
use super::onto::{At, Onto, Sums, product_onto};
use super::plan::Terms;
use super::product::product;

/// A gradient, to which blocks add.
pub(super) struct Gradient {
    pub sum: CubeTensor,
    /// Whether one block is all of it.
    in_one: bool,
}

impl Gradient {
    /// Of this shape, on the device of `like`.
    pub fn new(like: &CubeTensor, shape: Shape, dtype: DType, in_one: bool) -> Self {
        let sum = if in_one {
            empty(like, shape, dtype)
        } else {
            zeros(like, shape, dtype)
        };
        Self { sum, in_one }
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
            let at = At {
                rows: left.shape()[0],
                columns: right.shape()[1],
                i0: start,
                ..At::default()
            };
            let mut onto = Onto {
                epilogue: Epilogue::Add,
                to: &self.sum,
                reads: [&self.sum; 3],
                with_mask: false,
                sums: &mut Sums::new(0),
            };
            product_onto([left, right], at, &mut onto);
        }
    }
}
