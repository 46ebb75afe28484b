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
            assert_eq!((view.dtype(), view.shape()[1]), (Dtype::F32, D));
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
    let hinge = |other: f64, own: f64| (margin + other - own).max(0.0);
    let cost = |i: usize| {
        let negatives = (0..n).filter(move |&j| j != i);
        negatives
            .map(|j| hinge(c[i][j], c[i][i]) + hinge(c[j][i], c[i][i]))
            .sum::<f64>()
    };
    (0..n).map(cost).sum::<f64>() / n as f64
}

/// `−log f_ii / (f_ii + Σ_{j≠i} w_ij f_ij + Σ f)` of image `i` and of text `i`, added: weights by pair, and the logits of
/// each anchor's other negatives.
fn contrast(
    z: &[Vec<f64>],
    weights: [&dyn Fn(usize, usize) -> f64; 2],
    others: [&dyn Fn(usize) -> Vec<f64>; 2],
) -> f64 {
    let n = z.len();
    let at = |side: usize, i: usize, j: usize| [z[i][j], z[j][i]][side];
    let loss = |side: usize, i: usize| {
        let negatives = (0..n).filter(|&j| j != i);
        let batch = negatives.map(|j| weights[side](i, j) * at(side, i, j).exp());
        let others = others[side](i).into_iter().map(f64::exp);
        (z[i][i].exp() + batch.chain(others).sum::<f64>()).ln() - z[i][i]
    };
    (0..n).map(|i| loss(0, i) + loss(1, i)).sum::<f64>() / n as f64
}

/// SRCL's weight of `j` among the negatives of `i`, `s` by anchor and negative.
fn regulated(s: impl Fn(usize, usize) -> f64, n: usize, i: usize, j: usize) -> f64 {
    let others = (0..n).filter(|&k| k != i).map(|k| 1.0 / s(i, k));
    (n - 1) as f64 / s(i, j) / others.sum::<f64>()
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
        {"objective": "srcl", "alpha": 0.7, "temperature": 0.5},
        {"objective": "false-negative-removal", "threshold": 0.9, "temperature": 0.5, "reduction": "mean"},
        {"objective": "info-cmr", "temperature": 0.5, "hard_negatives": true},
        {"objective": "reco", "lambda": 0.3},
        {"objective": "siglip", "scale": 3, "bias": -1.5},
        {"objective": "uniformity", "t": 1.5},
    ]);
    let (out, gradients) = files.run(list, &[]);
    let teacher = cosines(&values["teacher_image"], &values["teacher_text"], 3);
    let expected = |name: &str, image: &[f64], text: &[f64], fixed: &[Vec<f64>]| {
        let c = cosines(image, text, D);
        let all = || (0..N).flat_map(|i| (0..N).map(move |j| (i, j)));
        let total = |of: &dyn Fn(usize, usize) -> f64| all().map(|(i, j)| of(i, j)).sum::<f64>();
        let logits = |temperature: f64| -> Vec<Vec<f64>> {
            let row = |row: &Vec<f64>| row.iter().map(|c| c / temperature).collect();
            c.iter().map(row).collect()
        };
        // The weights are constants to the gradient: of the embeddings as they were.
        let mixed = |alpha: f64, i: usize, j: usize| {
            alpha * teacher[i][j].exp() + (1.0 - alpha) * fixed[i][j].exp()
        };
        let none = |_| Vec::new();
        match name {
            "a" => info_nce(&c, 0.2),
            "vse" => vse(&c, 0.3),
            "both" => info_nce(&c, 0.2) + 0.1 * N as f64 * vse(&c, 0.3),
            "srcl" => contrast(
                &logits(0.5),
                [
                    &|i, j| regulated(|i, j| mixed(0.7, i, j), N, i, j),
                    &|i, j| regulated(|i, j| mixed(0.7, j, i), N, i, j),
                ],
                [&none, &none],
            ),
            "false-negative-removal" => {
                let kept = |weight: f64| f64::from(weight >= 0.9);
                0.5 * contrast(
                    &logits(0.5),
                    [
                        &|i, j| kept(regulated(|i, j| mixed(1.0, i, j), N, i, j)),
                        &|i, j| kept(regulated(|i, j| mixed(1.0, j, i), N, i, j)),
                    ],
                    [&none, &none],
                )
            }
            "info-cmr" => {
                let others = |anchors: &[f64], hard: &[f64], i: usize| -> Vec<f64> {
                    let hard = row(hard, i, 2 * D).chunks(D);
                    let all = hard.chain(values["noise"].chunks(D));
                    all.map(|x| cosine(row(anchors, i, D), x) / 0.5).collect()
                };
                contrast(
                    &logits(0.5),
                    [&|_, _| 1.0; 2],
                    [&|i| others(image, &values["hard_text"], i), &|i| {
                        others(text, &values["hard_image"], i)
                    }],
                )
            }
            "reco" => total(&|i, j| match i == j {
                true => (1.0 - c[i][j]).powi(2),
                false => 0.3 * c[i][j].max(0.0).powi(2),
            }),
            "siglip" => {
                let cost = |i: usize, j: usize| {
                    let logit = 3.0 * c[i][j] - 1.5;
                    (if i == j { -logit } else { logit }).exp().ln_1p()
                };
                total(&cost) / N as f64
            }
            "uniformity" => {
                (total(&|i, j| (-1.5 * (2.0 - 2.0 * c[i][j])).exp()) / (N * N) as f64).ln()
            }
            other => panic!("{other}"),
        }
    };
    let fixed = cosines(&values["image"], &values["text"], D);
    let objectives = out["objectives"].as_object().unwrap();
    assert_eq!(objectives.len(), 9);
    for (name, found) in objectives {
        let loss = |image: &[f64], text: &[f64]| expected(name, image, text, &fixed);
        let value = loss(&values["image"], &values["text"]);
        close(found["loss"].as_f64().unwrap(), value, 1e-12);
        assert!(found["seconds"].as_f64().unwrap() > 0.0);
        assert!(found["peak_bytes"].as_u64().unwrap() > 0);
        for (side, slopes) in ["image", "text"].iter().zip(differences(&values, loss)) {
            let gradient = &gradients[&format!("{name}.{side}")];
            for (actual, expected) in gradient.iter().zip(slopes) {
                close(*actual, expected, 1e-6);
            }
        }
    }
}

