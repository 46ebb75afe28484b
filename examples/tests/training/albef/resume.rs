//! Interrupted runs go on to the same numbers: queue, momentum copy, ramp and draws included.

use super::{config, with_teacher};
use crate::run::{exclusively, resumed_equals_uninterrupted};

#[test]
fn an_interrupted_run_goes_on_to_the_same_bits() {
    let _lock = exclusively();
    // Within the ramp of soft targets, at the end of an epoch, and after the ramp.
    let config = config(&["momentum.ramp_epochs=1.5", "losses.ids=image"]);
    for at in [1, 4, 8] {
        resumed_equals_uninterrupted(&config, at);
    }
}

#[test]
fn shards_accumulation_and_dropout_change_nothing_about_that() {
    let _lock = exclusively();
    resumed_equals_uninterrupted(
        &config(&[
            "accumulation=2",
            "sharding.pairs=3",
            "model.image.dropout=0.2",
            "model.bert.dropout=0.2",
        ]),
        5,
    );
}

#[test]
fn the_frozen_teacher_goes_on_with_the_run() {
    let _lock = exclusively();
    let (config, teacher) = with_teacher(&["sharding.pairs=3", "checkpoints.every=1"]);
    resumed_equals_uninterrupted(&config, 3);
    drop(teacher);
}

/// As a teacher is trained; layers that a run does not use are in its checkpoints too.
#[test]
fn a_run_that_trains_no_more_than_the_contrast_goes_on_too() {
    let _lock = exclusively();
    let config = config(&[
        "objective=info-nce",
        "losses.matching=false",
        "losses.masked_language=false",
        "checkpoints.every=1",
        "checkpoints.keep=1",
    ]);
    resumed_equals_uninterrupted(&config, 3);
}
