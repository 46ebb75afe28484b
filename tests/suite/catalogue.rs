//! Every objective by its name, on a device whose kernels are compiled pass by pass: against Flex.
//! On CUDA at the levels of precision that its matrix units have.

#[cfg(feature = "cuda")]
use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Int, Tensor};
use burn_contrastive::objective::{AnyConfig, Features, ObjectiveConfig};

use super::{Backend, assert_close, assert_near, elements, gradient, ids_on, on, random};

on_cpu_device! {
    every_objective_is_as_on_flex,
}

on_cuda! {
    every_objective_is_as_exact_as_its_level,
    embeddings_of_half_precision_are_multiplied_exactly,
}

/// Pairs and their width.
const FEW: [usize; 2] = [9, 6];
/// Several tiles of a matrix unit, none of them full.
#[cfg(feature = "cuda")]
const TILES: [usize; 2] = [40, 50];

/// Everything that an objective needs; three pairs share a label.
fn features(device: &Device, dtype: DType, [pairs, width]: [usize; 2]) -> Features {
    let of = |rows, seed| on(device, &random(rows, width, seed), dtype);
    let labels = |count: usize| -> Option<Tensor<1, Int>> {
        let labels: Vec<_> = (0..count as i64).map(|pair| pair / 3).collect();
        Some(ids_on(device, &labels))
    };
    Features {
        teacher_image: Some(of(pairs, 1)),
        teacher_text: Some(of(pairs, 2)),
        queue_image: Some(of(4, 3)),
        queue_text: Some(of(4, 4)),
        queue_teacher_image: Some(of(4, 5)),
        queue_teacher_text: Some(of(4, 6)),
        queue_image_label: labels(4),
        queue_text_label: labels(4),
        momentum_image: Some(of(pairs, 7)),
        momentum_text: Some(of(pairs, 8)),
        noise: Some(of(5, 9)),
        label: labels(pairs),
        ..Features::new(of(pairs, 10).require_grad(), of(pairs, 11).require_grad())
    }
}

/// With all embeddings rounded to a dtype, in the dtype that they have.
#[cfg(feature = "cuda")]
fn rounded(features: Features, dtype: DType) -> Features {
    let round = |x: Tensor<2>| {
        let own = x.dtype();
        x.cast(dtype).cast(own)
    };
    let leaf = |x: Tensor<2>| round(x.detach()).detach().require_grad();
    Features {
        teacher_image: features.teacher_image.map(round),
        teacher_text: features.teacher_text.map(round),
        queue_image: features.queue_image.map(round),
        queue_text: features.queue_text.map(round),
        queue_teacher_image: features.queue_teacher_image.map(round),
        queue_teacher_text: features.queue_teacher_text.map(round),
        momentum_image: features.momentum_image.map(round),
        momentum_text: features.momentum_text.map(round),
        noise: features.noise.map(round),
        image: leaf(features.image),
        text: leaf(features.text),
        ..features
    }
}

/// The loss, and its gradients by image and text.
#[cfg_attr(not(feature = "cpu"), allow(dead_code))]
fn evaluate(name: &str, device: &Device, dtype: DType) -> (f64, [Vec<f64>; 2]) {
    evaluate_at(name, "highest", device, &features(device, dtype, FEW))
}

