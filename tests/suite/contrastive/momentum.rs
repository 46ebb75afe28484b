//! Momentum features and a queue in any contrast: where they may come from, and how much a queue
//! counts.

use burn::module::Module;
use burn_contrastive::momentum::MomentumEncoderConfig;

use super::*;

on_every_backend! {
    momentum_and_teacher_features_may_be_on_the_plain_or_the_autodiff_device,
    features_of_a_momentum_encoder_are_taken_as_they_are,
    momentum_features_without_soft_targets_are_candidates_alone,
    a_queue_of_weight_0_is_no_queue_and_of_weight_1_the_plain_one,
}

/// SRCL beside a momentum encoder, as published.
fn published() -> (Criterion, f64, Inputs) {
    let (_, criterion, temperature, inputs) = pretraining().swap_remove(0);
    (criterion, temperature, inputs)
}

/// The same inputs with their momentum, teacher's and queue's features on other devices.
fn moved(context: &Context, constants: &Device) -> Context {
    let to = |x: &Tensor<2>| match (x.device().is_autodiff(), constants.is_autodiff()) {
        (true, false) => x.clone().detach().without_autodiff(),
        (false, true) => Tensor::from_inner(x.clone()),
        _ => x.clone(),
    };
    let maybe = |x: &Option<Tensor<2>>| x.as_ref().map(to);
    let mut context = context.clone();
    if let Some(momentum) = &mut context.momentum {
        *momentum = Momentum::new(to(&momentum.image), to(&momentum.text));
    }
    if let Some(teacher) = &mut context.teacher {
        *teacher = Teacher {
            image: to(&teacher.image),
            text: to(&teacher.text),
            negative_image: maybe(&teacher.negative_image),
            negative_text: maybe(&teacher.negative_text),
        };
    }
    context.negatives.image = maybe(&context.negatives.image);
    context.negatives.text = maybe(&context.negatives.text);
    context
}

/// Loss, and gradients by image and text.
fn evaluate_in(
    objective: &Contrastive,
    [image, text]: &[Tensor<2>; 2],
    context: Context,
) -> [Vec<f64>; 3] {
    let loss = objective.forward_with(image.clone(), text.clone(), context);
    let gradients = loss.backward();
    let gradient = |x: &Tensor<2>| gradient(x, &gradients);
    [elements(loss), gradient(image), gradient(text)]
}

fn momentum_and_teacher_features_may_be_on_the_plain_or_the_autodiff_device(backend: &Backend) {
    let (criterion, temperature, inputs) = published();
    let device = backend.autodiff();
    let objective = build(criterion, temperature, &device);
    let Placed { batch, context, .. } = place(&device, &inputs, DType::F32);
    let tracked = evaluate_in(&objective, &batch, context.clone());
    for constants in [&backend.device, &device] {
        let found = evaluate_in(&objective, &batch, moved(&context, constants));
        for (found, tracked) in found.iter().zip(&tracked) {
            assert_close(found, tracked, 1e-6);
        }
    }
    // A loss without gradients takes features of a model that is trained, too.
    let plain = build(criterion, temperature, &backend.device);
    let [image, text] = batch.map(|x| x.detach().without_autodiff());
    let tracked_constants = Context {
        negatives: moved(&context, &backend.device).negatives,
        ..context
    };
    let loss = elements(plain.forward_with(image, text, tracked_constants));
    assert_close(&loss, &tracked[0], 1e-6);
}

/// An encoder: one product.
#[derive(Module, Debug)]
struct Encoder {
    weight: burn::module::Param<Tensor<2>>,
}

fn features_of_a_momentum_encoder_are_taken_as_they_are(backend: &Backend) {
    let device = backend.autodiff();
    let weight = on(&device, &random(4, 4, 111), DType::F32);
    let student = Encoder {
        weight: burn::module::Param::from_tensor(weight),
    };
    let momentum = MomentumEncoderConfig::new().init(&student);
    let x = [random(5, 4, 112), random(5, 4, 113)];
    let embed = |encoder: &Encoder, x: Tensor<2>| x.matmul(encoder.weight.val());
    let batch = x
        .each_ref()
        .map(|x| embed(&student, on(&device, x, DType::F32)));
    // The copy is on the plain device, and so is what it computes.
    let [image, text] = x.each_ref().map(|x| {
        let x = on(&backend.device, x, DType::F32);
        embed(momentum.encoder(), x)
    });
    assert!(!image.device().is_autodiff());
    let objective = build(Criterion::new().with_soft_targets(0.4), 0.2, &device);
    let [a, b] = batch.clone();
    let loss = objective.forward_with(a, b, Momentum::new(image, text));
    let gradients = loss.backward();
    let inputs = Inputs {
        batch: batch
            .clone()
            .map(|x| with_values(&random(5, 4, 112), &elements(x))),
        ..Inputs::default()
    };
    // The copy has the values of its student.
    let inputs = Inputs {
        momentum: Some(inputs.batch.clone()),
        ..inputs
    };
    let criterion = Criterion::new().with_soft_targets(0.4);
    let expected = oracle_of(&criterion, 0.2).loss(&inputs, &inputs);
    assert_near(elements(loss)[0], expected, 4e-5);
    assert!(student.weight.val().grad(&gradients).is_some());
    assert!(momentum.encoder().weight.val().grad(&gradients).is_none());
}

fn momentum_features_without_soft_targets_are_candidates_alone(backend: &Backend) {
    let inputs = with_momentum(with_negatives(batch(5, 4, 114)));
    let device = backend.autodiff();
    for criterion in [
        Criterion::new(),
        DecoupledConfig::new().contrastive().criterion,
    ] {
        let found = evaluate(&device, criterion, 0.2, &inputs, DType::F32);
        assert_matches(&found, &expected(&criterion, 0.2, &inputs), 4e-5);
    }
}

fn a_queue_of_weight_0_is_no_queue_and_of_weight_1_the_plain_one(backend: &Backend) {
    let (criterion, _, with_queue) = published();
    let without_queue = Inputs {
        negatives: [None, None],
        teacher_negatives: [None, None],
        negative_ids: [None, None],
        ..with_queue.clone()
    };
    for criterion in [criterion, Criterion::new()] {
        let weighted = |weight| criterion.with_queue_weight(weight);
        let losses = |criterion, inputs| directions(backend, criterion, 0.2, inputs);
        assert_eq!(
            losses(weighted(0.0), &with_queue),
            losses(criterion, &without_queue)
        );
        assert_eq!(
            losses(weighted(1.0), &with_queue),
            losses(criterion, &with_queue)
        );
        let half = losses(weighted(0.5), &with_queue);
        let oracle = oracle_of(&weighted(0.5), 0.2).directions(&with_queue, &with_queue);
        for (found, expected) in half.iter().zip(&oracle) {
            assert_close(found, expected, 2e-5);
        }
        assert!(half != losses(criterion, &with_queue));
    }
}
