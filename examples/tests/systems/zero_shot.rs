//! Zero-shot classification, by the embeddings that `embed` gives of the same images and captions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use burn::train::Interrupter;
use burn_contrastive_examples::data::{Collection, Split};
use burn_contrastive_examples::embed::{ZeroShot, embed};
use burn_contrastive_examples::report::ZeroShotReport;
use serde_json::json;

use crate::embed::{floats, request, run};
use crate::exclusively;

const NAMES: [&str; 7] = [
    "red", "green", "blue", "circle", "square", "triangle", "none",
];

/// The class of the `index`-th image; the last has none.
fn class(index: usize) -> usize {
    index * index % 6
}

/// The captions of each class.
fn prompts() -> Vec<Vec<String>> {
    let in_templates = |text: &&str| [format!("a {text} thing"), format!("{text}, once more")];
    let texts = |name: &'static str| {
        if name == "red" {
            vec!["red", "dark"]
        } else {
            vec![name]
        }
    };
    let of = |name| texts(name).iter().flat_map(in_templates).collect();
    NAMES.map(of).to_vec()
}

fn classes(folder: &Path) -> PathBuf {
    let mut classes: Vec<_> = NAMES.map(|name| json!(name)).to_vec();
    classes[0] = json!({"name": "red", "texts": ["red", "dark"]});
    let file = folder.join("classes.json");
    let json = json!({"templates": ["a {} thing", "{}, once more"], "classes": classes});
    fs::write(&file, json.to_string()).unwrap();
    file
}

/// A table with a class for each of the run's test images, and a caption that is one of the
/// prompts; and the same images in folders.
fn data(folder: &Path, scenes: &Path) -> [PathBuf; 2] {
    let collection = Collection::read(scenes, false).unwrap();
    let images = collection.indices(Split::Test).into_iter();
    let prompts: Vec<String> = prompts().concat();
    let mut table = String::from("image\tcaption\tclass\tsplit\n");
    let folders = folder.join("folders");
    for (index, image) in images.enumerate() {
        let image = &collection.examples[image].image;
        let (class, caption) = (NAMES[class(index)], &prompts[index % prompts.len()]);
        table += &format!("{}\t{caption}\t{class}\ttest\n", image.display());
        let copy = folders.join(class).join(format!("{index:02}.png"));
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(image, copy).unwrap();
    }
    let file = folder.join("table.tsv");
    fs::write(&file, table).unwrap();
    [file, folders]
}

fn unit(row: &[f32]) -> Vec<f64> {
    let norm = row
        .iter()
        .map(|&x| f64::from(x).powi(2))
        .sum::<f64>()
        .sqrt();
    row.iter().map(|&x| f64::from(x) / norm).collect()
}

/// The cosine of each class with each image.
fn cosines(file: &[u8]) -> Vec<Vec<f64>> {
    let [images, texts] = ["image", "text"].map(|name| {
        let (_, values) = floats(file, name);
        values.chunks(12).map(unit).collect::<Vec<_>>()
    });
    let prompts = prompts();
    let all: Vec<String> = prompts.concat();
    let of = |prompt: &String| &texts[all.iter().position(|other| other == prompt).unwrap()];
    let classes = prompts.iter().map(|prompts| {
        let mut sum = vec![0.0_f32; 12];
        for prompt in prompts {
            sum.iter_mut()
                .zip(of(prompt))
                .for_each(|(sum, x)| *sum += *x as f32);
        }
        unit(&sum)
    });
    let classes: Vec<_> = classes.collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let of_image = |image: &Vec<f64>| classes.iter().map(|class| dot(image, class)).collect();
    images.iter().map(of_image).collect()
}

/// That every number is that of these cosines.
fn assert_counted(report: &ZeroShotReport, cosines: &[Vec<f64>]) {
    let rank = |(image, cosines): (usize, &Vec<f64>)| {
        let own = cosines[class(image)];
        cosines.iter().filter(|other| **other >= own).count()
    };
    let ranks: Vec<usize> = cosines.iter().enumerate().map(rank).collect();
    let percent = |of: &dyn Fn(usize) -> bool, k: usize| {
        let all = (0..ranks.len()).filter(|&image| of(image));
        let (found, missed): (Vec<_>, Vec<_>) = all.partition(|&image| ranks[image] <= k);
        100.0 * found.len() as f64 / (found.len() + missed.len()) as f64
    };
    assert_eq!((report.images, report.k), (30, 5));
    assert_eq!(report.all.top_1, percent(&|_| true, 1));
    assert_eq!(report.all.top_k, percent(&|_| true, 5));
    let mut sum = 0.0;
    for (index, found) in report.classes.iter().enumerate().take(6) {
        let of = |image| class(image) == index;
        assert_eq!(
            found.images,
            (0..30).filter(|&image| of(image)).count() as u64
        );
        if found.images > 0 {
            assert_eq!(found.scores.top_1, percent(&of, 1), "{index}");
            assert_eq!(found.scores.top_k, percent(&of, 5), "{index}");
            sum += found.scores.top_1;
        }
    }
    let seen = report.classes.iter().filter(|class| class.images > 0);
    assert!((report.mean_of_classes - sum / seen.count() as f64).abs() < 1e-9);
    let mut cells = BTreeMap::new();
    for (image, cosines) in cosines.iter().enumerate() {
        let nearest = (0..7).max_by(|&a, &b| cosines[a].total_cmp(&cosines[b]));
        *cells.entry((class(image), nearest.unwrap())).or_insert(0) += 1;
    }
    let cells = cells
        .iter()
        .map(|(&(a, b), &count)| (NAMES[a], NAMES[b], count));
    let found = report.confusion.iter();
    let found = found.map(|cell| (&*cell.class, &*cell.taken_for, cell.count));
    assert!(found.eq(cells), "{:?}", report.confusion);
}

#[test]
fn the_numbers_are_those_of_the_embeddings() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let [run, scenes] = run(folder.path(), &[]);
    let [table, folders] = data(folder.path(), &scenes);
    let output = folder.path().join("pairs.safetensors");
    assert!(embed(&request(&run, &table, &output), &Interrupter::new()).unwrap());
    let cosines = cosines(&fs::read(&output).unwrap());

    let zero_shot = ZeroShot {
        weights: run,
        tokenizer: None,
        classes: classes(folder.path()),
        data: table,
        skip_bad: false,
        split: Some(Split::Test),
        batch_size: 4,
        device: Device::flex(),
        workers: 2,
    };
    let report = zero_shot.run().unwrap();
    assert_counted(&report, &cosines);
    for example in &report.examples {
        let name = example.image.file_name().unwrap();
        assert!(example.image.is_file(), "{name:?}");
        assert_eq!(example.nearest.len(), 5);
        assert!(example.nearest.is_sorted_by(|a, b| a.1 >= b.1));
    }
    assert_eq!(report.sources.prompts, 16);

    // The same images in folders, which have their splits from hashes.
    let in_folders = ZeroShot {
        data: folders,
        split: None,
        batch_size: 7,
        ..zero_shot
    };
    let of_folders = in_folders.run().unwrap();
    assert_eq!(of_folders.all, report.all);
    assert_eq!(of_folders.classes, report.classes);
    assert_eq!(of_folders.confusion, report.confusion);
}
