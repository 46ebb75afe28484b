//! What a pass multiplies: embeddings and coefficients, as they are or as sums of rounded terms.

use std::cell::RefCell;

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
    /// By which rows are multiplied before they are multiplied with the other side's, `[n, 1]`; and
    /// those that were last.
    scale: Option<CubeTensor>,
    scaled: RefCell<Option<(Part, Vec<CubeTensor>)>>,
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
            scale: None,
            scaled: RefCell::new(None),
        }
    }

    /// With rows that are multiplied by these, `[n, 1]`; in a copy of all rows, or of those of a
    /// block at a time.
    pub fn times(mut self, scale: CubeTensor, at_once: bool) -> Self {
        let types = |terms: &[CubeTensor]| terms.iter().map(|x| x.dtype).collect::<Vec<_>>();
        assert!(
            self.gradient.is_empty() || types(&self.gradient) == types(&self.similarity),
            "scaled rows are multiplied as the same terms everywhere"
        );
        let scale = cast::<CubeBackend>(scale, self.similarity[0].dtype);
        if at_once {
            let times = |x| CubeBackend::float_mul(x, scale.clone());
            self.similarity = self
                .similarity
                .into_iter()
                .map(times)
                .map(into_contiguous)
                .collect();
        } else {
            self.scale = Some(scale);
        }
        self
    }

    /// The terms of some rows, to be multiplied with the other side's.
    fn similarity(&self, rows: Part) -> Vec<CubeTensor> {
        let terms = || self.similarity.iter().map(|x| rows_of(x, rows));
        let Some(scale) = &self.scale else {
            return terms().collect();
        };
        let mut scaled = self.scaled.borrow_mut();
        if let Some((of, terms)) = &*scaled
            && of.index == rows.index
        {
            return terms.clone();
        }
        // Powers of two: nothing is rounded.
        let scale = rows_of(scale, rows);
        let times = |x| into_contiguous(CubeBackend::float_mul(x, scale.clone()));
        let found: Vec<_> = terms().map(times).collect();
        *scaled = Some((rows, found.clone()));
        found
    }

    pub fn count(&self) -> usize {
        self.similarity[0].shape()[0]
    }

    /// The terms of some rows, to be multiplied with coefficients.
    pub fn gradient(&self, rows: Part) -> Vec<CubeTensor> {
        if self.scale.is_some() {
            return self.similarity(rows);
        }
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
    let (a, b) = (a.similarity(block.rows), b.similarity(block.columns));
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for [i, j] in Terms::multiplied(a.len(), b.len()) {
        left.push(a[i].clone());
        right.push(b[j].clone());
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
