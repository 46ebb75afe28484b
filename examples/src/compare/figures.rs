//! The figures of a run, from its embeddings of a split.
//!
//! Recall counts the one image that a caption was written for, and so cannot tell a model that
//! finds another image of the same meaning from one that finds nothing. nDCG@10 and R-precision
//! count what is retrieved by what it means: once by true equality, once by the overlap of
//! attributes. Ties never help: of equally similar candidates, those of less gain come first.

use burn::tensor::{Int, Tensor};
use burn_contrastive::objective::Features;
use burn_contrastive::retrieval::CrossModalMetrics;
use burn_contrastive::similarity::l2_normalize;
use serde::{Deserialize, Serialize};

use super::data::Part;
use crate::audit::statistics::Statistics;
use crate::audit::tensors::Embeddings;
use crate::number;

/// Places that nDCG looks at.
const PLACES: usize = 10;

/// From this overlap on a candidate is relevant for R-precision. Of the seven facts of a scene of
/// two objects one may then differ, of the twelve of three objects two.
pub const RELEVANT: f64 = 0.8;

/// What is measured of embeddings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Recall of a caption's own image, and of an image's own captions.
    pub retrieval: CrossModalMetrics,
    /// By equal meaning, or where meanings are unknown by the same image.
    pub by_equality: ByMeaning,
    /// By the overlap of attributes, where these are known.
    pub by_overlap: Option<ByMeaning>,
    /// `E ‖u − v‖²` over captions and their images.
    #[serde(with = "number::or_null")]
    pub alignment: f64,
    /// `log E e^{−2 ‖u − v‖²}` over all captions and the images of all captions.
    #[serde(with = "number::or_null")]
    pub uniformity: f64,
    /// `‖E u − E v‖`.
    #[serde(with = "number::or_null")]
    pub modality_gap: f64,
}

/// Retrieval by what candidates mean, in percent, the mean of both directions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByMeaning {
    /// Discounted gain of the first ten, as a share of the greatest possible.
    #[serde(with = "number::or_null")]
    pub ndcg: f64,
    /// Share of relevant candidates among the first R, where there are R relevant ones.
    #[serde(with = "number::or_null")]
    pub r_precision: f64,
}

/// How far images agree in their meaning.
pub struct Truth {
    equality: Gains,
    overlap: Option<Gains>,
    image_of_caption: Vec<usize>,
}

/// The gain of each image, and so of its captions, for each image.
pub struct Gains {
    /// Row by row.
    of: Vec<f64>,
    images: usize,
    /// The gain from which on a candidate is relevant.
    relevant: f64,
}

impl Gains {
    fn new(images: usize, relevant: f64, gain: impl Fn(usize, usize) -> f64) -> Self {
        let all = (0..images).flat_map(|a| (0..images).map(move |b| (a, b)));
        Self {
            of: all.map(|(a, b)| gain(a, b)).collect(),
            images,
            relevant,
        }
    }

    /// How many images there are.
    pub fn images(&self) -> usize {
        self.images
    }

    /// The gain of each image, where one image or its captions are looked for.
    pub fn row(&self, image: usize) -> &[f64] {
        &self.of[image * self.images..][..self.images]
    }

    /// How many of these gains are those of relevant candidates.
    pub fn count_relevant(&self, gains: &[f64]) -> usize {
        gains.iter().filter(|gain| **gain >= self.relevant).count()
    }
}

impl Truth {
    /// That of a part.
    pub fn of(part: &Part) -> Self {
        let images = part.meanings.len();
        let equal = |a: usize, b: usize| f64::from(u8::from(part.meanings[a] == part.meanings[b]));
        let overlap = part.scenes.as_ref().map(|scenes| {
            let overlap = |a: usize, b: usize| scenes[a].similarity(&scenes[b]);
            Gains::new(images, RELEVANT, overlap)
        });
        Self {
            equality: Gains::new(images, 1.0, equal),
            overlap,
            image_of_caption: part.image_of_caption.clone(),
        }
    }

    /// The gains by equal meaning.
    pub fn equality(&self) -> &Gains {
        &self.equality
    }

    /// Those by the overlap of attributes, where these are known.
    pub fn overlap(&self) -> Option<&Gains> {
        self.overlap.as_ref()
    }

    /// The image of each caption.
    pub fn image_of_caption(&self) -> &[usize] {
        &self.image_of_caption
    }
}

impl Figures {
    /// Those of embeddings of the images and of the captions of a part, `[rows, width]` each.
    pub fn of([images, texts]: &[Tensor<2>; 2], truth: &Truth) -> Self {
        let statistics = Statistics::of(&embeddings(images, texts, &truth.image_of_caption));
        let cosines = Cosines::new(images, texts);
        Self {
            retrieval: statistics.retrieval,
            by_equality: cosines.by_meaning(&truth.equality, &truth.image_of_caption),
            by_overlap: truth
                .overlap
                .as_ref()
                .map(|gains| cosines.by_meaning(gains, &truth.image_of_caption)),
            alignment: statistics.alignment,
            uniformity: statistics.uniformity,
            modality_gap: statistics.modality_gap,
        }
    }
}

/// The embeddings as `audit` takes them.
fn embeddings(images: &Tensor<2>, texts: &Tensor<2>, image_of_caption: &[usize]) -> Embeddings {
    let rows: Vec<i32> = image_of_caption.iter().map(|&image| image as i32).collect();
    let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &images.device());
    let of_captions = images.clone().select(0, rows.clone());
    Embeddings {
        features: Features::new(of_captions, texts.clone()),
        image: images.clone(),
        image_of_text: Some(rows),
        image_ids: Some(image_of_caption.to_vec()),
        labels: None,
        found: Vec::new(),
        unknown: Vec::new(),
    }
}

