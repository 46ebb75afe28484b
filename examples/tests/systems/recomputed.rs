//! What reports say, computed again by plain loops in `f64` over what was embedded.

use burn::tensor::Tensor;
use burn_contrastive_examples::data::EvaluationSet;
use burn_contrastive_examples::report::{DirectionScores, Histogram, Metrics, ScoresWithSum};
use burn_contrastive_examples::training::evaluation::Retrieved;

/// Rows of numbers.
pub type Rows = Vec<Vec<f64>>;

pub fn rows(tensor: &Tensor<2>) -> Rows {
    let width = tensor.dims()[1];
    let all: Vec<f64> = tensor.clone().into_data().iter::<f64>().collect();
    all.chunks(width).map(<[f64]>::to_vec).collect()
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Rows divided by their lengths.
pub fn units(rows: Rows) -> Rows {
    let unit = |row: Vec<f64>| {
        let length = dot(&row, &row).sqrt();
        row.into_iter().map(|x| x / length).collect()
    };
    rows.into_iter().map(unit).collect()
}

/// The cosine of each row of one side with each of the other.
pub fn cosines(a: &Tensor<2>, b: &Tensor<2>) -> Rows {
    let [a, b] = [a, b].map(|side| units(rows(side)));
    a.iter()
        .map(|a| b.iter().map(|b| dot(a, b)).collect())
        .collect()
}

/// Cosines of embeddings so wide that differ by no more are equal, as the library says.
pub fn tie(width: usize) -> f64 {
    2.0 * f64::from(f32::EPSILON) * (width as f64).sqrt()
}

/// That a score lies within what rounding may make of it.
#[track_caller]
fn between(found: f64, [least, most]: [f64; 2]) {
    let (least, most) = (least.min(most), least.max(most));
    assert!(
        least - 1e-9 <= found && found <= most + 1e-9,
        "{found}, by hand {least} to {most}"
    );
}

#[track_caller]
pub fn close(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() < 1e-9,
        "{found}, by hand {expected}"
    );
}

/// Recall at 1, 5 and 10, median and mean rank of queries with these similarities with candidates;
/// negatives come first in ties.
fn scores(similarities: &Rows, is_own: impl Fn(usize, usize) -> bool, tie: f64) -> [f64; 5] {
    let mut ranks = Vec::new();
    for (query, row) in similarities.iter().enumerate() {
        let mut best = f64::MIN;
        for (candidate, &similarity) in row.iter().enumerate() {
            if is_own(query, candidate) {
                best = best.max(similarity);
            }
        }
        let mut rank = 1;
        for (candidate, &similarity) in row.iter().enumerate() {
            if !is_own(query, candidate) && similarity >= best - tie {
                rank += 1;
            }
        }
        ranks.push(rank);
    }
    ranks.sort_unstable();
    let count = ranks.len();
    let recall = |k: i32| {
        let found = ranks.iter().filter(|&&rank| rank <= k).count();
        100.0 * found as f64 / count as f64
    };
    let median = f64::from(ranks[count / 2] + ranks[(count - 1) / 2]) / 2.0;
    let mean = ranks.iter().map(|&rank| f64::from(rank)).sum::<f64>() / count as f64;
    [recall(1), recall(5), recall(10), median, mean]
}

/// That all scores of a report are those of similarities, of images with captions and of captions
/// with images.
#[track_caller]
pub fn assert_scores(
    [of_images, of_captions]: [&Rows; 2],
    image_of_caption: &[usize],
    tie: f64,
    reported: &ScoresWithSum,
) {
    let own = |image: usize, caption: usize| image_of_caption[caption] == image;
    // f32 rounds by half a tie, so that a difference next to the tie may be on either side of it.
    let both = [0.5 * tie, 1.5 * tie].map(|tie| {
        [
            scores(of_images, own, tie),
            scores(of_captions, |caption, image| own(image, caption), tie),
        ]
    });
    let given = [reported.scores.image_to_text, reported.scores.text_to_image];
    for (direction, found) in given.into_iter().enumerate() {
        let DirectionScores {
            recall_at_1,
            recall_at_5,
            recall_at_10,
            median_rank,
            mean_rank,
        } = found;
        let found = [
            recall_at_1,
            recall_at_5,
            recall_at_10,
            median_rank,
            mean_rank,
        ];
        for (k, found) in found.into_iter().enumerate() {
            between(found, both.map(|scores| scores[direction][k]));
        }
    }
    let sum = |scores: [[f64; 5]; 2]| scores.iter().flat_map(|scores| &scores[..3]).sum();
    between(reported.r_sum, both.map(sum));
}

