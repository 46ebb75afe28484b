//! Weights of negatives with ids and a queue: they must be those that the loss uses.

use burn::tensor::{DType, Int, Tensor};
use burn_contrastive::analysis::BatchWeights;
use burn_contrastive::negatives::PairFeatures;
use burn_contrastive::objective::{Context, ContrastiveConfig, Criterion, Ids, Negatives, Teacher};
use burn_contrastive::similarity::{LogitScaleConfig, SimilarityConfig};
use burn_contrastive::weighting::{SimilarityRegulation, Weighting};

use super::*;
use crate::oracle::{Matrix, cosine, log_sum_exp};

on_every_backend! {
    weights_with_ids_and_a_queue_match_the_oracle,
    the_share_below_a_threshold_is_counted_in_both_directions,
    the_weights_are_those_of_the_loss,
}

const PAIRS: usize = 5;
const QUEUED: usize = 4;
const IDS: [i32; PAIRS] = [3, 8, 3, 5, 6];
const QUEUED_IDS: [i32; QUEUED] = [8, -1, 6, 6];
const TEMPERATURE: f64 = 0.2;

/// Images, texts, and the teacher's of both, of the batch and then of the queue.
struct Features([Matrix; 4]);

impl Features {
    fn new() -> Self {
        Self([180, 181, 182, 183].map(|seed| random(PAIRS + QUEUED, 4, seed)))
    }

    fn part(&self, backend: &Backend, start: usize, count: usize, ids: &[i32]) -> PairFeatures {
        let [image, text, teacher_image, teacher_text] = self
            .0
            .each_ref()
            .map(|x| backend.tensor(x, DType::F32).narrow(0, start, count));
        PairFeatures::new(image, text)
            .with_teacher(teacher_image, teacher_text)
            .with_ids(Tensor::<1, Int>::from_data(ids, &backend.device))
    }

    fn batch(&self, backend: &Backend) -> PairFeatures {
        self.part(backend, 0, PAIRS, &IDS)
    }

    fn queue(&self, backend: &Backend) -> PairFeatures {
        self.part(backend, PAIRS, QUEUED, &QUEUED_IDS)
    }

    /// The weights of an anchor's negatives (direction 0: an image's texts), by candidate: the
    /// batch, then the queue. `None` for what is no negative.
    fn weights(
        &self,
        regulation: SimilarityRegulation,
        direction: usize,
        anchor: usize,
    ) -> Vec<Option<f64>> {
        let ids = [&IDS[..], &QUEUED_IDS].concat();
        let similarity = |sides: [usize; 2], candidate: usize| {
            let (own, other) = (sides[direction], sides[1 - direction]);
            cosine(self.0[own].row(anchor), self.0[other].row(candidate))
        };
        let e = |c: f64| (c / regulation.weight_temperature).exp();
        let inverse = |j: usize| {
            let (ours, theirs) = (similarity([0, 1], j), similarity([2, 3], j));
            1.0 / (regulation.alpha * e(theirs) + (1.0 - regulation.alpha) * e(ours))
        };
        let negative = |j: &usize| ids[*j] != ids[anchor];
        let negatives: Vec<usize> = (0..ids.len()).filter(negative).collect();
        let sum: f64 = negatives.iter().map(|&j| inverse(j)).sum();
        let mean = sum / negatives.len() as f64;
        (0..ids.len())
            .map(|j| negative(&j).then(|| inverse(j) / mean))
            .collect()
    }

    fn all(&self, regulation: SimilarityRegulation, direction: usize) -> Vec<f64> {
        let of = |i| self.weights(regulation, direction, i);
        (0..PAIRS).flat_map(of).flatten().collect()
    }
}

fn regulation() -> SimilarityRegulation {
    SimilarityRegulation::new()
        .with_alpha(0.6)
        .with_weight_temperature(0.3)
}

fn weights(backend: &Backend, features: &Features) -> BatchWeights {
    let (batch, queue) = (features.batch(backend), features.queue(backend));
    BatchWeights::new(regulation(), batch, Some(queue), SimilarityConfig::new())
}

