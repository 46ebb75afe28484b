//! Late interaction: similarities and InfoNCE against the oracle, identities, and degenerate input.

use burn::tensor::{Bool, DType, Device, Tensor, TensorData};
use burn_contrastive::objective::{
    Contrastive, ContrastiveConfig, Criterion, Directions, InfoNceConfig,
};
use burn_contrastive::pairwise::{Evaluation, Expr, Pairs, columns, hardest, rows};
use burn_contrastive::similarity::{LogitScaleConfig, SimilarityConfig, Tokens};
use burn_contrastive::weighting::{SimilarityRegulation, Weighting};

use super::*;
use crate::oracle::late_interaction::{self as oracle, Tokens as Naive};
use crate::oracle::{self as naive, Matrix};

on_every_backend! {
    similarities_match_the_oracle,
    info_nce_matches_the_oracle,
    info_nce_in_f64_matches_the_oracle_to_1e_9,
    one_token_a_sample_is_the_ordinary_contrast,
    blocks_of_any_size_and_dense_agree,
    totals_and_their_gradients_agree_with_dense,
    hardest_pairs_match_the_oracle,
    half_precision_is_widened,
    the_lowest_of_equally_close_tokens_gets_the_gradient,
    a_sample_without_tokens_has_similarity_0_and_no_gradient,
    zero_tokens_have_no_direction_and_no_gradient,
    nan_in_gives_nan_out,
    tokens_left_out_have_no_influence,
    misuse_panics_name_the_argument,
}

/// `samples` with `count` random tokens each, that all count.
fn tokens(samples: usize, count: usize, width: usize, seed: u64) -> Naive {
    Naive {
        matrix: random(samples * count, width, seed),
        count,
        mask: vec![true; samples * count],
    }
}

/// Some tokens left out, the first of a sample among them, and at least one kept.
fn masked(mut tokens: Naive) -> Naive {
    for (token, counts) in tokens.mask.iter_mut().enumerate() {
        let (sample, position) = (token / tokens.count, token % tokens.count);
        *counts = position == (sample + 1) % tokens.count || (token * 7 + sample) % 3 == 0;
    }
    tokens
}

/// A leaf on `device`, all tokens one below the other, and the tokens made of it.
fn on_device(device: &Device, naive: &Naive, dtype: DType) -> (Tensor<2>, Tokens) {
    let leaf = on(device, &naive.matrix, dtype).require_grad();
    (leaf.clone(), tokens_of(leaf, naive))
}

fn tokens_of(leaf: Tensor<2>, naive: &Naive) -> Tokens {
    let (samples, count) = (naive.samples(), naive.count);
    let device = leaf.device();
    let tokens = Tokens::new(leaf.reshape([samples, count, naive.matrix.width]));
    if naive.mask.iter().all(|&counts| counts) {
        return tokens;
    }
    let mask = TensorData::new(naive.mask.clone(), [samples, count]);
    tokens.with_mask(Tensor::<2, Bool>::from_data(mask, &device))
}

fn objective(criterion: Criterion, temperature: f64, device: &Device) -> Contrastive {
    ContrastiveConfig::new()
        .with_logit_scale(LogitScaleConfig::new().with_temperature(temperature))
        .with_criterion(criterion)
        .init(device)
}

/// The loss, and its gradients by both sides.
fn evaluate(
    device: &Device,
    criterion: Criterion,
    temperature: f64,
    [image, text]: [&Naive; 2],
    dtype: DType,
) -> (f64, [Vec<f64>; 2]) {
    let (image, image_tokens) = on_device(device, image, dtype);
    let (text, text_tokens) = on_device(device, text, dtype);
    let objective = objective(criterion, temperature, device);
    let loss = objective.forward_late_interaction(image_tokens, text_tokens);
    let gradients = loss.backward();
    let found = [image, text].map(|leaf| gradient(&leaf, &gradients));
    (elements(loss)[0], found)
}

/// Batches with and without masks, of unequal counts of tokens.
fn batches() -> Vec<[Naive; 2]> {
    let [image, text] = [tokens(4, 5, 6, 1), tokens(4, 3, 6, 2)];
    vec![
        [image.clone(), text.clone()],
        [image.clone(), masked(text.clone())],
        [masked(image), masked(text)],
        [tokens(3, 1, 4, 3), tokens(3, 4, 4, 4)],
        [tokens(3, 2, 4, 5), tokens(3, 1, 4, 6)],
    ]
}

