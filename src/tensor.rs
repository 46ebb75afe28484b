//! What Burn's tensors lack: constants for either kind of device, and an exact `log1p`.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata, get_or_init_device_settings};
use burn::tensor::kind::Autodiff;
use burn::tensor::{DType, GradientCheckpointingStrategy, Int, Tensor, TensorData};

/// `x` as a constant in the autodiff context of `other`: plain, autodiff, or with gradient
/// checkpointing.
pub(crate) fn constant_like<const D: usize, const E: usize, K: Autodiff, L: Autodiff>(
    x: Tensor<D, K>,
    other: &Tensor<E, L>,
) -> Tensor<D, K> {
    constant_in(x, other.gradient_checkpointing_strategy())
}

/// `x` as a constant: without autodiff for `None`.
pub(crate) fn constant_in<const D: usize, K: Autodiff>(
    x: Tensor<D, K>,
    context: Option<GradientCheckpointingStrategy>,
) -> Tensor<D, K> {
    let x = x.without_autodiff();
    match context {
        Some(strategy) => x.autodiff().with_gradient_checkpointing_strategy(strategy),
        None => x,
    }
}

/// Indices as a constant on the device and in the autodiff context of `other`.
pub(crate) fn indices_like<const D: usize>(
    indices: impl IntoIterator<Item = usize>,
    other: &Tensor<D>,
) -> Tensor<1, Int> {
    let index = |index| i32::try_from(index).expect("an index below 2^31");
    let indices: Vec<i32> = indices.into_iter().map(index).collect();
    let length = indices.len();
    let data = TensorData::new(indices, [length]);
    constant_like(Tensor::from_data(data, &other.device().inner()), other)
}

/// The rows of `x` with these indices.
pub(crate) fn select_rows<const D: usize>(
    x: &Tensor<D>,
    indices: impl IntoIterator<Item = usize>,
) -> Tensor<D> {
    x.clone().select(0, indices_like(indices, x))
}

/// Values as a constant in the dtype, on the device and in the autodiff context of `other`.
pub(crate) fn values_like<const D: usize, const E: usize>(
    values: Vec<f64>,
    shape: [usize; D],
    other: &Tensor<E>,
) -> Tensor<D> {
    let data = TensorData::new(values, shape).convert_dtype(other.dtype());
    let values = Tensor::from_data(data, (&other.device().inner(), other.dtype()));
    constant_like(values, other)
}

/// The values of `x` on the host, row by row.
pub(crate) fn read<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

/// `log(1 + x)`, to rounding error for every `x`, with the derivative `1 / (1 + x)`.
///
/// Burn's own `log1p` is `ln(1 + x)` on CubeCL's runtimes: 0 for `|x|` below 6e-8 in f32.
#[allow(dead_code)] // Objectives will call it.
pub(crate) fn log1p<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(log1p_primitive::<Dispatch>(x.into_dispatch()))
}

/// [`log1p`] of a backend's tensor.
///
/// Near 0 it is `2·artanh(s)` with `s = x / (2 + x)`, as a series: the logarithms of some devices
/// have an absolute error near 1. The series is a constant to autodiff and comes as a correction of
/// `ln(1 + x)`, whose derivative is exact.
pub(crate) fn log1p_primitive<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let bool_dtype = get_or_init_device_settings::<B>(&x.device()).bool_dtype;
    let plain = B::float_detach(x.clone());
    // Where the series below is not taken: x ≤ −0.5 or x ≥ 1, infinity among them.
    let far = B::float_abs(B::float_sub_scalar(plain.clone(), 0.25.into()));
    let far = B::float_greater_equal_elem(far, 0.75.into(), bool_dtype);
    let log = B::float_log(B::float_add_scalar(x, 1.into()));
    let s = B::float_div(plain.clone(), B::float_add_scalar(plain, 2.into()));
    let square = B::float_mul(s.clone(), s.clone());
    let terms = artanh_terms(s.dtype() == DType::F64);
    let coefficient = |k: usize| 1.0 / (2 * k + 1) as f64;
    let mut series = B::float_mul_scalar(square.clone(), coefficient(terms - 1).into());
    for k in (1..terms - 1).rev() {
        series = B::float_add_scalar(series, coefficient(k).into());
        series = B::float_mul(series, square.clone());
    }
    series = B::float_add_scalar(series, 1.into());
    let series = B::float_mul_scalar(B::float_mul(series, s), 2.into());
    let correction = B::float_sub(series, B::float_detach(log.clone()));
    // Elsewhere the logarithm is right as it is.
    let correction = B::float_mask_fill(correction, far, 0.into());
    B::float_add(log, correction)
}

/// How many terms of `artanh(s) = s·(1 + s²/3 + s⁴/5 + …)` are exact to rounding for `|s| ≤ 0.34`.
pub(crate) const fn artanh_terms(is_f64: bool) -> usize {
    if is_f64 { 17 } else { 8 }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn log1p_and_its_derivative_are_exact_from_tiny_to_huge() {
        for (dtype, tolerance) in [(DType::F32, 2e-7), (DType::F64, 1e-15)] {
            let values = [
                -0.99, -0.6, -0.4, -1e-3, -1e-7, -1e-12, 0.0, 1e-35, 1e-20, 6e-8, 1e-4, 0.3, 1.0,
                1.1, 50.0, 1e20,
            ];
            let device = Device::default().autodiff();
            let x = Tensor::<1>::from_data(values, (&device, dtype)).require_grad();
            let read = |t: Tensor<1>| t.into_data().convert::<f64>().try_to_vec::<f64>().unwrap();
            let y = log1p(x.clone());
            assert_eq!(y.dtype(), dtype);
            let gradient = read(x.grad(&y.clone().sum().backward()).unwrap());
            let (x, y) = (read(x.inner()), read(y));
            for ((x, y), gradient) in x.into_iter().zip(y).zip(gradient) {
                let close = |actual: f64, expected: f64| {
                    let error = (actual - expected).abs();
                    assert!(
                        error <= tolerance * expected.abs(),
                        "{actual:e} at {x:e}, {dtype:?}"
                    );
                };
                close(y, x.ln_1p());
                close(gradient, 1.0 / (1.0 + x));
            }
        }
    }

    #[test]
    fn log1p_of_nan_minus_one_and_infinity() {
        let values = [f32::NAN, -2.0, -1.0, f32::INFINITY];
        let x = Tensor::<1>::from_data(values, &Device::default());
        let y = log1p(x).into_data().try_to_vec::<f32>().unwrap();
        assert!(y[0].is_nan() && y[1].is_nan());
        assert_eq!(y[2..], [f32::NEG_INFINITY, f32::INFINITY]);
    }
}
