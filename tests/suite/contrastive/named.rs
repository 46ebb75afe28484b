//! Contrasts by name, and what changes during training: against the oracle.

use burn::module::{Module, Param};
use burn::store::ModuleRecord;
use burn_contrastive::objective::{Features, Input, Objective, ObjectiveConfig, WeightedSum};
use burn_contrastive::schedule::{Ramp, Schedule, Settings};

use super::*;

on_every_backend! {
    srcl_by_name_with_a_queue_needs_its_teacher_features_and_matches_the_oracle,
    srcl_as_published_by_name_matches_the_oracle,
    info_cmr_by_name_takes_hard_negatives_where_they_are_given,
    delta_and_differentiable_by_name_match_the_oracle,
    one_alpha_changes_presets_recombined_contrasts_sums_and_objectives_by_name,
    soft_targets_and_queue_weight_change_by_settings,
    an_objective_by_name_follows_its_schedules,
    a_saved_and_loaded_objective_has_the_same_loss_at_the_same_progress,
    a_value_given_by_name_is_not_overridden_by_a_default_schedule,
    no_schedule_by_name_survives_json,
}

const TEMPERATURE: f64 = 0.2;

fn named(json: &str) -> ObjectiveConfig {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

/// The placed inputs as objectives by name take them.
fn features(placed: &Placed) -> Features {
    let [image, text] = placed.batch.clone();
    let Context {
        momentum,
        negatives,
        teacher,
        ids,
    } = placed.context.clone();
    let (momentum_image, momentum_text) = momentum.map(|m| (m.image, m.text)).unzip();
    let mut features = Features {
        momentum_image,
        momentum_text,
        queue_image: negatives.image,
        queue_text: negatives.text,
        noise: negatives.noise,
        hard_image: negatives.hard_image,
        hard_text: negatives.hard_text,
        ..Features::new(image, text)
    };
    if let Some(teacher) = teacher {
        features.teacher_image = Some(teacher.image);
        features.teacher_text = Some(teacher.text);
        features.queue_teacher_image = teacher.negative_image;
        features.queue_teacher_text = teacher.negative_text;
    }
    if let Some(ids) = ids {
        features.label = Some(ids.batch);
        features.queue_image_label = ids.negative_image;
        features.queue_text_label = ids.negative_text;
    }
    features
}

/// The objective's loss, and its gradients by image and text, against those of the criterion.
#[track_caller]
fn assert_equals(backend: &Backend, objective: Objective, criterion: &Criterion, inputs: &Inputs) {
    let placed = place(&backend.autodiff(), inputs, DType::F32);
    let loss = objective.forward(&features(&placed));
    let gradients = loss.backward();
    let (expected_loss, expected) = expected(criterion, TEMPERATURE, inputs);
    assert_near(elements(loss)[0], expected_loss, 4e-5);
    for (x, expected) in placed.batch.iter().zip(&expected) {
        assert_close(&gradient(x, &gradients), expected, 4e-5);
    }
}

fn regulated(alpha: f64) -> Criterion {
    let regulation = SimilarityRegulation::new().with_alpha(alpha);
    let srcl = SrclConfig::new().with_regulation(regulation);
    srcl.contrastive().criterion
}

fn srcl_by_name_with_a_queue_needs_its_teacher_features_and_matches_the_oracle(backend: &Backend) {
    let inputs = with_teacher(with_negatives(batch(5, 4, 120)), 3);
    let config = named(r#"{"objective": "srcl", "queue": true, "alpha": 0.5, "temperature": 0.2}"#);
    for input in [
        Input::QueueImage,
        Input::QueueText,
        Input::QueueTeacherImage,
    ] {
        assert!(config.needs().contains(&input), "{input}");
    }
    let placed = place(&backend.device, &inputs, DType::F32);
    let untaught = Features {
        queue_teacher_text: None,
        ..features(&placed)
    };
    let error = config.check_features(&untaught).unwrap_err();
    assert_eq!(error, "srcl needs `queue_teacher_text`, or `alpha` = 0");
    config.check_features(&features(&placed)).unwrap();
    let objective = config.init(&backend.autodiff());
    assert_equals(backend, objective, &regulated(0.5), &inputs);
    // A queue that was not chosen is not used.
    let without = named(r#"{"objective": "srcl", "alpha": 0.5, "temperature": 0.2}"#);
    let plain = Inputs {
        negatives: [None, None],
        ..inputs.clone()
    };
    let expected = oracle_of(&regulated(0.5), TEMPERATURE).loss(&plain, &plain);
    let loss = without.init(&backend.device).forward(&features(&placed));
    assert_near(elements(loss)[0], expected, 4e-5);
}

fn srcl_as_published_by_name_matches_the_oracle(backend: &Backend) {
    let (_, criterion, temperature, inputs) = pretraining().swap_remove(0);
    assert_eq!(temperature, TEMPERATURE);
    let config = named(
        r#"{"objective": "srcl", "alpha": 0.5, "weight_temperature": 0.4, "temperature": 0.2,
            "queue": true, "momentum": true, "soft_targets": 0.4, "same_id": "positive"}"#,
    );
    assert_equals(
        backend,
        config.init(&backend.autodiff()),
        &criterion,
        &inputs,
    );
}

fn info_cmr_by_name_takes_hard_negatives_where_they_are_given(backend: &Backend) {
    let config = named(r#"{"objective": "info-cmr", "temperature": 0.2}"#);
    assert_eq!(config.needs(), [Input::Noise]);
    let criterion = InfoCmrConfig::new().contrastive().criterion;
    let with = with_hard_and_noise(batch(5, 4, 122));
    let without = Inputs {
        hard: [None, None],
        ..with.clone()
    };
    for inputs in [&with, &without] {
        let objective = config.init(&backend.autodiff());
        assert_equals(backend, objective, &criterion, inputs);
    }
}

fn delta_and_differentiable_by_name_match_the_oracle(backend: &Backend) {
    let inputs = with_teacher(batch(5, 4, 124), 3);
    let mut gradients = Vec::new();
    for differentiable in [false, true] {
        let config = named(&format!(
            r#"{{"objective": "srcl", "alpha": 0.4, "temperature": 0.2, "delta": 2,
                "differentiable": {differentiable}}}"#
        ));
        let regulation = SimilarityRegulation::new()
            .with_alpha(0.4)
            .with_norm(Norm::Softmax { delta: 2.0 })
            .with_differentiable(differentiable);
        let criterion = SrclConfig::new().with_regulation(regulation);
        let criterion = criterion.contrastive().criterion;
        let objective = config.init(&backend.autodiff());
        assert_equals(backend, objective.clone(), &criterion, &inputs);
        let placed = place(&backend.autodiff(), &inputs, DType::F32);
        let found = objective.forward(&features(&placed)).backward();
        gradients.push(gradient(&placed.batch[0], &found));
    }
    let difference = |(a, b): (&f64, &f64)| (a - b).abs();
    let largest = gradients[0].iter().zip(&gradients[1]).map(difference);
    assert!(largest.fold(0.0, f64::max) > 1e-3, "{gradients:?}");
}

fn one_alpha_changes_presets_recombined_contrasts_sums_and_objectives_by_name(backend: &Backend) {
    let inputs = with_teacher(batch(5, 4, 126), 3);
    let device = &backend.device;
    let placed = place(device, &inputs, DType::F32);
    let oracle = |alpha| oracle_of(&regulated(alpha), TEMPERATURE).loss(&inputs, &inputs);
    let srcl = SrclConfig::new().with_logit_scale(scale(TEMPERATURE));
    let by_name = named(r#"{"objective": "srcl", "temperature": 0.2}"#);
    let sum = named(
        r#"{"objective": "sum", "terms": [{"objective": "srcl", "temperature": 0.2},
            {"objective": "con-vse", "temperature": 0.2, "weight": 0.5}]}"#,
    );
    let con_vse = ConVseConfig::new().contrastive().criterion;
    let con_vse = oracle_of(&con_vse, TEMPERATURE).loss(&inputs, &inputs);
    for alpha in [0.0, 0.3, 1.0] {
        let settings = Settings {
            alpha: Some(alpha),
            ..Settings::default()
        };
        let contrast = |objective: Contrastive| {
            let [image, text] = placed.batch.clone();
            let objective = objective.with_settings(&settings);
            elements(objective.forward_with(image, text, placed.context.clone()))[0]
        };
        let loss = |objective: Objective| {
            elements(
                objective
                    .with_settings(&settings)
                    .forward(&features(&placed)),
            )[0]
        };
        assert_near(contrast(srcl.init(device)), oracle(alpha), 4e-5);
        let recombined = build(regulated(0.9), TEMPERATURE, device);
        assert_near(contrast(recombined), oracle(alpha), 4e-5);
        assert_near(loss(by_name.init(device)), oracle(alpha), 4e-5);
        assert_near(loss(sum.init(device)), oracle(alpha) + 0.5 * con_vse, 4e-5);
        let doubled = WeightedSum::new([(2.0, by_name.init(device))]);
        let doubled = doubled.with_settings(&settings).forward(&features(&placed));
        assert_near(elements(doubled)[0], 2.0 * oracle(alpha), 4e-5);
    }
    // What is not given stays.
    let unchanged = by_name.init(device).with_settings(&Settings::default());
    assert_near(
        elements(unchanged.forward(&features(&placed)))[0],
        oracle(1.0),
        4e-5,
    );
    assert_panics("`alpha` is 1.5, it must lie in [0, 1]", || {
        let settings = Settings {
            alpha: Some(1.5),
            ..Settings::default()
        };
        let _ = by_name.init(device).with_settings(&settings);
    });
}

