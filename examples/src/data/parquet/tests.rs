use std::fs;

use rayon::prelude::*;

use crate::data::testing::{
    ROWS, bad_beside_a_good_one, captions, leaf, parquet, png, refusal, rows, truncate,
};
use crate::data::{Collection, Pictures, decode};

/// Columns with lists of captions, and splits.
const MANY: &str = "message m { optional group image { optional binary bytes; optional binary \
                    path (UTF8); } optional group captions (LIST) { repeated group list { optional \
                    binary element (UTF8); } } optional binary split (UTF8); }";

#[test]
fn a_table_of_parquet_is_read_row_by_row() {
    let dir = tempfile::tempdir().unwrap();
    let images = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [3, 2, 1]].map(png);
    let bytes = |range: std::ops::Range<usize>| {
        let images: Vec<_> = images[range]
            .iter()
            .map(|image| Some(image.as_slice()))
            .collect();
        leaf(&images, 2, 1)
    };
    let file = dir.path().join("rows.parquet");
    // Lists of two, one with a null, and one.
    let captions_of = |values: Vec<&'static [u8]>, defined: &[i16], repeated: &[i16]| {
        (values, defined.to_vec(), repeated.to_vec())
    };
    parquet(
        &file,
        MANY,
        &[
            vec![
                bytes(0..3),
                leaf(&[Some(b"coco/a.jpg"), None, Some(b"")], 2, 1),
                captions_of(
                    vec![b" one ", b"two", b"three", b"four"],
                    &[3, 3, 2, 3, 3],
                    &[0, 1, 0, 1, 0],
                ),
                leaf(&[Some(b"train"), Some(b"validation"), Some(b"test")], 1, 0),
            ],
            vec![
                bytes(3..4),
                leaf(&[Some(b"d.jpg")], 2, 1),
                captions_of(vec![b"five"], &[3], &[0]),
                leaf(&[Some(b"TEST")], 1, 0),
            ],
        ],
    );
    let collection = Collection::read(&file, false).unwrap();
    assert_eq!(
        captions(&collection),
        [
            vec!["one", "two"],
            vec!["three"],
            vec!["four"],
            vec!["five"]
        ]
    );
    let splits: Vec<_> = collection
        .examples
        .iter()
        .map(|one| one.split.name())
        .collect();
    assert_eq!(splits, ["train", "val", "test", "test"]);
    let names = ["0/a.jpg", "1/rows-1", "2/rows-2", "3/d.jpg"];
    let mut pictures = Pictures::default();
    for (index, image) in images.iter().enumerate() {
        let alone = dir.path().join("alone.png");
        fs::write(&alone, image).unwrap();
        let expected = decode(&alone).unwrap();
        assert_eq!(collection.decode(index).unwrap(), expected);
        let path = collection.examples[index].image.path();
        assert_eq!(path, file.join(names[index]));
        assert_eq!(pictures.find(path).unwrap().decode().unwrap(), expected);
    }
    assert_eq!(collection.shards(&[0, 1, 3]), Some(vec![0, 0, 1]));
    assert!(pictures.find(&file.join("4/x")).is_err());
    assert!(pictures.find(&file.join("x")).is_err());
}

#[test]
fn bad_rows_of_parquet_are_named_and_left_out_when_skipping() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("train-0.parquet");
    let good = png([1; 3]);
    let a = |caption| -> [Option<&[u8]>; 2] { [Some(b"a"), caption] };
    let broken: &[u8] = &good[..40];
    for (image, caption, expected) in [
        (None, Some(&b"b"[..]), "cannot read image"),
        (None, Some(b"b"), "it is null"),
        (Some(broken), Some(b"b"), "train-0.parquet/1/train-0-1"),
        (Some(b"no image"), Some(b"b"), "The image format"),
        (Some(&good), None, "it has no caption"),
        (Some(&good), Some(b" "), "a caption is blank"),
        (Some(&good), Some(b"\xff"), "not valid UTF-8"),
    ] {
        let images = leaf(&[Some(&good), image], 2, 1);
        let rows = vec![images, leaf(&[None, None], 2, 0), leaf(&a(caption), 1, 0)];
        parquet(&file, ROWS, &[rows]);
        bad_beside_a_good_one(&file, "train-0.parquet, row 1: ", expected);
    }
}

#[test]
fn a_table_without_images_or_captions_says_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("train.parquet");
    for schema in [
        "message m { required binary image; required binary words (UTF8); }",
        "message m { required binary image (UTF8); required binary caption (UTF8); }",
        "message m { required group image { required binary path; } required binary caption; }",
        "message m { required group caption { required binary en; required binary de; } \
         required group image { required binary bytes; } }",
    ] {
        parquet(&file, schema, &[]);
        let error = refusal(&file);
        assert!(
            error.contains("train.parquet: it needs a column `image` of bytes")
                && error.contains("it has ")
                && error.contains("(BYTE_ARRAY), "),
            "{error}"
        );
    }
    let schema = "message m { required binary jpg; required binary text; required int32 split; }";
    parquet(&file, schema, &[]);
    assert!(refusal(&file).contains("`split` holds no strings"));
    parquet(&file, ROWS, &[]);
    assert!(refusal(&file).contains("gives no usable image"));
}

#[test]
fn no_damage_to_a_table_is_more_than_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("train.parquet");
    let pairs: Vec<_> = (0..5).map(|index| (png([index; 3]), "a caption")).collect();
    parquet(&file, ROWS, &[rows(&pairs[..3]), rows(&pairs[3..])]);
    let whole = fs::read(&file).unwrap();
    for length in (0..whole.len()).step_by(13) {
        fs::write(&file, &whole[..length]).unwrap();
        assert!(refusal(&file).contains("train.parquet: "), "{length}");
    }
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&file, flipped).unwrap();
        // Good or bad; it may be a letter of a caption.
        let _ = Collection::read(&file, false);
        let _ = Collection::read(&file, true);
    }
    fs::write(&file, &whole).unwrap();
    assert_eq!(Collection::read(&file, false).unwrap().examples.len(), 5);
    truncate(&file);
    assert!(Collection::read(&file, true).is_err());
}

#[test]
fn images_are_read_from_many_threads_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let pairs: Vec<_> = (0..250)
        .map(|index| (png([index; 3]), "a caption"))
        .collect();
    for (file, range) in [("train-0.parquet", 0..201), ("train-1.parquet", 201..250)] {
        let groups: Vec<_> = pairs[range].chunks(120).map(rows).collect();
        parquet(&dir.path().join(file), ROWS, &groups);
    }
    let collection = Collection::read(dir.path(), false).unwrap();
    let order: Vec<usize> = (0..1000).map(|index| index * 77 % 250).collect();
    order.par_iter().for_each(|&index| {
        let pixel = collection.decode(index).unwrap().get_pixel(0, 0).0;
        assert_eq!(pixel, [index as u8; 3]);
    });
    let all: Vec<usize> = (0..250).collect();
    let shards = collection.shards(&all).unwrap();
    let sizes: Vec<_> = shards.chunk_by(|a, b| a == b).map(<[_]>::len).collect();
    assert_eq!(sizes, [120, 81, 49]);
}