// --- against the oracle --------------------------------------------------------------------------

fn similarities_match_the_oracle(backend: &Backend) {
    for normalize in [true, false] {
        for [a, b] in batches() {
            let config = SimilarityConfig::new().with_normalize(normalize);
            let prepared = |naive: &Naive| {
                let leaf = backend.tensor(&naive.matrix, DType::F32);
                config.prepare_tokens(tokens_of(leaf, naive))
            };
            let pairs = config.late_interaction(prepared(&a), prepared(&b));
            let (n, m) = (a.samples(), b.samples());
            let block = elements(pairs.block(&pairs.similarity(), 0..n, 0..m));
            let [a, b] = [a, b].map(|x| if normalize { x.normalized() } else { x });
            let expected: Vec<_> = (0..n * m)
                .map(|k| oracle::similarity(&a, &b, k / m, k % m))
                .collect();
            assert_close(&block, &expected, 1e-6);
        }
    }
}

fn assert_info_nce_matches(backend: &Backend, dtype: DType, tolerance: f64) {
    for [image, text] in batches() {
        let both = [&image, &text];
        // The logit scale is a parameter in f32: 1 is exact.
        let (loss, gradients) = evaluate(&backend.autodiff(), Criterion::new(), 1.0, both, dtype);
        assert_near(loss, oracle::info_nce(&image, &text, 1.0), tolerance);
        let by_image = |x: &[f64]| oracle::info_nce(&image.with_values(x), &text, 1.0);
        let by_text = |x: &[f64]| oracle::info_nce(&image, &text.with_values(x), 1.0);
        let h = 2e-4;
        let expected = naive::gradient(by_image, &image.matrix.values, h);
        assert_close(&gradients[0], &expected, tolerance);
        let expected = naive::gradient(by_text, &text.matrix.values, h);
        assert_close(&gradients[1], &expected, tolerance);
    }
}

fn info_nce_matches_the_oracle(backend: &Backend) {
    assert_info_nce_matches(backend, DType::F32, 1e-5);
}

fn info_nce_in_f64_matches_the_oracle_to_1e_9(backend: &Backend) {
    if backend.has_f64() {
        assert_info_nce_matches(backend, DType::F64, 1e-9);
    }
}

fn hardest_pairs_match_the_oracle(backend: &Backend) {
    let [a, b] = [tokens(6, 4, 3, 7), tokens(5, 2, 3, 8)];
    let device = backend.autodiff();
    let [(x, _), (y, _)] = [&a, &b].map(|naive| on_device(&device, naive, DType::F32));
    let pairs = Pairs::late_interaction(x.clone().reshape([6, 4, 3]), y.reshape([5, 2, 3]));
    let [by_row, by_column] = hardest(pairs, &Expr::diagonal());
    // The pairs are sums over the tokens of `a`.
    let similarity = |i, j| 4.0 * oracle::similarity(&a, &b, i, j);
    let largest = |values: Vec<(f64, usize)>| {
        values
            .into_iter()
            .max_by(|x, y| x.0.total_cmp(&y.0))
            .unwrap()
    };
    let candidates = |i: usize, len: usize| (0..len).filter(move |&j| j != i);
    let expected_rows: Vec<_> = (0..6)
        .map(|i| largest(candidates(i, 5).map(|j| (similarity(i, j), j)).collect()))
        .collect();
    let expected_columns: Vec<_> = (0..5)
        .map(|j| largest(candidates(j, 6).map(|i| (similarity(i, j), i)).collect()))
        .collect();
    let gradients = by_row.similarity.clone().sum().backward();
    for (found, expected) in [(by_row, &expected_rows), (by_column, &expected_columns)] {
        let values: Vec<_> = expected.iter().map(|x| x.0).collect();
        assert_close(&elements(found.similarity), &values, 1e-6);
        let index = found.index.into_data().convert_dtype(DType::I64);
        let expected: Vec<_> = expected.iter().map(|x| x.1 as i64).collect();
        assert_eq!(index.try_to_vec::<i64>().unwrap(), expected);
    }
    let value = |values: &[f64]| {
        let a = a.with_values(values);
        let hardest = expected_rows.iter().enumerate();
        hardest
            .map(|(i, &(_, j))| 4.0 * oracle::similarity(&a, &b, i, j))
            .sum()
    };
    let expected = naive::gradient(value, &a.matrix.values, 1e-4);
    assert_close(&gradient(&x, &gradients), &expected, 1e-5);
}

