//! Where negatives come from: the queue, the sampler, the momentum copy that feeds them.

use burn::module::{Module, Param, ParamId, RunningState};
use burn::optim::{GradientsParams, SgdConfig};
use burn::store::ModuleRecord;
use burn::tensor::{Bool, DType, Device, Int, Tensor};
use burn_contrastive::momentum::{MomentumEncoder, MomentumEncoderConfig};
use burn_contrastive::negatives::{
    Drawn, FeatureQueue, FeatureQueueConfig, HardNegativeSamplerConfig, PairFeatures,
};
use burn_contrastive::objective::{InfoNceConfig, Negatives};
use burn_contrastive::pairwise::Positives;
use burn_contrastive::similarity::{LogitScaleConfig, SimilarityConfig};

use super::*;
use crate::oracle::{Matrix, log_sum_exp};

on_every_backend! {
    a_queue_keeps_the_newest_rows_for_any_batch_sizes,
    a_queue_resumes_from_its_record,
    a_queue_holds_untracked_tensors_on_its_own_device,
    a_queue_refuses_mismatched_features,
    draw_frequencies_follow_the_softmax,
    block_size_does_not_change_the_draws,
    equal_zero_or_nan_candidates_are_drawn_uniformly,
    positives_are_never_drawn,
    an_anchor_without_negatives_draws_none,
    a_momentum_copy_is_the_moving_average,
    a_momentum_copy_resumes_from_its_record,
    a_momentum_copy_is_not_trained,
    a_model_with_momentum_copy_and_queue_resumes_training_from_its_record,
}

// --- queue -------------------------------------------------------------------------------------

/// Pairs with the ids `first..first + count`; the first column of every matrix is a multiple of the
/// id.
fn numbered(device: &Device, first: usize, count: usize) -> PairFeatures {
    let column = |factor: f64, width: usize| {
        let values = (first..first + count)
            .flat_map(|i| (0..width).map(move |k| i as f64 * factor + k as f64))
            .collect();
        on(device, &Matrix::new(count, width, values), DType::F32)
    };
    let ids = Tensor::<1, Int>::arange(first as i64..(first + count) as i64, device);
    PairFeatures::new(column(1.0, 3), column(-1.0, 3))
        .with_ids(ids)
        .with_teacher(column(10.0, 2), column(-10.0, 2))
}

fn queue(device: &Device, capacity: usize) -> FeatureQueue {
    FeatureQueueConfig::new(3)
        .with_capacity(capacity)
        .with_teacher_width(Some(2))
        .init(device)
}

/// The ids in the queue, in its order; every matrix must hold the rows of the same ids.
fn held(queue: &FeatureQueue) -> Vec<i64> {
    let Some(features) = queue.features() else {
        return Vec::new();
    };
    let ids = features.ids.unwrap().into_data().convert::<i64>();
    let ids = ids.try_to_vec::<i64>().unwrap();
    let first = |x: Tensor<2>| elements(x.narrow(1, 0, 1));
    let parts = [
        (first(features.image), 1.0),
        (first(features.text), -1.0),
        (first(features.teacher_image.unwrap()), 10.0),
        (first(features.teacher_text.unwrap()), -10.0),
    ];
    for (values, factor) in parts {
        let expected: Vec<_> = ids.iter().map(|&i| i as f64 * factor).collect();
        assert_eq!(values, expected);
    }
    ids
}

fn a_queue_keeps_the_newest_rows_for_any_batch_sizes(backend: &Backend) {
    for capacity in [1, 5, 8] {
        let mut queue = queue(&backend.device, capacity);
        let mut pushed = 0;
        assert!(held(&queue).is_empty() && queue.is_empty());
        for batch in [3, 1, 3, 2, 7, 5, 1, 19, 4] {
            queue = queue.push(numbered(&backend.device, pushed, batch));
            pushed += batch;
            let mut ids = held(&queue);
            let kept = pushed.min(capacity);
            assert_eq!((queue.len(), queue.capacity()), (kept, capacity));
            if pushed <= capacity {
                assert!(ids.is_sorted(), "not from oldest to newest: {ids:?}");
            }
            ids.sort();
            let newest: Vec<_> = ((pushed - kept) as i64..pushed as i64).collect();
            assert_eq!(ids, newest, "capacity {capacity}, after {batch} more");
        }
    }
}

fn a_queue_resumes_from_its_record(backend: &Backend) {
    let mut kept = queue(&backend.device, 5);
    for (first, count) in [(0, 3), (3, 4)] {
        kept = kept.push(numbered(&backend.device, first, count));
    }
    let bytes = kept.clone().into_record().into_bytes().unwrap();
    let record = ModuleRecord::from_bytes(bytes).unwrap();
    let loaded = queue(&backend.device, 5).try_load_record(record).unwrap();
    assert_eq!(held(&loaded), held(&kept));
    let next = |queue: FeatureQueue| held(&queue.push(numbered(&backend.device, 7, 2)));
    assert_eq!(next(loaded), next(kept));
}

