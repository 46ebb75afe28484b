//! The weights that SRCL would give the negatives: how they are distributed, and which pairs they spare most.

use burn::tensor::{DType, Int, Tensor};
use burn_contrastive::objective::Features;
use burn_contrastive::similarity::l2_normalize;
use serde::Serialize;

/// How many pairs are listed as likely false negatives.
pub const LISTED: usize = 20;

/// Pairs of the heat map.
pub const SHOWN: usize = 16;

/// Bins of the histogram, between the smallest and the largest weight.
pub const BINS: usize = 60;

/// Numbers of a block of similarities.
const BLOCK: usize = 1 << 21;

/// The weights of all negatives: `w_ij = (1/s_ij) / mean_{j≠i} (1/s_ij)` with `s_ij = α·e^{ĉ_ij} + (1 − α)·e^{c_ij}`, c
/// the cosines and ĉ the teacher's. An image's weights have mean one over the captions, a caption's over the images.
pub struct Weights {
    /// α, the teacher's share.
    pub alpha: f64,
    /// Edges of the histogram's bins, [`BINS`] + 1.
    pub edges: Vec<f64>,
    /// Negatives of images in each bin.
    pub image_to_text: Vec<u64>,
    /// Negatives of captions in each bin.
    pub text_to_image: Vec<u64>,
    /// The [`LISTED`] pairs of an image and a caption not its own that are most similar, most similar first.
    pub likely: Vec<LikelyPair>,
    /// Rows of the file that the heat map shows.
    pub rows: Vec<usize>,
    /// The weights that each of these captions gives to each of these images; NaN for its own.
    pub heat: Vec<Vec<f64>>,
}

/// A negative pair that may be a positive one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LikelyPair {
    /// Row of the image.
    pub image: usize,
    /// Row of the caption.
    pub text: usize,
    /// Their cosine.
    pub similarity: f64,
    /// Their cosine by the teacher.
    pub teacher_similarity: Option<f64>,
    /// The image's weight for the caption.
    pub image_to_text: f64,
    /// The caption's weight for the image.
    pub text_to_image: f64,
}

impl Weights {
    /// Of all pairs, in blocks of rows: `O(N·D)` memory, two passes over the similarities. Pairs of equal `image_ids` are
    /// not listed as likely false negatives: that they are false is known. `None` of a single pair.
    ///
    /// # Panics
    ///
    /// If `alpha` is not 0 and there is no teacher.
    pub fn of(features: &Features, image_ids: Option<&[usize]>, alpha: f64) -> Option<Self> {
        let n = features.image.dims()[0];
        if n < 2 {
            return None;
        }
        let sides = Sides::new(features, alpha);
        let others = (n - 1) as f64;

        // What the weights of a row, and of a column, are divided by.
        let mut row_means = Vec::with_capacity(n);
        let mut column_means = vec![0.0; n];
        let mut nearest = Nearest::default();
        sides.each_row(|i, mixed| {
            let mut mean = 0.0;
            for (j, &s) in mixed.iter().enumerate().filter(|&(j, _)| j != i) {
                let share = 1.0 / f64::from(s) / others;
                mean += share;
                column_means[j] += share;
                if nearest.takes(s) && image_ids.is_none_or(|ids| ids[i] != ids[j]) {
                    nearest.add(s, i, j);
                }
            }
            row_means.push(mean);
        });

        let mut counts = [Fine::new(), Fine::new()];
        sides.each_row(|i, mixed| {
            for (j, &s) in mixed.iter().enumerate().filter(|&(j, _)| j != i) {
                let inverse = 1.0 / f64::from(s);
                counts[0].add(inverse / row_means[i]);
                counts[1].add(inverse / column_means[j]);
            }
        });
        let (edges, [image_to_text, text_to_image]) = coarse(&counts);

        let pairs: Vec<_> = nearest.0.into_iter().map(|(_, i, j)| (i, j)).collect();
        let (images, texts): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let found = sides.among(&images, &texts);
        let likely = pairs
            .iter()
            .enumerate()
            .map(|(k, &(image, text))| LikelyPair {
                image,
                text,
                similarity: found.student[k][k],
                teacher_similarity: found.teacher.as_ref().map(|teacher| teacher[k][k]),
                image_to_text: 1.0 / found.mixed[k][k] / row_means[image],
                text_to_image: 1.0 / found.mixed[k][k] / column_means[text],
            });
        let likely = likely.collect();

        let mut rows: Vec<usize> = Vec::new();
        for row in pairs.iter().flat_map(|&(i, j)| [i, j]).chain(0..n) {
            if rows.len() < SHOWN && !rows.contains(&row) {
                rows.push(row);
            }
        }
        let shown = sides.among(&rows, &rows).mixed;
        let weight = |text: usize, image: usize| match image == text {
            true => f64::NAN,
            false => 1.0 / shown[image][text] / column_means[rows[text]],
        };
        let heat = (0..rows.len())
            .map(|text| (0..rows.len()).map(|image| weight(text, image)).collect())
            .collect();
        Some(Self {
            alpha,
            edges,
            image_to_text,
            text_to_image,
            likely,
            rows,
            heat,
        })
    }
}

