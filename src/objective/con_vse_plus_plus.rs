//! ConVSE++, the hardest negatives in a contrastive loss with a margin.
//!
//! ```text
//! L_i = [ −log( e^{c_ii/τ} / e^{(max_{j≠i} c_ij + α)/τ} ) ]₊ + [ −log( e^{c_ii/τ} / e^{(max_{j≠i} c_ji + α)/τ} ) ]₊
//! L   = mean over i of L_i
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | `c_ij` | cosine of image `i` and text `j` |
//! | α | [`ConVsePlusPlusConfig::margin`], 0.2 by default |
//! | τ | [`ConVsePlusPlusConfig::temperature`], 0.1 by default |
//!
//! **It is VSE++ divided by τ**, since `−log(e^a / e^b) = b − a`: the temperature scales the loss and
//! its gradient, and changes nothing else. Gradient, cost, degenerate cases and the warm-up are those
//! of [`VsePlusPlus`].
//!
//! **Source.** "Contrastive Learning of Visual-Semantic Embeddings", equations 12–14 and algorithm 1.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Tensor;

use super::named::{Parameter, by_name};
use super::vse_plus_plus::warm_up;
use super::{BatchReduction, VsePlusPlus, VsePlusPlusConfig};
use crate::check::{self, ConfigError};
use crate::schedule::Settings;
use crate::similarity::SimilarityConfig;

/// Configuration of [`ConVsePlusPlus`].
#[derive(Config, Debug, PartialEq)]
pub struct ConVsePlusPlusConfig {
    /// Margin α by which a positive must be more similar than a negative. Default 0.2, VSE++'s.
    #[config(default = 0.2)]
    pub margin: f64,
    /// Temperature τ, not learned. Default 0.1 (section IV).
    #[config(default = 0.1)]
    pub temperature: f64,
    /// Share of the hardest negatives, in [0, 1]; the rest of the loss is the sum over all. Default 1.
    #[config(default = 1.0)]
    pub hardest_weight: f64,
    /// How the losses of the pairs become one. Default: their mean (algorithm 1).
    #[config(default = "BatchReduction::Mean")]
    pub reduction: BatchReduction,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl ConVsePlusPlusConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// As [`VsePlusPlusConfig::check`], and where `temperature` is not positive and finite.
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = "ConVsePlusPlusConfig";
        check::range(name, "margin", self.margin, 0.0, f64::MAX)?;
        check::range(name, "hardest_weight", self.hardest_weight, 0.0, 1.0)?;
        let (tiny, huge) = (f32::MIN_POSITIVE as f64, f32::MAX as f64);
        check::range(name, "temperature", self.temperature, tiny, huge)
    }

    /// Builds the objective; it has no parameters.
    ///
    /// # Panics
    ///
    /// Where [`check`](Self::check) fails.
    #[track_caller]
    pub fn init(&self) -> ConVsePlusPlus {
        check::or_panic(self.check());
        ConVsePlusPlus {
            config: self.clone(),
        }
    }
}

/// Hardest negatives with a margin and a temperature; built by [`ConVsePlusPlusConfig::init`].
///
/// `L = mean_i ( [(max_{j≠i} c_ij + α − c_ii)/τ]₊ + [(max_{j≠i} c_ji + α − c_ii)/τ]₊ )`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct ConVsePlusPlus {
    #[module(skip)]
    config: ConVsePlusPlusConfig,
}

impl ConVsePlusPlus {
    /// The same objective with other values of what changes during training: see
    /// [`VsePlusPlus::with_settings`].
    ///
    /// # Panics
    ///
    /// Where a value is out of its range.
    #[track_caller]
    pub fn with_settings(self, settings: &Settings) -> Self {
        let Self { mut config } = self;
        settings.margin.inspect(|&margin| config.margin = margin);
        settings
            .hardest_weight
            .inspect(|&x| config.hardest_weight = x);
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
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::ConVsePlusPlusConfig;
    ///
    /// let equal = Tensor::<2>::ones([4, 3], &Device::default());
    /// let loss = ConVsePlusPlusConfig::new().init().forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 2.0 * 0.2 / 0.1).abs() < 1e-5);
    /// ```
    #[track_caller]
    pub fn forward(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        check::paired("ConVsePlusPlus", ("image", &image), ("text", &text));
        self.hinges().forward(image, text) * (1.0 / self.config.temperature)
    }

    /// The loss of each pair, both directions added, by the hardest negatives alone.
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
        check::paired("ConVsePlusPlus", ("image", &image), ("text", &text));
        self.hinges().forward_no_reduction(image, text) * (1.0 / self.config.temperature)
    }

    /// The loss but for the temperature.
    fn hinges(&self) -> VsePlusPlus {
        VsePlusPlusConfig {
            margin: self.config.margin,
            hardest_weight: self.config.hardest_weight,
            reduction: self.config.reduction,
            similarity: self.config.similarity,
        }
        .init()
    }
}

display!(ConVsePlusPlus: margin, temperature, hardest_weight, reduction);

by_name! {
    ConVsePlusPlus = ConVsePlusPlusConfig, "con-vse-plus-plus";
    parameters(config) = [
        Parameter::new("margin", &mut config.margin),
        Parameter::new("hardest_weight", &mut config.hardest_weight),
        Parameter::new("reduction", &mut config.reduction),
        Parameter::new("temperature", &mut config.temperature),
    ];
    settings(objective, settings) = *objective = objective.clone().with_settings(settings);
    schedules = warm_up();
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn two_pairs_by_hand() {
        // Cosines 0.6 for the positives and 0.8 for the negatives: 4·[(0.8 + 0.1 − 0.6)/0.5]₊ / 2.
        let device = Device::default();
        let image = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0]], &device);
        let text = Tensor::<2>::from_data([[0.6, 0.8], [0.8, 0.6]], &device);
        let objective = ConVsePlusPlusConfig::new()
            .with_margin(0.1)
            .with_temperature(0.5)
            .init();
        let loss = objective.forward(image, text).into_scalar::<f32>();
        assert!((loss - 1.2).abs() < 1e-6, "{loss}");
    }

    #[test]
    #[should_panic(expected = "`temperature` is 0, it must lie in")]
    fn a_temperature_of_zero_is_refused() {
        ConVsePlusPlusConfig::new().with_temperature(0.0).init();
    }
}
