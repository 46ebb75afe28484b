//! Softmax contrasts: against the oracle part by part and together, identities between them, and hostile input.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_contrastive::objective::{
    ConVseConfig, Context, Contrastive, ContrastiveConfig, Criterion, DecoupledConfig,
    FalseNegativeRemovalConfig, Ids, InfoCmrConfig, InfoNceConfig, MultiPositiveConfig, MvnConfig,
    Negatives, NtXentConfig, Reduction, SameId, SrclConfig, Teacher,
};
use burn_contrastive::pairwise::{Evaluation, Expr};
use burn_contrastive::similarity::{LogitScaleConfig, SimilarityConfig};
use burn_contrastive::weighting::{LogWeight, Norm, SimilarityRegulation, Weighting};

use super::info_nce::assert_panics;
use super::{Backend, assert_close, numbers, on, random};
use crate::oracle::contrastive::{self as oracle, Inputs};
use crate::oracle::{self as naive, Matrix};

// --- what is compared -----------------------------------------------------------------------------

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
        directions_added: criterion.directions == Reduction::Sum,
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
        target_log_scale: (1.0 / temperature).ln(),
        normalize: criterion.similarity.normalize,
    }
}

/// A batch alone.
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

/// The inputs on a device: image, text, and their context, embeddings tracked where the device tracks.
struct Placed {
    batch: [Tensor<2>; 2],
    negatives: [Option<Tensor<2>>; 2],
    noise: Option<Tensor<2>>,
    hard: [Option<Tensor<2>>; 2],
    context: Context,
}

fn place(device: &Device, inputs: &Inputs, dtype: DType) -> Placed {
    let constant = |m: &Matrix| on(device, m, dtype);
    let leaf = |m: &Matrix| match device.is_autodiff() {
        true => constant(m).require_grad(),
        false => constant(m),
    };
    let leaves = |pair: &[Option<Matrix>; 2]| pair.each_ref().map(|m| m.as_ref().map(leaf));
    let ids = |ids: &Vec<i64>| {
        Tensor::<1, Int>::from_data(TensorData::new(ids.clone(), [ids.len()]), device)
    };
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

/// Loss, and gradients by every embedding in the order of [`leaves`], then by the scale's logarithm.
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
    let loss = objective.forward(image, text, placed.context);
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
        .map(|leaf| numbers(leaf.grad(&gradients).expect("a gradient")))
        .collect();
    let by_scale = objective.logit_scale.log_scale.grad(&gradients);
    found.push(numbers(by_scale.expect("a gradient by the scale")));
    (numbers(loss)[0], found)
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
    assert!(
        (loss - expected_loss).abs() <= tolerance * (1.0 + expected_loss.abs()),
        "{loss} against {expected_loss}"
    );
    assert_eq!(gradients.len(), expected.len());
    for (gradient, expected) in gradients.iter().zip(expected) {
        let largest = expected.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        match largest < 1e-9 {
            true => assert!(gradient.iter().all(|g| g.abs() < 1e-6), "{gradient:?}"),
            false => assert_close(gradient, expected, tolerance),
        }
    }
}

/// The objectives' criteria, each with a temperature and the inputs that it was made for.
fn objectives() -> Vec<(&'static str, Criterion, f64, Inputs)> {
    let plain = || batch(5, 4, 50);
    let taught = || with_teacher(plain(), 3);
    vec![
        ("InfoNce", Criterion::new(), 0.2, plain()),
        ("ConVse", ConVseConfig::new().criterion(), 0.1, plain()),
        (
            "Decoupled",
            DecoupledConfig::new().criterion(),
            0.1,
            plain(),
        ),
        (
            "Decoupled, within the modality",
            DecoupledConfig::new()
                .with_within_modality(true)
                .criterion(),
            0.1,
            plain(),
        ),
        ("Mvn", MvnConfig::new().criterion(), 0.1, plain()),
        ("NtXent", NtXentConfig::new().criterion(), 0.1, plain()),
        (
            "InfoCmr",
            InfoCmrConfig::new().criterion(),
            0.2,
            with_hard_and_noise(plain()),
        ),
        ("Srcl", SrclConfig::new().criterion(), 0.2, taught()),
        (
            "Srcl, of both",
            SrclConfig::new()
                .with_regulation(SimilarityRegulation::new().with_alpha(0.3))
                .criterion(),
            0.2,
            taught(),
        ),
        (
            "Srcl, fine-tuning",
            SrclConfig::new()
                .with_regulation(SimilarityRegulation::new().with_alpha(0.0))
                .criterion(),
            0.2,
            plain(),
        ),
        (
            "Srcl with a queue",
            SrclConfig::new()
                .with_regulation(SimilarityRegulation::new().with_alpha(0.6))
                .criterion(),
            0.2,
            with_teacher(with_negatives(plain()), 3),
        ),
        (
            "FalseNegativeRemoval",
            FalseNegativeRemovalConfig::new()
                .with_threshold(0.7)
                .criterion(),
            0.2,
            taught(),
        ),
        (
            "MultiPositive",
            MultiPositiveConfig::new().criterion(),
            0.2,
            with_ids(plain()),
        ),
        (
            "MultiPositive, left out",
            MultiPositiveConfig::new()
                .with_same_id(SameId::LeftOut)
                .criterion(),
            0.2,
            with_ids(plain()),
        ),
        (
            "SupCon",
            MultiPositiveConfig::new()
                .with_within_modality(true)
                .criterion(),
            0.2,
            with_ids(plain()),
        ),
    ]
}

