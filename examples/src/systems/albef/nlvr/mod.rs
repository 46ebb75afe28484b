//! `albef nlvr2`: whether a statement about two images is true, as ALBEF learns it (Li et al., 2021,
//! section 5) on NLVR2.
//!
//! Every fusion layer of a pretrained ALBEF becomes [twins](TwinFusion), of which the first looks at
//! one image and the second at the other. A head of two layers judges the fused first token. A
//! momentum copy of all of it, made once the weights are those of the pretraining, gives soft
//! targets.
//!
//! Before, in the same run, the twins learn [text assignment](TextAssignment): which of two images a
//! caption belongs to, the first, the second, or neither.

mod answers;
mod assignment;
mod config;
mod program;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_contrastive::momentum::{MomentumEncoder, MomentumEncoderConfig};
use burn_contrastive::sharded::{Encoded, Sharding};

use super::config::AlbefModelConfig;
use super::first;
use crate::data::{Shard, StatedPair, StatedPairs};
use crate::models::{Bert, BertEmbeddings, BertEncoder, ClassifierHead, ImageEncoder, TwinFusion};
use crate::systems::albef::distillation::DistillationConfig;
use crate::training::output::{Figure, Output};
use crate::training::system::{Item, Moment, Step, System};

pub use answers::{Answer, Answers};
pub use assignment::{TextAssignment, TextAssignmentConfig};
pub use config::{AssignmentConfig, NlvrConfig};

pub use program::StatementTest;

/// Classes of a statement: false and true.
const CLASSES: usize = 2;

/// The encoders of a pretrained ALBEF, with twins in the place of its fusion layers.
#[derive(Module, Debug)]
pub struct TwinEncoder {
    /// The image encoder.
    pub image: ImageEncoder,
    /// The sentence encoder and the twins.
    pub bert: TwinBert,
}

/// BERT in two halves: layers that read a sentence, and twins that fuse it with two images.
#[derive(Module, Debug)]
pub struct TwinBert {
    /// What the first layer sees.
    pub embeddings: BertEmbeddings,
    /// The layers without cross-attention.
    pub text: BertEncoder,
    /// The layers with cross-attention, two for each of the pretraining.
    pub fusion: TwinFusion,
}

impl TwinEncoder {
    fn new(config: &AlbefModelConfig, device: &Device) -> Self {
        let image = config.image.init(device);
        let Bert {
            embeddings,
            text,
            fusion,
        } = config.bert.init(device);
        let fusion = TwinFusion::from_fusion(&fusion);
        Self {
            image,
            bert: TwinBert {
                embeddings,
                text,
                fusion,
            },
        }
    }

    /// The state of the first token of sentences that were fused with two images each:
    /// `[batch, width]`.
    ///
    /// # Shapes
    ///
    /// - `images`: the tokens of each, `[batch, seen, width]`
    /// - `tokens`: `[batch, length]`
    /// - `padding`: `[batch, length]`, true where `tokens` is padding
    pub fn fuse(
        &self,
        images: [Tensor<3>; 2],
        tokens: Tensor<2, Int>,
        padding: Tensor<2, Bool>,
    ) -> Tensor<2> {
        let TwinBert {
            embeddings,
            text,
            fusion,
        } = &self.bert;
        let states = text.forward(embeddings.forward(tokens), Some(padding.clone()), None);
        first(fusion.forward(states, Some(padding), images))
    }

    fn parts(&self) -> Vec<(&'static str, usize)> {
        let TwinBert {
            embeddings,
            text,
            fusion,
        } = &self.bert;
        vec![
            ("image encoder", self.image.num_params()),
            ("text encoder", embeddings.num_params() + text.num_params()),
            ("twins", fusion.num_params()),
        ]
    }
}

/// The system: see [the module](self).
#[derive(Module, Debug)]
pub struct Nlvr {
    /// The encoders.
    pub model: TwinEncoder,
    /// Tells true from false.
    pub head: ClassifierHead,
    /// The momentum copy of both.
    pub momentum: MomentumEncoder<(TwinEncoder, ClassifierHead)>,
    #[module(skip)]
    distillation: DistillationConfig,
    #[module(skip)]
    moment: Moment,
}

