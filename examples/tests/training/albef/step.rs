//! What happens in a step, and in which order.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::Interrupter;
use burn_contrastive::momentum::MomentumEncoderConfig;
use burn_contrastive::schedule::Settings;
use burn_contrastive::sharded::Sharding;
use burn_contrastive_examples::data::{Shard, SpecialTokens};
use burn_contrastive_examples::systems::albef::{Albef, AlbefModel, Encoded, Rows};
use burn_contrastive_examples::training::checkpoint::{Cursor, State};
use burn_contrastive_examples::training::system::{Moment, System};
use burn_contrastive_examples::training::trainer::{Start, Trained};

use super::{
    QUEUE, TrainingConfig, assert_close, batch, config, fresh, read, values, with_teacher,
};
use crate::pairs::{BATCHES, Event, PAIRS, Page};
use crate::run::{bits, exclusively, go_on};

/// One step after that many others, at that place in the data, of a run of that many steps.
fn one_step(config: &TrainingConfig, model: Albef, step: usize, cursor: Cursor) -> Trained<Albef> {
    let mut config = config.clone();
    config.shared.schedule.steps = step + 1;
    let start = Start {
        model,
        optimizer: config.shared.optimizer.init(),
        checkpoint: None,
        state: State {
            step,
            cursor,
            ..State::default()
        },
    };
    let folder = tempfile::tempdir().unwrap();
    let (interrupter, page) = (Interrupter::new(), Page::default());
    go_on(
        &config,
        folder.path(),
        start,
        Event::None,
        interrupter,
        page,
    )
    .unwrap()
}

/// What a model makes of a shard, on a device.
fn encode(model: &AlbefModel, shard: &Shard, device: &Device) -> Encoded {
    let batch = shard.to_batch(device);
    model.encode(batch.images, batch.tokens, batch.padding)
}

fn ids() -> Tensor<1, Int> {
    Tensor::arange(0..PAIRS as i64, &Device::flex())
}

/// The rows of a batch of one shard.
fn rows(model: &Albef, encoded: &Encoded, shard: &Shard) -> Rows {
    let plain = Device::flex();
    let both = |model: &AlbefModel| {
        let encoded = encode(model, shard, &plain);
        [encoded.image, encoded.text]
    };
    Rows {
        image: encoded.image.clone(),
        text: encoded.text.clone(),
        momentum: both(model.momentum.encoder()),
        ids: ids(),
        teacher: model.teacher.as_ref().map(both),
    }
}

/// The largest difference.
fn apart(a: &Tensor<2>, b: &Tensor<2>) -> f32 {
    (a.clone() - b.clone()).abs().max().into_scalar()
}

/// A model whose momentum copy is another model's, and SRCL's settings for one step that carries
/// the temperature far out of its range.
fn far_from_its_copy() -> (TrainingConfig, Albef) {
    let group = r#"optimizer.groups=[{"paths": "log_scale", "learning_rate": 10}]"#;
    let (config, _teacher) = with_teacher(&["schedule.warmup_steps=0", "sharding.mode=off", group]);
    let mut model = fresh(&config).model;
    let other = fresh(&super::config(&["seed=9"])).model;
    let momentum = MomentumEncoderConfig::new().with_momentum(0.9);
    model.momentum = momentum.init(&other.model);
    (config, model)
}

#[test]
fn the_queue_takes_what_the_copy_and_the_teacher_saw_before_the_step() {
    let _lock = exclusively();
    let (config, before) = far_from_its_copy();
    let after = one_step(&config, before.clone(), 0, Cursor::default()).model;
    let shard = &batch(0, PAIRS)[0];
    let seen = rows(
        &before,
        &encode(&before.model.valid(), shard, &Device::flex()),
        shard,
    );
    let [old, new] = [&before, &after].map(|model| model.queue.features().unwrap());
    let [teacher_image, teacher_text] = seen.teacher.unwrap();
    let [image, text] = seen.momentum;
    for (seen, old, new) in [
        (&image, Some(&old.image), Some(&new.image)),
        (&text, Some(&old.text), Some(&new.text)),
        (
            &teacher_image,
            old.teacher_image.as_ref(),
            new.teacher_image.as_ref(),
        ),
        (
            &teacher_text,
            old.teacher_text.as_ref(),
            new.teacher_text.as_ref(),
        ),
    ] {
        let (old, new) = (old.unwrap(), new.unwrap());
        assert_eq!(new.dims()[0], QUEUE);
        assert!(apart(seen, &new.clone().slice(0..PAIRS)) < 1e-6);
        let rest = |queue: &Tensor<2>| queue.clone().slice(PAIRS..QUEUE);
        assert_eq!(apart(&rest(old), &rest(new)), 0.0);
    }
    // Not of the copy as the step left it, nor of the student.
    let later = rows(&after, &encode(&after.model, shard, &Device::flex()), shard);
    assert!(apart(&image, &later.momentum[0]) > 1e-3);
    assert!(apart(&image, &seen.image) > 1e-3);
    let ids = |queue: Tensor<1, Int>| queue.into_data().iter::<i32>().collect::<Vec<_>>();
    let expected: Vec<i32> = (0..PAIRS as i32).chain(vec![-1; QUEUE - PAIRS]).collect();
    assert_eq!(ids(new.ids.unwrap()), expected);
}

