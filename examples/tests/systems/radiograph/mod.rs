//! Small runs of `radiograph`, `radiograph linear` and `radiograph finetune` from data to report:
//! every number of the report computed again, runs that are interrupted after every step, and what
//! is refused.

mod classifier;
mod refusals;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::Interrupter;
use burn_contrastive::retrieval::precision_at_k;
use burn_contrastive_examples::data::Split;
use burn_contrastive_examples::embed;
use burn_contrastive_examples::report::{Metrics, Table};
use burn_contrastive_examples::systems::radiograph::classifier::ClassifierConfig;
use burn_contrastive_examples::systems::radiograph::{Precisions, Radiograph, RadiographConfig};
use burn_contrastive_examples::training::config::TrainingConfig;
use burn_contrastive_examples::training::run::{
    Ended, Folder, Options, Program, Reached, evaluate,
};
use burn_contrastive_examples::training::system::SystemConfig;
use burn_contrastive_examples::training::trainer::Start;
use burn_contrastive_examples::training::weights::Weights;
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

use crate::recomputed::{
    Rows, assert_histogram, assert_report, assert_scores, close, cosines, dot, precision, tie,
    units,
};
use crate::{exclusively, metrics, stopped};

fn options(folder: Folder, scenes: &Path) -> Options {
    crate::options(folder, scenes, &["radiograph"])
}

fn with<C: SystemConfig>(config: &TrainingConfig<C>, pairs: &[&str]) -> TrainingConfig<C> {
    let pairs: Vec<_> = pairs.iter().map(ToString::to_string).collect();
    config.with(None, &pairs).unwrap()
}

fn small(pairs: &[&str]) -> TrainingConfig<RadiographConfig> {
    let settings = [
        "findings.train=48",
        "findings.validation=6",
        "findings.test=8",
        "findings.image_size=32",
        "findings.query_images=2",
        "findings.query_sentences=2",
        "findings.candidates=3",
        "data.batch_size=8",
        "model.image.image_size=32",
        "model.image.width=4",
        "model.bert.vocabulary=300",
        "model.bert.width=16",
        "model.bert.layers=1",
        "model.bert.intermediate=24",
        "model.embedding=8",
        "schedule.steps=5",
        "schedule.warmup_steps=1",
        "validation.every=2",
        "sharding.pairs=3",
    ];
    with(&RadiographConfig::defaults(), &[&settings, pairs].concat())
}

fn finished<S: Program>(config: &TrainingConfig<S::Config>, options: &Options) -> Box<Reached<S>> {
    match S::run(config, options, Interrupter::new()).unwrap() {
        Ended::Reached(reached) => reached,
        _ => panic!("the run was not finished"),
    }
}

fn refused<S: Program>(config: &TrainingConfig<S::Config>, options: &Options) -> String {
    let error = S::run(config, options, Interrupter::new()).err();
    format!("{:#}", error.expect("it is refused"))
}

/// Values of all parameters and statistics by their paths.
#[derive(Default)]
struct Values {
    path: Vec<String>,
    found: Vec<(String, TensorData)>,
}

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val().into_data();
        self.found.push((self.path.join("."), value));
    }
}

/// The model of a run's last checkpoint.
fn model<C: SystemConfig>(config: &TrainingConfig<C>, run: &Path) -> C::System {
    let none: [&str; 0] = [];
    let model = config.system.init(&Device::flex());
    let weights = Weights::of_run(run).unwrap();
    weights.load_into(model, &none, &none).unwrap()
}

fn values<M: Module>(module: &M) -> Vec<(String, TensorData)> {
    let mut values = Values::default();
    module.visit(&mut values);
    values.found
}

