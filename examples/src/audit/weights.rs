//! The weights that SRCL would give the negatives: their distribution, and the pairs with the
//! smallest ones.

use burn::tensor::{Int, Tensor};
use burn_contrastive::analysis::{BatchWeights, WeighedPair};
use burn_contrastive::negatives::PairFeatures;
use burn_contrastive::objective::Features;
use burn_contrastive::similarity::SimilarityConfig;
use burn_contrastive::weighting::{Norm, SimilarityRegulation};

/// Number of pairs listed as likely false negatives.
pub const LISTED: usize = 20;

/// Pairs of the heat map.
pub const SHOWN: usize = 16;

/// Largest number of bins of the histogram, between the smallest and the largest weight.
pub const BINS: usize = 60;

/// Bins of the histogram that is first counted, over the whole possible range.
const FINE_BINS: usize = 1 << 13;

/// The weights of all negatives. An image's weights have mean one over the captions, a caption's
/// over the images.
pub struct Weights {
    /// How they were computed.
    pub regulation: SimilarityRegulation,
    /// Edges of the histogram's bins.
    pub edges: Vec<f64>,
    /// Negatives of images in each bin.
    pub image_to_text: Vec<u64>,
    /// Negatives of captions in each bin.
    pub text_to_image: Vec<u64>,
    /// Estimated mutual information of images and of captions with their negatives, `E log(1/w)` in
    /// nats.
    pub information: [f64; 2],
    /// The [`LISTED`] pairs of an image and a caption not its own with the least weight, least
    /// first.
    pub likely: Vec<WeighedPair>,
    /// Rows of the file that the heat map shows.
    pub rows: Vec<usize>,
    /// The weights that each of these captions gives to each of these images; NaN for its own.
    pub heat: Vec<Vec<f64>>,
}

impl Weights {
    /// Of all pairs, in blocks: `O(N·D)` memory. Pairs with equal `image_ids` match: they are no
    /// negatives. `None` for a single pair.
    ///
    /// # Panics
    ///
    /// If `alpha` of the regulation is not 0 and there is no teacher.
    pub fn of(
        features: &Features,
        image_ids: Option<&[usize]>,
        regulation: SimilarityRegulation,
    ) -> Option<Self> {
        let weights = batch_weights(features, image_ids, regulation)?;
        let n = weights.pairs();
        let [by_image, by_text] = weights.histogram(FINE_BINS, largest(regulation, n));
        let (edges, [image_to_text, text_to_image]) =
            coarse([&by_image.counts, &by_text.counts], by_image.upper);
        let likely = weights.lowest(LISTED);
        let mut rows: Vec<usize> = Vec::new();
        for row in likely
            .iter()
            .flat_map(|pair| [pair.image, pair.text])
            .chain(0..n)
        {
            if rows.len() < SHOWN && !rows.contains(&row) {
                rows.push(row);
            }
        }
        Some(Self {
            regulation,
            edges,
            image_to_text,
            text_to_image,
            information: weights.information(),
            likely,
            heat: heat(&weights, &rows),
            rows,
        })
    }
}

/// The share of the negatives, of images and of captions, whose weight is below the threshold.
/// `None` for a single pair.
pub fn share_below(
    features: &Features,
    image_ids: Option<&[usize]>,
    regulation: SimilarityRegulation,
    threshold: f64,
) -> Option<[f64; 2]> {
    Some(batch_weights(features, image_ids, regulation)?.share_below(threshold))
}

fn batch_weights(
    features: &Features,
    image_ids: Option<&[usize]>,
    regulation: SimilarityRegulation,
) -> Option<BatchWeights> {
    if features.image.dims()[0] < 2 {
        return None;
    }
    let mut batch = PairFeatures::new(features.image.clone(), features.text.clone());
    batch.teacher_image.clone_from(&features.teacher_image);
    batch.teacher_text.clone_from(&features.teacher_text);
    batch.ids = image_ids.map(|ids| {
        let ids: Vec<i64> = ids.iter().map(|&id| id as i64).collect();
        Tensor::<1, Int>::from_data(ids.as_slice(), &features.image.device())
    });
    let similarity = SimilarityConfig::new();
    Some(BatchWeights::new(regulation, batch, None, similarity))
}

/// A bound of the weights of `n` pairs: cosines lie in [−1, 1], so two `1/s` differ by at most a
/// factor of `e^(2/τ)`; and the weights of an anchor have mean one.
fn largest(regulation: SimilarityRegulation, n: usize) -> f64 {
    let literal = 2f64.exp();
    match regulation.norm {
        Norm::Mean => {
            let ratio = (2.0 / regulation.weight_temperature).exp();
            ratio.min(literal.max(n as f64))
        }
        Norm::Softmax { .. } => literal.max(n as f64),
    }
}