/// The normalised embeddings that similarities are computed of.
struct Sides {
    alpha: f64,
    student: [Tensor<2>; 2],
    teacher: Option<[Tensor<2>; 2]>,
}

/// Similarities of some images (first index) and captions.
struct Among {
    student: Vec<Vec<f64>>,
    teacher: Option<Vec<Vec<f64>>>,
    mixed: Vec<Vec<f64>>,
}

impl Sides {
    fn new(features: &Features, alpha: f64) -> Self {
        let normalised = |x: &Tensor<2>| l2_normalize(x.clone());
        let teacher = [&features.teacher_image, &features.teacher_text];
        let [image, text] = teacher.map(|x| x.as_ref().map(normalised));
        let teacher = image.zip(text).map(|(image, text)| [image, text]);
        assert!(
            alpha == 0.0 || teacher.is_some(),
            "Weights: `alpha` is {alpha}, and there is no teacher"
        );
        Self {
            alpha,
            student: [&features.image, &features.text].map(normalised),
            teacher,
        }
    }

    /// Calls `f` with the mixed similarities of each image and all captions, `α·e^ĉ + (1 − α)·e^c`.
    fn each_row(&self, mut f: impl FnMut(usize, &[f32])) {
        let n = self.student[0].dims()[0];
        let height = (BLOCK / n).max(1);
        for start in (0..n).step_by(height) {
            let part = |[image, text]: &[Tensor<2>; 2]| {
                let image = image.clone().narrow(0, start, height.min(n - start));
                image.matmul(text.clone().transpose()).exp()
            };
            let mixed = match (&self.teacher, self.alpha) {
                (Some(teacher), 1.0) => part(teacher),
                (Some(teacher), alpha) if alpha > 0.0 => {
                    part(teacher) * alpha + part(&self.student) * (1.0 - alpha)
                }
                _ => part(&self.student),
            };
            let data = mixed.cast(DType::F32).into_data();
            let values = data.as_slice::<f32>().expect("f32");
            for (row, mixed) in (start..).zip(values.chunks_exact(n)) {
                f(row, mixed);
            }
        }
    }

    /// The similarities of a few images with a few captions.
    fn among(&self, images: &[usize], texts: &[usize]) -> Among {
        let pick = |x: &Tensor<2>, rows: &[usize]| {
            let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
            let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &x.device());
            x.clone().select(0, rows)
        };
        let cosines = |[image, text]: &[Tensor<2>; 2]| -> Vec<Vec<f64>> {
            if images.is_empty() {
                return Vec::new();
            }
            let block = pick(image, images).matmul(pick(text, texts).transpose());
            let values: Vec<f64> = block.into_data().iter::<f64>().collect();
            values.chunks(texts.len()).map(<[f64]>::to_vec).collect()
        };
        let student = cosines(&self.student);
        let teacher = self.teacher.as_ref().map(cosines);
        let mixed = |i: usize, j: usize| {
            let teacher = teacher.as_ref().map_or(0.0, |c| self.alpha * c[i][j].exp());
            teacher + (1.0 - self.alpha) * student[i][j].exp()
        };
        let mixed = (0..student.len())
            .map(|i| (0..texts.len()).map(|j| mixed(i, j)).collect())
            .collect();
        Among {
            student,
            teacher,
            mixed,
        }
    }
}

/// The most similar pairs so far, in descending order; of equals, the first.
#[derive(Default)]
struct Nearest(Vec<(f32, usize, usize)>);

impl Nearest {
    /// Whether a pair of this similarity is among them.
    fn takes(&self, similarity: f32) -> bool {
        self.0.len() < LISTED || self.0.last().is_some_and(|least| similarity > least.0)
    }

    fn add(&mut self, similarity: f32, i: usize, j: usize) {
        let place = self.0.partition_point(|pair| pair.0 >= similarity);
        self.0.insert(place, (similarity, i, j));
        self.0.truncate(LISTED);
    }
}

/// A histogram fine enough to be made coarse later, when the range is known.
struct Fine(Vec<u64>);

impl Fine {
    const BINS: usize = 1 << 13;
    /// e²: cosines lie in [−1, 1], and no `1/s` is further than that from another.
    const END: f64 = 7.389_056_098_930_65;