/// Runs it whole, and stopped after every step, in two folders; both end alike.
fn resumes<S: Program>(config: &TrainingConfig<S::Config>, folder: &Path, scenes: &Path) {
    let at = |name: &str| folder.join(name);
    finished::<S>(config, &options(Folder::New(at("whole")), scenes));
    let mut next = Folder::New(at("parts"));
    let mut calls = 0;
    loop {
        let ended = S::run(config, &options(next, scenes), stopped()).unwrap();
        calls += 1;
        if matches!(ended, Ended::Reached(_)) {
            break;
        }
        assert!(!at("parts/report.html").exists());
        next = Folder::Resume(at("parts"));
    }
    assert_eq!(calls, config.shared.schedule.steps);
    let [whole, parts] = ["whole", "parts"].map(|run| metrics(&at(run)));
    assert_eq!(parts.curves, whole.curves);
    // A class without both kinds of images has no area: NaN, which is null in JSON.
    let tables = |metrics: &Metrics| serde_json::to_value(&metrics.tables).unwrap();
    assert_eq!(tables(&parts), tables(&whole));
    assert_eq!(parts.histograms, whole.histograms);
    assert_eq!(parts.retrieval.after, whole.retrieval.after);
    let [whole, parts] = ["whole", "parts"].map(|run| values(&model(config, &at(run))));
    assert!(parts == whole, "the parameters differ");
}

/// A run that all tests start from, and its studies.
fn pretrained() -> (&'static Path, PathBuf) {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let run = Folder::New(folder.path().join("run"));
        let options = options(run, folder.path());
        finished::<Radiograph>(&small(&["schedule.steps=3"]), &options);
        folder
    });
    (folder.path(), folder.path().join("run"))
}

/// The settings of a classifier from `run`, as the command line makes them.
fn from(run: &Path, settings: &str, pairs: &[&str]) -> TrainingConfig<ClassifierConfig> {
    let earlier: Value =
        serde_json::from_slice(&fs::read(run.join("config.json")).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.json");
    fs::write(&file, settings).unwrap();
    let mut config = ClassifierConfig::started_from(&earlier).unwrap();
    config = config.with(Some(&file), &[]).unwrap();
    config.shared.init = Some(run.to_str().unwrap().parse().unwrap());
    config.shared.data.tokenizer = Some(run.join("tokenizer.json"));
    with(
        &config,
        &[&["schedule.steps=4", "validation.every=2"], pairs].concat(),
    )
}

fn column(table: &Table, name: &str) -> usize {
    table
        .columns
        .iter()
        .position(|column| column == name)
        .unwrap()
}

fn row<'a>(table: &'a Table, name: &str) -> &'a [f64] {
    &table
        .rows
        .iter()
        .find(|row| row.name == name)
        .unwrap()
        .numbers
}

#[test]
fn a_small_run_reports_the_precisions_of_its_embeddings() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = small(&[]);
    let reached =
        finished::<Radiograph>(&config, &options(Folder::New(out.clone()), folder.path()));
    let set = reached.test.by_class.as_ref().unwrap();
    let labels = set.retrieval().labels();
    assert_eq!(labels.each_ref().map(Vec::len), [16, 16, 24]);

    // From the weights of the checkpoint, sentence by sentence and image by image.
    let model = model(&config, &out).model;
    let device = Device::flex();
    let embeddings = set.embed(&model, 1, &device).unwrap();
    let found = Precisions::new(embeddings.clone(), labels.clone());
    let [images, sentences, candidates] = embeddings;
    let expected = [(images, &labels[0]), (sentences, &labels[1])]
        .map(|(queries, of)| precision_at_k(queries, of, candidates.clone(), &labels[2], &[5, 10]));
    let after = reached.after.precisions.as_ref().unwrap();
    // Batches of other sizes round in other ways, which the tie of cosines covers.
    for (found, expected) in found.by_query.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(after.depths, [5, 10]);
    assert_eq!(after.by_query, expected);
    assert_eq!(after.chance, [12.5; 2]);
    let all: Vec<f64> = expected.iter().flatten().copied().collect();
    assert!((after.average() - all.iter().sum::<f64>() / 4.0).abs() < 1e-9);

    let metrics = metrics(&out);
    let table = &metrics.tables[0];
    for (name, expected) in ["image–image", "text–image"].iter().zip(&expected) {
        let numbers = row(table, name);
        for (k, precision) in ["Prec@5", "Prec@10"].iter().zip(expected) {
            assert!((numbers[column(table, k)] - precision).abs() < 1e-9);
        }
        assert_eq!(row(table, &format!("{name}, by chance")), [12.5; 3]);
        assert_eq!(row(table, &format!("{name}, before training")).len(), 3);
    }
    assert!((row(table, "both")[2] - after.average()).abs() < 1e-9);
    let figures = metrics.figures();
    let last = figures.last().unwrap();
    assert_eq!(last.0, "average precision");
    assert!((last.1 - after.average()).abs() < 1e-9);
    assert!(figures.iter().any(|(name, _)| *name == "text–image Prec@5"));
    // 3 candidates of a query's class, of 24.
    for (one, queries) in metrics.histograms.iter().zip([16, 16]) {
        let count = |counts: &[u64]| counts.iter().sum::<u64>();
        assert_eq!(count(&one.histogram.positive), 3 * queries);
        assert_eq!(count(&one.histogram.negative), 21 * queries);
    }
    assert_eq!(metrics.retrieval.images, 8);
    assert!(metrics.retrieval.after.is_some());
    let html = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(html.contains("Prec@10") && html.contains("text–image similarities"));

    // What the encoder normalises by is gathered.
    let statistics = values(&model.image);
    let moved = statistics.iter().filter(|(path, data)| {
        path.ends_with("running_mean") && data.iter::<f32>().any(|value| value != 0.0)
    });
    assert_eq!(moved.count(), 12);
}

