//! Hard negatives from a kernel associative memory, by elimination and with naive sums.

use super::{Matrix, normalize};

fn kernel(a: &[f64], b: &[f64], sigma: f64) -> f64 {
    let squared: f64 = a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum();
    (-squared / (2.0 * sigma * sigma)).exp()
}

/// The output of the associative memory of `prototypes` at `anchor`.
pub fn recall(anchor: &[f64], prototypes: &[Vec<f64>], sigma: f64, ridge: f64) -> Vec<f64> {
    let n = prototypes.len();
    let gram = |a: usize, b: usize| {
        kernel(&prototypes[a], &prototypes[b], sigma) + if a == b { ridge } else { 0.0 }
    };
    let gram: Vec<Vec<f64>> = (0..n)
        .map(|a| (0..n).map(|b| gram(a, b)).collect())
        .collect();
    // W·(K + r·I) = X, row by row of the weights: (K + r·I) is its own transpose.
    let weights = solve(gram, prototypes.to_vec());
    let kernels: Vec<f64> = prototypes
        .iter()
        .map(|x| kernel(anchor, x, sigma))
        .collect();
    let total: f64 = kernels.iter().sum();
    (0..anchor.len())
        .map(|d| {
            kernels
                .iter()
                .zip(&weights)
                .map(|(k, w)| k * w[d])
                .sum::<f64>()
                / total
        })
        .collect()
}

/// `x` with `a·x = b`, by Gauss and Jordan.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let n = a.len();
    for column in 0..n {
        let largest = (column..n)
            .max_by(|&i, &j| a[i][column].abs().total_cmp(&a[j][column].abs()))
            .unwrap();
        a.swap(column, largest);
        b.swap(column, largest);
        for row in (0..n).filter(|&row| row != column) {
            let factor = a[row][column] / a[column][column];
            let (pivot_a, pivot_b) = (a[column].clone(), b[column].clone());
            a[row]
                .iter_mut()
                .zip(pivot_a)
                .for_each(|(x, p)| *x -= factor * p);
            b[row]
                .iter_mut()
                .zip(pivot_b)
                .for_each(|(x, p)| *x -= factor * p);
        }
    }
    (0..n)
        .map(|i| b[i].iter().map(|x| x / a[i][i]).collect())
        .collect()
}

/// For each anchor and each of the clusters (rows of `candidates`), without the anchor's own row.
pub fn synthesize(
    anchors: &Matrix,
    candidates: &Matrix,
    clusters: &[Vec<usize>],
    sigma: f64,
    ridge: f64,
) -> Vec<Vec<Vec<f64>>> {
    let of = |i: usize, cluster: &Vec<usize>| {
        let others = cluster.iter().filter(|&&j| j != i);
        let prototypes: Vec<_> = others.map(|&j| normalize(candidates.row(j))).collect();
        recall(&normalize(anchors.row(i)), &prototypes, sigma, ridge)
    };
    (0..anchors.rows)
        .map(|i| clusters.iter().map(|cluster| of(i, cluster)).collect())
        .collect()
}
