//! The orthogonality constraint: positives to cosine 1, negatives to cosine 0 from either side.
//!
//! ```text
//! L = Σ_i ( (1 − c_ii)² + λ Σ_{j≠i} c_ij² )
//! ```
//!
//! [`ReCo`](super::ReCo) without the maximum: a negative is drawn back where it is beyond orthogonal. The two
//! agree where no cosine is negative.
//!
//! | symbol | here |
//! |---|---|
//! | `c_ij` | cosine of image `i` and text `j`, each norm at least ε |
//! | λ | [`OrthogonalityConfig::negative_weight`], 0.6 by default |
//! | ε | [`OrthogonalityConfig::epsilon`], 1e-7 by default |
//!
//! **Gradient.** `∂L/∂c_ii = −2·(1 − c_ii)`; off the diagonal `∂L/∂c_ij = 2λ·c_ij`.
//!
//! **Cost.** `N²·D` time, `N·D` memory; value and gradient in one pass over the pairs.
//!
//! **Degenerate cases.** Those of ReCo.
//!
//! **Source.** "Relaxing Contrastiveness in Multimodal Representation Learning", equation 6, which gives no
//! λ: ReCo's. It is Barlow Twins' objective with samples in the place of features.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Tensor;

use super::BatchReduction;
use super::named::{Parameter, by_name};
use super::reco::pull_or;
use crate::check::{self, ConfigError};
use crate::pairwise::{Expr, Pairs, rows};
use crate::similarity::SimilarityConfig;

/// Configuration of [`Orthogonality`].
#[derive(Config, Debug, PartialEq)]
pub struct OrthogonalityConfig {
    /// Weight λ of the negatives. Default 0.6, ReCo's.
    #[config(default = 0.6)]
    pub negative_weight: f64,
    /// Least norm ε that an embedding is divided by. Default 1e-7, ReCo's.
    #[config(default = 1e-7)]
    pub epsilon: f64,
    /// How the losses of the pairs become one. Default: their sum (equation 6).
    #[config(default = "BatchReduction::Sum")]
    pub reduction: BatchReduction,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl OrthogonalityConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Where `negative_weight` is negative or not finite, or `epsilon` is not in [1e-30, 1].
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = "OrthogonalityConfig";
        check::range(name, "negative_weight", self.negative_weight, 0.0, f64::MAX)?;
        check::range(name, "epsilon", self.epsilon, 1e-30, 1.0)
    }

    /// Builds the objective; it has no parameters.
    ///
    /// # Panics
    ///
    /// Where [`check`](Self::check) fails.
    #[track_caller]
    pub fn init(&self) -> Orthogonality {
        check::or_panic(self.check());
        Orthogonality {
            config: self.clone(),
        }
    }
}

/// The orthogonality constraint on the cosines of paired embeddings; built by [`OrthogonalityConfig::init`].
///
/// `L = Σ_i ( (1 − c_ii)² + λ Σ_{j≠i} c_ij² )`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Orthogonality {
    #[module(skip)]
    config: OrthogonalityConfig,
}

impl Orthogonality {
    /// The loss, reduced over the batch.
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
    /// use burn_contrastive::objective::OrthogonalityConfig;
    ///
    /// let device = Device::default();
    /// let equal = Tensor::<2>::ones([4, 3], &device);
    /// let loss = OrthogonalityConfig::new().init().forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 0.6 * 4.0 * 3.0).abs() < 1e-5);
    /// ```
    #[track_caller]
    pub fn forward(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        let count = image.dims()[0];
        let (pairs, cost) = self.cost(image, text);
        self.config.reduction.of_sum(pairs.total(&cost), count)
    }

    /// The loss of each image: its positive, and its negatives among the texts.
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
        let (pairs, cost) = self.cost(image, text);
        pairs.reduce(&[rows().sum(&cost)]).remove(0)
    }

    /// The pairs, and the cost of one.
    #[track_caller]
    fn cost(&self, image: Tensor<2>, text: Tensor<2>) -> (Pairs, Expr) {
        check::paired("Orthogonality", ("image", &image), ("text", &text));
        let [image, text] =
            [image, text].map(|x| self.config.similarity.prepare_above(x, self.config.epsilon));
        let pairs = self.config.similarity.pairs(image, text);
        let push = pairs.similarity().square() * self.config.negative_weight;
        let cost = pull_or(&pairs, push);
        (pairs, cost)
    }
}

display!(Orthogonality: negative_weight, epsilon, reduction);

by_name! {
    Orthogonality = OrthogonalityConfig, "orthogonality";
    parameters(config) = [
        Parameter::new("lambda", &mut config.negative_weight),
        Parameter::new("reduction", &mut config.reduction),
    ];
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn two_pairs_by_hand() {
        // Cosines 0.6 and 0.6 for the positives, 0.8 and −0.8 for the negatives.
        let device = Device::default();
        let image = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 2.0]], &device);
        let text = Tensor::<2>::from_data([[0.6, 0.8], [-0.8, 0.6]], &device);
        let objective = OrthogonalityConfig::new().with_negative_weight(0.5).init();
        let each = objective.forward_no_reduction(image.clone(), text.clone());
        let each = each.into_data().try_to_vec::<f32>().unwrap();
        let expected = [0.16 + 0.5 * 0.64; 2];
        assert!(
            each.iter().zip(expected).all(|(l, e)| (l - e).abs() < 1e-6),
            "{each:?} against {expected:?}"
        );
        let sum = objective.forward(image, text).into_scalar::<f32>();
        assert!((sum - 0.96).abs() < 1e-5, "{sum}");
    }

    #[test]
    #[should_panic(expected = "`negative_weight` is -1, it must be finite and at least 0")]
    fn a_negative_weight_below_zero_is_refused() {
        OrthogonalityConfig::new().with_negative_weight(-1.0).init();
    }
}
