//! InfoNCE: against the oracle and open_clip, its invariants, and hostile input.

use burn::tensor::{DType, Device, Tensor};
use burn_contrastive::objective::{InfoNce, InfoNceConfig, Negatives};
use burn_contrastive::similarity::{LogitScaleConfig, SimilarityConfig};
use proptest::prelude::*;

use super::{Backend, assert_close, numbers, on, random};
use crate::oracle::{self, Matrix};

/// Loss and gradients.
struct Evaluated {
    loss: f64,
    image: Vec<f64>,
    text: Vec<f64>,
    log_scale: f64,
}

fn config(temperature: f64) -> InfoNceConfig {
    InfoNceConfig::new().with_logit_scale(
        LogitScaleConfig::new()
            .with_temperature(temperature)
            .with_min(1e-3)
            .with_max(1e4),
    )
}

fn evaluate_on(
    device: &Device,
    config: &InfoNceConfig,
    image: &Matrix,
    text: &Matrix,
    dtype: DType,
) -> Evaluated {
    let objective = config.init(device);
    let image = on(device, image, dtype).require_grad();
    let text = on(device, text, dtype).require_grad();
    let loss = objective.forward(image.clone(), text.clone());
    let gradients = loss.backward();
    Evaluated {
        loss: numbers(loss)[0],
        image: numbers(image.grad(&gradients).expect("a gradient by image")),
        text: numbers(text.grad(&gradients).expect("a gradient by text")),
        log_scale: numbers(
            objective
                .logit_scale
                .log_scale
                .grad(&gradients)
                .expect("a gradient by the scale"),
        )[0],
    }
}

fn evaluate(
    backend: &Backend,
    config: &InfoNceConfig,
    image: &Matrix,
    text: &Matrix,
    dtype: DType,
) -> Evaluated {
    evaluate_on(
        &backend.device.clone().autodiff(),
        config,
        image,
        text,
        dtype,
    )
}

fn oracle_of(config: &InfoNceConfig) -> oracle::InfoNce {
    oracle::InfoNce {
        log_scale: (1.0 / config.logit_scale.temperature).ln(),
        image_to_text_weight: config.image_to_text_weight,
        normalize: config.similarity.normalize,
    }
}

/// The oracle's loss, and its gradients by finite differences.
fn expected(config: &InfoNceConfig, image: &Matrix, text: &Matrix) -> Evaluated {
    let oracle = oracle_of(config);
    let with = |m: &Matrix, values: &[f64]| Matrix::new(m.rows, m.width, values.to_vec());
    let h = 5e-3 / oracle.log_scale.exp().max(5.0);
    Evaluated {
        loss: oracle.loss(image, text),
        image: oracle::gradient(|x| oracle.loss(&with(image, x), text), &image.values, h),
        text: oracle::gradient(|x| oracle.loss(image, &with(text, x)), &text.values, h),
        log_scale: oracle::gradient(
            |x| {
                oracle::InfoNce {
                    log_scale: x[0],
                    ..oracle.clone()
                }
                .loss(image, text)
            },
            &[oracle.log_scale],
            h,
        )[0],
    }
}

#[track_caller]
fn assert_matches(actual: &Evaluated, expected: &Evaluated, tolerance: f64) {
    assert_close(&[actual.loss], &[expected.loss], tolerance);
    assert_close(&actual.image, &expected.image, tolerance);
    assert_close(&actual.text, &expected.text, tolerance);
    assert_close(&[actual.log_scale], &[expected.log_scale], tolerance);
}

#[track_caller]
pub fn assert_panics(message: &str, f: impl FnOnce()) {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).expect_err("no panic");
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(panic.downcast_ref::<&str>().copied())
        .expect("a message");
    assert!(text.contains(message), "`{text}` does not say `{message}`");
}

fn each(backend: &Backend, config: &InfoNceConfig, image: &Matrix, text: &Matrix) -> Vec<f64> {
    let tensor = |m| backend.tensor(m, DType::F32);
    numbers(
        config
            .init(&backend.device)
            .forward_no_reduction(tensor(image), tensor(text)),
    )
}

fn scaled(x: &Matrix, factor: f64) -> Matrix {
    Matrix::new(
        x.rows,
        x.width,
        x.values.iter().map(|v| v * factor).collect(),
    )
}

