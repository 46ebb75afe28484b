//! `radiograph linear` and `radiograph finetune` from a small pretraining.

use burn::tensor::Device;
use burn_contrastive::retrieval::MultiLabelAuc;
use burn_contrastive_examples::systems::radiograph::classifier::{Classifier, FINETUNE, LINEAR};
use burn_contrastive_examples::training::run::Folder;
use burn_contrastive_examples::training::system::SystemConfig;

use super::values;
use super::{column, finished, from, metrics, model, options, pretrained, resumes, row, small};
use crate::exclusively;
use crate::recomputed::{area, close};

#[test]
fn linear_evaluation_trains_the_head_alone_and_reports_its_areas() {
    let _lock = exclusively();
    let (studies, run) = pretrained();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("linear");
    let config = from(&run, LINEAR, &["labels=0.5"]);
    assert_eq!(config.shared.optimizer.learning_rate, 0.01);
    let reached = finished::<Classifier>(&config, &options(Folder::New(out.clone()), studies));

    let classifier = model(&config, &out);
    let encoder = model(&small(&[]), &run).model.image;
    assert!(
        values(&classifier.model.image) == values(&encoder),
        "the encoder has changed"
    );
    let fresh = values(&config.system.init(&Device::flex()).head);
    assert!(values(&classifier.head) != fresh);

    let metrics = metrics(&out);
    let table = &metrics.tables[0];
    let after = &reached.after;
    let expected = MultiLabelAuc::new(&after.probabilities, &after.labels, 8);
    assert_eq!(table.rows.len(), 9);
    let auc = column(table, "AUC");
    for (row, area) in table.rows.iter().zip(&expected.by_class) {
        match area {
            Some(area) => assert!((row.numbers[auc] - 100.0 * area).abs() < 1e-9),
            None => assert!(row.numbers[auc].is_nan()),
        }
    }
    let mean = 100.0 * expected.mean().unwrap();
    assert!((row(table, "mean")[auc] - mean).abs() < 1e-9);
    assert!((after.mean() - mean).abs() < 1e-9);
    // Of all pairs of an image of the class and another one.
    for (name, scores) in [("AUC before training", &reached.before), ("AUC", after)] {
        let mut areas = Vec::new();
        for class in 0..8 {
            let scored = scores
                .probabilities
                .iter()
                .copied()
                .zip(scores.labels.clone());
            let scored: Vec<_> = scored.skip(class).step_by(8).collect();
            let found = table.rows[class].numbers[column(table, name)];
            match area(&scored) {
                Some(area) => close(found, area),
                None => assert!(found.is_nan()),
            }
            areas.extend(area(&scored));
        }
        assert!(areas.len() > 2);
        let mean = areas.iter().sum::<f64>() / areas.len() as f64;
        close(row(table, "mean")[column(table, name)], mean);
    }
    assert_eq!(metrics.figures().last().unwrap().0, "AUC");
    let labels = after.labels.iter().flatten();
    let sum = row(table, "mean")[0] + row(table, "mean")[1];
    assert_eq!(sum, labels.count() as f64);
    let studies = metrics
        .facts
        .iter()
        .find(|fact| fact.name.contains("studies with"));
    assert_eq!(studies.unwrap().value, 24.0);
    assert_eq!(
        metrics.curves.figures[0].name,
        "accuracy of labels on validation"
    );
}

#[test]
fn classifiers_that_are_interrupted_end_like_others() {
    let _lock = exclusively();
    let (studies, run) = pretrained();
    let folder = tempfile::tempdir().unwrap();
    for (name, settings, pairs) in [
        ("linear", LINEAR, vec!["schedule.steps=3"]),
        ("finetune", FINETUNE, vec!["schedule.steps=3", "labels=0.2"]),
    ] {
        let config = from(&run, settings, &pairs);
        resumes::<Classifier>(&config, &folder.path().join(name), studies);
    }
    // Fine-tuning moves the encoder and what it normalises by.
    let config = from(&run, FINETUNE, &["schedule.steps=3", "labels=0.2"]);
    let tuned = values(
        &model(&config, &folder.path().join("finetune/whole"))
            .model
            .image,
    );
    let encoder = values(&model(&small(&[]), &run).model.image);
    for ((path, tuned), (_, before)) in tuned.iter().zip(&encoder) {
        assert!(tuned != before, "{path} did not move");
    }
}

#[test]
fn fine_tuning_learns_to_classify() {
    let _lock = exclusively();
    let (studies, run) = pretrained();
    let folder = tempfile::tempdir().unwrap();
    let config = from(
        &run,
        FINETUNE,
        &[
            "schedule.steps=60",
            "optimizer.learning_rate=5e-3",
            "data.batch_size=24",
            "sharding.pairs=24",
            "data.crop_scale=[1,1]",
            "data.crop_ratio=[1,1]",
            "validation.every=0",
        ],
    );
    let out = folder.path().join("run");
    let reached = finished::<Classifier>(&config, &options(Folder::New(out), studies));
    let (first, last) = reached.losses;
    assert!(last < 0.6 * first, "the loss went from {first} to {last}");
}