fn evaluate_at(
    name: &str,
    precision: &str,
    device: &Device,
    features: &Features,
) -> (f64, [Vec<f64>; 2]) {
    let json = format!(r#"{{"objective": "{name}", "precision": "{precision}"}}"#);
    let config: ObjectiveConfig = serde_json::from_str(&json).expect("one of the catalogue");
    let loss = config.init(device).forward(features);
    let gradients = loss.backward();
    let by = [&features.image, &features.text].map(|x| gradient(x, &gradients));
    (elements(loss)[0], by)
}

#[cfg_attr(not(feature = "cpu"), allow(dead_code))]
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

// --- matrix units --------------------------------------------------------------------------------

/// The largest difference of a value, or of a gradient, relative to its largest element.
#[cfg(feature = "cuda")]
fn distance(
    (value, by): &(f64, [Vec<f64>; 2]),
    (expected, expected_by): &(f64, [Vec<f64>; 2]),
) -> [f64; 2] {
    let of = |x: &[f64], y: &[f64]| {
        let largest = y.iter().fold(0.0, |most: f64, y| most.max(y.abs()));
        let differences = x.iter().zip(y).map(|(x, y)| (x - y).abs());
        differences.fold(0.0, f64::max) / largest
    };
    let gradients = by.iter().zip(expected_by).map(|(x, y)| of(x, y));
    [of(&[*value], &[*expected]), gradients.fold(0.0, f64::max)]
}

/// Fails where an objective is off by more than a level's bounds; how many are rounded at all.
#[cfg(feature = "cuda")]
fn off(
    precision: &str,
    bounds: [f64; 2],
    found: impl Fn(&str) -> (f64, [Vec<f64>; 2]),
    exact: &BTreeMap<&str, (f64, [Vec<f64>; 2])>,
) -> usize {
    let mut rounded = 0;
    for (name, exact) in exact {
        let [value, gradient] = distance(&found(name), exact);
        println!("{name}, {precision}: {value:.1e}, {gradient:.1e}");
        // Of two negatives that are equally hard to 8 bits it may take the other one.
        let chooses = name.ends_with("-plus-plus") && precision == "medium";
        assert!(
            value < bounds[0] && (chooses || gradient < bounds[1]),
            "{name}, {precision}: {value:e}, {gradient:e}, at most {bounds:?}"
        );
        // More than f32 is off by.
        rounded += usize::from(gradient > 1e-5);
    }
    rounded
}

#[cfg(feature = "cuda")]
fn exact(dtype: DType) -> BTreeMap<&'static str, (f64, [Vec<f64>; 2])> {
    let flex = Device::flex().autodiff();
    // The numbers that the dtype holds.
    let inputs = rounded(features(&flex, DType::F64, TILES), dtype);
    let names = AnyConfig::names().into_iter().filter(|&name| name != "sum");
    let each = |name| (name, evaluate_at(name, "highest", &flex, &inputs));
    names.map(each).collect()
}

/// Two bf16 leave 2⁻¹⁷ of a number at most, one leaves 2⁻⁹: of either factor of a similarity, and
/// of either factor of a gradient. In a value most of that cancels out.
#[cfg(feature = "cuda")]
fn every_objective_is_as_exact_as_its_level(backend: &Backend) {
    let exact = exact(DType::F32);
    let device = backend.autodiff();
    let inputs = features(&device, DType::F32, TILES);
    for (precision, bounds) in [
        ("high", [1e-5, 4.0 / 131_072.0]),
        ("medium", [2e-3, 4.0 / 512.0]),
    ] {
        let found = |name: &str| evaluate_at(name, precision, &device, &inputs);
        let rounded = off(precision, bounds, found, &exact);
        // Compared in full they would prove nothing.
        assert!(precision == "high" || rounded > 15, "{rounded} are rounded");
    }
}

/// Only coefficients are rounded, by the level, and the gradients at the end, twice: to the dtype,
/// and so are they once more without their part along the embedding.
#[cfg(feature = "cuda")]
fn embeddings_of_half_precision_are_multiplied_exactly(backend: &Backend) {
    let device = backend.autodiff();
    for (dtype, epsilon, levels) in [
        (
            DType::BF16,
            1.0 / 256.0,
            &[("highest", 0.0), ("medium", 4e-3)][..],
        ),
        (DType::F16, 1.0 / 2048.0, &[("medium", 4e-3)]),
    ] {
        let exact = exact(dtype);
        let inputs = features(&device, dtype, TILES);
        for &(precision, coefficient) in levels {
            println!("{dtype:?}");
            let found = |name: &str| evaluate_at(name, precision, &device, &inputs);
            // A teacher, or what a mask reads, is widened, and rounded as f32 is.
            let value = if precision == "medium" { 2e-3 } else { 5e-6 };
            off(
                precision,
                [value, 2.0 * epsilon + coefficient],
                found,
                &exact,
            );
        }
    }
}
