//! How the similarities of positives and of negatives are distributed.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::blocks::{Blocks, Cosines};
use super::cross_modal::check_pairs;
use super::metrics::nan_if_null;

/// Histograms of the cosines of positive and of negative pairs over [−1, 1].
///
/// If any embedding holds a NaN or an infinity, the bins are empty and every figure is NaN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SimilarityHistogram {
    /// Number of positive pairs in each of the equal bins of [−1, 1]; a bin holds its lower edge, the last also 1.
    pub positive_counts: Vec<u64>,
    /// Number of negative pairs in each bin.
    pub negative_counts: Vec<u64>,
    /// Mean and deviation over the positive pairs.
    pub positive: SimilarityMoments,
    /// Mean and deviation over the negative pairs; NaN where there is none.
    pub negative: SimilarityMoments,
}

/// Mean and standard deviation of a population of cosines.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SimilarityMoments {
    /// Mean cosine.
    #[serde(deserialize_with = "nan_if_null")]
    pub mean: f64,
    /// Standard deviation (of the population: divided by its size).
    #[serde(deserialize_with = "nan_if_null")]
    pub deviation: f64,
}

impl SimilarityHistogram {
    /// The edges of the bins: one more than there are bins, from −1 to 1.
    pub fn edges(&self) -> Vec<f64> {
        let bins = self.positive_counts.len();
        (0..=bins)
            .map(|bin| 2.0 * bin as f64 / bins as f64 - 1.0)
            .collect()
    }

    /// Overlap coefficient, Σ min(p, q) over the bins of the two normalised histograms: 0 where they are apart, 1 where they are
    /// the same. NaN where either is empty. Finer bins see smaller differences, so compare only equal numbers of bins.
    pub fn overlap(&self) -> f64 {
        let positives = self.positive_counts.iter().sum::<u64>() as f64;
        let negatives = self.negative_counts.iter().sum::<u64>() as f64;
        if positives == 0.0 || negatives == 0.0 {
            return f64::NAN;
        }
        self.positive_counts
            .iter()
            .zip(&self.negative_counts)
            .map(|(&p, &n)| (p as f64 / positives).min(n as f64 / negatives))
            .sum()
    }
}

/// The cosines of all pairs of images and texts, positives apart from negatives, in `bins` equal bins over [−1, 1].
///
/// `images`, `texts`, `image_of_text`: as in [`cross_modal`](super::cross_modal()). The matrix is read back block by block and counted on
/// the host, with f64 sums.
///
/// # Panics
/// As [`cross_modal`](super::cross_modal()), and if `bins` is 0.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::retrieval::similarity_histogram;
///
/// let images = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0]], &Device::default());
/// let histogram = similarity_histogram(images.clone(), images, &[0, 1], 4);
/// assert_eq!(histogram.positive_counts, [0, 0, 0, 2]);
/// assert_eq!(histogram.negative_counts, [0, 0, 2, 0]);
/// assert_eq!(histogram.overlap(), 0.0);
/// ```
#[track_caller]
pub fn similarity_histogram(
    images: Tensor<2>,
    texts: Tensor<2>,
    image_of_text: &[usize],
    bins: usize,
) -> SimilarityHistogram {
    Blocks::default().similarity_histogram(images, texts, image_of_text, bins)
}

impl Blocks {
    /// [`similarity_histogram`] with blocks of this shape, images as rows.
    ///
    /// # Panics
    /// As [`similarity_histogram`].
    #[track_caller]
    pub fn similarity_histogram(
        &self,
        images: Tensor<2>,
        texts: Tensor<2>,
        image_of_text: &[usize],
        bins: usize,
    ) -> SimilarityHistogram {
        assert!(bins > 0, "bins: need at least one bin, got 0");
        let cosines = Cosines::new(("images", images), ("texts", texts));
        let [image_count, text_count] = cosines.dims();
        check_pairs([image_count, text_count], image_of_text);

        let mut positive = Population::new(bins);
        let mut negative = Population::new(bins);
        if cosines.all_finite() {
            for images in self.row_spans(image_count) {
                for texts in self.column_spans(text_count) {
                    let block = cosines.block(&images, &texts).into_data();
                    let owners = &image_of_text[texts.clone()];
                    let pairs = images
                        .clone()
                        .flat_map(|i| owners.iter().map(move |&owner| owner == i));
                    for (cosine, is_positive) in block.iter::<f64>().zip(pairs) {
                        let population = if is_positive {
                            &mut positive
                        } else {
                            &mut negative
                        };
                        population.add(cosine);
                    }
                }
            }
        }
        SimilarityHistogram {
            positive: positive.moments(),
            negative: negative.moments(),
            positive_counts: positive.counts,
            negative_counts: negative.counts,
        }
    }
}

/// Cosines counted and summed.
struct Population {
    counts: Vec<u64>,
    size: u64,
    mean: f64,
    /// Σ (cosine − mean)², kept up to date as Welford does: Σ x² − (Σ x)² would cancel.
    squares: f64,
}

impl Population {
    fn new(bins: usize) -> Self {
        Self {
            counts: vec![0; bins],
            size: 0,
            mean: 0.0,
            squares: 0.0,
        }
    }

    fn add(&mut self, cosine: f64) {
        let bins = self.counts.len();
        let bin = ((cosine + 1.0) / 2.0 * bins as f64) as usize;
        self.counts[bin.min(bins - 1)] += 1;
        self.size += 1;
        let above = cosine - self.mean;
        self.mean += above / self.size as f64;
        self.squares += above * (cosine - self.mean);
    }

    fn moments(&self) -> SimilarityMoments {
        if self.size == 0 {
            return SimilarityMoments {
                mean: f64::NAN,
                deviation: f64::NAN,
            };
        }
        SimilarityMoments {
            mean: self.mean,
            deviation: (self.squares / self.size as f64).sqrt(),
        }
    }
}