    fn new() -> Self {
        Self(vec![0; Self::BINS])
    }

    fn add(&mut self, weight: f64) {
        let bin = (weight / Self::END * Self::BINS as f64) as usize;
        self.0[bin.min(Self::BINS - 1)] += 1;
    }
}

/// Both histograms in the same [`BINS`] bins at most, from the smallest to the largest weight; with the bins' edges.
fn coarse(counts: &[Fine; 2]) -> (Vec<f64>, [Vec<u64>; 2]) {
    let occupied = |bin: &usize| counts.iter().any(|fine| fine.0[*bin] > 0);
    let first = (0..Fine::BINS).find(occupied).unwrap_or(0);
    let end = 1 + (0..Fine::BINS).rfind(occupied).unwrap_or(0);
    let width = (end - first).div_ceil(BINS);
    let bins = (end - first).div_ceil(width);
    let edge = |k: usize| (first + k * width) as f64 * Fine::END / Fine::BINS as f64;
    let joined = |fine: &Fine| {
        let end = (first + bins * width).min(Fine::BINS);
        let parts = fine.0[first..end].chunks(width);
        parts.map(|part| part.iter().sum()).collect()
    };
    (
        (0..=bins).map(edge).collect(),
        [&counts[0], &counts[1]].map(joined),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn circle(angles: &[f64]) -> Tensor<2> {
        let rows: Vec<f32> = angles
            .iter()
            .flat_map(|a| [a.cos() as f32, a.sin() as f32])
            .collect();
        Tensor::<1>::from_data(rows.as_slice(), &Device::flex()).reshape([angles.len(), 2])
    }

    #[test]
    fn weights_have_mean_one_and_spare_the_most_similar() {
        let (images, texts) = ([0.0, 1.0, 2.0, 4.0], [0.1, 1.9, 2.1, 3.0]);
        let features = Features::new(circle(&images), circle(&texts));
        let weights = Weights::of(&features, None, 0.0).unwrap();
        // By hand: 1/s over the mean of the others.
        let inverse = |i: usize, j: usize| (-(images[i] - texts[j]).cos()).exp();
        let row = |i: usize, j: usize| {
            let others = (0..4).filter(|&k| k != i).map(|k| inverse(i, k));
            3.0 * inverse(i, j) / others.sum::<f64>()
        };
        let column = |i: usize, j: usize| {
            let others = (0..4).filter(|&k| k != j).map(|k| inverse(k, j));
            3.0 * inverse(i, j) / others.sum::<f64>()
        };
        // All twelve negatives are listed, the nearest first: image 2 and text 1, 0.1 apart.
        assert_eq!(weights.likely.len(), 12);
        let first = &weights.likely[0];
        assert_eq!((first.image, first.text), (2, 1));
        for pair in &weights.likely {
            let (i, j) = (pair.image, pair.text);
            assert!((pair.image_to_text - row(i, j)).abs() < 1e-5);
            assert!((pair.text_to_image - column(i, j)).abs() < 1e-5);
            assert!((pair.similarity - (images[i] - texts[j]).cos()).abs() < 1e-6);
        }
        for counts in [&weights.image_to_text, &weights.text_to_image] {
            assert_eq!(counts.iter().sum::<u64>(), 12);
            assert_eq!(counts.len() + 1, weights.edges.len());
        }
        for (text, row) in weights.rows.iter().zip(&weights.heat) {
            for (image, weight) in weights.rows.iter().zip(row) {
                assert_eq!(weight.is_nan(), text == image);
                assert!(text == image || (weight - column(*image, *text)).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn the_teacher_has_its_share_and_captions_of_the_same_image_are_not_suspects() {
        let angles = [0.0, 0.9, 2.0, 4.0];
        let mut features = Features::new(circle(&angles), circle(&angles));
        let turned = circle(&[0.0, 3.0, 2.0, 0.1]);
        features.teacher_image = Some(turned.clone());
        features.teacher_text = Some(turned);
        let first = |alpha, ids| {
            let weights = Weights::of(&features, ids, alpha).unwrap();
            let pair = &weights.likely[0];
            (pair.image, pair.text)
        };
        assert_eq!(first(0.0, None), (0, 1));
        assert_eq!(first(1.0, None), (0, 3));
        assert_eq!(first(1.0, Some(&[7, 1, 2, 7])), (1, 2));
    }

    #[test]
    fn a_single_pair_has_no_weights() {
        let features = Features::new(circle(&[0.0]), circle(&[0.0]));
        assert!(Weights::of(&features, None, 0.0).is_none());
    }
}