fn info_nce_and_vse() -> Value {
    json!([{"name": "a", "objective": "info-nce", "temperature": 0.2}, {"objective": "vse"}])
}

#[test]
fn evaluations_agree() {
    let files = Files::new(&everything(Dtype::F32).0);
    let all = ["auto", "streaming", "dense"].map(|evaluation| {
        let (out, gradients) = files.run(info_nce_and_vse(), &["--evaluation", evaluation]);
        assert_eq!(out["evaluation"], evaluation);
        (out, gradients)
    });
    for (out, gradients) in &all[..2] {
        let (dense, expected) = &all[2];
        for name in ["a", "vse"] {
            let loss = |out: &Value| out["objectives"][name]["loss"].as_f64().unwrap();
            close(loss(out), loss(dense), 1e-5);
        }
        for (name, gradient) in gradients {
            for (actual, expected) in gradient.iter().zip(&expected[name]) {
                close(*actual, *expected, 1e-5);
            }
        }
    }
}

#[test]
fn half_precision_is_read_exactly_and_computed_in_f32() {
    for dtype in [Dtype::BF16, Dtype::F16] {
        let (tensors, values) = everything(dtype);
        let (out, gradients) = Files::new(&tensors).run(info_nce_and_vse(), &[]);
        let loss = |image: &[f64], text: &[f64]| info_nce(&cosines(image, text, D), 0.2);
        let found = out["objectives"]["a"]["loss"].as_f64().unwrap();
        close(found, loss(&values["image"], &values["text"]), 1e-6);
        let [by_image, _] = differences(&values, loss);
        for (actual, expected) in gradients["a.image"].iter().zip(by_image) {
            close(*actual, expected, 1e-6);
        }
        assert_eq!(
            out["embeddings"]["tensors"][0]["dtype"],
            format!("{dtype:?}").to_lowercase()
        );
    }
}

