//! Softmax contrasts, candidate by candidate.

use super::{Matrix, dot, log_sum_exp, normalize};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SameId {
    Negative,
    LeftOut,
    Positive,
}

#[derive(Clone, Copy, Debug)]
pub struct Weights {
    pub alpha: f64,
    pub temperature: f64,
    /// `δ` of softmax(δ/s); `None` divides by the mean.
    pub delta: Option<f64>,
    pub differentiable: bool,
    /// Removes below this instead of weighing.
    pub threshold: Option<f64>,
}

#[derive(Clone, Debug)]
pub struct Contrastive {
    pub log_scale: f64,
    pub image_to_text_weight: f64,
    pub directions_added: bool,
    pub decoupled: bool,
    pub within_modality: bool,
    pub same_id: SameId,
    pub weights: Option<Weights>,
    pub guided_margin: Option<f64>,
    pub label_smoothing: f64,
    pub soft_targets: f64,
    /// The scale of the soft targets, which carries no gradient.
    pub target_log_scale: f64,
    pub normalize: bool,
}

/// A candidate of an anchor.
#[derive(Clone, Copy)]
struct Candidate {
    similarity: f64,
    is: Is,
    log_weight: f64,
    /// The teacher's similarity, where soft targets take it.
    teacher: Option<f64>,
}

/// Each pair of fields is that of images and that of texts.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    pub batch: [Matrix; 2],
    pub negatives: [Option<Matrix>; 2],
    pub noise: Option<Matrix>,
    /// `[N·m, D]`, `m` rows of each anchor of the other modality.
    pub hard: [Option<Matrix>; 2],
    pub teacher: Option<[Matrix; 2]>,
    pub teacher_negatives: [Option<Matrix>; 2],
    pub ids: Option<Vec<i64>>,
    pub negative_ids: [Option<Vec<i64>>; 2],
}

#[derive(Clone, Copy, PartialEq)]
enum Is {
    Positive,
    Weighted,
    Negative,
}

impl Contrastive {
    fn similarity(&self, a: &[f64], b: &[f64]) -> f64 {
        if self.normalize {
            dot(&normalize(a), &normalize(b))
        } else {
            dot(a, b)
        }
    }

