//! Two workers train what one trains, step after step, with all that a step leaves: the optimiser's
//! moments, momentum copies, the statistics of batch norm.

use burn::tensor::Device;
use burn_contrastive::sharded::Sharding;
use burn_contrastive_examples::data::Shard;
use burn_contrastive_examples::training::config::TrainingConfig;
use burn_contrastive_examples::training::system::{Item, Moment, System, SystemConfig};
use burn_contrastive_examples::training::trainer::Start;

use crate::pairs::{OfPair, of_items};
use crate::run::{exclusively, together};
use crate::tensors::{Tensors, assert_close, batch, values};
use crate::{it_contrast, radiograph, visual_semantic};

pub const STEPS: usize = 4;

/// The batches of a worker, each as its shards.
pub type Batches<S> = Vec<Vec<Shard<Item<S>>>>;

/// The losses of some steps, and the parameters, copies and statistics after them.
fn train<S: System>(
    config: &TrainingConfig<S::Config>,
    mut model: S,
    batches: &Batches<S>,
    sharding: &Sharding,
) -> (Vec<f64>, Tensors) {
    let mut optimizer = config.shared.optimizer.init();
    let mut losses = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        model = model.at(&Moment {
            seed: 3,
            step: number,
            progress: 0.5,
            // In the midst of the ramp of soft targets.
            epochs: 0.5,
        });
        let step = model.train_on(batch, sharding);
        losses.push(step.output.loss.into_scalar());
        let rates = config.shared.optimizer.learning_rates(|peak| peak);
        model = optimizer.step(rates, model, step.gradients);
        model = model.updated(vec![step.carry]);
    }
    (losses, values(&model))
}

/// Compares two workers, each with its part of the batches, with one; `batches` gives those of a
/// worker of so many.
pub fn two_train_as_one<C: SystemConfig>(
    config: &TrainingConfig<C>,
    batches: impl Fn(usize, usize) -> Batches<C::System> + Sync,
) {
    let start = Start::<C::System>::fresh(config, &Device::flex()).unwrap();
    let model = start.model;
    let before = values(&model);
    let whole = batches(0, 1);
    assert_eq!((whole.len(), whole[0].len()), (STEPS, 2));
    let (losses, after) = train(config, model.clone(), &whole, &Sharding::recompute());
    assert!(
        losses.windows(2).all(|pair| pair[0] != pair[1]),
        "{losses:?}"
    );
    let moved = before
        .iter()
        .filter(|(path, value)| after[*path] != **value);
    assert!(moved.count() > before.len() / 2);
    for sharding in [Sharding::recompute(), Sharding::keep(1)] {
        let found = together(2, |workers| {
            let own = batches(workers.rank(), 2);
            assert!(own.iter().all(|shards| shards.len() == 1));
            let sharding = sharding.clone().with_workers(workers);
            train(config, model.clone(), &own, &sharding)
        });
        for (own, parameters) in &found {
            for (own, alone) in own.iter().zip(&losses) {
                assert!(
                    (own - alone).abs() < 1e-5 * alone.abs(),
                    "{own}, alone {alone}"
                );
            }
            assert_close(parameters, &after, 1e-4);
        }
        // What both have is the same to the bit, or they would drift apart.
        assert!(found[0].1 == found[1].1);
    }
}

/// The made-up batches, each in two shards.
pub fn made_up<T: OfPair>(rank: usize, count: usize) -> Vec<Vec<Shard<T>>> {
    let batches = (0..STEPS).map(|number| {
        let shards = batch(number, 4).into_iter().enumerate();
        let own = shards.filter(|(place, _)| place % count == rank);
        own.map(|(_, shard)| of_items(shard)).collect()
    });
    batches.collect()
}

/// Where a gradient is nothing but rounding, nor is its step.
const LARGE_EPSILON: [&str; 2] = ["optimizer.epsilon=1e-3", "optimizer.learning_rate=1e-2"];

fn with(pairs: &[&'static str]) -> Vec<&'static str> {
    [&LARGE_EPSILON, pairs].concat()
}

#[test]
fn studies_and_the_statistics_of_their_images() {
    let _lock = exclusively();
    for objective in ["objective=reco", "objective=info-nce"] {
        two_train_as_one(&radiograph::config(&with(&[objective])), made_up);
    }
}

/// One worker knows fewer labels than the other.
#[test]
fn labels_of_which_some_are_unknown() {
    let _lock = exclusively();
    two_train_as_one(&radiograph::classifier(&with(&["trained=all"])), made_up);
}

#[test]
fn a_base_network_with_its_image_encoder() {
    let _lock = exclusively();
    let base = with(&visual_semantic::BASE);
    two_train_as_one(&visual_semantic::config(&base), made_up);
}

/// Every worker clusters the whole batch, and draws the same noise.
#[test]
fn regions_with_synthesised_negatives_and_noise() {
    let _lock = exclusively();
    let late = [
        "similarity=late-interaction",
        "synthesis=false",
        "noise=false",
    ];
    for pairs in [&["ids=meaning"][..], &late] {
        two_train_as_one(&it_contrast::config(&with(pairs)), made_up);
    }
}

/// What a step of several batches leaves is taken once: running statistics move by a tenth towards
/// those of the step, however many batches it has.
fn a_batch_twice_leaves_what_it_leaves_once<C: SystemConfig>(config: &TrainingConfig<C>)
where
    Item<C::System>: OfPair,
{
    let start = Start::<C::System>::fresh(config, &Device::flex()).unwrap();
    let model = start.model;
    let batch = &made_up(0, 1)[0];
    let carry = || model.train_on(batch, &Sharding::recompute()).carry;
    let once = values(&model.clone().updated(vec![carry()]));
    let twice = values(&model.clone().updated(vec![carry(), carry()]));
    assert!(once != values(&model));
    assert_close(&twice, &once, 1e-6);
}

#[test]
fn statistics_of_norms_move_once_a_step() {
    let _lock = exclusively();
    a_batch_twice_leaves_what_it_leaves_once(&radiograph::config(&[]));
    a_batch_twice_leaves_what_it_leaves_once(&radiograph::classifier(&["trained=all"]));
    a_batch_twice_leaves_what_it_leaves_once(&visual_semantic::config(&visual_semantic::BASE));
}
