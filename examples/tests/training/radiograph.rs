//! `radiograph` and its classifier on the made-up pairs: interrupted runs go on to the same
//! numbers, those of batch norm included.

use burn_contrastive_examples::systems::radiograph::RadiographConfig;
use burn_contrastive_examples::systems::radiograph::classifier::ClassifierConfig;
use burn_contrastive_examples::training::config::TrainingConfig;
use burn_contrastive_examples::training::system::SystemConfig;

use crate::run::{exclusively, resumed_equals_uninterrupted};

fn load<C: SystemConfig>(small: &[&str], pairs: &[&str]) -> TrainingConfig<C> {
    let shared = [
        "seed=3",
        "data.batch_size=8",
        "schedule.steps=12",
        "schedule.warmup_steps=2",
        "validation.every=4",
        "checkpoints.every=5",
    ];
    let pairs: Vec<String> = shared
        .iter()
        .chain(small)
        .chain(pairs)
        .map(ToString::to_string)
        .collect();
    TrainingConfig::load(None, &pairs).unwrap()
}

pub fn config(pairs: &[&str]) -> TrainingConfig<RadiographConfig> {
    let small = [
        "model.image.image_size=16",
        "model.image.blocks=[1,1]",
        "model.image.width=4",
        "model.bert.vocabulary=32",
        "model.bert.context=16",
        "model.bert.width=8",
        "model.bert.heads=2",
        "model.bert.layers=1",
        "model.bert.intermediate=16",
        "model.embedding=6",
        "tokens=16",
    ];
    load(&small, pairs)
}

pub fn classifier(pairs: &[&str]) -> TrainingConfig<ClassifierConfig> {
    let small = [
        "image.image_size=16",
        "image.blocks=[1,1]",
        "image.width=4",
        "classes=3",
    ];
    load(&small, pairs)
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bits() {
    let _lock = exclusively();
    for at in [1, 4, 8] {
        resumed_equals_uninterrupted(&config(&[]), at);
    }
    let convirt = ["objective=info-nce", "model.pooling=token"];
    resumed_equals_uninterrupted(&config(&convirt), 3);
}

#[test]
fn shards_accumulation_and_dropout_change_nothing_about_that() {
    let _lock = exclusively();
    let divided = ["accumulation=2", "sharding.pairs=3"];
    let dropout = ["model.bert.dropout=0.2"];
    resumed_equals_uninterrupted(&config(&[&divided[..], &dropout].concat()), 5);
    resumed_equals_uninterrupted(&classifier(&[&divided[..], &["trained=all"]].concat()), 5);
}

#[test]
fn classifiers_go_on_too() {
    let _lock = exclusively();
    for trained in ["trained=head", "trained=all"] {
        for at in [1, 4, 8] {
            resumed_equals_uninterrupted(&classifier(&[trained]), at);
        }
    }
}
