//! Image-text contrast with momentum distillation, ALBEF's: anchors of the model, candidates and soft targets of
//! its moving average.
//!
//! With `u` the anchors, `v̂` the candidates of the other modality (the batch's, then a queue's) and `û` the anchors again,
//! hatted features being those of the momentum encoders:
//!
//! ```text
//! z_ij = s·cos(u_i, v̂_j)        t_ij = s·cos(û_i, v̂_j)
//! y_i  = α·softmax(t_i·) + (1 − α)·onehot(i)
//! D_i  = −Σ_j y_ij·log softmax(z_i·)_j
//! L    = mean over i of  ½·D_i(image→text) + ½·D_i(text→image)
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | s | [`ImageTextContrastive::logit_scale`]: learned, from temperature 0.07, within [0.001, 0.5] |
//! | α | [`ImageTextContrastiveConfig::alpha`], 0.4; ALBEF ramps it up over the first epoch: [`ImageTextContrastive::with_alpha`] |
//! | `û`, `v̂` | the [`Teacher`] given to [`ImageTextContrastive::forward`]: [`image`](Teacher::image) and [`text`](Teacher::text) of the batch, [`negative_image`](Teacher::negative_image) and [`negative_text`](Teacher::negative_text) of the queue |
//!
//! **Gradient.** `∂D_i/∂z_ij = softmax(z_i·)_j − y_ij`. Momentum features and targets are constants, also to the scale.
//!
//! **How it is computed.** As `log(1 + e^{n − z_ii}) + α·(z_ii − mean of z_i· under softmax(t_i·))`, `n` the log-sum-exp of the negatives: exact
//! for tiny losses at α = 0. Batch and queue are joined by their log-sum-exps.
//!
//! **Cost.** Images meet momentum texts and texts momentum images, two matrices, and each has a teacher's (unless α is 0): four
//! times the products of InfoNCE forward, and as much more for the queue as it is longer. `N·D` memory.
//!
//! **Degenerate cases.** One pair without a queue: 0. N equal embeddings: `ln N`. At α = 0 with the model's own features in place
//! of the momentum ones the value is InfoNCE's (the gradient is not: candidates are constants).
//!
//! **Source.** Li et al. 2021, "Align before Fuse", equations 1, 2 and 6, and its code, which scales student and targets alike,
//! takes momentum features for candidates and averages the directions.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::Reduction;
use super::contrastive::{Teacher, cross_entropy};
use crate::check;
use crate::pairwise::{Expr, Pairs, log_add_exp, reduce_to_scalar, rows, share_memory_budget};
use crate::similarity::{LogitScale, LogitScaleConfig, SimilarityConfig};

/// Configuration of [`ImageTextContrastive`].
#[derive(Config, Debug, PartialEq)]
pub struct ImageTextContrastiveConfig {
    /// The logit scale. Default: learned, from temperature 0.07, within [0.001, 0.5] (ALBEF).
    #[config(default = "LogitScaleConfig::albef()")]
    pub logit_scale: LogitScaleConfig,
    /// Share α of the momentum encoders' targets, in [0, 1]. Default 0.4 (ALBEF).
    #[config(default = 0.4)]
    pub alpha: f64,
    /// Whether the two directions are averaged or added. Default: averaged (ALBEF).
    #[config(default = "Reduction::Mean")]
    pub directions: Reduction,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl ImageTextContrastiveConfig {
    /// Builds the objective on `device` (an autodiff device where the logit scale is to be learned).
    ///
    /// # Panics
    ///
    /// Where `alpha` is not in [0, 1], or [`LogitScaleConfig::init`] refuses the logit scale's values.
    #[track_caller]
    pub fn init(&self, device: &Device) -> ImageTextContrastive {
        ImageTextContrastive {
            logit_scale: self.logit_scale.init(device),
            alpha: 0.0,
            directions: self.directions,
            similarity: self.similarity,
        }
        .with_alpha(self.alpha)
    }
}

/// ALBEF's image-text contrast with momentum features; built by [`ImageTextContrastiveConfig::init`].
///
/// `L = ½·mean_i [ CE(z_i·, y_i) + CE(z'_i·, y'_i) ]`, with targets
/// `y_i = α·softmax(momentum logits) + (1 − α)·onehot(i)`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct ImageTextContrastive {
    /// The factor between cosines and logits; a parameter where it is learned.
    pub logit_scale: LogitScale,
    alpha: f64,
    #[module(skip)]
    directions: Reduction,
    #[module(skip)]
    similarity: SimilarityConfig,
}

impl ImageTextContrastive {
    /// The same objective with another share α of soft targets, as training proceeds.
    ///
    /// # Panics
    ///
    /// Where `alpha` is not in [0, 1].
    #[track_caller]
    pub fn with_alpha(self, alpha: f64) -> Self {
        check::within("ImageTextContrastive", "alpha", alpha, 0.0, 1.0);
        Self { alpha, ..self }
    }

