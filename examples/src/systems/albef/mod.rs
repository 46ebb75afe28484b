//! `albef`: align before fuse (Li et al., 2021), and SRCL (Jiang et al., 2023) on top of it.
//!
//! An image encoder and the first half of BERT are aligned by a contrast; the second half fuses a
//! sentence with an image by cross-attention, and learns to tell matching pairs from hard ones and
//! to predict hidden words. A momentum copy of the encoders gives the contrast its candidates, a
//! queue of earlier ones, and both losses their soft targets.
//!
//! SRCL weighs the negatives of the contrast by a second, frozen teacher: the same encoders,
//! trained first by plain contrast ([`AlbefConfig::teacher`]).

pub mod comparisons;
mod config;
mod distillation;
mod looks;
mod losses;
pub mod nlvr;
mod program;
mod published;
mod rerank;
mod step;
pub mod vqa;

use anyhow::{Context, Result};
use burn::module::Module;
use burn::tensor::{Bool, Device, Distribution, Int, Tensor};
use burn_contrastive::momentum::{MomentumEncoder, MomentumEncoderConfig};
use burn_contrastive::negatives::{FeatureQueue, FeatureQueueConfig, PairFeatures};
use burn_contrastive::objective::{ImageTextMatching, ImageTextMatchingConfig, Objective};
use burn_contrastive::similarity::l2_normalize;
use burn_contrastive::weighting::SimilarityRegulation;

use crate::models::{Bert, BertEncoder, ImageEncoder, LanguageHead, MatchingHead, ProjectionHead};
use crate::training::objective::regulation;
use crate::training::system::Moment;
use crate::training::weights::Weights;

/// The settings of fine-tuning on retrieval, over those of the pretraining.
pub const RETRIEVAL: &str = include_str!("../../../configs/albef_retrieval.json");

pub use config::{
    AlbefConfig, AlbefModelConfig, LooksConfig, LossesConfig, MaskingConfig, MatchIds,
    MomentumConfig, TeacherConfig,
};
pub use distillation::DistillationConfig;
pub use looks::Batches;
pub use losses::Rows;
pub use program::{AlbefScores, AlbefTest};

/// The encoders and their heads, of which there is a momentum copy.
#[derive(Module, Debug)]
pub struct AlbefModel {
    /// The image encoder.
    pub image: ImageEncoder,
    /// The sentence encoder and the fusion layers.
    pub bert: Bert,
    /// From the image's first token into the space of the contrast.
    pub image_projection: ProjectionHead,
    /// From the sentence's first token into the space of the contrast.
    pub text_projection: ProjectionHead,
    /// From fused states to words; a teacher of the contrast has none.
    pub language_head: Option<LanguageHead>,
}

/// Token features of both modalities, and the embeddings of their first tokens.
pub struct Encoded {
    /// `[pairs, patches + 1, width]`
    pub image_tokens: Tensor<3>,
    /// `[pairs, length, width]`
    pub text_states: Tensor<3>,
    /// `[pairs, embedding]`, not normalised.
    pub image: Tensor<2>,
    /// `[pairs, embedding]`, not normalised.
    pub text: Tensor<2>,
}

impl AlbefModel {
    /// Token features and embedding of images, `[batch, 3, size, size]`.
    pub fn encode_images(&self, images: Tensor<4>) -> (Tensor<3>, Tensor<2>) {
        let tokens = self.image.tokens(images);
        let embedding = self.image_projection.forward(first(tokens.clone()));
        (tokens, embedding)
    }

    /// States and embedding of sentences, `[batch, length]`.
    pub fn encode_texts(
        &self,
        tokens: Tensor<2, Int>,
        padding: Tensor<2, Bool>,
    ) -> (Tensor<3>, Tensor<2>) {
        let states = self.bert.read(tokens, padding);
        let embedding = self.text_projection.forward(first(states.clone()));
        (states, embedding)
    }

    /// Both encoders.
    pub fn encode(
        &self,
        images: Tensor<4>,
        tokens: Tensor<2, Int>,
        padding: Tensor<2, Bool>,
    ) -> Encoded {
        let (image_tokens, image) = self.encode_images(images);
        let (text_states, text) = self.encode_texts(tokens, padding);
        Encoded {
            image_tokens,
            text_states,
            image,
            text,
        }
    }

    /// The fused states of sentences from the text half on, `[batch, length, width]`.
    pub fn fuse(
        &self,
        text_states: Tensor<3>,
        padding: Tensor<2, Bool>,
        image_tokens: Tensor<3>,
    ) -> Tensor<3> {
        self.bert.fuse(text_states, padding, image_tokens)
    }

