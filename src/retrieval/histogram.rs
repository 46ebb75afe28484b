//! How the similarities of positives and of negatives are distributed.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::cosines::{BLOCK, Cosines};
use super::cross_modal::check_pairs;
use super::metrics::nan_if_null;
use super::precision;

/// Histograms of the cosines of positive and of negative pairs over [−1, 1].
///
/// If any embedding holds a NaN or an infinity, the bins are empty and the moments are NaN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SimilarityHistogram {
    /// Number of positive pairs in each of the equal bins of [−1, 1]. A bin includes its lower
    /// edge, the last one also 1.
    pub positive_counts: Vec<u64>,
    /// Number of negative pairs in each bin.
    pub negative_counts: Vec<u64>,
    /// Mean and deviation over the positive pairs; NaN if there are none.
    pub positive: SimilarityMoments,
    /// Mean and deviation over the negative pairs; NaN if there are none.
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

    /// Overlap coefficient, Σ min(p, q) over the bins of the two normalised histograms: 0 if they
    /// are disjoint, 1 if they are equal, NaN if either is empty. It depends on the number of
    /// bins.
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

/// The cosines of all pairs of images and texts in `bins` equal bins over [−1, 1], those of
/// positives apart from those of negatives.
///
/// `images`, `texts`, `image_of_text`: as in [`cross_modal`](super::cross_modal()). The matrix is
/// read back block by block and counted on the host, with f64 sums.
///
/// # Panics
///
/// As [`cross_modal`](super::cross_modal()), and if `bins` is 0.
///
/// # Example
///
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
    let name = "similarity_histogram";
    let cosines = Cosines::new(name, ("images", images), ("texts", texts));
    check_pairs(name, cosines.dims(), image_of_text);
    histogram(name, &cosines, bins, |image, text| {
        image_of_text[text] == image
    })
}

/// The cosines of all queries with all candidates in `bins` equal bins over [−1, 1], those of equal
/// labels apart from the others, as figure 4 of ReCo (Lin et al.) shows texts with images and
/// images with images.
///
/// # Shapes
///
/// - `queries`: `[N, D]`, any norm; `query_labels`: N labels
/// - `candidates`: `[M, D]`, any norm, on the same device; `candidate_labels`: M labels
///
/// # Panics
///
/// If an input is empty or has more than 2²⁴ rows, widths, dtypes or devices differ, the number of
/// labels is another, or `bins` is 0.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::retrieval::label_histogram;
///
/// let device = Device::default();
/// let query = Tensor::<2>::from_data([[1.0, 0.0]], &device);
/// let candidates = Tensor::<2>::from_data([[0.9, 0.1], [-1.0, 0.1], [0.0, 1.0]], &device);
/// let histogram = label_histogram(query, &[7], candidates, &[7, 7, 3], 4);
/// assert_eq!(histogram.positive_counts, [1, 0, 0, 1]);
/// assert_eq!(histogram.negative_counts, [0, 0, 1, 0]);
/// ```
#[track_caller]
pub fn label_histogram(
    queries: Tensor<2>,
    query_labels: &[usize],
    candidates: Tensor<2>,
    candidate_labels: &[usize],
    bins: usize,
) -> SimilarityHistogram {
    let name = "label_histogram";
    let cosines = Cosines::new(name, ("queries", queries), ("candidates", candidates));
    precision::check(name, cosines.dims(), query_labels, candidate_labels, &[]);
    histogram(name, &cosines, bins, |query, candidate| {
        query_labels[query] == candidate_labels[candidate]
    })
}

#[track_caller]
fn histogram(
    name: &str,
    cosines: &Cosines,
    bins: usize,
    is_positive: impl Fn(usize, usize) -> bool,
) -> SimilarityHistogram {
    assert!(bins > 0, "{name}: `bins` is 0: it needs at least one");
    let cosine = cosines.pairs.similarity();
    let [mut positive, mut negative] = [0, 1].map(|_| Population::new(bins));
    let finite = cosines.all_finite();
    for (rows, spans) in cosines.blocks(BLOCK).filter(|_| finite) {
        for columns in spans {
            let block = cosines.pairs.block(&cosine, rows.clone(), columns.clone());
            let block = block.into_data();
            let pairs = rows
                .clone()
                .flat_map(|row| columns.clone().map(move |column| (row, column)));
            for (cosine, (row, column)) in block.iter::<f64>().zip(pairs) {
                if is_positive(row, column) {
                    positive.add(cosine);
                } else {
                    negative.add(cosine);
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

/// Cosines counted and summed.
struct Population {
    counts: Vec<u64>,
    size: u64,
    mean: f64,
    /// Σ (cosine − mean)², updated by Welford's method: Σ x² − (Σ x)² would cancel.
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
