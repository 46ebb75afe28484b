//! A user's own images, of which captions of one image mean the same and nothing else is known.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use burn_contrastive_examples::compare::data::Material;
use burn_contrastive_examples::compare::report::report;
use burn_contrastive_examples::compare::results::Results;
use burn_contrastive_examples::compare::setup::Setup;
use burn_contrastive_examples::data::{ScenesConfig, scenes};
use serde_json::Value;

use super::side_by_side::{compare, succeeded};
use super::{TOY, comparison, exclusively, naive, toy};

/// Scenes whose attributes nobody knows, with `captions` captions each.
fn strangers(folder: &Path, captions: usize) -> Setup {
    let folder = folder.join("own");
    let config = ScenesConfig {
        train: 40,
        validation: 8,
        test: 12,
        image_size: 16,
        ..ScenesConfig::default()
    };
    scenes::generate(&folder, &config).unwrap();
    let file = folder.join("dataset.json");
    let mut listing: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for image in listing["images"].as_array_mut().unwrap() {
        image.as_object_mut().unwrap().remove("scene");
        image["sentences"]
            .as_array_mut()
            .unwrap()
            .truncate(captions);
        image["sentids"].as_array_mut().unwrap().truncate(captions);
    }
    fs::write(&file, serde_json::to_vec(&listing).unwrap()).unwrap();
    let mut setup = toy();
    setup.training.shared.data.path = Some(folder);
    setup
}

#[test]
fn captions_of_one_image_are_false_negatives_and_only_ids_are_measured() {
    let _alone = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let setup = strangers(folder.path(), 5);
    let material = Material::open(&setup, folder.path()).unwrap();
    assert_eq!(
        [material.validation.pixels.len(), material.test.pixels.len()],
        [8, 12]
    );
    for (rate, expected) in [(0.0, 0), (0.6, 6)] {
        for drawn in material.batches(rate, 10, 0, 30, &Device::flex()) {
            let images = &drawn.batch.image_ids;
            let several = images
                .iter()
                .filter(|image| images.iter().filter(|other| other == image).count() > 1);
            assert_eq!(several.count(), expected);
            let mut captions = drawn.captions.clone();
            captions.sort_unstable();
            captions.dedup();
            assert_eq!(captions.len(), 10, "a caption is there twice");
        }
    }
    let comparison = comparison(folder.path(), setup, &["info-nce", "multi-positive"]);
    comparison.work(|_| {}).unwrap();
    let file = folder.path().join("results/results.json");
    let results = Results::read(&file).unwrap().unwrap();
    for run in results.runs.iter().filter(|run| run.test.is_some()) {
        let test = run.test.as_ref().unwrap();
        assert_eq!(test.by_overlap, None);
        let name = format!(
            "{}-{}-{}",
            run.trial.contender, run.trial.rate, run.trial.seed
        );
        let kept = folder
            .path()
            .join(format!("results/embeddings/{name}.safetensors"));
        let figures = naive::figures(&kept, &material.test);
        assert!((test.by_equality.ndcg - figures[3]).abs() < 1e-4);
        assert!((test.alignment - figures[5]).abs() < 1e-4);
    }
    let markdown = folder.path().join("found.md");
    report(&results, &file, Some(&markdown), None).unwrap();
    let text = fs::read_to_string(&markdown).unwrap();
    assert!(
        text.contains("**Data.** `own`.") && !text.contains("nDCG@10, overlap"),
        "{text}"
    );
}

/// With the program itself, its rates in any order.
#[test]
fn the_program_compares_on_files() {
    let folder = tempfile::tempdir().unwrap();
    strangers(folder.path(), 5);
    let which = ["run", "--data=own", "--only=info-nce,dcl", "--jobs=1"];
    let mut command = compare(folder.path(), &which);
    command.args(["--seeds=2", "--fewer-seeds=1", "--rates=0.6,0"]);
    // As many steps as there are looks.
    for setting in TOY.iter().chain(&["schedule.steps=6"]) {
        command.arg(format!("--set={setting}"));
    }
    succeeded(&command.output().unwrap());
    assert!(!folder.path().join("runs/scenes").exists());

    let file = folder.path().join("runs/compare/results.json");
    let results = Results::read(&file).unwrap().unwrap();
    assert_eq!(results.setup.protocol.rates, [0.0, 0.6]);
    let data = results.setup.training.shared.data.path.as_ref();
    assert!(data.unwrap().is_absolute() && data.unwrap().ends_with("own"));
    let tests = results.runs.iter().filter(|run| run.test.is_some());
    let tests: Vec<_> = tests
        .map(|run| (run.trial.contender.as_str(), run.trial.rate, run.trial.seed))
        .collect();
    let expected = [
        ("info-nce", 0.0, 1),
        ("info-nce", 0.0, 2),
        ("info-nce", 0.6, 1),
        ("info-nce", 0.6, 2),
        ("dcl", 0.0, 1),
        ("dcl", 0.6, 1),
    ];
    assert_eq!(tests, expected);
    for run in &results.runs {
        assert_eq!(run.failure, None);
        assert_eq!(run.test.as_ref().and_then(|test| test.by_overlap), None);
    }
}

#[test]
fn images_with_one_caption_have_no_false_negatives() {
    let folder = tempfile::tempdir().unwrap();
    let setup = strangers(folder.path(), 1);
    let error = Material::open(&setup, folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a rate of 0.6 needs 6 of 10 pairs")
            && error.contains("more images must have several captions"),
        "{error}"
    );
    let mut setup = setup;
    setup.protocol.rates = vec![0.0];
    Material::open(&setup, folder.path()).unwrap();
}
