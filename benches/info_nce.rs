//! Time of InfoNCE, forward and backward, on the CPU: `cargo bench --bench info_nce`.
//!
//! Each shape is first held against the oracle of the tests, so that nothing wrong is timed.

#[path = "../tests/oracle/mod.rs"]
#[allow(dead_code)]
mod oracle;

use burn::tensor::{Device, Tensor, TensorData};
use burn_contrastive::objective::InfoNceConfig;
use divan::{Bencher, counter::ItemsCount};
use oracle::Matrix;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Pairs and width of a batch.
const SHAPES: [[usize; 2]; 4] = [[64, 512], [256, 512], [1024, 512], [1024, 64]];

fn main() {
    divan::main();
}

fn embeddings(rows: usize, width: usize, seed: u64) -> Matrix {
    let mut rng = StdRng::seed_from_u64(seed);
    let values = (0..rows * width)
        .map(|_| f64::from(rng.random_range(-1.0..1.0f32)))
        .collect();
    Matrix::new(rows, width, values)
}

fn tensor(x: &Matrix, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = x.values.iter().map(|&v| v as f32).collect();
    Tensor::from_data(TensorData::new(values, [x.rows, x.width]), device)
}

#[divan::bench(args = SHAPES)]
fn forward_and_backward(bencher: Bencher, [rows, width]: [usize; 2]) {
    let device = Device::default().autodiff();
    let objective = InfoNceConfig::new().init(&device);
    let (image, text) = (embeddings(rows, width, 1), embeddings(rows, width, 2));
    let (images, texts) = (tensor(&image, &device), tensor(&text, &device));

    let expected = oracle::InfoNce {
        log_scale: (1.0f64 / 0.07).ln(),
        image_to_text_weight: 0.5,
        normalize: true,
    }
    .loss(&image, &text);
    let actual = objective
        .forward(images.clone(), texts.clone())
        .into_scalar::<f32>();
    approx::assert_relative_eq!(f64::from(actual), expected, max_relative = 1e-5);

    bencher.counter(ItemsCount::new(rows)).bench_local(|| {
        let image = images.clone().detach().require_grad();
        let text = texts.clone().detach().require_grad();
        let gradients = objective.forward(image.clone(), text.clone()).backward();
        // Reading a result waits for the device.
        let read = |x: Tensor<2>| x.grad(&gradients).map(Tensor::into_data);
        (read(image), read(text))
    });
}
