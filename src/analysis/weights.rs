//! The weights that a batch's negatives get, read in blocks.

use std::ops::Range;

use burn::tensor::Tensor;

use super::WeightHistogram;
use crate::check;
use crate::negatives::PairFeatures;
use crate::pairwise::{Along, Expr, Pairs, columns, log_add_exp, log_mean, rows};
use crate::similarity::{SimilarityConfig, rowwise_dot};
use crate::tensor::{read, select_rows};
use crate::weighting::LogWeight;

/// Number of weights that are read at a time.
const BLOCK: usize = 1 << 18;

/// Stands for a pair that is no negative: no weight is negative.
const NO_WEIGHT: f64 = -1.0;

/// The weights of the negatives of a batch in both directions, as the softmax criterion computes
/// them for its loss: from the same [`LogWeight`], scaled to mean one over the negatives of each
/// anchor, those of the batch and those of a queue together. Without a gradient.
///
/// Samples with the anchor's id are no negatives, as under
/// [`SameId::LeftOut`](crate::objective::SameId::LeftOut), the criterion's default. Holds the
/// features and a value for each anchor, `O(N·D)`, and computes weights in blocks.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::analysis::BatchWeights;
/// use burn_contrastive::negatives::PairFeatures;
/// use burn_contrastive::similarity::SimilarityConfig;
/// use burn_contrastive::weighting::SimilarityRegulation;
///
/// let device = Device::default();
/// let image = Tensor::<2>::from_data([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]], &device);
/// let batch = PairFeatures::new(image.clone(), image.clone())
///     .with_teacher(image.clone(), image);
/// let regulation = SimilarityRegulation::new();
/// let weights = BatchWeights::new(regulation, batch, None, SimilarityConfig::new());
///
/// let [by_image, _] = weights.histogram(4, 2.0);
/// assert_eq!(by_image.counts.iter().sum::<u64>(), 6);
/// assert!((by_image.mean - 1.0).abs() < 1e-6);
/// // Images 0 and 1 are similar, and so are their texts.
/// let pair = &weights.lowest(1)[0];
/// assert_eq!(pair.image + pair.text, 1);
/// // At the defaults the smallest weights are far above a usual threshold.
/// assert_eq!(weights.share_below(0.2), [0.0, 0.0]);
/// ```
#[derive(Clone, Debug)]
pub struct BatchWeights {
    batch: PairFeatures,
    /// The pairs of the batch; then, with a queue, image anchors with the queue's texts and text
    /// anchors with its images.
    groups: Vec<Group>,
    /// The logarithm of the mean weight of each image anchor, of each text anchor.
    log_mean: [Tensor<1>; 2],
    /// The number of negatives of all image anchors, of all text anchors.
    negatives: [f64; 2],
    information: [f64; 2],
}

/// Anchors and candidates with the weights between them.
#[derive(Clone, Debug)]
struct Group {
    pairs: Pairs,
    /// Number of anchors, and of candidates.
    sizes: [usize; 2],
    log_weight: Expr,
    /// Not 0 for a pair that is no negative.
    left_out: Expr,
    /// The directions (0 of image anchors, 1 of text anchors), and along what their anchors' sums
    /// go.
    directions: Vec<(usize, Along)>,
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
    /// Similarity, a cosine if embeddings are normalised.
    pub similarity: f64,
    /// The teacher's similarity, if the weights depend on a teacher.
    pub teacher: Option<f64>,
}

impl WeighedPair {
    /// The mean of its two weights.
    pub fn weight(&self) -> f64 {
        (self.image_to_text + self.text_to_image) / 2.0
    }
}

