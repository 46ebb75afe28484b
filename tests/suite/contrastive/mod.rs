//! Softmax contrasts: against the oracle, part by part and together, identities between them, and
//! degenerate input.

mod cases;
mod degenerate;
mod identities;
mod momentum;
mod named;
mod values;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_contrastive::objective::{
    ConVseConfig, Context, Contrastive, ContrastiveConfig, Criterion, DecoupledConfig, Directions,
    FalseNegativeRemovalConfig, Ids, ImageTextContrastiveConfig, InfoCmrConfig, InfoNceConfig,
    Momentum, MultiPositiveConfig, MvnConfig, Negatives, NtXentConfig, SameId, SrclConfig, Teacher,
};
use burn_contrastive::pairwise::Expr;
use burn_contrastive::similarity::{LogitScaleConfig, SimilarityConfig};
use burn_contrastive::weighting::{LogWeight, Norm, SimilarityRegulation, Weighting};

use cases::{all, all_of, combinations, in_context, objectives, pretraining};

use super::*;
use crate::oracle::contrastive::{self as oracle, Inputs};
use crate::oracle::{self as naive, Matrix};

fn scale(temperature: f64) -> LogitScaleConfig {
    LogitScaleConfig::new()
        .with_temperature(temperature)
        .with_min(1e-3)
        .with_max(1e4)
}

fn build(criterion: Criterion, temperature: f64, device: &Device) -> Contrastive {
    ContrastiveConfig::new()
        .with_logit_scale(scale(temperature))
        .with_criterion(criterion)
        .init(device)
}

fn oracle_of(criterion: &Criterion, temperature: f64) -> oracle::Contrastive {
    let weights = |regulation: SimilarityRegulation, threshold| oracle::Weights {
        alpha: regulation.alpha,
        temperature: regulation.weight_temperature,
        delta: match regulation.norm {
            Norm::Mean => None,
            Norm::Softmax { delta } => Some(delta),
        },
        differentiable: regulation.differentiable,
        threshold,
    };
    oracle::Contrastive {
        log_scale: (1.0 / temperature).ln(),
        image_to_text_weight: criterion.image_to_text_weight,
        directions_added: criterion.directions == Directions::Sum,
        decoupled: criterion.decoupled,
        within_modality: criterion.within_modality,
        same_id: match criterion.same_id {
            SameId::Negative => oracle::SameId::Negative,
            SameId::LeftOut => oracle::SameId::LeftOut,
            SameId::Positive => oracle::SameId::Positive,
        },
        weights: match criterion.weighting {
            Weighting::Uniform => None,
            Weighting::Regulation(regulation) => Some(weights(regulation, None)),
            Weighting::Removal {
                regulation,
                threshold,
            } => Some(weights(regulation, Some(threshold))),
        },
        guided_margin: criterion.guided_margin,
        label_smoothing: criterion.label_smoothing,
        soft_targets: criterion.soft_targets,
        queue_weight: criterion.queue_weight,
        target_log_scale: (1.0 / temperature).ln(),
        normalize: criterion.similarity.normalize,
    }
}

/// A batch without context.
fn batch(n: usize, width: usize, seed: u64) -> Inputs {
    Inputs {
        batch: [random(n, width, seed), random(n, width, seed + 1)],
        ..Inputs::default()
    }
}

fn with_teacher(inputs: Inputs, width: usize) -> Inputs {
    let n = inputs.batch[0].rows;
    let of = |negatives: &Option<Matrix>, seed| {
        let rows = negatives.as_ref()?.rows;
        Some(random(rows, width, seed))
    };
    Inputs {
        teacher: Some([random(n, width, 90), random(n, width, 91)]),
        teacher_negatives: [of(&inputs.negatives[0], 92), of(&inputs.negatives[1], 93)],
        ..inputs
    }
}

fn with_momentum(inputs: Inputs) -> Inputs {
    let (n, width) = (inputs.batch[0].rows, inputs.batch[0].width);
    Inputs {
        momentum: Some([random(n, width, 99), random(n, width, 100)]),
        ..inputs
    }
}