fn a_queue_holds_untracked_tensors_on_its_own_device(backend: &Backend) {
    let plain = backend.device.clone();
    let autodiff = plain.clone().autodiff();
    let checkpointing = autodiff.clone().gradient_checkpointing();
    for device in [&plain, &autodiff, &checkpointing] {
        for source in [&plain, &autodiff, &checkpointing] {
            let tracked = |seed| {
                let x = on(source, &random(4, 3, seed), DType::F32);
                if source.is_autodiff() {
                    x.require_grad() * 2.0
                } else {
                    x
                }
            };
            let queue = FeatureQueueConfig::new(3).with_capacity(6).init(device);
            let features = PairFeatures::new(tracked(200), tracked(201));
            let queued = queue.push(features).features().unwrap();
            assert_eq!(elements(queued.ids.unwrap().float()), [-1.0; 4]);

            let anchors = [202, 203].map(|seed| on(device, &random(2, 3, seed), DType::F32));
            let [image, text] = anchors.map(|x| {
                if device.is_autodiff() {
                    x.require_grad()
                } else {
                    x
                }
            });
            let negatives = Negatives {
                image: Some(queued.image),
                text: Some(queued.text),
                ..Negatives::default()
            };
            let objective = InfoNceConfig::new().init(device);
            let loss = objective.forward_with(image.clone(), text, negatives);
            assert!(elements(loss.clone())[0] > 0.0);
            if device.is_autodiff() {
                assert!(image.grad(&loss.backward()).is_some());
            }
        }
    }
}

fn a_queue_refuses_mismatched_features(backend: &Backend) {
    let zeros = |shape: [usize; 2]| Tensor::<2>::zeros(shape, &backend.device);
    let queue = || {
        FeatureQueueConfig::new(3)
            .with_capacity(4)
            .init(&backend.device)
    };
    assert_panics(
        "`image` has shape [2, 4], it needs 2 rows of width 3",
        || {
            let _ = queue().push(PairFeatures::new(zeros([2, 4]), zeros([2, 4])));
        },
    );
    assert_panics("`image` has 2 rows, `text` has 3", || {
        let _ = queue().push(PairFeatures::new(zeros([2, 3]), zeros([3, 3])));
    });
    assert_panics(
        "`teacher_image` is given, the queue was built without",
        || {
            let features = PairFeatures::new(zeros([2, 3]), zeros([2, 3]));
            let _ = queue().push(features.with_teacher(zeros([2, 3]), zeros([2, 3])));
        },
    );
}

// --- sampler -----------------------------------------------------------------------------------

fn indices(drawn: &Drawn) -> Vec<usize> {
    let indices = elements(drawn.index.clone().float());
    indices.into_iter().map(|i| i as usize).collect()
}

fn existing(drawn: &Drawn) -> Vec<bool> {
    drawn
        .exists
        .clone()
        .into_data()
        .convert::<bool>()
        .try_to_vec()
        .unwrap()
}

fn draw_frequencies_follow_the_softmax(backend: &Backend) {
    // The same anchor 2,000 times against four candidates.
    let (anchor, candidates) = (random(1, 3, 210), random(4, 3, 211));
    let anchors = Matrix::new(2000, 3, anchor.values.repeat(2000));
    let temperature = 0.5;
    let [image, text] = [&anchors, &candidates].map(|x| backend.tensor(x, DType::F32));
    let sampler = HardNegativeSamplerConfig::new()
        .with_temperature(temperature)
        .init();
    let [texts, images] = sampler.draw_both(image, text, Positives::None, 5);
    let logits: Vec<_> = (0..4)
        .map(|j| crate::oracle::cosine(anchor.row(0), candidates.row(j)) / temperature)
        .collect();
    let mut counts = [0.0; 4];
    indices(&texts)
        .into_iter()
        .for_each(|j| counts[j] += 1.0 / 2000.0);
    for (share, logit) in counts.iter().zip(&logits) {
        let expected = (logit - log_sum_exp(&logits)).exp();
        assert!((share - expected).abs() < 0.04, "{counts:?} of {logits:?}");
    }
    assert!(indices(&images).iter().all(|&i| i < 2000));
}

fn block_size_does_not_change_the_draws(backend: &Backend) {
    let (image, text) = (random(9, 4, 212), random(9, 4, 213));
    let draw = |budget| {
        let similarity = SimilarityConfig::new().with_memory_budget(budget);
        let sampler = HardNegativeSamplerConfig::new()
            .with_similarity(similarity)
            .init();
        let [image, text] = [&image, &text].map(|x| backend.tensor(x, DType::F32));
        sampler
            .draw_both(image, text, Positives::Diagonal, 1)
            .map(|drawn| indices(&drawn))
    };
    let whole = draw(1 << 30);
    assert_eq!(draw(1), whole);
    assert_eq!(draw(8 * 9 * 4 * 4), whole);
}

