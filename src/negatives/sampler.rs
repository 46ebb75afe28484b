//! One hard negative of each sample, drawn by its similarity.

use burn::config::Config;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::check::{self, ConfigError};
use crate::pairwise::{Expr, Positives};
use crate::random::{Purpose, Random};
use crate::similarity::SimilarityConfig;

/// Configuration of a [`HardNegativeSampler`].
#[derive(Config, Debug, PartialEq)]
pub struct HardNegativeSamplerConfig {
    /// Temperature τ of the softmax that negatives are drawn from, unless a call gives another:
    /// [`HardNegativeSampler::with_logit_scale`]. Default 0.07 (ALBEF's initial one).
    #[config(default = 0.07)]
    pub temperature: f64,
    /// Seed of the draws. Default 0.
    #[config(default = 0)]
    pub seed: u64,
    /// How embeddings are compared. Default: by cosine. The memory budget bounds a block of rows.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl HardNegativeSamplerConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// If `temperature` is not positive and finite.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (tiny, huge) = (f32::MIN_POSITIVE as f64, f32::MAX as f64);
        let name = "HardNegativeSamplerConfig";
        check::range(name, "temperature", self.temperature, tiny, huge)
    }

    /// Builds the sampler.
    ///
    /// # Panics
    ///
    /// If [`check`](Self::check) returns an error.
    #[track_caller]
    pub fn init(&self) -> HardNegativeSampler {
        check::or_panic(self.check());
        HardNegativeSampler {
            config: self.clone(),
            logit_scale: None,
        }
    }
}

/// The samples of one modality: as anchors, and as candidates for the anchors of the other
/// modality.
///
/// Made from one tensor, `[N, D]`, or from two, `(anchors, candidates)`, with corresponding rows:
/// in ALBEF anchors are the student's features and candidates those of its momentum copy. Each
/// tensor may be tracked or on the device without autodiff.
#[derive(Clone, Debug)]
pub struct Samples {
    anchors: Tensor<2>,
    candidates: Tensor<2>,
}

impl From<Tensor<2>> for Samples {
    fn from(samples: Tensor<2>) -> Self {
        (samples.clone(), samples).into()
    }
}

impl From<(Tensor<2>, Tensor<2>)> for Samples {
    fn from((anchors, candidates): (Tensor<2>, Tensor<2>)) -> Self {
        Self {
            anchors: anchors.without_autodiff(),
            candidates: candidates.without_autodiff(),
        }
    }
}

/// One negative for each anchor, drawn by a [`HardNegativeSampler`]; on the device without
/// autodiff.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The row of the negative among the candidates, `[N]`; 0 if the anchor has no negative.
    pub index: Tensor<1, Int>,
    /// Whether the anchor has a negative, `[N]`: not if all candidates are positives.
    pub exists: Tensor<1, Bool>,
}

/// Draws a hard negative for each sample from `softmax(c/τ)` over the samples that are no
/// positives; built by [`HardNegativeSamplerConfig::init`].
///
/// Similarities are computed in blocks of rows within the memory budget: no `N×N` matrix exists.
/// Candidates whose similarity is not finite are not drawn. If none of an anchor's similarities is
/// finite, its negative is drawn uniformly; if it has no negatives, [`Drawn::exists`] is false.
///
/// Source: Li et al. 2021 (ALBEF), section 3.2, which draws the negatives of image–text matching
/// so.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_contrastive::negatives::HardNegativeSamplerConfig;
/// use burn_contrastive::pairwise::Positives;
///
/// let device = Device::default();
/// let image = Tensor::<2>::random([6, 4], Distribution::Default, &device);
/// let text = Tensor::<2>::random([6, 4], Distribution::Default, &device);
/// let sampler = HardNegativeSamplerConfig::new().init();
/// let [texts, images] = sampler.draw_both(image, text, Positives::Diagonal, 0);
/// // A text for each image, never its own.
/// let own = Tensor::arange(0..6, &device);
/// assert!(!texts.index.equal(own.clone()).any().into_scalar::<bool>());
/// assert!(images.exists.all().into_scalar::<bool>());
/// ```
#[derive(Clone, Debug)]
pub struct HardNegativeSampler {
    config: HardNegativeSamplerConfig,
    logit_scale: Option<Tensor<1>>,
}

