//! The same pictures as files, in tar shards and in Parquet files: the same runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use burn::train::Interrupter;
use burn_contrastive_examples::data::{Collection, ScenesConfig, Split, scenes};
use burn_contrastive_examples::embed::{self, Search, embed};
use burn_contrastive_examples::report::Metrics;
use burn_contrastive_examples::systems::clip::{Clip, ClipConfig};
use burn_contrastive_examples::training::config::TrainingConfig;
use burn_contrastive_examples::training::run::{Ended, Folder, Program};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use safetensors::SafeTensors;

use crate::{TINY_CLIP, exclusively, metrics, options, stopped};

/// A picture with its caption and split.
struct Pair {
    name: String,
    image: Vec<u8>,
    caption: String,
    split: Split,
}

/// Some scenes.
fn pairs(folder: &Path) -> Vec<Pair> {
    let config = ScenesConfig {
        train: 64,
        validation: 12,
        test: 20,
        image_size: 32,
        ..ScenesConfig::default()
    };
    scenes::generate(folder, &config).unwrap();
    let collection = Collection::read(folder, false).unwrap();
    let examples = collection.examples.into_iter();
    let pair = examples.map(|example| {
        let path = example.image.path();
        Pair {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            image: fs::read(path).unwrap(),
            caption: example.captions[0].clone(),
            split: example.split,
        }
    });
    pair.collect()
}

/// A table of files.
fn table(folder: &Path, pairs: &[Pair]) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let mut text = String::from("image\tcaption\tsplit\n");
    for pair in pairs {
        fs::write(folder.join(&pair.name), &pair.image).unwrap();
        text += &format!("{}\t{}\t{}\n", pair.name, pair.caption, pair.split);
    }
    fs::write(folder.join("table.tsv"), text).unwrap();
    folder.join("table.tsv")
}

/// The pairs in parts of at most so many of one split, with a name for each part.
fn parts(pairs: &[Pair], most: usize) -> Vec<(String, &[Pair])> {
    let of_split = pairs.chunk_by(|a, b| a.split == b.split);
    let parts = of_split.flat_map(|pairs| pairs.chunks(most)).enumerate();
    let parts = parts.map(|(number, part)| (format!("{number}-{}", part[0].split), part));
    parts.collect()
}

/// Shards of tar archives.
fn archives(folder: &Path, pairs: &[Pair]) -> PathBuf {
    archives_of(folder, pairs, 24)
}

/// Shards of at most so many pairs.
fn archives_of(folder: &Path, pairs: &[Pair], most: usize) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let parts = parts(pairs, most);
    for (name, part) in &parts {
        let file = fs::File::create(folder.join(format!("{name}.tar"))).unwrap();
        let mut archive = tar::Builder::new(file);
        for pair in *part {
            let text = pair.name.replace(".png", ".txt");
            let members = [
                (&pair.name, &pair.image[..]),
                (&text, pair.caption.as_bytes()),
            ];
            for (name, content) in members {
                let mut header = tar::Header::new_ustar();
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, name, content).unwrap();
            }
        }
        archive.finish().unwrap();
    }
    let names: Vec<_> = parts.into_iter().map(|(name, _)| name).collect();
    folder.join(format!("{{{}}}.tar", names.join(",")))
}

/// A folder of Parquet files.
fn parquets(folder: &Path, pairs: &[Pair]) -> PathBuf {
    fs::create_dir_all(folder.join("data")).unwrap();
    let schema = "message m { required group image { required binary bytes; required binary path \
                  (UTF8); } required binary caption (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    for (name, part) in parts(pairs, 24) {
        let file = fs::File::create(folder.join(format!("data/{name}.parquet"))).unwrap();
        let mut file = SerializedFileWriter::new(file, schema.clone(), Arc::default()).unwrap();
        for group in part.chunks(10) {
            let mut rows = file.next_row_group().unwrap();
            let columns: [fn(&Pair) -> &[u8]; 3] = [
                |pair| &pair.image,
                |pair| pair.name.as_bytes(),
                |pair| pair.caption.as_bytes(),
            ];
            for value in columns {
                let values = group
                    .iter()
                    .map(|pair| ByteArray::from(value(pair).to_vec()));
                let values: Vec<_> = values.collect();
                let mut column = rows.next_column().unwrap().unwrap();
                let typed = column.typed::<ByteArrayType>();
                typed.write_batch(&values, None, None).unwrap();
                column.close().unwrap();
            }
            rows.close().unwrap();
        }
        file.close().unwrap();
    }
    folder.to_owned()
}

fn small(data: &Path, more: &[&str]) -> TrainingConfig<ClipConfig> {
    let settings = [
        "schedule.steps=7",
        "schedule.warmup_steps=1",
        "validation.every=3",
    ];
    let settings = TINY_CLIP
        .iter()
        .chain(&settings)
        .chain(more)
        .map(ToString::to_string);
    let settings: Vec<String> = settings.collect();
    let mut config = TrainingConfig::load(None, &settings).unwrap();
    config.shared.data.path = Some(data.to_owned());
    config
}

