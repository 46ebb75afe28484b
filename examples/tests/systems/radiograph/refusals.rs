//! Settings, runs and data that do not fit.

use std::fs;

use burn_contrastive_examples::systems::clip::ClipConfig;
use burn_contrastive_examples::systems::radiograph::classifier::{
    Classifier, ClassifierConfig, LINEAR,
};
use burn_contrastive_examples::systems::radiograph::{Radiograph, RadiographConfig};
use burn_contrastive_examples::training::run::Folder;
use burn_contrastive_examples::training::system::SystemConfig;
use serde_json::{Value, json};

use super::{from, options, pretrained, refused, small};
use crate::exclusively;

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let _lock = exclusively();
    let (studies, run) = pretrained();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let here = || options(Folder::New(out.clone()), studies);

    for (pair, expected) in [
        ("labels=0", "labels = 0 must be in (0, 1]"),
        ("labels=1.5", "labels = 1.5 must be in (0, 1]"),
        ("classes=0", "classes = 0 must be in"),
        ("labls=0.1", "did you mean labels?"),
        ("findings.noise=2", "noise is 2"),
    ] {
        let error = from(&run, LINEAR, &[])
            .with(None, &[pair.to_string()])
            .unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{pair}: {error:#}");
    }
    for (pair, expected) in [
        (
            "model.bert.fusion_layers=1",
            "bert.fusion_layers = 1 must be 0",
        ),
        ("model.embedding=0", "embedding = 0 must be in"),
        ("model.image.blocks=[1,0,1,1]", "image.blocks = 0"),
        ("model.pooling=mean", "pooling"),
        (
            "tokens=50",
            "tokens = 50 must be in 2..=model.bert.context = 40",
        ),
        ("objective=srcl", "objective srcl needs"),
        ("objective=recco", "there is no objective"),
        (
            "model=huge",
            "there is no preset `huge`; there are tiny, base",
        ),
        ("findings.train=0", "train is 0"),
    ] {
        let pairs = [pair.to_string()];
        let error = RadiographConfig::defaults().with(None, &pairs).unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{pair}: {error:#}");
    }

    let of_clip = ClipConfig::defaults().to_value().unwrap();
    let error = ClassifierConfig::started_from(&of_clip).unwrap_err();
    assert!(
        format!("{error:#}").contains("no run of `radiograph`"),
        "{error:#}"
    );

    let other = from(&run, LINEAR, &["classes=5"]);
    let error = refused::<Classifier>(&other, &here());
    assert!(
        error.contains("names 8 classes, and the model has 5: set classes=8"),
        "{error}"
    );

    // Studies without labels, without sentences, and a broken file of queries.
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    image::RgbImage::new(8, 8).save(data.join("a.png")).unwrap();
    let listed = |row: Value| {
        let rows: Vec<Value> = ["train", "val", "test"]
            .map(|split| {
                let mut row = row.clone();
                row["split"] = split.into();
                row
            })
            .into();
        let file = json!({"classes": ["x"], "studies": rows});
        fs::write(data.join("studies.json"), file.to_string()).unwrap();
    };
    listed(json!({"images": ["a.png"], "sentences": ["one two"]}));
    let mut config = from(&run, LINEAR, &["classes=1"]);
    config.shared.data.path = Some(data.clone());
    let error = refused::<Classifier>(&config, &here());
    assert!(error.contains("studies[0]: it has no labels"), "{error}");
    fs::write(data.join("retrieval.json"), "{\"classes\": [").unwrap();
    let mut config = small(&[]);
    config.shared.data.path = Some(data.clone());
    let error = refused::<Radiograph>(&config, &here());
    assert!(
        error.contains("retrieval.json:1:") && error.contains("queries"),
        "{error}"
    );
    fs::remove_file(data.join("retrieval.json")).unwrap();
    let error = refused::<Radiograph>(&config, &here());
    assert!(
        error.contains("split train has 1 studies, fewer than one batch"),
        "{error}"
    );
    listed(json!({"images": ["a.png"], "labels": {"x": true}}));
    let error = refused::<Radiograph>(&config, &here());
    assert!(error.contains("studies[0]: it has no sentence"), "{error}");
    config.system.retrieval = Some(data.join("none.json"));
    listed(json!({"images": ["a.png"], "sentences": ["one two"]}));
    let error = refused::<Radiograph>(&config, &here());
    assert!(error.contains("none.json"), "{error}");
    assert!(!out.exists());
}