impl HardNegativeSampler {
    /// A sampler at temperature `1/logit_scale` instead of the configured one: ALBEF draws at the
    /// current value of the temperature that its contrast learns,
    /// [`LogitScale::value`](crate::similarity::LogitScale::value). Nothing is read from the
    /// device.
    ///
    /// # Shapes
    ///
    /// - `logit_scale`: `[1]`, positive; a constant
    pub fn with_logit_scale(self, logit_scale: Tensor<1>) -> Self {
        Self {
            logit_scale: Some(logit_scale.without_autodiff()),
            ..self
        }
    }

    /// A text for each image, and an image for each text: a function of the samples, the seed and
    /// the step.
    ///
    /// # Shapes
    ///
    /// - `image`: `[N, D]`, `text`: `[M, D]`; or [two tensors each](Samples)
    /// - `positives`: of images, by row, and texts, by column
    /// - returns `[N]` rows of `text`, then `[M]` rows of `image`
    ///
    /// # Panics
    ///
    /// If widths, dtypes or devices differ, a side is empty, anchors and candidates of one modality
    /// differ in number, or `positives` has labels or a mask of another size.
    #[track_caller]
    pub fn draw_both(
        &self,
        image: impl Into<Samples>,
        text: impl Into<Samples>,
        positives: Positives,
        step: u64,
    ) -> [Drawn; 2] {
        let [image, text] = [image.into(), text.into()];
        let name = "HardNegativeSampler";
        for (anchors, candidates, samples) in [
            ("image", "image candidates", &image),
            ("text", "text candidates", &text),
        ] {
            let anchors = (anchors, &samples.anchors);
            check::paired(name, anchors, (candidates, &samples.candidates));
        }
        check::comparable(name, ("image", &image.anchors), ("text", &text.anchors));
        check_sizes(&positives, [&image, &text].map(|x| x.anchors.dims()[0]));
        let random = |purpose| Random::new(self.config.seed, step, purpose);
        let swapped = match positives.clone() {
            Positives::Labels { rows, columns } => Positives::Labels {
                rows: columns,
                columns: rows,
            },
            Positives::Mask(mask) => Positives::Mask(mask.transpose()),
            other => other,
        };
        let texts = random(Purpose::HardTexts);
        let images = random(Purpose::HardImages);
        [
            self.draw(image.anchors, text.candidates, positives, texts),
            self.draw(text.anchors, image.candidates, swapped, images),
        ]
    }

    /// A candidate for each anchor, in blocks of rows.
    fn draw(
        &self,
        anchors: Tensor<2>,
        candidates: Tensor<2>,
        positives: Positives,
        mut random: Random,
    ) -> Drawn {
        let similarity = &self.config.similarity;
        let [count, others] = [&anchors, &candidates].map(|x| x.dims()[0]);
        let mut pairs =
            similarity.pairs(similarity.prepare(anchors), similarity.prepare(candidates));
        let logit = match &self.logit_scale {
            Some(scale) => pairs.similarity() * pairs.scalar(scale.clone()),
            None => pairs.similarity() / self.config.temperature,
        };
        let positive = without_autodiff(positives).of(&mut pairs);
        let logit = logit.except(&positive);
        let negative = Expr::select(&positive, &Expr::constant(0.0), &Expr::constant(1.0));

        // Several matrices of a block's size, of at most 8 bytes a value, exist at a time.
        let height = (similarity.memory_budget / (64 * others)).clamp(1, count);
        let blocks = (0..count).step_by(height).map(|start| {
            let rows = start..(start + height).min(count);
            let logit = pairs.block(&logit, rows.clone(), 0..others);
            let negative = pairs.block(&negative, rows, 0..others);
            draw_rows(logit, negative, &mut random)
        });
        let (index, exists): (Vec<_>, Vec<_>) = blocks.unzip();
        Drawn {
            index: Tensor::cat(index, 0),
            exists: Tensor::cat(exists, 0),
        }
    }
}