#[test]
fn after_the_optimiser_the_temperature_is_clamped_and_the_copy_follows() {
    let _lock = exclusively();
    let (config, before) = far_from_its_copy();
    let mut after = one_step(&config, before.clone(), 0, Cursor::default()).model;

    let scale = after.objective.logit_scales()[0].log_scale.val();
    let scale: f64 = scale.into_scalar();
    let bounds = [2f64.ln(), 1000f64.ln()];
    assert!(
        bounds.iter().any(|bound| (scale - bound).abs() < 1e-5),
        "a step of 10 ends at {scale}"
    );

    let (old, new) = (values(before.momentum.encoder()), values(&after.model));
    let average = old.iter().map(|(path, old)| {
        let pairs = old.iter::<f32>().zip(new[path].iter::<f32>());
        let values: Vec<f32> = pairs.map(|(old, new)| 0.9 * old + 0.1 * new).collect();
        (path.clone(), TensorData::new(values, old.shape().clone()))
    });
    let found = values(after.momentum.encoder());
    assert_close(&found, &average.collect(), 1e-6);
    // The student is another than before: a copy that followed it too early would be apart.
    let [before_it, after_it] = [&before, &after].map(|model| bits(&model.model));
    assert!(before_it != after_it);
    assert!(bits(&before.teacher) == bits(&after.teacher));
}

#[test]
fn gradients_are_those_of_the_student_its_heads_and_the_temperature() {
    let _lock = exclusively();
    let (srcl, _teacher) = with_teacher(&[]);
    for config in [config(&[]), srcl] {
        let start = fresh(&config);
        let step = start
            .model
            .train_on(&batch(0, PAIRS), &Sharding::recompute());
        let found = read(&start.model, Some(&step.gradients));
        let trained = |path: &&String| {
            let part = path.split('.').next().unwrap();
            ["model", "matching_head", "objective"].contains(&part)
        };
        let all = values(&start.model);
        let expected: Vec<_> = all.keys().filter(trained).collect();
        assert_eq!(found.keys().collect::<Vec<_>>(), expected);
        // The copy is of what stands under `model`, and of nothing else.
        let below = |prefix: &'static str| {
            let paths = all.keys().filter_map(move |path| path.strip_prefix(prefix));
            paths.collect::<Vec<_>>()
        };
        assert_eq!(below("momentum."), {
            let paths = below("model.").into_iter();
            paths
                .map(|path| format!("encoder.{path}"))
                .collect::<Vec<_>>()
        });
        let needs = start
            .model
            .teacher
            .iter()
            .flat_map(|teacher| teacher.devices());
        assert!(needs.into_iter().all(|device| !device.is_autodiff()));
    }
}

/// The losses of a step are those whose parity with PyTorch `tests/models` checks.
#[test]
fn a_step_is_the_sum_of_its_losses() {
    let _lock = exclusively();
    let (config, _teacher) = with_teacher(&[]);
    let model = fresh(&config).model.at(&Moment {
        seed: 3,
        step: 4,
        progress: 0.5,
        epochs: 0.8,
    });
    let shard = &batch(0, PAIRS)[0];
    let step = model.train_on(std::slice::from_ref(shard), &Sharding::recompute());

    let device = Device::flex().autodiff();
    let batch = shard.to_batch(&device);
    let encoded = encode(&model.model, shard, &device);
    let momentum = encode(model.momentum.encoder(), shard, &Device::flex());
    let draw = model.draw(shard);
    let pairs = model.draw_pairs(&encoded, &momentum, ids(), draw);
    let masked = model
        .hide_words(batch.tokens, &shard.padding, draw)
        .unwrap();
    assert!(!masked.positions.is_empty());
    let losses = [
        model.contrast(&rows(&model, &encoded, shard)),
        model.match_pairs(&encoded, batch.padding.clone(), &pairs),
        model.predict_words(batch.padding, &encoded, &momentum, &masked),
    ];
    for (found, expected) in step.output.losses.iter().zip(&losses) {
        let [found, expected] = [found, expected].map(|x| x.clone().into_scalar::<f32>());
        assert!((found - expected).abs() < 1e-5, "{found}, {expected}");
    }
    let total = losses.into_iter().reduce(|sum, loss| sum + loss).unwrap();
    let loss: f32 = step.output.loss.into_scalar();
    assert!((loss - total.clone().into_scalar::<f32>()).abs() < 1e-5);
    let by_hand = GradientsParams::from_grads(total.backward(), &model);
    let [found, by_hand] = [&step.gradients, &by_hand].map(|all| read(&model, Some(all)));
    assert_close(&found, &by_hand, 1e-5);
}