/// What no paper put together.
fn combinations() -> Vec<(&'static str, Criterion, f64, Inputs)> {
    let everything = || {
        with_ids(with_teacher(
            with_hard_and_noise(with_negatives(batch(5, 4, 60))),
            3,
        ))
    };
    let regulation = SimilarityRegulation::new()
        .with_alpha(0.4)
        .with_weight_temperature(0.5);
    let regulated = Criterion::new().with_weighting(Weighting::Regulation(regulation));
    let removal = |threshold| {
        Criterion::new().with_weighting(Weighting::Removal {
            regulation,
            threshold,
        })
    };
    vec![
        (
            "InfoCMR with SRCL's weights and a queue",
            InfoCmrConfig::new()
                .criterion()
                .with_weighting(regulated.weighting),
            0.2,
            Inputs {
                ids: None,
                ..everything()
            },
        ),
        (
            "decoupled with removal",
            removal(0.8).with_decoupled(true),
            0.3,
            with_teacher(batch(5, 4, 61), 3),
        ),
        (
            "softmax weights with a gradient, unequal directions",
            Criterion::new()
                .with_weighting(Weighting::Regulation(
                    regulation
                        .with_norm(Norm::Softmax { delta: 2.0 })
                        .with_differentiable(true),
                ))
                .with_image_to_text_weight(0.8),
            0.3,
            with_teacher(with_negatives(batch(4, 5, 62)), 3),
        ),
        (
            "weights of the mean with a gradient",
            Criterion::new()
                .with_weighting(Weighting::Regulation(regulation.with_differentiable(true))),
            0.3,
            with_teacher(batch(4, 5, 63), 3),
        ),
        (
            "guided, smoothed",
            Criterion::new()
                .with_guided_margin(Some(0.1))
                .with_label_smoothing(0.2),
            0.3,
            with_teacher(with_negatives(batch(6, 4, 64)), 3),
        ),
        (
            "guided within the modality",
            Criterion::new()
                .with_guided_margin(Some(-0.2))
                .with_within_modality(true),
            0.3,
            with_teacher(batch(6, 4, 65), 3),
        ),
        (
            "removal with a queue, hard negatives, noise, ids, a guide and smoothing",
            removal(0.7)
                .with_guided_margin(Some(0.3))
                .with_label_smoothing(0.1),
            0.3,
            everything(),
        ),
        (
            "distilled, weighted, with a queue",
            regulated.with_soft_targets(0.6),
            0.3,
            with_teacher(with_negatives(batch(5, 4, 67)), 3),
        ),
        (
            "distilled and smoothed over what removal leaves",
            removal(0.8)
                .with_soft_targets(0.5)
                .with_label_smoothing(0.3),
            0.3,
            with_teacher(batch(5, 4, 68), 3),
        ),
        (
            "everything at once",
            regulated
                .with_decoupled(true)
                .with_within_modality(true)
                .with_same_id(SameId::Positive)
                .with_guided_margin(Some(0.2))
                .with_label_smoothing(0.1)
                .with_soft_targets(0.2)
                .with_directions(Reduction::Sum)
                .with_image_to_text_weight(0.3),
            0.4,
            everything(),
        ),
        (
            "dot products, weighted and smoothed",
            regulated
                .with_label_smoothing(0.3)
                .with_similarity(SimilarityConfig::new().with_normalize(false)),
            1.0,
            with_teacher(batch(5, 4, 66), 3),
        ),
    ]
}

// --- right values ---------------------------------------------------------------------------------

