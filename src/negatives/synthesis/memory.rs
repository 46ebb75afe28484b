//! The kernel associative memory of a cluster: which weights reconstruct its prototypes from their kernels.

use super::Points;

/// The inverse of `K + ridge·I`, row by row, with `K` the Gaussian kernels between `points`.
pub fn inverse_gram(all: &Points, points: &[usize], sigma: f64, ridge: f64) -> Vec<f64> {
    let n = points.len();
    let mut gram = vec![0.0; n * n];
    for (a, &i) in points.iter().enumerate() {
        for (b, &j) in points[..=a].iter().enumerate() {
            let kernel = (-all.squared_distance(i, all.row(j)) / (2.0 * sigma * sigma)).exp();
            gram[a * n + b] = kernel;
            gram[b * n + a] = kernel;
        }
        // The mean of the diagonal is 1: the ridge is relative.
        gram[a * n + a] += ridge;
    }
    invert(gram, n)
}

/// The inverse of a symmetric positive definite matrix, by Cholesky: `L·Lᵀ = A`, `A⁻¹ = L⁻ᵀ·L⁻¹`.
fn invert(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    for i in 0..n {
        for j in 0..=i {
            let (row, other) = (&a[i * n..][..j], &a[j * n..][..j]);
            let rest = a[i * n + j] - dot(row, other);
            a[i * n + j] = if i == j {
                rest.sqrt()
            } else {
                rest / a[j * n + j]
            };
        }
    }
    // Row `c` of `inverse` is column `c` of L⁻¹: 0 before its diagonal.
    let mut inverse = vec![0.0; n * n];
    for c in 0..n {
        for i in c..n {
            let sum = dot(&a[i * n + c..i * n + i], &inverse[c * n + c..c * n + i]);
            let unit = f64::from(u8::from(i == c));
            inverse[c * n + i] = (unit - sum) / a[i * n + i];
        }
    }
    for i in 0..n {
        for j in 0..=i {
            a[i * n + j] = dot(
                &inverse[i * n + i..][..n - i],
                &inverse[j * n + i..][..n - i],
            );
            a[j * n + i] = a[i * n + j];
        }
    }
    a
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_inverts() {
        let a = vec![4.0, 1.0, -0.5, 1.0, 3.0, 0.2, -0.5, 0.2, 2.0];
        let inverse = invert(a.clone(), 3);
        for i in 0..3 {
            for j in 0..3 {
                let product: f64 = (0..3).map(|k| a[i * 3 + k] * inverse[k * 3 + j]).sum();
                let unit = f64::from(u8::from(i == j));
                assert!((product - unit).abs() < 1e-14, "{i}, {j}: {product}");
            }
        }
    }

    #[test]
    fn equal_points_share_their_weight() {
        // K is all ones: (1 + ridge)⁻¹-like, with the rest of the spectrum at 1/ridge.
        let all = Points {
            width: 1,
            values: vec![5.0, 5.0],
        };
        let inverse = inverse_gram(&all, &[0, 1], 0.1, 0.5);
        // [[1.5, 1], [1, 1.5]]⁻¹ = [[1.2, −0.8], [−0.8, 1.2]].
        for (found, expected) in inverse.iter().zip([1.2, -0.8, -0.8, 1.2]) {
            assert!((found - expected).abs() < 1e-12, "{inverse:?}");
        }
    }
}