/// Two images and a sentence each, as tensors.
struct Inputs {
    /// `[2 · batch, 3, size, size]`: all left images, then all right ones.
    images: Tensor<4>,
    tokens: Tensor<2, Int>,
    padding: Tensor<2, Bool>,
}

impl Inputs {
    fn new(shard: &Shard<StatedPair>, device: &Device) -> Self {
        let images = [0, 1].map(|side| shard.images(|pair| &pair.pixels[side], device));
        let (tokens, padding) = shard.texts(|pair| &pair.tokens, device);
        Self {
            images: Tensor::cat(images.to_vec(), 0),
            tokens,
            padding,
        }
    }

    fn without_autodiff(&self) -> Self {
        Self {
            images: self.images.clone().without_autodiff(),
            tokens: self.tokens.clone().without_autodiff(),
            padding: self.padding.clone().without_autodiff(),
        }
    }

    /// Logits of the classes, `[batch, classes]`.
    fn judge(self, model: &TwinEncoder, head: &ClassifierHead) -> Tensor<2> {
        let [batch, _] = self.tokens.dims();
        let images = model.image.tokens(self.images);
        let images = [0, 1].map(|side| images.clone().narrow(0, side * batch, batch));
        head.forward(model.fuse(images, self.tokens, self.padding))
    }
}

impl Nlvr {
    fn new(config: &NlvrConfig, device: &Device) -> Self {
        let model = TwinEncoder::new(&config.model, device);
        let head = ClassifierHead::new(config.model.bert.width, CLASSES, device);
        Self {
            momentum: copied(&config.distillation, &model, &head),
            model,
            head,
            distillation: config.distillation.clone(),
            moment: Moment::default(),
        }
    }

    /// Logits of false and true for the statements of a shard, and the loss of the shard; with the
    /// momentum copy's share in the targets, where it has one at this moment.
    fn judge(&self, shard: &Shard<StatedPair>, share: f64, device: &Device) -> Judged {
        let inputs = Inputs::new(shard, device);
        let soft = (share > 0.0).then(|| {
            let (model, head) = self.momentum.encoder();
            (inputs.without_autodiff().judge(model, head), share)
        });
        let logits = inputs.judge(&self.model, &self.head);
        let labels = shard.items.iter().map(|pair| usize::from(pair.label));
        Judged::new(logits, labels.collect(), soft)
    }
}

/// The momentum copy.
fn copied(
    config: &DistillationConfig,
    model: &TwinEncoder,
    head: &ClassifierHead,
) -> MomentumEncoder<(TwinEncoder, ClassifierHead)> {
    let momentum = MomentumEncoderConfig::new().with_momentum(config.momentum);
    momentum.init(&(model.clone(), head.clone()))
}

/// What the examples of a shard are taken for, and what they are.
struct Judged {
    /// `[examples, classes]`
    logits: Tensor<2>,
    /// The class of each example.
    classes: Vec<usize>,
    /// `[1]`
    loss: Tensor<1>,
}

impl Judged {
    /// With a loss by the classes, of which that by the logits of another model takes a share.
    fn new(logits: Tensor<2>, classes: Vec<usize>, soft: Option<(Tensor<2>, f64)>) -> Self {
        let labels: Vec<i32> = classes.iter().map(|&class| class as i32).collect();
        let labels = Tensor::<1, Int>::from_data(&labels[..], &logits.device());
        Self {
            loss: cross_entropy(logits.clone(), labels, soft),
            logits,
            classes,
        }
    }

    /// The answers, for the examples of the indices.
    fn answers(&self, indices: impl IntoIterator<Item = usize>) -> Vec<Answer> {
        let [_, classes] = self.logits.dims();
        let probabilities = softmax(self.logits.clone().without_autodiff(), 1).into_data();
        let probabilities: Vec<f64> = probabilities.iter::<f64>().collect();
        let rows = probabilities.chunks(classes).zip(&self.classes);
        let answer = |(index, (row, &expected)): (usize, (&[f64], &usize))| {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            let (given, &confidence) = best.expect("there are classes");
            Answer {
                index,
                expected,
                given,
                confidence,
            }
        };
        indices.into_iter().zip(rows).map(answer).collect()
    }
}