impl BatchWeights {
    /// The weights of a batch's negatives.
    ///
    /// # Shapes
    ///
    /// - `batch`: features `[N, D]`; ids `[N]` if several pairs match; a teacher's features
    ///   `[N, E]` if `log_weight` needs a teacher
    /// - `queue`: the same of `K` more pairs, such as
    ///   [`FeatureQueue::features`](crate::negatives::FeatureQueue::features)
    ///
    /// # Panics
    ///
    /// If shapes or devices differ, the batch is empty, or a teacher is needed and missing.
    #[track_caller]
    pub fn new(
        log_weight: impl Into<LogWeight>,
        batch: PairFeatures,
        queue: Option<PairFeatures>,
        similarity: SimilarityConfig,
    ) -> Self {
        let log_weight = log_weight.into();
        let dtype = check::compute_dtype(batch.image.dtype());
        let like = batch.image.clone().without_autodiff().cast(dtype);
        let prepare = |features: PairFeatures, name| {
            let features = features.like(&like);
            prepared(features, name, log_weight.needs_teacher(), similarity)
        };
        let batch = prepare(batch, "batch");
        let group = |anchors: &PairFeatures, others: &PairFeatures, left_out, directions| {
            let pairs = similarity.pairs(anchors.image.clone(), others.text.clone());
            Group::new(pairs, &log_weight, [anchors, others], left_out, directions)
        };
        let both = vec![(0, rows()), (1, columns())];
        let mut groups = vec![group(&batch, &batch, Expr::diagonal(), both)];
        if let Some(queue) = queue {
            let queue = prepare(queue, "queue");
            let image = ("batch.image", &batch.image);
            check::comparable(NAME, image, ("queue.image", &queue.image));
            let none = || Expr::constant(0.0);
            groups.push(group(&batch, &queue, none(), vec![(0, rows())]));
            let [batch, queue] = [&batch, &queue].map(swapped);
            groups.push(group(&batch, &queue, none(), vec![(1, rows())]));
        }
        let sums = [0, 1].map(|direction| Sums::new(&groups, direction));
        Self {
            batch,
            groups,
            negatives: sums.each_ref().map(|sums| sums.negatives),
            information: sums.each_ref().map(|sums| sums.information),
            log_mean: sums.map(|sums| sums.log_mean),
        }
    }

    /// Number of pairs N of the batch.
    pub fn pairs(&self) -> usize {
        self.batch.image.dims()[0]
    }

    /// The estimated mutual information of an anchor and its negatives under these weights,
    /// `E log(1/w)` in nats, of image anchors and of text anchors: the mean over the anchors that
    /// have negatives, NaN if none has. (Jiang et al. 2023, equation 40.)
    pub fn information(&self) -> [f64; 2] {
        self.information
    }

    /// The share of the weights that are below `threshold`, of image anchors and of text anchors;
    /// NaN without negatives. [`Weighting::Removal`](crate::weighting::Weighting::Removal) leaves
    /// out these negatives: if the share is 0, it removes nothing.
    pub fn share_below(&self, threshold: f64) -> [f64; 2] {
        let mut below = [0.0; 2];
        for group in &self.groups {
            let mut pairs = group.pairs.clone();
            let reductions: Vec<_> = group
                .directions
                .iter()
                .map(|&(direction, along)| {
                    let least = self.log_mean[direction].clone() + threshold.ln();
                    let below = (pairs.bind(along, least) - &group.log_weight).step();
                    along.sum(&group.of_negatives(&below, 0.0))
                })
                .collect();
            let counts = pairs.reduce(&reductions);
            for (&(direction, _), counts) in group.directions.iter().zip(counts) {
                below[direction] += read(counts).iter().sum::<f64>();
            }
        }
        [0, 1].map(|direction| below[direction] / self.negatives[direction])
    }

    /// A block of the weights between the batch's images and texts: of texts among the negatives
    /// of an image, then of images among the negatives of a text. NaN if a text is no negative of
    /// an image.
    ///
    /// # Shapes
    ///
    /// - returns `[images.len(), texts.len()]` both
    ///
    /// # Panics
    ///
    /// If a range is empty or exceeds the batch.
    #[track_caller]
    pub fn block(&self, images: Range<usize>, texts: Range<usize>) -> [Tensor<2>; 2] {
        let weights = self.weights(&self.groups[0], images, texts);
        let weights = weights.into_iter().map(|weights| {
            let none = weights.clone().lower_elem(0.0);
            weights.mask_fill(none, f64::NAN)
        });
        let weights: Vec<_> = weights.collect();
        weights.try_into().expect("two directions")
    }

    /// The distribution of the weights of image anchors and of text anchors over `bins` equal bins
    /// of [0, `upper`].
    ///
    /// # Panics
    ///
    /// If `bins` is 0 or `upper` is not positive.
    #[track_caller]
    pub fn histogram(&self, bins: usize, upper: f64) -> [WeightHistogram; 2] {
        assert!(bins > 0, "{NAME}: `bins` is 0, it needs at least one");
        check::or_panic(check::range(
            NAME,
            "upper",
            upper,
            f64::MIN_POSITIVE,
            f64::MAX,
        ));
        let mut histograms = [0, 1].map(|_| WeightHistogram::new(bins, upper));
        for group in &self.groups {
            for (rows, columns) in group.blocks() {
                let weights = self.weights(group, rows, columns);
                for (&(direction, _), weights) in group.directions.iter().zip(weights) {
                    let weights = read(weights).into_iter().filter(|&w| w != NO_WEIGHT);
                    weights.for_each(|weight| histograms[direction].add(weight));
                }
            }
        }
        let mut counts = self.negatives.into_iter();
        histograms.map(|histogram| histogram.averaged(counts.next().expect("two directions")))
    }

