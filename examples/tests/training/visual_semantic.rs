//! `visual-semantic` on the made-up pairs: what is frozen, the statistics of its norms, shards,
//! workers and interruptions.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use burn::train::Interrupter;
use burn_contrastive::sharded::Sharding;
use burn_contrastive_examples::data::Shard;
use burn_contrastive_examples::systems::visual_semantic::{VisualSemantic, VisualSemanticConfig};
use burn_contrastive_examples::training::config;
use burn_contrastive_examples::training::system::{Moment, System};
use burn_contrastive_examples::training::trainer::Start;

use crate::pairs::{Event, PAIRS, of_items};
use crate::run::{exclusively, from_scratch, resumed_equals_uninterrupted, together};
use crate::tensors::{Tensors, assert_close, batch, read, values};

type TrainingConfig = config::TrainingConfig<VisualSemanticConfig>;

pub fn config(pairs: &[&str]) -> TrainingConfig {
    let small = [
        "seed=3",
        "model.image.image_size=16",
        "model.image.blocks=[1,1]",
        "model.image.width=4",
        "model.text.vocabulary=32",
        "model.text.context=16",
        "model.text.words=6",
        "model.text.width=10",
        "model.embedding=8",
        "model.heads.hidden=12",
        "model.heads.output=6",
        "data.batch_size=8",
        "schedule.steps=12",
        "schedule.warmup_steps=2",
        "validation.every=4",
        "checkpoints.every=5",
    ];
    let pairs: Vec<String> = small.iter().chain(pairs).map(ToString::to_string).collect();
    TrainingConfig::load(None, &pairs).unwrap()
}

/// The settings of a base network.
pub const BASE: [&str; 4] = [
    "base=null",
    "model.heads=null",
    "objective=vse-plus-plus",
    "train_image=true",
];

fn fresh(config: &TrainingConfig) -> VisualSemantic {
    Start::fresh(config, &Device::flex()).unwrap().model
}

fn at_half(model: VisualSemantic) -> VisualSemantic {
    model.at(&Moment {
        seed: 3,
        step: 6,
        progress: 0.5,
        epochs: 0.7,
    })
}

/// What a step gives: loss, gradients, and the statistics of norms.
struct Found {
    loss: f64,
    gradients: Tensors,
    statistics: Option<TensorData>,
}

fn step(model: &VisualSemantic, shards: &[Shard], sharding: &Sharding) -> Found {
    let shards: Vec<_> = shards.iter().cloned().map(of_items).collect();
    let step = model.train_on(&shards, sharding);
    Found {
        loss: step.output.loss.into_scalar(),
        gradients: read(model, Some(&step.gradients)),
        statistics: step.carry.map(Tensor::into_data),
    }
}

#[track_caller]
fn assert_equal(found: &Found, expected: &Found) {
    assert!((found.loss - expected.loss).abs() < 1e-5 * expected.loss.abs().max(1.0));
    assert_close(&found.gradients, &expected.gradients, 1e-4);
    let statistics = |found: &Found| {
        let rows = found.statistics.iter();
        rows.map(|rows| ("rows".to_string(), rows.clone()))
            .collect()
    };
    assert_close(&statistics(found), &statistics(expected), 1e-5);
}

#[test]
fn interrupted_runs_go_on_to_the_same_bits() {
    let _lock = exclusively();
    let base = |more: &[&str]| config(&[&BASE, more].concat());
    for at in [1, 4, 8] {
        resumed_equals_uninterrupted(&base(&[]), at);
    }
    resumed_equals_uninterrupted(&base(&["train_image=false"]), 3);
    let divided = ["accumulation=2", "sharding.pairs=3"];
    resumed_equals_uninterrupted(&base(&divided), 5);
}

#[test]
fn heads_on_a_base_network_go_on_too() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    for objective in ["con-vse", "con-vse-plus-plus"] {
        let objective = format!("objective={objective}");
        let config = on_base(folder.path(), &[&objective, "sharding.pairs=3"]);
        resumed_equals_uninterrupted(&config, 4);
    }
}