/// Mean cross-entropy of logits with classes, `[1]`, of which that with the predictions of another
/// model, whose logits are constants, takes a share.
fn cross_entropy(
    logits: Tensor<2>,
    classes: Tensor<1, Int>,
    soft: Option<(Tensor<2>, f64)>,
) -> Tensor<1> {
    let log = log_softmax(logits, 1);
    let hard = -log.clone().gather(1, classes.unsqueeze_dim(1)).mean();
    let Some((other, share)) = soft else {
        return hard;
    };
    let mut targets = softmax(other, 1);
    if log.device().is_autodiff() {
        targets = Tensor::from_inner(targets);
    }
    hard * (1.0 - share) - (targets * log).sum_dim(1).mean() * share
}

/// A step whose loss is that of the shards alone, weighed by the number of their examples.
fn train_on<S: System>(
    system: &S,
    batch: &[Shard<Item<S>>],
    sharding: &Sharding,
    judge: impl Fn(&S, &Shard<Item<S>>) -> Judged + Sync,
) -> Step<()> {
    let own: usize = batch.iter().map(|shard| shard.items.len()).sum();
    let all = (own * sharding.workers()) as f64;
    let step = sharding.backward(
        system,
        batch,
        |system: &S, shard| {
            let share = shard.items.len() as f64 / all;
            let judged = judge(system, shard);
            // As constants, by which a shard is recognised when it is encoded again.
            let logits = Tensor::from_inner(judged.logits.inner());
            Encoded::new([logits]).with_loss(judged.loss * share)
        },
        |logits| logits[0].clone().sum() * 0.0,
    );
    Step {
        output: Output {
            loss: step.loss,
            losses: Vec::new(),
            logit_scale: None,
            embeddings: None,
            figures: Vec::new(),
        },
        gradients: step.gradients,
        carry: (),
    }
}

/// Loss and accuracy of a batch.
fn infer<T>(batch: &[Shard<T>], judge: impl Fn(&Shard<T>) -> Judged) -> Output {
    let all: usize = batch.iter().map(|shard| shard.items.len()).sum();
    let (mut losses, mut answers) = (Vec::new(), Vec::new());
    for shard in batch {
        let judged = judge(shard);
        answers.extend(judged.answers(0..judged.classes.len()));
        losses.push(judged.loss * (shard.items.len() as f64 / all as f64));
    }
    let right = answers.iter().filter(|answer| answer.is_right()).count();
    Output {
        loss: Tensor::cat(losses, 0).sum(),
        losses: Vec::new(),
        logit_scale: None,
        embeddings: None,
        figures: vec![Figure {
            sum: 100.0 * right as f64,
            count: answers.len() as f64,
        }],
    }
}

impl System for Nlvr {
    const NAME: &'static str = "albef";
    const FIGURES: &'static [&'static str] = &["Accuracy"];

    type Config = NlvrConfig;
    type Examples = StatedPairs;
    type Carry = ();

    /// The momentum copy is that of the weights that training starts from.
    fn begun(mut self, config: &NlvrConfig) -> Result<Self> {
        self.momentum = copied(&config.distillation, &self.model, &self.head);
        Ok(self)
    }

    fn at(mut self, moment: &Moment) -> Self {
        self.moment = *moment;
        self
    }

    fn train_on(&self, batch: &[Shard<StatedPair>], sharding: &Sharding) -> Step<()> {
        let device = self.device();
        let share = self.distillation.share(self.moment.epochs);
        train_on(self, batch, sharding, |system: &Self, shard| {
            system.judge(shard, share, &device)
        })
    }

    fn updated(mut self, _carried: Vec<()>) -> Self {
        let student = (self.model.clone(), self.head.clone());
        self.momentum = self.momentum.update(&student);
        self
    }

    fn infer(&self, batch: &[Shard<StatedPair>]) -> Output {
        let device = self.device();
        infer(batch, |shard| self.judge(shard, 0.0, &device))
    }

    fn logit_scale(&self) -> Option<Tensor<1>> {
        None
    }

    fn parts(&self) -> Vec<(&'static str, usize)> {
        let mut parts = self.model.parts();
        parts.push(("head", self.head.num_params()));
        parts
    }
}

#[cfg(test)]
mod tests;