    /// The loss, mean over the batch, in nats.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`, row `i` of one belongs to row `i` of the other
    /// - `momentum`: `image`, `text` `[N, D]`; of the queue `negative_image` `[K, D]`, `negative_text` `[M, D]`, no rows
    ///   count as none; constants to the gradient
    /// - returns `[1]`, f64 for f64 embeddings, f32 for all others
    ///
    /// # Panics
    ///
    /// Where shapes, dtypes or devices of the embeddings differ, the batch is empty, or the
    /// objective was built on another device.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::{Device, Distribution, Tensor};
    /// use burn_contrastive::objective::{ImageTextContrastiveConfig, Teacher};
    ///
    /// let device = Device::default();
    /// let random = |rows| Tensor::<2>::random([rows, 16], Distribution::Default, &device);
    /// let momentum = Teacher {
    ///     negative_image: Some(random(32)),
    ///     negative_text: Some(random(32)),
    ///     ..Teacher::new(random(8), random(8))
    /// };
    /// let objective = ImageTextContrastiveConfig::new().init(&device);
    /// assert_eq!(objective.forward(random(8), random(8), momentum).dims(), [1]);
    /// ```
    #[track_caller]
    pub fn forward(&self, image: Tensor<2>, text: Tensor<2>, momentum: Teacher) -> Tensor<1> {
        let groups = self.groups(image, text, momentum);
        let sizes = groups.each_ref().map(Vec::len);
        let asked = groups.into_iter().flatten().map(|pairs| self.asked(pairs));
        reduce_to_scalar(asked.collect(), |results| {
            self.joined(results, sizes).mean()
        })
    }

    /// The loss of each pair, `[N]`: see [`forward`](Self::forward).
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    #[track_caller]
    pub fn forward_no_reduction(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        momentum: Teacher,
    ) -> Tensor<1> {
        let groups = self.groups(image, text, momentum);
        let sizes = groups.each_ref().map(Vec::len);
        let reduced = groups.into_iter().flatten().map(|group| {
            let (pairs, reductions) = self.asked(group);
            pairs.reduce(&reductions)
        });
        self.joined(reduced.collect(), sizes)
    }

    /// For image anchors and for text anchors: pairs with the batch, then with the queue.
    #[track_caller]
    fn groups(&self, image: Tensor<2>, text: Tensor<2>, momentum: Teacher) -> [Vec<Group>; 2] {
        let caller = "ImageTextContrastive";
        let anchors = [("image", &image), ("text", &text)];
        check::paired(caller, anchors[0], anchors[1]);
        check::paired(caller, anchors[0], ("momentum.image", &momentum.image));
        check::paired(caller, anchors[1], ("momentum.text", &momentum.text));
        let queue = |name, queue: Option<Tensor<2>>| {
            let queue = queue.filter(|queue| queue.dims()[0] > 0)?;
            check::comparable(caller, ("image", &image), (name, &queue));
            Some(self.similarity.prepare(queue.detach()))
        };
        let queues = [
            queue("momentum.negative_text", momentum.negative_text),
            queue("momentum.negative_image", momentum.negative_image),
        ];
        let [own_image, own_text] =
            [momentum.image, momentum.text].map(|x| self.similarity.prepare(x.detach()));
        let scale = self.logit_scale.for_embeddings(caller, &image);
        let [image, text] = [image, text].map(|x| self.similarity.prepare(x));

        let group = |anchors: &[Tensor<2>; 2], candidates: &Tensor<2>, of_batch| {
            let [anchors, own] = anchors;
            let mut pairs = self.similarity.pairs(anchors.clone(), candidates.clone());
            let scale = pairs.scalar(scale.clone());
            let logit = &pairs.similarity() * &scale;
            let target = (self.alpha > 0.0).then(|| {
                let teacher = pairs.teacher(own.clone(), candidates.clone());
                (&teacher * &scale).detach()
            });
            Group {
                pairs,
                logit,
                target,
                of_batch,
            }
        };
        let [text_queue, image_queue] = queues;
        let mut groups = [
            ([image, own_image.clone()], own_text.clone(), text_queue),
            ([text, own_text], own_image, image_queue),
        ]
        .map(|(anchors, batch, queue)| {
            let batch = group(&anchors, &batch, true);
            let queue = queue.map(|queue| group(&anchors, &queue, false));
            [batch].into_iter().chain(queue).collect::<Vec<_>>()
        });
        let pairs = groups.iter_mut().flatten().map(|group| &mut group.pairs);
        share_memory_budget(pairs, self.similarity.memory_budget);
        groups
    }

