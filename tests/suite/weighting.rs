//! The weights of similarity regulation: against the oracle, the paper's two conditions, and the
//! statistics of the weights.

use burn::tensor::DType;
use burn_contrastive::analysis::BatchWeights;
use burn_contrastive::negatives::PairFeatures;
use burn_contrastive::similarity::SimilarityConfig;
use burn_contrastive::weighting::{Norm, SimilarityRegulation};

use super::*;
use crate::oracle::{Matrix, cosine};

on_every_backend! {
    weights_of_any_block_match_the_oracle,
    weights_have_mean_one_and_negative_covariance_with_similarity,
    read_outs_match_naive_loops,
    read_outs_of_a_single_pair_and_of_nan_are_nan,
}

const PAIRS: usize = 7;

fn settings() -> Vec<SimilarityRegulation> {
    let regulation = SimilarityRegulation::new();
    vec![
        regulation,
        regulation.with_alpha(0.0),
        regulation.with_alpha(0.3).with_weight_temperature(0.1),
        regulation
            .with_alpha(0.6)
            .with_norm(Norm::Softmax { delta: 4.0 }),
    ]
}

struct Sides {
    image: Matrix,
    text: Matrix,
    teacher: [Matrix; 2],
}

fn sides(seed: u64) -> Sides {
    Sides {
        image: random(PAIRS, 4, seed),
        text: random(PAIRS, 4, seed + 1),
        teacher: [random(PAIRS, 3, seed + 2), random(PAIRS, 3, seed + 3)],
    }
}

fn weights(backend: &Backend, regulation: SimilarityRegulation, x: &Sides) -> BatchWeights {
    let tensor = |m: &Matrix| backend.tensor(m, DType::F32);
    let [teacher_image, teacher_text] = x.teacher.each_ref().map(tensor);
    let batch = PairFeatures::new(tensor(&x.image), tensor(&x.text));
    let batch = batch.with_teacher(teacher_image, teacher_text);
    BatchWeights::new(regulation, batch, None, SimilarityConfig::new())
}

/// The mixed similarity of each pair, and the weights of both directions: `[N, N]`, with NaN on the
/// diagonal of the weights.
fn expected(regulation: SimilarityRegulation, x: &Sides) -> [Vec<f64>; 3] {
    let alpha = regulation.alpha;
    let e = |c: f64| (c / regulation.weight_temperature).exp();
    let places = || (0..PAIRS).flat_map(|i| (0..PAIRS).map(move |j| (i, j)));
    let mixed: Vec<f64> = places()
        .map(|(i, j)| {
            let ours = e(cosine(x.image.row(i), x.text.row(j)));
            let theirs = e(cosine(x.teacher[0].row(i), x.teacher[1].row(j)));
            alpha * theirs + (1.0 - alpha) * ours
        })
        .collect();
    let raw: Vec<f64> = mixed
        .iter()
        .map(|s| match regulation.norm {
            Norm::Mean => 1.0 / s,
            Norm::Softmax { delta } => (delta / s).exp(),
        })
        .collect();
    let normalised = |of: fn(usize, usize) -> usize| {
        places()
            .map(|(i, j)| {
                let group = places().filter(|&(k, l)| k != l && of(k, l) == of(i, j));
                let sum: f64 = group.map(|(k, l)| raw[k * PAIRS + l]).sum();
                if i == j {
                    f64::NAN
                } else {
                    raw[i * PAIRS + j] / sum * (PAIRS - 1) as f64
                }
            })
            .collect()
    };
    [mixed.clone(), normalised(|i, _| i), normalised(|_, j| j)]
}

fn off_diagonal(x: &[f64]) -> Vec<f64> {
    let places = x.iter().enumerate();
    let off = places.filter(|(at, _)| at / PAIRS != at % PAIRS);
    off.map(|(_, &x)| x).collect()
}

fn weights_of_any_block_match_the_oracle(backend: &Backend) {
    let x = sides(120);
    for regulation in settings() {
        println!("{regulation:?}");
        let found = weights(backend, regulation, &x);
        let [_, by_image, by_text] = expected(regulation, &x);
        let whole = found.block(0..PAIRS, 0..PAIRS).map(elements);
        for (found, expected) in whole.iter().zip([&by_image, &by_text]) {
            assert_close(&off_diagonal(found), &off_diagonal(expected), 1e-5);
        }
        let part = found.block(2..4, 5..7).map(elements);
        for (part, whole) in part.iter().zip(&whole) {
            let at = |i: usize, j: usize| whole[i * PAIRS + j];
            assert_close(part, &[at(2, 5), at(2, 6), at(3, 5), at(3, 6)], 1e-5);
        }
    }
}

