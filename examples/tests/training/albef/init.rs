//! Models that start from the weights of another run.

use std::collections::BTreeMap;

use burn::tensor::{Device, TensorData};
use burn::train::Interrupter;
use burn_contrastive::sharded::Sharding;
use burn_contrastive_examples::systems::albef::Albef;
use burn_contrastive_examples::training::system::System;
use burn_contrastive_examples::training::weights::InitSource;
use tempfile::TempDir;

use super::{TrainingConfig, batch, config, fresh, values};
use crate::pairs::{Event, PAIRS};
use crate::run::{exclusively, from_scratch};

/// A run of three steps, and what it left.
fn earlier() -> (Albef, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["schedule.steps=3"]);
    let trained = from_scratch(&config, folder.path(), Event::None, Interrupter::new());
    (trained.unwrap().model, folder)
}

/// What starts from it, of other random numbers.
fn started(run: &TempDir, path: Option<&str>, pairs: &[&str]) -> (Albef, TrainingConfig) {
    let mut config = config(&[&["seed=21"], pairs].concat());
    let source = InitSource {
        path: path.map(str::to_string),
        ..InitSource::all_of(run.path().to_path_buf())
    };
    config.shared.init = Some(source.into());
    (fresh(&config).model, config)
}

/// The parameters below a path.
fn below(model: &Albef, prefix: &str) -> BTreeMap<String, TensorData> {
    let all = values(model).into_iter();
    let below = all.filter_map(|(path, data)| Some((path.strip_prefix(prefix)?.to_string(), data)));
    below.collect()
}

#[test]
fn all_that_is_learned_is_taken_over_and_what_is_carried_is_not() {
    let _lock = exclusively();
    let (earlier, run) = earlier();
    let (model, config) = started(&run, None, &[]);
    for part in ["model.", "matching_head.", "objective."] {
        assert_eq!(below(&model, part), below(&earlier, part), "{part}");
    }
    // The copy begins as the model does, not as the earlier copy ended.
    assert_eq!(below(&model, "momentum.encoder."), below(&model, "model."));
    assert_ne!(below(&model, "momentum."), below(&earlier, "momentum."));
    assert_ne!(below(&model, "queue."), below(&earlier, "queue."));

    let mut anew = config;
    anew.shared.init = None;
    assert_ne!(
        below(&fresh(&anew).model, "model."),
        below(&model, "model.")
    );
}

#[test]
fn one_module_is_taken_over_and_the_rest_is_new() {
    let _lock = exclusively();
    let (earlier, run) = earlier();
    let (model, mut config) = started(&run, Some("model.image"), &[]);
    config.shared.init = None;
    let new = fresh(&config).model;
    assert_eq!(
        below(&model, "model.image."),
        below(&earlier, "model.image.")
    );
    for part in ["model.bert.", "model.image_projection.", "matching_head."] {
        assert_eq!(below(&model, part), below(&new, part), "{part}");
    }
    assert_eq!(below(&model, "momentum.encoder."), below(&model, "model."));
}

#[test]
fn images_of_another_size_get_positions_between_the_old_ones() {
    let _lock = exclusively();
    let (earlier, run) = earlier();
    let (model, _) = started(&run, None, &["model.image.image_size=24"]);
    let resized = earlier.model.image.clone().resized(24);
    assert_eq!(below(&model, "model.image."), values(&resized));
    assert_eq!(below(&model, "model.bert."), below(&earlier, "model.bert."));

    let mut shards = batch(0, PAIRS);
    for shard in &mut shards {
        shard.transform.size = 24;
        for pair in &mut shard.items {
            pair.pixels = vec![7; 3 * 24 * 24];
        }
    }
    let step = model.train_on(&shards, &Sharding::recompute());
    assert!(step.output.loss.into_scalar::<f32>().is_finite());
    assert_eq!(Device::flex().autodiff(), model.device());
}