// --- identities ----------------------------------------------------------------------------------

/// Copies of one token change nothing: with one copy the pairs are the ordinary ones, with several
/// they are found by late interaction.
fn one_token_a_sample_is_the_ordinary_contrast(backend: &Backend) {
    let regulation = SimilarityRegulation::new().with_alpha(0.0);
    let criteria = [
        Criterion::new().with_image_to_text_weight(0.3),
        Criterion::new()
            .with_decoupled(true)
            .with_directions(Directions::Sum),
        Criterion::new()
            .with_label_smoothing(0.1)
            .with_within_modality(true),
        Criterion::new().with_weighting(Weighting::Regulation(regulation)),
        Criterion::new().with_weighting(Weighting::Removal {
            regulation,
            threshold: 0.9,
        }),
    ];
    let (image, text) = (random(5, 4, 11), random(5, 4, 12));
    let device = backend.checkpointing();
    for criterion in criteria {
        let leaves = [&image, &text].map(|x| on(&device, x, DType::F32).require_grad());
        let ordinary = objective(criterion, 0.2, &device);
        let expected = ordinary.forward(leaves[0].clone(), leaves[1].clone());
        let gradients = expected.backward();
        let expected_gradients = leaves.map(|leaf| gradient(&leaf, &gradients));
        for [p, t] in [[1, 1], [2, 3]] {
            let leaves = [&image, &text].map(|x| on(&device, x, DType::F32).require_grad());
            let copies = |leaf: &Tensor<2>, count| {
                Tokens::new(leaf.clone().reshape([5, 1, 4]).repeat_dim(1, count))
            };
            let [image, text] = [copies(&leaves[0], p), copies(&leaves[1], t)];
            let loss = ordinary.forward_late_interaction(image, text);
            let gradients = loss.backward();
            assert_close(&elements(loss), &elements(expected.clone()), 1e-5);
            for (leaf, expected) in leaves.iter().zip(&expected_gradients) {
                assert_close(&gradient(leaf, &gradients), expected, 1e-5);
            }
        }
    }
}

/// Results and gradients of all kinds of reductions, with a teacher and bound values.
fn everything(backend: &Backend, evaluation: Evaluation, budget: usize) -> Vec<Vec<f64>> {
    let device = backend.autodiff();
    let leaf = |x: &Matrix| on(&device, x, DType::F32).require_grad();
    let (a, b) = (leaf(&random(9, 6, 21)), leaf(&random(7, 8, 22)));
    let bound = [
        leaf(&random(1, 9, 23)),
        leaf(&random(1, 7, 24)),
        leaf(&random(1, 1, 25)),
    ];
    let mut pairs =
        Pairs::late_interaction(a.clone().reshape([9, 3, 2]), b.clone().reshape([7, 4, 2]))
            .with_evaluation(evaluation)
            .with_memory_budget(budget);
    let [u, v, s] = bound.clone().map(|x| x.squeeze_dim::<1>(0));
    let (u, v, s) = (pairs.row(u), pairs.column(v), pairs.scalar(s));
    let teacher = [random(9, 3, 26), random(7, 3, 27)].map(|x| on(&device, &x, DType::F32));
    let [x, y] = teacher;
    let (c, t) = (pairs.similarity(), pairs.teacher(x, y));
    let logit = &c * &s + u;
    let results = pairs.reduce(&[
        rows().log_sum_exp(&logit.except(&Expr::diagonal())),
        columns().softmax_mean(&(&t * 2.0), &(&logit - v)),
        rows().sum(&c),
        columns().sum(&c.sigmoid()),
    ]);
    let loss = results.iter().map(|x| x.clone().sin().sum());
    let gradients = loss.reduce(|x, y| x + y).unwrap().backward();
    let mut found: Vec<_> = results.into_iter().map(elements).collect();
    found.extend([a, b].iter().chain(&bound).map(|x| gradient(x, &gradients)));
    found
}

fn blocks_of_any_size_and_dense_agree(backend: &Backend) {
    let expected = everything(backend, Evaluation::Dense, 1 << 30);
    // One pair, a few, several rows of all columns, all.
    for budget in [1, 32 * 12 * 6, 32 * 12 * 25, 1 << 30] {
        for evaluation in [Evaluation::Auto, Evaluation::Streaming] {
            let found = everything(backend, evaluation, budget);
            for (actual, expected) in found.iter().zip(&expected) {
                assert_close(actual, expected, 1e-5);
            }
        }
    }
}