    /// The layers that fuse.
    pub fn fusion(&self) -> &BertEncoder {
        &self.bert.fusion
    }
}

/// The features of the first token of each sequence.
pub fn first(states: Tensor<3>) -> Tensor<2> {
    states.narrow(1, 0, 1).squeeze_dim(1)
}

/// The system: see [the module](self).
#[derive(Module, Debug)]
pub struct Albef {
    /// What is trained.
    pub model: AlbefModel,
    /// Tells matching pairs from others.
    pub matching_head: MatchingHead,
    /// The contrast; it owns the logit scale.
    pub objective: Objective,
    /// The momentum copy of `model`.
    pub momentum: MomentumEncoder<AlbefModel>,
    /// Features of the momentum copy, and of the teacher, for earlier pairs.
    pub queue: FeatureQueue,
    /// The frozen teacher of the weights.
    pub teacher: Option<AlbefModel>,
    matching: ImageTextMatching,
    #[module(skip)]
    losses: LossesConfig,
    #[module(skip)]
    masking: MaskingConfig,
    #[module(skip)]
    regulation: Option<SimilarityRegulation>,
    #[module(skip)]
    rerank: usize,
    #[module(skip)]
    schedule: MomentumConfig,
    #[module(skip)]
    soft_targets: f64,
    #[module(skip)]
    moment: Moment,
}

impl Albef {
    fn new(config: &AlbefConfig, device: &Device) -> Self {
        let model = config.model.init(true, device);
        let momentum = momentum_copy(config, &model);
        let plain = device.clone().inner();
        let teacher = config.needs_teacher().then(|| {
            let teacher = config.model.init(false, &plain);
            teacher.no_grad()
        });
        Self {
            matching_head: MatchingHead::new(config.model.bert.width, device),
            objective: config.objective.init(device),
            momentum,
            queue: FeatureQueueConfig::new(config.model.embedding)
                .with_capacity(config.momentum.queue)
                .with_teacher_width(teacher.as_ref().map(|_| config.model.embedding))
                .init(&plain),
            teacher,
            model,
            matching: ImageTextMatchingConfig::new().init(),
            losses: config.losses.clone(),
            masking: config.masking.clone(),
            regulation: regulation(&config.objective),
            rerank: config.rerank,
            schedule: config.momentum.clone(),
            soft_targets: config.soft_targets(),
            moment: Moment::default(),
        }
    }

    /// The momentum copy of the model as it is now, a queue of random unit vectors, the teacher's
    /// weights.
    fn start(mut self, config: &AlbefConfig) -> Result<Self> {
        self.momentum = momentum_copy(config, &self.model);
        if let Some(teacher) = self.teacher.take() {
            let run = config.teacher.run.as_ref();
            let run = run.context("the objective's weights need teacher.run")?;
            let weights = Weights::of_run(run).and_then(|weights| weights.moved("model", ""));
            let teacher = weights
                .and_then(|weights| {
                    weights.load_into(
                        teacher,
                        NOTHING,
                        &["^bert\\.fusion\\.", "^language_head\\."],
                    )
                })
                .context("teacher.run")?;
            self.teacher = Some(teacher.no_grad());
        }
        self.queue = filled(self.queue);
        Ok(self)
    }

    /// The share of the soft targets at this moment, of what it will be.
    fn ramp(&self) -> f64 {
        self.risen(self.schedule.ramp_epochs)
    }

    /// How far a value is that rises from 0 to 1 over the first `epochs`.
    fn risen(&self, epochs: f64) -> f64 {
        if epochs > 0.0 {
            (self.moment.epochs / epochs).min(1.0)
        } else {
            1.0
        }
    }
}

const NOTHING: &[&str] = &[];

/// The momentum copy of the model as it is.
fn momentum_copy(config: &AlbefConfig, model: &AlbefModel) -> MomentumEncoder<AlbefModel> {
    MomentumEncoderConfig::new()
        .with_momentum(config.momentum.momentum)
        .init(model)
}

/// A queue full of random unit vectors, as in ALBEF: they are no pair's features, and soon pushed
/// out.
fn filled(queue: FeatureQueue) -> FeatureQueue {
    let device = queue.devices().swap_remove(0);
    let random = |width: usize| {
        let (shape, normal) = ([queue.capacity(), width], Distribution::Normal(0.0, 1.0));
        l2_normalize(Tensor::<2>::random(shape, normal, &device))
    };
    let mut features = PairFeatures::new(random(queue.width()), random(queue.width()));
    if let Some(width) = queue.teacher_width() {
        features = features.with_teacher(random(width), random(width));
    }
    queue.push(features)
}
