//! Gaussian noise as negatives: ITContrast's regularisation.

use burn::config::Config;
use burn::tensor::Tensor;

use crate::random::{Purpose, Random};
use crate::tensor::values_like;

/// Configuration of [`GaussianNegatives`].
#[derive(Config, Debug, PartialEq)]
pub struct GaussianNegativesConfig {
    /// Number of vectors, Z. Default 128 (ITContrast).
    #[config(default = 128)]
    pub count: usize,
    /// Seed of the values. Default 0.
    #[config(default = 0)]
    pub seed: u64,
}

impl GaussianNegativesConfig {
    /// Builds the source.
    pub fn init(&self) -> GaussianNegatives {
        GaussianNegatives {
            count: self.count,
            seed: self.seed,
        }
    }
}

/// Vectors from N(0, I), one set for both directions; built by [`GaussianNegativesConfig::init`].
///
/// Source: "ITContrast: Contrastive Learning with Hard Negative Synthesis for Image-Text Matching",
/// equation 7.
#[derive(Clone, Debug)]
pub struct GaussianNegatives {
    count: usize,
    seed: u64,
}

impl GaussianNegatives {
    /// The vectors of a step, with the width, dtype and device of `embeddings`: a function of the
    /// seed and the step, the same on every device. `None` if the count is 0.
    ///
    /// # Shapes
    ///
    /// - `embeddings`: `[N, D]`, the batch whose negatives they will be
    /// - returns `[Z, D]`
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::negatives::GaussianNegativesConfig;
    ///
    /// let image = Tensor::<2>::ones([8, 16], &Device::default());
    /// let noise = GaussianNegativesConfig::new().init().draw(&image, 7).unwrap();
    /// assert_eq!(noise.dims(), [128, 16]);
    /// ```
    pub fn draw(&self, embeddings: &Tensor<2>, step: u64) -> Option<Tensor<2>> {
        if self.count == 0 {
            return None;
        }
        let shape = [self.count, embeddings.dims()[1]];
        let mut random = Random::new(self.seed, step, Purpose::Noise);
        let values = (0..shape[0] * shape[1]).map(|_| random.normal());
        Some(values_like(values.collect(), shape, embeddings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn the_values_depend_on_the_step_alone() {
        let batch = Tensor::<2>::ones([2, 3], &Device::default());
        let negatives = GaussianNegativesConfig::new().with_count(4).init();
        let at = |step| negatives.draw(&batch, step).unwrap().into_data();
        assert_eq!(at(1), at(1));
        assert_ne!(at(1), at(2));
    }

    #[test]
    fn a_count_of_zero_gives_none() {
        let batch = Tensor::<2>::ones([2, 3], &Device::default());
        let negatives = GaussianNegativesConfig::new().with_count(0).init();
        assert!(negatives.draw(&batch, 0).is_none());
    }
}
