//! The image-text contrast against momentum features, target by target.

use super::{Matrix, cosine, log_sum_exp};

#[derive(Clone, Debug)]
pub struct ImageTextContrastive {
    pub log_scale: f64,
    /// The scale of the targets, which carries no gradient.
    pub target_log_scale: f64,
    pub alpha: f64,
    pub directions_added: bool,
}

/// Each pair of fields is that of images and that of texts.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub batch: [Matrix; 2],
    pub momentum: [Matrix; 2],
    pub queue: [Option<Matrix>; 2],
    /// Candidates of the anchor's id share its target.
    pub ids: Option<Vec<i64>>,
    pub queue_ids: [Option<Vec<i64>>; 2],
}

impl ImageTextContrastive {
    fn anchor(&self, own: usize, i: usize, x: &Inputs) -> f64 {
        let other = 1 - own;
        let queue = x.queue[other].as_ref();
        let candidates: Vec<&[f64]> = (0..x.momentum[other].rows)
            .map(|j| x.momentum[other].row(j))
            .chain(
                queue
                    .into_iter()
                    .flat_map(|q| (0..q.rows).map(|j| q.row(j))),
            )
            .collect();
        let logits = |anchor: &[f64], log_scale: f64| -> Vec<f64> {
            let logit = |v: &&[f64]| log_scale.exp() * cosine(anchor, v);
            candidates.iter().map(logit).collect()
        };
        let positive = |j: usize| match &x.ids {
            None => i == j,
            Some(ids) => match j.checked_sub(ids.len()) {
                None => ids[j] == ids[i],
                Some(j) => x.queue_ids[other]
                    .as_ref()
                    .is_some_and(|queue| queue[j] == ids[i]),
            },
        };
        let positives = (0..candidates.len()).filter(|&j| positive(j)).count() as f64;
        let z = logits(x.batch[own].row(i), self.log_scale);
        let t = logits(x.momentum[own].row(i), self.target_log_scale);
        (0..z.len())
            .map(|j| {
                let soft = (t[j] - log_sum_exp(&t)).exp();
                let hard = if positive(j) { 1.0 / positives } else { 0.0 };
                let target = self.alpha * soft + (1.0 - self.alpha) * hard;
                target * (log_sum_exp(&z) - z[j])
            })
            .sum()
    }

    /// The loss of each pair.
    pub fn each(&self, x: &Inputs) -> Vec<f64> {
        let factor = if self.directions_added { 1.0 } else { 0.5 };
        (0..x.batch[0].rows)
            .map(|i| factor * (self.anchor(0, i, x) + self.anchor(1, i, x)))
            .collect()
    }

    /// Their mean.
    pub fn loss(&self, x: &Inputs) -> f64 {
        let each = self.each(x);
        each.iter().sum::<f64>() / each.len() as f64
    }
}