/// The precisions, the histograms and the scores of retrieval of a report, before the training
/// and after it.
#[test]
fn a_report_says_what_plain_loops_find_in_the_embeddings() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = small(&["findings.candidates=7"]);
    let reached =
        finished::<Radiograph>(&config, &options(Folder::New(out.clone()), folder.path()));
    let device = Device::flex();
    let start = Start::<Radiograph>::fresh(&config, &device).unwrap();
    let (before, after) = (start.model.valid(), model(&config, &out));
    let metrics = metrics(&out);
    let table = &metrics.tables[0];
    let set = reached.test.by_class.as_ref().unwrap();
    let labels = set.retrieval().labels();
    assert_eq!(labels[2].len(), 56);
    for (of, model) in [(", before training", &before), ("", &after)] {
        let [images, sentences, candidates] = set.embed(&model.model, 5, &device).unwrap();
        let mut both = Vec::new();
        let kinds = [("image–image", &images, 0), ("text–image", &sentences, 1)];
        for (name, queries, side) in kinds {
            let similarities = cosines(queries, &candidates);
            let labels: [&[usize]; 2] = [&labels[side], &labels[2]];
            let found = row(table, &format!("{name}{of}"));
            let expected = [5, 10, 50].map(|k| precision(&similarities, labels, k, tie(8)));
            for (k, expected) in [5, 10, 50].into_iter().zip(expected) {
                close(found[column(table, &format!("Prec@{k}"))], expected);
            }
            close(found[3], expected.iter().sum::<f64>() / 3.0);
            both.extend(expected);
            if of.is_empty() {
                let named = &metrics.histograms[side];
                assert!(named.name.starts_with(name));
                let is_same =
                    |query: usize, candidate: usize| labels[0][query] == labels[1][candidate];
                assert_histogram(&similarities, is_same, &named.histogram);
            }
        }
        let average = both.iter().sum::<f64>() / 6.0;
        close(row(table, &format!("both{of}"))[3], average);
        assert!(average > 0.0);
    }
    let [before, after] = [&reached.before, &reached.after].map(|scores| &scores.retrieved);
    assert_report(Some(before), after, &reached.test.set, &metrics);
}

