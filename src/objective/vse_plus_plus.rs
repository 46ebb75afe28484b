//! VSE++, the hardest hinges: of each anchor only the most similar negative counts.
//!
//! ```text
//! L_i = [α + max_{j≠i} c_ij − c_ii]₊ + [α + max_{j≠i} c_ji − c_ii]₊
//! L   = mean over i of L_i
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | `c_ij` | cosine of image `i` and text `j` |
//! | α | [`VsePlusPlusConfig::margin`], 0.2 by default |
//!
//! **Warm-up.** From a random start the hardest negatives alone can drive all embeddings to one point;
//! training then begins with the sum of hinges ([`Vse`]). With the share `w` of the hardest
//! ([`VsePlusPlusConfig::hardest_weight`]) the loss is `(1 − w)·L_sum + w·L`: 0 and 1 are the two
//! losses, and one that is not needed is not computed. [`VsePlusPlus::with_settings`] changes it during
//! training. Faghri et al. change from 0 to 1 after an epoch; by name the objective does so halfway
//! through the training.
//!
//! **Gradient.** One negative an anchor: −1/N by the positive and +1/N by the hardest, where the hinge
//! is open. Of equally similar negatives it is the lowest index.
//!
//! **Cost.** `N²·D` time forward for the maxima, `N·D` backward and in memory.
//!
//! **Degenerate cases.** One pair has no negatives: loss 0, gradient 0. N equal embeddings give 2α.
//! A zero row has similarity 0 to everything and gets a zero gradient.
//!
//! **Sources.** Faghri et al. 2018, equation 6; "Contrastive Learning of Visual-Semantic Embeddings",
//! equations 3–5. Faghri's code sums over the batch: [`BatchReduction::Sum`].

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Tensor;

use super::named::{Parameter, by_name};
use super::{BatchReduction, Vse, VseConfig};
use crate::check::{self, ConfigError};
use crate::pairwise::{Expr, hardest};
use crate::schedule::{Schedule, Settings};
use crate::similarity::{SimilarityConfig, rowwise_dot};

/// Configuration of [`VsePlusPlus`].
#[derive(Config, Debug, PartialEq)]
pub struct VsePlusPlusConfig {
    /// Margin α by which a positive must be more similar than a negative. Default 0.2 (VSE++).
    #[config(default = 0.2)]
    pub margin: f64,
    /// Share of the hardest negatives, in [0, 1]; the rest of the loss is the sum over all. Default 1.
    #[config(default = 1.0)]
    pub hardest_weight: f64,
    /// How the losses of the pairs become one. Default: their mean.
    #[config(default = "BatchReduction::Mean")]
    pub reduction: BatchReduction,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl VsePlusPlusConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Where `margin` is negative or not finite, or `hardest_weight` is not in [0, 1].
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = "VsePlusPlusConfig";
        check::range(name, "margin", self.margin, 0.0, f64::MAX)?;
        check::range(name, "hardest_weight", self.hardest_weight, 0.0, 1.0)
    }

    /// Builds the objective; it has no parameters.
    ///
    /// # Panics
    ///
    /// Where [`check`](Self::check) fails.
    #[track_caller]
    pub fn init(&self) -> VsePlusPlus {
        check::or_panic(self.check());
        VsePlusPlus {
            config: self.clone(),
        }
    }
}

/// The hardest hinges over the cosines of paired embeddings; built by [`VsePlusPlusConfig::init`].
///
/// `L = mean_i ( [α + max_{j≠i} c_ij − c_ii]₊ + [α + max_{j≠i} c_ji − c_ii]₊ )`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct VsePlusPlus {
    #[module(skip)]
    config: VsePlusPlusConfig,
}

impl VsePlusPlus {
    /// The same objective with other values of what changes during training:
    /// [`margin`](Settings::margin) and [`hardest_weight`](Settings::hardest_weight).
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
    /// use burn_contrastive::objective::VsePlusPlusConfig;
    /// use burn_contrastive::schedule::Settings;
    ///
    /// let equal = Tensor::<2>::ones([4, 3], &Device::default());
    /// let objective = VsePlusPlusConfig::new().init();
    /// let loss = objective.forward(equal.clone(), equal.clone());
    /// assert!((loss.into_scalar::<f32>() - 2.0 * 0.2).abs() < 1e-6);
    ///
    /// // Halfway through a warm-up: half of it from three negatives each way.
    /// let settings = Settings { hardest_weight: Some(0.5), ..Settings::default() };
    /// let loss = objective.with_settings(&settings).forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - (0.5 * 0.4 + 0.5 * 1.2)).abs() < 1e-6);
    /// ```
    #[track_caller]
    pub fn forward(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        let hardest = self.config.hardest_weight;
        let of_sum = |image, text| self.vse().forward(image, text) * (1.0 - hardest);
        let of_hardest = |image: Tensor<2>, text| {
            let count = image.dims()[0];
            let sum = self.forward_no_reduction(image, text).sum();
            self.config.reduction.of_sum(sum, count) * hardest
        };
        if hardest == 0.0 {
            of_sum(image, text)
        } else if hardest == 1.0 {
            of_hardest(image, text)
        } else {
            of_sum(image.clone(), text.clone()) + of_hardest(image, text)
        }
    }

