//! `it-contrast` on regions of the made-up pairs: interrupted runs go on to the same numbers, with
//! the noise and the hard negatives of their steps.

use std::sync::Arc;

use burn::tensor::Device;
use burn_contrastive_examples::audit::heap::peak_of;
use burn_contrastive_examples::data::regions::image_names;
use burn_contrastive_examples::data::scenes::generate;
use burn_contrastive_examples::data::{Collection, RegionWriter};
use burn_contrastive_examples::systems::it_contrast::{ItContrast, ItContrastConfig};
use burn_contrastive_examples::training::config;
use burn_contrastive_examples::training::run::{Folder, Options, Program};
use burn_contrastive_examples::training::system::SystemConfig;

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

/// An evaluation of means has never the states of all captions at once.
#[test]
fn an_evaluation_of_means_averages_batch_by_batch() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("regions.safetensors");
    let mut config = config(&[
        "model.bert.vocabulary=400",
        "model.bert.context=512",
        "model.bert.width=64",
        "tokens=512",
        "data.scenes.train=16",
        "data.scenes.validation=8",
        "data.scenes.test=60",
        "data.scenes.image_size=16",
    ]);
    let scenes = folder.path().join("scenes");
    generate(&scenes, &config.shared.data.scenes).unwrap();
    let names = image_names(&Collection::read(&scenes, false).unwrap());
    let boxes = vec![vec![[0.0, 0.0, 1.0, 1.0]]; names.len()];
    let mut writer = RegionWriter::create(&file, &names, boxes, 3).unwrap();
    names.iter().for_each(|_| writer.push(&[0.5; 3]).unwrap());
    writer.finish().unwrap();
    config.system.regions.file = Some(file);
    config.shared.data.path = Some(scenes);
    let options = Options {
        folder: Folder::New(folder.path().join("run")),
        scenes: folder.path().to_path_buf(),
        device: Device::flex(),
        device_name: "flex".to_string(),
        workers: 1,
        dashboard: false,
        lines_every: 50,
        team: Arc::default(),
        command: String::new(),
        to_resume: Vec::new(),
        stage_of: None,
    };
    let test = ItContrast::open(&config, &options, None).unwrap().test;
    let model = config.system.init(&options.device);
    let (scores, peak) = peak_of(|| model.evaluate(&test, 8, true).unwrap());
    assert!(scores.metrics().recall_sum > 0.0);
    // 300 captions of 512 states of 64 numbers.
    let states = 300 * 512 * 64 * 4;
    assert_eq!(test.set.num_captions(), 300);
    let peak = peak.unwrap();
    assert!(peak < states / 2, "{peak} of {states}");
}
