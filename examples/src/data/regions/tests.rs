use std::fs;
use std::path::PathBuf;

use burn::tensor::Device;
use tempfile::TempDir;

use super::*;
use crate::data::testing::{Small, joined, parts};
use crate::data::{Examples, Pairs, Split, TransformConfig};

/// A file for all images of a collection, three regions at most and features of two numbers.
fn written(small: &Small, folder: &TempDir) -> PathBuf {
    written_with(small, folder, &[])
}

/// Likewise, whose regions show one of these after the other, if there are any.
fn written_with(small: &Small, folder: &TempDir, names_of_classes: &[&str]) -> PathBuf {
    let count = small.collection.examples.len();
    let names: Vec<_> = (0..count)
        .map(|i| image_name(&small.collection, i))
        .collect();
    // Not in the order of the collection.
    let names: Vec<_> = names.into_iter().rev().collect();
    let boxes = |row: usize| vec![[0.0, 0.25, 0.5, 1.0]; 1 + row % 3];
    let boxes: Vec<_> = (0..count).map(boxes).collect();
    let path = folder.path().join("regions.safetensors");
    let class = |(row, boxes): (usize, &Vec<_>)| -> Vec<usize> {
        let regions = 0..boxes.len();
        regions
            .map(|region| (row + region) % names_of_classes.len())
            .collect()
    };
    let classes = (!names_of_classes.is_empty()).then(|| Classes {
        names: names_of_classes.iter().map(ToString::to_string).collect(),
        of_regions: boxes.iter().enumerate().map(class).collect(),
    });
    let writer = RegionWriter::with_classes(&path, &names, boxes.clone(), 2, classes.as_ref());
    let mut writer = writer.unwrap();
    for (row, boxes) in boxes.iter().enumerate() {
        writer.push(&vec![row as f32; 2 * boxes.len()]).unwrap();
    }
    writer.finish().unwrap();
    path
}

#[test]
fn an_image_is_found_by_its_name() {
    let (small, folder) = (Small::new(), tempfile::tempdir().unwrap());
    let path = written(&small, &folder);
    let file = RegionFile::open(&path, &small.collection).unwrap();
    let count = small.collection.examples.len();
    for index in [0, 1, count - 1] {
        let row = count - 1 - index;
        let regions = file.regions(index).unwrap();
        assert_eq!(regions.features, vec![row as f32; 2 * (1 + row % 3)]);
        assert_eq!(regions.boxes, vec![[0.0, 0.25, 0.5, 1.0]; 1 + row % 3]);
        assert_eq!(regions.positions()[..6], [0.0, 0.25, 0.5, 1.0, 0.5, 0.75]);
    }
}

#[test]
fn every_value_counts_in_the_fingerprint() {
    let (small, folder) = (Small::new(), tempfile::tempdir().unwrap());
    let path = written(&small, &folder);
    let fingerprint = || {
        let file = RegionFile::open(&path, &small.collection).unwrap();
        let first = file.fingerprint().unwrap();
        // What was read before or after does not.
        file.regions(0).unwrap();
        assert_eq!(file.fingerprint().unwrap(), first);
        first
    };
    let before = fingerprint();
    let whole = fs::read(&path).unwrap();
    // The last number, and a side of the first box.
    let boxes = whole.len() - parts(&path).1.len() + 4 * small.collection.examples.len();
    for at in [whole.len() - 1, boxes + 8] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).unwrap();
        assert_ne!(fingerprint(), before, "byte {at}");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(fingerprint(), before);
}

#[test]
fn regions_become_tensors_padded_to_the_image_with_most() {
    let image = |count: usize| Regions {
        features: (0..2 * count).map(|x| x as f32 + 1.0).collect(),
        boxes: vec![[0.0, 0.0, 0.5, 1.0]; count],
    };
    let images = [image(1), image(2)];
    let batch = RegionBatch::new(images.iter(), 2, &Device::default());
    let values: Vec<f32> = batch.regions.into_data().try_into_vec().unwrap();
    let position = [0.0, 0.0, 0.5, 1.0, 0.5, 1.0];
    let region = |a, b| [&[a, b][..], &position].concat();
    let expected = [
        region(1.0, 2.0),
        vec![0.0; 8],
        region(1.0, 2.0),
        region(3.0, 4.0),
    ];
    assert_eq!(values, expected.concat());
    let padding: Vec<bool> = batch.padding.into_data().iter::<bool>().collect();
    assert_eq!(padding, [false, true, false, false]);
}