fn assert_all_match(backend: &Backend, cases: Vec<(&'static str, Criterion, f64, Inputs)>) {
    let device = backend.device.clone().autodiff();
    for (name, criterion, temperature, inputs) in cases {
        println!("{name}");
        let found = evaluate(&device, criterion, temperature, &inputs, DType::F32);
        assert_matches(&found, &expected(&criterion, temperature, &inputs), 4e-5);
    }
}

pub fn every_objective_matches_the_oracle(backend: &Backend) {
    assert_all_match(backend, objectives());
}

pub fn combinations_match_the_oracle(backend: &Backend) {
    assert_all_match(backend, combinations());
}

pub fn f64_matches_the_oracle_to_1e_9(backend: &Backend) {
    if !backend.dtypes.contains(&DType::F64) {
        println!("{:?} has no f64: nothing to check", backend.device);
        return;
    }
    let device = backend.device.clone().autodiff();
    for (name, criterion, temperature, inputs) in objectives().into_iter().chain(combinations()) {
        println!("{name}");
        // The parameter is f32: compare at the scale that it holds.
        let held = (-((1.0 / temperature).ln() as f32 as f64)).exp();
        let found = evaluate(&device, criterion, temperature, &inputs, DType::F64);
        let mut expected = expected(&criterion, held, &inputs);
        // Rounded to f32 on its way back to the parameter.
        let (by_scale, expected_by_scale) =
            (found.1.last().unwrap()[0], expected.1.pop().unwrap()[0]);
        assert!((by_scale - expected_by_scale).abs() < 1e-5 * (1.0 + by_scale.abs()));
        let (loss, mut gradients) = found;
        gradients.pop();
        assert_matches(&(loss, gradients), &expected, 1e-8);
    }
}

pub fn matches_lightly_and_pytorch_metric_learning(backend: &Backend) {
    let stored: serde_json::Value =
        serde_json::from_str(include_str!("../fixtures/contrasts/contrasts.json")).unwrap();
    let list = |v: &serde_json::Value| -> Vec<f64> { serde_json::from_value(v.clone()).unwrap() };
    let device = backend.device.clone().autodiff();
    let smoothing = stored["made_by"]["label_smoothing"].as_f64().unwrap();
    let cases = stored["cases"].as_array().unwrap();
    assert!(cases.len() >= 28, "the fixture lost cases: {}", cases.len());
    for case in cases {
        let origin = case["origin"].as_str().unwrap();
        let (input, temperature) = (
            &stored["inputs"][case["input"].as_u64().unwrap() as usize],
            case["temperature"].as_f64().unwrap(),
        );
        println!("{origin} at temperature {temperature}");
        let (criterion, with_ids) = match origin {
            "lightly.NTXentLoss" | "pytorch_metric_learning.NTXentLoss" => {
                (NtXentConfig::new().criterion(), false)
            }
            "lightly.DCLLoss" => {
                let dcl = DecoupledConfig::new().with_within_modality(true);
                (dcl.criterion(), false)
            }
            "pytorch_metric_learning.SupConLoss" => {
                let sup_con = MultiPositiveConfig::new().with_within_modality(true);
                (sup_con.criterion(), true)
            }
            "torch.cross_entropy" => (Criterion::new().with_label_smoothing(smoothing), false),
            other => panic!("an objective for {other}"),
        };
        let (n, width) = (
            list(&input["ids"]).len(),
            input["d"].as_u64().unwrap() as usize,
        );
        let ids = list(&input["ids"]).iter().map(|&id| id as i64).collect();
        let inputs = Inputs {
            batch: ["image", "text"].map(|side| Matrix::new(n, width, list(&input[side]))),
            ids: with_ids.then_some(ids),
            ..Inputs::default()
        };
        let (loss, gradients) = evaluate(&device, criterion, temperature, &inputs, DType::F32);
        assert_close(&[loss], &[case["loss"].as_f64().unwrap()], 2e-6);
        assert_close(&gradients[0], &list(&case["image"]), 2e-5);
        assert_close(&gradients[1], &list(&case["text"]), 2e-5);
    }
}

pub fn each_pair_and_each_direction_match_the_oracle(backend: &Backend) {
    for (name, criterion, temperature, inputs) in objectives().into_iter().chain(combinations()) {
        println!("{name}");
        let objective = build(criterion, temperature, &backend.device);
        let placed = place(&backend.device, &inputs, DType::F32);
        let [image, text] = placed.batch;
        let directions =
            objective.forward_directions(image.clone(), text.clone(), placed.context.clone());
        let expected = oracle_of(&criterion, temperature).directions(&inputs, &inputs);
        for (found, expected) in directions.clone().into_iter().zip(&expected) {
            assert_close(&numbers(found), expected, 2e-5);
        }
        let [by_image, by_text] = directions.map(numbers);
        let weight = criterion.image_to_text_weight;
        let factor = f64::from(u8::from(criterion.directions == Reduction::Sum) + 1);
        let joined: Vec<f64> = by_image
            .iter()
            .zip(&by_text)
            .map(|(a, b)| factor * (weight * a + (1.0 - weight) * b))
            .collect();
        let each =
            objective.forward_no_reduction(image.clone(), text.clone(), placed.context.clone());
        assert_close(&numbers(each), &joined, 1e-6);
        let mean = joined.iter().sum::<f64>() / joined.len() as f64;
        let loss = numbers(objective.forward(image, text, placed.context))[0];
        assert!(
            (loss - mean).abs() < 1e-5 * (1.0 + mean.abs()),
            "{loss} against {mean}"
        );
    }
}

pub fn evaluations_agree(backend: &Backend) {
    let device = backend.device.clone().autodiff();
    for (name, criterion, temperature, inputs) in combinations() {
        println!("{name}");
        let with = |evaluation| {
            let similarity = criterion.similarity.with_evaluation(evaluation);
            let criterion = criterion.with_similarity(similarity);
            evaluate(&device, criterion, temperature, &inputs, DType::F32)
        };
        let dense = with(Evaluation::Dense);
        for evaluation in [Evaluation::Auto, Evaluation::Streaming] {
            assert_matches(&with(evaluation), &dense, 4e-5);
        }
    }
}

pub fn works_under_gradient_checkpointing(backend: &Backend) {
    let device = backend.device.clone().autodiff().gradient_checkpointing();
    for (name, criterion, temperature, inputs) in combinations() {
        println!("{name}");
        let found = evaluate(&device, criterion, temperature, &inputs, DType::F32);
        assert_matches(&found, &expected(&criterion, temperature, &inputs), 4e-5);
    }
}

pub fn half_precision_is_as_good_as_its_inputs(backend: &Backend) {
    for dtype in backend.half_dtypes() {
        for (name, criterion, temperature, mut inputs) in objectives() {
            println!("{name} in {dtype:?}");
            // What the inputs are after rounding to half precision.
            let round = |m: &mut Matrix| m.values = numbers(backend.tensor(m, dtype));
            leaves(&mut inputs).into_iter().for_each(round);
            inputs.teacher.iter_mut().flatten().for_each(round);
            inputs
                .teacher_negatives
                .iter_mut()
                .flatten()
                .for_each(round);
            let device = backend.device.clone().autodiff();
            let (loss, gradients) = evaluate(&device, criterion, temperature, &inputs, dtype);
            let (expected_loss, expected) = expected(&criterion, temperature, &inputs);
            // The loss is computed in f32; only the gradients are rounded on their way back.
            assert!((loss - expected_loss).abs() < 2e-5 * (1.0 + expected_loss.abs()));
            let ulp = if dtype == DType::F16 { 1e-3 } else { 8e-3 };
            let embeddings = gradients.len() - 1;
            for (gradient, expected) in gradients.iter().zip(&expected).take(embeddings) {
                assert_close(gradient, expected, 2.0 * ulp);
            }
        }
    }
}

/// Over several blocks, in a budget that holds a part of the similarities.
pub fn blocks_change_nothing(backend: &Backend) {
    let device = backend.device.clone().autodiff();
    let width = 8;
    let inputs = |seed| {
        let batch = batch(520, width, seed);
        with_teacher(
            Inputs {
                negatives: [Some(random(9, width, 94)), Some(random(33, width, 95))],
                ..batch
            },
            5,
        )
    };
    let regulation = SimilarityRegulation::new()
        .with_alpha(0.5)
        .with_weight_temperature(0.3);
    let removal = Weighting::Removal {
        regulation,
        threshold: 0.5,
    };
    let criteria = [
        Criterion::new()
            .with_weighting(Weighting::Regulation(regulation))
            .with_within_modality(true),
        Criterion::new()
            .with_weighting(removal)
            .with_decoupled(true)
            .with_guided_margin(Some(0.1))
            .with_label_smoothing(0.1),
    ];
    for (seed, criterion) in (200..).step_by(2).zip(criteria) {
        println!("{criterion:?}");
        let with = |evaluation| {
            let similarity = SimilarityConfig::new()
                .with_evaluation(evaluation)
                .with_memory_budget(1 << 20);
            let criterion = criterion.with_similarity(similarity);
            evaluate(&device, criterion, 0.2, &inputs(seed), DType::F64)
        };
        // In f64, so that no pair is at the other side of a threshold.
        let dense = with(Evaluation::Dense);
        for evaluation in [Evaluation::Auto, Evaluation::Streaming] {
            assert_matches(&with(evaluation), &dense, 1e-7);
        }
    }
}

// --- identities -----------------------------------------------------------------------------------

/// Loss of an objective under its own name.
macro_rules! loss {
    ($config:expr, $device:expr, $($argument:expr),+) => {
        numbers($config.init($device).forward($($argument),+))[0]
    };
}

pub fn each_objective_is_its_criterion(backend: &Backend) {
    let device = &backend.device;
    let inputs = with_ids(with_teacher(with_hard_and_noise(batch(5, 4, 70)), 3));
    let Placed { batch, context, .. } = place(device, &inputs, DType::F32);
    let [image, text] = batch;
    let pair = || (image.clone(), text.clone());
    let Context {
        negatives,
        teacher,
        ids,
    } = context;
    let (teacher, ids) = (teacher.unwrap(), ids.unwrap());
    let is = |named: f64, criterion: Criterion, scale: LogitScaleConfig, context: Context| {
        let config = ContrastiveConfig::new()
            .with_logit_scale(scale)
            .with_criterion(criterion);
        let (image, text) = pair();
        assert_same(named, loss!(config, device, image, text, context));
    };
    macro_rules! without_context {
        ($($config:expr),+) => { $({
            let config = $config;
            let (image, text) = pair();
            let named = loss!(config, device, image, text);
            is(named, config.criterion(), config.logit_scale.clone(), Context::default());
        })+ };
    }
    without_context!(
        ConVseConfig::new(),
        DecoupledConfig::new(),
        MvnConfig::new(),
        NtXentConfig::new()
    );
    let (a, b) = pair();
    let config = InfoCmrConfig::new();
    let named = loss!(config, device, a, b, negatives.clone());
    is(
        named,
        config.criterion(),
        config.logit_scale,
        negatives.into(),
    );
    let (a, b) = pair();
    let config = SrclConfig::new();
    let named = loss!(config, device, a, b, teacher.clone());
    is(
        named,
        config.criterion(),
        config.logit_scale,
        teacher.clone().into(),
    );
    let (a, b) = pair();
    let config = FalseNegativeRemovalConfig::new();
    let named = loss!(config, device, a, b, teacher.clone());
    is(
        named,
        config.criterion(),
        config.logit_scale,
        teacher.into(),
    );
    let (a, b) = pair();
    let config = MultiPositiveConfig::new();
    let named = loss!(config, device, a, b, ids.clone());
    let context = Context {
        ids: Some(ids),
        ..Context::default()
    };
    is(named, config.criterion(), config.logit_scale, context);
}

fn criterion_loss(backend: &Backend, criterion: Criterion, inputs: &Inputs) -> f64 {
    let placed = place(&backend.device, inputs, DType::F32);
    let [image, text] = placed.batch;
    let objective = build(criterion, 0.2, &backend.device);
    numbers(objective.forward(image, text, placed.context))[0]
}

#[track_caller]
fn assert_same(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-5 * (1.0 + a.abs()), "{a} against {b}");
}

