//! The objectives again, as naive loops over `f64`.

use std::collections::HashMap;

pub fn row(x: &[f64], i: usize, width: usize) -> &[f64] {
    &x[i * width..][..width]
}

pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// `c_ij` of an image and a text.
pub fn cosines(image: &[f64], text: &[f64], width: usize) -> Vec<Vec<f64>> {
    let n = image.len() / width;
    let of = |i| (0..n).map(move |j| cosine(row(image, i, width), row(text, j, width)));
    (0..n).map(|i| of(i).collect()).collect()
}

/// `−log e^{c_ii/τ} / Σ_j e^{c_ij/τ}`, the mean of both directions, the mean over the pairs.
pub fn info_nce(c: &[Vec<f64>], temperature: f64) -> f64 {
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
pub fn vse(c: &[Vec<f64>], margin: f64) -> f64 {
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

/// `−log f_ii / (f_ii + Σ_{j≠i} w_ij f_ij + Σ f)` of image `i` and of text `i`, added: weights by
/// pair, and the logits of each anchor's other negatives.
pub fn contrast(
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
pub fn regulated(s: impl Fn(usize, usize) -> f64, n: usize, i: usize, j: usize) -> f64 {
    let others = (0..n).filter(|&k| k != i).map(|k| 1.0 / s(i, k));
    (n - 1) as f64 / s(i, j) / others.sum::<f64>()
}

pub fn close(actual: f64, expected: f64, tolerance: f64) {
    assert!(
        (actual - expected).abs() <= tolerance * (1.0 + expected.abs()),
        "{actual} against {expected}"
    );
}

/// The derivatives of `loss` by every element of image and text, by central differences.
pub fn differences(
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
