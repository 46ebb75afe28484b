//! Image–text matching: does a text belong to an image? Posed for pairs that are hard to tell.
//!
//! A batch of `N` pairs gives `3N`: the pairs themselves, each image with a hard negative text, and
//! each text with a hard negative image. The caller's fusion encoder and head give two logits for
//! each, and
//!
//! ```text
//! L = mean over pairs of CE((z_no, z_yes), label) = mean of log(1 + e^{−y·(z_yes − z_no)}), y = ±1
//! ```
//!
//! **Negatives** are drawn from `softmax(c/τ)` over the samples that are no positives, by a
//! [`HardNegativeSampler`]. A sample without negatives (in a batch of one pair, or of captions of
//! one image) has no such pair: [`MatchingPairs::exists`] is false for it, and its loss does not
//! count.
//!
//! **Cost.** `N²·D` time for the draws, in blocks; `O(N)` for the loss.
//!
//! **Source.** Li et al. 2021 (ALBEF), section 3.2 and equation 4. ALBEF draws with the momentum
//! features as candidates and at the temperature that its contrast learns: see the example of
//! [`ImageTextMatching::pairs`]. By default both sides are the same features, at temperature 0.07.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::activation::softplus;
use burn::tensor::{Bool, Int, Tensor};

use crate::check::{self, ConfigError};
use crate::negatives::{HardNegativeSampler, HardNegativeSamplerConfig, Samples};
use crate::pairwise::Positives;
use crate::tensor::constant_like;

/// Configuration of [`ImageTextMatching`].
#[derive(Config, Debug, PartialEq)]
pub struct ImageTextMatchingConfig {
    /// How negatives are drawn. Default: at temperature 0.07.
    #[config(default = "HardNegativeSamplerConfig::new()")]
    pub sampler: HardNegativeSamplerConfig,
}

impl ImageTextMatchingConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// As [`HardNegativeSamplerConfig::check`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.sampler.check()
    }

    /// Builds the objective; it has no parameters.
    ///
    /// # Panics
    ///
    /// If [`check`](Self::check) returns an error.
    #[track_caller]
    pub fn init(&self) -> ImageTextMatching {
        ImageTextMatching {
            sampler: self.sampler.init(),
        }
    }
}

/// The pairs to classify: `N` that match, `N` images with hard texts, `N` texts with hard images.
///
/// Indices are rows of the batch, on the device without autodiff.
#[derive(Clone, Debug)]
pub struct MatchingPairs {
    /// The image of each pair, `[3N]`.
    pub image: Tensor<1, Int>,
    /// The text of each pair, `[3N]`.
    pub text: Tensor<1, Int>,
    /// Whether the two match, `[3N]`.
    pub matches: Tensor<1, Bool>,
    /// Whether the pair exists, `[3N]`: not if it stands for a negative of a sample that has none.
    pub exists: Tensor<1, Bool>,
}

impl MatchingPairs {
    /// The features of each pair's image.
    ///
    /// # Shapes
    ///
    /// - `features`: `[N, …]`, of any rank, and `[3N, …]` is returned
    pub fn images<const D: usize>(&self, features: Tensor<D>) -> Tensor<D> {
        features.select(0, self.image.clone())
    }

    /// The features of each pair's text: see [`images`](Self::images).
    pub fn texts<const D: usize>(&self, features: Tensor<D>) -> Tensor<D> {
        features.select(0, self.text.clone())
    }
}

