//! Late interaction as naive loops over tokens.

use super::{Matrix, dot, log_sum_exp, normalize};

/// The tokens of some samples, one below the other, `count` each.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub matrix: Matrix,
    pub count: usize,
    /// Whether each token counts.
    pub mask: Vec<bool>,
}

impl Tokens {
    pub fn samples(&self) -> usize {
        self.matrix.rows / self.count
    }

    /// The tokens of a sample that count.
    fn of(&self, sample: usize) -> Vec<&[f64]> {
        let tokens = sample * self.count..(sample + 1) * self.count;
        tokens
            .filter(|&token| self.mask[token])
            .map(|token| self.matrix.row(token))
            .collect()
    }

    pub fn with_values(&self, values: &[f64]) -> Self {
        let Matrix { rows, width, .. } = self.matrix;
        Self {
            matrix: Matrix::new(rows, width, values.to_vec()),
            ..self.clone()
        }
    }

    pub fn normalized(&self) -> Self {
        let rows = (0..self.matrix.rows).flat_map(|i| normalize(self.matrix.row(i)));
        self.with_values(&rows.collect::<Vec<_>>())
    }
}

/// The mean over the tokens of row `i` of `a` of the largest product with a token of row `j` of
/// `b`; 0 where a side has no token.
pub fn similarity(a: &Tokens, b: &Tokens, i: usize, j: usize) -> f64 {
    let (rows, columns) = (a.of(i), b.of(j));
    if rows.is_empty() || columns.is_empty() {
        return 0.0;
    }
    let closest = |row: &&[f64]| {
        let products = columns.iter().map(|column| dot(row, column));
        products.fold(f64::NEG_INFINITY, f64::max)
    };
    rows.iter().map(closest).sum::<f64>() / rows.len() as f64
}

/// InfoNCE of cosines at this scale, the mean of both directions.
pub fn info_nce(image: &Tokens, text: &Tokens, scale: f64) -> f64 {
    let (image, text) = (image.normalized(), text.normalized());
    let n = image.samples();
    let direction = |a: &Tokens, b: &Tokens, i: usize| {
        let logits: Vec<_> = (0..n).map(|j| scale * similarity(a, b, i, j)).collect();
        log_sum_exp(&logits) - logits[i]
    };
    let each = (0..n).map(|i| direction(&image, &text, i) + direction(&text, &image, i));
    each.sum::<f64>() / (2 * n) as f64
}