fn with_negatives(inputs: Inputs) -> Inputs {
    let width = inputs.batch[0].width;
    Inputs {
        negatives: [Some(random(3, width, 94)), Some(random(4, width, 95))],
        ..inputs
    }
}

fn with_hard_and_noise(inputs: Inputs) -> Inputs {
    let (n, width) = (inputs.batch[0].rows, inputs.batch[0].width);
    Inputs {
        hard: [
            Some(random(n * 2, width, 96)),
            Some(random(n * 3, width, 97)),
        ],
        noise: Some(random(4, width, 98)),
        ..inputs
    }
}

fn with_ids(inputs: Inputs) -> Inputs {
    let n = inputs.batch[0].rows as i64;
    let of = |negatives: &Option<Matrix>| {
        let rows = negatives.as_ref()?.rows as i64;
        Some((0..rows).map(|k| 1 - k).collect())
    };
    Inputs {
        ids: Some((0..n).map(|k| k % (n - 1).max(1)).collect()),
        negative_ids: [of(&inputs.negatives[0]), of(&inputs.negatives[1])],
        ..inputs
    }
}

/// The inputs on a device; embeddings are tracked on an autodiff device.
struct Placed {
    batch: [Tensor<2>; 2],
    negatives: [Option<Tensor<2>>; 2],
    noise: Option<Tensor<2>>,
    hard: [Option<Tensor<2>>; 2],
    context: Context,
}

fn place(device: &Device, inputs: &Inputs, dtype: DType) -> Placed {
    let constant = |m: &Matrix| on(device, m, dtype);
    let leaf = |m: &Matrix| {
        if device.is_autodiff() {
            constant(m).require_grad()
        } else {
            constant(m)
        }
    };
    let leaves = |pair: &[Option<Matrix>; 2]| pair.each_ref().map(|m| m.as_ref().map(leaf));
    let ids = |ids: &Vec<i64>| ids_on(device, ids);
    let batch = inputs.batch.each_ref().map(leaf);
    let (negatives, noise, hard) = (
        leaves(&inputs.negatives),
        inputs.noise.as_ref().map(leaf),
        leaves(&inputs.hard),
    );
    let [n, width] = batch[0].dims();
    let per_anchor = |hard: &Option<Tensor<2>>| {
        let hard = hard.clone()?;
        let m = hard.dims()[0] / n;
        Some(hard.reshape([n, m, width]))
    };
    let context = Context {
        momentum: inputs
            .momentum
            .as_ref()
            .map(|[image, text]| Momentum::new(constant(image), constant(text))),
        negatives: Negatives {
            image: negatives[0].clone(),
            text: negatives[1].clone(),
            noise: noise.clone(),
            hard_image: per_anchor(&hard[0]),
            hard_text: per_anchor(&hard[1]),
        },
        teacher: inputs.teacher.as_ref().map(|[image, text]| Teacher {
            image: constant(image),
            text: constant(text),
            negative_image: inputs.teacher_negatives[0].as_ref().map(constant),
            negative_text: inputs.teacher_negatives[1].as_ref().map(constant),
        }),
        ids: inputs.ids.as_ref().map(|batch| Ids {
            batch: ids(batch),
            negative_image: inputs.negative_ids[0].as_ref().map(ids),
            negative_text: inputs.negative_ids[1].as_ref().map(ids),
        }),
    };
    Placed {
        batch,
        negatives,
        noise,
        hard,
        context,
    }
}

/// Every embedding of the inputs, in one order.
fn leaves(inputs: &mut Inputs) -> Vec<&mut Matrix> {
    let Inputs {
        batch,
        negatives,
        noise,
        hard,
        ..
    } = inputs;
    let optional = negatives.iter_mut().chain([noise]).chain(hard);
    batch.iter_mut().chain(optional.flatten()).collect()
}