// --- right values ---------------------------------------------------------------------------------

pub fn value_and_gradients_match_the_oracle(backend: &Backend) {
    for (n, width, temperature, weight, normalize) in [
        (2, 2, 0.5, 0.5, true),
        (3, 5, 0.07, 0.5, true),
        (7, 3, 0.2, 0.75, true),
        (17, 33, 0.07, 0.0, true),
        (5, 4, 1.0, 1.0, false),
    ] {
        let (image, text) = (random(n, width, 10), random(n, width, 11));
        println!(
            "{n} pairs of width {width}, temperature {temperature}, weight {weight}, normalize {normalize}"
        );
        let config = config(temperature)
            .with_image_to_text_weight(weight)
            .with_similarity(SimilarityConfig::new().with_normalize(normalize));
        let actual = evaluate(backend, &config, &image, &text, DType::F32);
        assert_matches(&actual, &expected(&config, &image, &text), 2e-5);
    }
}

pub fn f64_matches_the_oracle_to_1e_10(backend: &Backend) {
    if !backend.dtypes.contains(&DType::F64) {
        println!("{:?} has no f64: nothing to check", backend.device);
        return;
    }
    let (image, text) = (random(9, 6, 12), random(9, 6, 13));
    let config = config(0.5);
    let actual = evaluate(backend, &config, &image, &text, DType::F64);
    // The parameter is f32: compare at the scale that it holds.
    let held = (-(2f64.ln() as f32 as f64)).exp();
    let expected = expected(&self::config(held), &image, &text);
    assert_close(&[actual.loss], &[expected.loss], 1e-13);
    assert_close(&actual.image, &expected.image, 1e-10);
    assert_close(&actual.text, &expected.text, 1e-10);
    // Rounded to f32 on its way back to the parameter.
    assert_close(&[actual.log_scale], &[expected.log_scale], 1e-7);
}

pub fn half_precision_is_as_good_as_its_inputs(backend: &Backend) {
    for dtype in backend.half_dtypes() {
        let (image, text) = (random(9, 16, 14), random(9, 16, 15));
        // What the inputs are after rounding to half precision.
        let rounded = |m: &Matrix| Matrix::new(m.rows, m.width, numbers(backend.tensor(m, dtype)));
        let (image, text) = (rounded(&image), rounded(&text));
        let config = config(0.07);
        let actual = evaluate(backend, &config, &image, &text, dtype);
        let expected = expected(&config, &image, &text);
        // The loss is computed in f32; only the gradients are rounded on their way back.
        assert_close(&[actual.loss], &[expected.loss], 1e-5);
        let ulp = if dtype == DType::F16 { 1e-3 } else { 8e-3 };
        assert_close(&actual.image, &expected.image, 2.0 * ulp);
        assert_close(&actual.text, &expected.text, 2.0 * ulp);
    }
}

pub fn extra_negatives_match_the_oracle(backend: &Backend) {
    let (image, text) = (random(4, 6, 16), random(4, 6, 17));
    let (extra_image, extra_text) = (random(3, 6, 18), random(8, 6, 19));
    let config = config(0.1).with_image_to_text_weight(0.3);
    let device = backend.device.clone().autodiff();
    let objective = config.init(&device);
    for (with_image, with_text) in [(true, true), (true, false), (false, true)] {
        let anchor = on(&device, &image, DType::F32).require_grad();
        let negative = on(&device, &extra_text, DType::F32).require_grad();
        let negatives = Negatives {
            image: with_image.then(|| on(&device, &extra_image, DType::F32)),
            text: with_text.then(|| negative.clone()),
            ..Negatives::default()
        };
        let each = objective.forward_with_negatives_no_reduction(
            anchor.clone(),
            on(&device, &text, DType::F32),
            negatives,
        );
        let oracle = oracle_of(&config);
        let reference = |image: &Matrix, extra_text: &Matrix| {
            let extra = |use_it: bool, m| use_it.then_some(m);
            oracle.each(
                image,
                &text,
                extra(with_image, &extra_image),
                extra(with_text, extra_text),
            )
        };
        assert_close(
            &numbers(each.clone()),
            &reference(&image, &extra_text),
            1e-5,
        );
        let gradients = each.sum().backward();
        let total = |x: Vec<f64>| x.iter().sum::<f64>();
        let by_image = oracle::gradient(
            |x| total(reference(&Matrix::new(4, 6, x.to_vec()), &extra_text)),
            &image.values,
            1e-5,
        );
        assert_close(&numbers(anchor.grad(&gradients).unwrap()), &by_image, 2e-5);
        if with_text {
            let by_negative = oracle::gradient(
                |x| total(reference(&image, &Matrix::new(8, 6, x.to_vec()))),
                &extra_text.values,
                1e-5,
            );
            assert_close(
                &numbers(negative.grad(&gradients).unwrap()),
                &by_negative,
                2e-5,
            );
        }
    }
}

