//! InfoNCE: against the oracle and open_clip, its invariants, and degenerate input.

mod degenerate;
mod invariants;
mod values;

use burn::tensor::{DType, Device, Tensor};
use burn_contrastive::objective::{InfoNce, InfoNceConfig, Negatives};
use burn_contrastive::similarity::{LogitScaleConfig, SimilarityConfig};

use super::*;
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
        loss: elements(loss)[0],
        image: gradient(&image, &gradients),
        text: gradient(&text, &gradients),
        log_scale: gradient(&objective.logit_scale.log_scale, &gradients)[0],
    }
}

fn evaluate(
    backend: &Backend,
    config: &InfoNceConfig,
    image: &Matrix,
    text: &Matrix,
    dtype: DType,
) -> Evaluated {
    evaluate_on(&backend.autodiff(), config, image, text, dtype)
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
    let h = 5e-3 / oracle.log_scale.exp().max(5.0);
    Evaluated {
        loss: oracle.loss(image, text),
        image: oracle::gradient(
            |x| oracle.loss(&with_values(image, x), text),
            &image.values,
            h,
        ),
        text: oracle::gradient(
            |x| oracle.loss(image, &with_values(text, x)),
            &text.values,
            h,
        ),
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

fn each(backend: &Backend, config: &InfoNceConfig, image: &Matrix, text: &Matrix) -> Vec<f64> {
    let tensor = |m| backend.tensor(m, DType::F32);
    elements(
        config
            .init(&backend.device)
            .forward_no_reduction(tensor(image), tensor(text)),
    )
}