pub fn equal_similarities_make_srcl_con_vse(backend: &Backend) {
    let mut inputs = with_teacher(batch(5, 4, 71), 3);
    // All texts alike to the teacher of every image.
    let [image, text] = inputs.teacher.as_mut().unwrap();
    image.values = random(1, 3, 1).values.repeat(5);
    text.values = random(1, 3, 2).values.repeat(5);
    let con_vse = criterion_loss(backend, ConVseConfig::new().criterion(), &inputs);
    for norm in [Norm::Mean, Norm::Softmax { delta: 3.0 }] {
        let regulation = SimilarityRegulation::new().with_norm(norm);
        let srcl = SrclConfig::new().with_regulation(regulation);
        assert_same(criterion_loss(backend, srcl.criterion(), &inputs), con_vse);
    }
    // And a student whose similarities are equal, whatever the share.
    let equal = Inputs {
        batch: [0, 1].map(|k| Matrix::new(5, 4, random(1, 4, 72 + k).values.repeat(5))),
        ..inputs
    };
    let half = SimilarityRegulation::new().with_alpha(0.5);
    let srcl = SrclConfig::new().with_regulation(half).criterion();
    assert_same(criterion_loss(backend, srcl, &equal), 2.0 * 5f64.ln());
}

pub fn the_decoupled_loss_is_info_nce_without_the_positive(backend: &Backend) {
    // log(1 + e^D) = L for each anchor and direction.
    let inputs = batch(6, 4, 73);
    let directions = |decoupled| {
        let placed = place(&backend.device, &inputs, DType::F32);
        let [image, text] = placed.batch;
        let criterion = Criterion::new().with_decoupled(decoupled);
        let objective = build(criterion, 0.2, &backend.device);
        objective
            .forward_directions(image, text, Context::default())
            .map(numbers)
    };
    for (without, with) in directions(true).iter().zip(directions(false)) {
        let expected: Vec<f64> = without.iter().map(|d| d.exp().ln_1p()).collect();
        assert_close(&with, &expected, 1e-5);
    }
}