    /// The loss of each pair by the hardest negatives alone: the hardest violation of its image and
    /// that of its text.
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
        check::paired("VsePlusPlus", ("image", &image), ("text", &text));
        let similarity = self.config.similarity;
        let [image, text] = [image, text].map(|x| similarity.prepare(x));
        let positive = rowwise_dot(image.clone(), text.clone());
        let [by_image, by_text] =
            hardest(similarity.pairs(image, text), &Expr::diagonal()).map(|hardest| {
                let violation = hardest.similarity - positive.clone() + self.config.margin;
                // Not `relu`, which loses NaN on some backends.
                let closed = violation.clone().lower_equal_elem(0.0);
                violation.mask_fill(closed, 0.0)
            });
        by_image + by_text
    }

    /// The sum over all negatives, where the warm-up begins.
    fn vse(&self) -> Vse {
        VseConfig {
            margin: self.config.margin,
            reduction: self.config.reduction,
            similarity: self.config.similarity,
        }
        .init()
    }
}

display!(VsePlusPlus: margin, hardest_weight, reduction);

/// From the sum over all negatives to the hardest, in the second quarter of the training.
pub(super) fn warm_up() -> Settings<Schedule> {
    Settings {
        hardest_weight: Some(Schedule::new(0.0, 1.0).with_begin(0.25).with_end(0.5)),
        ..Settings::default()
    }
}

by_name! {
    VsePlusPlus = VsePlusPlusConfig, "vse-plus-plus";
    parameters(config) = [
        Parameter::new("margin", &mut config.margin),
        Parameter::new("hardest_weight", &mut config.hardest_weight),
        Parameter::new("reduction", &mut config.reduction),
    ];
    settings(objective, settings) = *objective = objective.clone().with_settings(settings);
    schedules = warm_up();
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// Images at 0°, 90° and 180° against texts at 0°, 0° and 180°: cosines
    ///
    /// ```text
    ///  1  1 −1
    ///  0  0  0
    /// −1 −1  1
    /// ```
    fn three_pairs(device: &Device) -> [Tensor<2>; 2] {
        [
            Tensor::from_data([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], device),
            Tensor::from_data([[2.0, 0.0], [0.5, 0.0], [-3.0, 0.0]], device),
        ]
    }

    #[test]
    fn three_pairs_by_hand() {
        let device = Device::default();
        let [image, text] = three_pairs(&device);
        let objective = VsePlusPlusConfig::new().with_margin(0.5).init();
        let each = objective.forward_no_reduction(image, text);
        // Rows: 0.5; 0.5; 0. Columns: 0; 1.5; 0.
        let each = each.into_data().try_to_vec::<f32>().unwrap();
        let expected = [0.5, 2.0, 0.0];
        assert!(
            each.iter()
                .zip(expected)
                .all(|(l, e): (&f32, f32)| (l - e).abs() < 1e-6),
            "{each:?} against {expected:?}"
        );
    }

    #[test]
    fn a_warm_up_begins_with_the_sum() {
        let device = Device::default();
        let [image, text] = three_pairs(&device);
        let objective = VsePlusPlusConfig::new().init();
        let at = |weight| {
            let settings = Settings {
                hardest_weight: Some(weight),
                ..Settings::default()
            };
            let objective = objective.clone().with_settings(&settings);
            objective
                .forward(image.clone(), text.clone())
                .into_scalar::<f32>()
        };
        let sum = VseConfig::new().init();
        let sum = sum
            .forward(image.clone(), text.clone())
            .into_scalar::<f32>();
        assert_eq!(at(0.0), sum);
        assert!((at(0.25) - (0.75 * sum + 0.25 * at(1.0))).abs() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "`hardest_weight` is 1.5, it must lie in [0, 1]")]
    fn a_weight_past_one_is_refused() {
        let settings = Settings {
            hardest_weight: Some(1.5),
            ..Settings::default()
        };
        let _ = VsePlusPlusConfig::new().init().with_settings(&settings);
    }

    #[test]
    #[should_panic(expected = "`margin` is -0.1, it must be finite and at least 0")]
    fn a_negative_margin_is_refused() {
        VsePlusPlusConfig::new().with_margin(-0.1).init();
    }
}