pub fn matches_open_clip(backend: &Backend) {
    let stored: serde_json::Value =
        serde_json::from_str(include_str!("../fixtures/open_clip/clip_loss.json")).unwrap();
    let list = |v: &serde_json::Value| -> Vec<f64> {
        v.as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap())
            .collect()
    };
    let cases: Vec<_> = stored["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["dtype"] == "f64")
        .collect();
    assert!(cases.len() >= 18, "the fixture lost cases: {}", cases.len());
    for case in cases {
        let input = &stored["inputs"][case["input"].as_u64().unwrap() as usize];
        let (n, width) = (
            input["n"].as_u64().unwrap() as usize,
            input["d"].as_u64().unwrap() as usize,
        );
        let image = Matrix::new(n, width, list(&input["image"]));
        let text = Matrix::new(n, width, list(&input["text"]));
        let scale = case["log_logit_scale"].as_f64().unwrap().exp();
        let config = config(1.0 / scale)
            .with_image_to_text_weight(case["image_to_text_weight"].as_f64().unwrap());
        let actual = evaluate(backend, &config, &image, &text, DType::F32);
        let gradients = &case["gradients"];
        // f32 against f64: errors of a cosine (1e-7) times the logit scale, over gradients that may
        // be tiny beside the scale.
        let tolerance = 1e-6 * (1.0 + scale);
        let expected = case["loss"].as_f64().unwrap();
        assert!(
            (actual.loss - expected).abs() <= tolerance * (1.0 + expected),
            "{} against {expected}",
            actual.loss
        );
        let close = |actual: &[f64], expected: Vec<f64>| {
            let size = expected.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
            for (a, e) in actual.iter().zip(&expected) {
                assert!(
                    (a - e).abs() <= tolerance * size,
                    "{a} against {e} at scale {scale}"
                );
            }
        };
        close(&actual.image, list(&gradients["image"]));
        close(&actual.text, list(&gradients["text"]));
        close(
            &[actual.log_scale],
            vec![gradients["log_logit_scale"].as_f64().unwrap()],
        );
    }
}

pub fn equal_embeddings_give_ln_n(backend: &Backend) {
    for n in [2, 3, 64] {
        let x = Matrix::new(n, 5, random(1, 5, 20).values.repeat(n));
        let actual = evaluate(backend, &config(0.07), &x, &x, DType::F32);
        assert_close(&[actual.loss], &[(n as f64).ln()], 1e-6);
        assert!(
            actual
                .image
                .iter()
                .chain(&actual.text)
                .all(|g| g.abs() < 1e-5)
        );
    }
}

// --- degenerate and hostile input -----------------------------------------------------------------

pub fn a_single_pair_costs_nothing(backend: &Backend) {
    let actual = evaluate(
        backend,
        &config(0.07),
        &random(1, 4, 21),
        &random(1, 4, 22),
        DType::F32,
    );
    assert_eq!((actual.loss, actual.log_scale), (0.0, 0.0));
    assert!(actual.image.iter().chain(&actual.text).all(|&g| g == 0.0));
}

pub fn a_single_pair_against_extra_negatives(backend: &Backend) {
    let (image, text, extra) = (random(1, 4, 23), random(1, 4, 24), random(5, 4, 25));
    let config = config(0.07).with_image_to_text_weight(1.0);
    let tensor = |m| backend.tensor(m, DType::F32);
    let loss = config.init(&backend.device).forward_with_negatives(
        tensor(&image),
        tensor(&text),
        Negatives {
            image: None,
            text: Some(tensor(&extra)),
            ..Negatives::default()
        },
    );
    assert_close(
        &numbers(loss),
        &oracle_of(&config).each(&image, &text, None, Some(&extra)),
        1e-5,
    );
}

