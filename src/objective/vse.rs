//! VSE, the sum of hinges: every negative closer than the positive by less than a margin costs.
//!
//! ```text
//! L_i = Σ_{j≠i} [α + c_ij − c_ii]₊ + Σ_{j≠i} [α + c_ji − c_ii]₊
//! L   = mean over i of L_i
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | `c_ij` | cosine of image `i` and text `j` |
//! | α | [`VseConfig::margin`], 0.2 by default |
//!
//! **Gradient.** `∂L/∂c_ij = ( [α + c_ij > c_ii] + [α + c_ij > c_jj] ) / N` off the diagonal, and
//! `∂L/∂c_ii` is minus the number of violations of anchors `i`, over `N`. At the kink it is 0.
//!
//! **Cost.** `N²·D` time, `N·D` memory; value and gradient in one pass over the pairs.
//!
//! **Degenerate cases.** One pair has no negatives: loss 0, gradient 0. N equal embeddings give
//! `2·(N − 1)·α`. A zero row has similarity 0 to everything and gets a zero gradient.
//!
//! **Sources.** Faghri et al. 2018, equation 5 (VSE++, where this is the baseline); "Contrastive Learning of
//! Visual-Semantic Embeddings", equation 2. Faghri's code sums over the batch: [`BatchReduction::Sum`].

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Tensor;

use super::BatchReduction;
use super::named::{Parameter, by_name};
use crate::check::{self, ConfigError};
use crate::pairwise::{Expr, Pairs, columns, rows};
use crate::schedule::Settings;
use crate::similarity::{SimilarityConfig, rowwise_dot};

/// Configuration of [`Vse`].
#[derive(Config, Debug, PartialEq)]
pub struct VseConfig {
    /// Margin α by which a positive must be more similar than a negative. Default 0.2 (VSE++).
    #[config(default = 0.2)]
    pub margin: f64,
    /// How the losses of the pairs become one. Default: their mean.
    #[config(default = "BatchReduction::Mean")]
    pub reduction: BatchReduction,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl VseConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Where `margin` is negative or not finite.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::range("VseConfig", "margin", self.margin, 0.0, f64::MAX)
    }

    /// Builds the objective; it has no parameters.
    ///
    /// # Panics
    ///
    /// Where [`check`](Self::check) fails.
    #[track_caller]
    pub fn init(&self) -> Vse {
        check::or_panic(self.check());
        Vse {
            config: self.clone(),
        }
    }
}

/// The sum of hinges over the cosines of paired embeddings; built by [`VseConfig::init`].
///
/// `L = mean_i Σ_{j≠i} ( [α + c_ij − c_ii]₊ + [α + c_ji − c_ii]₊ )`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Vse {
    #[module(skip)]
    config: VseConfig,
}

impl Vse {
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
    /// use burn_contrastive::objective::VseConfig;
    ///
    /// let device = Device::default();
    /// let equal = Tensor::<2>::ones([4, 3], &device);
    /// let loss = VseConfig::new().init().forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 2.0 * 3.0 * 0.2).abs() < 1e-5);
    /// ```
    #[track_caller]
    pub fn forward(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        let count = image.dims()[0];
        let (pairs, [by_row, by_column]) = self.hinges(image, text);
        self.config
            .reduction
            .of_sum(pairs.total(&(by_row + by_column)), count)
    }

    /// The loss of each pair: the violations of its image and those of its text.
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
        let (pairs, [by_row, by_column]) = self.hinges(image, text);
        let results = pairs.reduce(&[rows().sum(&by_row), columns().sum(&by_column)]);
        results[0].clone() + results[1].clone()
    }

    /// The violations of images, by row, and of texts, by column.
    #[track_caller]
    fn hinges(&self, image: Tensor<2>, text: Tensor<2>) -> (Pairs, [Expr; 2]) {
        check::paired("Vse", ("image", &image), ("text", &text));
        let [image, text] = [image, text].map(|x| self.config.similarity.prepare(x));
        let positive = rowwise_dot(image.clone(), text.clone());
        let mut pairs = self.config.similarity.pairs(image, text);
        let similarity = pairs.similarity();
        let anchors = [pairs.row(positive.clone()), pairs.column(positive)];
        // A positive is no negative: −∞ leaves 0 of it, and NaN where it is NaN.
        let (diagonal, never) = (Expr::diagonal(), Expr::constant(f64::NEG_INFINITY));
        let margin = Expr::select(&diagonal, &never, &Expr::constant(self.config.margin));
        let hinges = anchors.map(|own| (&similarity - own + &margin).relu());
        (pairs, hinges)
    }
}

display!(Vse: margin, reduction);

by_name! {
    Vse = VseConfig, "vse";
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
    fn three_pairs_by_hand() {
        // Unit vectors at 0°, 90° and 180° against texts at 0°, 0° and 180°: cosines
        //  1  1 −1
        //  0  0  0
        // −1 −1  1
        let device = Device::default();
        let image = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], &device);
        let text = Tensor::<2>::from_data([[2.0, 0.0], [0.5, 0.0], [-3.0, 0.0]], &device);
        let objective = VseConfig::new().with_margin(0.5).init();
        let each = objective.forward_no_reduction(image.clone(), text.clone());
        // Rows: 0.5 + 0; 0.5 + 0.5; 0. Columns: 0; 1.5 + 0 (1 and −1 against 0); 0.
        let expected = [0.5, 1.0 + 1.5, 0.0];
        let each = each.into_data().try_to_vec::<f32>().unwrap();
        assert!(
            each.iter()
                .zip(expected)
                .all(|(l, e): (&f32, f32)| (l - e).abs() < 1e-6),
            "{each:?} against {expected:?}"
        );
        let mean = objective.forward(image.clone(), text.clone());
        assert!((mean.into_scalar::<f32>() - 1.0).abs() < 1e-6);
        let sum = VseConfig::new()
            .with_margin(0.5)
            .with_reduction(BatchReduction::Sum);
        let sum = sum.init().forward(image, text);
        assert!((sum.into_scalar::<f32>() - 3.0).abs() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "`margin` is -0.1, it must be finite and at least 0")]
    fn a_negative_margin_is_refused() {
        VseConfig::new().with_margin(-0.1).init();
    }

    #[test]
    fn displays_what_it_is_made_of() {
        let shown = VseConfig::new().init().to_string();
        assert!(
            shown.contains("Vse {margin: 0.2, reduction: Mean"),
            "{shown}"
        );
    }
}
