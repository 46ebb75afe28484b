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
//! Where ids are given, the one-hot part is spread evenly over all candidates of the anchor's id, those of the queue included,
//! as ALBEF does for fine-tuning on retrieval.
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
use burn::tensor::{Device, Int, Tensor};

use super::Reduction;
use super::contrastive::{Blend, Candidates, Group, Ids, Teacher, Terms};
use crate::check;
use crate::pairwise::{Expr, rows};
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
        self.each(image, text, momentum, None).mean()
    }

    /// The loss where samples of one id are positives of each other: see [`forward`](Self::forward).
    ///
    /// # Shapes
    ///
    /// - `ids`: of the batch `[N]`; of the queue `negative_image` `[K]`, `negative_text` `[M]`, without which nothing in the queue is
    ///   a positive
    /// - all others as [`forward`](Self::forward)
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward), and where there are not as many ids as rows.
    #[track_caller]
    pub fn forward_with_ids(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        momentum: Teacher,
        ids: impl Into<Ids>,
    ) -> Tensor<1> {
        self.each(image, text, momentum, Some(ids.into())).mean()
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
        self.each(image, text, momentum, None)
    }

    #[track_caller]
    fn each(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        momentum: Teacher,
        ids: Option<Ids>,
    ) -> Tensor<1> {
        let groups = self.groups(image, text, momentum, ids);
        let (asked, parts) = Group::ask(groups, false, self.similarity.memory_budget);
        let reduced = asked
            .into_iter()
            .map(|(pairs, reductions)| pairs.reduce(&reductions));
        self.joined(parts.terms(reduced.collect()))
    }

    fn joined(&self, terms: [Terms; 2]) -> Tensor<1> {
        let blend = Blend {
            soft_targets: self.alpha,
            ..Blend::default()
        };
        let [by_image, by_text] = terms.map(|terms| terms.loss(blend));
        self.directions.of_sum(by_image + by_text, 2)
    }

    /// Image anchors with the momentum texts of the batch and of the queue, text anchors with the images.
    #[track_caller]
    fn groups(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        momentum: Teacher,
        ids: Option<Ids>,
    ) -> Vec<Group> {
        let caller = "ImageTextContrastive";
        let Teacher {
            image: own_image,
            text: own_text,
            negative_image,
            negative_text,
        } = momentum;
        let anchors = [("image", &image), ("text", &text)];
        check::paired(caller, anchors[0], anchors[1]);
        check::paired(caller, anchors[0], ("momentum.image", &own_image));
        check::paired(caller, anchors[1], ("momentum.text", &own_text));
        let names = ["momentum.negative_text", "momentum.negative_image"];
        let queue = |name, queue| check::met(caller, anchors[0], (name, queue));
        let queues = [
            queue(names[0], negative_text),
            queue(names[1], negative_image),
        ];
        let (ids, queue_ids) = match ids {
            Some(ids) => (Some(ids.batch), [ids.negative_text, ids.negative_image]),
            None => (None, [None, None]),
        };
        if let Some(ids) = &ids {
            check::labelled(caller, ("ids.batch", ids), anchors[0]);
        }
        for (k, name) in ["ids.negative_text", "ids.negative_image"]
            .iter()
            .enumerate()
        {
            if let (Some(ids), Some(queue)) = (&queue_ids[k], &queues[k]) {
                check::labelled(caller, (name, ids), (names[k], queue));
            }
        }

        let scale = self.logit_scale.for_embeddings(caller, &image);
        let [image, text] = [image, text].map(|x| self.similarity.prepare(x));
        let constant = |x: Tensor<2>| self.similarity.prepare(x.detach());
        let [own_image, own_text] = [own_image, own_text].map(constant);
        let sides = [
            (image, own_image.clone(), own_text.clone()),
            (text, own_text, own_image),
        ];
        let mut groups = Vec::new();
        let queues = queues
            .map(|queue| queue.map(constant))
            .into_iter()
            .zip(queue_ids);
        for (direction, (side, (queue, queue_ids))) in sides.into_iter().zip(queues).enumerate() {
            let (anchors, own, batch) = side;
            let group = |candidates: Tensor<2>, of_batch, same: Option<[Tensor<1, Int>; 2]>| {
                let mut pairs = self.similarity.pairs(anchors.clone(), candidates.clone());
                let scale = pairs.scalar(scale.clone());
                let several = same.is_some();
                let candidates = Candidates {
                    logit: &pairs.similarity() * &scale,
                    positive: match (same, of_batch) {
                        (Some([rows, columns]), _) => pairs.same_label(rows, columns),
                        (None, true) => Expr::diagonal(),
                        (None, false) => Expr::constant(0.0),
                    },
                    several,
                    left_out: Expr::constant(0.0),
                    filtered: Expr::constant(0.0),
                    log_weight: None,
                    target: (self.alpha > 0.0).then(|| {
                        let teacher = pairs.teacher(own.clone(), candidates);
                        (&teacher * &scale).detach()
                    }),
                };
                let views = vec![(direction, rows(), candidates)];
                Group { pairs, views }
            };
            let both = |others: Option<Tensor<1, Int>>| Some([ids.clone()?, others?]);
            groups.push(group(batch, true, both(ids.clone())));
            groups.extend(queue.map(|queue| group(queue, false, both(queue_ids))));
        }
        groups
    }
}

display!(ImageTextContrastive: [logit_scale] alpha, directions);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_orthogonal_pairs_by_hand() {
        // Image logits 1 and 0; momentum images look the other way, logits 0 and 1. With q and 1 − q the softmax of
        // (1, 0): the target of the own text is y = α·(1 − q) + (1 − α), the loss −y·log q − (1 − y)·log(1 − q).
        let device = Device::default();
        let x = Tensor::<2>::from_data([[3.0, 0.0], [0.0, 0.2]], &device);
        let momentum = Teacher::new(x.clone().flip([0]), x.clone());
        let config = ImageTextContrastiveConfig::new()
            .with_logit_scale(LogitScaleConfig::fixed(1.0))
            .with_alpha(0.25);
        let objective = config.init(&device);
        let each = objective.forward_no_reduction(x.clone(), x, momentum);
        let q = 1.0 / (1.0 + (-1f32).exp());
        let y = 0.25 * (1.0 - q) + 0.75;
        let by_image = -y * q.ln() - (1.0 - y) * (1.0 - q).ln();
        // The texts meet momentum images the other way too, as their own momentum does.
        let by_text = -y * (1.0 - q).ln() - (1.0 - y) * q.ln();
        let expected = (by_image + by_text) / 2.0;
        for loss in each.into_data().try_to_vec::<f32>().unwrap() {
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
