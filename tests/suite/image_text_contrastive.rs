//! The image-text contrast with momentum features: against the oracle, its identities, and
//! degenerate input.

use burn::tensor::{DType, Device, Tensor};
use burn_contrastive::objective::{
    Context, Directions, Ids, ImageTextContrastiveConfig, InfoNceConfig, Momentum, Negatives,
};
use burn_contrastive::similarity::{LogitScaleConfig, SimilarityConfig};

use super::*;
use crate::oracle::distillation::{ImageTextContrastive, Inputs};
use crate::oracle::{self, Matrix};

on_every_backend! {
    value_and_gradients_match_the_oracle,
    samples_with_the_same_id_share_the_target,
    f64_matches_the_oracle_to_1e_8,
    the_loss_is_the_mean_over_pairs,
    streaming_and_auto_evaluation_match_dense,
    equals_info_nce_without_soft_targets_when_momentum_features_are_the_batch,
    gradients_vanish_when_predictions_equal_the_soft_targets,
    an_empty_queue_changes_nothing,
    a_single_pair_has_zero_loss_and_gradients,
    temperature_0_001_matches_the_oracle_with_finite_gradients,
    nan_in_gives_nan_out,
    misuse_panics_name_the_argument,
}

const TEMPERATURE: f64 = 0.2;

fn config(alpha: f64) -> ImageTextContrastiveConfig {
    let scale = LogitScaleConfig::albef().with_temperature(TEMPERATURE);
    ImageTextContrastiveConfig::new()
        .with_soft_targets(alpha)
        .with_logit_scale(scale)
}

fn oracle_of(config: &ImageTextContrastiveConfig) -> ImageTextContrastive {
    let log_scale = (1.0 / config.logit_scale.temperature).ln();
    ImageTextContrastive {
        log_scale,
        target_log_scale: log_scale,
        alpha: config.soft_targets,
        directions_added: config.directions == Directions::Sum,
    }
}

fn inputs(n: usize, queued: [usize; 2]) -> Inputs {
    let width = 4;
    let queue = |rows, seed| (rows > 0).then(|| random(rows, width, seed));
    Inputs {
        batch: [random(n, width, 180), random(n, width, 181)],
        momentum: [random(n, width, 182), random(n, width, 183)],
        queue: [queue(queued[0], 184), queue(queued[1], 185)],
        ids: None,
        queue_ids: [None, None],
    }
}

/// Momentum features, the queue, and ids where there are any.
fn context(device: &Device, x: &Inputs, dtype: DType) -> Context {
    let tensor = |m: &Matrix| on(device, m, dtype);
    let ids = |ids: &Vec<i64>| ids_on(device, ids);
    let [image, text] = x.momentum.each_ref().map(tensor);
    let [queue_image, queue_text] = x.queue.each_ref().map(|q| q.as_ref().map(tensor));
    Context {
        momentum: Some(Momentum::new(image, text)),
        negatives: Negatives {
            image: queue_image,
            text: queue_text,
            ..Negatives::default()
        },
        ids: x.ids.as_ref().map(|batch| Ids {
            batch: ids(batch),
            negative_image: x.queue_ids[0].as_ref().map(ids),
            negative_text: x.queue_ids[1].as_ref().map(ids),
        }),
        ..Context::default()
    }
}

/// Loss, and gradients by image, text and the scale's logarithm.
fn evaluate(
    device: &Device,
    config: &ImageTextContrastiveConfig,
    x: &Inputs,
    dtype: DType,
) -> (f64, [Vec<f64>; 3]) {
    let objective = config.init(device);
    let [image, text] = x
        .batch
        .each_ref()
        .map(|m| on(device, m, dtype).require_grad());
    let context = context(device, x, dtype);
    let loss = objective.forward_with(image.clone(), text.clone(), context);
    let gradients = loss.backward();
    let by_scale = objective.logit_scale.log_scale.grad(&gradients);
    (
        elements(loss)[0],
        [
            gradient(&image, &gradients),
            gradient(&text, &gradients),
            elements(by_scale.unwrap()),
        ],
    )
}

fn expected(config: &ImageTextContrastiveConfig, x: &Inputs) -> (f64, [Vec<f64>; 3]) {
    let oracle = oracle_of(config);
    let by_side = |side: usize| {
        let loss = |values: &[f64]| {
            let mut moved = x.clone();
            moved.batch[side].values = values.to_vec();
            oracle.loss(&moved)
        };
        oracle::gradient(loss, &x.batch[side].values, 1e-3)
    };
    let by_scale = oracle::gradient(
        |s| {
            let moved = ImageTextContrastive {
                log_scale: s[0],
                ..oracle.clone()
            };
            moved.loss(x)
        },
        &[oracle.log_scale],
        1e-3,
    );
    (oracle.loss(x), [by_side(0), by_side(1), by_scale])
}