pub fn settings_that_change_nothing(backend: &Backend) {
    let inputs = with_ids(with_teacher(batch(5, 4, 74), 3));
    let plain = criterion_loss(backend, Criterion::new(), &batch(5, 4, 74));
    let unchanged = |criterion, inputs: &Inputs| {
        assert_same(criterion_loss(backend, criterion, inputs), plain);
    };
    // A guide that finds nothing near enough.
    unchanged(
        Criterion::new().with_guided_margin(Some(2.5)),
        &Inputs {
            ids: None,
            ..inputs.clone()
        },
    );
    // Ids that do not matter, and ids that all differ.
    unchanged(Criterion::new().with_same_id(SameId::Negative), &inputs);
    let different = Inputs {
        ids: Some(vec![5, -3, 1 << 30, 0, 9]),
        ..inputs.clone()
    };
    for same_id in [SameId::LeftOut, SameId::Positive] {
        unchanged(Criterion::new().with_same_id(same_id), &different);
    }
    // Removal below weight 0, and both directions added at half the weight.
    let without_ids = Inputs {
        ids: None,
        ..inputs
    };
    let removal = Weighting::Removal {
        regulation: SimilarityRegulation::new(),
        threshold: 0.0,
    };
    unchanged(Criterion::new().with_weighting(removal), &without_ids);
    assert_same(
        criterion_loss(
            backend,
            Criterion::new().with_directions(Reduction::Sum),
            &without_ids,
        ),
        2.0 * plain,
    );
    // NT-Xent is half of MVN; InfoCMR without its negatives is ConVSE.
    assert_same(
        2.0 * criterion_loss(backend, NtXentConfig::new().criterion(), &without_ids),
        criterion_loss(backend, MvnConfig::new().criterion(), &without_ids),
    );
    let none = Negatives {
        noise: Some(Tensor::<2>::zeros([1, 4], &backend.device).slice([0..0, 0..4])),
        hard_text: Some(Tensor::<3>::zeros([5, 1, 4], &backend.device).slice([0..5, 0..0, 0..4])),
        ..Negatives::default()
    };
    let Placed { batch, .. } = place(&backend.device, &without_ids, DType::F32);
    let [image, text] = batch;
    let fixed = || LogitScaleConfig::fixed(0.2);
    assert_same(
        loss!(
            InfoCmrConfig::new().with_logit_scale(fixed()),
            &backend.device,
            image.clone(),
            text.clone(),
            none
        ),
        loss!(
            ConVseConfig::new().with_logit_scale(fixed()),
            &backend.device,
            image,
            text
        ),
    );
}