/// Settings of a run on a base network that was trained for two steps in that folder.
fn on_base(folder: &Path, pairs: &[&str]) -> TrainingConfig {
    if !folder.join("checkpoints").exists() {
        let base = config(&[&BASE[..], &["schedule.steps=2", "seed=8"]].concat());
        from_scratch(&base, folder, Event::None, Interrupter::new()).unwrap();
    }
    let run = format!("base.run={}", folder.display());
    config(&[&[&run[..]], pairs].concat())
}

#[test]
fn a_run_starts_from_its_base_network_and_leaves_the_image_encoder_as_it_is() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let [base, run] = ["base", "run"].map(|name| folder.path().join(name));
    let config = on_base(&base, &[]);
    let before = values(&fresh(&config));
    let base = values(&fresh(&crate::visual_semantic::config(&BASE)));
    let image = |values: &Tensors| {
        let image = values.iter().filter(|(path, _)| path.starts_with("image."));
        image
            .map(|(path, value)| (path.clone(), value.clone()))
            .collect::<Tensors>()
    };
    // Statistics of norms included, which a new network has not.
    assert!(image(&before).len() > 20 && image(&before) != image(&base));
    let trained = from_scratch(&config, &run, Event::None, Interrupter::new()).unwrap();
    let after = values(&trained.model);
    assert!(image(&before) == image(&after));
    for path in [
        "image_head.output.weight",
        "text.words.weight",
        "image_projection.weight",
    ] {
        assert!(before[path] != after[path], "{path} was not trained");
    }
}

#[test]
fn norms_follow_the_batches_of_an_image_encoder_that_trains() {
    let _lock = exclusively();
    let model = fresh(&config(&BASE));
    let found = step(&model, &batch(0, 4), &Sharding::keep(1));
    // A row a shard: means, then variances, of the first norm's four channels.
    let rows = found.statistics.unwrap();
    assert_eq!(rows.shape()[0], 2);
    let rows: Vec<f32> = rows.iter().collect();
    let (first, second) = rows.split_at(rows.len() / 2);
    let shards: Vec<_> = batch(0, 4).into_iter().map(of_items).collect();
    let carried = model.train_on(&shards, &Sharding::keep(1)).carry;
    let after = values(&model.updated(vec![carried]));
    let mean: Vec<f32> = after["image.bn1.running_mean"].iter().collect();
    let variance: Vec<f32> = after["image.bn1.running_var"].iter().collect();
    for channel in 0..4 {
        let of = |place: usize| (first[place] + second[place]) / 2.0;
        assert!((mean[channel] - 0.1 * of(channel)).abs() < 1e-6);
        assert!((variance[channel] - 0.9 - 0.1 * of(4 + channel)).abs() < 1e-6);
    }
}

#[test]
fn a_frozen_image_encoder_takes_no_part_in_a_step() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let model = at_half(fresh(&on_base(folder.path(), &[])));
    let whole = step(&model, &batch(0, PAIRS), &Sharding::recompute());
    assert!(whole.statistics.is_none());
    let of_image = |path: &String| path.starts_with("image.");
    assert!(!whole.gradients.keys().any(of_image));
    assert!(whole.gradients.contains_key("text.words.weight"));
    // So that its norms see no batch, and shards give what the undivided batch does.
    for (pairs, sharding) in [(4, Sharding::keep(1)), (3, Sharding::recompute())] {
        assert_equal(&step(&model, &batch(0, pairs), &sharding), &whole);
    }
}

#[test]
fn shards_of_a_training_encoder_are_the_same_when_they_are_encoded_twice() {
    let _lock = exclusively();
    let model = at_half(fresh(&config(&BASE)));
    let kept = step(&model, &batch(0, 4), &Sharding::keep(1));
    assert!(kept.gradients.keys().any(|path| path.starts_with("image.")));
    assert_equal(&step(&model, &batch(0, 4), &Sharding::keep(2)), &kept);
    assert_equal(&step(&model, &batch(0, 4), &Sharding::recompute()), &kept);
}

#[test]
fn two_workers_take_the_step_of_one() {
    let _lock = exclusively();
    let model = at_half(fresh(&config(&BASE)));
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
