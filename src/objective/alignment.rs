//! Alignment: the mean squared distance of positives on the unit sphere.
//!
//! ```text
//! L = mean_i ‖u_i − v_i‖²
//! ```
//!
//! `u_i`, `v_i` are the normalised image and text `i`; for unit vectors a distance is `2 − 2·c_ii`.
//! Together with [`Uniformity`](super::Uniformity) it is what InfoNCE tends to for many negatives. Alone it is
//! a measure: as an objective one point for everything is its optimum.
//!
//! **Gradient.** `2·(u_i − v_i)/N` by `u_i`, minus that by `v_i`.
//!
//! **Cost.** `N·D` time and memory: no pair but the positives.
//!
//! **Degenerate cases.** Equal embeddings give 0, opposite ones 4. A zero row is at distance 1 of a unit vector.
//!
//! **Source.** Wang & Isola 2020, section 4.1.1, with their default exponent 2.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Tensor;

use super::named::by_name;
use crate::check::{self, ConfigError};
use crate::similarity::SimilarityConfig;

/// Configuration of [`Alignment`].
#[derive(Config, Debug, PartialEq)]
pub struct AlignmentConfig {
    /// How embeddings are compared: only `normalize` matters here. Default: on the unit sphere.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl AlignmentConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// None: every value will do.
    pub fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Builds the objective; it has no parameters.
    ///
    /// # Panics
    ///
    /// Where [`check`](Self::check) fails.
    #[track_caller]
    pub fn init(&self) -> Alignment {
        check::or_panic(self.check());
        Alignment {
            config: self.clone(),
        }
    }
}

/// The mean squared distance of positives; built by [`AlignmentConfig::init`].
///
/// `L = mean_i ‖u_i − v_i‖²` of normalised embeddings.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Alignment {
    #[module(skip)]
    config: AlignmentConfig,
}

impl Alignment {
    /// The loss, mean over the batch: a squared distance, in [0, 4].
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`, row `i` of one belongs to row `i` of the other
    /// - returns `[1]`, f64 for f64 embeddings, f32 for all others
    ///
    /// # Panics
    ///
    /// Where shapes, dtypes or devices of `image` and `text` differ, or the batch is empty.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::Tensor;
    /// use burn_contrastive::objective::AlignmentConfig;
    ///
    /// let device = Device::default();
    /// let image = Tensor::<2>::from_data([[1.0, 0.0]], &device);
    /// let text = Tensor::<2>::from_data([[0.0, 3.0]], &device);
    /// let loss = AlignmentConfig::new().init().forward(image, text);
    /// assert!((loss.into_scalar::<f32>() - 2.0).abs() < 1e-6);
    /// ```
    #[track_caller]
    pub fn forward(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        self.forward_no_reduction(image, text).mean()
    }

    /// The squared distance of each pair.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`
    /// - returns `[N]`
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    #[track_caller]
    pub fn forward_no_reduction(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        check::paired("Alignment", ("image", &image), ("text", &text));
        let [image, text] = [image, text].map(|x| self.config.similarity.prepare(x));
        (image - text).square().sum_dim(1).squeeze_dim(1)
    }
}

display!(Alignment:);

by_name! {
    Alignment = AlignmentConfig, "alignment";
    parameters(_config) = [];
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn distances_on_the_sphere_by_hand() {
        let device = Device::default();
        let image = Tensor::<2>::from_data([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0]], &device);
        let text = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], &device);
        let objective = AlignmentConfig::new().init();
        let each = objective.forward_no_reduction(image.clone(), text.clone());
        let each = each.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(each, [0.0, 2.0, 4.0]);
        assert_eq!(objective.forward(image, text).into_scalar::<f32>(), 2.0);
    }
}
