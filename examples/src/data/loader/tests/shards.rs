//! Images that lie in shards.

use std::fs;
use std::path::Path;

use super::*;
use crate::data::testing::archive;

/// The pictures and captions of a small set in four shards, all for training.
fn in_shards(small: &Small, folder: &Path) -> Arc<Collection> {
    for (number, part) in small.collection.examples.chunks(15).enumerate() {
        let members: Vec<(String, Vec<u8>)> = part
            .iter()
            .flat_map(|example| {
                let path = example.image.path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let caption = example.captions[0].clone().into_bytes();
                let text = (name.replace(".png", ".txt"), caption);
                [(name, fs::read(path).unwrap()), text]
            })
            .collect();
        let members: Vec<_> = members
            .iter()
            .map(|(name, of)| (name.as_str(), of.as_slice()))
            .collect();
        let file = folder.join(format!("train-{number}.tar"));
        archive(&file, &members);
    }
    Arc::new(Collection::read(folder, false).unwrap())
}

#[test]
fn images_in_shards_come_buffer_by_buffer_once_an_epoch_from_anywhere() {
    let mut small = Small::new();
    let dir = tempfile::tempdir().unwrap();
    small.collection = in_shards(&small, dir.path());
    let buffered = LoaderConfig {
        shuffle_buffer: Some(12),
        ..config(2)
    };
    let loader = training(&small, buffered.clone());
    let all = epochs(&loader, 2);
    for epoch in &all {
        assert_eq!(epoch.len(), 57 / BATCH);
        let mut seen: Vec<usize> = epoch.iter().flat_map(|batch| ids(batch)).collect();
        // Two batches are made of twelve pairs that lie behind each other, in two shards at most.
        for buffer in seen.chunks_exact(12) {
            let mut buffer = buffer.to_vec();
            buffer.sort_unstable();
            let pieces = buffer.chunk_by(|a, b| a + 1 == *b && a / 15 == b / 15);
            assert!(pieces.count() <= 3, "{buffer:?}");
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 54);
    }
    assert_ne!(all[0], all[1]);
    // From the middle, and in two parts.
    let loader = training(&small, buffered.clone());
    loader.seek(1, 5);
    assert_eq!(epoch(&loader), all[1][5..]);
    let parts = [0, 1].map(|worker| {
        let part = LoaderConfig {
            part: [worker, 2],
            ..buffered.clone()
        };
        epochs(&training(&small, part), 2)
    });
    for (number, whole) in all.iter().enumerate() {
        for (at, batch) in whole.iter().enumerate() {
            let both = [&parts[0][number][at][..], &parts[1][number][at]].concat();
            assert_eq!(both, *batch);
        }
    }
}

#[test]
fn a_buffer_of_all_pairs_makes_the_batches_of_images_that_are_files() {
    let mut small = Small::new();
    let collection = Arc::make_mut(&mut small.collection);
    for example in &mut collection.examples {
        example.captions.truncate(1);
        (example.split, example.scene) = (Split::Train, None);
    }
    let files = epochs(&training(&small, config(2)), 2);
    let dir = tempfile::tempdir().unwrap();
    small.collection = in_shards(&small, dir.path());
    // Without a setting it holds 10,000.
    assert_eq!(epochs(&training(&small, config(2)), 2), files);
    let smaller = LoaderConfig {
        shuffle_buffer: Some(56),
        ..config(2)
    };
    assert_ne!(epochs(&training(&small, smaller), 2), files);
}