#[test]
fn nothing_is_loaded_before_the_file_is_there() {
    let (small, folder) = (Small::new(), tempfile::tempdir().unwrap());
    let pairs = {
        let transform = TransformConfig::default();
        let pairs = Pairs::new(small.collection.clone(), small.tokenizer.clone(), transform);
        RegionPairs::new(pairs.unwrap())
    };
    let error = pairs.load(0, None).unwrap_err().to_string();
    assert!(error.contains("no file of regions yet"), "{error}");
    let path = written(&small, &folder);
    pairs.give(RegionFile::open(&path, &small.collection).unwrap());
    let pair = pairs.load(3, None).unwrap();
    assert_eq!(pair.image_id, 3);
    let caption = &small.collection.examples[3].captions[0];
    assert_eq!(pair.tokens, small.tokenizer.encode(caption).unwrap());
    assert_eq!(
        pairs.indices(Split::Test),
        small.collection.indices(Split::Test)
    );
}

#[test]
fn what_regions_show_is_read_in_words() {
    let (small, folder) = (Small::new(), tempfile::tempdir().unwrap());
    let path = written_with(&small, &folder, &["red circle", "green square"]);
    let file = RegionFile::open(&path, &small.collection).unwrap();
    let last = small.collection.examples.len() - 1;
    assert!(file.has_tags());
    // Rows 0 to 2 have one to three regions.
    for (row, expected) in [
        "red circle",
        "green square red circle",
        "red circle green square red circle",
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(file.tags(last - row).unwrap(), *expected);
        assert_eq!(file.regions(last - row).unwrap().boxes.len(), row + 1);
    }

    let transform = TransformConfig::default();
    let pairs = Pairs::new(small.collection.clone(), small.tokenizer.clone(), transform);
    let pairs = RegionPairs::new(pairs.unwrap());
    pairs.give(file);
    assert!(pairs.load(last, None).unwrap().tags.is_empty());
    let pairs = pairs.with_tags(true);
    let tags = pairs.load(last - 1, None).unwrap().tags;
    let whole = small.tokenizer.encode("green square red circle").unwrap();
    assert_eq!(tags, whole[1..]);
    assert_eq!(tags.last(), small.tokenizer.token_to_id("[SEP]").as_ref());

    // Padded to the longest, and left out where there are none.
    let batch = |tags: &[Vec<u32>]| {
        let images = tags.iter().map(|_| Regions {
            features: vec![1.0; 2],
            boxes: vec![[0.0, 0.0, 0.5, 1.0]],
        });
        let images: Vec<_> = images.collect();
        let batch = RegionBatch::new(images.iter(), 2, &Device::flex());
        batch.with_tags(tags, pairs.padding(), &Device::flex()).tags
    };
    let found = batch(&[tags.clone(), tags[1..].to_vec()]).unwrap();
    assert_eq!(found.tokens.dims(), [2, 8]);
    let hidden: Vec<bool> = found.padding.into_data().iter::<bool>().collect();
    let expected = [tags.len(), tags.len() - 1].map(|count| (0..8).map(move |at| at >= count));
    assert_eq!(hidden, expected.into_iter().flatten().collect::<Vec<_>>());
    assert!(batch(&[Vec::new(), Vec::new()]).is_none());
}

#[test]
fn a_file_that_does_not_say_what_regions_show_has_no_tags() {
    let (small, folder) = (Small::new(), tempfile::tempdir().unwrap());
    let path = written(&small, &folder);
    let file = RegionFile::open(&path, &small.collection).unwrap();
    assert!(!file.has_tags());
    let error = file.tags(0).unwrap_err().to_string();
    assert!(error.contains("it has no `class`"), "{error}");
}

fn refused(small: &Small, content: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("regions.safetensors");
    fs::write(&path, content).unwrap();
    let opened = RegionFile::open(&path, &small.collection);
    let read = opened.and_then(|file| file.check());
    format!("{:#}", read.expect_err("it is hostile"))
}

