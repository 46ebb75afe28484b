use super::*;
use crate::data::testing::{Small, truncate};

const BATCH: usize = 6;

fn config(workers: usize) -> LoaderConfig {
    LoaderConfig {
        batch_size: BATCH,
        workers,
        prefetch: 3,
        seed: 11,
        equal_meaning: 0.0,
    }
}

fn training(small: &Small, config: LoaderConfig) -> PairLoader {
    let (collection, tokenizer) = (small.collection.clone(), small.tokenizer.clone());
    PairLoader::new(
        collection,
        Split::Train,
        tokenizer,
        small.transform.clone(),
        config,
        &Device::default(),
    )
    .unwrap()
}

/// Everything that a batch holds, to compare.
#[derive(Debug, PartialEq)]
struct Content {
    images: Vec<f32>,
    tokens: Vec<i64>,
    padding: Vec<bool>,
    ids: Vec<usize>,
}

fn content(batch: Batch) -> Content {
    Content {
        images: batch
            .images
            .into_data()
            .convert::<f32>()
            .try_into_vec()
            .unwrap(),
        tokens: batch
            .tokens
            .into_data()
            .convert::<i64>()
            .try_into_vec()
            .unwrap(),
        padding: batch
            .padding
            .into_data()
            .convert::<bool>()
            .try_into_vec()
            .unwrap(),
        ids: batch.image_ids,
    }
}

fn epoch(loader: &PairLoader) -> Vec<Content> {
    loader.iter().map(|batch| content(batch.unwrap())).collect()
}

fn epochs(loader: &PairLoader, count: usize) -> Vec<Vec<Content>> {
    (0..count).map(|_| epoch(loader)).collect()
}

#[test]
fn batches_are_the_same_for_any_number_of_threads() {
    let small = Small::new();
    let one = epochs(&training(&small, config(1)), 2);
    for workers in [2, 5] {
        assert_eq!(
            one,
            epochs(
                &training(
                    &small,
                    LoaderConfig {
                        prefetch: 1 + workers,
                        ..config(workers)
                    }
                ),
                2
            )
        );
    }
    assert_ne!(one[0], one[1]);
    assert_ne!(
        one[0],
        epoch(&training(
            &small,
            LoaderConfig {
                seed: 12,
                ..config(1)
            }
        ))
    );
}

#[test]
fn seeking_yields_the_rest_of_an_uninterrupted_run() {
    let small = Small::new();
    let whole = epochs(&training(&small, config(2)), 3);
    let loader = training(&small, config(3));
    for (epoch_number, batch) in [(1, 0), (1, 4), (0, 5), (2, 6)] {
        loader.seek(epoch_number, batch);
        assert_eq!(epoch(&loader), whole[epoch_number][batch..]);
    }
    loader.seek(1, 2);
    assert_eq!(epochs(&loader, 2), [&whole[1][2..], &whole[2][..]]);
}

#[test]
fn seeking_decodes_nothing_of_what_it_skips() {
    let small = Small::new();
    let loader = training(&small, config(2));
    let order: Vec<Vec<usize>> = epoch(&loader).into_iter().map(|batch| batch.ids).collect();
    for &skipped in order[..4].iter().flatten() {
        std::fs::remove_file(&small.collection.examples[skipped].image).unwrap();
    }
    loader.seek(0, 4);
    assert_eq!(
        loader
            .iter()
            .map(|batch| batch.unwrap().image_ids)
            .collect::<Vec<_>>(),
        order[4..]
    );
}

#[test]
#[should_panic(expected = "beyond the 6 batches")]
fn seeking_past_the_epoch_panics() {
    let small = Small::new();
    training(&small, config(1)).seek(0, 7);
}

#[test]
fn an_epoch_is_full_batches_of_distinct_images_and_progress_counts_them() {
    let small = Small::new();
    let loader = training(&small, config(2));
    assert_eq!((loader.batches_per_epoch(), loader.num_items()), (6, 36));
    loader.seek(0, 1);
    let mut batches = loader.iter();
    let mut seen = std::collections::HashSet::new();
    assert_eq!(batches.progress().items_processed, 6);
    for batch in batches.by_ref() {
        let batch = batch.unwrap();
        assert_eq!(batch.images.dims(), [BATCH, 3, 8, 8]);
        assert_eq!(batch.tokens.dims(), batch.padding.dims());
        assert!(
            batch
                .image_ids
                .iter()
                .all(|&id| seen.insert(id) && small.collection.examples[id].split == Split::Train)
        );
    }
    assert_eq!(seen.len(), 30);
    assert!(batches.progress().is_completed());
    assert_eq!(batches.progress().items_total, 36);
}

#[test]
fn meanings_in_a_batch_are_shared_as_configured() {
    let small = Small::new();
    for (share, expected) in [(0.0, 0), (1.0 / 3.0, 2), (0.5, 3), (1.0, 6)] {
        let loader = training(
            &small,
            LoaderConfig {
                equal_meaning: share,
                ..config(2)
            },
        );
        for batch in epochs(&loader, 3).into_iter().flatten() {
            let meanings: Vec<_> = batch
                .ids
                .iter()
                .map(|&id| small.collection.examples[id].meaning().unwrap())
                .collect();
            let sharing = meanings
                .iter()
                .filter(|a| meanings.iter().filter(|b| a == b).count() > 1)
                .count();
            assert_eq!(sharing, expected, "share {share}");
        }
    }
}