#[test]
fn statistics_match_naive_loops() {
    let (mut tensors, values) = everything(Dtype::F64);
    let files = Files::new(&tensors);
    let (out, _) = files.run(info_nce_and_vse(), &["--report", "out.html"]);
    let number = |path: &str| out.pointer(path).and_then(Value::as_f64).expect(path);
    let c = cosines(&values["image"], &values["text"], D);
    let recall = |at: &dyn Fn(usize, usize) -> f64, k: usize| {
        let rank = |i| (0..N).filter(|&j| j != i && at(i, j) >= at(i, i)).count();
        100.0 * (0..N).filter(|&i| rank(i) < k).count() as f64 / N as f64
    };
    let mut sum = 0.0;
    for k in [1, 5, 10] {
        let (i2t, t2i) = (recall(&|i, j| c[i][j], k), recall(&|i, j| c[j][i], k));
        close(number(&format!("/retrieval/i2t_r{k}")), i2t, 1e-9);
        close(number(&format!("/retrieval/t2i_r{k}")), t2i, 1e-9);
        sum += i2t + t2i;
    }
    close(number("/retrieval/rsum"), sum, 1e-9);
    let all = || (0..N).flat_map(|i| (0..N).map(move |j| (i, j)));
    let moments = |values: Vec<f64>| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        (mean, (square / values.len() as f64).sqrt())
    };
    let of = |matching| {
        let chosen = all().filter(|(i, j)| (i == j) == matching);
        moments(chosen.map(|(i, j)| c[i][j]).collect())
    };
    for (name, (mean, deviation)) in [("positive", of(true)), ("negative", of(false))] {
        close(number(&format!("/similarity/{name}_mean")), mean, 1e-9);
        close(
            number(&format!("/similarity/{name}_deviation")),
            deviation,
            1e-9,
        );
    }
    let bins = |matching| {
        let mut bins = [0.0; 200];
        let chosen: Vec<_> = all().filter(|(i, j)| (i == j) == matching).collect();
        for &(i, j) in &chosen {
            bins[((c[i][j] + 1.0) * 100.0) as usize] += 1.0 / chosen.len() as f64;
        }
        bins
    };
    let overlap = bins(true)
        .iter()
        .zip(bins(false))
        .map(|(p, n)| p.min(n))
        .sum();
    close(number("/similarity/overlap"), overlap, 1e-9);
    let distance = |i: usize, j: usize| 2.0 - 2.0 * c[i][j];
    close(
        number("/alignment"),
        (0..N).map(|i| distance(i, i)).sum::<f64>() / N as f64,
        1e-9,
    );
    let potential: f64 = all().map(|(i, j)| (-2.0 * distance(i, j)).exp()).sum();
    close(
        number("/uniformity"),
        (potential / (N * N) as f64).ln(),
        1e-9,
    );
    let centre = |x: &[f64], k: usize| {
        let unit = |i| {
            let x = row(x, i, D);
            x[k] / x.iter().map(|x| x * x).sum::<f64>().sqrt()
        };
        (0..N).map(unit).sum::<f64>() / N as f64
    };
    let gap = (0..D).map(|k| (centre(&values["image"], k) - centre(&values["text"], k)).powi(2));
    close(number("/modality_gap"), gap.sum::<f64>().sqrt(), 1e-9);

    // SRCL's weights, of the teacher alone.
    let t = cosines(&values["teacher_image"], &values["teacher_text"], 3);
    assert_eq!(number("/weights/alpha"), 1.0);
    let pairs = out["weights"]["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 20);
    let weight = |i: usize, j: usize| {
        let negatives = |others: &dyn Fn(usize) -> f64, own: usize| {
            let shares = (0..N).filter(|&k| k != own).map(others);
            (-t[i][j]).exp() * (N - 1) as f64 / shares.sum::<f64>()
        };
        [
            negatives(&|k| (-t[i][k]).exp(), i),
            negatives(&|k| (-t[k][j]).exp(), j),
        ]
    };
    let mut order: Vec<_> = all().filter(|(i, j)| i != j).collect();
    order.sort_by_key(|&(i, j)| (1e9 * (weight(i, j)[0] + weight(i, j)[1])) as u64);
    for (pair, (i, j)) in pairs.iter().zip(order) {
        assert_eq!((&pair["image"], &pair["text"]), (&json!(i), &json!(j)));
        let number = |key: &str| pair[key].as_f64().unwrap();
        close(number("similarity"), c[i][j], 1e-9);
        close(number("teacher_similarity"), t[i][j], 1e-9);
        close(number("image_to_text"), weight(i, j)[0], 1e-9);
        close(number("text_to_image"), weight(i, j)[1], 1e-9);
    }
    let counts = out["weights"]["histogram"]["text_to_image"]
        .as_array()
        .unwrap();
    let count: u64 = counts.iter().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(count as usize, N * (N - 1));

    // Captions of one image: each image counts once, and its captions are all right.
    let ids: Vec<i64> = (0..N as i64).map(|i| 90 - i / 3).collect();
    tensors.insert("image_id".to_string(), integers(&ids));
    tensors.insert("label".to_string(), integers(&[5; N]));
    let (out, _) = Files::new(&tensors).run(info_nce_and_vse(), &[]);
    assert_eq!(out["embeddings"]["images"], 4);
    let hits = (0..N).filter(|&text| {
        let nearest = (0..4).max_by(|&a, &b| c[3 * a][text].total_cmp(&c[3 * b][text]));
        nearest == Some(text / 3)
    });
    let expected = 100.0 * hits.count() as f64 / N as f64;
    close(out["retrieval"]["t2i_r1"].as_f64().unwrap(), expected, 1e-9);
    assert_eq!(
        out["precision"],
        json!({"i2t": {"1": 100.0, "5": 100.0, "10": 100.0}, "t2i": {"1": 100.0}})
    );
    for pair in out["weights"]["pairs"].as_array().unwrap() {
        let id = |side: &str| ids[pair[side].as_u64().unwrap() as usize];
        assert_ne!(id("image"), id("text"));
    }
}