    /// What to compute of a group: the log-sum-exp of the negatives; the positives' logits, of the batch; where
    /// there are soft targets, the log-sum-exp of the targets' logits and the mean logit under them.
    fn asked(&self, group: Group) -> (Pairs, Vec<crate::pairwise::Reduction>) {
        let Group {
            pairs,
            logit,
            target,
            of_batch,
        } = group;
        let diagonal = Expr::diagonal();
        let mut reductions = match of_batch {
            false => vec![rows().log_sum_exp(&logit)],
            true => {
                let positive = Expr::select(&diagonal, &logit, &Expr::constant(0.0));
                vec![
                    rows().log_sum_exp(&logit.except(&diagonal)),
                    rows().sum(&positive),
                ]
            }
        };
        reductions.extend(target.map(|target| rows().softmax_mean(&target, &logit)));
        (pairs, reductions)
    }

    /// The loss of each pair, from the results of as many groups of images, then of texts.
    fn joined(&self, results: Vec<Vec<Tensor<1>>>, [of_image, _]: [usize; 2]) -> Tensor<1> {
        let (image, text) = results.split_at(of_image);
        let sum = self.direction(image) + self.direction(text);
        self.directions.of_sum(sum, 2)
    }

    /// The loss of each anchor, from the results of the batch and of the queue.
    fn direction(&self, groups: &[Vec<Tensor<1>>]) -> Tensor<1> {
        let positive = groups[0][1].clone();
        let hard = cross_entropy(&positive, groups.iter().map(|group| group[0].clone()));
        if self.alpha == 0.0 {
            return hard;
        }
        let (log_sums, means): (Vec<_>, Vec<_>) = groups
            .iter()
            .map(|group| {
                (
                    group[group.len() - 2].clone(),
                    group[group.len() - 1].clone(),
                )
            })
            .unzip();
        let log_sum = log_add_exp(&log_sums);
        let mean = log_sums
            .into_iter()
            .zip(means)
            .map(|(group, mean)| (group - log_sum.clone()).exp() * mean)
            .reduce(|x, y| x + y)
            .expect("the batch");
        hard + (positive - mean) * self.alpha
    }
}

/// Anchors against one set of candidates.
struct Group {
    pairs: Pairs,
    logit: Expr,
    target: Option<Expr>,
    of_batch: bool,
}

display!(ImageTextContrastive: [logit_scale] alpha, directions);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_orthogonal_pairs_by_hand() {
        // Student logits 1 and 0; momentum anchors look the other way, logits 0 and 1. With q = softmax(1, 0):
        // targets of the own text α·q_1 + (1 − α), cross-entropy −y·log q_0 − (1 − y)·log q_1.
        let device = Device::default();
        let x = Tensor::<2>::from_data([[3.0, 0.0], [0.0, 0.2]], &device);
        let momentum = Teacher::new(x.clone().flip([0]), x.clone());
        let config = ImageTextContrastiveConfig::new()
            .with_logit_scale(LogitScaleConfig::fixed(1.0))
            .with_alpha(0.25);
        let objective = config.init(&device);
        let groups = objective.groups(x.clone(), x, momentum);
        let [by_image, _] = groups.map(|groups| {
            let results = groups.into_iter().map(|group| {
                let (pairs, reductions) = objective.asked(group);
                pairs.reduce(&reductions)
            });
            objective.direction(&results.collect::<Vec<_>>())
        });
        let q = 1.0 / (1.0 + (-1f32).exp());
        let y = 0.25 * (1.0 - q) + 0.75;
        let expected = -y * q.ln() - (1.0 - y) * (1.0 - q).ln();
        for loss in by_image.into_data().try_to_vec::<f32>().unwrap() {
            assert!((loss - expected).abs() < 1e-6, "{loss} against {expected}");
        }
    }

    #[test]
    fn equal_embeddings_give_ln_n() {
        let device = Device::default();
        let x = Tensor::<2>::ones([5, 3], &device);
        let momentum = Teacher {
            negative_text: Some(Tensor::ones([2, 3], &device)),
            ..Teacher::new(x.clone(), x.clone())
        };
        let objective = ImageTextContrastiveConfig::new().init(&device);
        let loss = objective
            .forward(x.clone(), x, momentum)
            .into_scalar::<f32>();
        // The images meet two texts more.
        assert!(
            (loss - (5f32.ln() + 7f32.ln()) / 2.0).abs() < 1e-5,
            "{loss}"
        );
    }

    #[test]
    #[should_panic(expected = "`alpha` is -0.1, it must lie in [0, 1]")]
    fn a_negative_share_is_refused() {
        ImageTextContrastiveConfig::new()
            .with_alpha(-0.1)
            .init(&Device::default());
    }

    #[test]
    fn displays_what_it_is_made_of() {
        let shown = ImageTextContrastiveConfig::new()
            .init(&Device::default())
            .to_string();
        assert!(
            shown.contains("ImageTextContrastive") && shown.contains("alpha: 0.4"),
            "{shown}"
        );
    }
}
