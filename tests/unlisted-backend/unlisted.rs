//! An objective works on a device whose backend is on in Burn and off in burn-contrastive, and gives
//! what it gives on Flex, a backend that is on in both.
//!
//! A package of its own because cargo unifies features within one build of one package: the tests
//! of burn-contrastive cannot have `burn/ndarray` without its `ndarray`.

#[path = "../counting/mod.rs"]
mod counting;

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Bool, Device, Distribution, Tensor, TensorData, Tolerance};
use burn_contrastive::objective::{
    Context, ContrastiveConfig, Criterion, InfoNceConfig, Negatives, Teacher,
};
use burn_contrastive::pairwise::{Evaluation, Expr, Pairs, Reduction, columns, hardest, rows};
use burn_contrastive::similarity::SimilarityConfig;
use burn_contrastive::weighting::{SimilarityRegulation, Weighting};
use counting::peak_of;

const PAIRS: usize = 13;
const DIMENSIONS: usize = 7;

/// The loss and its gradients by image and text.
fn info_nce(image: &TensorData, text: &TensorData, device: Device) -> [TensorData; 3] {
    let device = device.autodiff();
    let leaf = |data: &TensorData| Tensor::<2>::from_data(data.clone(), &device).require_grad();
    let (image, text) = (leaf(image), leaf(text));
    let loss = InfoNceConfig::new()
        .init(&device)
        .forward(image.clone(), text.clone());
    let gradients = loss.backward();
    [
        loss.into_data(),
        image
            .grad(&gradients)
            .expect("a gradient by image")
            .into_data(),
        text.grad(&gradients)
            .expect("a gradient by text")
            .into_data(),
    ]
}

fn assert_equals_flex(device: Device) {
    let flex = Device::flex();
    flex.seed(11);
    let embeddings = || {
        Tensor::<2>::random([PAIRS, DIMENSIONS], Distribution::Normal(0.0, 1.0), &flex).into_data()
    };
    let (image, text) = (embeddings(), embeddings());
    let expected = info_nce(&image, &text, flex);
    for (actual, expected) in info_nce(&image, &text, device).iter().zip(&expected) {
        actual.assert_approx_eq::<f32>(expected, Tolerance::rel_abs(1e-4, 1e-6));
    }
}

#[test]
#[allow(deprecated)]
#[should_panic(expected = "move one of them with `to_device`")]
fn embeddings_on_different_devices_are_refused() {
    let _alone = alone();
    let on = |device: &Device| Tensor::<2>::ones([2, 3], device);
    let objective = InfoNceConfig::new().init(&Device::flex());
    objective.forward(on(&Device::flex()), on(&Device::ndarray()));
}

#[test]
#[allow(deprecated)] // Burn retires this backend; until it goes, it is the one that needs no GPU.
fn info_nce_on_ndarray_equals_flex() {
    let _alone = alone();
    assert_equals_flex(Device::ndarray());
}

/// Several groups of pairs: a teacher's weights and a queue, removal, the own modality.
#[test]
#[allow(deprecated)]
fn contrasts_on_ndarray_equal_flex() {
    let _alone = alone();
    let regulation = SimilarityRegulation::new().with_alpha(0.5);
    let removal = Weighting::Removal {
        regulation,
        threshold: 0.9,
    };
    for weighting in [Weighting::Regulation(regulation), removal] {
        let run = |device: Device| {
            let leaf = |rows, step| matrix(rows, DIMENSIONS, step, &device).require_grad();
            let (image, text, queue) = (leaf(PAIRS, 0.37), leaf(PAIRS, 0.41), leaf(5, 0.43));
            let constant = |rows, step| matrix(rows, 4, step, &device);
            let context = Context {
                negatives: Negatives {
                    text: Some(queue.clone()),
                    ..Negatives::default()
                },
                teacher: Some(Teacher {
                    negative_text: Some(constant(5, 0.31)),
                    ..Teacher::new(constant(PAIRS, 0.29), constant(PAIRS, 0.23))
                }),
                ids: None,
            };
            let criterion = Criterion::new()
                .with_weighting(weighting)
                .with_within_modality(true)
                .with_guided_margin(Some(0.5));
            let contrast = ContrastiveConfig::new()
                .with_criterion(criterion)
                .init(&device);
            let loss = contrast.forward(image.clone(), text.clone(), context);
            let gradients = loss.backward();
            let by_leaf =
                [image, text, queue].map(|leaf| leaf.grad(&gradients).expect("a gradient"));
            let by_scale = contrast.logit_scale.log_scale.grad(&gradients);
            let mut found = vec![loss.into_data(), by_scale.expect("a gradient").into_data()];
            found.extend(by_leaf.map(Tensor::into_data));
            found
        };
        let expected = run(Device::flex().autodiff());
        assert_all_equal(&run(Device::ndarray().autodiff()), &expected);
    }
}

#[cfg(feature = "wgpu")]
#[test]
fn info_nce_on_wgpu_equals_flex() {
    let _alone = alone();
    assert_equals_flex(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice));
}

// --- the pairwise engine --------------------------------------------------------------------------

