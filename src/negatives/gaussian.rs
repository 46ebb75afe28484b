//! Gaussian noise as negatives, ITContrast's penalty against overfitting.

use burn::config::Config;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::random::{Purpose, Random};

/// Configuration of [`GaussianNegatives`].
#[derive(Config, Debug, PartialEq)]
pub struct GaussianNegativesConfig {
    /// How many vectors, Z. Default 128 (ITContrast).
    #[config(default = 128)]
    pub count: usize,
    /// Seed of the numbers. Default 0.
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
/// Source: "ITContrast: Contrastive Learning with Hard Negative Synthesis for Image-Text Matching", equation 7.
#[derive(Clone, Debug)]
pub struct GaussianNegatives {
    count: usize,
    seed: u64,
}

impl GaussianNegatives {
    /// The vectors of a step: drawn anew each, and the same for the same seed and step on every device.
    /// `None` where the count is 0.
    ///
    /// # Shapes
    ///
    /// - returns `[Z, width]`, in f32
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::Device;
    /// use burn_contrastive::negatives::GaussianNegativesConfig;
    ///
    /// let device = Device::default();
    /// let negatives = GaussianNegativesConfig::new().init();
    /// let noise = negatives.draw(7, 16, &device).unwrap();
    /// assert_eq!(noise.dims(), [128, 16]);
    /// ```
    pub fn draw(&self, step: u64, width: usize, device: &Device) -> Option<Tensor<2>> {
        if self.count == 0 {
            return None;
        }
        let mut random = Random::new(self.seed, step, Purpose::Noise);
        let values: Vec<f32> = (0..self.count * width)
            .map(|_| random.normal() as f32)
            .collect();
        let data = TensorData::new(values, [self.count, width]);
        Some(Tensor::from_data(data, (device, DType::F32)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_decides_and_nothing_else() {
        let device = Device::default();
        let negatives = GaussianNegativesConfig::new().with_count(4).init();
        let at = |step| negatives.draw(step, 3, &device).unwrap().into_data();
        assert_eq!(at(1), at(1));
        assert_ne!(at(1), at(2));
    }

    #[test]
    fn none_are_drawn_of_none() {
        let negatives = GaussianNegativesConfig::new().with_count(0).init();
        assert!(negatives.draw(0, 3, &Device::default()).is_none());
    }
}