#[track_caller]
fn assert_matches(found: &(f64, [Vec<f64>; 3]), expected: &(f64, [Vec<f64>; 3]), tolerance: f64) {
    assert_close(&[found.0], &[expected.0], tolerance);
    for (found, expected) in found.1.iter().zip(&expected.1) {
        assert_close(found, expected, tolerance);
    }
}

fn value_and_gradients_match_the_oracle(backend: &Backend) {
    let device = backend.autodiff();
    for (n, queued, alpha) in [
        (4, [0, 0], 0.4),
        (4, [3, 6], 0.4),
        (3, [0, 5], 1.0),
        (3, [4, 0], 0.0),
    ] {
        println!("{n} pairs, {queued:?} in the queue, alpha {alpha}");
        let (config, x) = (config(alpha), inputs(n, queued));
        let found = evaluate(&device, &config, &x, DType::F32);
        assert_matches(&found, &expected(&config, &x), 4e-5);
        let added = config.with_directions(Directions::Sum);
        let found = evaluate(&device, &added, &x, DType::F32);
        assert_close(&[found.0], &[oracle_of(&added).loss(&x)], 1e-5);
    }
}

fn samples_with_the_same_id_share_the_target(backend: &Backend) {
    let device = backend.autodiff();
    for (alpha, of_queue) in [
        (0.4, [None, None]),
        (0.4, [Some(vec![7, 5, 3]), Some(vec![3, 3, 9, 7, 7])]),
        (0.0, [None, Some(vec![5, 5, 5, 5, 5])]),
    ] {
        let x = Inputs {
            ids: Some(vec![3, 5, 3, 7]),
            queue_ids: of_queue,
            ..inputs(4, [3, 5])
        };
        let config = config(alpha);
        let found = evaluate(&device, &config, &x, DType::F32);
        assert_matches(&found, &expected(&config, &x), 4e-5);
    }
    // Ids that all differ change nothing.
    let plain = inputs(4, [3, 5]);
    let different = Inputs {
        ids: Some(vec![1, 2, 3, 4]),
        queue_ids: [Some(vec![5; 3]), None],
        ..plain.clone()
    };
    let [with, without] =
        [different, plain].map(|x| evaluate(&device, &config(0.4), &x, DType::F32));
    assert_matches(&with, &without, 1e-5);
}

fn f64_matches_the_oracle_to_1e_8(backend: &Backend) {
    if !backend.has_f64() {
        return;
    }
    let device = backend.autodiff();
    // A scale that f32 holds exactly.
    let config = config(0.4).with_logit_scale(LogitScaleConfig::albef().with_temperature(0.5));
    let held = LogitScaleConfig::albef().with_temperature((-(2f64.ln() as f32 as f64)).exp());
    let x = inputs(4, [3, 5]);
    let found = evaluate(&device, &config, &x, DType::F64);
    let expected = expected(&config.clone().with_logit_scale(held), &x);
    assert_close(&[found.0], &[expected.0], 1e-13);
    for side in [0, 1] {
        assert_close(&found.1[side], &expected.1[side], 1e-8);
    }
}

fn the_loss_is_the_mean_over_pairs(backend: &Backend) {
    let (config, x) = (config(0.4), inputs(5, [2, 3]));
    let objective = config.init(&backend.device);
    let [image, text] = x.batch.each_ref().map(|m| backend.tensor(m, DType::F32));
    let context = || context(&backend.device, &x, DType::F32);
    let each = objective.forward_no_reduction(image.clone(), text.clone(), context());
    assert_close(&elements(each.clone()), &oracle_of(&config).each(&x), 1e-5);
    let loss = objective.forward_with(image, text, context());
    assert_close(&elements(loss), &elements(each.mean()), 1e-6);
}

fn streaming_and_auto_evaluation_match_dense(backend: &Backend) {
    let device = backend.autodiff();
    let x = inputs(4, [3, 6]);
    let with = |evaluation| {
        let similarity = SimilarityConfig::new().with_evaluation(evaluation);
        evaluate(
            &device,
            &config(0.4).with_similarity(similarity),
            &x,
            DType::F32,
        )
    };
    compare_with_dense(with, |actual, dense| {
        assert_matches(actual, dense, 4e-5);
    });
}

fn equals_info_nce_without_soft_targets_when_momentum_features_are_the_batch(backend: &Backend) {
    let mut x = inputs(5, [0, 0]);
    x.momentum = x.batch.clone();
    let [image, text] = x.batch.each_ref().map(|m| backend.tensor(m, DType::F32));
    let itc = config(0.0).init(&backend.device).forward_with(
        image.clone(),
        text.clone(),
        context(&backend.device, &x, DType::F32),
    );
    let info_nce = InfoNceConfig::new()
        .with_logit_scale(LogitScaleConfig::fixed(TEMPERATURE))
        .init(&backend.device);
    assert_close(
        &elements(itc),
        &elements(info_nce.forward(image, text)),
        1e-6,
    );
}

