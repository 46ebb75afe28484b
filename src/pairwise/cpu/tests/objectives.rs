//! Every objective at every level of precision, and on embeddings of half precision, against f64.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::objective::{AnyConfig, Features, ObjectiveConfig};
use crate::pairwise::{Pairs, Precision, rows};

const PAIRS: usize = 40;
const WIDTH: usize = 48;

/// Everything that an objective needs; three pairs share a label. Of numbers that any of the dtypes
/// holds, or of f32.
fn features(device: &Device, dtype: DType, is_rounded: bool) -> Features {
    let of = |rows: usize, seed: u64| {
        let mut rng = StdRng::seed_from_u64(seed);
        let values: Vec<f32> = (0..rows * WIDTH)
            .map(|_| {
                let x: f32 = rng.random_range(-1.0..1.0);
                if is_rounded {
                    (x * 64.0).round() / 64.0
                } else {
                    x
                }
            })
            .collect();
        let data = TensorData::new(values, [rows, WIDTH]);
        Tensor::<2>::from_data(data, (device, dtype))
    };
    let labels = |count: usize| -> Option<Tensor<1, Int>> {
        let labels: Vec<_> = (0..count as i64).map(|pair| pair / 3).collect();
        Some(Tensor::from_data(TensorData::new(labels, [count]), device))
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

fn random([rows, width]: [usize; 2], seed: u64) -> Vec<f64> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..rows * width)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect()
}

/// The loss, and its gradients by image and text.
fn evaluate(name: &str, precision: &str, features: &Features) -> [Vec<f64>; 3] {
    let json = format!(r#"{{"objective": "{name}", "precision": "{precision}"}}"#);
    let config: ObjectiveConfig = serde_json::from_str(&json).unwrap();
    let loss = config.init(&features.image.device()).forward(features);
    let gradients = loss.backward();
    let elements = |data: TensorData| data.convert_dtype(DType::F64).try_to_vec::<f64>().unwrap();
    let by = [&features.image, &features.text].map(|x| {
        let gradient = x.grad(&gradients).expect("it needs both sides");
        elements(gradient.into_data())
    });
    let [image, text] = by;
    [elements(loss.into_data()), image, text]
}

/// The largest difference of a value, or of a gradient, relative to its largest element.
fn distance(found: &[Vec<f64>; 3], exact: &[Vec<f64>; 3]) -> [f64; 2] {
    let of = |k: usize| {
        let largest = exact[k].iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        let differences = found[k].iter().zip(&exact[k]).map(|(x, y)| (x - y).abs());
        differences.fold(0.0, f64::max) / largest
    };
    [of(0), of(1).max(of(2))]
}

fn names() -> impl Iterator<Item = &'static str> {
    AnyConfig::names().into_iter().filter(|&name| name != "sum")
}

/// Two bf16 leave 2⁻¹⁷ of a number at most, one leaves 2⁻⁹: of either factor of a similarity, and
/// of either factor of a gradient. In a value most of that cancels out.
const LEVELS: [(&str, [f64; 2]); 2] = [
    ("high", [1e-6, 4.0 / 131_072.0]),
    ("medium", [5e-4, 4.0 / 512.0]),
];

#[test]
fn every_objective_is_as_exact_as_its_level() {
    let device = Device::flex().autodiff();
    let [single, double] = [DType::F32, DType::F64].map(|dtype| features(&device, dtype, false));
    let mut rounded = 0;
    for name in names() {
        let exact = evaluate(name, "highest", &double);
        let highest = evaluate(name, "highest", &single);
        let [value, gradient] = distance(&highest, &exact);
        assert!(
            value < 5e-7 && gradient < 2e-6,
            "{name}: {value:e}, {gradient:e}"
        );
        for (level, bounds) in LEVELS {
            let found = evaluate(name, level, &single);
            let [value, gradient] = distance(&found, &exact);
            assert!(
                value < bounds[0] && gradient < bounds[1],
                "{name}, {level}: {value:e}, {gradient:e}"
            );
            rounded += usize::from(found != highest);
        }
    }
    assert!(rounded > 30, "{rounded} were rounded");
}

/// For the gradient pairs on the diagonal are multiplied in f32: what two terms leave of their
/// coefficients, the largest of their rows, would be ten times the error of f32.
#[test]
fn high_is_at_most_five_times_as_far_from_f64_as_f32() {
    let device = Device::flex().autodiff();
    let random = |seed| random([160, 256], seed);
    let noisy = random(1).into_iter().zip(random(2)).map(|(x, y)| x + y);
    let of = |values: Vec<f64>, dtype| {
        let data = TensorData::new(values, [160, 256]);
        Tensor::<2>::from_data(data, (&device, dtype)).require_grad()
    };
    for text in [random(2), noisy.collect::<Vec<_>>()] {
        let features = |dtype| Features::new(of(random(1), dtype), of(text.clone(), dtype));
        let exact = evaluate("info-nce", "highest", &features(DType::F64));
        let [highest, high, medium] = ["highest", "high", "medium"].map(|level| {
            let found = evaluate("info-nce", level, &features(DType::F32));
            distance(&found, &exact)
        });
        let epsilon = f32::EPSILON as f64;
        assert!(high[0] <= 5.0 * highest[0].max(epsilon));
        assert!(high[1] <= 5.0 * highest[1]);
        assert!(medium[1] > 10.0 * high[1]);
    }
}

/// Only coefficients are rounded, by the level, and the gradients at the end, twice: to the dtype,
/// and so are they once more without their part along the embedding.
#[test]
fn embeddings_of_half_precision_are_multiplied_exactly_at_every_level() {
    let device = Device::flex().autodiff();
    let double = features(&device, DType::F64, true);
    for (dtype, epsilon) in [(DType::BF16, 1.0 / 256.0), (DType::F16, 1.0 / 2048.0)] {
        let half = features(&device, dtype, true);
        for name in names() {
            let exact = evaluate(name, "highest", &double);
            for (level, coefficient) in [("highest", 0.0), ("high", 1e-5), ("medium", 4e-3)] {
                let found = evaluate(name, level, &half);
                let [value, gradient] = distance(&found, &exact);
                // A teacher, or what a mask reads, is widened, and rounded as f32 is.
                let bound = if level == "medium" { 5e-4 } else { 1e-6 };
                assert!(
                    value < bound && gradient < 2.0 * epsilon + coefficient,
                    "{name}, {dtype:?}, {level}: {value:e}, {gradient:e}"
                );
            }
        }
    }
}

/// Matrix units would take it for zeros; the embeddings stay with them.
#[test]
fn a_teacher_with_a_tiny_row_is_multiplied_in_f32_beside_half_precision() {
    let device = Device::flex();
    let matrix = |values: [[f32; 2]; 2], dtype| {
        Tensor::<2>::from_data(TensorData::from(values), (&device, dtype))
    };
    let a = matrix([[1.0, 0.5], [0.25, 2.0]], DType::BF16);
    let teacher = matrix([[1e-38, 0.0], [1.0, 3.0]], DType::F32);
    let mut pairs = Pairs::new(a.clone(), a).with_precision(Precision::High);
    let weight = pairs.teacher(teacher.clone(), teacher) * 1e38;
    let product = pairs.similarity() * weight;
    let sums = pairs.reduce(&[rows().sum(&product)]).remove(0);
    let found = sums.into_data().try_to_vec::<f32>().unwrap();
    // 1.25 · 0 + 1.25 · 1, and 1.25 · 1 + 4.0625 · 10 · 1e38.
    assert!((found[0] - 1.25).abs() < 1e-6, "{found:?}");
    assert_eq!(found[1], f32::INFINITY);
}