/// A finished run on those data.
fn trained(data: &Path, run: &Path, more: &[&str]) -> Metrics {
    let options = options(Folder::New(run.to_owned()), run, &["clip"]);
    let ended = Clip::run(&small(data, more), &options, Interrupter::new()).unwrap();
    assert!(matches!(ended, Ended::Reached(_)));
    metrics(run)
}

/// That two runs trained and found the same.
fn assert_same(a: &Metrics, b: &Metrics) {
    assert_eq!(a.curves.loss.points.len(), 7);
    assert_eq!(a.curves.loss, b.curves.loss);
    assert_eq!(a.curves.validation, b.curves.validation);
    assert_eq!(a.retrieval, b.retrieval);
}

#[test]
fn runs_on_shards_are_those_on_their_files() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pairs = pairs(&at("scenes"));
    let files = trained(&table(&at("files"), &pairs), &at("of-files"), &[]);
    for (name, data) in [
        ("tar", archives(&at("tar"), &pairs)),
        ("parquet", parquets(&at("parquet"), &pairs)),
    ] {
        let run = at(&format!("of-{name}"));
        // The buffer holds all pairs.
        let shards = trained(&data, &run, &[]);
        assert_same(&shards, &files);
        assert_eq!(shards.dataset.name, data.display().to_string());
        let page = fs::read_to_string(run.join("report.html")).unwrap();
        assert!(
            page.contains("data:image/") && !page.contains("no image"),
            "{name}"
        );
        // A smaller one does not.
        let buffered = trained(&data, &at(name).join("run"), &["data.shuffle_buffer=32"]);
        assert_ne!(buffered.curves.loss, files.curves.loss);
    }
}

#[test]
fn an_interrupted_run_on_shards_ends_as_one_that_was_not_and_refuses_other_shards() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut pairs = pairs(&at("scenes"));
    let data = archives(&at("tar"), &pairs);
    let buffered = ["data.shuffle_buffer=32"];
    let whole = trained(&data, &at("whole"), &buffered);

    let config = small(&data, &buffered);
    let go = |folder: Folder, interrupter: Interrupter| {
        let options = options(folder, &at("none"), &["clip"]);
        Clip::run(&config, &options, interrupter)
    };
    let ended = go(Folder::New(at("run")), stopped()).unwrap();
    assert!(matches!(ended, Ended::Interrupted));
    let resume = || Folder::Resume(at("run"));
    // Another caption, and the same pairs in other shards.
    let first = pairs[70].caption.clone();
    pairs[70].caption += " again";
    archives(&at("tar"), &pairs);
    let error = format!("{:#}", go(resume(), Interrupter::new()).err().unwrap());
    assert!(
        error.contains("other data") || error.contains("data"),
        "{error}"
    );
    pairs[70].caption = first;
    archives(&at("tar"), &pairs);
    assert!(matches!(
        go(resume(), stopped()).unwrap(),
        Ended::Interrupted
    ));
    assert!(matches!(
        go(resume(), Interrupter::new()).unwrap(),
        Ended::Reached(_)
    ));
    assert_same(&metrics(&at("run")), &whole);
}

#[test]
fn shards_are_embedded_as_their_files_and_searched() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pairs = pairs(&at("scenes"));
    let files = table(&at("files"), &pairs);
    trained(&files, &at("run"), &["schedule.steps=2"]);
    let embedded = |name: &str, data: &Path| {
        let output = at(&format!("{name}.safetensors"));
        let options = embed::Options {
            weights: at("run"),
            tokenizer: None,
            data: data.to_owned(),
            skip_bad: false,
            split: Some(Split::Test),
            output: output.clone(),
            batch_size: 4,
            device: Device::flex(),
            workers: 2,
        };
        assert!(embed(&options, &Interrupter::new()).unwrap());
        let bytes = fs::read(&output).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let rows = ["image", "text"].map(|rows| file.tensor(rows).unwrap().data().to_vec());
        (output, rows)
    };
    let (_, expected) = embedded("files", &files);
    for (name, data, inside) in [
        ("tar", archives(&at("tar"), &pairs), "4-test.tar/"),
        (
            "parquet",
            parquets(&at("parquet"), &pairs),
            "4-test.parquet/0/",
        ),
    ] {
        let (embeddings, rows) = embedded(name, &data);
        assert_eq!(rows, expected, "{name}");
        let search = Search {
            embeddings,
            weights: at("run"),
            tokenizer: None,
            texts: vec![pairs[80].caption.clone()],
            top: 20,
            device: Device::flex(),
        };
        let hits = search.run().unwrap();
        let of_first = |(path, _): &&(PathBuf, f64)| path.to_string_lossy().contains(inside);
        assert!(hits[0].pictures.iter().any(|hit| of_first(&hit)), "{name}");
        assert_eq!(search.page(&hits).matches("data:image/").count(), 20);
    }
}
