mod shards;

use super::*;
use crate::data::testing::{Small, truncate};
use crate::data::{Batch, Pair};

const BATCH: usize = 6;

fn config(workers: usize) -> LoaderConfig {
    LoaderConfig {
        batch_size: BATCH,
        shard: BATCH,
        part: [0, 1],
        workers,
        prefetch: 3,
        seed: 11,
        equal_meaning: 0.0,
        shuffle_buffer: None,
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
    )
    .unwrap()
}

/// The pairs of a batch, whatever its shards.
fn pairs(batch: Result<Vec<Shard>, DatasetError>) -> Vec<Pair> {
    let shards = batch.unwrap().into_iter();
    shards.flat_map(|shard| shard.items).collect()
}

fn ids(batch: &[Pair]) -> Vec<usize> {
    batch.iter().map(|pair| pair.image_id).collect()
}

fn epoch(loader: &PairLoader) -> Vec<Vec<Pair>> {
    loader.iter().map(pairs).collect()
}

fn epochs(loader: &PairLoader, count: usize) -> Vec<Vec<Vec<Pair>>> {
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
fn a_batch_is_the_same_in_shards_of_any_size() {
    let small = Small::new();
    let whole = epoch(&training(&small, config(2)));
    for (shard, expected) in [(1, vec![1; 6]), (4, vec![4, 2]), (6, vec![6]), (9, vec![6])] {
        let config = LoaderConfig { shard, ..config(2) };
        let loader = training(&small, config);
        for batch in loader.iter() {
            let sizes: Vec<_> = batch
                .unwrap()
                .iter()
                .map(|shard| shard.items.len())
                .collect();
            assert_eq!(sizes, expected);
        }
        loader.seek(0, 0);
        assert_eq!(epoch(&loader), whole, "shards of {shard}");
    }
}

/// All threads decode, though fewer pairs are prepared ahead than a batch has.
#[test]
fn a_batch_may_be_larger_than_what_is_prepared_ahead() {
    let small = Small::new();
    let large = LoaderConfig {
        batch_size: 40,
        shard: 16,
        ..config(1)
    };
    let whole = epoch(&training(&small, large.clone()));
    assert_eq!(whole[0].len(), 40);
    for (workers, prefetch) in [(1, 1), (3, 2), (4, 39)] {
        let config = LoaderConfig {
            workers,
            prefetch,
            ..large.clone()
        };
        assert_eq!(epoch(&training(&small, config)), whole);
    }
}

/// What a run's pixels were before they waited as bytes for their tensor.
#[test]
fn the_pixels_of_a_shard_are_normalised_one_by_one() {
    let small = Small::new();
    let loader = training(&small, config(2));
    let batch = loader.iter().next().unwrap().unwrap();
    let Batch { images, .. } = batch[0].to_batch(&Device::default());
    let TransformConfig { mean, std, .. } = small.transform;
    let values = |pair: &Pair| {
        let channel = |(place, &pixel): (usize, &u8)| {
            let channel = place / 64;
            let scale = 1.0 / (255.0 * std[channel]);
            f32::from(pixel) * scale - mean[channel] / std[channel]
        };
        pair.pixels
            .iter()
            .enumerate()
            .map(channel)
            .collect::<Vec<_>>()
    };
    let expected: Vec<f32> = batch[0].items.iter().flat_map(values).collect();
    let found: Vec<f32> = images.into_data().try_into_vec().unwrap();
    assert_eq!(found, expected);
}

/// The longest caption of a shard decides its length, not that of the batch.
#[test]
fn captions_are_padded_within_their_shard() {
    let small = Small::new();
    let loader = training(
        &small,
        LoaderConfig {
            shard: 1,
            ..config(2)
        },
    );
    let batches: Vec<_> = loader.iter().flat_map(Result::unwrap).collect();
    for shard in &batches {
        let [rows, length] = shard.to_batch(&Device::default()).tokens.dims();
        let longest = shard.items[0].tokens.len().next_multiple_of(8);
        assert_eq!((rows, length), (1, longest));
    }
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
    let order: Vec<Vec<usize>> = epoch(&loader).iter().map(|batch| ids(batch)).collect();
    for &skipped in order[..4].iter().flatten() {
        std::fs::remove_file(small.collection.examples[skipped].image.path()).unwrap();
    }
    loader.seek(0, 4);
    let rest: Vec<_> = epoch(&loader).iter().map(|batch| ids(batch)).collect();
    assert_eq!(rest, order[4..]);
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
        let batch = batch.unwrap()[0].to_batch(&Device::default());
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
            let meanings: Vec<_> = ids(&batch)
                .into_iter()
                .map(|id| small.collection.examples[id].meaning().unwrap())
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
    let loader = training(&small, config(2));
    let batches = (0..6).flat_map(|_| loader.iter().collect::<Vec<_>>());
    for batch in batches {
        let batch = batch.unwrap()[0].to_batch(&Device::default());
        let [_, length] = batch.tokens.dims();
        let tokens: Vec<i64> = batch.tokens.into_data().iter().collect();
        let padding: Vec<bool> = batch.padding.into_data().iter().collect();
        for (row, &id) in batch.image_ids.iter().enumerate() {
            let tokens = &tokens[row * length..][..length];
            let padding = &padding[row * length..][..length];
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
    )
    .unwrap();
    let batches = epochs(&loader, 2);
    assert_eq!(batches[0], batches[1]);
    let found: Vec<usize> = batches[0].iter().flat_map(|batch| ids(batch)).collect();
    assert_eq!(found, small.collection.indices(Split::Validation));
    assert_eq!((batches[0].len(), loader.num_items()), (2, 7));
}

#[test]
fn a_file_that_breaks_off_is_an_error_that_names_file_and_row() {
    let small = Small::new();
    truncate(small.collection.examples[3].image.path());
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
        truncate(example.image.path());
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
            ids(&pairs(batch))
                .iter()
                .all(|id| train[10..25].contains(id))
        );
    }
    let whole = epochs(&training(&small, config(2)), 2);
    let moved = loader.to_device(&Device::default());
    assert_eq!(epoch(&loader), whole[0]);
    assert_eq!(moved.iter().map(pairs).collect::<Vec<_>>(), whole[1]);
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
                shard: 0,
                ..config(1)
            },
            "shard is 0",
        ),
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
        );
        let error = result.err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
