//! What a pass multiplies: embeddings and coefficients, as they are or as sums of rounded terms.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::buffers::{rows_of, unpadded};
use super::plan::{Factors, Terms};
use super::product::product;
use crate::pairwise::blocks::{Block, Part};
use crate::pairwise::ops::cast;

/// One side's embeddings.
#[derive(Clone)]
pub(super) struct Embeddings {
    /// To be multiplied with the other side's, and with coefficients.
    similarity: Vec<CubeTensor>,
    gradient: Vec<CubeTensor>,
}

impl Embeddings {
    pub fn new(x: CubeTensor, factors: &Factors, with_gradient: bool) -> Self {
        let similarity = terms(&x, factors.similarity);
        Self {
            gradient: if !with_gradient {
                Vec::new()
            } else if factors.gradient == factors.similarity {
                similarity.clone()
            } else {
                terms(&x, factors.gradient)
            },
            similarity,
        }
    }

    pub fn count(&self) -> usize {
        self.similarity[0].shape()[0]
    }

    /// The terms of some rows, to be multiplied with coefficients.
    pub fn gradient(&self, rows: Part) -> Vec<CubeTensor> {
        self.gradient.iter().map(|x| rows_of(x, rows)).collect()
    }
}

/// Writes the products of rows of two sets of embeddings with one another.
pub(super) fn similarities(of: [&Embeddings; 2], block: &Block, out: &CubeTensor) {
    let [left, right] = similarity_factors(of, block);
    product(left, right, out);
}

/// The factors of these products. Several terms are multiplied as one product, side by side: their
/// widths add up.
pub(super) fn similarity_factors([a, b]: [&Embeddings; 2], block: &Block) -> [CubeTensor; 2] {
    let (a, b) = (&a.similarity, &b.similarity);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for [i, j] in Terms::multiplied(a.len(), b.len()) {
        left.push(rows_of(&a[i], block.rows));
        right.push(rows_of(&b[j], block.columns));
    }
    let [left, right] = [left, right].map(side_by_side);
    [left, CubeBackend::float_transpose(right)]
}

fn side_by_side(mut matrices: Vec<CubeTensor>) -> CubeTensor {
    if matrices.len() == 1 {
        return matrices.remove(0);
    }
    into_contiguous(CubeBackend::float_cat(matrices, 1))
}

/// Several tensors of one shape, one after the other.
pub(super) fn one_after_the_other(mut tensors: Vec<CubeTensor>) -> CubeTensor {
    if tensors.len() == 1 {
        return tensors.remove(0);
    }
    // As vectors, which Burn does not pad.
    let flat = tensors.into_iter().map(|x| {
        let len = Shape::new([x.shape().num_elements()]);
        CubeBackend::float_reshape(x, len)
    });
    unpadded(CubeBackend::float_cat(flat.collect(), 0))
}

/// The terms of `x`.
fn terms(x: &CubeTensor, terms: Terms) -> Vec<CubeTensor> {
    let cast = |x: &CubeTensor, dtype| cast::<CubeBackend>(x.clone(), dtype);
    let mut rest = x.clone();
    let mut found = Vec::new();
    loop {
        let term = cast(&rest, terms.dtype);
        found.push(into_contiguous(term.clone()));
        if found.len() == terms.count {
            return found;
        }
        rest = CubeBackend::float_sub(cast(&rest, DType::F32), cast(&term, DType::F32));
    }
}
