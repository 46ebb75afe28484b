use burn::module::{ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tolerance;
use serde_json::json;

use super::config::BASE;
use super::*;
use crate::data::{Padding, SpecialTokens, TransformConfig};
use crate::systems::albef::AlbefConfig;
use crate::systems::clip::ClipConfig;
use crate::training::config::TrainingConfig;
use crate::training::system::SystemConfig;

fn config() -> TrainingConfig<NlvrConfig> {
    let settings = [
        "model.image.image_size=16",
        "model.image.patch_size=8",
        "model.image.width=12",
        "model.image.layers=1",
        "model.image.heads=2",
        "model.bert.vocabulary=20",
        "model.bert.context=8",
        "model.bert.width=12",
        "model.bert.heads=2",
        "model.bert.layers=3",
        "model.bert.fusion_layers=2",
        "model.bert.intermediate=16",
        "model.embedding=8",
        "tokens=8",
        "distillation.soft_targets=0.5",
        "distillation.ramp_epochs=2",
    ];
    TrainingConfig::load(None, &settings.map(String::from)).unwrap()
}

/// Statements with images of one colour, two of them with the same one twice.
fn shard(indices: std::ops::Range<usize>) -> Shard<StatedPair> {
    let size = 16;
    let image = |value: usize| {
        let values = (0..3 * size * size).map(|at| (value * 61 + at * (value % 5)) as u8);
        values.collect()
    };
    let items = indices.map(|index| StatedPair {
        pixels: [image(index), image(index + index % 2)],
        tokens: vec![1, 2 + index as u32, 9, 4],
        label: index % 3 == 0,
        index,
    });
    Shard {
        items: items.collect(),
        transform: TransformConfig {
            size: size as u32,
            ..TransformConfig::default()
        },
        padding: Padding {
            id: 0,
            context_length: 8,
            specials: SpecialTokens::default(),
        },
    }
}

fn system(device: &Device) -> Nlvr {
    let config = config();
    config.system.init(device).begun(&config.system).unwrap()
}

#[test]
fn the_loss_is_that_by_hand() {
    let device = Device::flex().autodiff();
    let logits = Tensor::<2>::from_data([[0.0, 1.0], [2.0, 0.0]], &device);
    let soft = Tensor::<2>::from_data([[0.0, 3f32.ln()], [0.0, 0.0]], &device.clone().inner());
    let e = std::f64::consts::E;
    // Minus the logarithms of the probabilities.
    let row0 = [(1.0 + e).ln(), (1.0 + e).ln() - 1.0];
    let row1 = [(e * e + 1.0).ln() - 2.0, (e * e + 1.0).ln()];
    let hard = (row0[1] + row1[1]) / 2.0;
    let copied = (0.25 * row0[0] + 0.75 * row0[1] + 0.5 * row1[0] + 0.5 * row1[1]) / 2.0;
    for (share, expected) in [(None, hard), (Some(0.4), 0.6 * hard + 0.4 * copied)] {
        let soft = share.map(|share| (soft.clone(), share));
        let judged = Judged::new(logits.clone(), vec![1, 1], soft);
        let loss = judged.loss.inner().into_scalar::<f64>();
        assert!(
            (loss - expected).abs() < 1e-6,
            "{share:?}: {loss}, {expected}"
        );
    }
    let judged = Judged::new(logits.inner(), vec![1, 1], None);
    let answers = judged.answers([7, 8]);
    let given: Vec<_> = answers.iter().map(|a| (a.index, a.given)).collect();
    assert_eq!(given, [(7, 1), (8, 0)]);
    assert!((answers[0].confidence - e / (1.0 + e)).abs() < 1e-6);
    assert!(answers[0].is_right() && !answers[1].is_right());
}

#[test]
fn the_share_of_the_copy_rises_during_its_epochs() {
    let mut distillation = config().system.distillation;
    let shares = [0.0, 1.0, 2.0, 5.0].map(|epochs| distillation.share(epochs));
    assert_eq!(shares, [0.0, 0.25, 0.5, 0.5]);
    distillation.ramp_epochs = 0.0;
    assert_eq!(distillation.share(0.0), 0.5);
}

#[test]
fn a_statement_sees_both_images_in_their_order() {
    let device = Device::flex();
    let system = system(&device);
    let mut swapped = shard(0..4);
    for item in &mut swapped.items {
        item.pixels.swap(0, 1);
    }
    let logits = |shard| system.judge(shard, 0.0, &device).logits.into_data();
    let (logits, swapped) = (logits(&shard(0..4)), logits(&swapped));
    let both: Vec<_> = logits.iter::<f32>().zip(swapped.iter::<f32>()).collect();
    for (row, values) in both.chunks(2).enumerate() {
        let same = values.iter().all(|(a, b)| (a - b).abs() < 1e-7);
        // Every other statement has the same image twice.
        assert_eq!(same, row % 2 == 0, "statement {row}");
    }
}

/// The gradients of all parameters, in their order, those of the copy as nothing.
fn gradients(system: &Nlvr, gradients: &GradientsParams) -> Vec<f32> {
    struct All<'a>(&'a GradientsParams, Vec<f32>);
    impl ModuleVisitor for All<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.0.get::<D>(param.id);
            let values = gradient.map(|gradient| gradient.into_data());
            self.1
                .extend(values.iter().flat_map(|values| values.iter::<f32>()));
        }
    }
    let mut all = All(gradients, Vec::new());
    system.visit(&mut all);
    all.1
}