fn gradients_vanish_when_predictions_equal_the_soft_targets(backend: &Backend) {
    // Soft targets alone, equal to the prediction: cross-entropy is at its minimum.
    let mut x = inputs(5, [4, 4]);
    x.momentum = x.batch.clone();
    let device = backend.autodiff();
    let (_, gradients) = evaluate(&device, &config(1.0), &x, DType::F32);
    assert!(
        gradients.iter().flatten().all(|g| g.abs() < 1e-6),
        "{gradients:?}"
    );
}

fn an_empty_queue_changes_nothing(backend: &Backend) {
    let x = inputs(4, [0, 0]);
    let objective = config(0.4).init(&backend.device);
    let [image, text] = x.batch.each_ref().map(|m| backend.tensor(m, DType::F32));
    let plain = context(&backend.device, &x, DType::F32);
    let nothing = || image.clone().slice([0..0, 0..4]);
    let empty = Context {
        negatives: Negatives::queue(nothing(), nothing()),
        ..plain.clone()
    };
    assert_eq!(
        elements(objective.forward_with(image.clone(), text.clone(), empty)),
        elements(objective.forward_with(image.clone(), text, plain))
    );
}

fn a_single_pair_has_zero_loss_and_gradients(backend: &Backend) {
    let device = backend.autodiff();
    let (loss, gradients) = evaluate(&device, &config(0.4), &inputs(1, [0, 0]), DType::F32);
    assert_eq!(loss, 0.0);
    assert!(gradients.iter().flatten().all(|&g| g == 0.0));
}

fn temperature_0_001_matches_the_oracle_with_finite_gradients(backend: &Backend) {
    let device = backend.autodiff();
    let cold = LogitScaleConfig::albef().with_temperature(0.001);
    let config = config(0.4).with_logit_scale(cold);
    let x = inputs(4, [3, 0]);
    let (loss, gradients) = evaluate(&device, &config, &x, DType::F32);
    assert_close(&[loss], &[oracle_of(&config).loss(&x)], 1e-4);
    assert_finite(gradients.iter().flatten());
}

fn nan_in_gives_nan_out(backend: &Backend) {
    for place in 0..3 {
        let mut x = inputs(3, [2, 2]);
        let broken = match place {
            0 => &mut x.batch[0],
            1 => &mut x.momentum[1],
            _ => x.queue[1].as_mut().unwrap(),
        };
        broken.values[1] = f64::NAN;
        let [image, text] = x.batch.each_ref().map(|m| backend.tensor(m, DType::F32));
        let context = context(&backend.device, &x, DType::F32);
        let objective = config(0.4).init(&backend.device);
        let loss = objective.forward_with(image, text, context);
        assert!(elements(loss)[0].is_nan(), "bad input {place}");
    }
}

fn misuse_panics_name_the_argument(backend: &Backend) {
    let x = |rows: usize, width: usize| Tensor::<2>::ones([rows, width], &backend.device);
    let refused = |message: &str, text: Tensor<2>, context: Context| {
        assert_panics(message, || {
            let objective = config(0.4).init(&backend.device);
            let _ = objective.forward_with(x(4, 3), text, context);
        });
    };
    let good = || Context::from(Momentum::new(x(4, 3), x(4, 3)));
    let queue = |text| Negatives {
        text: Some(text),
        ..Negatives::default()
    };
    refused("`image` has 4 rows, `text` has 5", x(5, 3), good());
    refused(
        "`momentum` is missing: soft targets are those of a momentum encoder",
        x(4, 3),
        Context::default(),
    );
    refused(
        "`image` has 4 rows, `momentum.image` has 3",
        x(4, 3),
        Momentum::new(x(3, 3), x(4, 3)).into(),
    );
    refused(
        "`text` has width 3, `momentum.text` has width 2",
        x(4, 3),
        Momentum::new(x(4, 3), x(4, 2)).into(),
    );
    let ids = Ids {
        negative_text: Some(ids_on(&backend.device, &[1, 2, 3])),
        ..Ids::new(ids_on(&backend.device, &[1, 2, 3, 4]))
    };
    refused(
        "`ids.negative_text` has 3 elements, `negatives.text` has 2 rows",
        x(4, 3),
        Context {
            negatives: queue(x(2, 3)),
            ids: Some(ids),
            ..good()
        },
    );
    refused(
        "`image` has width 3, `negatives.text` has width 2",
        x(4, 3),
        Context {
            negatives: queue(x(7, 2)),
            ..good()
        },
    );
}