#[test]
fn tokens_are_a_caption_of_their_image_and_padding_is_true_exactly_beyond_it() {
    let small = Small::new();
    let mut drawn = std::collections::HashSet::new();
    for batch in epochs(&training(&small, config(2)), 6)
        .into_iter()
        .flatten()
    {
        let length = batch.tokens.len() / BATCH;
        for (row, &id) in batch.ids.iter().enumerate() {
            let tokens = &batch.tokens[row * length..][..length];
            let padding = &batch.padding[row * length..][..length];
            let real: Vec<u32> = tokens
                .iter()
                .zip(padding)
                .filter(|(_, pad)| !**pad)
                .map(|(&id, _)| id as u32)
                .collect();
            let captions = &small.collection.examples[id].captions;
            let caption = captions
                .iter()
                .position(|caption| small.tokenizer.encode(caption).unwrap() == real);
            drawn.insert(caption.expect("a caption of the image"));
            assert!(
                padding.is_sorted() && real.len() == padding.iter().filter(|pad| !**pad).count()
            );
            assert!(
                tokens[real.len()..]
                    .iter()
                    .all(|&id| id == i64::from(small.tokenizer.pad_id()))
            );
        }
    }
    assert_eq!(drawn.len(), 5, "every caption has its turn");
}

#[test]
fn validation_goes_in_order_and_keeps_the_last_batch() {
    let small = Small::new();
    let (collection, tokenizer) = (small.collection.clone(), small.tokenizer.clone());
    let loader = PairLoader::in_order(
        collection,
        Split::Validation,
        tokenizer,
        small.transform.clone(),
        config(2),
        &Device::default(),
    )
    .unwrap();
    let batches = epochs(&loader, 2);
    assert_eq!(batches[0], batches[1]);
    let ids: Vec<usize> = batches[0]
        .iter()
        .flat_map(|batch| batch.ids.clone())
        .collect();
    assert_eq!(ids, small.collection.indices(Split::Validation));
    assert_eq!((batches[0].len(), loader.num_items()), (2, 7));
}

#[test]
fn a_file_that_breaks_off_is_an_error_that_names_file_and_row() {
    let small = Small::new();
    truncate(&small.collection.examples[3].image);
    let loader = training(
        &small,
        LoaderConfig {
            equal_meaning: 0.0,
            ..config(2)
        },
    );
    let error = (0..5)
        .find_map(|_| loader.iter().find_map(Result::err))
        .expect("an epoch holds 36 of 40 images")
        .to_string();
    assert!(
        error.contains("000003.png") && error.contains("dataset.json, images[3]"),
        "{error}"
    );
}

#[test]
fn an_error_ends_the_epoch() {
    let small = Small::new();
    for example in &small.collection.examples {
        truncate(&example.image);
    }
    let loader = training(&small, config(2));
    let mut batches = loader.iter();
    assert!(batches.next().unwrap().is_err());
    assert!(batches.next().is_none());
}

#[test]
fn slices_and_copies_for_other_devices_yield_only_their_images() {
    let small = Small::new();
    let loader = training(&small, config(2));
    let slice = loader.slice(10, 25);
    assert_eq!(slice.num_items(), 12);
    let train = small.collection.indices(Split::Train);
    for batch in slice.iter() {
        assert!(
            batch
                .unwrap()
                .image_ids
                .iter()
                .all(|id| train[10..25].contains(id))
        );
    }
    let whole = epochs(&training(&small, config(2)), 2);
    let moved = loader.to_device(&Device::default());
    assert_eq!(epoch(&loader), whole[0]);
    assert_eq!(
        moved
            .iter()
            .map(|batch| content(batch.unwrap()))
            .collect::<Vec<_>>(),
        whole[1]
    );
}

#[test]
fn dropping_an_epoch_early_does_not_hang_and_the_next_one_is_whole() {
    let small = Small::new();
    let whole = epochs(&training(&small, config(1)), 2);
    let loader = training(
        &small,
        LoaderConfig {
            prefetch: 1,
            ..config(4)
        },
    );
    {
        let mut batches = loader.iter();
        batches.next();
    }
    assert_eq!(epoch(&loader), whole[1]);
}

#[test]
fn settings_out_of_range_are_named() {
    let small = Small::new();
    let bad = [
        (
            LoaderConfig {
                batch_size: 0,
                ..config(1)
            },
            "batch_size is 0",
        ),
        (config(0), "workers is 0"),
        (
            LoaderConfig {
                equal_meaning: 1.5,
                ..config(1)
            },
            "equal_meaning is 1.5",
        ),
        (
            LoaderConfig {
                batch_size: 41,
                ..config(1)
            },
            "lower data.batch_size from 41",
        ),
    ];
    for (config, expected) in bad {
        let (collection, tokenizer) = (small.collection.clone(), small.tokenizer.clone());
        let result = PairLoader::new(
            collection,
            Split::Train,
            tokenizer,
            small.transform.clone(),
            config,
            &Device::default(),
        );
        let error = result.err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
