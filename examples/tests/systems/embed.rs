//! Embeddings of a run, in a file that `audit` reads, also after an interruption.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use burn::train::Interrupter;
use burn_contrastive::pairwise::Evaluation;
use burn_contrastive_examples::audit::{self, audit};
use burn_contrastive_examples::data::{CaptionTokenizer, Collection, Split};
use burn_contrastive_examples::embed::{self, Search, embed, export};
use burn_contrastive_examples::published::Published;
use burn_contrastive_examples::systems::clip::{Clip, ClipConfig};
use burn_contrastive_examples::training::config::TrainingConfig;
use burn_contrastive_examples::training::run::{Ended, Folder, Program};
use safetensors::SafeTensors;

use crate::{TINY_CLIP, exclusively, options, stopped};

/// A run of `clip` of two steps with these settings, and the data that it was trained on.
fn run(folder: &Path, more: &[&str]) -> [PathBuf; 2] {
    let settings = [
        "data.scenes.train=64",
        "data.scenes.validation=20",
        "data.scenes.test=30",
        "data.scenes.image_size=32",
        "schedule.steps=2",
        "schedule.warmup_steps=1",
    ];
    let settings = TINY_CLIP
        .iter()
        .chain(&settings)
        .chain(more)
        .map(ToString::to_string);
    let settings: Vec<String> = settings.collect();
    let config = TrainingConfig::<ClipConfig>::load(None, &settings).unwrap();
    let run = folder.join("run");
    let options = options(Folder::New(run.clone()), folder, &["clip"]);
    let ended = Clip::run(&config, &options, Interrupter::new()).unwrap();
    let Ended::Reached(reached) = ended else {
        panic!("the run was not finished");
    };
    [run, reached.test.collection().file.clone()]
}

fn request(weights: &Path, data: &Path, output: &Path) -> embed::Options {
    embed::Options {
        weights: weights.to_owned(),
        tokenizer: None,
        data: data.to_owned(),
        skip_bad: false,
        split: Some(Split::Test),
        output: output.to_owned(),
        batch_size: 4,
        device: Device::flex(),
        workers: 2,
    }
}

fn floats(file: &[u8], name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = SafeTensors::deserialize(file).unwrap();
    let tensor = file.tensor(name).unwrap();
    let words = tensor.data().chunks_exact(4);
    let values = words.map(|word| f32::from_le_bytes(word.try_into().unwrap()));
    (tensor.shape().to_vec(), values.collect())
}

#[test]
fn a_run_embeds_a_split_as_its_evaluation_does_and_audit_reads_it() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let [run, data] = run(folder.path(), &[]);
    let output = folder.path().join("pairs.safetensors");
    let request = request(&run, &data, &output);
    assert!(embed(&request, &Interrupter::new()).unwrap());

    // What the run itself has of the same images and captions, normalised.
    let config = TrainingConfig::<ClipConfig>::read(&run.join("config.json")).unwrap();
    let resumed = options(Folder::Resume(run.clone()), folder.path(), &["clip"]);
    let Ended::Reached(reached) = Clip::run(&config, &resumed, Interrupter::new()).unwrap() else {
        panic!("the run was not finished");
    };
    let file = fs::read(&output).unwrap();
    let expected = reached.after.embedded().embeddings();
    for (name, expected) in ["image", "text"].into_iter().zip(expected) {
        let (shape, rows) = floats(&file, name);
        assert_eq!(shape, expected.dims());
        let expected: Vec<f32> = expected.clone().into_data().iter::<f32>().collect();
        for (row, expected) in rows.chunks(12).zip(expected.chunks(12)) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((norm - 1.0).abs() > 1e-4, "they are not normalised");
            for (x, expected) in row.iter().zip(expected) {
                assert!((x / norm - expected).abs() < 1e-5, "{name}");
            }
        }
    }
    let collection = Collection::read(&data, false).unwrap();
    assert_eq!(floats(&file, "image").0, [30, 12]);
    assert_eq!(
        floats(&file, "text").0[0],
        collection.captions(Split::Test).count()
    );

    let audited = audit::Options {
        embeddings: output,
        objectives: None,
        device: Device::flex(),
        device_name: "flex".into(),
        evaluation: Evaluation::Auto,
        json: None,
        gradients: None,
        report: None,
    };
    let findings = audit(&audited, |_| {}).unwrap().to_string();
    assert!(findings.contains("30"), "{findings}");
}

