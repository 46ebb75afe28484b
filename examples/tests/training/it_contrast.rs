//! `it-contrast` on regions of the made-up pairs: interrupted runs go on to the same numbers, with
//! the noise and the hard negatives of their steps.

use burn_contrastive_examples::systems::it_contrast::ItContrastConfig;
use burn_contrastive_examples::training::config;

use crate::run::{exclusively, resumed_equals_uninterrupted};

type TrainingConfig = config::TrainingConfig<ItContrastConfig>;

pub fn config(pairs: &[&str]) -> TrainingConfig {
    let small = [
        "seed=3",
        "model.feature=3",
        "model.bert.vocabulary=32",
        "model.bert.context=16",
        "model.bert.width=8",
        "model.bert.heads=2",
        "model.bert.layers=1",
        "model.bert.intermediate=16",
        "tokens=16",
        "negatives.clusters=2",
        "negatives.noise=5",
        "regions.tower.model.embedding=3",
        "data.batch_size=8",
        "schedule.steps=12",
        "schedule.warmup_steps=2",
        "validation.every=4",
        "checkpoints.every=5",
    ];
    let pairs: Vec<String> = small.iter().chain(pairs).map(ToString::to_string).collect();
    TrainingConfig::load(None, &pairs).unwrap()
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bits() {
    let _lock = exclusively();
    for at in [1, 4, 8] {
        resumed_equals_uninterrupted(&config(&[]), at);
    }
}

#[test]
fn shards_accumulation_and_dropout_change_nothing_about_that() {
    let _lock = exclusively();
    let settings = [
        "accumulation=2",
        "sharding.pairs=3",
        "model.bert.dropout=0.2",
        "ids=meaning",
        "negatives.per_anchor=true",
    ];
    resumed_equals_uninterrupted(&config(&settings), 5);
}

#[test]
fn other_losses_go_on_too() {
    let _lock = exclusively();
    let alone = ["synthesis=false", "noise=false"];
    // A learned temperature is saved with the model.
    for more in ["objective=siglip", "similarity=late-interaction"] {
        let config = config(&[&alone[..], &[more]].concat());
        resumed_equals_uninterrupted(&config, 3);
    }
}
