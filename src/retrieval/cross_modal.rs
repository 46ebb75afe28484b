//! Ranks from images to texts and from texts to images, in one sweep over the blocks.

use std::ops::Range;

use burn::tensor::{Bool, FloatDType, Int, Tensor};

use super::blocks::{Blocks, Cosines};
use super::{CrossModalMetrics, Ranks};

/// Ranks in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrossModal {
    /// For each image, the rank of the best of its captions among all texts.
    pub image_to_text: Ranks,
    /// For each text, the rank of its image among all images.
    pub text_to_image: Ranks,
}

impl CrossModal {
    /// The usual figures of both directions.
    pub fn metrics(&self) -> CrossModalMetrics {
        CrossModalMetrics::new(&self.image_to_text, &self.text_to_image)
    }
}

/// Rank every image's captions among all texts, and every text's image among all images.
///
/// # Shapes
/// - `images`: `[N, D]`, any norm
/// - `texts`: `[M, D]`, any norm, on the same device
/// - `image_of_text`: M indices below N: the image that each text describes, in any order; each image has at least one text
///
/// Ties, NaN and memory: see [the module](super).
///
/// # Panics
/// On empty inputs, shapes or devices that differ, an index out of range, or an image without a text.
#[track_caller]
pub fn cross_modal(images: Tensor<2>, texts: Tensor<2>, image_of_text: &[usize]) -> CrossModal {
    Blocks::default().cross_modal(images, texts, image_of_text)
}

/// The mean of [`cross_modal`]'s metrics over five folds of the images, each with its own captions only.
///
/// With MS-COCO's 5,000 test images in their order this is its 1K protocol: five folds of 1,000 consecutive images, whose
/// recalls, median and mean ranks are averaged. Arguments are those of [`cross_modal`].
///
/// # Panics
/// As [`cross_modal`], and if the number of images is not a multiple of five.
#[track_caller]
pub fn five_fold(
    images: Tensor<2>,
    texts: Tensor<2>,
    image_of_text: &[usize],
) -> CrossModalMetrics {
    Blocks::default().five_fold(images, texts, image_of_text)
}

impl Blocks {
    /// [`cross_modal`] with blocks of this shape, images as rows.
    ///
    /// # Panics
    /// As [`cross_modal`].
    #[track_caller]
    pub fn cross_modal(
        &self,
        images: Tensor<2>,
        texts: Tensor<2>,
        image_of_text: &[usize],
    ) -> CrossModal {
        let cosines = Cosines::new(("images", images), ("texts", texts));
        check_pairs(cosines.dims(), image_of_text);
        Sweep::new(&cosines, *self, image_of_text).ranks()
    }

    /// [`five_fold`] with blocks of this shape, images as rows.
    ///
    /// # Panics
    /// As [`five_fold`].
    #[track_caller]
    pub fn five_fold(
        &self,
        images: Tensor<2>,
        texts: Tensor<2>,
        image_of_text: &[usize],
    ) -> CrossModalMetrics {
        let [image_count, _] = images.dims();
        assert!(
            image_count > 0 && image_count.is_multiple_of(5),
            "images: five folds need a multiple of 5 images, got {image_count}"
        );
        check_pairs([image_count, texts.dims()[0]], image_of_text);
        let fold_size = image_count / 5;
        let (images, texts) = (images.inner(), texts.inner());
        let folds: Vec<_> = (0..5)
            .map(|fold| {
                let start = fold * fold_size;
                let members: Vec<usize> = (0..image_of_text.len())
                    .filter(|&text| (start..start + fold_size).contains(&image_of_text[text]))
                    .collect();
                let owners: Vec<usize> = members
                    .iter()
                    .map(|&text| image_of_text[text] - start)
                    .collect();
                let members: Vec<i64> = members.iter().map(|&text| text as i64).collect();
                let members = Tensor::<1, Int>::from_data(members.as_slice(), &texts.device());
                self.cross_modal(
                    images.clone().narrow(0, start, fold_size),
                    texts.clone().select(0, members),
                    &owners,
                )
                .metrics()
            })
            .collect();
        CrossModalMetrics::average(&folds)
    }
}

/// Every text names an image, and every image has a text.
#[track_caller]
pub(super) fn check_pairs([images, texts]: [usize; 2], image_of_text: &[usize]) {
    assert_eq!(
        image_of_text.len(),
        texts,
        "image_of_text: need the image of each of the {texts} texts, got {} indices",
        image_of_text.len()
    );
    let mut described = vec![false; images];
    for (text, &image) in image_of_text.iter().enumerate() {
        assert!(
            image < images,
            "image_of_text: need indices below the number of images, {images}, got {image} for text {text}"
        );
        described[image] = true;
    }
    if let Some(image) = described.iter().position(|described| !described) {
        panic!("image_of_text: every image needs a text, image {image} has none");
    }
}