    /// The `k` negative pairs of the batch with the smallest weight (the mean of both directions),
    /// smallest first: those that are most likely false negatives.
    pub fn lowest(&self, k: usize) -> Vec<WeighedPair> {
        let mut lowest: Vec<WeighedPair> = Vec::new();
        let order = |a: &WeighedPair, b: &WeighedPair| {
            let place = |pair: &WeighedPair| (pair.image, pair.text);
            let by_weight = a.weight().total_cmp(&b.weight());
            by_weight.then(place(a).cmp(&place(b)))
        };
        for (images, texts) in self.groups[0].blocks() {
            let width = texts.len();
            let weights = self.weights(&self.groups[0], images.clone(), texts.clone());
            let weights: Vec<_> = weights.into_iter().map(read).collect();
            let largest = (lowest.len() == k).then(|| lowest.last().map(WeighedPair::weight));
            for (at, (&by_image, &by_text)) in weights[0].iter().zip(&weights[1]).enumerate() {
                let pair = WeighedPair {
                    image: images.start + at / width,
                    text: texts.start + at % width,
                    image_to_text: by_image,
                    text_to_image: by_text,
                    similarity: f64::NAN,
                    teacher: None,
                };
                let small = largest.is_none_or(|l| l.is_some_and(|l| pair.weight() <= l));
                if by_image != NO_WEIGHT && small && !pair.weight().is_nan() {
                    lowest.push(pair);
                }
            }
            lowest.sort_unstable_by(order);
            lowest.truncate(k);
        }
        self.compare(&mut lowest);
        lowest
    }

    /// Fills in the similarities of pairs.
    fn compare(&self, pairs: &mut [WeighedPair]) {
        if pairs.is_empty() {
            return;
        }
        let batch = &self.batch;
        let similarities = |image: &Tensor<2>, text: &Tensor<2>| {
            let images = select_rows(image, pairs.iter().map(|pair| pair.image));
            let texts = select_rows(text, pairs.iter().map(|pair| pair.text));
            read(rowwise_dot(images, texts))
        };
        let ours = similarities(&batch.image, &batch.text);
        let teacher = batch
            .teacher_image
            .as_ref()
            .zip(batch.teacher_text.as_ref());
        let theirs = teacher.map(|(image, text)| similarities(image, text));
        for (k, pair) in pairs.iter_mut().enumerate() {
            pair.similarity = ours[k];
            pair.teacher = theirs.as_ref().map(|theirs| theirs[k]);
        }
    }

    /// A block of weights for each of the group's directions; [`NO_WEIGHT`] of what is no negative.
    #[track_caller]
    fn weights(
        &self,
        group: &Group,
        in_rows: Range<usize>,
        in_columns: Range<usize>,
    ) -> Vec<Tensor<2>> {
        let block = |x: &Expr| group.pairs.block(x, in_rows.clone(), in_columns.clone());
        let log_weight = block(&group.log_weight);
        let left_out = block(&group.left_out).not_equal_elem(0.0);
        let weights = |&(direction, along): &(usize, Along)| {
            let (range, dim) = if along == rows() {
                (&in_rows, 1)
            } else {
                (&in_columns, 0)
            };
            let log_mean = self.log_mean[direction].clone();
            let log_mean = log_mean.narrow(0, range.start, range.len());
            let weights = (log_weight.clone() - log_mean.unsqueeze_dim(dim)).exp();
            weights.mask_fill(left_out.clone(), NO_WEIGHT)
        };
        group.directions.iter().map(weights).collect()
    }
}