fn weights_have_mean_one_and_negative_covariance_with_similarity(backend: &Backend) {
    for seed in [130, 140, 150] {
        let x = sides(seed);
        for regulation in settings() {
            let [mixed, ..] = expected(regulation, &x);
            let [by_image, by_text] = weights(backend, regulation, &x)
                .block(0..PAIRS, 0..PAIRS)
                .map(elements);
            // For each anchor: mean one, and negative covariance with the mixed similarity.
            for k in 0..PAIRS {
                let others = || (0..PAIRS).filter(|&j| j != k);
                for (weights, place) in [
                    (
                        &by_image,
                        &(|j: usize| k * PAIRS + j) as &dyn Fn(usize) -> usize,
                    ),
                    (&by_text, &|i: usize| i * PAIRS + k),
                ] {
                    let mean =
                        |x: &[f64]| others().map(|j| x[place(j)]).sum::<f64>() / (PAIRS - 1) as f64;
                    let mean_weight = mean(weights);
                    assert!((mean_weight - 1.0).abs() < 1e-5, "{mean_weight}");
                    let mean_similarity = mean(&mixed);
                    let covariance: f64 = others()
                        .map(|j| (weights[place(j)] - 1.0) * (mixed[place(j)] - mean_similarity))
                        .sum();
                    assert!(covariance < 0.0, "{covariance}");
                }
            }
        }
    }
}

fn read_outs_match_naive_loops(backend: &Backend) {
    let x = sides(160);
    for regulation in settings() {
        let found = weights(backend, regulation, &x);
        let [_, by_image, by_text] = expected(regulation, &x);
        let histograms = found.histogram(5, 2.0);
        let information = found.information();
        for ((histogram, information), all) in histograms
            .iter()
            .zip(information)
            .zip([&by_image, &by_text])
        {
            let all = off_diagonal(all);
            let mut counts = [0; 5];
            for &weight in &all {
                counts[((weight / 0.4) as usize).min(4)] += 1;
            }
            assert_eq!(histogram.counts, counts);
            assert_close(&histogram.edges(), &[0.0, 0.4, 0.8, 1.2, 1.6, 2.0], 1e-12);
            let n = all.len() as f64;
            let deviation = (all.iter().map(|w| (w - 1.0).powi(2)).sum::<f64>() / n).sqrt();
            let least = all.iter().copied().fold(f64::INFINITY, f64::min);
            let most = all.iter().copied().fold(0.0, f64::max);
            assert_close(
                &[
                    histogram.mean,
                    histogram.deviation,
                    histogram.smallest,
                    histogram.largest,
                    information,
                ],
                &[
                    1.0,
                    deviation,
                    least,
                    most,
                    all.iter().map(|w| -w.ln()).sum::<f64>() / n,
                ],
                1e-5,
            );
        }

        let mut pairs: Vec<(f64, usize, usize)> = (0..PAIRS)
            .flat_map(|i| (0..PAIRS).map(move |j| (i, j)))
            .filter(|&(i, j)| i != j)
            .map(|(i, j)| {
                let at = i * PAIRS + j;
                ((by_image[at] + by_text[at]) / 2.0, i, j)
            })
            .collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let lowest = found.lowest(6);
        assert_eq!(lowest.len(), 6);
        for (pair, (weight, i, j)) in lowest.iter().zip(pairs) {
            assert_eq!((pair.image, pair.text), (i, j));
            let similarity = cosine(x.image.row(i), x.text.row(j));
            assert_close(
                &[pair.weight(), pair.similarity],
                &[weight, similarity],
                1e-5,
            );
            let teacher = cosine(x.teacher[0].row(i), x.teacher[1].row(j));
            assert_eq!(pair.teacher.is_some(), regulation.alpha > 0.0);
            assert!(pair.teacher.is_none_or(|t| (t - teacher).abs() < 1e-5));
        }
        assert!(found.lowest(0).is_empty());
        assert_eq!(found.lowest(1000).len(), PAIRS * (PAIRS - 1));
    }
}

fn read_outs_of_a_single_pair_and_of_nan_are_nan(backend: &Backend) {
    let one = Sides {
        image: random(1, 4, 170),
        text: random(1, 4, 171),
        teacher: [random(1, 3, 172), random(1, 3, 173)],
    };
    let found = weights(backend, SimilarityRegulation::new(), &one);
    let [histogram, _] = found.histogram(3, 2.0);
    assert_eq!(histogram.counts, [0, 0, 0]);
    assert!(histogram.mean.is_nan() && found.information()[0].is_nan());
    assert!(found.lowest(3).is_empty());

    let mut broken = sides(174);
    broken.teacher[0].values[0] = f64::NAN;
    let found = weights(backend, SimilarityRegulation::new(), &broken);
    let [by_image, by_text] = found.histogram(3, 2.0);
    // The weights of one image anchor are NaN, and so is the mean of each text anchor.
    let whole = (PAIRS * (PAIRS - 1)) as u64;
    assert_eq!(
        by_image.counts.iter().sum::<u64>(),
        whole - (PAIRS - 1) as u64
    );
    assert!(by_image.mean.is_nan() && by_text.mean.is_nan());
    assert!(found.information().iter().all(|x| x.is_nan()));
}