pub fn no_rows_of_extra_negatives_are_none(backend: &Backend) {
    let (image, text) = (random(3, 4, 26), random(3, 4, 27));
    let tensor = |m| backend.tensor(m, DType::F32);
    let nothing = || Some(tensor(&image).slice([0..0, 0..4]));
    let objective = config(0.07).init(&backend.device);
    let negatives = Negatives {
        image: nothing(),
        text: nothing(),
        ..Negatives::default()
    };
    let with = objective.forward_with_negatives(tensor(&image), tensor(&text), negatives);
    assert_eq!(
        numbers(with),
        numbers(objective.forward(tensor(&image), tensor(&text)))
    );
}

pub fn huge_and_tiny_norms_change_nothing(backend: &Backend) {
    let (image, text) = (random(4, 5, 28), random(4, 5, 29));
    let config = config(0.07);
    let plain = evaluate(backend, &config, &image, &text, DType::F32);
    for magnitude in [1e-20, 1e20] {
        let actual = evaluate(
            backend,
            &config,
            &scaled(&image, magnitude),
            &text,
            DType::F32,
        );
        assert_close(&[actual.loss], &[plain.loss], 1e-5);
        assert_close(&actual.text, &plain.text, 1e-4);
        let by_image: Vec<_> = plain.image.iter().map(|g| g / magnitude).collect();
        assert_close(&actual.image, &by_image, 1e-4);
    }
}

pub fn zero_rows_are_at_similarity_zero_with_finite_gradients(backend: &Backend) {
    let (mut image, text) = (random(4, 5, 30), random(4, 5, 31));
    image.values[5..10].fill(0.0);
    let config = config(0.07);
    let actual = evaluate(backend, &config, &image, &text, DType::F32);
    assert_close(
        &[actual.loss],
        &[oracle_of(&config).loss(&image, &text)],
        1e-5,
    );
    assert!(
        actual
            .image
            .iter()
            .chain(&actual.text)
            .all(|g| g.is_finite())
    );
    assert!(actual.image[5..10].iter().all(|&g| g == 0.0));
    assert!(actual.image[..5].iter().any(|&g| g != 0.0));
}

pub fn a_temperature_of_a_thousandth(backend: &Backend) {
    let (image, text) = (random(6, 8, 32), random(6, 8, 33));
    let config = config(0.001);
    let actual = evaluate(backend, &config, &image, &text, DType::F32);
    // Logits near 1000: an error of 1e-7 in a cosine is 1e-4 in a logit.
    assert_matches(&actual, &expected(&config, &image, &text), 2e-3);
}

pub fn logits_of_ten_thousand(backend: &Backend) {
    let (image, text) = (random(5, 4, 34), random(5, 4, 35));
    let (image, text) = (scaled(&image, 100.0), scaled(&text, 100.0));
    let config = config(1.0).with_similarity(SimilarityConfig::new().with_normalize(false));
    let actual = evaluate(backend, &config, &image, &text, DType::F32);
    assert_close(
        &[actual.loss],
        &[oracle_of(&config).loss(&image, &text)],
        1e-5,
    );
    assert!(
        actual
            .image
            .iter()
            .chain(&actual.text)
            .all(|g| g.is_finite())
    );
}

pub fn duplicates_have_a_finite_loss(backend: &Backend) {
    let mut image = random(4, 5, 36);
    image.values.copy_within(0..5, 5);
    let mut text = random(4, 5, 37);
    text.values.copy_within(0..5, 5);
    let config = config(0.05);
    let actual = evaluate(backend, &config, &image, &text, DType::F32);
    assert_matches(&actual, &expected(&config, &image, &text), 2e-5);
}