/// A column for each row, drawn from the softmax of `logit`; `negative` is 1 for the columns that
/// can be drawn and 0 for the others.
fn draw_rows(
    logit: Tensor<2>,
    negative: Tensor<2>,
    random: &mut Random,
) -> (Tensor<1, Int>, Tensor<1, Bool>) {
    let [rows, columns] = logit.dims();
    let unusable = logit.clone().is_finite().bool_not();
    let logit = logit.mask_fill(unusable.clone(), f64::NEG_INFINITY);
    // Finite even if all are −∞: the weights are 0 then, not NaN.
    let largest = logit.clone().max_dim(1).clamp_min(f32::MIN as f64);
    let weight = (logit - largest).exp().mask_fill(unusable, 0.0);
    let none = weight.clone().sum_dim(1).equal_elem(0.0);
    let weight = weight.mask_where(none.expand([rows, columns]), negative);

    // The first column at which the running sum exceeds a uniform share of the total.
    let running = weight.clone().cumsum(1);
    let total = running.clone().narrow(1, columns - 1, 1);
    let shares: Vec<f32> = (0..rows).map(|_| random.uniform() as f32).collect();
    let shares = Tensor::<2>::from_data(TensorData::new(shares, [rows, 1]), &weight.device());
    let before = running.lower_equal(total.clone() * shares.cast(weight.dtype()));
    let exists = total.greater_elem(0.0);
    let index = before.int().sum_dim(1) * exists.clone().int();
    // Parallel sums may round to a column of weight 0: take the heaviest then.
    let missed = weight.clone().gather(1, index.clone()).equal_elem(0.0);
    let index = index.mask_where(missed, weight.argmax(1));
    (index.squeeze_dim(1), exists.squeeze_dim(1))
}

fn without_autodiff(positives: Positives) -> Positives {
    match positives {
        Positives::Labels { rows, columns } => Positives::Labels {
            rows: rows.without_autodiff(),
            columns: columns.without_autodiff(),
        },
        Positives::Mask(mask) => Positives::Mask(mask.without_autodiff()),
        other => other,
    }
}

/// Labels or mask have the sizes of the pairs.
#[track_caller]
fn check_sizes(positives: &Positives, sizes: [usize; 2]) {
    let given = match positives {
        Positives::Diagonal | Positives::None => return,
        Positives::Labels { rows, columns } => [rows.dims()[0], columns.dims()[0]],
        Positives::Mask(mask) => mask.dims(),
    };
    assert!(
        given == sizes,
        "HardNegativeSampler: `positives` is for {given:?} images and texts, there are {sizes:?}"
    );
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn drawn(temperature: f64, step: u64) -> [Vec<i32>; 2] {
        // Text 1 is the hardest of image 0, by far.
        let device = Device::default();
        let image = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], &device);
        let text = Tensor::<2>::from_data([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2]], &device);
        HardNegativeSamplerConfig::new()
            .with_temperature(temperature)
            .init()
            .draw_both(image, text, Positives::Diagonal, step)
            .map(|drawn| {
                drawn
                    .index
                    .into_data()
                    .convert::<i32>()
                    .try_to_vec()
                    .unwrap()
            })
    }

    #[test]
    fn a_low_temperature_draws_the_hardest() {
        for step in 0..5 {
            assert_eq!(drawn(1e-4, step), [[1, 2, 1], [1, 0, 1]]);
        }
    }

    #[test]
    fn draws_depend_on_the_step_alone() {
        assert_eq!(drawn(10.0, 3), drawn(10.0, 3));
        let steps: Vec<_> = (0..8).map(|step| drawn(10.0, step)).collect();
        assert!(steps.iter().any(|other| *other != steps[0]));
    }

    #[test]
    #[should_panic(expected = "`temperature` is -1, it must lie in")]
    fn a_negative_temperature_is_refused() {
        HardNegativeSamplerConfig::new()
            .with_temperature(-1.0)
            .init();
    }

    #[test]
    fn candidates_and_temperature_may_be_given_for_a_call() {
        let device = Device::default();
        let plain = |x: [[f32; 2]; 3]| Tensor::<2>::from_data(x, &device);
        let student = plain([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]);
        // For the candidates rows 1 and 2 of the student have changed places.
        let moved = plain([[1.0, 0.0], [-1.0, 0.1], [0.1, 1.0]]);
        let sampler = HardNegativeSamplerConfig::new().with_temperature(100.0);
        let sampler = sampler.init();
        let tracked = student.clone().autodiff().require_grad();
        let scale = Tensor::<1>::from_data([500.0], &device.clone().autodiff()).require_grad();
        let sampler = sampler.with_logit_scale(scale);
        for step in 0..5 {
            let samples = (tracked.clone(), moved.clone());
            let [texts, images] =
                sampler.draw_both(samples.clone(), samples, Positives::Diagonal, step);
            for drawn in [texts, images] {
                let index = drawn.index.into_data().convert::<i32>();
                // At temperature 100 five steps would not agree on the most similar candidate.
                assert_eq!(index.try_to_vec::<i32>().unwrap(), [2, 2, 1]);
            }
        }
    }
}
