//! The suite that every backend must pass, and what its tests share.

#[macro_use]
mod stamp;

mod blocks;
#[cfg(all(any(feature = "cpu", feature = "cuda"), feature = "flex"))]
mod catalogue;
mod contrastive;
mod image_text_contrastive;
mod info_nce;
mod late_interaction;
mod momentum_loop;
mod negatives;
mod pairwise;
mod pointwise;
mod pretraining;
mod retrieval;
mod sharded;
mod similarity;
mod synthesis;
mod synthesis_matches;
mod weighting;
mod weights_of_queue;
mod workers;

use approx::abs_diff_eq;
use burn::tensor::{DType, Device, Gradients, Int, Tensor, TensorData};
use burn_contrastive::pairwise::Evaluation;
use proptest::prelude::ProptestConfig;

use crate::oracle::Matrix;

// --- backends ------------------------------------------------------------------------------------

/// A backend under test.
pub struct Backend {
    /// Without autodiff.
    pub device: Device,
    /// The float dtypes besides f32 that tests run in.
    pub dtypes: Vec<DType>,
    /// Those of them that it must support.
    #[cfg_attr(not(feature = "_cube"), allow(dead_code))] // Read by tests of kernels.
    pub required: Vec<DType>,
}

impl Backend {
    /// `required` must be supported; half precision that an adapter offers beyond that is tested
    /// too. (Not f64: what shader languages offer under that name computes exponentials in less.)
    pub fn new(device: Device, required: &[DType]) -> Self {
        let offered =
            |dtype| [DType::F16, DType::BF16].contains(&dtype) && device.supports_dtype(dtype);
        let dtypes = [DType::F64, DType::F16, DType::BF16]
            .into_iter()
            .filter(|&dtype| required.contains(&dtype) || offered(dtype))
            .collect();
        let required = required.to_vec();
        Self {
            device,
            dtypes,
            required,
        }
    }

    /// The device, with autodiff.
    pub fn autodiff(&self) -> Device {
        self.device.clone().autodiff()
    }

    /// The device, with autodiff and gradient checkpointing.
    pub fn checkpointing(&self) -> Device {
        self.autodiff().gradient_checkpointing()
    }

    /// Whether tests run in f64 too; says so where they do not.
    pub fn has_f64(&self) -> bool {
        let has_f64 = self.dtypes.contains(&DType::F64);
        if !has_f64 {
            println!("{:?} has no f64: nothing to check", self.device);
        }
        has_f64
    }

    pub fn half_dtypes(&self) -> Vec<DType> {
        let half: Vec<_> = self
            .dtypes
            .iter()
            .copied()
            .filter(|&d| d != DType::F64)
            .collect();
        if half.is_empty() {
            println!("{:?} has no half precision: nothing to check", self.device);
        }
        half
    }

    /// An untracked tensor.
    pub fn tensor(&self, matrix: &Matrix, dtype: DType) -> Tensor<2> {
        on(&self.device, matrix, dtype)
    }

    /// The matrix after rounding to `dtype`.
    pub fn rounded(&self, matrix: &Matrix, dtype: DType) -> Matrix {
        with_values(matrix, &elements(self.tensor(matrix, dtype)))
    }
}

/// The rounding error of a half-precision dtype, relative.
pub fn ulp(dtype: DType) -> f64 {
    if dtype == DType::F16 { 1e-3 } else { 8e-3 }
}

// --- matrices and tensors ------------------------------------------------------------------------

/// Values in [-1, 1] from a seed, the same for every backend.
pub fn random(rows: usize, width: usize, seed: u64) -> Matrix {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    let mut rng = StdRng::seed_from_u64(seed);
    let values = (0..rows * width)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    Matrix::new(rows, width, values)
}

/// `count` copies of one random row.
pub fn equal_rows(count: usize, width: usize, seed: u64) -> Matrix {
    Matrix::new(count, width, random(1, width, seed).values.repeat(count))
}

/// A matrix of the shape of `x`.
pub fn with_values(x: &Matrix, values: &[f64]) -> Matrix {
    Matrix::new(x.rows, x.width, values.to_vec())
}

pub fn scaled(x: &Matrix, factor: f64) -> Matrix {
    let values = x.values.iter().map(|v| v * factor).collect();
    Matrix::new(x.rows, x.width, values)
}

/// The matrix as an untracked tensor on `device`.
pub fn on(device: &Device, matrix: &Matrix, dtype: DType) -> Tensor<2> {
    let data = TensorData::new(matrix.values.clone(), [matrix.rows, matrix.width]);
    Tensor::from_data(data.convert_dtype(dtype), (device, dtype))
}

pub fn ids_on(device: &Device, ids: &[i64]) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(ids.to_vec(), [ids.len()]), device)
}

pub fn elements<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor
        .into_data()
        .convert_dtype(DType::F64)
        .try_to_vec()
        .unwrap()
}

/// The elements of the gradient by `leaf`, which must have one.
#[track_caller]
pub fn gradient<const D: usize>(leaf: &Tensor<D>, gradients: &Gradients) -> Vec<f64> {
    elements(leaf.grad(gradients).expect("a gradient"))
}

// --- comparisons ---------------------------------------------------------------------------------

/// Every element within `tolerance` of the expected one, relative to the largest expected one.
#[track_caller]
pub fn assert_close(actual: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    for (k, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!(
            abs_diff_eq!(a, e, epsilon = tolerance * scale + 1e-30),
            "element {k}: {a:e}, expected {e:e} (largest {scale:e}, tolerance {tolerance:e})\n\
             {actual:?}\n{expected:?}"
        );
    }
}

/// Within `tolerance`, relative to the expected value where that exceeds one.
#[track_caller]
pub fn assert_near(actual: f64, expected: f64, tolerance: f64) {
    assert!(
        (actual - expected).abs() <= tolerance * (1.0 + expected.abs()),
        "{actual}, expected {expected} (tolerance {tolerance:e})"
    );
}

#[track_caller]
pub fn assert_finite<'a>(values: impl IntoIterator<Item = &'a f64>) {
    for (k, value) in values.into_iter().enumerate() {
        assert!(value.is_finite(), "element {k} is {value}");
    }
}

/// Streaming and automatic evaluation against the dense one.
pub fn compare_with_dense<T>(run: impl Fn(Evaluation) -> T, compare: impl Fn(&T, &T)) {
    let dense = run(Evaluation::Dense);
    for evaluation in [Evaluation::Auto, Evaluation::Streaming] {
        println!("{evaluation:?}");
        compare(&run(evaluation), &dense);
    }
}

/// `f` panics, and says `message`.
#[track_caller]
pub fn assert_panics(message: &str, f: impl FnOnce()) {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).expect_err("no panic");
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(panic.downcast_ref::<&str>().copied())
        .expect("a message");
    assert!(text.contains(message), "`{text}` does not say `{message}`");
}

/// Settings of a property that runs on this many random inputs.
pub fn property(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