/// Two passes over the blocks of images × texts: the first finds each query's best positive, in the blocks that hold
/// positives; the second counts, for both directions at once, the negatives that are not less similar.
struct Sweep<'a> {
    cosines: &'a Cosines,
    image_spans: Vec<Range<usize>>,
    text_spans: Vec<Range<usize>>,
    image_of_text: &'a [usize],
    /// `[N, 1]`: 0, 1, 2, …
    images: Tensor<2, Int>,
    /// `[1, M]`: the image of each text.
    owners: Tensor<2, Int>,
}

impl<'a> Sweep<'a> {
    fn new(cosines: &'a Cosines, blocks: Blocks, image_of_text: &'a [usize]) -> Self {
        let [images, texts] = cosines.dims();
        Self {
            cosines,
            image_spans: blocks.row_spans(images),
            text_spans: blocks.column_spans(texts),
            image_of_text,
            images: cosines.int_column(0..images),
            owners: cosines
                .int_column(image_of_text.iter().copied())
                .transpose(),
        }
    }

    fn ranks(&self) -> CrossModal {
        let (best_of_image, best_of_text) = self.best_positives();
        let mut ahead_of_image = vec![None; self.image_spans.len()];
        let mut ahead_of_text = vec![None; self.text_spans.len()];
        for (i, images) in self.image_spans.iter().enumerate() {
            for (t, texts) in self.text_spans.iter().enumerate() {
                let negatives = self
                    .cosines
                    .block(images, texts)
                    .mask_fill(self.positives(images, texts), f32::NEG_INFINITY);
                add(
                    &mut ahead_of_image[i],
                    count_not_below(&negatives, &best_of_image[i], 1),
                );
                add(
                    &mut ahead_of_text[t],
                    count_not_below(&negatives, &best_of_text[t], 0),
                );
            }
        }
        let rows = &self.cosines.finite_rows;
        let columns = &self.cosines.finite_columns;
        CrossModal {
            image_to_text: into_ranks(ahead_of_image, rows, columns),
            text_to_image: into_ranks(ahead_of_text, columns, rows),
        }
    }

    /// The cosine that a negative must stay below: each query's best positive, less the tolerance of a tie.
    fn best_positives(&self) -> (Vec<Tensor<2>>, Vec<Tensor<2>>) {
        let mut of_image = vec![None; self.image_spans.len()];
        let mut of_text = vec![None; self.text_spans.len()];
        for (i, images) in self.image_spans.iter().enumerate() {
            for (t, texts) in self.text_spans.iter().enumerate() {
                if !self.image_of_text[texts.clone()]
                    .iter()
                    .any(|image| images.contains(image))
                {
                    continue;
                }
                let positives = self
                    .cosines
                    .block(images, texts)
                    .mask_fill(self.positives(images, texts).bool_not(), f32::NEG_INFINITY);
                raise(&mut of_image[i], positives.clone().max_dim(1));
                raise(&mut of_text[t], positives.max_dim(0));
            }
        }
        let threshold = |best: Option<Tensor<2>>| {
            best.expect("every image has a text, every text an image")
                .sub_scalar(self.cosines.tie)
        };
        (
            of_image.into_iter().map(threshold).collect(),
            of_text.into_iter().map(threshold).collect(),
        )
    }

    /// Where in a block the text describes the image.
    fn positives(&self, images: &Range<usize>, texts: &Range<usize>) -> Tensor<2, Bool> {
        let images = self.images.clone().narrow(0, images.start, images.len());
        let owners = self.owners.clone().narrow(1, texts.start, texts.len());
        images.equal(owners)
    }
}

/// How many cosines along `dim` are not below the threshold.
fn count_not_below(cosines: &Tensor<2>, threshold: &Tensor<2>, dim: usize) -> Tensor<2, Int> {
    cosines
        .clone()
        .greater_equal(threshold.clone())
        .cast(FloatDType::F32)
        .sum_dim(dim)
        .int()
}

fn add(total: &mut Option<Tensor<2, Int>>, count: Tensor<2, Int>) {
    *total = Some(match total.take() {
        Some(total) => total + count,
        None => count,
    });
}

fn raise(best: &mut Option<Tensor<2>>, candidate: Tensor<2>) {
    *best = Some(match best.take() {
        Some(best) => best.max_pair(candidate),
        None => candidate,
    });
}

/// Ranks from the numbers of negatives ahead; none for a query that is not finite, and none at all if a candidate is not.
fn into_ranks(
    ahead: Vec<Option<Tensor<2, Int>>>,
    finite_queries: &[bool],
    finite_candidates: &[bool],
) -> Ranks {
    let defined = finite_candidates.iter().all(|&finite| finite);
    let ranks = ahead
        .into_iter()
        .flatten()
        .flat_map(|ahead| ahead.into_data().iter::<i64>().collect::<Vec<_>>())
        .zip(finite_queries)
        .map(|(ahead, &finite)| (defined && finite).then_some(1 + ahead as usize))
        .collect();
    Ranks::new(ranks)
}