impl Group {
    /// The weights of pairs of an image of `anchors` and a text of `others`; their ids leave out
    /// more.
    fn new(
        mut pairs: Pairs,
        log_weight: &LogWeight,
        [anchors, others]: [&PairFeatures; 2],
        left_out: Expr,
        directions: Vec<(usize, Along)>,
    ) -> Self {
        let teacher = anchors
            .teacher_image
            .clone()
            .zip(others.teacher_text.clone());
        let teacher = teacher.map(|(image, text)| pairs.teacher(image, text));
        let ids = anchors.ids.clone().zip(others.ids.clone());
        // A pair has its own id: those with the same id include the diagonal.
        let left_out = match ids {
            Some((anchors, others)) => pairs.same_label(anchors, others),
            None => left_out,
        };
        Self {
            log_weight: log_weight.of(&pairs.similarity(), teacher.as_ref()),
            sizes: [anchors.image.dims()[0], others.text.dims()[0]],
            pairs,
            left_out,
            directions,
        }
    }

    /// `x` of negatives, `otherwise` of other pairs.
    fn of_negatives(&self, x: &Expr, otherwise: f64) -> Expr {
        Expr::select(&self.left_out, &Expr::constant(otherwise), x)
    }

    /// Rows and columns of blocks that cover all pairs, row by row.
    fn blocks(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let [rows, columns] = self.sizes;
        let height = (BLOCK / columns).max(1);
        let starts = (0..rows).step_by(height);
        starts.map(move |start| (start..(start + height).min(rows), 0..columns))
    }
}

/// What the weights of one direction sum to.
struct Sums {
    log_mean: Tensor<1>,
    negatives: f64,
    information: f64,
}

impl Sums {
    fn new(groups: &[Group], direction: usize) -> Self {
        let one = Expr::constant(1.0);
        let of_group = |group: &Group| {
            let directions = group.directions.iter();
            let (_, along) = directions.into_iter().find(|(own, _)| *own == direction)?;
            Some(group.pairs.clone().reduce(&[
                along.log_sum_exp(&group.of_negatives(&group.log_weight, f64::NEG_INFINITY)),
                along.sum(&group.of_negatives(&group.log_weight, 0.0)),
                along.sum(&group.of_negatives(&one, 0.0)),
            ]))
        };
        let results: Vec<_> = groups.iter().filter_map(of_group).collect();
        let log_sums: Vec<_> = results.iter().map(|group| group[0].clone()).collect();
        let sum = |k: usize| {
            let parts = results.iter().map(|group| group[k].clone());
            parts.reduce(|x, y| x + y).expect("the batch")
        };
        let (sum, count) = (sum(1), sum(2));
        let log_mean = log_mean(&log_add_exp(&log_sums), &count);
        let count = read(count);
        // Of anchors with negatives, E log(1/w).
        let each = read(log_mean.clone())
            .into_iter()
            .zip(read(sum))
            .zip(&count);
        let each = each.filter(|(_, count)| **count > 0.0);
        let each: Vec<f64> = each
            .map(|((mean, sum), count)| mean - sum / count)
            .collect();
        Self {
            log_mean,
            negatives: count.iter().sum(),
            information: each.iter().sum::<f64>() / each.len() as f64,
        }
    }
}

const NAME: &str = "BatchWeights";

/// Features as they are compared, with a teacher's only if they are needed.
#[track_caller]
fn prepared(
    features: PairFeatures,
    name: &str,
    needs_teacher: bool,
    similarity: SimilarityConfig,
) -> PairFeatures {
    let PairFeatures {
        image,
        text,
        ids,
        teacher_image,
        teacher_text,
    } = features;
    check::paired(NAME, ("image", &image), ("text", &text));
    if let Some(ids) = &ids {
        check::labelled(NAME, ("ids", ids), ("image", &image));
    }
    let teacher = |field: &str, features: Option<Tensor<2>>| {
        let missing = || {
            panic!(
                "{NAME}: `{name}.{field}` is missing: the weights depend on a teacher's features"
            )
        };
        needs_teacher.then(|| {
            similarity
                .prepare(features.unwrap_or_else(missing))
                .values()
        })
    };
    PairFeatures {
        teacher_image: teacher("teacher_image", teacher_image),
        teacher_text: teacher("teacher_text", teacher_text),
        image: similarity.prepare(image).values(),
        text: similarity.prepare(text).values(),
        ids,
    }
}

/// The same pairs with images and texts exchanged.
fn swapped(features: &PairFeatures) -> PairFeatures {
    PairFeatures {
        image: features.text.clone(),
        text: features.image.clone(),
        ids: features.ids.clone(),
        teacher_image: features.teacher_text.clone(),
        teacher_text: features.teacher_image.clone(),
    }
}
