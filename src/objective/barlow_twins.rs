//! Barlow Twins: features of the two modalities agree, and are not redundant.
//!
//! ```text
//! L = Σ_k (1 − C_kk)² + λ Σ_{k≠l} C_kl²
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | `C_kl` | cosine, along the batch, of feature `k` of the images and feature `l` of the texts |
//! | λ | [`BarlowTwinsConfig::redundancy_weight`], 0.005 by default |
//!
//! With [`center`](BarlowTwinsConfig::center) each feature's mean over the batch is subtracted first, and
//! `C_kl` is the correlation of two features: what standardising does, as in the original.
//!
//! **Gradient.** `∂L/∂C_kk = −2·(1 − C_kk)`, `∂L/∂C_kl = 2λ·C_kl`.
//!
//! **Cost.** `N·D²` time and `N·D` memory: the `D×D` matrix is streamed too, and no `N×N` one exists.
//!
//! **Degenerate cases.** A feature that is 0 in all samples (or, centred, constant up to rounding) correlates
//! with nothing: it costs 1 and gets a zero gradient. One centred pair costs `D`.
//!
//! **Sources.** Zbontar et al. 2021, equation 1 (λ from its section 2.2); "Relaxing Contrastiveness in Multimodal
//! Representation Learning", equation 5 (normalised along the batch, not centred). The original adds
//! 1e-5 to each variance, by its batch normalisation; here nothing is added.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{DType, Tensor};

use super::named::{Parameter, by_name};
use super::reco::pull_or;
use crate::check::{self, ConfigError};
use crate::similarity::SimilarityConfig;

/// Configuration of [`BarlowTwins`].
#[derive(Config, Debug, PartialEq)]
pub struct BarlowTwinsConfig {
    /// Weight λ of the redundancy between different features. Default 0.005 (Zbontar et al.).
    #[config(default = 0.005)]
    pub redundancy_weight: f64,
    /// Whether each feature's mean over the batch is subtracted first. Default false (ReCo's reading).
    #[config(default = false)]
    pub center: bool,
    /// How features are compared. Default: by cosine along the batch, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl BarlowTwinsConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Where `redundancy_weight` is negative or not finite.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (name, field) = ("BarlowTwinsConfig", "redundancy_weight");
        check::range(name, field, self.redundancy_weight, 0.0, f64::MAX)
    }

    /// Builds the objective; it has no parameters.
    ///
    /// # Panics
    ///
    /// Where [`check`](Self::check) fails.
    #[track_caller]
    pub fn init(&self) -> BarlowTwins {
        check::or_panic(self.check());
        BarlowTwins {
            config: self.clone(),
        }
    }
}

/// Redundancy reduction between the features of two modalities; built by [`BarlowTwinsConfig::init`].
///
/// `L = Σ_k (1 − C_kk)² + λ Σ_{k≠l} C_kl²`, `C` the `D×D` cross-correlation.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct BarlowTwins {
    #[module(skip)]
    config: BarlowTwinsConfig,
}

impl BarlowTwins {
    /// The loss of the batch, a sum over features.
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
    /// use burn_contrastive::objective::BarlowTwinsConfig;
    ///
    /// let device = Device::default();
    /// let equal = Tensor::<2>::ones([4, 3], &device);
    /// // All features are the same: redundant, 6 ordered pairs of them.
    /// let loss = BarlowTwinsConfig::new().init().forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 0.005 * 6.0).abs() < 1e-6);
    /// ```
    #[track_caller]
    pub fn forward(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        check::paired("BarlowTwins", ("image", &image), ("text", &text));
        let [image, text] = [image, text].map(|x| self.features(x));
        let pairs = self.config.similarity.pairs(image, text);
        let cost = pull_or(
            &pairs,
            pairs.similarity().square() * self.config.redundancy_weight,
        );
        pairs.total(&cost)
    }

    /// One row a feature, prepared to be compared: `[D, N]`.
    fn features(&self, embeddings: Tensor<2>) -> Tensor<2> {
        let dtype = check::compute_dtype(embeddings.dtype());
        let features = embeddings.cast(dtype).transpose();
        self.config.similarity.prepare(match self.config.center {
            true => centered(features),
            false => features,
        })
    }
}

/// Each row less its mean; zeros where that is no more than rounding.
fn centered(x: Tensor<2>) -> Tensor<2> {
    let epsilon = match x.dtype() {
        DType::F64 => f64::EPSILON,
        _ => f32::EPSILON as f64,
    };
    let rounding = 4.0 * epsilon * (x.dims()[1] as f64).sqrt();
    let largest = |x: &Tensor<2>| x.clone().detach().abs().max_dim(1);
    let centered = x.clone() - x.clone().mean_dim(1);
    let constant = largest(&centered).lower_equal(largest(&x) * rounding);
    // A product, unlike a mask, keeps NaN.
    let keep = constant.bool_not().float().cast(x.dtype());
    centered * keep
}

display!(BarlowTwins: redundancy_weight, center);

by_name! {
    BarlowTwins = BarlowTwinsConfig, "barlow-twins";
    parameters(config) = [
        Parameter::new("lambda", &mut config.redundancy_weight),
        Parameter::new("center", &mut config.center),
    ];
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn loss(config: &BarlowTwinsConfig, image: [[f32; 2]; 3], text: [[f32; 2]; 3]) -> f32 {
        let device = Device::default();
        let [image, text] = [image, text].map(|x| Tensor::<2>::from_data(x, &device));
        config.init().forward(image, text).into_scalar()
    }

    #[test]
    fn two_features_by_hand() {
        // Features (3, 4, 0) and (0, 0, 2) of the images, (1, 0, 0) and (0, 3, 4) of the texts:
        // C = [[0.6, 0.48], [0, 0.8]].
        let image = [[3.0, 0.0], [4.0, 0.0], [0.0, 2.0]];
        let text = [[1.0, 0.0], [0.0, 3.0], [0.0, 4.0]];
        let config = BarlowTwinsConfig::new().with_redundancy_weight(0.5);
        let expected = 0.16 + 0.04 + 0.5 * 0.48f32.powi(2);
        assert!((loss(&config, image, text) - expected).abs() < 1e-6);
    }

    #[test]
    fn centring_makes_it_blind_to_offsets_and_to_constant_features() {
        let image = [[1.0, 0.1], [2.0, 0.1], [3.0, 0.1]];
        let text = [[20.0, 5.0], [19.0, 3.0], [18.0, 7.0]];
        let config = BarlowTwinsConfig::new()
            .with_redundancy_weight(0.5)
            .with_center(true);
        // C_00 = −1, C_01 = ½: (1, 2, 3) against (5, 3, 7); the constant feature is at 0.
        let expected = 4.0 + 1.0 + 0.5 * 0.25;
        assert!((loss(&config, image, text) - expected).abs() < 1e-5);
    }

    #[test]
    #[should_panic(expected = "`redundancy_weight` is -1, it must be finite and at least 0")]
    fn a_weight_below_zero_is_refused() {
        BarlowTwinsConfig::new().with_redundancy_weight(-1.0).init();
    }
}
