//! l2 normalisation that survives zero rows, huge and tiny norms, and half precision.

#[cfg(feature = "_cpu")]
mod cpu;

use burn::tensor::{DType, Tensor};

use crate::check::compute_dtype;

/// Rows without a magnitude of this have no direction.
pub(super) const VANISHING: f64 = 1e-30;

/// Divides each row by its l2 norm: `x / ‖x‖`.
///
/// Each row is first divided by its largest magnitude, a constant to the gradient (the result does
/// not depend on it), so that squares neither overflow nor vanish: norms of 1e±20 come out exact to
/// rounding in f32. Half-precision input is normalised in f32 and returned in its own dtype.
///
/// A row has no direction when its largest magnitude is below ε: 2⁻¹⁴ in f16 (its smallest normal
/// number, so that `1/ε` is finite too), 1e-30 in every other dtype. Such a row, zero rows among
/// them, comes out as zeros and receives a zero gradient: its similarity with anything is 0, and
/// no gradient is ever NaN or infinite on its account. A NaN or an infinity in a row makes the row
/// NaN.
///
/// # Shapes
///
/// - `x`: `[rows, width]`
/// - returns `[rows, width]`, in the dtype of `x`
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::similarity::l2_normalize;
///
/// let x = Tensor::<2>::from_data([[3e20, 4e20], [0.0, 0.0]], &Device::default());
/// let rows = l2_normalize(x).into_data().try_to_vec::<f32>().unwrap();
/// assert!((rows[0] - 0.6).abs() < 1e-6 && (rows[1] - 0.8).abs() < 1e-6);
/// assert_eq!(rows[2..], [0.0, 0.0]);
/// ```
pub fn l2_normalize(x: Tensor<2>) -> Tensor<2> {
    let dtype = x.dtype();
    let epsilon = match dtype {
        DType::F16 => 2f64.powi(-14),
        _ => VANISHING,
    };
    let x = x.cast(compute_dtype(dtype));
    #[cfg(feature = "_cpu")]
    if let Some(normalized) = cpu::l2_normalize(&x, epsilon, 0.0) {
        return normalized.cast(dtype);
    }
    let largest = x.clone().detach().abs().max_dim(1);
    let vanishes = largest.clone().lower_elem(epsilon);
    // 1 where the row has a direction, 0 where not; a product, unlike a mask, keeps NaN.
    let keep = vanishes.clone().bool_not().float().cast(x.dtype());
    let scaled = x / largest.mask_fill(vanishes, 1.0) * keep.clone();
    // At least 1 in every row that is kept; 1 instead of 0 in the others.
    let squared_norm = scaled.clone().square().sum_dim(1) + (keep.neg() + 1.0);
    (scaled / squared_norm.sqrt()).cast(dtype)
}

/// `x / max(‖x‖, least)` of f32 or f64 rows: those of smaller norm stay shorter than 1.
pub(super) fn l2_normalize_above(x: Tensor<2>, least: f64) -> Tensor<2> {
    #[cfg(feature = "_cpu")]
    if let Some(normalized) = cpu::l2_normalize(&x, VANISHING, least) {
        return normalized;
    }
    let scaled = x.clone() * (1.0 / least);
    // One element of 1 makes a norm of 1: squares of larger ones, which may overflow, change
    // nothing.
    let bounded = scaled.clone().detach().clamp(-1.0, 1.0);
    let short = bounded.square().sum_dim(1).lower_elem(1.0);
    let short = short.expand(x.dims());
    l2_normalize(x).mask_where(short, scaled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn a_vanishing_row_gets_zeros_and_a_zero_gradient() {
        let device = Device::default().autodiff();
        let x =
            Tensor::<2>::from_data([[0.0, 0.0], [1e-31, 0.0], [0.0, 2.0]], &device).require_grad();
        let y = l2_normalize(x.clone());
        let gradient = x.grad(&y.clone().sum().backward()).unwrap();
        assert_eq!(
            y.into_data().try_to_vec::<f32>().unwrap(),
            [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
        );
        assert_eq!(
            gradient.into_data().try_to_vec::<f32>().unwrap(),
            [0.0, 0.0, 0.0, 0.0, 0.5, 0.0]
        );
    }

    #[test]
    fn norms_below_the_least_count_as_the_least() {
        // Norms of 5e-8 and, from elements each below the least, of 2e-7; zeros; NaN.
        let rows = [
            [5e-8, 0.0, 0.0, 0.0],
            [1e-7 - 1e-14; 4],
            [0.0; 4],
            [f64::NAN; 4],
        ];
        let device = Device::default().autodiff();
        let x = Tensor::<2>::from_data(rows, (&device, DType::F64)).require_grad();
        let y = l2_normalize_above(x.clone(), 1e-7);
        let weights = Tensor::<2>::from_data([[1.0, 0.0, 0.0, 0.0]], (&device, DType::F64));
        let gradient = x
            .grad(&(y.clone() * weights.expand([4, 4])).sum().backward())
            .unwrap();
        let elements = |t: Tensor<2>| t.into_data().try_to_vec::<f64>().unwrap();
        let (y, gradient) = (elements(y), elements(gradient));
        let close = |x: f64, expected: f64| assert!((x / expected - 1.0).abs() < 1e-9, "{x}");
        close(y[0], 0.5);
        close(gradient[0], 1e7);
        close(y[4], 0.5);
        close(gradient[4], 0.75 / (2.0 * (1e-7 - 1e-14)));
        close(gradient[5], -0.25 / (2.0 * (1e-7 - 1e-14)));
        assert_eq!(y[8..12], [0.0; 4]);
        close(gradient[8], 1e7);
        assert!(y[12..].iter().all(|x| x.is_nan()));
    }

    #[test]
    fn nan_and_infinity_make_the_row_nan() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let x = Tensor::<2>::from_data([[bad, 0.0], [0.0, 1.0]], &Device::default());
            let rows = l2_normalize(x).into_data().try_to_vec::<f32>().unwrap();
            assert!(rows[0].is_nan(), "{bad} gave {rows:?}");
            assert_eq!(rows[2..], [0.0, 1.0]);
        }
    }
}
