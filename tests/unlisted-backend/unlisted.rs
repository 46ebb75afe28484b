//! An objective works on a device whose backend is on in Burn and off in burn-contrastive, and gives
//! what it gives on Flex, a backend that is on in both.
//!
//! A package of its own because cargo unifies features within one build of one package: the tests
//! of burn-contrastive cannot have `burn/ndarray` without its `ndarray`.

use burn::tensor::{Device, Distribution, Tensor, TensorData, Tolerance};
use burn_contrastive::objective::InfoNceConfig;

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
#[allow(deprecated)] // Burn retires this backend; until it goes, it is the one that needs no GPU.
fn info_nce_on_ndarray_equals_flex() {
    assert_equals_flex(Device::ndarray());
}

#[cfg(feature = "wgpu")]
#[test]
fn info_nce_on_wgpu_equals_flex() {
    assert_equals_flex(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice));
}