fn totals_and_their_gradients_agree_with_dense(backend: &Backend) {
    let (a, b) = (random(5, 6, 31), random(4, 4, 32));
    compare_with_dense(
        |evaluation| {
            let device = backend.autodiff();
            let [a, b] = [&a, &b].map(|x| on(&device, x, DType::F32).require_grad());
            let (x, y) = (a.clone().reshape([5, 3, 2]), b.clone().reshape([4, 2, 2]));
            let pairs = Pairs::late_interaction(x, y).with_evaluation(evaluation);
            let x = pairs.similarity().softplus();
            let total = pairs.total(&x);
            let gradients = total.backward();
            let [by_a, by_b] = [a, b].map(|x| gradient(&x, &gradients));
            [elements(total), by_a, by_b]
        },
        |actual, expected| {
            for (actual, expected) in actual.iter().zip(expected) {
                assert_close(actual, expected, 1e-5);
            }
        },
    );
}

fn half_precision_is_widened(backend: &Backend) {
    for dtype in backend.half_dtypes() {
        let [image, text] = [tokens(3, 4, 5, 41), masked(tokens(3, 2, 5, 42))];
        let rounded = |x: &Naive| x.with_values(&backend.rounded(&x.matrix, dtype).values);
        let (image, text) = (rounded(&image), rounded(&text));
        let run = |dtype| {
            let both = [&image, &text];
            evaluate(&backend.autodiff(), Criterion::new(), 0.2, both, dtype)
        };
        let ((loss, gradients), (expected, wide)) = (run(dtype), run(DType::F32));
        assert_near(loss, expected, 1e-6);
        for (actual, expected) in gradients.iter().zip(&wide) {
            assert_close(actual, expected, ulp(dtype));
        }
    }
}

// --- degenerate input ----------------------------------------------------------------------------