    /// The loss of anchor `i` of modality `own`; what carries no gradient is read from `frozen`.
    fn anchor(&self, own: usize, i: usize, x: &Inputs, frozen: &Inputs) -> f64 {
        let other = 1 - own;
        let anchor = |x: &Inputs| x.batch[own].row(i).to_vec();
        let (moving, still) = (anchor(x), anchor(frozen));
        let teacher = |to: fn(&Inputs) -> [Option<&Matrix>; 2], modality: usize, j: usize| {
            let teacher = frozen.teacher.as_ref()?;
            Some(self.similarity(teacher[own].row(i), to(frozen)[modality]?.row(j)))
        };
        fn of_batch(x: &Inputs) -> [Option<&Matrix>; 2] {
            let teacher = x.teacher.as_ref().unwrap();
            [Some(&teacher[0]), Some(&teacher[1])]
        }
        fn of_negatives(x: &Inputs) -> [Option<&Matrix>; 2] {
            [
                x.teacher_negatives[0].as_ref(),
                x.teacher_negatives[1].as_ref(),
            ]
        }
        let same = |ids: &Option<Vec<i64>>, j: usize| match (&x.ids, ids) {
            (Some(ids), Some(others)) if self.same_id != SameId::Negative => ids[i] == others[j],
            _ => false,
        };
        let nearer = |similarity: Option<f64>| match (self.guided_margin, similarity) {
            (Some(margin), Some(similarity)) => {
                similarity > teacher(of_batch, other, i).unwrap() + margin
            }
            _ => false,
        };

        // (similarity, what it is, log of its weight)
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut add = |moving_c: f64, still_c: f64, teacher: Option<f64>, is: Is| {
            let log_weight = self.weights.map_or(0.0, |w| {
                let c = if w.differentiable { moving_c } else { still_c };
                let part = |share: f64, c: f64| match share {
                    0.0 => 0.0,
                    _ => share * (c / w.temperature).exp(),
                };
                let s = part(w.alpha, teacher.unwrap_or(0.0)) + part(1.0 - w.alpha, c);
                match w.delta {
                    None => -s.ln(),
                    Some(delta) => delta / s,
                }
            });
            candidates.push(Candidate {
                similarity: moving_c,
                is,
                log_weight,
                teacher,
            });
        };

        for j in 0..x.batch[other].rows {
            let c = self.similarity(&moving, x.batch[other].row(j));
            let still_c = self.similarity(&still, frozen.batch[other].row(j));
            let t = x.teacher.as_ref().and_then(|_| teacher(of_batch, other, j));
            let same = same(&x.ids, j);
            if i == j || (same && self.same_id == SameId::Positive) {
                add(c, still_c, t, Is::Positive);
            } else if !same && !nearer(t) {
                add(c, still_c, t, Is::Weighted);
            }
        }
        if let Some(negatives) = &x.negatives[other] {
            for j in 0..negatives.rows {
                let c = self.similarity(&moving, negatives.row(j));
                let still_c =
                    self.similarity(&still, frozen.negatives[other].as_ref().unwrap().row(j));
                let t = x
                    .teacher
                    .as_ref()
                    .and_then(|_| teacher(of_negatives, other, j));
                let same = same(&x.negative_ids[other], j);
                if same && self.same_id == SameId::Positive {
                    add(c, still_c, t, Is::Positive);
                } else if !same && !nearer(t) {
                    add(c, still_c, t, Is::Weighted);
                }
            }
        }
        if self.within_modality {
            for j in (0..x.batch[own].rows).filter(|&j| j != i) {
                let c = self.similarity(&moving, x.batch[own].row(j));
                let t = x.teacher.as_ref().and_then(|_| teacher(of_batch, own, j));
                let same = same(&x.ids, j);
                if same && self.same_id == SameId::Positive {
                    add(c, c, None, Is::Positive);
                } else if !same && !nearer(t) {
                    add(c, c, None, Is::Negative);
                }
            }
        }
        if let Some(noise) = &x.noise {
            for j in 0..noise.rows {
                let c = self.similarity(&moving, noise.row(j));
                add(c, c, None, Is::Negative);
            }
        }
        if let Some(hard) = &x.hard[other] {
            let m = hard.rows / x.batch[own].rows;
            for j in i * m..(i + 1) * m {
                let c = self.similarity(&moving, hard.row(j));
                add(c, c, None, Is::Negative);
            }
        }

        // Weights of mean one, and removal by them.
        let weighted = |c: &&Candidate| c.is == Is::Weighted;
        let log_weights: Vec<f64> = candidates
            .iter()
            .filter(weighted)
            .map(|c| c.log_weight)
            .collect();
        let log_mean = log_sum_exp(&log_weights) - (log_weights.len() as f64).ln();
        let mut counted: Vec<(Candidate, f64)> = Vec::new();
        for candidate in candidates {
            let weight = match (candidate.is, self.weights) {
                (Is::Weighted, Some(_)) => (candidate.log_weight - log_mean).exp(),
                _ => 1.0,
            };
            match self.weights.and_then(|w| w.threshold) {
                Some(threshold) if candidate.is == Is::Weighted => {
                    if weight >= threshold {
                        counted.push((candidate, 1.0));
                    }
                }
                _ => counted.push((candidate, weight)),
            }
        }

        let scale = self.log_scale.exp();
        let logits = |which: &dyn Fn(&Candidate) -> bool| -> Vec<(f64, f64)> {
            let taken = counted.iter().filter(|(c, _)| which(c));
            taken
                .map(|(c, weight)| (scale * c.similarity, weight.ln()))
                .collect()
        };
        let mean = |x: &[(f64, f64)]| x.iter().map(|(z, _)| z).sum::<f64>() / x.len() as f64;
        let positive = mean(&logits(&|c| c.is == Is::Positive));
        let denominator: Vec<f64> = logits(&|c| !(self.decoupled && c.is == Is::Positive))
            .iter()
            .map(|(z, log_weight)| z + log_weight)
            .collect();
        let mut loss = if denominator.is_empty() {
            0.0
        } else {
            log_sum_exp(&denominator) - positive
        };
        loss += self.label_smoothing * (positive - mean(&logits(&|_| true)));
        if self.soft_targets > 0.0 {
            let taught = || counted.iter().filter_map(|(c, _)| Some((c, c.teacher?)));
            let target = |t: f64| self.target_log_scale.exp() * t;
            let targets: Vec<f64> = taught().map(|(_, t)| target(t)).collect();
            let soft: f64 = taught()
                .map(|(c, t)| (target(t) - log_sum_exp(&targets)).exp() * scale * c.similarity)
                .sum();
            loss += self.soft_targets * (positive - soft);
        }
        loss
    }

    /// The losses of image anchors, and of text anchors.
    pub fn directions(&self, x: &Inputs, frozen: &Inputs) -> [Vec<f64>; 2] {
        [0, 1].map(|own| {
            (0..x.batch[0].rows)
                .map(|i| self.anchor(own, i, x, frozen))
                .collect()
        })
    }

    /// The mean over the batch.
    pub fn loss(&self, x: &Inputs, frozen: &Inputs) -> f64 {
        let [by_image, by_text] = self.directions(x, frozen);
        let n = by_image.len() as f64;
        let weight = self.image_to_text_weight;
        let factor = if self.directions_added { 2.0 } else { 1.0 };
        factor
            * (weight * by_image.iter().sum::<f64>() + (1.0 - weight) * by_text.iter().sum::<f64>())
            / n
    }
}
