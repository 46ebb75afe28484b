//! Normalisation on the CPU: one sweep over the rows forward, one backward, where plain operations
//! take a dozen each.
#![allow(deprecated)] // Burn retires NdArray; this crate keeps it.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::backend_extension;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, DispatchTensorKind, TensorMetadata};
use burn::tensor::{DType, Tensor, TensorData};
use rayon::prelude::*;

use crate::host::{HostBackend, Real, largest, sum};

/// Rows to a task.
const ROWS: usize = 16;

/// The least number of tasks that a thread takes: 2¹⁷ elements outweigh waking it.
fn tasks_each(width: usize) -> usize {
    ((1 << 17) / (ROWS * width)).max(1)
}

/// The rows of `x` (f32 or f64) divided by their norms, or by `least` where that is more; zeros
/// where no magnitude reaches `epsilon` and `least` is 0. `None` on a device without these kernels.
pub(super) fn l2_normalize(x: &Tensor<2>, epsilon: f64, least: f64) -> Option<Tensor<2>> {
    let x = x.clone().into_dispatch();
    let kind = match &x.kind {
        DispatchTensorKind::Autodiff(inner) => inner.as_ref(),
        kind => kind,
    };
    match kind {
        #[cfg(feature = "flex")]
        DispatchTensorKind::Flex(_) => {}
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(_) => {}
        #[allow(unreachable_patterns)] // With every backend of Burn's on.
        _ => return None,
    }
    Some(Tensor::from_dispatch(Dispatch::l2_normalize(
        x, epsilon, least,
    )))
}

#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
)]
pub(super) trait NormalizeOps: Backend {
    /// `y_i = x_i / max(‖x_i‖, least)`.
    fn l2_normalize(x: FloatTensor<Self>, epsilon: f64, least: f64) -> FloatTensor<Self>;