pub fn nan_in_gives_nan_out(backend: &Backend) {
    let good = random(3, 4, 38);
    let mut bad = good.clone();
    bad.values[5] = f64::NAN;
    for (image, text) in [(&bad, &good), (&good, &bad)] {
        assert!(
            each(backend, &config(0.07), image, text)
                .iter()
                .all(|l| l.is_nan())
        );
    }
    let (one, none) = (random(1, 2, 39), Matrix::new(1, 2, vec![1.0, f64::NAN]));
    assert!(
        each(backend, &config(0.07), &one, &none)[0].is_nan(),
        "a single pair"
    );
}

pub fn strided_tensors_match_contiguous_ones(backend: &Backend) {
    let (image, text) = (random(5, 4, 40), random(5, 4, 41));
    let columns = |m: &Matrix| {
        let values = (0..4)
            .flat_map(|k| (0..5).map(move |i| (i, k)))
            .map(|(i, k)| m.row(i)[k])
            .collect();
        backend
            .tensor(&Matrix::new(4, 5, values), DType::F32)
            .transpose()
    };
    let objective = config(0.07).init(&backend.device);
    let strided = numbers(objective.forward_no_reduction(columns(&image), columns(&text)));
    assert_close(&strided, &each(backend, &config(0.07), &image, &text), 1e-6);
}

pub fn an_untracked_side_changes_nothing_for_the_other(backend: &Backend) {
    let (image, text) = (random(4, 5, 42), random(4, 5, 43));
    let device = backend.device.clone().autodiff();
    let both = evaluate(backend, &config(0.07), &image, &text, DType::F32);
    let objective = config(0.07).init(&device);
    let (tracked, frozen) = (
        on(&device, &image, DType::F32).require_grad(),
        on(&device, &text, DType::F32),
    );
    let gradients = objective
        .forward(tracked.clone(), frozen.clone())
        .backward();
    assert_close(
        &numbers(tracked.grad(&gradients).unwrap()),
        &both.image,
        1e-6,
    );
    assert!(frozen.grad(&gradients).is_none());
}

pub fn works_under_gradient_checkpointing(backend: &Backend) {
    let (image, text) = (random(4, 5, 44), random(4, 5, 45));
    let config = config(0.07);
    let device = backend.device.clone().autodiff().gradient_checkpointing();
    let actual = evaluate_on(&device, &config, &image, &text, DType::F32);
    assert_matches(&actual, &expected(&config, &image, &text), 2e-5);
}

// --- invariants -----------------------------------------------------------------------------------

/// Runs `check` on a handful of random batches (rows, width, seed).
fn for_batches(check: impl Fn(usize, usize, u64) -> Result<(), TestCaseError>) {
    let settings = ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(settings, |(n in 1usize..9, width in 1usize..9, seed in any::<u64>())| {
        check(n, width, seed)?;
    });
}

fn batch(n: usize, width: usize, seed: u64) -> (Matrix, Matrix) {
    (
        random(n, width, seed),
        random(n, width, seed.wrapping_add(1)),
    )
}

fn prop_close(actual: &[f64], expected: &[f64], tolerance: f64) -> Result<(), TestCaseError> {
    for (a, e) in actual.iter().zip(expected) {
        prop_assert!(
            (a - e).abs() <= tolerance * (1.0 + e.abs()),
            "{actual:?} against {expected:?}"
        );
    }
    Ok(())
}

pub fn permuting_the_batch_permutes_the_losses(backend: &Backend) {
    for_batches(|n, width, seed| {
        let (image, text) = batch(n, width, seed);
        let rotated = |m: &Matrix| {
            let mut values = m.values.clone();
            values.rotate_left(width * (seed as usize % n));
            Matrix::new(n, width, values)
        };
        let mut losses = each(backend, &config(0.07), &image, &text);
        losses.rotate_left(seed as usize % n);
        prop_close(
            &each(backend, &config(0.07), &rotated(&image), &rotated(&text)),
            &losses,
            1e-4,
        )
    });
}

pub fn swapping_the_modalities_swaps_the_directions(backend: &Backend) {
    for_batches(|n, width, seed| {
        let (image, text) = batch(n, width, seed);
        let weighted = |weight| config(0.07).with_image_to_text_weight(weight);
        let swapped = each(backend, &weighted(0.2), &text, &image);
        prop_close(
            &swapped,
            &each(backend, &weighted(0.8), &image, &text),
            1e-4,
        )
    });
}