/// That a report says of retrieval what the embeddings say, after the training and before it.
#[track_caller]
pub fn assert_report(
    before: Option<&Retrieved>,
    after: &Retrieved,
    set: &EvaluationSet,
    metrics: &Metrics,
) {
    let (scores, histograms) = (&metrics.retrieval, &metrics.similarities);
    assert_eq!(scores.before.is_some(), before.is_some());
    for (retrieved, reported, histogram) in [
        (before, &scores.before, &histograms.before),
        (Some(after), &scores.after, &histograms.after),
    ] {
        if let Some(retrieved) = retrieved {
            let (reported, histogram) = (reported.as_ref().unwrap(), histogram.as_ref().unwrap());
            assert_retrieved(retrieved, set, reported, histogram);
        }
    }
}

/// That all scores of a report are those of the cosines of embeddings, and its histogram too.
#[track_caller]
pub fn assert_retrieved(
    retrieved: &Retrieved,
    set: &EvaluationSet,
    reported: &ScoresWithSum,
    histogram: &Histogram,
) {
    let [images, texts] = retrieved.embedded().embeddings();
    let [count, width] = images.dims();
    assert_eq!(
        [count, texts.dims()[0]],
        [set.num_images(), set.num_captions()]
    );
    let image_of = set.image_of_caption();
    let [of_images, of_captions] = [cosines(images, texts), cosines(texts, images)];
    assert_scores([&of_images, &of_captions], image_of, tie(width), reported);
    assert_histogram(&of_images, |image, text| image_of[text] == image, histogram);
}

/// That the bins and the means of a histogram are those of similarities. What is within rounding of
/// an edge may be on either side of it.
#[track_caller]
pub fn assert_histogram(
    similarities: &Rows,
    is_positive: impl Fn(usize, usize) -> bool,
    histogram: &Histogram,
) {
    let Histogram { low, high, .. } = *histogram;
    let bins = histogram.positive.len();
    for (side, counts, mean) in [
        (true, &histogram.positive, histogram.positive_mean),
        (false, &histogram.negative, histogram.negative_mean),
    ] {
        let (mut surely, mut perhaps) = (vec![0; bins], vec![0; bins]);
        let (mut sum, mut count) = (0.0, 0);
        let bin = |similarity: f64| {
            let place = (similarity - low) / (high - low) * bins as f64;
            (place.max(0.0) as usize).min(bins - 1)
        };
        for (query, row) in similarities.iter().enumerate() {
            for (candidate, &similarity) in row.iter().enumerate() {
                if is_positive(query, candidate) != side {
                    continue;
                }
                sum += similarity;
                count += 1;
                let [below, above] = [-1e-6, 1e-6].map(|error| bin(similarity + error));
                perhaps[below] += 1;
                if below == above {
                    surely[below] += 1;
                } else {
                    perhaps[above] += 1;
                }
            }
        }
        assert_eq!(counts.iter().sum::<u64>(), count);
        for (bin, &found) in counts.iter().enumerate() {
            let expected = surely[bin]..=perhaps[bin];
            assert!(
                expected.contains(&found),
                "bin {bin}: {found}, by hand {expected:?}"
            );
        }
        let expected = sum / count as f64;
        assert!((mean - expected).abs() < 1e-6, "{mean}, by hand {expected}");
    }
}

/// The percentage of the `k` nearest candidates that have the label of the query; candidates of
/// other labels come first in ties.
pub fn precision(
    similarities: &Rows,
    [queries, candidates]: [&[usize]; 2],
    k: usize,
    tie: f64,
) -> f64 {
    let mut found = 0;
    for (row, label) in similarities.iter().zip(queries) {
        for (place, &similarity) in row.iter().enumerate() {
            if candidates[place] != *label {
                continue;
            }
            let mut ahead = 0;
            for (other, &value) in row.iter().enumerate() {
                let is_ahead = if candidates[other] == *label {
                    value > similarity || value == similarity && other < place
                } else {
                    value >= similarity - tie
                };
                ahead += usize::from(is_ahead);
            }
            found += usize::from(ahead < k);
        }
    }
    100.0 * found as f64 / (k * queries.len()) as f64
}

/// How often, in percent of all pairs, an example that has the label scores higher than one that
/// has not, ties counted half; `None` without either.
pub fn area(scored: &[(f64, Option<bool>)]) -> Option<f64> {
    let (mut pairs, mut wins) = (0.0, 0.0);
    for (score, _) in scored.iter().filter(|(_, label)| *label == Some(true)) {
        for (other, _) in scored.iter().filter(|(_, label)| *label == Some(false)) {
            pairs += 1.0;
            if score > other {
                wins += 1.0;
            } else if score == other {
                wins += 0.5;
            }
        }
    }
    (pairs > 0.0).then(|| 100.0 * wins / pairs)
}
