//! Differences of objectives by plain least squares: a column for each objective but the first and
//! for each seed, normal equations, and Student's t by adding up its density.

/// A difference, its standard error, its p, and the degrees of freedom.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    pub mean: f64,
    pub error: f64,
    pub p: f64,
}

/// How each of some samples of `(seed, value)` differs from the first.
pub fn differences(samples: &[Vec<(u64, f64)>]) -> Vec<Difference> {
    let mut seeds: Vec<u64> = samples.iter().flatten().map(|(seed, _)| *seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let (others, columns) = (samples.len() - 1, samples.len() - 1 + seeds.len());
    let mut rows: Vec<(Vec<f64>, f64)> = Vec::new();
    for (sample, values) in samples.iter().enumerate() {
        for (seed, value) in values {
            let mut row = vec![0.0; columns];
            if sample > 0 {
                row[sample - 1] = 1.0;
            }
            row[others + seeds.iter().position(|other| other == seed).unwrap()] = 1.0;
            rows.push((row, *value));
        }
    }
    let product = |a: usize, b: usize| rows.iter().map(|(row, _)| row[a] * row[b]).sum::<f64>();
    let normal = |a| (0..columns).map(|b| product(a, b)).collect::<Vec<_>>();
    let normal: Vec<Vec<f64>> = (0..columns).map(normal).collect();
    let right = |a: usize| rows.iter().map(|(row, value)| row[a] * value).sum::<f64>();
    let fitted = solved(&normal, (0..columns).map(right).collect());
    let residual = |(row, value): &(Vec<f64>, f64)| {
        let fit: f64 = row.iter().zip(&fitted).map(|(x, b)| x * b).sum();
        (value - fit).powi(2)
    };
    let freedom = rows.len() - columns;
    let variance = rows.iter().map(residual).sum::<f64>() / freedom as f64;
    let difference = |column: usize| {
        let unit = (0..columns).map(|other| f64::from(u8::from(other == column)));
        let error = (variance * solved(&normal, unit.collect())[column]).sqrt();
        let mean = fitted[column];
        let p = two_sided((mean / error).abs(), freedom as f64);
        Difference { mean, error, p }
    };
    (0..others).map(difference).collect()
}

/// The solution of linear equations, by elimination with the largest pivot.
fn solved(matrix: &[Vec<f64>], right: Vec<f64>) -> Vec<f64> {
    let mut rows: Vec<Vec<f64>> = matrix.to_vec();
    for (row, value) in rows.iter_mut().zip(right) {
        row.push(value);
    }
    for pivot in 0..rows.len() {
        let largest = (pivot..rows.len())
            .max_by(|&a, &b| rows[a][pivot].abs().total_cmp(&rows[b][pivot].abs()));
        rows.swap(pivot, largest.unwrap());
        let of_pivot = rows[pivot].clone();
        for row in rows.iter_mut().skip(pivot + 1) {
            let factor = row[pivot] / of_pivot[pivot];
            for (value, pivot) in row.iter_mut().zip(&of_pivot) {
                *value -= factor * pivot;
            }
        }
    }
    let mut solution = vec![0.0; rows.len()];
    for place in (0..rows.len()).rev() {
        let known = (place + 1..rows.len()).map(|other| rows[place][other] * solution[other]);
        solution[place] = (rows[place][rows.len()] - known.sum::<f64>()) / rows[place][place];
    }
    solution
}

/// One less the share of the density within ±t, both by Simpson's rule; beyond the angle of
/// `t = √ν·tan θ` the density is `cos θ^(ν − 1)`, up to a factor.
fn two_sided(t: f64, freedom: f64) -> f64 {
    let area = |until: f64| {
        let density = |angle: f64| angle.cos().max(0.0).powf(freedom - 1.0);
        let parts = 2_000;
        let width = until / f64::from(parts);
        let sum = (0..=parts).map(|part| {
            let factor = match part {
                0 => 1.0,
                part if part == parts => 1.0,
                part => f64::from(2 + 2 * (part % 2)),
            };
            factor * density(f64::from(part) * width)
        });
        sum.sum::<f64>() * width / 3.0
    };
    1.0 - area((t / freedom.sqrt()).atan()) / area(std::f64::consts::FRAC_PI_2)
}

/// Holm's adjustment.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let smaller = |value: f64| p.iter().filter(move |other| **other <= value);
    let stepped = |value: f64| {
        // The greatest of the smaller ones, each times the number of those that are no smaller.
        let each = smaller(value).map(|other| {
            let left = p.iter().filter(|another| *another >= other).count();
            left as f64 * other
        });
        each.fold(0.0, f64::max).min(1.0)
    };
    p.iter().map(|&value| stepped(value)).collect()
}