/// Binary classification of pairs, hard negatives among them; built by
/// [`ImageTextMatchingConfig::init`].
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_contrastive::objective::ImageTextMatchingConfig;
/// use burn_contrastive::pairwise::Positives;
///
/// let device = Device::default();
/// let features = || Tensor::<2>::random([4, 8], Distribution::Default, &device);
/// let (image, text) = (features(), features());
///
/// let objective = ImageTextMatchingConfig::new().init();
/// let pairs = objective.pairs(image.clone(), text.clone(), Positives::Diagonal, 0);
/// // In place of a fusion encoder and its head: both classes are equally likely.
/// let fused = Tensor::cat(vec![pairs.images(image), pairs.texts(text)], 1);
/// let logits = fused.narrow(1, 0, 2) * 0.0;
/// let loss = objective.forward(logits, &pairs);
/// assert!((loss.into_scalar::<f32>() - 2f32.ln()).abs() < 1e-6);
/// ```
#[derive(Module, Debug)]
pub struct ImageTextMatching {
    #[module(skip)]
    sampler: HardNegativeSampler,
}

impl ImageTextMatching {
    /// The same objective with negatives drawn at temperature `1/logit_scale`: see
    /// [`HardNegativeSampler::with_logit_scale`].
    pub fn with_logit_scale(&self, logit_scale: Tensor<1>) -> Self {
        Self {
            sampler: self.sampler.clone().with_logit_scale(logit_scale),
        }
    }

    /// The pairs to classify: a function of the features, the sampler's seed and the step.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`, the features by whose similarity negatives are drawn, on either
    ///   kind of device; or [anchors and candidates](Samples) for each
    /// - `positives`: [`Positives::Diagonal`], or labels or a mask if several pairs of a batch
    ///   match
    ///
    /// # Panics
    ///
    /// If shapes, dtypes or devices of `image` and `text` differ, or the batch is empty.
    ///
    /// # Example
    ///
    /// As ALBEF draws, with the ids of the batch's images:
    ///
    /// ```
    /// use burn::tensor::{Device, Distribution, Int, Tensor};
    /// use burn_contrastive::objective::{ImageTextContrastiveConfig, ImageTextMatchingConfig};
    /// use burn_contrastive::pairwise::Positives;
    ///
    /// let device = Device::default().autodiff();
    /// let contrast = ImageTextContrastiveConfig::new().init(&device);
    /// let matching = ImageTextMatchingConfig::new().init();
    ///
    /// let random = |device: &Device| Tensor::random([4, 8], Distribution::Default, device);
    /// let (image, text) = (random(&device), random(&device));
    /// let (momentum_image, momentum_text) = (random(&device.clone().inner()), random(&device));
    /// let ids = Tensor::<1, Int>::from_data([7, 3, 7, 5], &device);
    ///
    /// let positives = Positives::Labels { rows: ids.clone(), columns: ids };
    /// let pairs = matching
    ///     .with_logit_scale(contrast.logit_scale.value())
    ///     .pairs((image, momentum_image), (text, momentum_text.inner()), positives, 0);
    /// assert_eq!(pairs.text.dims(), [12]);
    /// ```
    #[track_caller]
    pub fn pairs(
        &self,
        image: impl Into<Samples>,
        text: impl Into<Samples>,
        positives: Positives,
        step: u64,
    ) -> MatchingPairs {
        let [texts, images] = self.sampler.draw_both(image, text, positives, step);
        let [count, others] = [&texts, &images].map(|drawn| drawn.index.dims()[0]);
        assert!(
            count == others,
            "ImageTextMatching: `image` has {count} rows, `text` has {others}: row i of one \
             belongs to row i of the other"
        );
        let device = texts.index.device();
        let own = || Tensor::<1, Int>::arange(0..count as i64, &device);
        let all = |value| Tensor::<1, Bool>::full([count], value, &device);
        MatchingPairs {
            image: Tensor::cat(vec![own(), own(), images.index], 0),
            text: Tensor::cat(vec![own(), texts.index, own()], 0),
            matches: Tensor::cat(vec![all(true), all(false), all(false)], 0),
            exists: Tensor::cat(vec![all(true), texts.exists, images.exists], 0),
        }
    }

