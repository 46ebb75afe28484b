//! Shards and workers take the step of the undivided batch.

use burn_contrastive::sharded::Sharding;
use burn_contrastive_examples::data::Shard;
use burn_contrastive_examples::systems::albef::Albef;
use burn_contrastive_examples::training::system::{Moment, System};

use super::{config, fresh, with_teacher};
use crate::pairs::PAIRS;
use crate::run::{exclusively, together};
use crate::tensors::{Tensors, assert_close, batch, read};

const ALONE: [&str; 2] = ["losses.matching=false", "losses.masked_language=false"];

/// What a step gives.
struct Found {
    /// The whole, and each of the three.
    losses: [f64; 4],
    gradients: Tensors,
    /// What goes into the queue.
    carry: Tensors,
}

fn step(model: &Albef, shards: &[Shard], sharding: &Sharding) -> Found {
    let step = model.train_on(shards, sharding);
    let losses = step.output.losses.into_iter().chain([step.output.loss]);
    let losses: Vec<f64> = losses.map(|loss| loss.into_scalar()).collect();
    let carry = step.carry;
    let carry = [
        ("image", Some(carry.image)),
        ("text", Some(carry.text)),
        ("ids", carry.ids.map(|ids| ids.float().unsqueeze())),
        ("teacher_image", carry.teacher_image),
        ("teacher_text", carry.teacher_text),
    ];
    let carry = carry.into_iter().filter_map(|(name, features)| {
        let features = features?;
        Some((name.to_string(), features.into_data()))
    });
    Found {
        losses: losses.try_into().unwrap(),
        gradients: read(model, Some(&step.gradients)),
        carry: carry.collect(),
    }
}

#[track_caller]
fn assert_equal(found: &Found, expected: &Found) {
    for (found, expected) in found.losses.iter().zip(expected.losses) {
        assert!((found - expected).abs() < 1e-5, "{found}, {expected}");
    }
    assert_close(&found.gradients, &expected.gradients, 1e-4);
    assert_close(&found.carry, &expected.carry, 1e-5);
}

fn at_half(model: Albef) -> Albef {
    model.at(&Moment {
        seed: 3,
        step: 6,
        progress: 0.5,
        epochs: 0.7,
    })
}

#[test]
fn the_contrast_of_shards_is_that_of_the_undivided_batch() {
    let _lock = exclusively();
    let (srcl, _teacher) = with_teacher(&ALONE);
    for config in [config(&ALONE), srcl] {
        let model = at_half(fresh(&config).model);
        let whole = step(&model, &batch(0, PAIRS), &Sharding::recompute());
        assert_eq!(whole.losses[1..3], [0.0; 2]);
        for (pairs, sharding) in [
            (4, Sharding::keep(1)),
            (3, Sharding::keep(2)),
            (3, Sharding::recompute()),
        ] {
            assert_equal(&step(&model, &batch(0, pairs), &sharding), &whole);
        }
    }
}

/// Hard negatives are those of a shard, and each shard draws for itself.
#[test]
fn matching_and_hidden_words_are_the_mean_of_the_shards() {
    let _lock = exclusively();
    let model = at_half(fresh(&config(&[])).model);
    // Of five and of three pairs.
    let shards = batch(0, 5);
    let each: Vec<_> = shards
        .iter()
        .map(|shard| {
            let shard = std::slice::from_ref(shard);
            step(&model, shard, &Sharding::recompute()).losses
        })
        .collect();
    let both = step(&model, &shards, &Sharding::keep(2));
    for loss in [1, 2] {
        assert!((each[0][loss] - each[1][loss]).abs() > 1e-4, "{each:?}");
        let mean = each[0][loss] * 5.0 / 8.0 + each[1][loss] * 3.0 / 8.0;
        let found = both.losses[loss];
        assert!((found - mean).abs() < 1e-5, "{found}, {mean}");
    }
    let [contrast, matching, words, whole] = both.losses;
    assert!((whole - contrast - matching - words).abs() < 1e-5);
    assert_equal(&step(&model, &shards, &Sharding::recompute()), &both);
}

#[test]
fn two_workers_take_the_step_of_one() {
    let _lock = exclusively();
    let (srcl, _teacher) = with_teacher(&[]);
    for config in [config(&["losses.ids=image"]), srcl] {
        let model = at_half(fresh(&config).model);
        let shards = batch(0, 4);
        let one = step(&model, &shards, &Sharding::recompute());
        let found = together(2, |workers| {
            let own = &shards[workers.rank()..][..1];
            step(&model, own, &Sharding::recompute().with_workers(workers))
        });
        for found in found {
            assert_equal(&found, &one);
        }
    }
}
