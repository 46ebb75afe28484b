//! `radiograph`: images and report sentences of studies in one space, by ReCo (Lin et al., 2022,
//! "Relaxing Contrastiveness in Multimodal Representation Learning") or another objective, as
//! ConVIRT (Zhang et al., 2020) trains them.
//!
//! A residual network reads an image, BERT a sentence, each with a head of two layers. Of each
//! study of a batch one image and one sentence are drawn. What its image encoder has learned,
//! [`classifier`] measures.

pub mod classifier;
mod config;
mod precision;
mod program;

use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_contrastive::objective::{Features, Objective};
use burn_contrastive::sharded::{Encoded, Sharding};

use crate::data::{Shard, StudyPairs};
use crate::models::{BertEmbeddings, BertEncoder, ProjectionHead, ResNet};
use crate::training::objective::logit_scale;
use crate::training::output::Output;
use crate::training::system::{Moment, Step, System};

pub use config::{RadiographConfig, RadiographModelConfig, SentencePooling};
pub use precision::{ByClass, Precisions};
pub use program::{RadiographScores, RadiographTest};

/// The encoders and their heads.
#[derive(Module, Debug)]
pub struct RadiographModel {
    /// The image encoder.
    pub image: ResNet,
    /// The sentence encoder.
    pub bert: SentenceEncoder,
    /// From the image's features into the space of the contrast.
    pub image_projection: ProjectionHead,
    /// From the sentence's features into the space of the contrast.
    pub text_projection: ProjectionHead,
}

/// BERT with one vector a sentence.
#[derive(Module, Debug)]
pub struct SentenceEncoder {
    /// What the first layer sees.
    pub embeddings: BertEmbeddings,
    /// The layers.
    pub text: BertEncoder,
    #[module(skip)]
    pooling: SentencePooling,
}

impl SentenceEncoder {
    /// Features of sentences, `[batch, width]`; `padding` is true where `tokens`, both
    /// `[batch, length]`, are padding.
    pub fn forward(&self, tokens: Tensor<2, Int>, padding: Tensor<2, Bool>) -> Tensor<2> {
        let states = self.embeddings.forward(tokens);
        let states = self.text.forward(states, Some(padding.clone()), None);
        match self.pooling {
            SentencePooling::Token => states.narrow(1, 0, 1).squeeze_dim(1),
            SentencePooling::Max => {
                let shape = states.dims();
                let padding = padding.unsqueeze_dim::<3>(2).expand(shape);
                let states = states.mask_fill(padding, f32::NEG_INFINITY);
                states.max_dim(1).squeeze_dim(1)
            }
        }
    }
}

impl RadiographModel {
    /// Embeddings of images, `[batch, 3, size, size]`, not normalised, by the running statistics.
    pub fn embed_images(&self, images: Tensor<4>) -> Tensor<2> {
        self.image_projection.forward(self.image.forward(images))
    }

    /// Embeddings of sentences, `[batch, length]`, not normalised.
    pub fn embed_texts(&self, tokens: Tensor<2, Int>, padding: Tensor<2, Bool>) -> Tensor<2> {
        self.text_projection
            .forward(self.bert.forward(tokens, padding))
    }
}

/// The system: see [the module](self).
#[derive(Module, Debug)]
pub struct Radiograph {
    /// What is trained.
    pub model: RadiographModel,
    /// What it is trained by; it owns the logit scale, if it has one.
    pub objective: Objective,
}

impl Radiograph {
    fn loss(&self, images: &Tensor<2>, texts: &Tensor<2>) -> Tensor<1> {
        let features = Features::new(images.clone(), texts.clone());
        self.objective.forward(&features)
    }

    /// The embeddings of a shard's images and sentences, and the statistics of its images.
    fn encode(&self, shard: &Shard, device: &Device) -> [Tensor<2>; 3] {
        let batch = shard.to_batch(device);
        let (features, statistics) = self.model.image.forward_train(batch.images);
        [
            self.model.image_projection.forward(features),
            self.model.embed_texts(batch.tokens, batch.padding),
            statistics,
        ]
    }

    fn output(&self, loss: Tensor<1>, images: Tensor<2>, texts: Tensor<2>) -> Output {
        Output {
            logit_scale: logit_scale(&self.objective).map(Tensor::without_autodiff),
            ..Output::of_pairs(loss, images, texts)
        }
    }
}

impl System for Radiograph {
    const NAME: &'static str = "radiograph";
    const RETRIEVES: bool = true;

    type Config = RadiographConfig;
    type Examples = StudyPairs;
    /// The batch norms' statistics of the shards, `[shards, values]`.
    type Carry = Tensor<2>;

    fn at(mut self, moment: &Moment) -> Self {
        self.objective = self.objective.at(moment.progress);
        self
    }

    fn train_on(&self, batch: &[Shard], sharding: &Sharding) -> Step<Tensor<2>> {
        let device = self.device();
        let step = sharding.backward(
            self,
            batch,
            |system: &Self, shard| {
                let [images, texts, statistics] = system.encode(shard, &device);
                Encoded::new([images, texts, Tensor::from_inner(statistics)])
            },
            |embeddings| self.loss(&embeddings[0], &embeddings[1]),
        );
        let embeddings: [Tensor<2>; 3] = step.embeddings.try_into().expect("three of them");
        let [images, texts, statistics] = embeddings.map(Tensor::without_autodiff);
        Step {
            output: self.output(step.loss, images, texts),
            gradients: step.gradients,
            carry: statistics,
        }
    }

    fn updated(mut self, carried: Vec<Tensor<2>>) -> Self {
        self.objective = self.objective.clamped();
        self.model.image = self.model.image.follow(carried);
        self
    }

    fn infer(&self, batch: &[Shard]) -> Output {
        let device = self.device();
        let embeddings = batch.iter().map(|shard| {
            let batch = shard.to_batch(&device);
            (
                self.model.embed_images(batch.images),
                self.model.embed_texts(batch.tokens, batch.padding),
            )
        });
        let (images, texts) = embeddings.unzip();
        let [images, texts] = [images, texts].map(|parts| Tensor::cat(parts, 0));
        self.output(self.loss(&images, &texts), images, texts)
    }

    fn logit_scale(&self) -> Option<Tensor<1>> {
        logit_scale(&self.objective)
    }

    fn parts(&self) -> Vec<(&'static str, usize)> {
        let RadiographModel {
            image,
            bert,
            image_projection,
            text_projection,
        } = &self.model;
        let projections = image_projection.num_params() + text_projection.num_params();
        vec![
            ("image encoder", image.trained_parameters()),
            ("text encoder", bert.num_params()),
            ("projections", projections),
            ("objective", self.objective.num_params()),
        ]
    }
}