/// An image with three captions, once for each of them or once for all: the same figures, and a gradient that is the sum.
#[test]
fn images_may_stand_once_for_all_their_captions() {
    let (mut tensors, values) = everything(Dtype::F64);
    let rows: Vec<usize> = (0..N).map(|caption| (7 * caption) % 4).collect();
    let ids: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let [once, teacher] = [("image", D), ("teacher_image", 3)].map(|(name, width)| {
        let each = rows
            .iter()
            .flat_map(|&i| row(&values[name], i, width).to_vec());
        let each: Vec<f64> = each.collect();
        tensors.insert(name.to_string(), floats(Dtype::F64, &[N, width], &each));
        floats(Dtype::F64, &[4, width], &values[name][..4 * width])
    });
    tensors.insert("image_id".to_string(), integers(&ids));
    let list = json!([
        {"objective": "info-nce"}, {"objective": "srcl"}, {"objective": "multi-positive"},
    ]);
    let (each, gradients) = Files::new(&tensors).run(list.clone(), &[]);
    tensors.insert("image".to_string(), once);
    tensors.insert("teacher_image".to_string(), teacher);
    let (all, summed) = Files::new(&tensors).run(list, &[]);
    assert_eq!(all["embeddings"]["images"], 4);
    for key in [
        "/retrieval",
        "/similarity/histogram",
        "/alignment",
        "/uniformity",
        "/weights",
    ] {
        assert!(all.pointer(key) == each.pointer(key), "{key}");
    }
    for (name, found) in all["objectives"].as_object().unwrap() {
        assert_eq!(found["loss"], each["objectives"][name]["loss"], "{name}");
        let [part, sum] = [&gradients, &summed].map(|all| &all[&format!("{name}.image")]);
        assert_eq!(sum.len(), 4 * D);
        for (k, actual) in sum.iter().enumerate() {
            let captions = (0..N).filter(|&caption| rows[caption] == k / D);
            let expected: f64 = captions.map(|caption| part[caption * D + k % D]).sum();
            close(*actual, expected, 1e-6);
        }
        let text = format!("{name}.text");
        assert_eq!(summed[&text], gradients[&text]);
    }

    let refused = |ids: &[i64]| {
        let mut tensors = tensors.clone();
        tensors.insert("image_id".to_string(), integers(ids));
        Files::new(&tensors).refused(&[])
    };
    let message = refused(&[[0, 1, 2, 9].repeat(3)].concat());
    assert!(
        message.contains("`image_id` holds 9 in row 3: it must be a row of `image`"),
        "{message}"
    );
    let message = refused(&[[0, 1, 3].repeat(4)].concat());
    assert!(
        message.contains("names no caption of row 2 of `image`"),
        "{message}"
    );
}