fn equal_zero_or_nan_candidates_are_drawn_uniformly(backend: &Backend) {
    let n = 60;
    let nan = Matrix::new(n, 3, vec![f64::NAN; 3 * n]);
    let equal = equal_rows(n, 3, 214);
    let zeros = Matrix::new(n, 3, vec![0.0; 3 * n]);
    for x in [&nan, &equal, &zeros] {
        let sampler = HardNegativeSamplerConfig::new().init();
        let tensor = || backend.tensor(x, DType::F32);
        for drawn in sampler.draw_both(tensor(), tensor(), Positives::Diagonal, 2) {
            assert!(existing(&drawn).iter().all(|&exists| exists));
            let indices = indices(&drawn);
            assert!(indices.iter().enumerate().all(|(i, &j)| j < n && j != i));
            let mean = indices.iter().sum::<usize>() as f64 / n as f64;
            assert!((mean - 29.5).abs() < 9.0, "{indices:?}");
        }
    }
}

fn positives_are_never_drawn(backend: &Backend) {
    // Positives are by far the most similar.
    let x = backend.tensor(
        &Matrix::new(6, 2, [[1.0, 0.0], [1.0, 0.1]].concat().repeat(3)),
        DType::F32,
    );
    let ids = [0, 0, 1, 2, 2, 2];
    let labels = Tensor::<1, Int>::from_data(ids, &backend.device);
    let mask: Vec<Vec<bool>> = ids
        .iter()
        .map(|a| ids.iter().map(|b| a == b).collect())
        .collect();
    let mask =
        Tensor::<1, Bool>::from_data(mask.concat().as_slice(), &backend.device).reshape([6, 6]);
    let given = [
        Positives::Labels {
            rows: labels.clone(),
            columns: labels,
        },
        Positives::Mask(mask),
    ];
    let draws = given.map(|positives| {
        let sampler = HardNegativeSamplerConfig::new().init();
        sampler
            .draw_both(x.clone(), x.clone(), positives, 3)
            .map(|drawn| indices(&drawn))
    });
    assert_eq!(draws[0], draws[1]);
    for (i, &j) in draws[0]
        .iter()
        .flat_map(|indices| indices.iter().enumerate())
    {
        assert_ne!(ids[i], ids[j]);
    }
}

fn an_anchor_without_negatives_draws_none(backend: &Backend) {
    let sampler = HardNegativeSamplerConfig::new().init();
    let one = || backend.tensor(&random(1, 3, 215), DType::F32);
    let three = || backend.tensor(&random(3, 3, 216), DType::F32);
    let same = || Tensor::<1, Int>::from_data([4, 4, 4], &backend.device);
    let labels = Positives::Labels {
        rows: same(),
        columns: same(),
    };
    for drawn in [
        sampler.draw_both(one(), one(), Positives::Diagonal, 0),
        sampler.draw_both(three(), three(), labels, 0),
    ] {
        for drawn in drawn {
            assert!(existing(&drawn).iter().all(|&exists| !exists));
            assert!(indices(&drawn).iter().all(|&i| i == 0));
        }
    }
}

// --- momentum ----------------------------------------------------------------------------------

/// A parameter, a frozen one, a buffer, an integer, and a module.
#[derive(Module, Debug)]
struct Net {
    weight: Param<Tensor<2>>,
    frozen: Param<Tensor<1>>,
    mean: RunningState<Tensor<1>>,
    steps: Param<Tensor<1, Int>>,
    scale: burn_contrastive::similarity::LogitScale,
}

fn net(device: &Device, seed: u64) -> Net {
    let value = |rows, offset| on(device, &random(rows, 3, seed + offset), DType::F32);
    let vector = |offset| value(1, offset).squeeze_dim::<1>(0);
    Net {
        weight: Param::from_tensor(value(2, 0)),
        frozen: Param::from_tensor(vector(1)).set_require_grad(false),
        mean: RunningState::new(vector(2)),
        steps: Param::initialized(ParamId::new(), Tensor::from_data([seed as i32], device)),
        scale: LogitScaleConfig::new()
            .with_temperature(1.0 / (seed as f64))
            .init(device),
    }
}

/// Trained values, then copied ones.
fn state(net: &Net) -> [Vec<f64>; 2] {
    let scale = elements(net.scale.log_scale.val());
    let copied = [
        elements(net.frozen.val()),
        elements(net.mean.value()),
        elements(net.steps.val().float()),
    ];
    [
        [elements(net.weight.val()), scale].concat(),
        copied.concat(),
    ]
}