#[test]
fn hostile_files_are_refused_by_name() {
    let (small, folder) = (Small::new(), tempfile::tempdir().unwrap());
    let path = written(&small, &folder);
    let (header, content) = parts(&path);
    let images = small.collection.examples.len();
    let changed = |from: &str, to: &str| {
        assert!(header.contains(from), "{header}");
        refused(&small, &joined(&header.replace(from, to), &content))
    };
    let with = |at: usize, bytes: &[u8]| {
        let mut content = content.clone();
        content[at..at + bytes.len()].copy_from_slice(bytes);
        refused(&small, &joined(&header, &content))
    };
    let boxes = 4 * images;
    let features = boxes + 4 * 4 * 3 * images;
    for (message, expected) in [
        (refused(&small, b""), "is empty"),
        (
            refused(&small, b"not a tensor file"),
            "is not a safetensors file",
        ),
        (refused(&small, &joined(&header, &content[1..])), "cut off"),
        (
            changed("\"features\"", "\"feature\""),
            "no tensor `features`",
        ),
        (changed("names", "titles"), "metadata have no `names`"),
        (changed("[\\\"0", "[\\\"1"), "no row for"),
        (
            changed("\"I32\"", "\"F32\""),
            "`count` is F32, it must be one of [I32, I64]",
        ),
        (
            changed(&format!("[{images},3,4]"), &format!("[{images},4,3]")),
            "`boxes` has shape",
        ),
        (with(0, &7i32.to_le_bytes()), "is 7; it must lie in 1..=3"),
        (with(0, &0i32.to_le_bytes()), "is 0; it must lie in 1..=3"),
        (
            with(boxes, &0.5f32.to_le_bytes()),
            "row 0: the box of region 0 is [0.5, ",
        ),
        (with(boxes, &f32::NAN.to_le_bytes()), "0 ≤ x0 < x1 ≤ 1"),
        (
            with(features, &f32::NAN.to_le_bytes()),
            "holds NaN in region 0",
        ),
    ] {
        assert!(message.contains(expected), "{expected}: {message}");
    }
    let name = image_name(&small.collection, 0);
    let twice = header.replace(&image_name(&small.collection, 1), &name);
    let message = refused(&small, &joined(&twice, &content));
    assert!(message.contains("are both of"), "{message}");
}

#[test]
fn hostile_classes_are_refused_by_name() {
    let (small, folder) = (Small::new(), tempfile::tempdir().unwrap());
    let path = written_with(&small, &folder, &["red circle", "green square"]);
    let (header, content) = parts(&path);
    let images = small.collection.examples.len();
    let changed = |from: &str, to: &str| {
        assert!(header.contains(from), "{header}");
        refused(&small, &joined(&header.replace(from, to), &content))
    };
    let first = 4 * images;
    let with = |class: i32| {
        let mut content = content.clone();
        content[first..first + 4].copy_from_slice(&class.to_le_bytes());
        refused(&small, &joined(&header, &content))
    };
    let shape = format!("\"shape\":[{images},3]");
    for (message, expected) in [
        (
            with(2),
            "row 0: `class` of region 0 is 2; it must lie in 0..=1",
        ),
        (with(-1), "is -1; it must lie in 0..=1"),
        (
            changed("\"classes\"", "\"kinds\""),
            "metadata have no `classes`",
        ),
        (
            changed("[\\\"red circle\\\"", "[7"),
            "no JSON array of names of classes",
        ),
        (changed("red circle", " "), "none of them blank"),
        (
            changed(&shape, &format!("\"shape\":[3,{images}]")),
            "`class` has shape",
        ),
    ] {
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn a_file_that_is_not_whole_gets_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("regions.safetensors");
    let boxes = vec![vec![[0.0, 0.0, 1.0, 1.0]]; 2];
    let names = ["a.png".to_string(), "b.png".to_string()];
    let classes = Classes {
        names: vec!["dog".to_string()],
        of_regions: vec![vec![0], vec![0, 0]],
    };
    let error = RegionWriter::with_classes(&path, &names, boxes.clone(), 3, Some(&classes)).err();
    let error = error.unwrap().to_string();
    assert!(error.contains("a class of each region"), "{error}");
    let mut writer = RegionWriter::create(&path, &names, boxes, 3).unwrap();
    assert!(writer.push(&[1.0; 2]).is_err());
    writer.push(&[1.0; 3]).unwrap();
    let message = format!("{:#}", writer.finish().unwrap_err());
    assert!(message.contains("1 of 2 rows"), "{message}");
    assert!(!path.exists());
}
