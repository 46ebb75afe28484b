//! Objectives that are sums over pairs, hinges, distances and correlations.

use super::{Matrix, cosine, dot, normalize};

/// The cosines of all pairs.
pub fn cosines(image: &Matrix, text: &Matrix) -> Vec<Vec<f64>> {
    (0..image.rows)
        .map(|i| {
            let with = |j| cosine(image.row(i), text.row(j));
            (0..text.rows).map(with).collect()
        })
        .collect()
}

fn hinge(x: f64) -> f64 {
    x.max(0.0)
}

/// The hinges of each anchor's negatives, images then texts.
fn hinges(image: &Matrix, text: &Matrix, margin: f64) -> Vec<Vec<f64>> {
    let c = cosines(image, text);
    let n = image.rows;
    let by_image = |i: usize| (0..n).filter(move |&j| j != i).map(move |j| (i, j));
    let by_text = |i: usize| (0..n).filter(move |&j| j != i).map(move |j| (j, i));
    let of = |i: usize, pairs: Vec<(usize, usize)>| -> Vec<f64> {
        let hinge = |(a, b): (usize, usize)| hinge(margin + c[a][b] - c[i][i]);
        pairs.into_iter().map(hinge).collect()
    };
    (0..n)
        .flat_map(|i| [of(i, by_image(i).collect()), of(i, by_text(i).collect())])
        .collect()
}

/// Sum over the batch.
pub fn vse(image: &Matrix, text: &Matrix, margin: f64) -> f64 {
    hinges(image, text, margin).iter().flatten().sum()
}

/// Sum over the batch.
pub fn vse_plus_plus(image: &Matrix, text: &Matrix, margin: f64) -> f64 {
    let hardest = |hinges: &Vec<f64>| hinges.iter().copied().fold(0.0, f64::max);
    hinges(image, text, margin).iter().map(hardest).sum()
}

/// Sum over all pairs of `positive(c)` on the diagonal and `negative(c)` off it.
pub fn pointwise(
    image: &Matrix,
    text: &Matrix,
    positive: impl Fn(f64) -> f64,
    negative: impl Fn(f64) -> f64,
) -> f64 {
    let of = |i, j, c| if i == j { positive(c) } else { negative(c) };
    cosines(image, text)
        .iter()
        .enumerate()
        .map(|(i, row)| {
            row.iter()
                .enumerate()
                .map(|(j, &c)| of(i, j, c))
                .sum::<f64>()
        })
        .sum()
}

/// Sum over the batch.
pub fn max_margin(image: &Matrix, text: &Matrix, margin: f64) -> f64 {
    pointwise(image, text, |c| 1.0 - c, |c| hinge(c - margin))
}

/// Each row divided by its norm, or by ε where that is larger.
fn above(x: &Matrix, epsilon: f64) -> Matrix {
    let rows = (0..x.rows).flat_map(|i| {
        let norm = dot(x.row(i), x.row(i)).sqrt().max(epsilon);
        x.row(i).iter().map(move |v| v / norm).collect::<Vec<_>>()
    });
    Matrix::new(x.rows, x.width, rows.collect())
}

/// `Σ_ij`: `(1 − c)²` on the diagonal, `push(c)` off it; cosines with norms of at least ε.
pub fn squares(image: &Matrix, text: &Matrix, epsilon: f64, push: impl Fn(f64) -> f64) -> f64 {
    let (image, text) = (above(image, epsilon), above(text, epsilon));
    let mut sum = 0.0;
    for i in 0..image.rows {
        for j in 0..text.rows {
            let c = dot(image.row(i), text.row(j));
            sum += if i == j { (1.0 - c).powi(2) } else { push(c) };
        }
    }
    sum
}

pub fn reco(image: &Matrix, text: &Matrix, weight: f64, epsilon: f64) -> f64 {
    squares(image, text, epsilon, |c| weight * hinge(c).powi(2))
}

pub fn orthogonality(image: &Matrix, text: &Matrix, weight: f64, epsilon: f64) -> f64 {
    squares(image, text, epsilon, |c| weight * c * c)
}

/// Mean over the images.
pub fn sig_lip(image: &Matrix, text: &Matrix, scale: f64, bias: f64) -> f64 {
    let loss = |y: f64| move |c: f64| -(1.0 / (1.0 + (-y * (scale * c + bias)).exp())).ln();
    pointwise(image, text, loss(1.0), loss(-1.0)) / image.rows as f64
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (normalize(a), normalize(b));
    a.iter().zip(&b).map(|(x, y)| (x - y).powi(2)).sum()
}

pub fn alignment(image: &Matrix, text: &Matrix) -> f64 {
    let of = |i| squared_distance(image.row(i), text.row(i));
    (0..image.rows).map(of).sum::<f64>() / image.rows as f64
}

pub fn uniformity(image: &Matrix, text: &Matrix, t: f64) -> f64 {
    let mut sum = 0.0;
    for i in 0..image.rows {
        for j in 0..text.rows {
            sum += (-t * squared_distance(image.row(i), text.row(j))).exp();
        }
    }
    (sum / (image.rows * text.rows) as f64).ln()
}

/// Over pairs of different rows.
pub fn uniformity_within(x: &Matrix, t: f64) -> f64 {
    let mut sum = 0.0;
    for i in 0..x.rows {
        for j in (0..x.rows).filter(|&j| j != i) {
            sum += (-t * squared_distance(x.row(i), x.row(j))).exp();
        }
    }
    (sum / (x.rows * (x.rows - 1)) as f64).ln()
}

pub fn barlow_twins(image: &Matrix, text: &Matrix, weight: f64, center: bool) -> f64 {
    let feature = |x: &Matrix, k: usize| {
        let values: Vec<f64> = (0..x.rows).map(|i| x.row(i)[k]).collect();
        let mean = if center {
            values.iter().sum::<f64>() / x.rows as f64
        } else {
            0.0
        };
        values.iter().map(|v| v - mean).collect::<Vec<_>>()
    };
    let mut sum = 0.0;
    for k in 0..image.width {
        for l in 0..text.width {
            let c = cosine(&feature(image, k), &feature(text, l));
            sum += if k == l {
                (1.0 - c).powi(2)
            } else {
                weight * c * c
            };
        }
    }
    sum
}