#[test]
fn a_run_embeds_studies_as_its_evaluation_does() {
    let _lock = exclusively();
    let (studies, run) = pretrained();
    let generated = fs::read_dir(studies).unwrap();
    let generated = generated.map(|entry| entry.unwrap().path());
    let mut generated = generated.filter(|path| path.join("studies.json").is_file());
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("pairs.safetensors");
    let request = embed::Options {
        weights: run.clone(),
        tokenizer: None,
        data: generated.next().unwrap(),
        skip_bad: false,
        split: Some(Split::Test),
        output: output.clone(),
        batch_size: 3,
        device: Device::flex(),
        workers: 1,
    };
    assert!(embed::embed(&request, &Interrupter::new()).unwrap());
    let file = fs::read(output).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let side = |name: &str| -> Rows {
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.shape()[1], 8);
        let words = tensor.data().as_chunks().0.iter();
        let values: Vec<f64> = words.map(|word| f32::from_le_bytes(*word).into()).collect();
        units(values.chunks(8).map(<[f64]>::to_vec).collect())
    };
    let (images, texts) = (side("image"), side("text"));
    let ids = file.tensor("image_id").unwrap();
    let ids = ids.data().as_chunks().0.iter();
    let image_of: Vec<usize> = ids.map(|id| i64::from_le_bytes(*id) as usize).collect();
    let similarities = |of: &Rows, with: &Rows| -> Rows {
        let row = |own: &Vec<f64>| with.iter().map(|other| dot(own, other)).collect();
        of.iter().map(row).collect()
    };
    let both = [similarities(&images, &texts), similarities(&texts, &images)];
    let reported = metrics(&run).retrieval.after.unwrap();
    assert_eq!(images.len(), 8);
    assert_scores([&both[0], &both[1]], &image_of, tie(8), &reported);
}

#[test]
fn runs_that_are_interrupted_after_every_step_end_like_others() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let shared = tempfile::tempdir().unwrap();
    let reco = small(&["model.bert.dropout=0.1"]);
    resumes::<Radiograph>(&reco, folder.path(), shared.path());
    for (name, pairs) in [
        ("nce", vec!["objective=info-nce", "model.pooling=token"]),
        ("twins", vec!["objective=barlow-twins", "accumulation=2"]),
        (
            "oc",
            vec!["objective=orthogonality", "sharding.mode=recompute"],
        ),
    ] {
        let config = small(&[&pairs[..], &["schedule.steps=3"]].concat());
        resumes::<Radiograph>(&config, &folder.path().join(name), shared.path());
    }
}

#[test]
fn how_a_batch_is_encoded_changes_nothing() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, pairs: &[&str]| {
        let config = small(&[pairs, &["schedule.steps=2"]].concat());
        let run = folder.path().join(name);
        finished::<Radiograph>(&config, &options(Folder::New(run.clone()), folder.path()));
        values(&model(&config, &run))
    };
    let kept = run("kept", &["sharding.mode=keep", "sharding.at_once=2"]);
    assert!(kept == run("one", &["sharding.mode=keep", "sharding.at_once=1"]));
    assert!(kept == run("twice", &["sharding.mode=recompute"]));
}

#[test]
fn evaluation_without_training_finds_what_the_run_found() {
    let _lock = exclusively();
    let (studies, run) = pretrained();
    let mut config = small(&["schedule.steps=3"]);
    config.shared.init = Some(run.to_str().unwrap().parse().unwrap());
    config.shared.data.tokenizer = Some(run.join("tokenizer.json"));
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("evaluated");
    evaluate::<Radiograph>(&config, &options(Folder::New(out.clone()), studies)).unwrap();
    let [found, expected] = [&out, &run].map(|run| metrics(run));
    assert_eq!(found.retrieval.after, expected.retrieval.after);
    let [found, expected] = [found, expected].map(|metrics| metrics.tables[0].clone());
    for name in ["image–image", "text–image", "both"] {
        assert_eq!(row(&found, name), row(&expected, name));
    }
}

#[test]
fn studies_without_queries_by_class_are_reported_without() {
    let _lock = exclusively();
    let (studies, _) = pretrained();
    let folder = tempfile::tempdir().unwrap();
    let config = small(&["schedule.steps=1"]);
    let generated = fs::read_dir(studies)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let generated = generated.filter(|path| path.join("studies.json").is_file());
    let listing = generated.last().unwrap();
    // The same list elsewhere, with absolute paths.
    let text = fs::read_to_string(listing.join("studies.json")).unwrap();
    let text = text.replace("images/", &format!("{}/images/", listing.display()));
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("studies.json"), text).unwrap();
    let mut config = config;
    config.shared.data.path = Some(data);
    let out = folder.path().join("run");
    let reached = finished::<Radiograph>(&config, &options(Folder::New(out.clone()), studies));
    assert!(reached.test.by_class.is_none() && reached.after.precisions.is_none());
    let metrics = metrics(&out);
    assert!(metrics.tables.is_empty() && metrics.histograms.is_empty());
    assert!(metrics.retrieval.after.is_some());
}
