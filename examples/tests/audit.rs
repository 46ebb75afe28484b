//! The program `audit` on generated files, from the command line to what it writes: values against naive f64 loops,
//! gradients against finite differences, and every way a file can be wrong.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A tensor of a file to write.
#[derive(Clone)]
struct Raw {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn floats(dtype: Dtype, shape: &[usize], values: &[f64]) -> Raw {
    let bytes = values.iter().flat_map(|&x| match dtype {
        Dtype::F64 => x.to_le_bytes().to_vec(),
        Dtype::F32 => (x as f32).to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f64(x).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f64(x).to_le_bytes().to_vec(),
        other => panic!("{other:?}"),
    });
    Raw {
        dtype,
        shape: shape.to_vec(),
        bytes: bytes.collect(),
    }
}

fn integers(values: &[i64]) -> Raw {
    Raw {
        dtype: Dtype::I64,
        shape: vec![values.len()],
        bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

type Tensors = HashMap<String, Raw>;

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, raw)| {
        let view = TensorView::new(raw.dtype, raw.shape.clone(), &raw.bytes).unwrap();
        (name, view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// Numbers in [−1, 1] that look random.
fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(next).collect()
}

const N: usize = 12;
const D: usize = 5;

/// A file with everything in it, in `dtype`; texts resemble their images.
fn everything(dtype: Dtype) -> (Tensors, HashMap<&'static str, Vec<f64>>) {
    let image = random(N * D, 1);
    let text: Vec<f64> = image
        .iter()
        .zip(random(N * D, 2))
        .map(|(x, noise)| x + 0.7 * noise)
        .collect();
    let values = HashMap::from([
        ("image", image),
        ("text", text),
        ("teacher_image", random(N * 3, 3)),
        ("teacher_text", random(N * 3, 4)),
        ("queue_image", random(4 * D, 5)),
        ("queue_text", random(6 * D, 6)),
        ("noise", random(7 * D, 7)),
        ("hard_image", random(N * 2 * D, 8)),
        ("hard_text", random(N * 2 * D, 9)),
    ]);
    let shape = |name: &str, count: usize| match name {
        "teacher_image" | "teacher_text" => vec![N, 3],
        "hard_image" | "hard_text" => vec![N, 2, D],
        _ => vec![count / D, D],
    };
    let tensors = values.iter().map(|(name, values)| {
        let raw = floats(dtype, &shape(name, values.len()), values);
        (name.to_string(), raw)
    });
    // What the file holds, after rounding to its dtype.
    let rounded = |x: f64| match dtype {
        Dtype::F64 => x,
        Dtype::F32 => f64::from(x as f32),
        Dtype::F16 => f16::from_f64(x).to_f64(),
        _ => bf16::from_f64(x).to_f64(),
    };
    let tensors = tensors.collect();
    let values = values
        .into_iter()
        .map(|(name, values)| (name, values.into_iter().map(rounded).collect()));
    (tensors, values.collect())
}

/// A folder with a file of embeddings and a list of objectives.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(tensors: &Tensors) -> Self {
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        write(&files.path("pairs.safetensors"), tensors);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn audit(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_audit"))
            .current_dir(self.folder.path())
            .args(["--embeddings", "pairs.safetensors"])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Runs with these objectives and reads what it writes.
    fn run(&self, objectives: Value, arguments: &[&str]) -> (Value, HashMap<String, Vec<f64>>) {
        fs::write(self.path("objectives.json"), objectives.to_string()).unwrap();
        let mut all = vec!["--objectives", "objectives.json"];
        all.extend(["--json", "out.json", "--gradients", "grads.safetensors"]);
        all.extend(arguments);
        let output = self.audit(&all);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let out = serde_json::from_slice(&fs::read(self.path("out.json")).unwrap()).unwrap();
        let bytes = fs::read(self.path("grads.safetensors")).unwrap();
        let gradients = SafeTensors::deserialize(&bytes).unwrap();
        let numbers = |view: &TensorView| {
            assert_eq!((view.dtype(), view.shape()), (Dtype::F32, &[N, D][..]));
            let values = view.data().chunks_exact(4);
            values
                .map(|x| f32::from_le_bytes(x.try_into().unwrap()).into())
                .collect()
        };
        let gradients = gradients
            .tensors()
            .iter()
            .map(|(name, view)| (name.clone(), numbers(view)))
            .collect();
        (out, gradients)
    }

    /// What it says of what is wrong; it must leave the folder as it was.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let names = || {
            let entries = fs::read_dir(self.folder.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = names();
        let outputs = [
            "--json",
            "o.json",
            "--gradients",
            "o.safetensors",
            "--report",
            "o.html",
        ];
        let output = self.audit(&[arguments, &outputs].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert_eq!(names(), before, "{errors}");
        assert!(!errors.contains("panicked"), "{errors}");
        errors
    }
}

// --- the objectives again ------------------------------------------------------------------------

fn row(x: &[f64], i: usize, width: usize) -> &[f64] {
    &x[i * width..][..width]
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// `c_ij` of an image and a text.
fn cosines(image: &[f64], text: &[f64], width: usize) -> Vec<Vec<f64>> {
    let n = image.len() / width;
    let of = |i| (0..n).map(move |j| cosine(row(image, i, width), row(text, j, width)));
    (0..n).map(|i| of(i).collect()).collect()
}

/// `−log e^{c_ii/τ} / Σ_j e^{c_ij/τ}`, the mean of both directions, the mean over the pairs.
fn info_nce(c: &[Vec<f64>], temperature: f64) -> f64 {
    let n = c.len();
    let direction = |at: &dyn Fn(usize, usize) -> f64| {
        let loss = |i| {
            let sum: f64 = (0..n).map(|j| (at(i, j) / temperature).exp()).sum();
            sum.ln() - at(i, i) / temperature
        };
        (0..n).map(loss).sum::<f64>() / n as f64
    };
    0.5 * (direction(&|i, j| c[i][j]) + direction(&|i, j| c[j][i]))
}

/// The mean over the pairs of the sums of both directions' hinges.
fn vse(c: &[Vec<f64>], margin: f64) -> f64 {
    let n = c.len();
    let mut sum = 0.0;
    for i in 0..n {
        for j in (0..n).filter(|&j| j != i) {
            sum += (margin + c[i][j] - c[i][i]).max(0.0) + (margin + c[j][i] - c[i][i]).max(0.0);
        }
    }
    sum / n as f64
}

fn close(actual: f64, expected: f64, tolerance: f64) {
    assert!(
        (actual - expected).abs() <= tolerance * (1.0 + expected.abs()),
        "{actual} against {expected}"
    );
}

/// The derivatives of `loss` by every number of image and text.
fn differences(
    values: &HashMap<&str, Vec<f64>>,
    loss: impl Fn(&[f64], &[f64]) -> f64,
) -> [Vec<f64>; 2] {
    let (image, text) = (&values["image"], &values["text"]);
    let h = 1e-5;
    let along = |x: &[f64], at: &dyn Fn(&[f64]) -> f64| {
        let mut x = x.to_vec();
        let slope = |k: usize| {
            let here = x[k];
            let mut moved = |step| {
                x[k] = here + step;
                at(&x)
            };
            let slope = (moved(h) - moved(-h)) / (2.0 * h);
            x[k] = here;
            slope
        };
        (0..image.len()).map(slope).collect()
    };
    [
        along(image, &|image| loss(image, text)),
        along(text, &|text| loss(image, text)),
    ]
}

#[test]
fn values_and_gradients_match_naive_loops() {
    let (tensors, values) = everything(Dtype::F64);
    let files = Files::new(&tensors);
    let list = json!([
        {"name": "a", "objective": "info-nce", "temperature": 0.2},
        {"objective": "vse", "margin": 0.3},
        {"name": "both", "objective": "sum", "terms": [
            {"objective": "info-nce", "temperature": 0.2},
            {"objective": "vse", "margin": 0.3, "reduction": "sum", "weight": 0.1},
        ]},
    ]);
    let (out, gradients) = files.run(list, &[]);
    let expected = |name: &str, image: &[f64], text: &[f64]| {
        let c = cosines(image, text, D);
        match name {
            "a" => info_nce(&c, 0.2),
            "vse" => vse(&c, 0.3),
            _ => info_nce(&c, 0.2) + 0.1 * N as f64 * vse(&c, 0.3),
        }
    };
    assert_eq!(out["objectives"].as_object().unwrap().len(), 3);
    for name in ["a", "vse", "both"] {
        let found = &out["objectives"][name];
        let loss = found["loss"].as_f64().unwrap();
                // A logit scale is a parameter in f32, whatever the embeddings are.
        close(loss, expected(name, &values["image"], &values["text"]), 1e-7);
        assert!(found["seconds"].as_f64().unwrap() > 0.0);
        assert!(found["peak_bytes"].as_u64().unwrap() > 0);
        let slopes = differences(&values, |image, text| expected(name, image, text));
        for (side, slopes) in ["image", "text"].iter().zip(slopes) {
            let gradient = &gradients[&format!("{name}.{side}")];
            for (actual, expected) in gradient.iter().zip(slopes) {
                close(*actual, expected, 1e-6);
            }
        }
    }
}