/// One test at a time, so that nothing else allocates while memory is counted.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> impl Drop {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers in [-1, 1], the same on every device.
fn wave(len: usize, frequency: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * frequency).sin()).collect()
}

fn matrix(rows: usize, width: usize, frequency: f32, device: &Device) -> Tensor<2> {
    let data = TensorData::new(wave(rows * width, frequency), [rows, width]);
    Tensor::from_data(data, device)
}

fn vector(len: usize, frequency: f32, device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(wave(len, frequency), [len]), device)
}

const COLUMNS: usize = 9;

/// Pairs with everything bound, tracked where there is autodiff, and an expression of it all.
fn pairs(device: &Device) -> (Pairs, Expr, [Tensor<2>; 2], [Tensor<1>; 3]) {
    let tracked = device.is_autodiff();
    let set = |t: Tensor<2>| if tracked { t.require_grad() } else { t };
    let number = |t: Tensor<1>| if tracked { t.require_grad() } else { t };
    let a = set(matrix(PAIRS, DIMENSIONS, 0.7, device));
    let b = set(matrix(COLUMNS, DIMENSIONS, 0.9, device));
    let u = number(vector(PAIRS, 1.3, device));
    let v = number(vector(COLUMNS, 1.7, device));
    let s = number(Tensor::from_data([1.5f32], device));
    let mut pairs = Pairs::new(a.clone(), b.clone());
    let teacher = pairs.teacher(
        matrix(PAIRS, 2, 0.3, device),
        matrix(COLUMNS, 2, 0.4, device),
    );
    let holds = (0..PAIRS * COLUMNS).map(|k| k % 5 == 2).collect::<Vec<_>>();
    let mask = TensorData::new(holds, [PAIRS, COLUMNS]);
    let mask = pairs.mask(Tensor::<2, Bool>::from_data(mask, device));
    let logit = pairs.similarity() * pairs.scalar(s.clone()) + pairs.row(u.clone());
    let x = (logit - &pairs.column(v.clone()) * &teacher).except(&mask);
    (pairs, x, [a, b], [u, v, s])
}

fn reductions(x: &Expr) -> [Reduction; 3] {
    let value = x.sigmoid();
    [
        rows().log_sum_exp(&x.except(&Expr::diagonal())),
        columns().softmax_mean(x, &value),
        columns().sum(&value),
    ]
}

fn assert_all_equal(actual: &[TensorData], expected: &[TensorData]) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        actual.assert_approx_eq::<f32>(expected, Tolerance::rel_abs(1e-4, 1e-6));
    }
}

/// A loss and its gradients by everything that is tracked.
fn gradients(device: &Device, loss: impl Fn(Pairs, Expr) -> Tensor<1>) -> Vec<TensorData> {
    let (pairs, x, matrices, vectors) = pairs(device);
    let loss = loss(pairs, x);
    let gradients = loss.backward();
    let by_matrix = matrices.map(|t| t.grad(&gradients).expect("a gradient").into_data());
    let by_vector = vectors.map(|t| t.grad(&gradients).expect("a gradient").into_data());
    [loss.into_data()]
        .into_iter()
        .chain(by_matrix)
        .chain(by_vector)
        .collect()
}

#[test]
#[allow(deprecated)]
fn scalars_have_the_gradients_that_flex_gives() {
    let _alone = alone();
    // Once in the scale of the gradient, once in a loss beside others.
    let losses: [fn(Pairs, Expr) -> Tensor<1>; 3] = [
        |pairs, x| pairs.total(&x.sigmoid()),
        |pairs, x| {
            let total = pairs.clone().total(&x.sigmoid());
            total.clone() * total * 0.5
        },
        |pairs, x| {
            pairs.reduce_to_scalar(&reductions(&x), |results| {
                let squares = results.into_iter().map(|r| (r.clone() * r).sum());
                squares.reduce(|x, y| x + y).expect("results")
            })
        },
    ];
    for loss in losses {
        let expected = gradients(&Device::flex().autodiff(), loss);
        let unlisted = Device::ndarray().autodiff();
        assert_all_equal(&gradients(&unlisted, loss), &expected);
        let checkpointing = unlisted.gradient_checkpointing();
        assert_all_equal(&gradients(&checkpointing, loss), &expected);
    }
}

#[test]
#[allow(deprecated)]
fn one_set_with_itself_has_the_gradient_that_flex_gives() {
    let _alone = alone();
    let run = |device: Device| {
        let a = matrix(PAIRS, DIMENSIONS, 0.7, &device).require_grad();
        let pairs = Pairs::within(a.clone());
        let logit = (pairs.similarity() * 2.0).except(&Expr::diagonal());
        let sums = [rows().log_sum_exp(&logit)];
        let loss = pairs.reduce_to_scalar(&sums, |sums| sums[0].clone().sum());
        let gradients = loss.backward();
        [
            loss.into_data(),
            a.grad(&gradients).expect("a gradient").into_data(),
        ]
    };
    let expected = run(Device::flex().autodiff());
    assert_all_equal(&run(Device::ndarray().autodiff()), &expected);
}

