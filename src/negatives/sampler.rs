//! One hard negative of each sample, drawn by its similarity.

use burn::config::Config;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::check;
use crate::pairwise::Positives;
use crate::random::{Purpose, Random};
use crate::similarity::SimilarityConfig;

/// Configuration of a [`HardNegativeSampler`].
#[derive(Config, Debug, PartialEq)]
pub struct HardNegativeSamplerConfig {
    /// Temperature τ of the softmax that is drawn from. Default 0.07 (ALBEF's initial one).
    #[config(default = 0.07)]
    pub temperature: f64,
    /// Seed of the draws. Default 0.
    #[config(default = 0)]
    pub seed: u64,
    /// How embeddings are compared. Default: by cosine; the memory budget bounds a block of rows.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl HardNegativeSamplerConfig {
    /// Builds the sampler.
    ///
    /// # Panics
    ///
    /// Where `temperature` is not positive and finite.
    #[track_caller]
    pub fn init(&self) -> HardNegativeSampler {
        let (tiny, huge) = (f32::MIN_POSITIVE as f64, f32::MAX as f64);
        let name = "HardNegativeSamplerConfig";
        check::within(name, "temperature", self.temperature, tiny, huge);
        HardNegativeSampler {
            temperature: self.temperature,
            seed: self.seed,
            similarity: self.similarity,
        }
    }
}

/// One negative for each anchor, as drawn by a [`HardNegativeSampler`]; on the plain device.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The row of the candidates, `[N]`; 0 where there is no negative.
    pub index: Tensor<1, Int>,
    /// Whether there is one: no, where every candidate is a positive.
    pub exists: Tensor<1, Bool>,
}

/// Draws a hard negative for each sample from `softmax(c/τ)`, the positives left out; built by
/// [`HardNegativeSamplerConfig::init`].
///
/// The similarities are computed in blocks of rows that the memory budget holds: no `N×N` matrix exists.
/// Candidates whose similarity is not finite are not drawn; an anchor left without any weight (no similarity
/// is finite) draws uniformly among its negatives, and one without negatives draws none and says so.
///
/// Source: Li et al. 2021 (ALBEF), section 3.2, which draws the negatives of image–text matching so.
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
    temperature: f64,
    seed: u64,
    similarity: SimilarityConfig,
}

impl HardNegativeSampler {
    /// A text for each image, and an image for each text: a function of the seed and the step.
    ///
    /// # Shapes
    ///
    /// - `image`: `[N, D]`, `text`: `[M, D]`
    /// - `positives`: of images, by row, and texts, by column
    /// - returns `[N]` rows of `text`, then `[M]` rows of `image`
    ///
    /// # Panics
    ///
    /// Where widths, dtypes or devices of `image` and `text` differ, one of them is empty, or labels or
    /// mask do not fit them.
    #[track_caller]
    pub fn draw_both(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        positives: Positives,
        step: u64,
    ) -> [Drawn; 2] {
        check::comparable("HardNegativeSampler", ("image", &image), ("text", &text));
        check_sizes(&positives, [image.dims()[0], text.dims()[0]]);
        let [image, text] = [image, text].map(|x| self.similarity.prepare(x.without_autodiff()));
        let random = |purpose| Random::new(self.seed, step, purpose);
        let swapped = match positives.clone() {
            Positives::Labels { rows, columns } => Positives::Labels {
                rows: columns,
                columns: rows,
            },
            Positives::Mask(mask) => Positives::Mask(mask.transpose()),
            other => other,
        };
        [
            self.draw(&image, &text, positives, random(Purpose::HardTexts)),
            self.draw(&text, &image, swapped, random(Purpose::HardImages)),
        ]
    }