#[test]
fn a_batch_is_the_same_in_shards() {
    let device = Device::flex().autodiff();
    // A copy that is not the student, and has a share in the targets.
    let mut system = system(&device).at(&Moment {
        epochs: 1.0,
        ..Moment::default()
    });
    let other = config().system.init(&device);
    system.momentum = copied(&system.distillation, &other.model, &other.head);
    let step = |shards: &[Shard<StatedPair>], sharding: Sharding| {
        let step = system.train_on(shards, &sharding);
        let loss = step.output.loss.into_scalar::<f32>();
        (loss, gradients(&system, &step.gradients))
    };
    let (loss, whole) = step(&[shard(0..5)], Sharding::keep(1));
    let trained = system.model.num_params() + system.head.num_params();
    // The embeddings' second token type has none.
    assert!(whole.len() <= trained && whole.len() > trained * 9 / 10);
    assert!(whole.iter().any(|gradient| gradient.abs() > 1e-3));
    for sharding in [Sharding::keep(2), Sharding::recompute()] {
        let (other, parts) = step(&[shard(0..3), shard(3..5)], sharding);
        assert!((loss - other).abs() < 1e-6, "{loss}, {other}");
        let largest = whole.iter().zip(&parts).map(|(a, b)| (a - b).abs());
        let largest = largest.fold(0.0, f32::max);
        assert!(whole.len() == parts.len() && largest < 1e-5, "{largest}");
    }
    // Of an equal copy, the targets are less hard, and the loss is another.
    let hard = system.judge(&shard(0..5), 0.0, &device);
    assert!((hard.loss.inner().into_scalar::<f32>() - loss).abs() > 1e-4);
}

#[test]
fn the_copy_is_that_of_the_weights_at_the_start_and_follows() {
    let device = Device::flex().autodiff();
    let mut config = config().system;
    config.distillation.momentum = 0.75;
    let mut system = config.init(&device);
    let judged = |system: &Nlvr| {
        let inputs = Inputs::new(&shard(0..3), &device.clone().inner());
        let (model, head) = system.momentum.encoder();
        inputs.judge(model, head).into_data()
    };
    let student = |system: &Nlvr| {
        system
            .valid()
            .judge(&shard(0..3), 0.0, &device.clone().inner())
    };
    // As if weights had been loaded.
    system.model = config.init(&device).model;
    let close = Tolerance::<f32>::absolute(1e-6);
    let own = student(&system).logits.into_data();
    assert!(judged(&system) != own);
    let system = system.begun(&config).unwrap();
    judged(&system).assert_approx_eq(&own, close);

    let bias = |linear: &ClassifierHead| {
        let mut values = Vec::new();
        struct Last<'a>(&'a mut Vec<f32>);
        impl ModuleVisitor for Last<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                *self.0 = param.val().into_data().iter::<f32>().collect();
            }
        }
        linear.visit(&mut Last(&mut values));
        values
    };
    let start = bias(&system.head);
    let mut moved = system;
    moved.head = config.init(&device).head;
    let target = bias(&moved.head);
    let moved = moved.updated(Vec::new());
    let copy = bias(&moved.momentum.encoder().1);
    for ((copy, start), target) in copy.iter().zip(&start).zip(&target) {
        assert!((copy - (0.75 * start + 0.25 * target)).abs() < 1e-6);
    }
}

