//! What a backend does for the engine: passes, and on top of them the two differentiable
//! operations.
#![allow(deprecated)] // Burn retires NdArray; this crate keeps it.
// Without any backend nothing runs a pass.
#![cfg_attr(not(any(feature = "_cpu", feature = "_cube")), allow(unused))]

use std::sync::Arc;

#[cfg(feature = "_cube")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, Dispatch, ExtensionType, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};

use super::form::Form;
use super::pass::Pass;
use crate::check::compute_dtype;

/// What a pass reads. In place of inputs that its expressions do not read there is some tensor.
#[derive(ExtensionType, Clone, Debug)]
#[extension_type(fusion: cfg(feature = "_cube"))]
pub struct Inputs<B: Backend> {
    /// `[n, d]` and `[m, d]`; with several tokens in a row `[n, P·d]` and `[m, T·d]`.
    pub a: FloatTensor<B>,
    pub b: FloatTensor<B>,
    /// The teachers' embeddings, `[n, e]` and `[m, e]`, those of all teachers side by side;
    /// constants.
    pub teacher_a: FloatTensor<B>,
    pub teacher_b: FloatTensor<B>,
    /// Vectors of rows `[K, n]`, of columns `[K, m]`, scalars `[K]`. In a symmetric pass rows and
    /// columns are the same tensor.
    pub rows: FloatTensor<B>,
    pub columns: FloatTensor<B>,
    pub scalars: FloatTensor<B>,
    /// `[n, m]`.
    pub mask: BoolTensor<B>,
    /// Similarities that an earlier pass kept.
    pub kept: FloatTensor<B>,
}

impl<B: Backend> Inputs<B> {
    pub(crate) fn sizes(&self) -> [usize; 2] {
        [self.a.shape()[0], self.b.shape()[0]]
    }

    /// The dtype of similarities, and of everything that is computed of them.
    pub(crate) fn dtype(&self) -> DType {
        compute_dtype(self.a.dtype())
    }

    /// With embeddings in that dtype.
    pub(crate) fn widened(self) -> Self {
        let dtype = self.dtype();
        Self {
            a: cast::<B>(self.a, dtype),
            b: cast::<B>(self.b, dtype),
            ..self
        }
    }
}

/// See [`PairwiseOps::exact_product`]. Both in the same autodiff context.
pub(crate) fn exact_product<const D: usize>(left: Tensor<D>, right: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::exact_product(
        left.into_dispatch(),
        right.into_dispatch(),
    ))
}

pub(super) fn cast<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype {
        x
    } else {
        B::float_cast(x, dtype.into())
    }
}

/// What a pass leaves. In place of what was not asked for there are the results.
#[derive(ExtensionType, Clone, Debug)]
#[extension_type(fusion: cfg(feature = "_cube"))]
pub struct Outputs<B: Backend> {
    /// All results, one after the other.
    pub results: FloatTensor<B>,
    /// `G·B` and `Gᵀ·A`, of the shapes of `a` and `b`, in the dtype of the results.
    pub left: FloatTensor<B>,
    pub right: FloatTensor<B>,
    /// Similarities for the pass that follows.
    pub kept: FloatTensor<B>,
}

/// The gradient of a pass by embeddings, before it is that by what they were made of. In place of
/// what it has not there is some tensor.
#[derive(ExtensionType, Clone, Debug)]
#[extension_type(fusion: cfg(feature = "_cube"))]
pub struct Unfinished<B: Backend> {
    /// `[n, d]`, in the dtype of a pass's results.
    pub gradient: FloatTensor<B>,
    /// The embeddings, and the vectors of their side.
    pub x: FloatTensor<B>,
    pub vectors: FloatTensor<B>,
    /// `[1, 1]`.
    pub factor: FloatTensor<B>,
    /// Whether similarities are divided by norms, whether the embeddings were multiplied by the
    /// third vector besides, and whether a factor multiplies the gradient.
    pub has_norms: bool,
    pub has_scale: bool,
    pub has_factor: bool,
    /// That of the embeddings.
    pub dtype: DType,
}

#[cfg(feature = "_cube")]
fn outputs_metadata(inputs: &InputsMetadata, pass: &Arc<Pass>) -> OutputsMetadata {
    let sizes = [inputs.a.shape[0], inputs.b.shape[0]];
    let dtype = compute_dtype(inputs.a.dtype);
    let results = TensorSpec::new([pass.result_len(sizes)].into(), dtype);
    let gradient = |wanted: bool, x: &TensorSpec| {
        if wanted {
            TensorSpec::new(x.shape.clone(), dtype)
        } else {
            results.clone()
        }
    };
    OutputsMetadata {
        left: gradient(pass.left, &inputs.a),
        right: gradient(pass.right, &inputs.b),
        kept: if pass.coefficient.is_none() && pass.keeps_all(sizes, dtype) {
            TensorSpec::new([sizes[0] * sizes[1]].into(), dtype)
        } else {
            results.clone()
        },
        results,
    }
}