#[test]
fn soft_targets_and_the_queue_rise_and_the_teachers_share_falls_as_training_goes_on() {
    let _lock = exclusively();
    let ramp = [
        "momentum.ramp_epochs=2",
        "momentum.queue_ramp_epochs=4",
        "sharding.mode=off",
    ];
    let (config, _teacher) = with_teacher(&ramp);
    let model = fresh(&config).model;
    let plain = model.valid();
    for (step, epoch, place, share, queue) in [
        (0, 0, 0, 0.0, 0.0),
        (3, 0, 3, 0.4 * 0.3, 0.15),
        (5, 1, 0, 0.4 * 0.5, 0.25),
        (9, 4, 1, 0.4, 1.0),
    ] {
        let cursor = Cursor {
            epoch,
            batch: place,
        };
        let trained = one_step(&config, model.clone(), step, cursor);
        let found = trained.history.steps[0].losses[0];
        let shard = &batch(epoch * BATCHES + place, PAIRS)[0];
        let contrast = |alpha: f64, soft_targets: f64, queue: f64| {
            let mut model = plain.clone();
            model.objective = model.objective.with_settings(&Settings {
                alpha: Some(alpha),
                soft_targets: Some(soft_targets),
                queue_weight: Some(queue),
                ..Settings::default()
            });
            let encoded = encode(&model.model, shard, &Device::flex());
            let rows = rows(&model, &encoded, shard);
            model.contrast(&rows).into_scalar::<f64>()
        };
        let alpha = 1.0 - step as f64 / (step + 1) as f64;
        let expected = contrast(alpha, share, queue);
        assert!(
            (found - expected).abs() < 1e-5,
            "step {step}: {found}, {expected}"
        );
        for other in [
            contrast(alpha - 0.09, share, queue),
            contrast(alpha, share + 0.05, queue),
            contrast(alpha, share, (queue - 0.1f64).abs()),
        ] {
            assert!((found - other).abs() > 1e-4, "{found} says nothing");
        }
    }
}

#[test]
fn the_copys_predictions_count_as_far_as_the_ramp_is() {
    let _lock = exclusively();
    let model = fresh(&config(&[])).model;
    let other = fresh(&config(&["seed=9"])).model;
    let mut model = model;
    model.momentum = MomentumEncoderConfig::new().init(&other.model);
    let words = |epochs| {
        let moment = Moment {
            epochs,
            ..Moment::default()
        };
        let model = model.clone().at(&moment);
        let step = model.train_on(&batch(0, PAIRS), &Sharding::recompute());
        step.output.losses[2].clone().into_scalar::<f32>()
    };
    let (none, half, whole) = (words(0.0), words(0.5), words(1.0));
    assert!((none - whole).abs() > 1e-4);
    assert!((half - (none + whole) / 2.0).abs() < 1e-5);
    assert_eq!(words(7.0), whole);
}

#[test]
fn what_a_shard_draws_is_its_own_and_the_steps() {
    let _lock = exclusively();
    let model = fresh(&config(&[])).model;
    let draw = |seed, step, shard: usize| {
        let moment = Moment {
            seed,
            step,
            ..Moment::default()
        };
        model.clone().at(&moment).draw(&batch(0, 4)[shard])
    };
    let first = draw(1, 2, 0);
    assert_eq!(first, draw(1, 2, 0));
    for other in [draw(2, 2, 0), draw(1, 3, 0), draw(1, 2, 1)] {
        assert_ne!(first, other);
    }
}

#[test]
fn a_tokenizer_without_a_mask_hides_no_word() {
    let _lock = exclusively();
    let model = fresh(&config(&[])).model;
    let mut shards = batch(0, PAIRS);
    shards[0].padding.specials = SpecialTokens::default();
    let step = model.train_on(&shards, &Sharding::recompute());
    let [contrast, matching, words] = [0, 1, 2].map(|k| {
        let loss = step.output.losses[k].clone();
        loss.into_scalar::<f32>()
    });
    assert_eq!(words, 0.0);
    let total = step.output.loss.into_scalar::<f32>();
    assert!((total - contrast - matching).abs() < 1e-5);
}