fn soft_targets_and_queue_weight_change_by_settings(backend: &Backend) {
    let inputs = with_momentum(with_negatives(batch(5, 4, 128)));
    let config = named(r#"{"objective": "image-text-contrastive", "temperature": 0.2}"#);
    let criterion = ImageTextContrastiveConfig::new().contrastive().criterion;
    let device = &backend.autodiff();
    assert_equals(backend, config.init(device), &criterion, &inputs);
    for (soft_targets, queue_weight) in [(0.0, 0.5), (0.8, 1.0), (0.3, 0.0)] {
        let settings = Settings {
            soft_targets: Some(soft_targets),
            queue_weight: Some(queue_weight),
            ..Settings::default()
        };
        let changed = criterion
            .with_soft_targets(soft_targets)
            .with_queue_weight(queue_weight);
        let objective = config.init(device).with_settings(&settings);
        assert_equals(backend, objective, &changed, &inputs);
    }
}

fn an_objective_by_name_follows_its_schedules(backend: &Backend) {
    let inputs = with_teacher(batch(5, 4, 130), 3);
    let placed = place(&backend.device, &inputs, DType::F32);
    let oracle = |alpha| oracle_of(&regulated(alpha), TEMPERATURE).loss(&inputs, &inputs);
    let cosine = Schedule::new(0.8, 0.2)
        .with_end(0.5)
        .with_ramp(Ramp::Cosine);
    for (json, schedule) in [
        // SRCL's own, from 1 to 0.
        (
            r#"{"objective": "srcl", "temperature": 0.2}"#,
            Schedule::new(1.0, 0.0),
        ),
        (
            r#"{"objective": "srcl", "temperature": 0.2,
                "schedule": {"alpha": {"from": 0.8, "to": 0.2, "end": 0.5, "ramp": "cosine"}}}"#,
            cosine,
        ),
    ] {
        let config = named(json);
        let sum = format!(r#"{{"objective": "sum", "terms": [{json}], "weight": 3}}"#);
        let sum = named(&sum).init(&backend.device);
        let mut objective = config.init(&backend.device);
        for progress in [0.0, 0.3, 0.5, 1.0, 0.25] {
            objective = objective.at(progress);
            let loss = elements(objective.forward(&features(&placed)))[0];
            assert_near(loss, oracle(schedule.at(progress)), 4e-5);
            let sum = sum.clone().at(progress).forward(&features(&placed));
            assert_near(elements(sum)[0], 3.0 * loss, 4e-5);
        }
    }
}

fn a_saved_and_loaded_objective_has_the_same_loss_at_the_same_progress(backend: &Backend) {
    let inputs = with_teacher(batch(5, 4, 132), 3);
    let placed = place(&backend.device, &inputs, DType::F32);
    let config = named(
        r#"{"objective": "sum", "terms": [{"objective": "srcl"},
            {"objective": "vse-plus-plus", "weight": 0.5}]}"#,
    );
    let loss = |objective: &Objective| elements(objective.forward(&features(&placed)))[0];
    let mut trained = config.init(&backend.device);
    let moved = Tensor::<1>::from_data([1.3], &backend.device);
    trained.logit_scales()[0].log_scale = Param::from_tensor(moved);
    let at_first = loss(&trained);
    let trained = trained.at(0.3);
    let bytes = trained.clone().into_record().into_bytes().unwrap();
    let record = ModuleRecord::from_bytes(bytes).unwrap();
    let loaded = config
        .init(&backend.device)
        .try_load_record(record)
        .unwrap();
    let resumed = loaded.at(0.3);
    assert_eq!(loss(&resumed), loss(&trained));
    assert!((loss(&resumed) - at_first).abs() > 1e-3);
    // Also later, where the schedules go on.
    assert_eq!(loss(&resumed.at(0.8)), loss(&trained.at(0.8)));
}

fn a_value_given_by_name_is_not_overridden_by_a_default_schedule(backend: &Backend) {
    let inputs = batch(5, 4, 134);
    let placed = place(&backend.device, &inputs, DType::F32);
    // Weights of the model alone, throughout: no teacher is needed.
    let config = named(r#"{"objective": "srcl", "alpha": 0, "temperature": 0.2}"#);
    assert_eq!(config.needs(), []);
    let objective = config.init(&backend.device).at(0.0);
    let loss = elements(objective.forward(&features(&placed)))[0];
    assert_near(
        loss,
        oracle_of(&regulated(0.0), TEMPERATURE).loss(&inputs, &inputs),
        4e-5,
    );
}

fn no_schedule_by_name_survives_json(_: &Backend) {
    let config = named(r#"{"objective": "srcl", "alpha": 0.3, "schedule": {}}"#);
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(named(&json), config);
}
