//! What weights a batch gets: read in blocks, never all at once.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use burn::tensor::Tensor;

use super::SimilarityRegulation;
use crate::check;
use crate::pairwise::{Expr, columns, log_mean, rows};
use crate::similarity::SimilarityConfig;

/// Similarities held at a time while weights are read.
const BLOCK: usize = 1 << 20;

/// The weights that [`SimilarityRegulation`] gives the negatives of a batch, both ways; made by
/// [`SimilarityRegulation::weights`].
///
/// Holds embeddings and a number for each anchor, `O(N·D)`, and computes weights in blocks as they are asked for.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::similarity::SimilarityConfig;
/// use burn_contrastive::weighting::SimilarityRegulation;
///
/// let device = Device::default();
/// let image = Tensor::<2>::from_data([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]], &device);
/// let teacher = [image.clone(), image.clone()];
/// let weights = SimilarityRegulation::new()
///     .weights(image.clone(), image, Some(teacher), SimilarityConfig::new());
/// let [by_image, _] = weights.histogram(4, 2.0);
/// assert_eq!(by_image.counts.iter().sum::<u64>(), 6);
/// assert!((by_image.mean - 1.0).abs() < 1e-6);
/// // Images 0 and 1 are alike, and so are their texts.
/// let pair = &weights.lowest(1, |_, _| false)[0];
/// assert_eq!(pair.image + pair.text, 1);
/// ```
#[derive(Clone, Debug)]
pub struct BatchWeights {
    regulation: SimilarityRegulation,
    image: Tensor<2>,
    text: Tensor<2>,
    teacher: Option<[Tensor<2>; 2]>,
    /// The logarithm of the mean of the weights before they are normalised, of images, of texts.
    log_mean: [Tensor<1>; 2],
    information: [f64; 2],
}

/// How the weights of one direction are distributed.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightHistogram {
    /// Number of weights in equal bins of [0, `upper`]; a bin holds its lower edge, the last also all
    /// weights above. NaN is in no bin.
    pub counts: Vec<u64>,
    /// The last edge.
    pub upper: f64,
    /// Mean, 1 by construction; NaN without negatives.
    pub mean: f64,
    /// Standard deviation (of the population).
    pub deviation: f64,
    /// The smallest weight; ∞ without negatives.
    pub smallest: f64,
    /// The largest weight; −∞ without negatives.
    pub largest: f64,
}

/// A negative pair with its weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeighedPair {
    /// Row of the image.
    pub image: usize,
    /// Row of the text.
    pub text: usize,
    /// Weight of the text among the negatives of the image.
    pub image_to_text: f64,
    /// Weight of the image among the negatives of the text.
    pub text_to_image: f64,
    /// Similarity, a cosine where embeddings are normalised.
    pub similarity: f64,
    /// The teacher's similarity, where there is a teacher.
    pub teacher: Option<f64>,
}

impl WeighedPair {
    /// The mean of its two weights.
    pub fn weight(&self) -> f64 {
        (self.image_to_text + self.text_to_image) / 2.0
    }
}

/// Ordered by weight, then by place.
struct ByWeight(WeighedPair);

impl Ord for ByWeight {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |pair: &WeighedPair| (pair.image, pair.text);
        let by_weight = self.0.weight().total_cmp(&other.0.weight());
        by_weight.then_with(|| key(&self.0).cmp(&key(&other.0)))
    }
}