#[test]
fn what_was_interrupted_anywhere_ends_as_the_same_file() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let [run, data] = run(folder.path(), &[]);
    let whole = folder.path().join("whole.safetensors");
    assert!(embed(&request(&run, &data, &whole), &Interrupter::new()).unwrap());
    let whole = fs::read(whole).unwrap();

    let output = folder.path().join("pairs.safetensors");
    let part = folder.path().join("pairs.safetensors.part");
    let request = request(&run, &data, &output);
    assert!(!embed(&request, &stopped()).unwrap());
    assert!(part.is_file() && !output.exists());
    // Amid the header; nothing yet; amid an image's row, between batches of images, amid a
    // caption's row.
    let start = fs::metadata(&part).unwrap().len() as usize;
    for length in [
        0,
        100,
        start,
        start + 48 + 7,
        start + 8 * 48,
        whole.len() - 50,
    ] {
        fs::write(&part, &whole[..length]).unwrap();
        assert!(embed(&request, &Interrupter::new()).unwrap());
        let same = fs::read(&output).unwrap() == whole;
        assert!(same, "after {length} bytes");
        assert!(!part.exists());
        fs::remove_file(&output).unwrap();
    }

    // What another job left is not gone on with, and not lost.
    let mut other = whole[..start].to_vec();
    let at = start - 8 * 10;
    other[at] ^= 1;
    fs::write(&part, &other).unwrap();
    let error = embed(&request, &Interrupter::new()).unwrap_err();
    assert!(
        format!("{error:#}").contains("left by other weights or data"),
        "{error:#}"
    );
    assert!(
        fs::read(&part).unwrap() == other,
        "what is there was changed"
    );
    // Nor is a file that is there already written over.
    fs::write(&output, "mine").unwrap();
    let error = embed(&request, &Interrupter::new()).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error:#}");
    assert_eq!(fs::read(&output).unwrap(), b"mine");
}

#[test]
fn a_run_of_clips_kind_is_written_as_hugging_faces_and_embeds_the_same() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let kind = [
        "model.text.pooling=last",
        "model.image.pooling=token",
        "model.text.activation=quick-gelu",
        "model.image.activation=quick-gelu",
        "model.text.heads=2",
    ];
    let [run, data] = run(folder.path(), &kind);
    let exported = folder.path().join("exported");
    let device = Device::flex();
    export(&run, &exported, &device).unwrap();
    let names = [
        "config.json",
        "preprocessor_config.json",
        "tokenizer_config.json",
    ];
    for name in names.iter().chain(&["model.safetensors", "tokenizer.json"]) {
        assert!(exported.join(name).is_file(), "{name}");
    }
    let weights = exported.join("model.safetensors");
    let published = Published::open(&weights).unwrap();
    let config = TrainingConfig::<ClipConfig>::read(&run.join("config.json")).unwrap();
    // The room for tokens that the tokenizer does not have is left out.
    let mut expected = config.system.model;
    let tokenizer = CaptionTokenizer::load(exported.join("tokenizer.json"), 48).unwrap();
    assert!(tokenizer.vocab_size() < expected.text.vocabulary);
    expected.text.vocabulary = tokenizer.vocab_size();
    assert_eq!(published.clip().unwrap(), expected);
    let embeddings = |weights: &Path, name: &str| {
        let output = folder.path().join(name);
        assert!(embed(&request(weights, &data, &output), &Interrupter::new()).unwrap());
        let file = fs::read(output).unwrap();
        ["image", "text"].map(|name| floats(&file, name))
    };
    let own = embeddings(&run, "own.safetensors");
    assert!(embeddings(&weights, "theirs.safetensors") == own);

    // There is one already; and what is none of CLIP's kind is refused.
    assert!(export(&run, &exported, &device).is_err());
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let [run, _] = self::run(&other, &[]);
    let error = export(&run, &other.join("exported"), &device).unwrap_err();
    assert!(
        error.to_string().contains("model.text.pooling=last"),
        "{error}"
    );
    assert!(!other.join("exported").exists());
}

#[test]
fn a_search_finds_the_nearest_pictures_and_shows_them() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let [run, data] = run(folder.path(), &[]);
    let output = folder.path().join("pairs.safetensors");
    assert!(embed(&request(&run, &data, &output), &Interrupter::new()).unwrap());
    let collection = Collection::read(&data, false).unwrap();
    let captions: Vec<&str> = collection.captions(Split::Test).collect();
    let search = Search {
        embeddings: output.clone(),
        weights: run.clone(),
        tokenizer: None,
        texts: vec![captions[7].to_string(), "<b>a red square</b>".to_string()],
        top: 5,
        device: Device::flex(),
    };
    let hits = search.run().unwrap();

    // The caption's row in the file has the same cosines with the pictures.
    let file = fs::read(&output).unwrap();
    let row = |name: &str, index: usize| floats(&file, name).1[12 * index..][..12].to_vec();
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter()
                .zip(b)
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum()
        };
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let text = row("text", 7);
    let mut expected: Vec<f64> = (0..30)
        .map(|image| cosine(&text, &row("image", image)))
        .collect();
    expected.sort_by(|a, b| b.total_cmp(a));
    let found: Vec<f64> = hits[0].pictures.iter().map(|hit| hit.1).collect();
    assert_eq!(found.len(), 5);
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
    assert!(
        hits[0]
            .pictures
            .iter()
            .all(|(picture, _)| picture.is_file())
    );
    let page = search.page(&hits);
    assert_eq!(page.matches("data:image/").count(), 10);
    assert!(page.contains("&lt;b&gt;a red square") && !page.contains("<b>a red"));

    // Embeddings of other weights are not searched.
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let [other, _] = self::run(&other, &["seed=1"]);
    let error = Search {
        weights: other,
        ..search
    }
    .run()
    .unwrap_err();
    assert!(error.to_string().contains("by other weights"), "{error}");
}
