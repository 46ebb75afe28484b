//! Max-margin, the cosine-embedding loss over all pairs.
//!
//! ```text
//! L_i = 1 − c_ii + Σ_{j≠i} [c_ij − m]₊
//! L   = mean over i of L_i
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | `c_ij` | cosine of image `i` and text `j` |
//! | m | [`MaxMarginConfig::margin`], 0.5 by default |
//!
//! **Gradient.** `∂L/∂c_ii = −1/N`; off the diagonal `∂L/∂c_ij = 1/N` where `c_ij > m`, else 0.
//!
//! **Cost.** `N²·D` time, `N·D` memory; value and gradient in one pass over the pairs.
//!
//! **Degenerate cases.** One pair costs `1 − c`. N equal embeddings give `(N − 1)·(1 − m)`. A zero row
//! has similarity 0 to everything and gets a zero gradient.
//!
//! **Sources.** "Relaxing Contrastiveness in Multimodal Representation Learning" (ReCo) compares with
//! it without a formula. Hadsell et al. 2006 state it in squared distances; this is the cosine form,
//! PyTorch's `CosineEmbeddingLoss` over all `N²` pairs, divided by `N` instead of `N²`.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Tensor;

use super::BatchReduction;
use super::named::{Parameter, by_name};
use crate::check::{self, ConfigError};
use crate::pairwise::{Expr, Pairs, rows};
use crate::schedule::Settings;
use crate::similarity::SimilarityConfig;

/// Configuration of [`MaxMargin`].
#[derive(Config, Debug, PartialEq)]
pub struct MaxMarginConfig {
    /// Cosine m above which a negative costs. Default 0.5, a choice of this crate.
    #[config(default = 0.5)]
    pub margin: f64,
    /// How the losses of the pairs become one. Default: their mean.
    #[config(default = "BatchReduction::Mean")]
    pub reduction: BatchReduction,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl MaxMarginConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Where `margin` is not finite.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (low, high) = (f32::MIN as f64, f32::MAX as f64);
        check::range("MaxMarginConfig", "margin", self.margin, low, high)
    }

    /// Builds the objective; it has no parameters.
    ///
    /// # Panics
    ///
    /// Where [`check`](Self::check) fails.
    #[track_caller]
    pub fn init(&self) -> MaxMargin {
        check::or_panic(self.check());
        MaxMargin {
            config: self.clone(),
        }
    }
}

/// The cosine-embedding loss over all pairs; built by [`MaxMarginConfig::init`].
///
/// `L = mean_i ( 1 − c_ii + Σ_{j≠i} [c_ij − m]₊ )`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct MaxMargin {
    #[module(skip)]
    config: MaxMarginConfig,
}

impl MaxMargin {
    /// The same objective with another [`margin`](Settings::margin).
    ///
    /// # Panics
    ///
    /// Where it is out of its range.
    #[track_caller]
    pub fn with_settings(self, settings: &Settings) -> Self {
        let Self { mut config } = self;
        settings.margin.inspect(|&margin| config.margin = margin);
        config.init()
    }

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
    /// use burn_contrastive::objective::MaxMarginConfig;
    ///
    /// let device = Device::default();
    /// let equal = Tensor::<2>::ones([4, 3], &device);
    /// let loss = MaxMarginConfig::new().init().forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 3.0 * 0.5).abs() < 1e-5);
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
        check::paired("MaxMargin", ("image", &image), ("text", &text));
        let [image, text] = [image, text].map(|x| self.config.similarity.prepare(x));
        let pairs = self.config.similarity.pairs(image, text);
        let similarity = pairs.similarity();
        let pull = Expr::constant(1.0) - &similarity;
        let push = (&similarity - self.config.margin).relu();
        (pairs, Expr::select(&Expr::diagonal(), &pull, &push))
    }
}

display!(MaxMargin: margin, reduction);

by_name! {
    MaxMargin = MaxMarginConfig, "max-margin";
    parameters(config) = [
        Parameter::new("margin", &mut config.margin),
        Parameter::new("reduction", &mut config.reduction),
    ];
    settings(objective, settings) = *objective = objective.clone().with_settings(settings);
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn two_pairs_by_hand() {
        // Cosines 0.6 for the positives, 0.8 for the negatives.
        let device = Device::default();
        let image = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0]], &device);
        let text = Tensor::<2>::from_data([[0.6, 0.8], [0.8, 0.6]], &device);
        let at = |margin| {
            let objective = MaxMarginConfig::new().with_margin(margin).init();
            let loss = objective.forward(image.clone(), text.clone());
            loss.into_scalar::<f32>()
        };
        assert!((at(0.5) - (0.4 + 0.3)).abs() < 1e-6);
        assert!((at(0.9) - 0.4).abs() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "`margin` is NaN, it must lie in")]
    fn a_margin_that_is_no_number_is_refused() {
        MaxMarginConfig::new().with_margin(f64::NAN).init();
    }
}