fn weights_with_ids_and_a_queue_match_the_oracle(backend: &Backend) {
    let features = Features::new();
    let found = weights(backend, &features);
    let blocks = found.block(0..PAIRS, 0..PAIRS).map(elements);
    for (direction, block) in blocks.iter().enumerate() {
        for i in 0..PAIRS {
            let expected = features.weights(regulation(), direction, i);
            for (j, expected) in expected[..PAIRS].iter().enumerate() {
                let [row, column] = if direction == 0 { [i, j] } else { [j, i] };
                let weight = block[row * PAIRS + column];
                match expected {
                    Some(expected) => assert_close(&[weight], &[*expected], 1e-5),
                    None => assert!(weight.is_nan(), "{i} and {j} match: {weight}"),
                }
            }
        }
    }
    let histograms = found.histogram(6, 3.0);
    for (direction, histogram) in histograms.iter().enumerate() {
        let all = features.all(regulation(), direction);
        let mut counts = [0; 6];
        all.iter()
            .for_each(|w| counts[((w / 0.5) as usize).min(5)] += 1);
        assert_eq!(histogram.counts, counts);
        assert_close(&[histogram.mean], &[1.0], 1e-5);
        // Each anchor counts the same, whatever the number of its negatives.
        let of = |i: usize| {
            let own: Vec<f64> = features
                .weights(regulation(), direction, i)
                .into_iter()
                .flatten()
                .collect();
            own.iter().map(|w| -w.ln()).sum::<f64>() / own.len() as f64
        };
        let information = (0..PAIRS).map(of).sum::<f64>() / PAIRS as f64;
        assert_close(&[found.information()[direction]], &[information], 1e-4);
    }
    let lowest = found.lowest(100);
    assert_eq!(lowest.len(), PAIRS * (PAIRS - 1) - 2);
    assert!(lowest.iter().all(|pair| IDS[pair.image] != IDS[pair.text]));
}

fn the_share_below_a_threshold_is_counted_in_both_directions(backend: &Backend) {
    let features = Features::new();
    let found = weights(backend, &features);
    for threshold in [0.0, 0.2, 0.5, 1.0, 100.0] {
        let expected = [0, 1].map(|direction| {
            let all = features.all(regulation(), direction);
            all.iter().filter(|&&w| w < threshold).count() as f64 / all.len() as f64
        });
        assert_close(&found.share_below(threshold), &expected, 1e-6);
    }
    let one = features.part(backend, 0, 1, &IDS[..1]);
    let single = BatchWeights::new(regulation(), one, None, SimilarityConfig::new());
    assert!(single.share_below(0.5).iter().all(|share| share.is_nan()));
}

/// The loss from the read-out's weights is the loss of the criterion.
fn the_weights_are_those_of_the_loss(backend: &Backend) {
    let features = Features::new();
    let found = weights(backend, &features);
    let (batch, queue) = (features.batch(backend), features.queue(backend));
    let criterion = Criterion::new().with_weighting(Weighting::Regulation(regulation()));
    let contrast = ContrastiveConfig::new()
        .with_logit_scale(LogitScaleConfig::fixed(TEMPERATURE))
        .with_criterion(criterion)
        .init(&backend.device);
    let context = Context {
        momentum: None,
        negatives: Negatives {
            image: Some(queue.image),
            text: Some(queue.text),
            ..Negatives::default()
        },
        teacher: Some(Teacher {
            image: batch.teacher_image.unwrap(),
            text: batch.teacher_text.unwrap(),
            negative_image: queue.teacher_image,
            negative_text: queue.teacher_text,
        }),
        ids: Some(Ids {
            batch: batch.ids.unwrap(),
            negative_image: queue.ids.clone(),
            negative_text: queue.ids,
        }),
    };
    let losses = contrast.forward_directions(batch.image, batch.text, context);
    let blocks = found.block(0..PAIRS, 0..PAIRS).map(elements);
    for (direction, losses) in losses.into_iter().enumerate() {
        let expected = |i: usize| {
            let weights = features.weights(regulation(), direction, i);
            let logit = |j: usize| {
                let (own, other) = (direction, 1 - direction);
                cosine(features.0[own].row(i), features.0[other].row(j)) / TEMPERATURE
            };
            let mut logits = vec![logit(i)];
            for (j, weight) in weights.iter().enumerate() {
                let [row, column] = if direction == 0 { [i, j] } else { [j, i] };
                // Of the batch as read, of the queue by the oracle.
                let read = |w: f64| {
                    if j < PAIRS {
                        blocks[direction][row * PAIRS + column]
                    } else {
                        w
                    }
                };
                logits.extend(weight.map(|w| logit(j) + read(w).ln()));
            }
            log_sum_exp(&logits) - logits[0]
        };
        let expected: Vec<f64> = (0..PAIRS).map(expected).collect();
        assert_close(&elements(losses), &expected, 1e-4);
    }
}