#[test]
#[allow(deprecated)]
fn without_autodiff_results_are_those_of_flex() {
    let _alone = alone();
    let run = |device: &Device| {
        let (pairs, x, _, _) = pairs(device);
        let results = pairs.reduce(&reductions(&x));
        results
            .into_iter()
            .map(Tensor::into_data)
            .collect::<Vec<_>>()
    };
    assert_all_equal(&run(&Device::ndarray()), &run(&Device::flex()));
}

#[test]
#[allow(deprecated)]
#[should_panic(expected = "is built without the backend of")]
fn results_with_gradients_are_refused() {
    let _alone = alone();
    let (pairs, x, _, _) = pairs(&Device::ndarray().autodiff());
    pairs.reduce(&reductions(&x));
}

#[test]
#[allow(deprecated)]
fn the_refusal_names_the_ways_out() {
    let _alone = alone();
    let panic = std::panic::catch_unwind(|| {
        let (pairs, x, _, _) = pairs(&Device::ndarray().autodiff());
        pairs.reduce(&reductions(&x));
    });
    let panic = panic.expect_err("a refusal");
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(
        message.contains("enable its feature") && message.contains("`Evaluation::Dense`"),
        "{message}"
    );
}

#[test]
#[allow(deprecated)]
fn dense_evaluation_has_the_gradients_that_flex_gives() {
    let _alone = alone();
    let loss = |evaluation| {
        move |pairs: Pairs, x: Expr| {
            let results = pairs.with_evaluation(evaluation).reduce(&reductions(&x));
            let squares = results.into_iter().map(|r| (r.clone() * r).sum());
            squares.reduce(|x, y| x + y).expect("results")
        }
    };
    let expected = gradients(&Device::flex().autodiff(), loss(Evaluation::Auto));
    let unlisted = Device::ndarray().autodiff();
    assert_all_equal(&gradients(&unlisted, loss(Evaluation::Dense)), &expected);
}

#[test]
#[allow(deprecated)]
fn the_hardest_pairs_and_their_gradients_are_those_of_flex() {
    let _alone = alone();
    let run = |device: Device| {
        let (pairs, _, matrices, _) = pairs(&device);
        let [by_row, by_column] = hardest(pairs, &Expr::diagonal());
        let sum = (by_row.similarity.clone() * by_row.similarity.clone()).sum();
        let gradients = (sum + by_column.similarity.clone().sum()).backward();
        let indices = [by_row.index, by_column.index].map(|index| index.float().into_data());
        let similarities = [by_row.similarity, by_column.similarity].map(Tensor::into_data);
        let by_matrix = matrices.map(|t| t.grad(&gradients).expect("a gradient").into_data());
        [indices, similarities, by_matrix].concat()
    };
    let expected = run(Device::flex().autodiff());
    assert_all_equal(&run(Device::ndarray().autodiff()), &expected);
}

#[test]
#[allow(deprecated)]
fn no_matrix_of_similarities_exists() {
    let _alone = alone();
    const N: usize = 2048;
    const D: usize = 16;
    const MIB: usize = 1 << 20;
    let device = Device::ndarray().autodiff();
    let a = matrix(N, D, 0.37, &device).require_grad();
    let b = matrix(N, D, 0.41, &device).require_grad();
    let with_budget = || Pairs::new(a.clone(), b.clone()).with_memory_budget(MIB);
    let info_nce = InfoNceConfig::new()
        .with_similarity(SimilarityConfig::new().with_memory_budget(MIB))
        .init(&device);
    let losses: [(&str, &dyn Fn() -> Tensor<1>); 4] = [
        ("total", &|| {
            let pairs = with_budget();
            let cost = (pairs.similarity() - 0.2).relu();
            pairs.total(&cost)
        }),
        ("reduce to a scalar", &|| {
            let pairs = with_budget();
            let x = pairs.similarity() * 2.0;
            let reductions = [
                rows().log_sum_exp(&x),
                columns().softmax_mean(&x, &x.square()),
            ];
            pairs.reduce_to_scalar(&reductions, |results| {
                results
                    .into_iter()
                    .map(Tensor::sum)
                    .reduce(|x, y| x + y)
                    .expect("results")
            })
        }),
        ("InfoNCE", &|| info_nce.forward(a.clone(), b.clone())),
        ("hardest", &|| {
            let [by_row, by_column] = hardest(with_budget(), &Expr::diagonal());
            by_row.similarity.sum() + by_column.similarity.sum()
        }),
    ];
    // What the backend allocates once and keeps is no part of an evaluation.
    losses[0].1().backward();
    for (name, loss) in losses {
        let [peak, _] = peak_of(|| drop(loss().backward()));
        // The budget twice over, for what a block's steps hold beside each other, and of both sides eight
        // copies: normalised, gradients, products with them.
        let bound = 2 * MIB + 8 * 2 * (4 * N * D);
        println!("{name}: peak {peak} of {bound}");
        assert!(
            peak <= bound,
            "{name}: peak {peak} bytes, need at most {bound}"
        );
        assert!(4 * bound <= 4 * N * N, "the bound must tell");
    }
}
