//! Our side of the comparison on a GPU: a worker that `benches/gpu/run` starts, one process a case.
//!
//! It reads one JSON request a line from stdin and answers each with one JSON line on stdout:
//!
//! | request | answer |
//! |---|---|
//! | a case (below) | warms up; `loss`, `peak_bytes` (device memory over the inputs) |
//! | `{"repeat": R}` | `seconds` of each of R evaluations of that case, device waited for |
//! | `{"product": true, "repeat": R}` | `seconds` of each of R products, `flops` of one |
//!
//! A case is `{"device": "cuda", "objective": "info-nce", "n": N, "d": D, "dtype": "bf16",
//! "precision": "medium"}`; an evaluation is forward and backward, a product that of its features.
//!
//! Called without `--worker`, as `cargo bench` does, it only says how to run the comparison.

use std::io::BufRead;
use std::time::Instant;

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_contrastive::objective::{InfoNceConfig, SigLipConfig};
use burn_contrastive::pairwise::Precision;
use burn_contrastive::similarity::{SimilarityConfig, l2_normalize};
use serde_json::{Value, json};

fn main() {
    if !std::env::args().any(|argument| argument == "--worker") {
        println!("gpu: this is one side of a comparison, which `benches/gpu/run` makes");
        return;
    }
    let mut case: Option<Case> = None;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line.expect("stdin is text")).expect("JSON");
        let answer = match &case {
            None => match Case::new(&request) {
                Ok((new, facts)) => {
                    case = Some(new);
                    facts
                }
                Err(error) => json!({ "error": error }),
            },
            Some(case) if request["product"] == true => case.products(size(&request, "repeat")),
            Some(case) => {
                json!({ "seconds": case.timed(size(&request, "repeat"), || case.evaluate()) })
            }
        };
        println!("{answer}");
    }
}

struct Case {
    device: Device,
    image: Tensor<2>,
    text: Tensor<2>,
    loss: Box<dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<1>>,
}

impl Case {
    fn new(request: &Value) -> Result<(Self, Value), String> {
        let device = device(request["device"].as_str().expect("a device"));
        let (n, d) = (size(request, "n"), size(request, "d"));
        let dtype = match request["dtype"].as_str() {
            Some("f32") => DType::F32,
            Some("bf16") => DType::BF16,
            other => panic!("no dtype is called {other:?}"),
        };
        if !device.supports_dtype(dtype) {
            return Err(format!("the device has no {dtype:?}"));
        }
        let precision = match request["precision"].as_str() {
            Some("highest") => Precision::Highest,
            Some("high") => Precision::High,
            Some("medium") => Precision::Medium,
            other => panic!("no precision is called {other:?}"),
        };
        // Features are normalised already, as the other side's are.
        let similarity = SimilarityConfig::new()
            .with_normalize(false)
            .with_precision(precision);
        let tracked = device.clone().autodiff();
        let loss: Box<dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<1>> =
            match request["objective"].as_str() {
                Some("info-nce") => {
                    let objective = InfoNceConfig::new()
                        .with_similarity(similarity)
                        .init(&tracked);
                    Box::new(move |image, text| objective.forward(image, text))
                }
                Some("siglip") => {
                    let objective = SigLipConfig::new()
                        .with_similarity(similarity)
                        .init(&tracked);
                    Box::new(move |image, text| objective.forward(image, text))
                }
                other => panic!("no objective is called {other:?}"),
            };
        let features = |seed| {
            let x = Tensor::<2>::from_data(features(n, d, seed), (&device, DType::F32));
            l2_normalize(x).cast(dtype)
        };
        let case = Self {
            image: features(1),
            text: features(2),
            device: device.clone(),
            loss,
        };
        device.sync().expect("the features reach the device");
        device.memory_cleanup();
        let reserved = || device.memory_pool_usage().map(|usage| usage.bytes_reserved);
        let before = reserved();
        // A kernel that does not compile says so where a result of it is read, and nowhere else.
        let (loss, gradients) = case.gradients();
        for gradient in gradients {
            assert!(
                gradient.abs().sum().into_scalar::<f32>() > 0.0,
                "a gradient is zero"
            );
        }
        device.sync().expect("an evaluation ends");
        let over = |after: u64| after.saturating_sub(before.unwrap_or(0));
        let facts = json!({ "loss": loss, "peak_bytes": reserved().map(over) });
        Ok((case, facts))
    }

    /// What is timed: marking the leaves, forward, backward for both features and for what the
    /// objective learns.
    fn evaluate(&self) -> f32 {
        let (loss, gradients) = self.gradients();
        drop(gradients);
        self.device.sync().expect("an evaluation ends");
        loss
    }

    /// The loss, and its gradients by both features.
    fn gradients(&self) -> (f32, [Tensor<2>; 2]) {
        let leaf = |x: &Tensor<2>| Tensor::from_inner(x.clone()).require_grad();
        let features = [leaf(&self.image), leaf(&self.text)];
        let [image, text] = features.clone();
        let loss = (self.loss)(image, text);
        let mut gradients = loss.backward();
        let gradients = features.map(|x| x.grad_remove(&mut gradients).expect("a gradient"));
        (loss.into_scalar::<f32>(), gradients)
    }

    fn timed<T>(&self, repeat: usize, mut run: impl FnMut() -> T) -> Vec<f64> {
        let mut once = || {
            let start = Instant::now();
            run();
            self.device.sync().expect("the device goes on");
            start.elapsed().as_secs_f64()
        };
        (0..repeat).map(|_| once()).collect()
    }

    /// Burn's own product of as many features as fit, for scale.
    fn products(&self, repeat: usize) -> Value {
        let [n, d] = self.image.dims();
        let n = n.min(8192);
        let [a, b] = [&self.image, &self.text].map(|x| x.clone().slice(0..n));
        let product = || a.clone().matmul(b.clone().transpose());
        product();
        json!({ "seconds": self.timed(repeat, product), "flops": 2 * n * n * d })
    }
}

/// The device of that name, whose feature must be on.
fn device(name: &str) -> Device {
    match name {
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(0),
        #[cfg(feature = "vulkan")]
        "vulkan" => Device::vulkan(Default::default()),
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::wgpu(Default::default()),
        #[cfg(feature = "rocm")]
        "rocm" => Device::rocm(0),
        #[cfg(feature = "metal")]
        "metal" => Device::metal(Default::default()),
        #[cfg(feature = "flex")]
        "flex" => Device::flex(),
        other => panic!("no device is called `{other}`, or its feature is off"),
    }
}

/// Numbers in [-1, 1), the same as the other side's: a hash of their place.
fn features(n: usize, d: usize, seed: u32) -> TensorData {
    let number = |k: usize| {
        let mut x = (k as u32)
            .wrapping_mul(0x9E37_79B1)
            .wrapping_add(seed.wrapping_mul(0x85EB_CA6B));
        x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
        x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
        x ^= x >> 16;
        (x >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    TensorData::new((0..n * d).map(number).collect::<Vec<f32>>(), [n, d])
}

fn size(request: &Value, name: &str) -> usize {
    let value = request[name].as_u64();
    value.unwrap_or_else(|| panic!("`{name}` is a count")) as usize
}
