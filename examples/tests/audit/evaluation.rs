//! Losses and gradients of objectives.

use std::fs;

use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use super::files::{D, Files, N, Tensors, everything, floats, info_nce_and_vse, random};
use super::oracle::{close, contrast, cosine, cosines, differences, info_nce, regulated, row, vse};

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
        {
            "objective": "false-negative-removal",
            "threshold": 0.9, "temperature": 0.5, "reduction": "mean",
        },
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
        // The weights carry no gradient: they are those of the original embeddings.
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
            "reco" => total(&|i, j| {
                if i == j {
                    (1.0 - c[i][j]).powi(2)
                } else {
                    0.3 * c[i][j].max(0.0).powi(2)
                }
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

#[test]
fn auto_and_streaming_evaluation_match_dense() {
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
fn without_a_list_every_objective_that_has_its_inputs_is_evaluated() {
    let (tensors, _) = everything(Dtype::F32);
    let plain: Tensors = tensors
        .iter()
        .filter(|(name, _)| ["image", "text"].contains(&&***name))
        .map(|(name, raw)| (name.clone(), raw.clone()))
        .collect();
    let names = |tensors: &Tensors| {
        let files = Files::new(tensors);
        files.succeed(&["--json", "out.json"]);
        let out = files.json("out.json");
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
    // Momentum features must have the embeddings' width, which this teacher's do not have.
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
fn a_single_pair_has_zero_loss_and_no_statistics_of_negatives() {
    let tensors = Tensors::from([
        (
            "image".to_string(),
            floats(Dtype::F32, &[1, 2], &[3.0, 4.0]),
        ),
        ("text".to_string(), floats(Dtype::F32, &[1, 2], &[4.0, 3.0])),
    ]);
    let files = Files::new(&tensors);
    files.succeed(&["--json", "out.json", "--report", "out.html"]);
    let out = files.json("out.json");
    assert_eq!(out["objectives"]["info-nce"]["loss"], 0.0);
    assert_eq!(out["similarity"]["negative_mean"], Value::Null);
    assert_eq!(out["weights"], Value::Null);
    close(out["alignment"].as_f64().unwrap(), 2.0 - 2.0 * 0.96, 1e-6);
    let printed = String::from_utf8(files.audit(&[]).stdout).unwrap();
    assert!(
        printed.starts_with("1 pair of 1 image, width 2\n"),
        "{printed}"
    );
}

#[test]
fn empty_tensors_are_treated_as_missing() {
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
fn streaming_takes_less_memory_than_the_similarity_matrix() {
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
        files.succeed(&[&arguments[..], &["--json", "out.json"]].concat());
        let out = files.json("out.json");
        let objectives = out["objectives"].as_object().unwrap().values();
        objectives
            .map(|found| found["peak_bytes"].as_u64().unwrap() as usize)
            .collect::<Vec<_>>()
    };
    let matrix = 4 * PAIRS * PAIRS;
    for (streaming, dense) in peaks("streaming").into_iter().zip(peaks("dense")) {
        // A block of similarities and one of the teacher's.
        assert!(
            streaming < matrix,
            "{streaming} bytes, the matrix takes {matrix}"
        );
        assert!(
            dense > 2 * matrix,
            "{dense} bytes, the matrix takes {matrix}"
        );
    }
}
