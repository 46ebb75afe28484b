//! The objectives again, as naive loops over `f64`, written from the equations and nothing else.
//! Tests and benches compare with these.

pub mod contrastive;
pub mod distillation;
pub mod late_interaction;
pub mod pairwise;
pub mod pointwise;
pub mod synthesis;

/// Row-major matrix.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    pub rows: usize,
    pub width: usize,
    pub values: Vec<f64>,
}

impl Matrix {
    pub fn new(rows: usize, width: usize, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), rows * width);
        Self {
            rows,
            width,
            values,
        }
    }

    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.width..][..self.width]
    }
}

/// `x / ‖x‖`, zeros for a zero row.
pub fn normalize(x: &[f64]) -> Vec<f64> {
    let largest = x.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    if largest == 0.0 {
        return x.to_vec();
    }
    let norm = x.iter().map(|v| (v / largest).powi(2)).sum::<f64>().sqrt();
    x.iter().map(|v| v / largest / norm).collect()
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    dot(&normalize(a), &normalize(b))
}

/// `log Σ e^z`, −∞ for nothing.
pub fn log_sum_exp(z: &[f64]) -> f64 {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln()
}

/// InfoNCE with its settings.
#[derive(Clone, Debug)]
pub struct InfoNce {
    pub log_scale: f64,
    pub image_to_text_weight: f64,
    pub normalize: bool,
}

impl InfoNce {
    /// `−log( e^{z_ii} / Σ_j e^{z_ij} )` of anchor `i` against the others and the extra negatives.
    fn direction(
        &self,
        i: usize,
        anchors: &Matrix,
        others: &Matrix,
        extra: Option<&Matrix>,
    ) -> f64 {
        let rows = |m: &'_ Matrix| -> Vec<f64> {
            (0..m.rows)
                .map(|j| self.log_scale.exp() * dot(anchors.row(i), m.row(j)))
                .collect()
        };
        let mut logits = rows(others);
        let positive = logits[i];
        logits.extend(extra.into_iter().flat_map(rows));
        log_sum_exp(&logits) - positive
    }

    /// The loss of each pair.
    pub fn each(
        &self,
        image: &Matrix,
        text: &Matrix,
        extra_image: Option<&Matrix>,
        extra_text: Option<&Matrix>,
    ) -> Vec<f64> {
        let prepare = |m: &Matrix| {
            if !self.normalize {
                return m.clone();
            }
            let rows = (0..m.rows).flat_map(|i| normalize(m.row(i)));
            Matrix::new(m.rows, m.width, rows.collect())
        };
        let (image, text) = (prepare(image), prepare(text));
        let (extra_image, extra_text) = (extra_image.map(prepare), extra_text.map(prepare));
        let weight = self.image_to_text_weight;
        (0..image.rows)
            .map(|i| {
                weight * self.direction(i, &image, &text, extra_text.as_ref())
                    + (1.0 - weight) * self.direction(i, &text, &image, extra_image.as_ref())
            })
            .collect()
    }

    /// Their mean.
    pub fn loss(&self, image: &Matrix, text: &Matrix) -> f64 {
        self.each(image, text, None, None).iter().sum::<f64>() / image.rows as f64
    }
}

/// Derivative of `f` by every element of `x`, by central differences of fourth order and step `h`.
pub fn gradient(f: impl Fn(&[f64]) -> f64, x: &[f64], h: f64) -> Vec<f64> {
    gradient_at(f, x, h, &(0..x.len()).collect::<Vec<_>>())
}

/// The same by the elements `which`.
pub fn gradient_at(f: impl Fn(&[f64]) -> f64, x: &[f64], h: f64, which: &[usize]) -> Vec<f64> {
    let mut x = x.to_vec();
    which
        .iter()
        .map(|&k| {
            let at = x[k];
            let mut difference = |step: f64| {
                x[k] = at + step;
                let above = f(&x);
                x[k] = at - step;
                let below = f(&x);
                x[k] = at;
                above - below
            };
            (8.0 * difference(h) - difference(2.0 * h)) / (12.0 * h)
        })
        .collect()
}
