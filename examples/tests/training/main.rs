//! The training loop on synthetic batches: resumption, interruption, NaN losses, accumulation and
//! progress lines, shards; of `clip`, of `albef` with all that it carries from step to step, and of
//! the other systems.

mod albef;
mod it_contrast;
mod pairs;
mod radiograph;
mod run;
mod sharding;
mod tensors;
mod tuned;
mod visual_semantic;
mod workers;

use std::sync::Arc;

use burn::tensor::Device;
use burn::train::Interrupter;
use burn_contrastive_examples::audit::heap::CountingAllocator;
use burn_contrastive_examples::systems::clip::{Clip, ClipConfig};
use burn_contrastive_examples::training::config;
use burn_contrastive_examples::training::progress::{Extent, Lines};
use burn_contrastive_examples::training::system::System;
use burn_contrastive_examples::training::trainer::{Loaders, Start, train};

use pairs::{BATCHES, Event, PAIRS, Page, Pairs, Validation};
use run::{
    DATA, bits, exclusively, from_scratch, go_on, resume, resumed_equals_uninterrupted, start_again,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

type TrainingConfig = config::TrainingConfig<ClipConfig>;

fn config(pairs: &[&str]) -> TrainingConfig {
    let small = [
        "seed=3",
        "model.image.image_size=16",
        "model.image.patch_size=8",
        "model.image.width=16",
        "model.image.layers=1",
        "model.text.width=16",
        "model.text.layers=1",
        "model.text.vocabulary=32",
        "model.text.context=16",
        "model.embedding=8",
        "data.batch_size=8",
        "schedule.steps=12",
        "schedule.warmup_steps=2",
        "validation.every=4",
        "checkpoints.every=5",
    ];
    let pairs: Vec<String> = small.iter().chain(pairs).map(ToString::to_string).collect();
    TrainingConfig::load(None, &pairs).unwrap()
}

#[test]
fn a_resumed_run_continues_to_the_same_bits() {
    let _lock = exclusively();
    // Within an epoch, at its last batch (so that the next one starts an epoch), and between
    // checkpoints.
    for at in [2, 4, 7] {
        resumed_equals_uninterrupted(&config(&[]), at);
    }
}

#[test]
fn a_resumed_run_continues_to_the_same_bits_with_accumulation_and_dropout() {
    let _lock = exclusively();
    // Two batches a step and five an epoch: steps straddle epochs.
    let settings = [
        "accumulation=2",
        "model.image.dropout=0.2",
        "model.text.dropout=0.2",
    ];
    for at in [4, 9] {
        resumed_equals_uninterrupted(&config(&settings), at);
    }
}

/// CLIP's residual network in place of the vision transformer.
const RESNET: &str = r#"model.image={"image_size": 16, "blocks": [1, 1], "width": 4, "heads": 2}"#;

#[test]
fn a_residual_network_goes_on_to_the_same_bits_with_its_statistics() {
    let _lock = exclusively();
    resumed_equals_uninterrupted(&config(&[RESNET]), 4);
    let divided = ["accumulation=2", "sharding.pairs=3"];
    resumed_equals_uninterrupted(&config(&[&[RESNET][..], &divided].concat()), 5);
}

#[test]
fn a_residual_network_that_is_frozen_stays_as_it_is() {
    let _lock = exclusively();
    let trained = |groups: &str| {
        let config = config(&[RESNET, groups, "schedule.steps=2"]);
        let start = tensors::values(
            &Start::<Clip>::fresh(&config, &Device::flex())
                .unwrap()
                .model,
        );
        let folder = tempfile::tempdir().unwrap();
        let ended = from_scratch(&config, folder.path(), Event::None, Interrupter::new());
        let end = tensors::values(&ended.unwrap().model);
        let moved = move |path: &String| start[path] != end[path];
        let statistics = ["running_mean", "running_var"].map(|of| format!("image.bn1.{of}"));
        statistics.iter().all(moved)
    };
    assert!(trained("optimizer.groups=[]"));
    let frozen = r#"optimizer.groups=[{"paths": "^image\\.", "frozen": true}]"#;
    assert!(!trained(frozen));
}

/// The learned parameters of an objective are saved with the model.
#[test]
fn any_objective_of_images_and_texts_trains_and_resumes() {
    let _lock = exclusively();
    let sum = r#"objective={"objective": "sum", "terms": [
        {"objective": "info-nce", "temperature": 0.1},
        {"objective": "uniformity", "weight": 0.1}
    ]}"#;
    for objective in ["objective=siglip", "objective=vse", sum] {
        resumed_equals_uninterrupted(&config(&[objective]), 4);
    }
    let config = config(&["objective=vse", "schedule.steps=1"]);
    let folder = tempfile::tempdir().unwrap();
    let trained = from_scratch(&config, folder.path(), Event::None, Interrupter::new()).unwrap();
    assert_eq!(trained.history.steps[0].logit_scale, None);
}

