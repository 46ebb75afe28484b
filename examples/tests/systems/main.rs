//! Small runs of the systems from data to report, interrupted and resumed, and what they refuse.

mod albef;
mod clip;
mod embed;
mod it_contrast;
mod nlvr;
mod radiograph;
mod shards;
mod visual_semantic;
mod vqa;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use burn_contrastive_examples::data::EvaluationSet;
use burn_contrastive_examples::report::{Metrics, ScoresWithSum};
use burn_contrastive_examples::training::evaluation::Retrieved;
use burn_contrastive_examples::training::run::{Ended, Folder, Options, Program};

/// Burn has one random generator per process, so tests that initialize models run one at a time.
fn exclusively() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Settings of a `clip` that is of no use but quick.
const TINY_CLIP: [&str; 7] = [
    "data.batch_size=16",
    "model.image.image_size=32",
    "model.image.width=24",
    "model.image.layers=1",
    "model.text.width=24",
    "model.text.layers=1",
    "model.embedding=12",
];

/// The results of a finished run.
fn metrics(run: &Path) -> Metrics {
    serde_json::from_slice(&fs::read(run.join("metrics.json")).unwrap()).unwrap()
}

/// What interrupts a run after its first step.
fn stopped() -> Interrupter {
    let interrupter = Interrupter::new();
    interrupter.stop(Some("test"));
    interrupter
}

/// A run in `folder` of the program that those words call, with scenes in the folder `scenes`.
fn options(folder: Folder, scenes: &Path, program: &[&str]) -> Options {
    let words = program.iter().chain(&["--resume"]);
    Options {
        folder,
        scenes: scenes.to_path_buf(),
        device: Device::flex(),
        device_name: "flex".to_string(),
        workers: 2,
        dashboard: false,
        lines_every: 50,
        team: Arc::default(),
        command: program.join(" "),
        to_resume: words.map(ToString::to_string).collect(),
        stage_of: None,
    }
}

/// That a run does not go on with another value in a file of features, and does with what it was.
fn assert_no_other_value<S: Program>(file: &Path, go_on: impl Fn() -> anyhow::Result<Ended<S>>) {
    let whole = fs::read(file).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(file, &changed).unwrap();
    let message = format!("{:#}", go_on().err().unwrap());
    assert!(message.contains("features of them"), "{message}");
    fs::write(file, &whole).unwrap();
    assert!(matches!(go_on().unwrap(), Ended::Reached(_)));
}

/// That the recalls of a report, and their sum, are those of the embeddings, by loops in `f64`.
fn assert_recalls(retrieved: &Retrieved, set: &EvaluationSet, reported: &ScoresWithSum) {
    let rows = |tensor: &Tensor<2>| -> Vec<Vec<f64>> {
        let width = tensor.dims()[1];
        let all: Vec<f64> = tensor.clone().into_data().iter::<f64>().collect();
        all.chunks(width).map(<[f64]>::to_vec).collect()
    };
    let [images, texts] = retrieved.embedded().embeddings().map(rows);
    assert_eq!(images.len(), set.num_images());
    assert_eq!(texts.len(), set.num_captions());
    let image_of = set.image_of_caption();
    let cosine = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // Negatives come first in ties, as the library says.
    let tie = 2.0 * f64::from(f32::EPSILON) * (images[0].len() as f64).sqrt();
    type Rows = [Vec<f64>];
    let recalls = |queries: &Rows, others: &Rows, is_own: &dyn Fn(usize, usize) -> bool| {
        let ranks = queries.iter().enumerate().map(|(query, row)| {
            let cosines = others.iter().map(|other| cosine(row, other)).enumerate();
            let (own, negatives): (Vec<_>, Vec<_>) =
                cosines.partition(|(other, _)| is_own(query, *other));
            let best = own.iter().map(|own| own.1).fold(f64::MIN, f64::max);
            let before = negatives.iter().filter(|other| other.1 >= best - tie);
            before.count()
        });
        let ranks: Vec<_> = ranks.collect();
        [1, 5, 10].map(|k| {
            let found = ranks.iter().filter(|&&rank| rank < k).count();
            100.0 * found as f64 / ranks.len() as f64
        })
    };
    let both = [
        recalls(&images, &texts, &|image, text| image_of[text] == image),
        recalls(&texts, &images, &|text, image| image_of[text] == image),
    ];
    let scores = [reported.scores.image_to_text, reported.scores.text_to_image];
    for (expected, scores) in both.iter().zip(scores) {
        let found = [scores.recall_at_1, scores.recall_at_5, scores.recall_at_10];
        for (expected, found) in expected.iter().zip(found) {
            assert!((expected - found).abs() < 1e-9, "{both:?}: {scores:?}");
        }
    }
    let sum: f64 = both.iter().flatten().sum();
    assert!(
        (sum - reported.r_sum).abs() < 1e-9,
        "{sum}: {}",
        reported.r_sum
    );
}
