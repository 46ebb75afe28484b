//! A small run of `it-contrast` that compares regions with words one by one, and what its report
//! says, by hand.

use burn_contrastive_examples::data::regions::RegionBatch;
use burn_contrastive_examples::systems::it_contrast::{ItContrast, States};
use burn_contrastive_examples::training::run::{Ended, Folder};
use burn_contrastive_examples::training::weights::trained;

use crate::it_contrast::{go, small};
use crate::recomputed::{Rows, assert_scores, dot, rows, tie, units};
use crate::{exclusively, metrics};

#[test]
fn regions_and_words_are_compared_one_by_one_where_asked() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let late_settings = [
        "similarity=late-interaction",
        "synthesis=false",
        "noise=false",
        "model.bert.layers=1",
        "schedule.steps=60",
        "schedule.warmup_steps=10",
    ];
    let config = small(&late_settings);
    let ended = go(&config, Folder::New(out.clone()), folder.path(), false);
    let Ended::Reached(reached) = ended.unwrap() else {
        panic!("the run was not finished");
    };
    let (first, last) = reached.losses;
    assert!(last < 0.8 * first, "the loss went from {first} to {last}");
    let after = reached.after.metrics();
    assert!(after.image_to_text.recall_at_10 >= 25.0, "{after:?}");
    assert!(after.text_to_image.recall_at_10 >= 25.0, "{after:?}");
    let reported = metrics(&out).retrieval.after.unwrap();
    let scores = reported.scores;
    assert_eq!(
        scores.image_to_text.recall_at_1,
        after.image_to_text.recall_at_1
    );

    // From the states of regions and words, one pair after the other.
    let device = burn::tensor::Device::flex();
    let (_, model) = trained::<ItContrast>(&out, &device).unwrap();
    let test = &reached.test;
    let images = test.set.indices().iter().map(|&image| {
        let regions = test.regions.file().unwrap().regions(image).unwrap();
        let batch = RegionBatch::new([&regions].into_iter(), model.feature(), &device);
        tokens_of(&model.look(batch))
    });
    let images: Vec<Rows> = images.collect();
    let captions = test.set.caption_batches(1, &device).map(|batch| {
        let batch = batch.unwrap();
        tokens_of(&model.read(batch.tokens, batch.padding))
    });
    let captions: Vec<Rows> = captions.collect();
    assert!(images[0].len() > 1 && captions[0].len() > 3);
    let similarities = |of: &[Rows], with: &[Rows]| -> Rows {
        let row = |own: &Rows| with.iter().map(|other| late(own, other)).collect();
        of.iter().map(row).collect()
    };
    let both = [
        similarities(&images, &captions),
        similarities(&captions, &images),
    ];
    let image_of = test.set.image_of_caption();
    // 2 ε √D of a cosine, and 2 ε √T of a mean over the tokens there is room for.
    let tie = tie(images[0][0].len()) + tie(config.system.tokens);
    assert_scores([&both[0], &both[1]], image_of, tie, &reported);
}

/// The states of one sample, of unit length, without its padding.
fn tokens_of(states: &States) -> Rows {
    let all = units(rows(&states.states.clone().squeeze_dim::<2>(0)));
    let padding = rows(&states.padding.clone().float()).remove(0);
    let own = all.into_iter().zip(padding).filter(|(_, is)| *is == 0.0);
    own.map(|(token, _)| token).collect()
}

/// The mean over the tokens of one of their largest cosines with those of the other.
fn late(own: &Rows, other: &Rows) -> f64 {
    let nearest = own.iter().map(|own| {
        let cosines = other.iter().map(|other| dot(own, other));
        cosines.fold(f64::MIN, f64::max)
    });
    nearest.sum::<f64>() / own.len() as f64
}
