//! Every objective by its name, on a device whose kernels are compiled pass by pass: against Flex.

use burn::tensor::{DType, Device, Int, Tensor};
use burn_contrastive::objective::{AnyConfig, Features, ObjectiveConfig};

use super::{Backend, assert_close, assert_near, elements, gradient, ids_on, on, random};

on_cpu_device! {
    every_objective_is_as_on_flex,
}

const PAIRS: usize = 9;

/// Everything that an objective needs; three pairs share a label.
fn features(device: &Device, dtype: DType) -> Features {
    let of = |rows, seed| on(device, &random(rows, 6, seed), dtype);
    let labels = |count: usize| -> Option<Tensor<1, Int>> {
        let labels: Vec<_> = (0..count as i64).map(|pair| pair / 3).collect();
        Some(ids_on(device, &labels))
    };
    Features {
        teacher_image: Some(of(PAIRS, 1)),
        teacher_text: Some(of(PAIRS, 2)),
        queue_image: Some(of(4, 3)),
        queue_text: Some(of(4, 4)),
        queue_teacher_image: Some(of(4, 5)),
        queue_teacher_text: Some(of(4, 6)),
        queue_image_label: labels(4),
        queue_text_label: labels(4),
        momentum_image: Some(of(PAIRS, 7)),
        momentum_text: Some(of(PAIRS, 8)),
        noise: Some(of(5, 9)),
        label: labels(PAIRS),
        ..Features::new(of(PAIRS, 10).require_grad(), of(PAIRS, 11).require_grad())
    }
}

/// The loss, and its gradients by image and text.
fn evaluate(name: &str, device: &Device, dtype: DType) -> (f64, [Vec<f64>; 2]) {
    let config = ObjectiveConfig::named(name).expect("an objective of the catalogue");
    let features = features(device, dtype);
    let loss = config.init(device).forward(&features);
    let gradients = loss.backward();
    let by = [&features.image, &features.text].map(|x| gradient(x, &gradients));
    (elements(loss)[0], by)
}

fn every_objective_is_as_on_flex(backend: &Backend) {
    for name in AnyConfig::names().into_iter().filter(|&name| name != "sum") {
        println!("{name}");
        let (loss, by) = evaluate(name, &backend.autodiff(), DType::F32);
        let (expected, expected_by) = evaluate(name, &Device::flex().autodiff(), DType::F64);
        assert_near(loss, expected, 2e-5);
        for (x, expected) in by.iter().zip(&expected_by) {
            assert_close(x, expected, 1e-4);
        }
    }
}
