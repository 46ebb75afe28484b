//! A device whose backend is on in Burn and off in burn-contrastive: values are those of Flex, a
//! backend that is on in both; gradients are refused with a message that names the feature, or are
//! those of the dense evaluation.
//!
//! A package of its own because cargo unifies features within one build of one package: the tests
//! of burn-contrastive cannot have `burn/ndarray` without its `ndarray`.
#![allow(deprecated)] // Burn retires NdArray; until it goes, it is the backend that needs no GPU.

use burn::tensor::{Device, Tensor, TensorData, Tolerance};
use burn_contrastive::objective::InfoNceConfig;
use burn_contrastive::pairwise::{Evaluation, Expr, Pairs, columns, rows};
use burn_contrastive::similarity::SimilarityConfig;

fn embeddings(rows: usize, step: f32, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = (0..rows * 7).map(|k| (k as f32 * step).sin()).collect();
    Tensor::from_data(TensorData::new(values, [rows, 7]), device)
}

/// Every kind of reduction, in several blocks.
fn results(device: &Device) -> Vec<TensorData> {
    let (a, b) = (embeddings(150, 0.37, device), embeddings(130, 0.41, device));
    let mut pairs = Pairs::new(a, b).with_memory_budget(1 << 16);
    let row = pairs.row(Tensor::arange(0..150, device).float() * 0.01);
    let c = pairs.similarity();
    let x = (&c + &row).except(&Expr::diagonal());
    let results = pairs.reduce(&[
        rows().log_sum_exp(&x),
        columns().softmax_mean(&x, &c.softplus()),
        columns().sum(&c.sigmoid()),
    ]);
    results.into_iter().map(Tensor::into_data).collect()
}

fn assert_equal(actual: &[TensorData], expected: &[TensorData]) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        actual.assert_approx_eq::<f32>(expected, Tolerance::rel_abs(1e-4, 1e-5));
    }
}

#[test]
fn values_without_gradients_are_those_of_flex() {
    assert_equal(&results(&Device::ndarray()), &results(&Device::flex()));
}

#[cfg(feature = "wgpu")]
#[test]
fn values_without_gradients_on_wgpu_are_those_of_flex() {
    let wgpu = Device::wgpu(burn::tensor::DeviceKind::DefaultDevice);
    assert_equal(&results(&wgpu), &results(&Device::flex()));
}

#[test]
#[should_panic(expected = "enable its feature (`flex`, `ndarray`, `wgpu`")]
fn gradients_are_refused_with_the_features_that_give_them() {
    let device = Device::ndarray().autodiff();
    let text = embeddings(13, 0.41, &device);
    InfoNceConfig::new()
        .init(&device)
        .forward(embeddings(13, 0.37, &device).require_grad(), text);
}

#[test]
fn the_dense_evaluation_has_the_gradients_of_flex() {
    let run = |device: Device| {
        let device = device.autodiff();
        let similarity = SimilarityConfig::new().with_evaluation(Evaluation::Dense);
        let image = embeddings(13, 0.37, &device).require_grad();
        let loss = InfoNceConfig::new()
            .with_similarity(similarity)
            .init(&device)
            .forward(image.clone(), embeddings(13, 0.41, &device));
        let gradients = loss.backward();
        let gradient = image.grad(&gradients).expect("a gradient by image");
        [loss.into_data(), gradient.into_data()]
    };
    assert_equal(&run(Device::ndarray()), &run(Device::flex()));
}

#[test]
#[should_panic(expected = "move one of them with `to_device`")]
fn embeddings_on_different_devices_are_refused() {
    let on = |device: &Device| Tensor::<2>::ones([2, 3], device);
    let objective = InfoNceConfig::new().init(&Device::flex());
    objective.forward(on(&Device::flex()), on(&Device::ndarray()));
}
