use std::fs;
use std::path::PathBuf;

use burn::tensor::Device;
use tempfile::TempDir;

use super::*;
use crate::data::named::image_name;
use crate::data::testing::{Small, joined, parts};
use crate::data::{Examples, Pairs};

/// A file of two numbers for each image of a collection, whose rows go the other way.
fn written(small: &Small, folder: &TempDir) -> PathBuf {
    let count = small.collection.examples.len();
    let names = (0..count).rev();
    let names: Vec<_> = names.map(|i| image_name(&small.collection, i)).collect();
    let path = folder.path().join("features.safetensors");
    let mut writer = FeatureWriter::create(&path, &names, 2).unwrap();
    writer.push(&[0.0, 0.5, 1.0, 1.5]).unwrap();
    for row in 2..count {
        writer.push(&[row as f32, row as f32 + 0.5]).unwrap();
    }
    assert!(writer.push(&[0.0; 2]).is_err());
    writer.finish().unwrap();
    path
}

#[test]
fn an_image_is_found_by_its_name() {
    let (small, folder) = (Small::new(), tempfile::tempdir().unwrap());
    let path = written(&small, &folder);
    let file = FeatureFile::open(&path, &small.collection).unwrap();
    assert_eq!(file.width(), 2);
    let last = small.collection.examples.len() - 1;
    let row = |index: usize| vec![(last - index) as f32, (last - index) as f32 + 0.5];
    for index in [0, 1, last] {
        assert_eq!(file.feature(index).unwrap(), row(index));
    }
    let batch = file.batch(&[3, 1], &Device::flex()).unwrap().into_data();
    assert_eq!(
        batch.iter::<f32>().collect::<Vec<_>>(),
        [row(3), row(1)].concat()
    );

    // Halves are read as they are: in a file of as many names.
    let (header, content) = parts(&path);
    let size = content.len();
    let header = header.replace("F32", "F16");
    let header = header.replace(&format!(",{size}]"), &format!(",{}]", size / 2));
    let halves = content.as_chunks().0.iter();
    let halves = halves.flat_map(|&x| half::f16::from_f32(f32::from_le_bytes(x)).to_le_bytes());
    fs::write(&path, joined(&header, &halves.collect::<Vec<_>>())).unwrap();
    let file = FeatureFile::open(&path, &small.collection).unwrap();
    assert_eq!(file.feature(1).unwrap(), row(1));
}

#[test]
fn pairs_have_the_same_captions_with_features_as_with_pixels() {
    let (small, folder) = (Small::new(), tempfile::tempdir().unwrap());
    let pairs = Pairs::new(
        small.collection.clone(),
        small.tokenizer.clone(),
        small.transform.clone(),
    );
    let pairs = pairs.unwrap();
    let file = FeatureFile::open(&written(&small, &folder), &small.collection).unwrap();
    let feature = file.feature(5).unwrap();
    let with = FeaturePairs::new(pairs.clone(), Some(file.into()));
    let [with, without] = [with, FeaturePairs::new(pairs, None)].map(|all| all.load(5, None));
    let (with, without) = (with.unwrap(), without.unwrap());
    assert_eq!(with.tokens, without.tokens);
    assert_eq!(with.image, Seen::Feature(feature));
    assert!(matches!(without.image, Seen::Pixels(pixels) if pixels.len() == 3 * 8 * 8));
}

#[test]
fn hostile_files_are_refused_by_name() {
    let (small, folder) = (Small::new(), tempfile::tempdir().unwrap());
    let path = written(&small, &folder);
    let (header, content) = parts(&path);
    let count = small.collection.examples.len();
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let read = FeatureFile::open(&path, &small.collection).and_then(|file| {
            let all = (0..count).map(|index| file.feature(index));
            all.collect::<Result<Vec<_>>>()
        });
        format!("{:#}", read.expect_err("it is hostile"))
    };
    let changed = |from: &str, to: &str| {
        assert!(header.contains(from), "{header}");
        refused(&joined(&header.replace(from, to), &content))
    };
    let bad = [&f32::NAN.to_le_bytes(), &content[4..]].concat();
    let shape = format!("[{count},2]");
    let names = [0, 1].map(|index| image_name(&small.collection, index));
    for (message, expected) in [
        (refused(b""), "is empty"),
        (refused(b"not a tensor file"), "is not a safetensors file"),
        (refused(&joined(&header, &content[1..])), "cut off"),
        (
            changed("\"features\"", "\"feature\""),
            "no tensor `features`",
        ),
        (changed("F32", "I32"), "`features` is I32"),
        (
            changed(&shape, &format!("[{count},2,1]")),
            "must have 2 dimensions",
        ),
        (
            changed(&shape, &format!("[2,{count}]")),
            "names for the 2 images",
        ),
        (changed("names", "titles"), "metadata have no `names`"),
        (changed(&names[0], "other.png"), "no row for"),
        (changed(&names[0], &names[1]), "are both of"),
        (
            refused(&joined(&header, &bad)),
            "row 0: `features` holds NaN at 0",
        ),
    ] {
        assert!(message.contains(expected), "{expected}: {message}");
        assert!(message.contains("features.safetensors"), "{message}");
    }
}

#[test]
fn a_file_that_is_not_whole_gets_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("features.safetensors");
    let names = ["a.png".to_string(), "b.png".to_string()];
    let mut writer = FeatureWriter::create(&path, &names, 3).unwrap();
    assert!(writer.push(&[1.0; 2]).is_err());
    writer.push(&[1.0; 3]).unwrap();
    let message = format!("{:#}", writer.finish().unwrap_err());
    assert!(message.contains("1 of 2 rows"), "{message}");
    assert!(!path.exists());
}