fn the_lowest_of_equally_close_tokens_gets_the_gradient(backend: &Backend) {
    let device = backend.autodiff();
    compare_with_dense(
        |evaluation| {
            let a = Tensor::<3>::from_data([[[1.0, 0.0], [2.0, 0.0]]], &device).require_grad();
            // For both tokens of `a` the second and the last token are equally close.
            let b = [[[0.5, 9.0], [1.0, 2.0], [0.0, 0.0], [1.0, 3.0]]];
            let b = Tensor::<3>::from_data(b, &device).require_grad();
            let pairs = Pairs::late_interaction(a.clone(), b.clone()).with_evaluation(evaluation);
            let c = pairs.similarity();
            let gradients = pairs.reduce(&[rows().sum(&c)]).remove(0).backward();
            [gradient(&a, &gradients), gradient(&b, &gradients)]
        },
        |actual, dense| {
            for [by_a, by_b] in [actual, dense] {
                assert_eq!(*by_a, [1.0, 2.0, 1.0, 2.0]);
                assert_eq!(*by_b, [0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
            }
        },
    );
}

fn a_sample_without_tokens_has_similarity_0_and_no_gradient(backend: &Backend) {
    let [mut image, mut text] = [tokens(4, 3, 5, 51), tokens(4, 2, 5, 52)];
    image.mask[3..6].fill(false);
    text.mask[6..8].fill(false);
    let config = SimilarityConfig::new();
    let prepared = |naive: &Naive| {
        config.prepare_tokens(tokens_of(backend.tensor(&naive.matrix, DType::F32), naive))
    };
    let pairs = config.late_interaction(prepared(&image), prepared(&text));
    let block = elements(pairs.block(&pairs.similarity(), 0..4, 0..4));
    assert_eq!(block[4..8], [0.0; 4]);
    assert!([3, 7, 11, 15].iter().all(|&k| block[k] == 0.0), "{block:?}");

    let both = [&image, &text];
    let device = backend.autodiff();
    let (loss, gradients) = evaluate(&device, Criterion::new(), 0.5, both, DType::F32);
    assert_near(loss, oracle::info_nce(&image, &text, 2.0), 1e-5);
    assert_finite(gradients.iter().flatten());
    assert_eq!(gradients[0][15..30], [0.0; 15]);
    assert_eq!(gradients[1][30..40], [0.0; 10]);
}

fn zero_tokens_have_no_direction_and_no_gradient(backend: &Backend) {
    let [mut image, text] = [tokens(3, 2, 4, 61), tokens(3, 3, 4, 62)];
    image.matrix.values[4..8].fill(0.0);
    let both = [&image, &text];
    let device = backend.autodiff();
    let (loss, gradients) = evaluate(&device, Criterion::new(), 0.5, both, DType::F32);
    assert_near(loss, oracle::info_nce(&image, &text, 2.0), 1e-5);
    assert_finite(gradients.iter().flatten());
    assert_eq!(gradients[0][4..8], [0.0; 4]);
}

fn nan_in_gives_nan_out(backend: &Backend) {
    for side in [0, 1] {
        for token in [0, 3] {
            for evaluation in [Evaluation::Auto, Evaluation::Dense] {
                let mut both = [tokens(3, 2, 4, 71), tokens(3, 2, 4, 72)];
                both[side].matrix.values[4 * token] = f64::NAN;
                let similarity = SimilarityConfig::new().with_evaluation(evaluation);
                let criterion = Criterion::new().with_similarity(similarity);
                let device = backend.autodiff();
                let both = both.each_ref();
                let (loss, gradients) = evaluate(&device, criterion, 0.5, both, DType::F32);
                assert!(
                    loss.is_nan(),
                    "{loss} from a NaN in token {token} of side {side}"
                );
                let own = &gradients[side][4 * token..4 * token + 4];
                assert!(own.iter().all(|g| g.is_nan()), "{own:?}");
            }
        }
    }
}

fn tokens_left_out_have_no_influence(backend: &Backend) {
    let both = [masked(tokens(4, 5, 3, 81)), masked(tokens(4, 3, 3, 82))];
    let device = backend.autodiff();
    let with = |padding: f64| {
        let both = both.clone().map(|mut tokens| {
            for (token, _) in tokens
                .mask
                .iter()
                .enumerate()
                .filter(|(_, counts)| !**counts)
            {
                tokens.matrix.values[3 * token..3 * token + 3].fill(padding);
            }
            tokens
        });
        let both = both.each_ref();
        evaluate(&device, Criterion::new(), 0.2, both, DType::F32)
    };
    let (expected, expected_gradients) = with(0.0);
    for padding in [5.0, f64::INFINITY, f64::NAN] {
        let (loss, gradients) = with(padding);
        assert_eq!(loss, expected);
        assert_eq!(gradients, expected_gradients);
    }
    for (tokens, gradients) in both.iter().zip(&expected_gradients) {
        for (token, gradient) in gradients.chunks_exact(3).enumerate() {
            assert!(
                tokens.mask[token] || gradient == [0.0; 3],
                "{token}: {gradient:?}"
            );
        }
    }
}

fn misuse_panics_name_the_argument(backend: &Backend) {
    let device = &backend.device;
    let zeros = |shape: [usize; 3]| Tensor::<3>::zeros(shape, device);
    assert_panics("the mask has shape [2, 4], it must be [2, 3]", || {
        let mask = Tensor::<2>::zeros([2, 4], device).equal_elem(0.0);
        let _ = Tokens::new(zeros([2, 3, 5])).with_mask(mask);
    });
    assert_panics("Pairs::late_interaction: `a` has width 5", || {
        let _ = Pairs::late_interaction(zeros([2, 3, 5]), zeros([2, 3, 4]));
    });
    assert_panics("`b` is empty", || {
        let _ = Pairs::late_interaction(zeros([2, 3, 5]), zeros([2, 0, 5]));
    });
    let info_nce = InfoNceConfig::new().init(device);
    assert_panics("`image` has 2 rows, `text` has 3", || {
        let (image, text) = (Tokens::new(zeros([2, 3, 5])), Tokens::new(zeros([3, 3, 5])));
        let _ = info_nce.forward_late_interaction(image, text);
    });
    for (criterion, message) in [
        (
            Criterion::new().with_guided_margin(Some(0.0)),
            "a teacher's features",
        ),
        (
            Criterion::new().with_soft_targets(0.4),
            "`soft_targets` is 0.4, it must be 0",
        ),
    ] {
        let objective = objective(criterion, 0.2, device);
        assert_panics(message, || {
            let both = [(); 2].map(|()| Tokens::new(zeros([2, 3, 5])));
            let [image, text] = both;
            let _ = objective.forward_late_interaction(image, text);
        });
    }
}
