//! The objectives again, as naive loops over `f64`, written from the equations and nothing else.
//! Tests and benches compare with these.

/// Row-major matrix.
#[derive(Clone, Debug)]
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

/// What InfoNCE is made of besides the embeddings.
#[derive(Clone, Debug)]
pub struct InfoNce {
    pub log_scale: f64,
    pub image_to_text_weight: f64,
    pub normalize: bool,
}

impl InfoNce {
    fn logit(&self, a: &[f64], b: &[f64]) -> f64 {
        let similarity = if self.normalize {
            cosine(a, b)
        } else {
            dot(a, b)
        };
        self.log_scale.exp() * similarity
    }

    /// `−log( e^{z_ii} / Σ_j e^{z_ij} )` of anchor `i` against the others and the extra negatives.
    fn direction(
        &self,
        i: usize,
        anchors: &Matrix,
        others: &Matrix,
        extra: Option<&Matrix>,
    ) -> f64 {
        let anchor = anchors.row(i);
        let mut logits: Vec<f64> = (0..others.rows)
            .map(|j| self.logit(anchor, others.row(j)))
            .collect();
        let positive = logits[i];
        if let Some(extra) = extra {
            logits.extend((0..extra.rows).map(|j| self.logit(anchor, extra.row(j))));
        }
        log_sum_exp(&logits) - positive
    }

    pub fn each(
        &self,
        image: &Matrix,
        text: &Matrix,
        extra_image: Option<&Matrix>,
        extra_text: Option<&Matrix>,
    ) -> Vec<f64> {
        let weight = self.image_to_text_weight;
        (0..image.rows)
            .map(|i| {
                weight * self.direction(i, image, text, extra_text)
                    + (1.0 - weight) * self.direction(i, text, image, extra_image)
            })
            .collect()
    }

    pub fn loss(&self, image: &Matrix, text: &Matrix) -> f64 {
        self.each(image, text, None, None).iter().sum::<f64>() / image.rows as f64
    }
}

/// Derivative of `f` by every element of `x`, by central differences of fourth order and step `h`.
pub fn gradient(f: impl Fn(&[f64]) -> f64, x: &[f64], h: f64) -> Vec<f64> {
    let mut x = x.to_vec();
    (0..x.len())
        .map(|k| {
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