fn a_momentum_copy_is_the_moving_average(backend: &Backend) {
    let device = backend.autodiff();
    let (first, second, third) = (net(&device, 20), net(&device, 30), net(&device, 40));
    let mut momentum: MomentumEncoder<Net> = MomentumEncoderConfig::new()
        .with_momentum(0.75)
        .init(&first);
    assert_eq!(state(momentum.encoder()), state(&first));
    assert!(!momentum.encoder().weight.val().is_autodiff());
    assert_ne!(momentum.encoder().weight.id, first.weight.id);

    let mut expected = state(&first)[0].clone();
    for student in [second, third] {
        momentum = momentum.update(&student);
        let [values, copied] = state(&student);
        expected
            .iter_mut()
            .zip(values)
            .for_each(|(own, x)| *own = 0.75 * *own + 0.25 * x);
        let [moved, same] = state(momentum.encoder());
        assert_close(&moved, &expected, 1e-6);
        assert_eq!(same, copied);
    }
    // The student's buffers are its own.
    assert_eq!(state(&first), state(&net(&device, 20)));
}

fn a_momentum_copy_resumes_from_its_record(backend: &Backend) {
    let device = backend.autodiff();
    let (first, student) = (net(&device, 20), net(&device, 30));
    let config = MomentumEncoderConfig::new();
    let momentum = config.init(&first).update(&student);
    let bytes = momentum.clone().into_record().into_bytes().unwrap();
    let record = ModuleRecord::from_bytes(bytes).unwrap();
    let loaded = config.init(&student).try_load_record(record).unwrap();
    assert_eq!(state(loaded.encoder()), state(momentum.encoder()));
    let next = |momentum: MomentumEncoder<Net>| state(momentum.update(&student).encoder());
    assert_eq!(next(loaded), next(momentum));
}

fn a_momentum_copy_is_not_trained(backend: &Backend) {
    let device = backend.autodiff();
    let student = net(&device, 20);
    // Also where a trainer turns the whole model back to training.
    let momentum = MomentumEncoderConfig::new().init(&student).train();
    let x = on(&device, &random(3, 2, 220), DType::F32);
    let forward = |net: &Net| x.clone().matmul(net.weight.val()).sum();
    let loss = forward(&student) + forward(momentum.encoder());
    let gradients = loss.backward();
    assert!(student.weight.val().grad(&gradients).is_some());
    assert!(momentum.encoder().weight.val().grad(&gradients).is_none());
    let moved = momentum.update(&student);
    assert_close(&state(moved.encoder())[0], &state(&student)[0], 1e-6);
}

/// A model that holds all its state. The copy is the first field, so that an optimizer which did
/// not skip its parameters would visit them first.
#[derive(Module, Debug)]
struct Model {
    momentum: MomentumEncoder<Net>,
    queue: FeatureQueue,
    net: Net,
}

fn a_model_with_momentum_copy_and_queue_resumes_training_from_its_record(backend: &Backend) {
    let device = backend.autodiff();
    let model = || {
        let net = net(&device, 20);
        Model {
            momentum: MomentumEncoderConfig::new().with_momentum(0.9).init(&net),
            queue: FeatureQueueConfig::new(3).with_capacity(3).init(&device),
            net,
        }
    };
    let embed = |net: &Net, x: Tensor<2>| x.matmul(net.weight.val());
    let step = |mut model: Model, seed: u64| {
        let x = on(&device, &random(2, 2, seed), DType::F32);
        let image = embed(&model.net, x.clone());
        let copied = embed(model.momentum.encoder(), x.without_autodiff());
        let loss = image.clone().square().sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let momentum = state(model.momentum.encoder());
        let before = state(&model.net);
        model = SgdConfig::new().init().step(0.1, model, gradients);
        assert_eq!(state(model.momentum.encoder()), momentum);
        assert_ne!(state(&model.net), before);
        model.momentum = model.momentum.update(&model.net);
        model.queue = model.queue.push(PairFeatures::new(copied.clone(), copied));
        model
    };
    let all = |model: &Model| {
        let queue = elements(model.queue.features().unwrap().image);
        [state(model.momentum.encoder()), state(&model.net)]
            .concat()
            .into_iter()
            .chain([queue])
            .collect::<Vec<_>>()
    };
    let trained = step(step(model(), 230), 231);
    let bytes = trained.clone().into_record().into_bytes().unwrap();
    let resumed = model()
        .try_load_record(ModuleRecord::from_bytes(bytes).unwrap())
        .unwrap();
    assert_eq!(all(&resumed), all(&trained));
    assert_eq!(all(&step(resumed, 232)), all(&step(trained, 232)));
}