#[test]
fn without_a_list_every_objective_that_has_its_inputs_is_evaluated() {
    let (tensors, _) = everything(Dtype::F32);
    let plain: Tensors = tensors
        .iter()
        .filter(|(name, _)| ["image", "text"].contains(&&***name))
        .map(|(name, raw)| (name.clone(), raw.clone()))
        .collect();
    let names = |tensors: &Tensors| {
        let files = Files::new(tensors);
        let output = files.audit(&["--json", "out.json"]);
        assert!(output.status.success());
        let out: Value =
            serde_json::from_slice(&fs::read(files.path("out.json")).unwrap()).unwrap();
        let objectives = out["objectives"].as_object().unwrap().clone();
        for (name, found) in &objectives {
            assert!(found["loss"].is_number(), "{name}: {found}");
        }
        objectives
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    let plain = names(&plain);
    let everything = names(&tensors);
    // The momentum features must have the embeddings' width, which this teacher's have not.
    let itc = "image-text-contrastive".to_string();
    assert!(!everything.contains(&itc), "{everything:?}");
    let mut momentum = tensors;
    for name in ["teacher_image", "teacher_text"] {
        momentum.insert(
            name.to_string(),
            momentum[&name.replace("teacher_", "")].clone(),
        );
    }
    assert!(names(&momentum).contains(&itc));
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    for name in names(&["info-nce", "vse", "siglip", "barlow-twins", "uniformity"]) {
        assert!(plain.contains(&name), "{plain:?}");
    }
    for name in names(&["srcl", "false-negative-removal", "info-cmr"]) {
        assert!(!plain.contains(&name), "{plain:?}");
        assert!(everything.contains(&name), "{everything:?}");
    }
    assert!(plain.iter().all(|name| everything.contains(name)));
}

#[test]
fn a_single_pair_has_no_negatives() {
    let tensors = Tensors::from([
        (
            "image".to_string(),
            floats(Dtype::F32, &[1, 2], &[3.0, 4.0]),
        ),
        ("text".to_string(), floats(Dtype::F32, &[1, 2], &[4.0, 3.0])),
    ]);
    let files = Files::new(&tensors);
    let output = files.audit(&["--json", "out.json", "--report", "out.html"]);
    assert!(output.status.success());
    let out: Value = serde_json::from_slice(&fs::read(files.path("out.json")).unwrap()).unwrap();
    assert_eq!(out["objectives"]["info-nce"]["loss"], 0.0);
    assert_eq!(out["similarity"]["negative_mean"], Value::Null);
    assert_eq!(out["weights"], Value::Null);
    close(out["alignment"].as_f64().unwrap(), 2.0 - 2.0 * 0.96, 1e-6);
}

/// An empty queue is no queue, no noise is no negative.
#[test]
fn tensors_without_rows_are_as_good_as_none() {
    let (mut tensors, values) = everything(Dtype::F64);
    for name in ["queue_image", "queue_text", "noise"] {
        tensors.insert(name.to_string(), floats(Dtype::F64, &[0, D], &[]));
    }
    for name in ["hard_image", "hard_text"] {
        tensors.insert(name.to_string(), floats(Dtype::F64, &[N, 0, D], &[]));
    }
    for (name, side) in [("teacher_image", "image"), ("teacher_text", "text")] {
        tensors.insert(name.to_string(), tensors[side].clone());
    }
    let list = json!([
        {"objective": "info-cmr", "temperature": 0.2, "hard_negatives": true},
        {"objective": "image-text-contrastive", "temperature": 0.2, "alpha": 0},
    ]);
    let (out, _) = Files::new(&tensors).run(list, &[]);
    let expected = info_nce(&cosines(&values["image"], &values["text"], D), 0.2);
    for (name, factor) in [("info-cmr", 2.0), ("image-text-contrastive", 1.0)] {
        let loss = out["objectives"][name]["loss"].as_f64().unwrap();
        close(loss, factor * expected, 1e-12);
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "slow without optimisation")]
fn streaming_needs_no_matrix_of_all_pairs() {
    const PAIRS: usize = 3000;
    const WIDTH: usize = 8;
    let side = |seed| {
        let shape = [PAIRS, WIDTH];
        floats(Dtype::F32, &shape, &random(PAIRS * WIDTH, seed))
    };
    let names = ["image", "text", "teacher_image", "teacher_text"];
    let tensors = (1..)
        .zip(names)
        .map(|(k, name)| (name.to_string(), side(k)));
    let files = Files::new(&tensors.collect());
    let list = r#"[{"objective": "info-nce"}, {"objective": "srcl"}, {"objective": "siglip"}]"#;
    fs::write(files.path("list.json"), list).unwrap();
    let peaks = |evaluation: &str| {
        let arguments = ["--objectives", "list.json", "--evaluation", evaluation];
        let output = files.audit(&[&arguments[..], &["--json", "out.json"]].concat());
        assert!(output.status.success());
        let out: Value =
            serde_json::from_slice(&fs::read(files.path("out.json")).unwrap()).unwrap();
        let objectives = out["objectives"].as_object().unwrap().values();
        objectives
            .map(|found| found["peak_bytes"].as_u64().unwrap() as usize)
            .collect::<Vec<_>>()
    };
    let matrix = 4 * PAIRS * PAIRS;
    for (streaming, dense) in peaks("streaming").into_iter().zip(peaks("dense")) {
        // A block and its like of the teacher.
        assert!(
            streaming < matrix,
            "{streaming} bytes, a matrix has {matrix}"
        );
        assert!(dense > 2 * matrix, "{dense} bytes, a matrix has {matrix}");
    }
}

#[test]
fn the_report_needs_nothing_but_itself() {
    let files = Files::new(&everything(Dtype::F32).0);
    let output = files.audit(&["--report", "out.html"]);
    assert!(output.status.success());
    let html = fs::read_to_string(files.path("out.html")).unwrap();
    for section in [
        "Retrieval",
        "Similarities",
        "Weights of the negatives",
        "Objectives",
        "Data",
    ] {
        assert!(html.contains(&format!(">{section}</h2>")), "{section}");
    }
    assert_eq!(html.matches("<svg ").count(), 2);
    assert!(!html.contains("<script") && !html.contains("NaN"));
    let outside = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!outside.contains("http://") && !outside.contains("https://"));
}

