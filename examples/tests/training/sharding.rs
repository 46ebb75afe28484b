//! A batch in shards trains as the undivided one does.

use burn_contrastive_examples::audit::heap::peak_of;

use super::*;

/// All steps, and the parameters after them.
fn trained(settings: &[&str]) -> (Vec<(f64, f64)>, Vec<f32>) {
    let folder = tempfile::tempdir().unwrap();
    let config = config(settings);
    let trained = from_scratch(&config, folder.path(), Event::None, Interrupter::new()).unwrap();
    let steps = trained.history.steps.iter();
    let steps = steps.map(|step| (step.loss, step.gradient_norm)).collect();
    let parameters = bits(&trained.model).into_iter().map(f32::from_bits);
    (steps, parameters.collect())
}

/// The largest differences: of a loss or a norm as a share of it, and of a parameter.
fn apart(a: &(Vec<(f64, f64)>, Vec<f32>), b: &(Vec<(f64, f64)>, Vec<f32>)) -> (f64, f64) {
    assert_eq!((a.0.len(), a.1.len()), (b.0.len(), b.1.len()));
    let share = |x: f64, y: f64| ((x - y) / y).abs();
    let steps = a.0.iter().zip(&b.0);
    let steps = steps.map(|(x, y)| share(x.0, y.0).max(share(x.1, y.1)));
    let parameters = a.1.iter().zip(&b.1).map(|(x, y)| f64::from((x - y).abs()));
    (steps.fold(0.0, f64::max), parameters.fold(0.0, f64::max))
}

#[test]
fn shards_of_any_size_take_the_steps_of_the_undivided_batch() {
    let _lock = exclusively();
    let whole = trained(&["sharding.mode=off"]);
    // Batches of eight: the last shard of three has two.
    for settings in [
        &["sharding.pairs=3"][..],
        &["sharding.mode=keep", "sharding.pairs=1"],
        &["sharding.mode=recompute", "sharding.pairs=3"],
        &["sharding.mode=recompute", "sharding.pairs=100"],
        &["sharding.mode=keep", "sharding.pairs=4", "accumulation=1"],
    ] {
        let (steps, parameters) = apart(&trained(settings), &whole);
        // Twelve steps of up to 1e-3.
        assert!(
            steps < 1e-4 && parameters < 1e-5,
            "{settings:?}: {steps:e}, {parameters:e}"
        );
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let _lock = exclusively();
    let run = |at_once: usize| {
        let at_once = format!("sharding.at_once={at_once}");
        trained(&["sharding.mode=keep", "sharding.pairs=2", &at_once])
    };
    let one = run(1);
    for at_once in [2, 3, 9] {
        assert!(run(at_once) == one, "{at_once} at once");
    }
}

#[test]
fn accumulated_batches_are_sharded_each_on_its_own() {
    let _lock = exclusively();
    let whole = trained(&["accumulation=2", "sharding.mode=off"]);
    let sharded = trained(&[
        "accumulation=2",
        "sharding.mode=recompute",
        "sharding.pairs=3",
    ]);
    let (steps, parameters) = apart(&sharded, &whole);
    assert!(
        steps < 1e-4 && parameters < 1e-5,
        "{steps:e}, {parameters:e}"
    );
    // One batch of sixteen would have other losses.
    let (steps, _) = apart(&trained(&["sharding.mode=off"]), &whole);
    assert!(steps > 1e-3);
}

const DROPOUT: [&str; 2] = ["model.image.dropout=0.2", "model.text.dropout=0.2"];

#[test]
fn a_sharded_run_with_dropout_resumes_to_the_same_bits() {
    let _lock = exclusively();
    for mode in ["auto", "recompute"] {
        let mode = format!("sharding.mode={mode}");
        let settings = [&DROPOUT[..], &["sharding.pairs=3", &mode]].concat();
        resumed_equals_uninterrupted(&config(&settings), 4);
    }
    resumed_equals_uninterrupted(&config(&["sharding.pairs=3", "sharding.at_once=2"]), 2);
}

#[test]
fn dropout_draws_the_same_whether_shards_are_kept_or_encoded_again() {
    let _lock = exclusively();
    let run = |mode| trained(&[&DROPOUT[..], &["sharding.pairs=3", mode]].concat());
    let kept = run("sharding.mode=keep");
    let (steps, parameters) = apart(&run("sharding.mode=recompute"), &kept);
    assert!(
        steps < 1e-4 && parameters < 1e-5,
        "{steps:e}, {parameters:e}"
    );
    let (steps, _) = apart(&trained(&["sharding.pairs=3"]), &kept);
    assert!(steps > 1e-3, "nothing was dropped");
}

#[test]
fn sharding_may_change_on_resume_and_is_noted() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let whole = trained(&["sharding.mode=off"]);
    let first = config(&["sharding.mode=off", "schedule.steps=12"]);
    let interrupter = Interrupter::new();
    let event = Event::Interrupt(4, interrupter.clone());
    from_scratch(&first, folder.path(), event, interrupter).unwrap();
    let second = config(&["sharding.mode=recompute", "sharding.pairs=3"]);
    let rest = resume(&second, folder.path());
    let changes = rest.history.changes.iter();
    let changes: Vec<_> = changes
        .map(|change| (change.step, &*change.setting))
        .collect();
    assert_eq!(changes, [(5, "sharding.mode"), (5, "sharding.pairs")]);
    let steps = rest
        .history
        .steps
        .iter()
        .map(|step| (step.loss, step.gradient_norm));
    let parameters = bits(&rest.model).into_iter().map(f32::from_bits);
    let (steps, parameters) = apart(&(steps.collect(), parameters.collect()), &whole);
    assert!(
        steps < 1e-4 && parameters < 1e-5,
        "{steps:e}, {parameters:e}"
    );
}

/// Inputs, activations and all: what a batch holds by itself are the bytes of its images, which are
/// there before.
#[test]
fn recomputing_takes_the_memory_of_one_shard() {
    let _lock = exclusively();
    let recompute = config(&["sharding.mode=recompute"]);
    let keep = config(&["sharding.mode=keep"]);
    let model = Start::<Clip>::fresh(&keep, &Device::flex()).unwrap().model;
    // Shards of 128 pairs.
    let mut shard = crate::tensors::batch(0, PAIRS).remove(0);
    shard.items = vec![shard.items; 16].concat();
    let peak = |config: &TrainingConfig, shards: usize| {
        let batch = vec![shard.clone(); shards];
        let sharding = config.division(&Device::flex(), 1).sharding();
        let step = || drop(model.train_on(&batch, &sharding));
        step();
        peak_of(step).1.unwrap() as f64
    };
    let (one, eight) = (peak(&recompute, 1), peak(&recompute, 8));
    assert!(
        eight < 1.3 * one,
        "{one} bytes for one shard, {eight} for eight"
    );
    let kept = peak(&keep, 8);
    assert!(
        kept > 3.0 * one,
        "{kept} bytes for eight shards that are kept"
    );
}
