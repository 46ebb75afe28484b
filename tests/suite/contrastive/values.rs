//! Values and gradients against the oracle and other implementations.

use super::*;

on_every_backend! {
    every_objective_matches_the_oracle,
    combinations_match_the_oracle,
    similarity_regulation_with_momentum_features_and_a_queue_matches_the_oracle,
    every_preset_takes_the_whole_context,
    f64_matches_the_oracle_to_1e_8,
    matches_lightly_and_pytorch_metric_learning,
    losses_of_each_pair_and_direction_match_the_oracle,
    streaming_and_auto_evaluation_match_dense,
    gradient_checkpointing_matches_the_oracle,
    half_precision_matches_the_oracle_on_rounded_inputs,
}

on_cpu_backends! {
    block_size_does_not_change_loss_or_gradients,
}

fn assert_all_match(backend: &Backend, cases: Vec<(&'static str, Criterion, f64, Inputs)>) {
    let device = backend.autodiff();
    for (name, criterion, temperature, inputs) in cases {
        println!("{name}");
        let found = evaluate(&device, criterion, temperature, &inputs, DType::F32);
        assert_matches(&found, &expected(&criterion, temperature, &inputs), 4e-5);
    }
}

fn every_objective_matches_the_oracle(backend: &Backend) {
    assert_all_match(backend, objectives());
}

fn combinations_match_the_oracle(backend: &Backend) {
    assert_all_match(backend, combinations());
}

fn similarity_regulation_with_momentum_features_and_a_queue_matches_the_oracle(backend: &Backend) {
    assert_all_match(backend, pretraining());
}

fn every_preset_takes_the_whole_context(backend: &Backend) {
    assert_all_match(backend, in_context());
}

fn f64_matches_the_oracle_to_1e_8(backend: &Backend) {
    if !backend.has_f64() {
        return;
    }
    let device = backend.autodiff();
    for (name, criterion, temperature, inputs) in all() {
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

fn matches_lightly_and_pytorch_metric_learning(backend: &Backend) {
    let stored: serde_json::Value =
        serde_json::from_str(include_str!("../../fixtures/contrasts/contrasts.json")).unwrap();
    let list = |v: &serde_json::Value| -> Vec<f64> { serde_json::from_value(v.clone()).unwrap() };
    let device = backend.autodiff();
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
                (NtXentConfig::new().contrastive().criterion, false)
            }
            "lightly.DCLLoss" => {
                let dcl = DecoupledConfig::new().with_within_modality(true);
                (dcl.contrastive().criterion, false)
            }
            "pytorch_metric_learning.SupConLoss" => {
                let sup_con = MultiPositiveConfig::new().with_within_modality(true);
                (sup_con.contrastive().criterion, true)
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

fn losses_of_each_pair_and_direction_match_the_oracle(backend: &Backend) {
    for (name, criterion, temperature, inputs) in all() {
        println!("{name}");
        let objective = build(criterion, temperature, &backend.device);
        let placed = place(&backend.device, &inputs, DType::F32);
        let [image, text] = placed.batch;
        let directions =
            objective.forward_directions(image.clone(), text.clone(), placed.context.clone());
        let expected = oracle_of(&criterion, temperature).directions(&inputs, &inputs);
        for (found, expected) in directions.clone().into_iter().zip(&expected) {
            assert_close(&elements(found), expected, 2e-5);
        }
        let [by_image, by_text] = directions.map(elements);
        let weight = criterion.image_to_text_weight;
        let factor = f64::from(u8::from(criterion.directions == Directions::Sum) + 1);
        let joined: Vec<f64> = by_image
            .iter()
            .zip(&by_text)
            .map(|(a, b)| factor * (weight * a + (1.0 - weight) * b))
            .collect();
        let each =
            objective.forward_no_reduction(image.clone(), text.clone(), placed.context.clone());
        assert_close(&elements(each), &joined, 1e-6);
        let mean = joined.iter().sum::<f64>() / joined.len() as f64;
        let loss = elements(objective.forward_with(image, text, placed.context))[0];
        assert_near(loss, mean, 1e-5);
    }
}

fn streaming_and_auto_evaluation_match_dense(backend: &Backend) {
    let device = backend.autodiff();
    for (name, criterion, temperature, inputs) in combinations().into_iter().chain(pretraining()) {
        println!("{name}");
        let with = |evaluation| {
            let similarity = criterion.similarity.with_evaluation(evaluation);
            let criterion = criterion.with_similarity(similarity);
            evaluate(&device, criterion, temperature, &inputs, DType::F32)
        };
        compare_with_dense(with, |actual, dense| {
            assert_matches(actual, dense, 4e-5);
        });
    }
}

fn gradient_checkpointing_matches_the_oracle(backend: &Backend) {
    let device = backend.checkpointing();
    for (name, criterion, temperature, inputs) in combinations().into_iter().chain(pretraining()) {
        println!("{name}");
        let found = evaluate(&device, criterion, temperature, &inputs, DType::F32);
        assert_matches(&found, &expected(&criterion, temperature, &inputs), 4e-5);
    }
}

fn half_precision_matches_the_oracle_on_rounded_inputs(backend: &Backend) {
    for dtype in backend.half_dtypes() {
        for (name, criterion, temperature, mut inputs) in objectives() {
            println!("{name} in {dtype:?}");
            // What the inputs are after rounding to half precision.
            let round = |m: &mut Matrix| m.values = elements(backend.tensor(m, dtype));
            leaves(&mut inputs).into_iter().for_each(round);
            inputs.teacher.iter_mut().flatten().for_each(round);
            inputs.momentum.iter_mut().flatten().for_each(round);
            inputs
                .teacher_negatives
                .iter_mut()
                .flatten()
                .for_each(round);
            let device = backend.autodiff();
            let (loss, gradients) = evaluate(&device, criterion, temperature, &inputs, dtype);
            let (expected_loss, expected) = expected(&criterion, temperature, &inputs);
            // The loss is computed in f32; only the gradients are rounded on their way back.
            assert_near(loss, expected_loss, 2e-5);
            let ulp = ulp(dtype);
            let embeddings = gradients.len() - 1;
            for (gradient, expected) in gradients.iter().zip(&expected).take(embeddings) {
                assert_close(gradient, expected, 2.0 * ulp);
            }
        }
    }
}

/// Over several blocks, in a budget that holds a part of the similarities.
fn block_size_does_not_change_loss_or_gradients(backend: &Backend) {
    let device = backend.autodiff();
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
        compare_with_dense(with, |actual, dense| {
            assert_matches(actual, dense, 1e-7);
        });
    }
}