    /// The loss, mean over the pairs that exist, in nats.
    ///
    /// # Shapes
    ///
    /// - `logits`: `[3N, 2]`, of "no match" and of "match"
    /// - returns `[1]`, f64 for f64 logits, f32 for all others
    ///
    /// # Panics
    ///
    /// If `logits` has another shape.
    #[track_caller]
    pub fn forward(&self, logits: Tensor<2>, pairs: &MatchingPairs) -> Tensor<1> {
        let each = self.forward_no_reduction(logits, pairs);
        let count = pairs.exists.clone().int().sum().float().cast(each.dtype());
        each.clone().sum() / constant_like(count, &each)
    }

    /// The loss of each pair, 0 for those that do not exist.
    ///
    /// # Shapes
    ///
    /// - `logits`: `[3N, 2]`, of "no match" and of "match"
    /// - returns `[3N]`
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    #[track_caller]
    pub fn forward_no_reduction(&self, logits: Tensor<2>, pairs: &MatchingPairs) -> Tensor<1> {
        let (shape, count) = (logits.dims(), pairs.matches.dims()[0]);
        assert!(
            shape == [count, 2],
            "ImageTextMatching: `logits` has shape {shape:?}, it needs two logits for each of \
             {count} pairs"
        );
        let logits = logits.clone().cast(check::compute_dtype(logits.dtype()));
        let sign = pairs.matches.clone().float().cast(logits.dtype()) * -2.0 + 1.0;
        let [no, yes] = [0, 1].map(|k| logits.clone().narrow(1, k, 1).squeeze_dim::<1>(1));
        let each = softplus((yes - no) * constant_like(sign, &logits), 1.0);
        each.mask_fill(constant_like(pairs.exists.clone().bool_not(), &logits), 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn two_pairs_by_hand() {
        let device = Device::default();
        let x = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0]], &device);
        let objective = ImageTextMatchingConfig::new().init();
        let pairs = objective.pairs(x.clone(), x, Positives::Diagonal, 0);
        let integers = |x: &Tensor<1, Int>| {
            let data = x.clone().into_data().convert::<i32>();
            data.try_to_vec::<i32>().unwrap()
        };
        assert_eq!(integers(&pairs.image), [0, 1, 0, 1, 1, 0]);
        assert_eq!(integers(&pairs.text), [0, 1, 1, 0, 0, 1]);
        // Confident and right about the first pair, confident and wrong about the last.
        let logits = [
            [-5.0, 5.0],
            [0.0, 0.0],
            [1.0, 1.0],
            [2.0, 2.0],
            [3.0, 3.0],
            [-5.0, 5.0],
        ];
        let logits = Tensor::<2>::from_data(logits, &device);
        let loss = objective.forward(logits, &pairs).into_scalar::<f32>();
        let expected = ((-10f32).exp().ln_1p() + 4.0 * 2f32.ln() + 10f32.exp().ln_1p()) / 6.0;
        assert!((loss - expected).abs() < 1e-5, "{loss} against {expected}");
    }

    #[test]
    fn the_negatives_of_a_single_pair_do_not_count() {
        let device = Device::default();
        let x = Tensor::<2>::ones([1, 3], &device);
        let objective = ImageTextMatchingConfig::new().init();
        let pairs = objective.pairs(x.clone(), x, Positives::Diagonal, 0);
        let logits = Tensor::<2>::from_data([[0.0, 1.0], [0.0, 7.0], [0.0, 9.0]], &device);
        let loss = objective.forward(logits, &pairs).into_scalar::<f32>();
        assert!((loss - (-1f32).exp().ln_1p()).abs() < 1e-6, "{loss}");
    }

    #[test]
    #[should_panic(expected = "`logits` has shape [2, 2], it needs two logits for each of 6 pairs")]
    fn too_few_logits_are_refused() {
        let device = Device::default();
        let x = Tensor::<2>::ones([2, 3], &device);
        let objective = ImageTextMatchingConfig::new().init();
        let pairs = objective.pairs(x.clone(), x.clone(), Positives::Diagonal, 0);
        let _ = objective.forward(x.narrow(1, 0, 2), &pairs);
    }
}
