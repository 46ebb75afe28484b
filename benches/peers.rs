//! Our side of the comparison with other libraries: a worker that `benches/peers/run` starts.
//!
//! It reads one JSON request a line from stdin and answers each with one JSON line on stdout:
//!
//! | request | answer |
//! |---|---|
//! | `{"image": path, "text": path, "n": N, "d": D, "repeat": R}` | `seconds` of R evaluations |
//! | `{"gemm": true, "n": N, "d": D, "repeat": R}` | `seconds` of R products `[N, D]·[D, N]` |
//!
//! For a new case also `loss`, `gradient_norms` (image, text, logarithm of the logit scale) and
//! `peak_bytes`.
//!
//! The files hold raw little-endian f32. The arguments are `worker`, and the names of an evaluation
//! and of a level of precision after `--evaluation` and `--precision`. Called without, as
//! `cargo bench` does, it only says how to run the comparison.

mod peers {
    pub mod memory;
}

use std::io::BufRead;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use burn_contrastive::objective::{InfoNce, InfoNceConfig};
use burn_contrastive::pairwise::{Evaluation, Precision};
use burn_contrastive::similarity::SimilarityConfig;
use peers::memory;
use serde_json::{Value, json};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "worker") {
        println!("peers: this is one side of a comparison, which `benches/peers/run` makes");
        return;
    }
    let named = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        at.map(|at| arguments[at + 1].as_str())
    };
    let device = Device::flex().autodiff();
    let objective = objective(named("--evaluation"), named("--precision"), &device);
    let mut current: Option<Case> = None;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line.expect("stdin is text")).expect("JSON");
        if request["gemm"] == true {
            println!("{}", json!({ "seconds": gemm(&request) }));
            continue;
        }
        let mut answer = json!({});
        let case = match current.take() {
            Some(case) if case.image_path == request["image"] => case,
            _ => {
                let case = Case::load(&request, &device);
                answer = case.facts(&objective);
                case
            }
        };
        answer["seconds"] = timed(&request, || case.evaluate(&objective)).into();
        memory::release();
        println!("{answer}");
        current = Some(case);
    }
}

/// CLIP's loss of features that are normalised already, evaluated as asked.
fn objective(evaluation: Option<&str>, precision: Option<&str>, device: &Device) -> InfoNce {
    let evaluation = match evaluation {
        None => Evaluation::Auto,
        Some("streaming") => Evaluation::Streaming,
        Some(other) => panic!("no evaluation is called {other}"),
    };
    let precision = match precision {
        None => Precision::Highest,
        Some("high") => Precision::High,
        Some("medium") => Precision::Medium,
        Some(other) => panic!("no precision is called {other}"),
    };
    let similarity = SimilarityConfig::new()
        .with_normalize(false)
        .with_precision(precision)
        .with_evaluation(evaluation);
    InfoNceConfig::new()
        .with_similarity(similarity)
        .init(device)
}

struct Case {
    image_path: Value,
    image: Tensor<2>,
    text: Tensor<2>,
}

impl Case {
    fn load(request: &Value, device: &Device) -> Self {
        let shape = [size(request, "n"), size(request, "d")];
        Self {
            image_path: request["image"].clone(),
            image: features(&request["image"], shape, device),
            text: features(&request["text"], shape, device),
        }
    }

    /// Warms up; then the loss, the norms of the gradients, and the memory that an evaluation
    /// takes.
    fn facts(&self, objective: &InfoNce) -> Value {
        self.evaluate(objective);
        memory::release();
        let before = memory::reset_peak();
        let (image, text) = (leaf(&self.image), leaf(&self.text));
        let loss = objective.forward(image.clone(), text.clone());
        let gradients = loss.backward();
        let peak_bytes = memory::peak().saturating_sub(before);

        let squares = [
            image.grad(&gradients).map(sum_of_squares),
            text.grad(&gradients).map(sum_of_squares),
            objective
                .logit_scale
                .log_scale
                .val()
                .grad(&gradients)
                .map(sum_of_squares),
        ];
        json!({
            "loss": loss.into_scalar::<f32>(),
            "gradient_norms": squares.map(|s| s.expect("a gradient").sqrt()),
            "peak_bytes": peak_bytes,
        })
    }

    /// What is timed: marking the leaves, forward, backward for both features and the logarithm of
    /// the logit scale, and dropping graph and gradients. Flex computes at once: nothing to wait
    /// for.
    fn evaluate(&self, objective: &InfoNce) {
        let loss = objective.forward(leaf(&self.image), leaf(&self.text));
        drop(loss.backward());
    }
}

/// Seconds of each product by the `gemm` crate, which Flex itself uses, on all threads.
#[allow(unsafe_code)]
fn gemm(request: &Value) -> Vec<f64> {
    let (n, d) = (size(request, "n"), size(request, "d"));
    let (a, b, mut c) = (vec![0.5f32; n * d], vec![0.25f32; n * d], vec![0f32; n * n]);
    let mut multiply = || {
        // SAFETY: `a` and `b` hold n rows of d numbers and `c` n rows of n, contiguous; the second
        // factor is `b` transposed, of which d rows and n columns are read. Only `c` is written to.
        unsafe {
            gemm::gemm(
                n,
                n,
                d,
                c.as_mut_ptr(),
                1,
                n as isize,
                false,
                a.as_ptr(),
                1,
                d as isize,
                b.as_ptr(),
                d as isize,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(0),
            );
        }
    };
    multiply(); // touches `c` for the first time
    let seconds = timed(request, multiply);
    assert_eq!(c.last(), Some(&(0.125 * d as f32)), "the product is wrong");
    seconds
}

/// Seconds of each of the calls that the request asks for.
fn timed(request: &Value, mut run: impl FnMut()) -> Vec<f64> {
    (0..size(request, "repeat"))
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect()
}

fn size(request: &Value, name: &str) -> usize {
    let value = request[name].as_u64();
    value.unwrap_or_else(|| panic!("`{name}` is a count")) as usize
}

fn features(path: &Value, shape: [usize; 2], device: &Device) -> Tensor<2> {
    let path = path.as_str().expect("a path");
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let values: Vec<f32> = bytes
        .as_chunks()
        .0
        .iter()
        .copied()
        .map(f32::from_le_bytes)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn leaf(x: &Tensor<2>) -> Tensor<2> {
    x.clone().detach().require_grad()
}

fn sum_of_squares<const D: usize>(x: Tensor<D>) -> f64 {
    f64::from((x.clone() * x).sum().into_scalar::<f32>())
}
