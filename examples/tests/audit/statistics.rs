//! Retrieval, similarities, weights, and images with several captions.

use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use super::files::{D, Files, N, everything, floats, info_nce_and_vse, integers};
use super::oracle::{close, cosines, row};

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

    // With ids, each image counts once, and all its captions match it.
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

/// An image with three captions, listed once for each of them or once for all: the gradient by the
/// one row is the sum of those by the three.
#[test]
fn an_image_listed_once_for_all_its_captions_gives_the_same_figures() {
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
