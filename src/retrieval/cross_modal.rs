//! Ranks from images to texts and from texts to images.

use burn::tensor::Tensor;

use super::cosines::Cosines;
use super::{CrossModalMetrics, Ranks};
use crate::pairwise::{Expr, columns, rows};
use crate::tensor::{read, select_rows};

/// Ranks in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrossModal {
    /// For each image, the rank of the best of its captions among all texts.
    pub image_to_text: Ranks,
    /// For each text, the rank of its image among all images.
    pub text_to_image: Ranks,
}

impl CrossModal {
    /// The usual metrics of both directions.
    pub fn metrics(&self) -> CrossModalMetrics {
        CrossModalMetrics::new(&self.image_to_text, &self.text_to_image)
    }
}

/// Ranks each image's captions among all texts, and each text's image among all images.
///
/// The cosines of matching pairs are computed first, then one pass over all pairs counts, for both
/// directions, the negatives that are not less similar.
///
/// # Shapes
///
/// - `images`: `[N, D]`, any norm
/// - `texts`: `[M, D]`, any norm, on the same device
/// - `image_of_text`: M indices below N, the image that each text describes, in any order; each
///   image has at least one text
///
/// Ties, NaN and memory: see [the module](super).
///
/// # Panics
///
/// If an input is empty or has more than 2²⁴ rows, widths, dtypes or devices differ, an index is
/// out of range, or an image has no text.
#[track_caller]
pub fn cross_modal(images: Tensor<2>, texts: Tensor<2>, image_of_text: &[usize]) -> CrossModal {
    let mut cosines = Cosines::new("cross_modal", ("images", images), ("texts", texts));
    let [image_count, _] = cosines.dims();
    check_pairs("cross_modal", cosines.dims(), image_of_text);

    let best_of_text = cosines.of_columns(image_of_text);
    let mut best_of_image = vec![f64::NEG_INFINITY; image_count];
    for (&image, &cosine) in image_of_text.iter().zip(&best_of_text) {
        best_of_image[image] = best_of_image[image].max(cosine);
    }
    let images: Vec<usize> = (0..image_count).collect();
    let positive = cosines.same_label(&images, image_of_text);
    // Negatives that are not below it rank before the positive.
    let threshold = |best: Vec<f64>| {
        let least = best.iter().map(|best| best - cosines.tie);
        cosines.vector(least.collect())
    };
    let [of_image, of_text] = [best_of_image, best_of_text].map(threshold);
    let mut pairs = cosines.pairs;
    let (of_image, of_text) = (pairs.row(of_image), pairs.column(of_text));
    let cosine = pairs.similarity();
    let ahead = |threshold: &Expr| {
        let below = (threshold - &cosine).step();
        Expr::select(
            &positive,
            &Expr::constant(0.0),
            &(Expr::constant(1.0) - below),
        )
    };
    let counts = pairs.reduce(&[
        rows().sum(&ahead(&of_image)),
        columns().sum(&ahead(&of_text)),
    ]);
    let [image_to_text, text_to_image] = [0, 1].map(|side| {
        let (queries, candidates) = (&cosines.finite[side], &cosines.finite[1 - side]);
        let defined = candidates.iter().all(|&finite| finite);
        let counts = read(counts[side].clone());
        let rank =
            |(ahead, &finite): (f64, &bool)| (defined && finite).then_some(1 + ahead as usize);
        Ranks::new(counts.into_iter().zip(queries).map(rank).collect())
    });
    CrossModal {
        image_to_text,
        text_to_image,
    }
}

/// The mean of [`cross_modal`]'s metrics over five folds of the images, each with its own captions.
///
/// With the 5,000 test images of MS-COCO in their order this is its 1K protocol: five folds of
/// 1,000 consecutive images, whose recalls, median and mean ranks are averaged. Arguments are
/// those of [`cross_modal`].
///
/// # Panics
///
/// As [`cross_modal`], and if the number of images is not a multiple of five.
#[track_caller]
pub fn five_fold(
    images: Tensor<2>,
    texts: Tensor<2>,
    image_of_text: &[usize],
) -> CrossModalMetrics {
    let [image_count, _] = images.dims();
    assert!(
        image_count > 0 && image_count.is_multiple_of(5),
        "five_fold: `images` has {image_count} rows: it needs a multiple of 5, and at least 5"
    );
    check_pairs("five_fold", [image_count, texts.dims()[0]], image_of_text);
    let size = image_count / 5;
    let (images, texts) = (images.without_autodiff(), texts.without_autodiff());
    let fold = |start: usize| {
        let of_fold = |text: &usize| (start..start + size).contains(&image_of_text[*text]);
        let members: Vec<usize> = (0..image_of_text.len()).filter(of_fold).collect();
        let owners: Vec<usize> = members
            .iter()
            .map(|&text| image_of_text[text] - start)
            .collect();
        let images = images.clone().narrow(0, start, size);
        cross_modal(images, select_rows(&texts, members), &owners).metrics()
    };
    let folds: Vec<_> = (0..5).map(|k| fold(k * size)).collect();
    CrossModalMetrics::average(&folds)
}

/// Every text has an image, and every image has a text.
#[track_caller]
pub(super) fn check_pairs(caller: &str, [images, texts]: [usize; 2], image_of_text: &[usize]) {
    assert!(
        image_of_text.len() == texts,
        "{caller}: `image_of_text` has {} indices: it needs the image of each of the {texts} texts",
        image_of_text.len()
    );
    let mut described = vec![false; images];
    for (text, &image) in image_of_text.iter().enumerate() {
        assert!(
            image < images,
            "{caller}: `image_of_text` names image {image} for text {text}: \
             it needs indices below the number of images, {images}"
        );
        described[image] = true;
    }
    if let Some(image) = described.iter().position(|described| !described) {
        panic!("{caller}: `image_of_text` names no text for image {image}: every image needs one");
    }
}