pub fn extra_negatives_are_weighted_with_those_of_the_batch(backend: &Backend) {
    // The last row of a batch, moved to the queue, is the same negative to all others.
    let whole = with_teacher(batch(5, 4, 75), 3);
    let head = |m: &Matrix| Matrix::new(4, m.width, m.values[..4 * m.width].to_vec());
    let last = |m: &Matrix| Matrix::new(1, m.width, m.values[4 * m.width..].to_vec());
    let teacher = whole.teacher.as_ref().unwrap();
    let parted = Inputs {
        batch: whole.batch.each_ref().map(head),
        negatives: whole.batch.each_ref().map(|m| Some(last(m))),
        teacher: Some(teacher.each_ref().map(head)),
        teacher_negatives: teacher.each_ref().map(|m| Some(last(m))),
        ..Inputs::default()
    };
    for weighting in [
        Weighting::Regulation(SimilarityRegulation::new().with_alpha(0.5)),
        Weighting::Removal {
            regulation: SimilarityRegulation::new(),
            threshold: 0.9,
        },
    ] {
        let criterion = Criterion::new().with_weighting(weighting);
        let directions = |inputs: &Inputs| {
            let placed = place(&backend.device, inputs, DType::F32);
            let [image, text] = placed.batch;
            build(criterion, 0.2, &backend.device)
                .forward_directions(image, text, placed.context)
                .map(numbers)
        };
        for (parted, whole) in directions(&parted).iter().zip(directions(&whole)) {
            assert_close(parted, &whole[..4], 1e-5);
        }
    }
}

pub fn whoever_agrees_with_its_teacher_stays(backend: &Backend) {
    // Soft targets alone, equal to the prediction: cross-entropy is at its minimum.
    let mut inputs = batch(5, 4, 77);
    inputs.teacher = Some(inputs.batch.clone());
    let criterion = Criterion::new().with_soft_targets(1.0);
    let device = backend.device.clone().autodiff();
    let (_, gradients) = evaluate(&device, criterion, 0.2, &inputs, DType::F32);
    assert!(
        gradients.iter().flatten().all(|g| g.abs() < 1e-5),
        "{gradients:?}"
    );
}

pub fn weights_of_ones_own(backend: &Backend) {
    let inputs = with_teacher(batch(5, 4, 76), 3);
    let loss = |criterion, weight: LogWeight| {
        let placed = place(&backend.device, &inputs, DType::F32);
        let [image, text] = placed.batch;
        let objective = build(criterion, 0.2, &backend.device).with_log_weight(weight);
        numbers(objective.forward(image, text, placed.context))[0]
    };
    // Constant weights change nothing; the regulation, written by hand, is the regulation.
    let constant = LogWeight::new(|_| Expr::constant(3.0));
    assert_same(
        loss(Criterion::new(), constant),
        criterion_loss(backend, Criterion::new(), &inputs),
    );
    let by_teacher = || LogWeight::with_teacher(|_, teacher| -teacher);
    let regulation = SimilarityRegulation::new();
    assert_same(
        loss(Criterion::new(), by_teacher()),
        criterion_loss(
            backend,
            Criterion::new().with_weighting(Weighting::Regulation(regulation)),
            &inputs,
        ),
    );
    // Weights remove where the criterion removes.
    let removal = Criterion::new().with_weighting(Weighting::Removal {
        regulation: regulation.with_alpha(0.0),
        threshold: 0.8,
    });
    let expected = Criterion::new().with_weighting(Weighting::Removal {
        regulation,
        threshold: 0.8,
    });
    assert_same(
        loss(removal, by_teacher()),
        criterion_loss(backend, expected, &inputs),
    );
}

fn losses(backend: &Backend, criterion: Criterion, inputs: &Inputs) -> [Vec<f64>; 2] {
    let placed = place(&backend.device, inputs, DType::F32);
    let [image, text] = placed.batch;
    let objective = build(criterion, 0.3, &backend.device);
    let losses = objective.forward_directions(image, text, placed.context);
    losses.map(numbers)
}

pub fn swapping_the_modalities_swaps_the_directions(backend: &Backend) {
    for (name, criterion, _, inputs) in objectives().into_iter().chain(combinations()) {
        println!("{name}");
        let mut swapped = inputs.clone();
        swapped.batch.reverse();
        swapped.negatives.reverse();
        swapped.hard.reverse();
        swapped.teacher_negatives.reverse();
        swapped.negative_ids.reverse();
        if let Some(teacher) = &mut swapped.teacher {
            teacher.reverse();
        }
        let [by_image, by_text] = losses(backend, criterion, &inputs);
        let [of_text, of_image] = losses(backend, criterion, &swapped);
        assert_close(&of_image, &by_image, 1e-5);
        assert_close(&of_text, &by_text, 1e-5);
    }
}

