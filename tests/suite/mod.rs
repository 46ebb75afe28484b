//! The suite that every backend must pass, and what its tests share.

pub mod contrastive;
pub mod image_text_contrastive;
pub mod info_nce;
pub mod momentum_loop;
pub mod negatives;
pub mod pairwise;
pub mod pointwise;
pub mod pretraining;
pub mod retrieval;
pub mod similarity;
pub mod synthesis;
pub mod synthesis_matches;
pub mod weighting;
pub mod weights_of_queue;

#[cfg(feature = "_cube")]
pub use pairwise::device;

use approx::abs_diff_eq;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::oracle::Matrix;

/// A backend under test.
pub struct Backend {
    /// Without autodiff.
    pub device: Device,
    /// The float dtypes besides f32 that tests run in.
    pub dtypes: Vec<DType>,
}

impl Backend {
    /// `required` must be supported; half precision that an adapter offers beyond that is tested too. (Not f64: what
    /// shader languages offer under that name computes exponentials in less.)
    pub fn new(device: Device, required: &[DType]) -> Self {
        let offered =
            |dtype| [DType::F16, DType::BF16].contains(&dtype) && device.supports_dtype(dtype);
        let dtypes = [DType::F64, DType::F16, DType::BF16]
            .into_iter()
            .filter(|&dtype| required.contains(&dtype) || offered(dtype))
            .collect();
        Self { device, dtypes }
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

    /// A tensor of these numbers, not tracked.
    pub fn tensor(&self, matrix: &Matrix, dtype: DType) -> Tensor<2> {
        on(&self.device, matrix, dtype)
    }
}

/// A tensor of these numbers on `device`.
pub fn on(device: &Device, matrix: &Matrix, dtype: DType) -> Tensor<2> {
    let data = TensorData::new(matrix.values.clone(), [matrix.rows, matrix.width]);
    Tensor::from_data(data.convert_dtype(dtype), (device, dtype))
}

/// Numbers in [-1, 1] from a seed, the same for every backend.
pub fn random(rows: usize, width: usize, seed: u64) -> Matrix {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    let mut rng = StdRng::seed_from_u64(seed);
    let values = (0..rows * width)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    Matrix::new(rows, width, values)
}

pub fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor
        .into_data()
        .convert_dtype(DType::F64)
        .try_to_vec()
        .unwrap()
}

/// Every element within `tolerance` of the expected one, relative to the largest expected one.
#[track_caller]
pub fn assert_close(actual: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    for (k, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!(
            abs_diff_eq!(a, e, epsilon = tolerance * scale + 1e-30),
            "element {k}: {a:e} against {e:e} (largest {scale:e}, tolerance {tolerance:e})\n{actual:?}\n{expected:?}"
        );
    }
}