/// The weights that captions give to images, among these rows.
fn heat(weights: &BatchWeights, rows: &[usize]) -> Vec<Vec<f64>> {
    let of_image = |&image: &usize| -> Vec<f64> {
        let [_, by_text] = weights.block(image..image + 1, 0..weights.pairs());
        by_text.into_data().iter::<f64>().collect()
    };
    let images: Vec<Vec<f64>> = rows.iter().map(of_image).collect();
    let of_text = |&text: &usize| {
        let weight = |(&image, by_text): (&usize, &Vec<f64>)| {
            if image == text {
                f64::NAN
            } else {
                by_text[text]
            }
        };
        rows.iter().zip(&images).map(weight).collect()
    };
    rows.iter().map(of_text).collect()
}

/// Both histograms in the same [`BINS`] bins at most, from the smallest to the largest weight; with
/// the bins' edges.
fn coarse(counts: [&[u64]; 2], largest: f64) -> (Vec<f64>, [Vec<u64>; 2]) {
    let occupied = |bin: &usize| counts.iter().any(|counts| counts[*bin] > 0);
    let first = (0..FINE_BINS).find(occupied).unwrap_or(0);
    let end = 1 + (0..FINE_BINS).rfind(occupied).unwrap_or(0);
    let width = (end - first).div_ceil(BINS);
    let joined = |counts: &[u64]| {
        let parts = counts[first..end].chunks(width);
        parts.map(|part| part.iter().sum()).collect::<Vec<u64>>()
    };
    let joined = counts.map(joined);
    let edge = |k: usize| (first + k * width) as f64 * largest / FINE_BINS as f64;
    ((0..=joined[0].len()).map(edge).collect(), joined)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    fn alpha(alpha: f64) -> SimilarityRegulation {
        SimilarityRegulation::new().with_alpha(alpha)
    }

    fn circle(angles: &[f64]) -> Tensor<2> {
        let rows: Vec<f32> = angles
            .iter()
            .flat_map(|a| [a.cos() as f32, a.sin() as f32])
            .collect();
        Tensor::<1>::from_data(rows.as_slice(), &Device::flex()).reshape([angles.len(), 2])
    }

    #[test]
    fn the_heat_map_shows_the_likeliest_false_negatives() {
        let (images, texts) = ([0.0, 1.0, 2.0, 4.0], [0.1, 1.9, 2.1, 3.0]);
        let features = Features::new(circle(&images), circle(&texts));
        let weights = Weights::of(&features, None, alpha(0.0)).unwrap();
        // By hand: 1/s over the mean of the others.
        let inverse = |i: usize, j: usize| (-(images[i] - texts[j]).cos()).exp();
        let by_text = |i: usize, j: usize| {
            let others = (0..4).filter(|&k| k != j).map(|k| inverse(k, j));
            3.0 * inverse(i, j) / others.sum::<f64>()
        };
        // All twelve negatives are listed; image 2 and text 1, 0.1 apart, come first.
        assert_eq!(weights.likely.len(), 12);
        assert_eq!((weights.likely[0].image, weights.likely[0].text), (2, 1));
        assert_eq!(weights.rows[..2], [2, 1]);
        for (text, row) in weights.rows.iter().zip(&weights.heat) {
            for (image, weight) in weights.rows.iter().zip(row) {
                assert_eq!(weight.is_nan(), text == image);
                assert!(text == image || (weight - by_text(*image, *text)).abs() < 1e-5);
            }
        }
        for counts in [&weights.image_to_text, &weights.text_to_image] {
            assert_eq!(counts.iter().sum::<u64>(), 12);
            assert_eq!(counts.len() + 1, weights.edges.len());
        }
    }

    #[test]
    fn captions_of_the_same_image_are_not_listed() {
        let angles = [0.0, 0.9, 2.0, 4.0];
        let mut features = Features::new(circle(&angles), circle(&angles));
        let turned = circle(&[0.0, 3.0, 2.0, 0.1]);
        features.teacher_image = Some(turned.clone());
        features.teacher_text = Some(turned);
        let suspects = |ids| {
            let weights = Weights::of(&features, ids, alpha(1.0)).unwrap();
            let pair = |pair: &WeighedPair| (pair.image, pair.text);
            weights.likely.iter().map(pair).collect::<Vec<_>>()
        };
        assert!(suspects(None).contains(&(0, 3)));
        let suspects = suspects(Some(&[7, 1, 2, 7]));
        assert!(!suspects.contains(&(0, 3)) && suspects.len() == 10);
    }

    #[test]
    fn histograms_are_cut_where_they_are_empty() {
        let mut counts = vec![0; FINE_BINS];
        (counts[1000], counts[1130]) = (3, 4);
        let (edges, [one, other]) = coarse([&counts, &vec![0; FINE_BINS]], 8.0);
        assert_eq!((one.len(), edges.len()), (44, 45));
        assert_eq!((one[0], one[43], one.iter().sum::<u64>()), (3, 4, 7));
        assert_eq!(other, [0; 44]);
        assert!((edges[0] - 1000.0 * 8.0 / FINE_BINS as f64).abs() < 1e-12);
    }

    #[test]
    fn a_single_pair_has_no_weights() {
        let features = Features::new(circle(&[0.0]), circle(&[0.0]));
        assert!(Weights::of(&features, None, alpha(0.0)).is_none());
    }
}