pub fn a_constant_on_every_logit_changes_nothing(backend: &Backend) {
    for_batches(|n, width, seed| {
        let (image, text) = batch(n, width, seed);
        // One more column, of 3 against 1, adds 3 to every dot product.
        let wider = |m: &Matrix, value: f64| {
            let values = (0..n).flat_map(|i| [m.row(i), &[value]].concat()).collect();
            Matrix::new(n, width + 1, values)
        };
        let config = config(1.0).with_similarity(SimilarityConfig::new().with_normalize(false));
        let shifted = each(backend, &config, &wider(&image, 3.0), &wider(&text, 1.0));
        prop_close(&shifted, &each(backend, &config, &image, &text), 1e-5)
    });
}

pub fn scaling_an_embedding_changes_nothing(backend: &Backend) {
    for_batches(|n, width, seed| {
        let (image, text) = batch(n, width, seed);
        let mut scaled = image.clone();
        scaled.values[..width].iter_mut().for_each(|v| *v *= 37.5);
        let losses = each(backend, &config(0.07), &image, &text);
        prop_close(&each(backend, &config(0.07), &scaled, &text), &losses, 1e-4)
    });
}

// --- misuse ---------------------------------------------------------------------------------------

fn forward(objective: &InfoNce, image: Tensor<2>, text: Tensor<2>) {
    let _ = objective.forward(image, text);
}

fn zeros(backend: &Backend, shape: [usize; 2]) -> Tensor<2> {
    Tensor::zeros(shape, &backend.device)
}

pub fn refuses_an_empty_batch(backend: &Backend) {
    let objective = config(0.07).init(&backend.device);
    let empty = || zeros(backend, [2, 3]).slice([0..0, 0..3]);
    assert_panics("`image` is empty, shape [0, 3]", || {
        forward(&objective, empty(), empty())
    });
}

pub fn refuses_different_numbers_of_rows(backend: &Backend) {
    let objective = config(0.07).init(&backend.device);
    assert_panics("`image` has 4 rows, `text` has 5", || {
        forward(&objective, zeros(backend, [4, 3]), zeros(backend, [5, 3]));
    });
}

pub fn refuses_broadcasting(backend: &Backend) {
    let objective = config(0.07).init(&backend.device);
    assert_panics("`image` has 4 rows, `text` has 1", || {
        forward(&objective, zeros(backend, [4, 3]), zeros(backend, [1, 3]));
    });
    assert_panics("`image` has width 1, `text` has width 3", || {
        forward(&objective, zeros(backend, [4, 1]), zeros(backend, [4, 3]));
    });
}

pub fn refuses_different_dtypes(backend: &Backend) {
    let Some(&other) = backend.dtypes.first() else {
        println!("{:?} has f32 alone: nothing to mix", backend.device);
        return;
    };
    let objective = config(0.07).init(&backend.device);
    assert_panics("`image` is F32, `text` is", || {
        forward(
            &objective,
            zeros(backend, [2, 3]),
            zeros(backend, [2, 3]).cast(other),
        );
    });
}

pub fn refuses_autodiff_with_plain(backend: &Backend) {
    let objective = config(0.07).init(&backend.device);
    let tracked = Tensor::<2>::zeros([2, 3], &backend.device.clone().autodiff());
    assert_panics("is on an autodiff device, the other is not", || {
        forward(&objective, tracked, zeros(backend, [2, 3]));
    });
}

pub fn refuses_an_objective_without_autodiff(backend: &Backend) {
    let objective = config(0.07).init(&backend.device);
    let tracked = || Tensor::<2>::zeros([2, 3], &backend.device.clone().autodiff());
    assert_panics("the objective is on", || {
        forward(&objective, tracked(), tracked())
    });
}

pub fn refuses_negatives_of_another_width(backend: &Backend) {
    let objective = config(0.07).init(&backend.device);
    assert_panics("`image` has width 3, `negatives.text` has width 4", || {
        let negatives = Negatives {
            image: None,
            text: Some(zeros(backend, [5, 4])),
            ..Negatives::default()
        };
        let _ = objective.forward_with_negatives(
            zeros(backend, [2, 3]),
            zeros(backend, [2, 3]),
            negatives,
        );
    });
}