    /// A candidate for each anchor, block by block.
    fn draw(
        &self,
        anchors: &Tensor<2>,
        candidates: &Tensor<2>,
        positives: Positives,
        mut random: Random,
    ) -> Drawn {
        let [count, others] = [anchors, candidates].map(|x| x.dims()[0]);
        // A handful of matrices of the block's size at a time.
        let row = 8 * others * anchors.dtype().size();
        let height = (self.similarity.memory_budget / row).clamp(1, count);
        let blocks = (0..count).step_by(height).map(|start| {
            let height = height.min(count - start);
            let negative =
                of_rows(&positives, [start, height], others, &anchors.device()).bool_not();
            let similarity = anchors
                .clone()
                .narrow(0, start, height)
                .matmul(candidates.clone().transpose());
            self.draw_rows(similarity, negative, &mut random)
        });
        let (index, exists): (Vec<_>, Vec<_>) = blocks.unzip();
        Drawn {
            index: Tensor::cat(index, 0),
            exists: Tensor::cat(exists, 0),
        }
    }

    /// A column of each row, among the negatives.
    fn draw_rows(
        &self,
        similarity: Tensor<2>,
        negative: Tensor<2, Bool>,
        random: &mut Random,
    ) -> (Tensor<1, Int>, Tensor<1, Bool>) {
        let [rows, columns] = similarity.dims();
        let (dtype, device) = (similarity.dtype(), similarity.device());
        let logit = similarity * (1.0 / self.temperature);
        let usable = logit.clone().is_finite().bool_and(negative.clone());
        let unusable = usable.bool_not();
        let logit = logit.mask_fill(unusable.clone(), f64::NEG_INFINITY);
        // Finite where all are −∞: the weights are 0 then, not NaN.
        let largest = logit.clone().max_dim(1).clamp_min(f32::MIN as f64);
        let weight = (logit - largest).exp().mask_fill(unusable, 0.0);
        let uniform = negative.float().cast(dtype);
        let none = weight.clone().sum_dim(1).equal_elem(0.0);
        let weight = weight.mask_where(none.expand([rows, columns]), uniform);

        // The first column at which the running sum exceeds a uniform share of the whole.
        let running = weight.clone().cumsum(1);
        let whole = running.clone().narrow(1, columns - 1, 1);
        let shares: Vec<f32> = (0..rows).map(|_| random.uniform() as f32).collect();
        let shares = Tensor::<2>::from_data(TensorData::new(shares, [rows, 1]), &device);
        let before = running.lower_equal(whole.clone() * shares.cast(dtype));
        let exists = whole.greater_elem(0.0);
        let index = before.int().sum_dim(1) * exists.clone().int();
        // Sums in parallel may round to a column without weight: the heaviest then.
        let missed = weight.clone().gather(1, index.clone()).equal_elem(0.0);
        let index = index.mask_where(missed, weight.argmax(1));
        (index.squeeze_dim(1), exists.squeeze_dim(1))
    }
}

/// Which pairs of some rows and all columns are positives, `[height, columns]`.
#[track_caller]
fn of_rows(
    positives: &Positives,
    [start, height]: [usize; 2],
    columns: usize,
    device: &Device,
) -> Tensor<2, Bool> {
    let shape = [height, columns];
    let numbers = |from: usize, count: usize| {
        Tensor::<1, Int>::arange(from as i64..(from + count) as i64, device)
    };
    let equal = |rows: Tensor<1, Int>, columns: Tensor<1, Int>| {
        let rows = rows.unsqueeze_dim::<2>(1).expand(shape);
        rows.equal(columns.unsqueeze_dim::<2>(0).expand(shape))
    };
    match positives {
        Positives::Diagonal => equal(numbers(start, height), numbers(0, columns)),
        Positives::None => Tensor::full(shape, false, device),
        Positives::Labels { rows, columns } => equal(
            rows.clone().without_autodiff().narrow(0, start, height),
            columns.clone().without_autodiff(),
        ),
        Positives::Mask(mask) => mask.clone().without_autodiff().narrow(0, start, height),
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
        "HardNegativeSampler: `positives` are for {given:?} images and texts, there are {sizes:?}"
    );
}

#[cfg(test)]
mod tests {
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
    fn a_cold_softmax_draws_the_hardest() {
        for step in 0..5 {
            assert_eq!(drawn(0.01, step), [[1, 2, 1], [1, 0, 1]]);
        }
    }

    #[test]
    fn the_step_decides_and_nothing_else() {
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
}