/// What a browser makes of a page: the DOM after loading, and what it complained of.
fn browse(page: &Path, size: &str, dark: bool) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_string());
    let output = Command::new(&browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .args(["--enable-logging=stderr", "--log-level=0", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={size}"))
        .arg(format!(
            "--blink-settings=preferredColorScheme={}",
            u8::from(!dark)
        ))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap_or_else(|error| panic!("{browser}: {error}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
#[ignore = "needs a browser, chromium or that of CHROMIUM: .ci/run browser"]
fn a_browser_shows_every_figure_on_any_screen() {
    let files = Files::new(&everything(Dtype::F32).0);
    assert!(files.audit(&["--report", "out.html"]).status.success());
    let (page, probe) = (files.path("out.html"), files.path("probe.html"));

    // As it is, the page loads and nothing in it is refused.
    let (dom, complaints) = browse(&page, "1200,900", false);
    assert!(
        dom.contains("<h1>Embedding audit</h1>") && dom.ends_with("</html>\n"),
        "{dom}"
    );
    assert!(!complaints.contains("CONSOLE"), "{complaints}");

    // With a script that measures: the page's own policy forbids any.
    let html = fs::read_to_string(&page).unwrap();
    let policy = html
        .find("<meta http-equiv=\"Content-Security-Policy\"")
        .unwrap();
    let end = policy + html[policy..].find('>').unwrap() + 1;
    let script = r#"<script>
        const size = e => { const box = e.getBoundingClientRect(); return `${box.width}x${box.height}` };
        const sizes = selector => [...document.querySelectorAll(selector)].map(size).join(' ');
        const measured = {
            charts: sizes('.chart svg'),
            areas: sizes('.chart polygon'),
            cells: sizes('.heat td'),
            rows: String(document.querySelectorAll('tbody tr').length),
            wide: String(document.documentElement.scrollWidth - innerWidth),
            paper: getComputedStyle(document.body).backgroundColor,
        };
        for (const name in measured) document.body.setAttribute('data-' + name, measured[name]);
    </script></body>"#;
    let html = format!("{}{}", &html[..policy], &html[end..]).replace("</body>", script);
    fs::write(&probe, html).unwrap();
    let mut papers = Vec::new();
    for (size, dark) in [("1200,900", false), ("1200,900", true), ("500,900", false)] {
        let (dom, _) = browse(&probe, size, dark);
        let measured = |name: &str| {
            let start = dom.split(&format!(" data-{name}=\"")).nth(1);
            let value = start.and_then(|rest| rest.split('"').next());
            value
                .unwrap_or_else(|| panic!("no {name} in {dom}"))
                .to_string()
        };
        let sizes = |name: &str| -> Vec<[f64; 2]> {
            let measured = measured(name);
            let size = |size: &str| {
                let (width, height) = size.split_once('x').unwrap();
                [width.parse().unwrap(), height.parse().unwrap()]
            };
            measured.split(' ').map(size).collect()
        };
        let charts = sizes("charts");
        assert_eq!(charts.len(), 2);
        for [width, height] in charts {
            assert!(
                width > 300.0 && height > 150.0,
                "a chart of {width} × {height} at {size}"
            );
        }
        // Both distributions of both charts have an area.
        let areas = sizes("areas");
        assert_eq!(areas.len(), 4);
        assert!(
            areas
                .iter()
                .all(|[width, height]| *width > 50.0 && *height > 20.0),
            "{areas:?}"
        );
        assert_eq!(sizes("cells").len(), N * N);
        assert!(measured("rows").parse::<usize>().unwrap() > 40);
        assert_eq!(
            measured("wide"),
            "0",
            "the page is wider than the window of {size}"
        );
        papers.push(measured("paper"));
    }
    assert_ne!(papers[0], papers[1], "dark mode looks as light mode does");
}

// --- what can be wrong ---------------------------------------------------------------------------

#[test]
fn bad_files_are_refused_with_tensor_and_row() {
    let (good, values) = everything(Dtype::F32);
    let check = |change: &dyn Fn(&mut Tensors), expected: &[&str]| {
        let mut tensors = good.clone();
        change(&mut tensors);
        let message = Files::new(&tensors).refused(&[]);
        for part in expected {
            assert!(message.contains(part), "{part}: {message}");
        }
    };
    let put = |name: &str, raw: Raw| {
        let name = name.to_string();
        move |tensors: &mut Tensors| drop(tensors.insert(name.clone(), raw.clone()))
    };
    check(&|t| drop(t.remove("text")), &["`text` is missing", "image"]);
    check(&|t| drop(t.remove("image")), &["`image` is missing"]);
    let mut broken = values["text"].clone();
    broken[7 * D + 2] = f64::NAN;
    check(
        &put("text", floats(Dtype::F32, &[N, D], &broken)),
        &["`text` holds NaN in row 7"],
    );
    broken[7 * D + 2] = f64::INFINITY;
    check(
        &put("teacher_image", floats(Dtype::F32, &[N, D], &broken)),
        &["`teacher_image` holds inf in row 7"],
    );
    let shaped = |shape: &[usize]| floats(Dtype::F32, shape, &vec![0.5; shape.iter().product()]);
    for (name, shape, expected) in [
        (
            "image",
            &[N * D][..],
            "`image` has shape [60], it must be [N, D]",
        ),
        ("image", &[0, D], "`image` is empty"),
        (
            "text",
            &[N - 1, D],
            "`text` has shape [11, 5], it must be that of `image`, [12, 5]",
        ),
        ("text", &[N, D + 1], "`text` has shape [12, 6]"),
        (
            "teacher_text",
            &[N + 1, 3],
            "`teacher_text` has shape [13, 3], it must be [12, E]",
        ),
        (
            "teacher_text",
            &[N, 4],
            "`teacher_text` has width 4, `teacher_image` has 3",
        ),
        (
            "queue_image",
            &[4, D + 1],
            "`queue_image` has shape [4, 6], it must be [K, 5]",
        ),
        ("noise", &[4], "`noise` has shape [4], it must be [K, 5]"),
        (
            "hard_image",
            &[N, D],
            "`hard_image` has shape [12, 5], it must be [12, m, 5]",
        ),
        ("label", &[N], "`label` is F32, it must be of whole numbers"),
    ] {
        check(&put(name, shaped(shape)), &[expected]);
    }
    check(
        &put("image_id", integers(&[1, 2])),
        &["`image_id` has shape [2], it must be [12]"],
    );
    let mut whole = shaped(&[N, D]);
    whole.dtype = Dtype::I32;
    check(
        &put("image", whole),
        &["`image` is I32, it must be F16, BF16, F32 or F64"],
    );
}

#[test]
fn files_that_are_no_safetensors_are_refused() {
    let files = Files::new(&everything(Dtype::F32).0);
    let path = files.path("pairs.safetensors");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert!(files.refused(&[]).contains("it is cut off"));
    fs::write(&path, [&whole[..], b"xyz"].concat()).unwrap();
    assert!(
        files
            .refused(&[])
            .contains("it is followed by something else")
    );
    for content in [
        &b""[..],
        b"{}",
        b"\xff\xff\xff\xff\xff\xff\xff\xff{}",
        b"\x02\0\0\0\0\0\0\0[]",
    ] {
        fs::write(&path, content).unwrap();
        assert!(
            files
                .refused(&[])
                .contains("pairs.safetensors is not a safetensors file")
        );
    }
    fs::remove_file(&path).unwrap();
    assert!(
        files
            .refused(&[])
            .contains("pairs.safetensors: could not be opened")
    );
}

#[test]
fn bad_lists_and_arguments_are_refused() {
    let (tensors, _) = everything(Dtype::F32);
    let plain = ["image", "text"].map(|name| (name.to_string(), tensors[name].clone()));
    let files = Files::new(&plain.into());
    for (list, expected) in [
        ("[", "objectives.json: this is not valid JSON"),
        (r#"[{"objective": "infonce"}]"#, "did you mean `info-nce`?"),
        (
            r#"[{"objective": "vse", "temperature": 1}]"#,
            "`vse` has no parameter `temperature`",
        ),
        (
            r#"[{"name": "b", "objective": "vse", "margin": -2}]"#,
            "objective `b`: VseConfig: `margin` is -2, it must lie in [0",
        ),
        (
            r#"[{"name": "c", "objective": "srcl"}]"#,
            "objective `c`: srcl needs `teacher_image`",
        ),
        (
            r#"[{"name": "d", "objective": "sum", "terms": [{"objective": "vse"}, {"objective": "srcl"}]}]"#,
            "objective `d`: srcl needs `teacher_image`",
        ),
        (
            r#"[{"objective": "con-vse", "hard_negatives": true}]"#,
            "con-vse needs `hard_image`",
        ),
    ] {
        fs::write(files.path("objectives.json"), list).unwrap();
        let message = files.refused(&["--objectives", "objectives.json"]);
        assert!(message.contains(expected), "{list}: {message}");
    }
    assert!(
        files
            .refused(&["--objectives", "none.json"])
            .contains("none.json")
    );
    assert!(
        files
            .refused(&["--device", "tpu"])
            .contains("no backend is called `tpu`")
    );
    fs::create_dir(files.path("folder")).unwrap();
    for path in ["folder/none/out.json", "pairs.safetensors", "folder"] {
        let output = files.audit(&["--json", path]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(path));
    }
}