#[test]
fn an_objective_that_needs_more_than_images_and_texts_is_refused() {
    let load = |pair: &str| TrainingConfig::load(None, &[pair.to_string()]);
    for (pair, needs) in [
        (
            "objective=srcl",
            "objective srcl needs `teacher_image` and `teacher_text`, or `alpha` = 0",
        ),
        ("objective=info-cmr", "objective info-cmr needs `noise`"),
    ] {
        let error = format!("{:#}", load(pair).unwrap_err());
        assert!(error.contains(needs), "{error}");
        assert!(
            error.contains("trains with image and text alone"),
            "{error}"
        );
    }
    let alone = r#"objective={"objective": "srcl", "alpha": 0}"#;
    assert!(load(alone).is_ok());
}

#[test]
fn resuming_a_finished_run_changes_nothing() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[]);
    let trained = from_scratch(&config, folder.path(), Event::None, Interrupter::new()).unwrap();
    let again = resume(&config, folder.path());
    assert_eq!(again.history, trained.history);
    assert!(bits(&again.model) == bits(&trained.model));
}

#[test]
fn a_loss_that_is_not_a_number_stops_at_the_last_good_checkpoint() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["checkpoints.every=3"]);
    let error = from_scratch(
        &config,
        folder.path(),
        Event::NotANumber(7),
        Interrupter::new(),
    )
    .err()
    .expect("a NaN stops the run")
    .to_string();
    assert!(error.contains("step 8: the loss is NaN"), "{error}");
    assert!(
        error.contains("step-000006"),
        "the last good checkpoint is named: {error}"
    );
    // The checkpoint is whole, and good: the run goes on from it to its end.
    let rest = resume(&config, folder.path());
    assert_eq!(rest.history.steps.len(), 12);
    assert!(rest.history.steps.iter().all(|step| step.loss.is_finite()));
}

#[test]
fn data_that_cannot_be_read_stops_with_its_own_message() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let error = from_scratch(
        &config(&[]),
        folder.path(),
        Event::Unreadable(3),
        Interrupter::new(),
    )
    .err()
    .expect("damage stops the run");
    let error = format!("{error:#}");
    assert!(error.contains("scene-17.png is damaged"), "{error}");
}

#[test]
fn the_last_checkpoints_are_kept_and_an_unfinished_one_does_not_count() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["checkpoints.every=2", "checkpoints.keep=3"]);
    from_scratch(&config, folder.path(), Event::None, Interrupter::new()).unwrap();
    let checkpoints = folder.path().join("checkpoints");
    let mut names: Vec<_> = std::fs::read_dir(&checkpoints)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["step-000008", "step-000010", "step-000012"]);

    // What a crash while writing leaves behind.
    std::fs::create_dir(checkpoints.join(".unfinished-step-000014")).unwrap();
    assert_eq!(start_again(&config, folder.path()).unwrap().state.step, 12);
}

/// One flipped bit in any of its files, half of one zeroed, one in the place of another: a message
/// that names the file.
#[test]
fn a_damaged_checkpoint_is_refused() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["schedule.steps=1"]);
    from_scratch(&config, folder.path(), Event::None, Interrupter::new()).unwrap();
    let checkpoint = folder.path().join("checkpoints/step-000001");
    let refused = |name: &str, bytes: &[u8]| {
        let file = checkpoint.join(name);
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, bytes).unwrap();
        let error = start_again(&config, folder.path()).err();
        let error = format!("{:#}", error.expect("it is damaged"));
        assert!(
            error.contains("step-000001") && error.contains(&format!("{name} is damaged")),
            "{error}"
        );
        std::fs::write(&file, whole).unwrap();
    };
    for name in ["model.bpk", "optimizer.bpk", "state.json"] {
        let whole = std::fs::read(checkpoint.join(name)).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        refused(name, &flipped);
        let mut zeroed = whole.clone();
        zeroed[whole.len() / 2..].fill(0);
        refused(name, &zeroed);
    }
    let model = std::fs::read(checkpoint.join("model.bpk")).unwrap();
    refused("optimizer.bpk", &model);
    assert!(start_again(&config, folder.path()).is_ok());

    std::fs::remove_file(checkpoint.join("optimizer.bpk")).unwrap();
    let error = start_again(&config, folder.path()).err().unwrap();
    assert!(format!("{error:#}").contains("cannot open optimizer.bpk"));
}