    /// Beside `y` the reciprocal norms `[rows]`: 0 for rows without a direction, −1/`least` for
    /// those that are shorter.
    fn l2_normalize_with_norms(
        x: FloatTensor<Self>,
        epsilon: f64,
        least: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `(g_i − (g_i·y_i)·y_i) / ‖x_i‖`, or `g_i / least`.
    fn l2_normalize_backward(
        y: FloatTensor<Self>,
        reciprocal_norms: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

macro_rules! implement {
    ($backend:ty, $feature:literal) => {
        #[cfg(feature = $feature)]
        impl NormalizeOps for $backend {
            fn l2_normalize(x: FloatTensor<Self>, epsilon: f64, least: f64) -> FloatTensor<Self> {
                Self::l2_normalize_with_norms(x, epsilon, least).0
            }

            fn l2_normalize_with_norms(
                x: FloatTensor<Self>,
                epsilon: f64,
                least: f64,
            ) -> (FloatTensor<Self>, FloatTensor<Self>) {
                match x.dtype() {
                    DType::F64 => forward::<Self, f64>(x, epsilon, least),
                    _ => forward::<Self, f32>(x, epsilon, least),
                }
            }

            fn l2_normalize_backward(
                y: FloatTensor<Self>,
                reciprocal_norms: FloatTensor<Self>,
                gradient: FloatTensor<Self>,
            ) -> FloatTensor<Self> {
                match y.dtype() {
                    DType::F64 => backward::<Self, f64>(y, reciprocal_norms, gradient),
                    _ => backward::<Self, f32>(y, reciprocal_norms, gradient),
                }
            }
        }
    };
}
implement!(burn::backend::Flex, "flex");
implement!(burn::backend::NdArray, "ndarray");

fn forward<B: HostBackend, T: Real>(
    x: FloatTensor<B>,
    epsilon: f64,
    least: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [rows, width] = [x.shape()[0], x.shape()[1]];
    let device = x.device();
    let mut y = B::elements::<T>(&x).into_owned();
    let mut reciprocal_norms = vec![T::ZERO; rows];
    y.par_chunks_mut(ROWS * width)
        .zip(reciprocal_norms.par_chunks_mut(ROWS))
        .with_min_len(tasks_each(width))
        .for_each(|(rows, reciprocal_norms)| {
            for (row, reciprocal) in rows.chunks_exact_mut(width).zip(reciprocal_norms) {
                *reciprocal = normalize(row, T::of(epsilon), T::of(least));
            }
        });
    (
        B::float_from_data(TensorData::new(y, [rows, width]), &device),
        B::float_from_data(TensorData::new(reciprocal_norms, [rows]), &device),
    )
}

/// Divides a row by its norm, of which it returns the reciprocal; see
/// [`NormalizeOps::l2_normalize_with_norms`].
fn normalize<T: Real>(row: &mut [T], epsilon: T, least: T) -> T {
    // Relative to the largest magnitude squares neither overflow nor vanish.
    let largest = largest(row, |x| x.abs());
    let is_short = |row: &[T]| sum(row, row, |x, y| (x / least) * (y / least)) < T::ONE;
    if largest < least && is_short(row) {
        row.iter_mut().for_each(|x| *x = *x / least);
        return T::ZERO - T::ONE / least;
    }
    if largest < epsilon && !row.iter().any(|x| x.is_nan()) {
        row.fill(T::ZERO);
        return T::ZERO;
    }
    row.iter_mut().for_each(|x| *x = *x / largest);
    let norm = sum(row, row, |x, y| x * y).sqrt();
    row.iter_mut().for_each(|x| *x = *x / norm);
    T::ONE / norm / largest
}

fn backward<B: HostBackend, T: Real>(
    y: FloatTensor<B>,
    reciprocal_norms: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> FloatTensor<B> {
    let [rows, width] = [y.shape()[0], y.shape()[1]];
    let device = y.device();
    let mut x = B::elements::<T>(&gradient).into_owned();
    let (y, reciprocal_norms) = (B::elements::<T>(&y), B::elements::<T>(&reciprocal_norms));
    x.par_chunks_mut(ROWS * width)
        .zip(y.par_chunks(ROWS * width))
        .zip(reciprocal_norms.par_chunks(ROWS))
        .with_min_len(tasks_each(width))
        .for_each(|((gradients, rows), reciprocal_norms)| {
            let rows = gradients
                .chunks_exact_mut(width)
                .zip(rows.chunks_exact(width));
            for ((gradient, y), &reciprocal) in rows.zip(reciprocal_norms) {
                if reciprocal == T::ZERO {
                    gradient.fill(T::ZERO);
                    continue;
                }
                if reciprocal < T::ZERO {
                    gradient
                        .iter_mut()
                        .for_each(|g| *g = (T::ZERO - *g) * reciprocal);
                    continue;
                }
                let along = sum(gradient, y, |g, y| g * y);
                for (g, &y) in gradient.iter_mut().zip(y) {
                    *g = (*g - along * y) * reciprocal;
                }
            }
        });
    B::float_from_data(TensorData::new(x, [rows, width]), &device)
}

#[derive(Debug)]
struct Normalize;

impl<B: NormalizeOps, C: CheckpointStrategy> NormalizeOps for Autodiff<B, C> {
    fn l2_normalize(x: FloatTensor<Self>, epsilon: f64, least: f64) -> FloatTensor<Self> {
        match Normalize
            .prepare::<C>([x.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let (y, norms) = B::l2_normalize_with_norms(x.into_primitive(), epsilon, least);
                prep.finish((y.clone(), norms), y)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::l2_normalize(x.into_primitive(), epsilon, least))
            }
        }
    }

    fn l2_normalize_with_norms(
        _: FloatTensor<Self>,
        _: f64,
        _: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        panic!("l2_normalize has no second derivative")
    }

    fn l2_normalize_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        panic!("l2_normalize has no second derivative")
    }
}

impl<B: NormalizeOps> Backward<B, 1> for Normalize {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<B>(&ops.node);
        let [node] = ops.parents;
        if let Some(node) = node {
            let (y, norms) = ops.state;
            grads.register::<B>(node.id, B::l2_normalize_backward(y, norms, gradient));
        }
    }
}