/// Loss, and gradients by every embedding in the order of [`leaves`], then by the logarithm of the
/// scale.
fn evaluate(
    device: &Device,
    criterion: Criterion,
    temperature: f64,
    inputs: &Inputs,
    dtype: DType,
) -> (f64, Vec<Vec<f64>>) {
    let objective = build(criterion, temperature, device);
    let placed = place(device, inputs, dtype);
    let [image, text] = placed.batch.clone();
    let loss = objective.forward_with(image, text, placed.context);
    let gradients = loss.backward();
    let optional = placed
        .negatives
        .iter()
        .chain([&placed.noise])
        .chain(&placed.hard);
    let mut found: Vec<_> = placed
        .batch
        .iter()
        .chain(optional.flatten())
        .enumerate()
        .map(|(k, leaf)| {
            // A queue of weight 0 is not a part of the loss.
            if criterion.queue_weight == 0.0 && (2..4).contains(&k) {
                assert!(leaf.grad(&gradients).is_none());
                return vec![0.0; leaf.shape().num_elements()];
            }
            gradient(leaf, &gradients)
        })
        .collect();
    let by_scale = objective.logit_scale.log_scale.grad(&gradients);
    found.push(elements(by_scale.expect("a gradient by the scale")));
    (elements(loss)[0], found)
}

fn expected(criterion: &Criterion, temperature: f64, inputs: &Inputs) -> (f64, Vec<Vec<f64>>) {
    let oracle = oracle_of(criterion, temperature);
    let h = 5e-3 * temperature.min(0.2);
    let count = leaves(&mut inputs.clone()).len();
    let mut gradients: Vec<_> = (0..count)
        .map(|k| {
            let at = leaves(&mut inputs.clone())[k].values.clone();
            naive::gradient(
                |x| {
                    let mut moved = inputs.clone();
                    leaves(&mut moved)[k].values = x.to_vec();
                    oracle.loss(&moved, inputs)
                },
                &at,
                h,
            )
        })
        .collect();
    gradients.push(naive::gradient(
        |x| {
            oracle::Contrastive {
                log_scale: x[0],
                ..oracle.clone()
            }
            .loss(inputs, inputs)
        },
        &[oracle.log_scale],
        1e-3,
    ));
    (oracle.loss(inputs, inputs), gradients)
}

#[track_caller]
fn assert_matches(
    (loss, gradients): &(f64, Vec<Vec<f64>>),
    (expected_loss, expected): &(f64, Vec<Vec<f64>>),
    tolerance: f64,
) {
    // Relative to the losses of single anchors, which may cancel where they are negative.
    assert_near(*loss, *expected_loss, tolerance);
    assert_eq!(gradients.len(), expected.len());
    for (gradient, expected) in gradients.iter().zip(expected) {
        let largest = expected.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        if largest < 1e-9 {
            assert!(gradient.iter().all(|g| g.abs() < 1e-6), "{gradient:?}");
        } else {
            assert_close(gradient, expected, tolerance);
        }
    }
}

/// The loss at temperature 0.2, without autodiff.
fn criterion_loss(backend: &Backend, criterion: Criterion, inputs: &Inputs) -> f64 {
    let placed = place(&backend.device, inputs, DType::F32);
    let [image, text] = placed.batch;
    let objective = build(criterion, 0.2, &backend.device);
    elements(objective.forward_with(image, text, placed.context))[0]
}

#[track_caller]
fn assert_same(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-5 * (1.0 + a.abs()), "{a} against {b}");
}

/// The losses of both directions, without autodiff.
fn directions(
    backend: &Backend,
    criterion: Criterion,
    temperature: f64,
    inputs: &Inputs,
) -> [Vec<f64>; 2] {
    let placed = place(&backend.device, inputs, DType::F32);
    let [image, text] = placed.batch;
    let objective = build(criterion, temperature, &backend.device);
    let losses = objective.forward_directions(image, text, placed.context);
    losses.map(elements)
}
