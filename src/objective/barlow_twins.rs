//! Barlow Twins: features of the two modalities agree, and are not redundant.
//!
//! ```text
//! L = Σ_k (1 − C_kk)² + λ Σ_{k≠l} C_kl²
//! ```
//!
//! `C_kl` is the cosine, along the batch, of feature `k` of the images and feature `l` of the
//! texts, λ is [`BarlowTwinsConfig::redundancy_weight`]. With [`center`](BarlowTwinsConfig::center)
//! each feature's mean over the batch is subtracted first, and `C_kl` is the correlation of two
//! features: as if they were standardised, as in the original.
//!
//! **Gradient.** `∂L/∂C_kk = −2·(1 − C_kk)`, `∂L/∂C_kl = 2λ·C_kl`.
//!
//! **Cost.** `N·D²` time and `N·D` memory: the `D×D` matrix is streamed too, and there is no `N×N`.
//!
//! **Degenerate cases.** A feature that is 0 in all samples (or, centred, constant up to rounding)
//! correlates with nothing: it costs 1 and gets a zero gradient. One centred pair costs `D`.
//!
//! **Sources.** Zbontar et al. 2021, equation 1 (λ from its section 2.2); "Relaxing Contrastiveness
//! in Multimodal Representation Learning", equation 5 (normalised along the batch, not centred).
//! The original adds 1e-5 to each variance, by its batch normalisation; here nothing is added.

use burn::tensor::{DType, Tensor};

use super::paired::NON_NEGATIVE;
use super::reco::squares;
use crate::check;
use crate::similarity::Embeddings;

config! {
    /// Configuration of [`BarlowTwins`]; its `similarity` compares features along the batch.
    pub struct BarlowTwinsConfig {
        /// Weight λ of the redundancy between different features, at least 0. Default 0.005
        /// (Zbontar et al.).
        redundancy_weight: f64 = 0.005,
        /// Whether each feature's mean over the batch is subtracted first. Default false (ReCo's
        /// reading).
        center: bool = false,
    }
}

objective! {
    /// Redundancy reduction between the features of two modalities, summed over them; built by
    /// [`BarlowTwinsConfig::init`].
    ///
    /// `L = Σ_k (1 − C_kk)² + λ Σ_{k≠l} C_kl²`, `C` the `D×D` cross-correlation.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::BarlowTwinsConfig;
    ///
    /// let equal = Tensor::<2>::ones([4, 3], &Device::default());
    /// // All features are the same: redundant, 6 ordered pairs of them.
    /// let loss = BarlowTwinsConfig::new().init().forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 0.005 * 6.0).abs() < 1e-6);
    /// ```
    BarlowTwins = BarlowTwinsConfig, "barlow-twins";
    ranges: redundancy_weight in NON_NEGATIVE;
    parameters: "lambda" = redundancy_weight, "center" = center;
    forward;
}

impl BarlowTwins {
    #[track_caller]
    fn loss(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        let [image, text] = [image, text].map(|x| self.features(x));
        let pairs = self.config.similarity.pairs(image, text);
        let cost = squares(&pairs, pairs.similarity(), self.config.redundancy_weight);
        pairs.total(&cost)
    }

    /// One row a feature, prepared to be compared: `[D, N]`.
    fn features(&self, embeddings: Tensor<2>) -> Embeddings {
        let dtype = check::compute_dtype(embeddings.dtype());
        let mut features = embeddings.cast(dtype).transpose();
        if self.config.center {
            features = centered(features);
        }
        self.config.similarity.prepare(features)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::tests::{assert_close, matrix};

    #[test]
    fn two_features_by_hand() {
        // Features (3, 4, 0) and (0, 0, 2) of the images, (1, 0, 0) and (0, 3, 4) of the texts:
        // C = [[0.6, 0.48], [0, 0.8]].
        let image = [[3.0, 0.0], [4.0, 0.0], [0.0, 2.0]];
        let text = [[1.0, 0.0], [0.0, 3.0], [0.0, 4.0]];
        let config = BarlowTwinsConfig::new().with_redundancy_weight(0.5);
        let expected = 0.16 + 0.04 + 0.5 * 0.48f32.powi(2);
        let loss = config.init().forward(matrix(image), matrix(text));
        assert_close(loss, [expected], 1e-6);
    }

    #[test]
    fn centring_ignores_offsets_and_constant_features() {
        let image = [[1.0, 0.1], [2.0, 0.1], [3.0, 0.1]];
        let text = [[20.0, 5.0], [19.0, 3.0], [18.0, 7.0]];
        let config = BarlowTwinsConfig::new()
            .with_redundancy_weight(0.5)
            .with_center(true);
        // C_00 = −1, C_01 = ½: (1, 2, 3) against (5, 3, 7); the constant feature is at 0.
        let expected = 4.0 + 1.0 + 0.5 * 0.25;
        let loss = config.init().forward(matrix(image), matrix(text));
        assert_close(loss, [expected], 1e-5);
    }
}
