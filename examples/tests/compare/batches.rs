//! Batches have the share of false negatives that they should have, by counting.

use std::collections::HashSet;

use burn::tensor::Device;
use burn_contrastive_examples::compare::data::{Material, Part};
use burn_contrastive_examples::compare::setup::Setup;

use super::toy;

fn material() -> (Setup, Material) {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = toy();
    setup.training.shared.data.scenes.train = 400;
    setup.training.shared.data.batch_size = 20;
    let material = Material::open(&setup, folder.path()).unwrap();
    (setup, material)
}

#[test]
fn a_share_of_each_batch_has_a_false_negative_and_no_other_pair() {
    let (_, material) = material();
    let part = &material.train;
    let scenes = part.scenes.as_ref().unwrap();
    for (rate, expected) in [(0.0, 0), (0.1, 2), (0.3, 6), (0.6, 12)] {
        let batches = material.batches(rate, 20, 3, 40, &Device::flex());
        let mut count = 0;
        for drawn in batches {
            count += 1;
            let images = &drawn.batch.image_ids;
            assert_eq!(images.len(), 20);
            let own: HashSet<_> = images.iter().collect();
            assert_eq!(own.len(), 20, "an image is there twice");
            // By the attributes themselves.
            let meanings: Vec<_> = images
                .iter()
                .map(|&image| scenes[image].meaning())
                .collect();
            let shares = meanings.iter().filter(|one| {
                let same = meanings.iter().filter(|other| other == one);
                same.count() > 1
            });
            assert_eq!(shares.count(), expected, "at {rate}");
            for (&image, &caption) in images.iter().zip(&drawn.captions) {
                assert_eq!(part.image_of_caption[caption], image);
            }
        }
        assert_eq!(count, 40);
    }
}

#[test]
fn a_seed_gives_the_same_batches_and_another_one_others() {
    let (_, material) = material();
    let captions = |rate, seed| {
        let batches = material.batches(rate, 20, seed, 30, &Device::flex());
        batches.map(|drawn| drawn.captions).collect::<Vec<_>>()
    };
    assert_eq!(captions(0.3, 1), captions(0.3, 1));
    assert_ne!(captions(0.3, 1), captions(0.3, 2));
    // Several epochs: most of the captions are drawn at some time.
    let all: HashSet<_> = captions(0.0, 1).into_iter().flatten().collect();
    assert!(all.len() > 400, "{}", all.len());
}

#[test]
fn no_meaning_is_in_two_parts_and_test_images_share_some() {
    let (setup, material) = material();
    let meanings = |part: &Part| -> Vec<String> {
        let scenes = part.scenes.as_ref().unwrap();
        scenes.iter().map(|scene| scene.meaning()).collect()
    };
    let [train, validation, test] =
        [&material.train, &material.validation, &material.test].map(meanings);
    assert_eq!(train.len() + validation.len() + test.len(), 400);
    for (part, least) in [
        (&validation, setup.protocol.validation),
        (&test, setup.protocol.test),
    ] {
        assert!((least..least + 3).contains(&part.len()), "{}", part.len());
        assert!(part.iter().all(|meaning| !train.contains(meaning)));
        let different: HashSet<_> = part.iter().collect();
        assert!(different.len() < part.len());
    }
    assert!(test.iter().all(|meaning| !validation.contains(meaning)));
}