impl PartialOrd for ByWeight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByWeight {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ByWeight {}

impl SimilarityRegulation {
    /// The weights of a batch's negatives, as SRCL gives them; without a gradient.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`, row `i` of one belongs to row `i` of the other
    /// - `teacher`: its features of the images and of the texts, `[N, E]` both; needed unless α is 0
    ///
    /// # Panics
    ///
    /// Where shapes, dtypes or devices differ, the batch is empty, α is not 0 and there is no teacher, or a
    /// setting is out of range.
    #[track_caller]
    pub fn weights(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        teacher: Option<[Tensor<2>; 2]>,
        similarity: SimilarityConfig,
    ) -> BatchWeights {
        check::or_panic(self.check());
        check::paired("SimilarityRegulation", ("image", &image), ("text", &text));
        let teacher = teacher.filter(|_| self.alpha > 0.0);
        assert!(
            self.alpha == 0.0 || teacher.is_some(),
            "SimilarityRegulation: `alpha` is {}: it needs a teacher",
            self.alpha
        );
        let [image, text] = [image, text].map(|x| similarity.prepare(x.inner()));
        let teacher = teacher.map(|sides| sides.map(|x| similarity.prepare(x.inner())));

        let mut pairs = similarity.pairs(image.clone(), text.clone());
        let theirs = teacher
            .clone()
            .map(|[image, text]| pairs.teacher(image, text));
        let log_weight = self.log_weight(&pairs.similarity(), theirs.as_ref());
        let diagonal = Expr::diagonal();
        let negative = log_weight.except(&diagonal);
        let summed = Expr::select(&diagonal, &Expr::constant(0.0), &log_weight);
        let negatives = image.dims()[0] as f64 - 1.0;
        let results = pairs.reduce(&[
            rows().log_sum_exp(&negative),
            rows().sum(&summed),
            columns().log_sum_exp(&negative),
            columns().sum(&summed),
        ]);
        let count = results[1].zeros_like() + negatives;
        let (log_mean, information) = results
            .chunks(2)
            .map(|sums| {
                let log_mean = log_mean(&sums[0], &count);
                let each = log_mean.clone() - sums[1].clone() / negatives;
                let mean = each.into_data().iter::<f64>().sum::<f64>() / (negatives + 1.0);
                (log_mean, mean)
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let both = "two directions";
        BatchWeights {
            regulation: *self,
            image,
            text,
            teacher,
            log_mean: log_mean.try_into().expect(both),
            information: information.try_into().expect(both),
        }
    }

    /// [`log_weight`](Self::log_weight) of similarities in a tensor.
    fn log_weights(&self, similarity: Tensor<2>, teacher: Option<Tensor<2>>) -> Tensor<2> {
        let part = |x: Tensor<2>, share: f64| x / self.weight_temperature + share.ln();
        let log_similarity = match teacher {
            None => part(similarity, 1.0),
            Some(teacher) if self.alpha == 1.0 => part(teacher, 1.0),
            Some(teacher) => {
                let ours = part(similarity, 1.0 - self.alpha);
                let theirs = part(teacher, self.alpha);
                let gap = (ours.clone() - theirs.clone()).abs();
                ours.max_pair(theirs) + gap.neg().exp().log1p()
            }
        };
        match self.norm {
            super::Norm::Mean => -log_similarity,
            super::Norm::Softmax { delta } => log_similarity.neg().exp() * delta,
        }
    }
}

impl BatchWeights {
    /// Number of pairs N.
    pub fn pairs(&self) -> usize {
        self.image.dims()[0]
    }

    /// The estimated mutual information of an anchor and its negatives under these weights, `E log(1/w)` in nats,
    /// of image anchors and of text anchors; NaN without negatives. (Jiang et al. 2023, equation 40.)
    pub fn information(&self) -> [f64; 2] {
        self.information
    }

    /// A block of the weights of image→text (of texts among the negatives of an image) and of text→image. A pair's own
    /// text is no negative: what stands on the diagonal is no weight.
    ///
    /// # Shapes
    ///
    /// - returns `[images.len(), texts.len()]` both
    pub fn block(&self, images: Range<usize>, texts: Range<usize>) -> [Tensor<2>; 2] {
        let (similarity, teacher) = self.similarities(&images, &texts);
        self.normalised(similarity, teacher, &images, &texts)
    }

    /// The distribution of the weights of image→text and of text→image over `bins` equal bins of [0, `upper`].
    ///
    /// # Panics
    ///
    /// Where `bins` is 0 or `upper` is not positive.
    #[track_caller]
    pub fn histogram(&self, bins: usize, upper: f64) -> [WeightHistogram; 2] {
        assert!(bins > 0, "BatchWeights: `bins` is 0, it needs one at least");
        check::within("BatchWeights", "upper", upper, f64::MIN_POSITIVE, f64::MAX);
        let empty = WeightHistogram {
            counts: vec![0; bins],
            upper,
            mean: 0.0,
            deviation: 0.0,
            smallest: f64::INFINITY,
            largest: f64::NEG_INFINITY,
        };
        let mut histograms = [empty.clone(), empty];
        let all = 0..self.pairs();
        for images in self.spans() {
            for (histogram, weights) in histograms
                .iter_mut()
                .zip(self.block(images.clone(), all.clone()))
            {
                let pairs = images
                    .clone()
                    .flat_map(|i| all.clone().map(move |j| i == j));
                let weights = weights.into_data();
                for (weight, own) in weights.iter::<f64>().zip(pairs) {
                    if !own {
                        histogram.add(weight);
                    }
                }
            }
        }
        let count = (self.pairs() * (self.pairs() - 1)) as f64;
        histograms.map(|histogram| histogram.averaged(count))
    }

    /// The `k` negatives of the smallest weight (the mean of both directions), smallest first: those that are most
    /// likely no negatives. `excluded(image, text)` says which pairs are not to be listed.
    pub fn lowest(&self, k: usize, excluded: impl Fn(usize, usize) -> bool) -> Vec<WeighedPair> {
        let mut lowest = BinaryHeap::with_capacity(k + 1);
        let n = self.pairs();
        for images in self.spans() {
            let (similarity, teacher) = self.similarities(&images, &(0..n));
            let [by_image, by_text] = self
                .normalised(similarity.clone(), teacher.clone(), &images, &(0..n))
                .map(numbers);
            let (similarity, teacher) = (numbers(similarity), teacher.map(numbers));
            for at in 0..by_image.len() {
                let pair = WeighedPair {
                    image: images.start + at / n,
                    text: at % n,
                    image_to_text: by_image[at],
                    text_to_image: by_text[at],
                    similarity: similarity[at],
                    teacher: teacher.as_ref().map(|t| t[at]),
                };
                let pair = ByWeight(pair);
                let full = lowest.len() == k && lowest.peek().is_none_or(|last| pair >= *last);
                let WeighedPair { image, text, .. } = pair.0;
                if full || image == text || pair.0.weight().is_nan() || excluded(image, text) {
                    continue;
                }
                lowest.push(pair);
                if lowest.len() > k {
                    lowest.pop();
                }
            }
        }
        lowest.into_sorted_vec().into_iter().map(|p| p.0).collect()
    }

    /// Rows of images of which all texts make one block.
    fn spans(&self) -> impl Iterator<Item = Range<usize>> {
        let n = self.pairs();
        let step = (BLOCK / n).max(1);
        (0..n)
            .step_by(step)
            .map(move |start| start..(start + step).min(n))
    }

    fn similarities(
        &self,
        images: &Range<usize>,
        texts: &Range<usize>,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        let product = |image: &Tensor<2>, text: &Tensor<2>| {
            let image = image.clone().narrow(0, images.start, images.len());
            let text = text.clone().narrow(0, texts.start, texts.len());
            image.matmul(text.transpose())
        };
        let teacher = self.teacher.as_ref();
        (
            product(&self.image, &self.text),
            teacher.map(|[image, text]| product(image, text)),
        )
    }

    fn normalised(
        &self,
        similarity: Tensor<2>,
        teacher: Option<Tensor<2>>,
        images: &Range<usize>,
        texts: &Range<usize>,
    ) -> [Tensor<2>; 2] {
        let log_weights = self.regulation.log_weights(similarity, teacher);
        let [by_image, by_text] = &self.log_mean;
        let of_rows = by_image.clone().narrow(0, images.start, images.len());
        let of_columns = by_text.clone().narrow(0, texts.start, texts.len());
        [
            (log_weights.clone() - of_rows.unsqueeze_dim(1)).exp(),
            (log_weights - of_columns.unsqueeze_dim(0)).exp(),
        ]
    }
}

/// The numbers of a block, row by row.
fn numbers(block: Tensor<2>) -> Vec<f64> {
    let data = block.into_data();
    match data.as_slice::<f32>() {
        Ok(numbers) => numbers.iter().map(|&x| x.into()).collect(),
        Err(_) => data.iter().collect(),
    }
}

impl WeightHistogram {
    /// The edges of the bins: one more than there are bins.
    pub fn edges(&self) -> Vec<f64> {
        let bins = self.counts.len();
        let edge = |bin| self.upper * bin as f64 / bins as f64;
        (0..=bins).map(edge).collect()
    }

    /// Counts a weight; mean and deviation hold sums until [`averaged`](Self::averaged).
    fn add(&mut self, weight: f64) {
        let bins = self.counts.len();
        if !weight.is_nan() {
            let bin = (weight / self.upper * bins as f64) as usize;
            self.counts[bin.min(bins - 1)] += 1;
        }
        self.mean += weight;
        // Weights are of the size of their mean, 1: no digits are lost.
        self.deviation += (weight - 1.0).powi(2);
        self.smallest = self.smallest.min(weight);
        self.largest = self.largest.max(weight);
    }

    fn averaged(self, count: f64) -> Self {
        let mean = self.mean / count;
        let variance = self.deviation / count - (mean - 1.0).powi(2);
        Self {
            mean,
            // Rounding must not take it below 0, and NaN stays.
            deviation: if variance < 0.0 { 0.0 } else { variance.sqrt() },
            ..self
        }
    }
}