/// The cosines of all images with all captions, on the host.
struct Cosines {
    values: Vec<f64>,
    captions: usize,
    tie: f64,
}

impl Cosines {
    fn new(images: &Tensor<2>, texts: &Tensor<2>) -> Self {
        let [images, texts] = [images, texts].map(|side| l2_normalize(side.clone()));
        let [captions, width] = texts.dims();
        let values = images.matmul(texts.transpose()).into_data();
        Self {
            values: values.iter::<f64>().collect(),
            captions,
            // That of the ranks.
            tie: 2.0 * f64::from(f32::EPSILON) * (width as f64).sqrt(),
        }
    }

    fn by_meaning(&self, gains: &Gains, image_of_caption: &[usize]) -> ByMeaning {
        let mut sums = [[0.0; 2]; 2];
        for (image, cosines) in self.values.chunks(self.captions).enumerate() {
            let gains_of = gains.row(image);
            let candidates = cosines.iter().zip(image_of_caption);
            let candidates = candidates.map(|(&cosine, &owner)| (cosine, gains_of[owner]));
            add(
                &mut sums[0],
                self.scores(candidates.collect(), gains.relevant),
            );
        }
        for (caption, &owner) in image_of_caption.iter().enumerate() {
            let gains_of = gains.row(owner);
            let candidates = gains_of.iter().enumerate().map(|(image, &gain)| {
                let cosine = self.values[image * self.captions + caption];
                (cosine, gain)
            });
            add(
                &mut sums[1],
                self.scores(candidates.collect(), gains.relevant),
            );
        }
        let counts = [gains.images, self.captions].map(|count| count as f64);
        let mean = |figure: usize| {
            100.0 * (sums[0][figure] / counts[0] + sums[1][figure] / counts[1]) / 2.0
        };
        ByMeaning {
            ndcg: mean(0),
            r_precision: mean(1),
        }
    }

    /// nDCG and R-precision of one query, whose candidates have these cosines and gains. NaN where
    /// a cosine is.
    fn scores(&self, mut candidates: Vec<(f64, f64)>, relevant: f64) -> [f64; 2] {
        if candidates.iter().any(|(cosine, _)| cosine.is_nan()) {
            return [f64::NAN; 2];
        }
        candidates.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let mut start = 0;
        while start < candidates.len() {
            let least = candidates[start].0 - self.tie;
            let length = candidates[start..].partition_point(|(cosine, _)| *cosine >= least);
            candidates[start..start + length].sort_by(|(_, a), (_, b)| a.total_cmp(b));
            start += length;
        }
        let mut gains: Vec<f64> = candidates.into_iter().map(|(_, gain)| gain).collect();
        let count = gains.iter().filter(|gain| **gain >= relevant).count();
        let found = gains[..count]
            .iter()
            .filter(|gain| **gain >= relevant)
            .count();
        let gained = discounted(&gains);
        gains.sort_by(|a, b| b.total_cmp(a));
        [gained / discounted(&gains), found as f64 / count as f64]
    }
}

/// The gain of the first candidates, discounted by the logarithm of their rank.
pub(super) fn discounted(gains: &[f64]) -> f64 {
    let ranked = gains.iter().take(PLACES).enumerate();
    ranked
        .map(|(place, gain)| gain / (place as f64 + 2.0).log2())
        .sum()
}

fn add(sums: &mut [f64; 2], values: [f64; 2]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// Three images with a caption each; the first two mean the same.
    fn part() -> Part {
        Part {
            image_of_caption: vec![0, 1, 2],
            meanings: vec![7, 7, 8],
            ..Part::default()
        }
    }

    fn figures(images: [[f64; 2]; 3], texts: [[f64; 2]; 3]) -> Figures {
        let device = Device::flex();
        let sides = [images, texts].map(|rows| Tensor::from_data(rows, &device));
        Figures::of(&sides, &Truth::of(&part()))
    }

    #[test]
    fn a_retrieved_equal_counts_by_meaning_and_not_by_recall() {
        let (x, y) = ([1.0, 0.0], [0.0, 1.0]);
        // The first two images are told apart the wrong way round.
        let a = [0.8, 0.6];
        let found = figures([x, a, y], [a, x, y]);
        assert!(
            (found.by_equality.r_precision - 100.0).abs() < 1e-9,
            "{found:?}"
        );
        assert!((found.by_equality.ndcg - 100.0).abs() < 1e-9);
        assert!((found.retrieval.text_to_image.recall_at_1 - 100.0 / 3.0).abs() < 1e-9);
        assert_eq!(found.by_overlap, None);
    }

    #[test]
    fn equal_embeddings_are_ranked_last() {
        let x = [1.0, 0.0];
        let found = figures([x; 3], [x; 3]);
        // Of three candidates: two relevant ones at ranks 2 and 3, or one at rank 3.
        let [two, three] = [3.0_f64, 4.0].map(|place| 1.0 / place.log2());
        let ndcg = (2.0 * (two + three) / (1.0 + two) + three) / 3.0;
        assert!((found.by_equality.ndcg - 100.0 * ndcg).abs() < 1e-9);
        assert!((found.by_equality.r_precision - 100.0 * 2.0 * 0.5 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn nan_in_nan_out() {
        let x = [1.0, 0.0];
        let found = figures([[f64::NAN, 0.0], x, x], [x; 3]);
        assert!(found.by_equality.ndcg.is_nan() && found.by_equality.r_precision.is_nan());
    }
}