#[test]
fn validation_measures_the_accuracy_of_all_shards() {
    let system = system(&Device::flex());
    let shards = [shard(0..4), shard(4..6)];
    let output = system.infer(&shards);
    let judged = shards
        .each_ref()
        .map(|shard| system.judge(shard, 0.0, &Device::flex()));
    let right = judged.iter().flat_map(|judged| judged.answers(0..4));
    let right = right.filter(Answer::is_right).count();
    assert_eq!(
        (output.figures[0].sum, output.figures[0].count),
        (100.0 * right as f64, 6.0)
    );
    let [a, b] = judged.map(|judged| judged.loss.into_scalar::<f32>());
    let loss = output.loss.into_scalar::<f32>();
    assert!((loss - (4.0 * a + 2.0 * b) / 6.0).abs() < 1e-6);
}

#[test]
fn settings_start_from_those_of_a_pretrained_run_and_of_no_other() {
    let mut earlier = AlbefConfig::defaults();
    earlier.system.tokens = 17;
    earlier.shared.data.path = Some("captions".into());
    earlier.shared.data.mean = [0.5; 3];
    earlier.shared.data.scenes.train = 99;
    let started = NlvrConfig::started_from(&earlier.to_value().unwrap()).unwrap();
    assert_eq!(started.system.model, earlier.system.model);
    assert_eq!(started.system.tokens, 17);
    assert_eq!(started.system.assignment.data, earlier.shared.data.path);
    let data = &started.shared.data;
    assert_eq!((data.mean, data.scenes.train), ([0.5; 3], 99));
    assert_eq!(data.path, None);

    let clip = ClipConfig::defaults().to_value().unwrap();
    let own = NlvrConfig::defaults().to_value().unwrap();
    for other in [clip, own, json!({})] {
        let error = NlvrConfig::started_from(&other).unwrap_err();
        assert!(
            format!("{error:#}").contains("no run of `albef`"),
            "{error:#}"
        );
    }
}

#[test]
fn the_published_settings_lie_over_those_of_a_pretrained_run() {
    let pretrained = AlbefConfig::base().to_value().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("base.json");
    std::fs::write(&file, BASE).unwrap();
    let mut started = NlvrConfig::started_from(&pretrained).unwrap();
    started.shared.data.tokenizer = Some("tokenizer.json".into());
    let config = started.with(Some(&file), &[]).unwrap();
    assert_eq!(config.system.model.image.image_size, 384);
    assert_eq!(
        config.system.model.bert,
        AlbefConfig::base().system.model.bert
    );
    assert_eq!(config.shared.optimizer.learning_rate, 2e-5);
    assert_eq!(config.shared.data.tokenizer, started.shared.data.tokenizer);
    let before = NlvrConfig::of_assignment(&config, folder.path()).unwrap();
    assert_eq!(before.system.model.image.image_size, 256);
    assert_eq!(before.shared.schedule.epochs, Some(1));
}

#[test]
fn text_assignment_is_left_out_without_steps_or_captions() {
    let run = std::path::Path::new("run");
    let of = |config: &TrainingConfig<NlvrConfig>| NlvrConfig::of_assignment(config, run);
    let mut config = config();
    let before = of(&config).unwrap();
    assert_eq!(before.shared.data.path, None);
    assert_eq!(
        before.shared.data.tokenizer,
        Some(run.join("tokenizer.json"))
    );
    config.system.assignment.steps = 0;
    assert!(of(&config).is_none());
    config.system.assignment.epochs = Some(1);
    assert!(of(&config).is_some());
    config.system.assignment.epochs = Some(0);
    assert!(of(&config).is_none());
    config.system.assignment.epochs = Some(2);
    config.shared.data.path = Some("statements.json".into());
    assert!(of(&config).is_none());
    config.system.assignment.data = Some("captions".into());
    let before = of(&config).unwrap();
    assert_eq!(before.shared.data.path, Some("captions".into()));
    assert_eq!(before.shared.schedule.epochs, Some(2));
}