pub fn permuting_the_batch_permutes_the_losses(backend: &Backend) {
    for (name, criterion, _, inputs) in objectives().into_iter().chain(combinations()) {
        println!("{name}");
        let n = inputs.batch[0].rows;
        let rotated = |m: &mut Matrix| {
            let first = m.values.len() / n;
            m.values.rotate_left(first);
        };
        let mut permuted = inputs.clone();
        permuted.batch.iter_mut().for_each(rotated);
        permuted.hard.iter_mut().flatten().for_each(rotated);
        permuted.teacher.iter_mut().flatten().for_each(rotated);
        if let Some(ids) = &mut permuted.ids {
            ids.rotate_left(1);
        }
        let expected = losses(backend, criterion, &inputs).map(|mut losses| {
            losses.rotate_left(1);
            losses
        });
        for (found, expected) in losses(backend, criterion, &permuted).iter().zip(&expected) {
            assert_close(found, expected, 1e-5);
        }
    }
}

// --- degenerate and hostile input -----------------------------------------------------------------

/// Every criterion with the inputs that it needs, of `n` pairs.
fn all_of(n: usize) -> Vec<(&'static str, Criterion, Inputs)> {
    let cases = objectives().into_iter().chain(combinations());
    cases
        .map(|(name, criterion, _, inputs)| {
            let mut of_n = batch(n, 4, 80);
            if inputs.negatives[0].is_some() {
                of_n = with_negatives(of_n);
            }
            if inputs.noise.is_some() {
                of_n = with_hard_and_noise(of_n);
            }
            if inputs.teacher.is_some() {
                of_n = with_teacher(of_n, 3);
            }
            if inputs.ids.is_some() {
                of_n = with_ids(of_n);
            }
            (name, criterion, of_n)
        })
        .collect()
}

pub fn a_single_pair_is_defined(backend: &Backend) {
    let device = backend.device.clone().autodiff();
    for (name, criterion, inputs) in all_of(1) {
        println!("{name}");
        let (loss, gradients) = evaluate(&device, criterion, 0.2, &inputs, DType::F32);
        let alone = inputs.negatives[0].is_none() && inputs.noise.is_none();
        if alone {
            // Nothing to tell apart: exactly nothing, unless a share of the target took two ways to the same logit.
            let shared = criterion.label_smoothing + criterion.soft_targets > 0.0;
            let most = if shared { 1e-6 } else { 0.0 };
            assert!(loss.abs() <= most, "{loss}");
            assert!(
                gradients.iter().flatten().all(|g| g.abs() <= most),
                "{gradients:?}"
            );
        } else {
            let expected = oracle_of(&criterion, 0.2).loss(&inputs, &inputs);
            assert!((loss - expected).abs() < 1e-4, "{loss} against {expected}");
            assert!(gradients.iter().flatten().all(|g| g.is_finite()));
        }
    }
}

pub fn a_temperature_of_a_thousandth(backend: &Backend) {
    let device = backend.device.clone().autodiff();
    for (name, criterion, inputs) in all_of(4) {
        println!("{name}");
        let (loss, gradients) = evaluate(&device, criterion, 0.001, &inputs, DType::F32);
        let expected = oracle_of(&criterion, 0.001).loss(&inputs, &inputs);
        assert!(
            (loss - expected).abs() < 1e-3 * (1.0 + expected.abs()),
            "{loss} against {expected}"
        );
        assert!(gradients.iter().flatten().all(|g| g.is_finite()));
    }
}

pub fn weights_of_a_thousandth_are_finite(backend: &Backend) {
    // Weights from e^{−250} to e^{250} before they are normalised: nearly all on the least alike.
    let regulation = SimilarityRegulation::new()
        .with_alpha(0.5)
        .with_weight_temperature(0.004);
    let inputs = with_teacher(with_negatives(batch(4, 4, 81)), 3);
    let device = backend.device.clone().autodiff();
    for differentiable in [false, true] {
        let regulation = regulation.with_differentiable(differentiable);
        let criterion = Criterion::new().with_weighting(Weighting::Regulation(regulation));
        let (loss, gradients) = evaluate(&device, criterion, 0.2, &inputs, DType::F32);
        let expected = oracle_of(&criterion, 0.2).loss(&inputs, &inputs);
        assert!((loss - expected).abs() < 1e-3, "{loss} against {expected}");
        assert!(gradients.iter().flatten().all(|g| g.is_finite()));
    }
}