#[test]
fn settings_that_may_not_change_and_other_data_are_refused() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let steps = |pairs: &[&str], steps| config(&[pairs, &[steps]].concat());
    let one = steps(&[], "schedule.steps=1");
    from_scratch(&one, folder.path(), Event::None, Interrupter::new()).unwrap();

    let other = steps(&["model.image.width=32"], "schedule.steps=1");
    let error = start_again(&other, folder.path())
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("model.image.width = 16, it cannot go on with 32"),
        "{error}"
    );

    let error = Start::<Clip>::resumed(&one, "others", folder.path(), &Device::flex()).err();
    let error = error.unwrap().to_string();
    assert!(error.contains("the data are not those"), "{error}");

    // What may change is noted with its step, and that is saved.
    let changed = ["optimizer.learning_rate=1e-4"];
    resume(&steps(&changed, "schedule.steps=3"), folder.path());
    let start = start_again(&steps(&changed, "schedule.steps=3"), folder.path()).unwrap();
    let changes: Vec<_> = start
        .state
        .history
        .changes
        .iter()
        .map(|change| (change.step, change.setting.as_str()))
        .collect();
    assert_eq!(
        changes,
        [(1, "optimizer.learning_rate"), (1, "schedule.steps")]
    );
}

#[test]
fn accumulating_one_batch_twice_is_a_step_on_that_batch() {
    let _lock = exclusively();
    let run = |accumulation: usize| {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&[&format!("accumulation={accumulation}"), "schedule.steps=2"]);
        let start = Start::<Clip>::fresh(&config, &Device::flex()).unwrap();
        let data = Pairs {
            varied: false,
            ..Pairs::new(PAIRS)
        };
        let extent = Extent {
            first_step: 0,
            total_steps: 2,
            pairs_a_step: 8,
        };
        let loaders = Loaders {
            fingerprint: DATA.to_string(),
            train: Arc::new(data.clone()),
            batches_per_epoch: BATCHES,
            valid: Arc::new(Validation(data)),
        };
        let display = Box::new(Lines::new(Page::default(), extent, 1));
        train(
            &config,
            folder.path(),
            start,
            loaders,
            display,
            Interrupter::new(),
            Arc::default(),
        )
        .unwrap()
    };
    let (one, two) = (run(1), run(2));
    assert_eq!(one.history.steps, two.history.steps);
    assert!(bits(&one.model) == bits(&two.model));
}

#[test]
fn the_loss_falls_and_validation_finds_the_pairs() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[
        "schedule.steps=80",
        "optimizer.learning_rate=3e-3",
        "validation.every=40",
    ]);
    let trained = from_scratch(&config, folder.path(), Event::None, Interrupter::new()).unwrap();
    let losses: Vec<f64> = trained.history.steps.iter().map(|step| step.loss).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&losses[..10]), mean(&losses[70..]));
    assert!(last < 0.5 * first, "the loss went from {first} to {last}");
    let steps: Vec<_> = trained
        .history
        .validations
        .iter()
        .map(|validation| validation.step)
        .collect();
    assert_eq!(steps, [40, 80]);
    let best = trained.history.best().unwrap().retrieval.unwrap();
    assert!(best.text_to_image.recall_at_1 >= 50.0, "{best}");
}

#[test]
fn the_logit_scale_stays_in_its_range() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[
        "schedule.steps=30",
        "optimizer.learning_rate=1",
        "schedule.warmup_steps=0",
    ]);
    let trained = from_scratch(&config, folder.path(), Event::None, Interrupter::new()).unwrap();
    for step in &trained.history.steps {
        assert!(
            (0.999..=100.01).contains(&step.logit_scale.unwrap()),
            "step {}: {:?}",
            step.step,
            step.logit_scale
        );
    }
    let scale = System::logit_scale(&trained.model)
        .unwrap()
        .into_scalar::<f64>();
    assert!((0.999..=100.01).contains(&scale), "{scale}");
}

#[test]
fn plain_lines_show_step_loss_rate_scale_speed_and_time_left() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["schedule.steps=5"]);
    let start = Start::<Clip>::fresh(&config, &Device::flex()).unwrap();
    let page = Page::default();
    go_on(
        &config,
        folder.path(),
        start,
        Event::None,
        Interrupter::new(),
        page.clone(),
    )
    .unwrap();
    let text = page.text();
    let lines: Vec<_> = text.lines().collect();
    let steps: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("step "))
        .collect();
    assert_eq!(steps.len(), 3, "steps 2, 4 and the last:\n{text}");
    for (line, start) in steps.iter().zip(["step 2/5", "step 4/5", "step 5/5"]) {
        assert!(line.starts_with(start), "{line}");
        for part in [
            "loss ",
            "learning rate ",
            "logit scale 14.",
            "pairs/s",
            "ETA ",
        ] {
            assert!(line.contains(part), "{part} is missing from: {line}");
        }
    }
    let validations = lines
        .iter()
        .filter(|line| line.starts_with("validation after step"))
        .count();
    assert_eq!(validations, 2, "after steps 4 and 5:\n{text}");
    assert!(text.contains("r@1"), "{text}");
}