#[cfg(feature = "_cube")]
fn norms_metadata(rows: &TensorSpec) -> TensorSpec {
    TensorSpec::new([2, rows.shape[0]].into(), DType::F32)
}

#[cfg(feature = "_cube")]
fn finished_metadata(of: &UnfinishedMetadata) -> TensorSpec {
    TensorSpec::new(of.gradient.shape.clone(), of.dtype)
}

#[cfg(feature = "_cube")]
fn product_metadata(left: &TensorSpec, right: &TensorSpec) -> TensorSpec {
    let mut shape = left.shape.clone();
    let last = shape.num_dims() - 1;
    shape[last] = right.shape[last];
    TensorSpec::new(shape, left.dtype)
}

#[cfg(feature = "_cube")]
fn reduce_metadata(inputs: &InputsMetadata, form: &Arc<Form>) -> TensorSpec {
    let sizes = [inputs.a.shape[0], inputs.b.shape[0]];
    TensorSpec::new(
        [form.result_len(sizes)].into(),
        compute_dtype(inputs.a.dtype),
    )
}

#[cfg(feature = "_cube")]
fn total_metadata(inputs: &InputsMetadata, _form: &Arc<Form>) -> TensorSpec {
    TensorSpec::new([1].into(), compute_dtype(inputs.a.dtype))
}

/// The engine's operations. A backend implements `pairwise_pass`, with kernels of its own or by
/// calling [`chunked::pass`](super::chunked::pass); never by an inherited body, which under
/// autodiff would record every block.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "_cube"),
    Autodiff,
    Fusion: cfg(feature = "_cube"),
)]
pub trait PairwiseOps: Backend {
    /// The largest magnitude of each row of half precision, and its norm, `[2, rows]`, f32; of bf16
    /// the norm of the row times a power of two that the magnitude determines. Not differentiable.
    #[fusion(meta = norms_metadata)]
    fn row_norms(rows: FloatTensor<Self>) -> FloatTensor<Self> {
        panic!("no norms of rows {:?} apart", rows.shape())
    }

    /// The gradient by embeddings, in their dtype; not differentiable.
    #[fusion(meta = finished_metadata)]
    fn finished(#[extension_type] of: Unfinished<Self>) -> FloatTensor<Self> {
        of.in_plain_operations()
    }

    /// The product of two matrices, or of each two of as many, in which nothing is rounded but
    /// sums: Burn's own may round f32 to tf32. Differentiable.
    #[fusion(meta = product_metadata)]
    fn exact_product(left: FloatTensor<Self>, right: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(left, right)
    }

    /// One pass; not differentiable.
    #[fusion(meta = outputs_metadata)]
    fn pairwise_pass(#[extension_type] inputs: Inputs<Self>, pass: Arc<Pass>) -> Outputs<Self>;

    /// All results of a form, one after the other; differentiable in `a`, `b`, `rows`, `columns`
    /// and
    /// `scalars`.
    #[fusion(meta = reduce_metadata)]
    fn pairwise_reduce(
        #[extension_type] inputs: Inputs<Self>,
        form: Arc<Form>,
    ) -> FloatTensor<Self>;

    /// The sum `[1]` of all results of a form of sums; differentiable likewise, its gradient
    /// computed in the same pass.
    #[fusion(meta = total_metadata)]
    fn pairwise_total(#[extension_type] inputs: Inputs<Self>, form: Arc<Form>)
    -> FloatTensor<Self>;
}

/// The differentiable operations of a backend without autodiff, from its passes.
macro_rules! without_autodiff {
    () => {
        fn pairwise_reduce(
            inputs: $crate::pairwise::ops::Inputs<Self>,
            form: std::sync::Arc<$crate::pairwise::form::Form>,
        ) -> burn::backend::tensor::FloatTensor<Self> {
            Self::pairwise_pass(inputs, std::sync::Arc::new(form.forward(false))).results
        }

        fn pairwise_total(
            inputs: $crate::pairwise::ops::Inputs<Self>,
            form: std::sync::Arc<$crate::pairwise::form::Form>,
        ) -> burn::backend::tensor::FloatTensor<Self> {
            use burn::backend::ops::FloatTensorOps;
            Self::float_sum(Self::pairwise_reduce(inputs, form))
        }
    };
}
pub(super) use without_autodiff;