pub fn zero_rows_and_duplicates_are_finite(backend: &Backend) {
    let device = backend.device.clone().autodiff();
    for (name, criterion, mut inputs) in all_of(4) {
        println!("{name}");
        for side in &mut inputs.batch {
            side.values.copy_within(0..4, 4);
            side.values[8..12].fill(0.0);
        }
        let (loss, gradients) = evaluate(&device, criterion, 0.2, &inputs, DType::F32);
        let expected = oracle_of(&criterion, 0.2).loss(&inputs, &inputs);
        assert!(
            (loss - expected).abs() < 1e-4 * (1.0 + expected.abs()),
            "{loss} against {expected}"
        );
        assert!(gradients.iter().flatten().all(|g| g.is_finite()));
        if criterion.similarity.normalize {
            assert!(gradients[0][8..12].iter().all(|&g| g == 0.0));
        }
    }
}

pub fn nan_in_gives_nan_out(backend: &Backend) {
    for (name, criterion, inputs) in all_of(3) {
        println!("{name}");
        let mut bad = vec![inputs.clone(), inputs.clone()];
        bad[0].batch[0].values[5] = f64::NAN;
        bad[1].batch[1].values[2] = f64::NAN;
        if inputs.noise.is_some() {
            let mut broken = inputs.clone();
            broken.noise.as_mut().unwrap().values[0] = f64::NAN;
            bad.push(broken);
            let mut broken = inputs.clone();
            broken.hard[1].as_mut().unwrap().values[0] = f64::NAN;
            bad.push(broken);
        }
        if inputs.teacher.is_some() {
            let mut broken = inputs.clone();
            broken.teacher.as_mut().unwrap()[1].values[1] = f64::NAN;
            bad.push(broken);
        }
        for (k, inputs) in bad.iter().enumerate() {
            let loss = criterion_loss(backend, criterion, inputs);
            assert!(loss.is_nan(), "{loss} from bad input {k}");
        }
    }
}

// --- misuse ---------------------------------------------------------------------------------------

pub fn misuse_panics_with_what_is_wrong(backend: &Backend) {
    let device = &backend.device;
    let x = |rows: usize| Tensor::<2>::ones([rows, 3], device);
    let refused = |message: &str, criterion: Criterion, text: Tensor<2>, context: Context| {
        assert_panics(message, || {
            let _ = build(criterion, 0.2, device).forward(x(4), text, context);
        });
    };
    let srcl = SrclConfig::new().criterion();
    let guided = Criterion::new().with_guided_margin(Some(0.0));
    refused(
        "`image` has 4 rows, `text` has 5",
        Criterion::new(),
        x(5),
        Context::default(),
    );
    for criterion in [srcl, guided] {
        refused(
            "Contrastive: `teacher` is missing",
            criterion,
            x(4),
            Context::default(),
        );
    }
    refused(
        "`teacher.image` has 3 rows, `image` has 4",
        srcl,
        x(4),
        Teacher::new(x(3), x(3)).into(),
    );
    refused(
        "`teacher.image` has 4 rows, `teacher.text` has 5",
        srcl,
        x(4),
        Teacher::new(x(4), x(5)).into(),
    );
    let queue = Negatives {
        text: Some(x(2)),
        ..Negatives::default()
    };
    refused(
        "`teacher.negative_text` is missing",
        srcl,
        x(4),
        Context {
            negatives: queue.clone(),
            ..Teacher::new(x(4), x(4)).into()
        },
    );
    let too_few = Teacher {
        negative_text: Some(x(1)),
        ..Teacher::new(x(4), x(4))
    };
    refused(
        "`teacher.negative_text` has 1 rows, `negatives.text` has 2",
        srcl,
        x(4),
        Context {
            negatives: queue.clone(),
            ..too_few.into()
        },
    );
    let ids = |count: i32| {
        Tensor::<1, Int>::from_data(
            TensorData::new(vec![0; count as usize], [count as usize]),
            device,
        )
    };
    let context = |ids| Context {
        negatives: queue.clone(),
        ids: Some(ids),
        ..Context::default()
    };
    refused(
        "`ids.batch` has 3 numbers, `image` has 4 rows",
        Criterion::new(),
        x(4),
        context(Ids::new(ids(3))),
    );
    let too_many = Ids {
        negative_text: Some(ids(3)),
        ..Ids::new(ids(4))
    };
    refused(
        "`ids.negative_text` has 3 numbers, `negatives.text` has 2 rows",
        Criterion::new(),
        x(4),
        context(too_many),
    );
    refused(
        "`image` has width 3, `negatives.noise` has width 2",
        Criterion::new(),
        x(4),
        Negatives {
            noise: Some(Tensor::ones([2, 2], device)),
            ..Negatives::default()
        }
        .into(),
    );
    assert_panics("`label_smoothing` is 2, it must lie in [0, 1]", || {
        let _ = build(Criterion::new().with_label_smoothing(2.0), 0.2, device);
    });
    assert_panics("`soft_targets` is 0.5, it must lie in [0, 0.25]", || {
        let criterion = Criterion::new().with_soft_targets(0.5);
        let _ = build(criterion.with_label_smoothing(0.75), 0.2, device);
    });
    assert_panics("InfoNceConfig: `image_to_text_weight` is -1", || {
        let _ = InfoNceConfig::new()
            .with_image_to_text_weight(-1.0)
            .init(device);
    });
}
