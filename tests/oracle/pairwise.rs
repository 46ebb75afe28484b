//! Reductions over all pairs, and the families, as loops over a similarity matrix.

use super::{Matrix, dot, gradient_at, log_sum_exp};

/// All inputs that a family may read; those with a gradient come first.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub a: Matrix,
    /// Not read where both sides are `a`.
    pub b: Matrix,
    pub rows: Vec<Vec<f64>>,
    /// Where both sides are `a`, the vectors of rows serve the columns.
    pub columns: Vec<Vec<f64>>,
    pub scalars: Vec<f64>,
    pub within: bool,
    pub teacher: [Matrix; 2],
    /// `[n, m]`.
    pub mask: Vec<bool>,
    pub labels: [Vec<i64>; 2],
}

impl Inputs {
    pub fn n(&self) -> usize {
        self.a.rows
    }

    pub fn m(&self) -> usize {
        self.other().rows
    }

    fn other(&self) -> &Matrix {
        if self.within { &self.a } else { &self.b }
    }

    pub fn similarity(&self, (i, j): (usize, usize)) -> f64 {
        dot(self.a.row(i), self.other().row(j))
    }

    pub fn teacher(&self, (i, j): (usize, usize)) -> f64 {
        dot(self.teacher[0].row(i), self.teacher[1].row(j))
    }

    pub fn row(&self, k: usize, (i, _): (usize, usize)) -> f64 {
        self.rows[k][i]
    }

    pub fn column(&self, k: usize, (_, j): (usize, usize)) -> f64 {
        let vectors = if self.within {
            &self.rows
        } else {
            &self.columns
        };
        vectors[k][j]
    }

    pub fn masked(&self, (i, j): (usize, usize)) -> bool {
        self.mask[i * self.m() + j]
    }

    pub fn same_label(&self, (i, j): (usize, usize)) -> bool {
        self.labels[0][i] == self.labels[1][j]
    }

    /// All pairs, row by row.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let (n, m) = (self.n(), self.m());
        (0..n).flat_map(move |i| (0..m).map(move |j| (i, j)))
    }

    /// `of` applied to the pairs of each row, then to those of each column.
    pub fn each_way<T>(&self, of: impl Fn(&[(usize, usize)]) -> T) -> [Vec<T>; 2] {
        let (n, m) = (self.n(), self.m());
        let row = |i| of(&(0..m).map(|j| (i, j)).collect::<Vec<_>>());
        let column = |j| of(&(0..n).map(|i| (i, j)).collect::<Vec<_>>());
        [(0..n).map(row).collect(), (0..m).map(column).collect()]
    }

    /// Everything that has a gradient, in order.
    pub fn leaves(&self) -> Vec<&[f64]> {
        let mut leaves = vec![&self.a.values[..]];
        if !self.within {
            leaves.push(&self.b.values);
        }
        leaves.extend(self.rows.iter().map(|v| &v[..]));
        leaves.extend(self.columns.iter().map(|v| &v[..]));
        leaves.extend(self.scalars.chunks(1));
        leaves
    }

    /// The same with other values in leaf `k`.
    fn with_leaf(&self, k: usize, values: &[f64]) -> Self {
        let mut inputs = self.clone();
        let mut own = vec![&mut inputs.a.values[..]];
        if !self.within {
            own.push(&mut inputs.b.values);
        }
        own.extend(inputs.rows.iter_mut().map(|v| &mut v[..]));
        own.extend(inputs.columns.iter_mut().map(|v| &mut v[..]));
        own.extend(inputs.scalars.chunks_mut(1));
        own[k].copy_from_slice(values);
        inputs
    }
}

/// Results of the first inputs; detached expressions read the second, which do not change when
/// derivatives move the first.
pub type Family = fn(&Inputs, &Inputs) -> Vec<Vec<f64>>;

/// The weight of element `i` of result `k` in the loss that gradients are taken of.
pub fn weight(k: usize, i: usize) -> f64 {
    0.3 + (1.7 * k as f64 + 0.9 * i as f64).sin()
}

/// The weighted sum of the finite results; those of empty reductions are −∞.
fn loss(results: &[Vec<f64>]) -> f64 {
    let weighted = |(k, result): (usize, &Vec<f64>)| -> f64 {
        let finite = result.iter().enumerate().filter(|(_, x)| x.is_finite());
        finite.map(|(i, x)| weight(k, i) * x).sum()
    };
    results.iter().enumerate().map(weighted).sum()
}

/// Derivatives of the loss by at most `count` elements of each leaf, spread over it, with their
/// indices.
pub fn gradients(
    family: Family,
    inputs: &Inputs,
    step: f64,
    count: usize,
) -> Vec<Vec<(usize, f64)>> {
    let leaf = |(k, values): (usize, &[f64])| {
        let stride = (values.len() / count).max(1);
        let mut which: Vec<usize> = (0..values.len()).step_by(stride).collect();
        // The last one is where an edge would be cut.
        which.push(values.len() - 1);
        which.dedup();
        let f = |x: &[f64]| loss(&family(&inputs.with_leaf(k, x), inputs));
        let found = gradient_at(f, values, step, &which);
        which.into_iter().zip(found).collect()
    };
    inputs.leaves().into_iter().enumerate().map(leaf).collect()
}

/// `log Σ e^logit` over the pairs that are not left out.
pub fn softmax(
    inputs: &Inputs,
    logit: impl Fn((usize, usize)) -> f64,
    left_out: impl Fn((usize, usize)) -> bool,
) -> [Vec<f64>; 2] {
    inputs.each_way(|pairs| {
        let pairs = pairs.iter().copied().filter(|&p| !left_out(p));
        log_sum_exp(&pairs.map(&logit).collect::<Vec<_>>())
    })
}
/// For each row and each column: `log Σ e^weight`, and the mean of `value` under the softmax of
/// `weight`.
pub fn softmax_mean(
    inputs: &Inputs,
    weight: impl Fn((usize, usize)) -> f64,
    value: impl Fn((usize, usize)) -> f64,
) -> [[Vec<f64>; 2]; 2] {
    let both = inputs.each_way(|pairs| {
        let sum = log_sum_exp(&pairs.iter().map(|&p| weight(p)).collect::<Vec<_>>());
        let mean = pairs
            .iter()
            .map(|&p| (weight(p) - sum).exp() * value(p))
            .sum::<f64>();
        (sum, mean)
    });
    both.map(|results| {
        let (sums, means) = results.into_iter().unzip();
        [sums, means]
    })
}

/// `Σ x`.
pub fn sums(inputs: &Inputs, x: impl Fn((usize, usize)) -> f64) -> [Vec<f64>; 2] {
    inputs.each_way(|pairs| pairs.iter().map(|&p| x(p)).sum())
}

/// The largest similarity and its index, the lowest among equals; −∞ at index 0 if there is none.
pub fn hardest(
    inputs: &Inputs,
    left_out: impl Fn((usize, usize)) -> bool,
) -> [Vec<(f64, usize)>; 2] {
    inputs.each_way(|pairs| {
        let mut best = (f64::NEG_INFINITY, 0);
        for (k, &pair) in pairs.iter().enumerate() {
            let c = inputs.similarity(pair);
            if !left_out(pair) && c > best.0 {
                best = (c, k);
            }
        }
        best
    })
}

pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
