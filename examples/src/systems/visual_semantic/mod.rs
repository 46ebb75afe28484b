//! `visual-semantic`: a joint embedding of images and captions by VSE++ (Faghri et al., 2018), and
//! ConVSE and ConVSE++ on top of it.
//!
//! A residual network and a GRU meet in one space: the base network, trained by the hinge of the
//! hardest negative ([`BaseConfig`]), first with the image encoder as it is, then all of it. The
//! run itself puts a head of two layers on each side and trains these with the base network by a
//! contrast, with the image encoder frozen. Features of images from a
//! [file](crate::data::FeatureFile) take the place of the residual network.

mod config;
pub mod features;
mod program;

use anyhow::{Context, Result};
use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_contrastive::objective::{Features, Objective};
use burn_contrastive::sharded::{Encoded, Sharding};
use burn_contrastive::similarity::l2_normalize;

use crate::data::{FeaturePair, FeaturePairs, Shard, WordVectors};
use crate::models::{GruEncoder, ProjectionHead, ResNet, zero_bias};
use crate::training::objective::logit_scale;
use crate::training::output::Output;
use crate::training::system::{Moment, Step, System, SystemConfig};
use crate::training::weights::Weights;

pub use config::{
    BaseConfig, FeaturesConfig, HeadsConfig, PhaseConfig, VisualSemanticConfig,
    VisualSemanticModelConfig,
};
pub use program::{VisualSemanticScores, VisualSemanticTest};

/// The system: see [the module](self).
#[derive(Module, Debug)]
pub struct VisualSemantic {
    /// The image encoder, unless features are read.
    pub image: Option<ResNet>,
    /// The caption encoder.
    pub text: GruEncoder,
    /// From the image's feature, of unit length, into the space of the base network.
    pub image_projection: Linear,
    /// From the caption's state into that space, where it has another width.
    pub text_projection: Option<Linear>,
    /// From the space of the base network to the embeddings of images.
    pub image_head: Option<ProjectionHead>,
    /// From the space of the base network to the embeddings of captions.
    pub text_head: Option<ProjectionHead>,
    /// What all of it is trained by.
    pub objective: Objective,
    train_image: bool,
}

impl VisualSemantic {
    fn new(config: &VisualSemanticConfig, device: &Device) -> Self {
        let model = &config.model;
        // VSE++ starts the projection so.
        let projection = |width| {
            let mut linear = LinearConfig::new(width, model.embedding)
                .with_initializer(Initializer::XavierUniform { gain: 1.0 })
                .init(device);
            zero_bias(&mut linear);
            linear
        };
        let head = || {
            let HeadsConfig { hidden, output } = *model.heads.as_ref()?;
            let head = ProjectionHead::mlp(model.embedding, hidden, output, device);
            Some(head)
        };
        let text = model.text.width;
        let image = (!config.reads_features()).then(|| model.image.init(device));
        Self {
            image,
            text: model.text.init(device),
            image_projection: projection(config.features()),
            text_projection: (text != model.embedding).then(|| projection(text)),
            image_head: head(),
            text_head: head(),
            objective: config.objective.init(device),
            train_image: config.train_image,
        }
    }

    /// The base network: the same without heads.
    pub fn base(&self) -> Self {
        Self {
            image_head: None,
            text_head: None,
            ..self.clone()
        }
    }

    /// Embeddings of images from the features of the image encoder, not normalised.
    ///
    /// # Shapes
    ///
    /// - `features`: `[batch, features]`
    /// - output: `[batch, embedding]`
    pub fn embed_features(&self, features: Tensor<2>) -> Tensor<2> {
        let base = self.image_projection.forward(l2_normalize(features));
        match &self.image_head {
            Some(head) => head.forward(base),
            None => base,
        }
    }

    /// Embeddings of images as they are after training, `[batch, 3, height, width]`, not
    /// normalised.
    ///
    /// # Panics
    ///
    /// If it reads features: it has no image encoder.
    pub fn embed_image(&self, images: Tensor<4>) -> Tensor<2> {
        self.embed_features(self.encoder().forward(images))
    }

    fn encoder(&self) -> &ResNet {
        let image = self.image.as_ref();
        image.expect("what reads features has no image encoder, and gets no pixels")
    }

    /// Embeddings of captions, not normalised.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, length]`
    /// - `padding`: `[batch, length]`, true where `tokens` is padding, which is behind the caption
    /// - output: `[batch, embedding]`
    pub fn embed_text(&self, tokens: Tensor<2, Int>, padding: Tensor<2, Bool>) -> Tensor<2> {
        let mut base = self.text.forward(tokens, padding);
        if let Some(projection) = &self.text_projection {
            base = projection.forward(base);
        }
        match &self.text_head {
            Some(head) => head.forward(base),
            None => base,
        }
    }

    /// The embeddings of a shard's images and captions, and the statistics of the norms of an
    /// image encoder that trains.
    fn encode(&self, shard: &Shard<FeaturePair>, device: &Device) -> Encoded {
        let (features, statistics) = if self.image.is_none() {
            (shard.features(device), None)
        } else if self.train_image {
            let images = shard.pixels(device);
            let (features, statistics) = self.encoder().forward_train(images);
            (features, Some(Tensor::from_inner(statistics)))
        } else {
            // Without a graph, which would keep all that the encoder computes.
            let images = shard.pixels(device).without_autodiff();
            let features = self.encoder().valid().forward(images);
            (Tensor::from_inner(features), None)
        };
        let (tokens, padding) = shard.texts(|pair| &pair.tokens, device);
        let embeddings = [
            self.embed_features(features),
            self.embed_text(tokens, padding),
        ];
        Encoded::new(embeddings.into_iter().chain(statistics))
    }

    fn loss(&self, images: Tensor<2>, texts: Tensor<2>) -> Tensor<1> {
        self.objective.forward(&Features::new(images, texts))
    }
}

impl System for VisualSemantic {
    const NAME: &'static str = "visual-semantic";
    const RETRIEVES: bool = true;

    type Config = VisualSemanticConfig;
    type Examples = FeaturePairs;
    /// The statistics of the norms of the image encoder, `[shards, values]`, if it trains.
    type Carry = Option<Tensor<2>>;

    /// Starts from the base network, or from word vectors that the run has saved.
    fn begun(mut self, config: &VisualSemanticConfig) -> Result<Self> {
        let Some(base) = &config.base else {
            let text = &config.model.text;
            if let Some(file) = &text.vectors {
                let vectors = WordVectors::load(file, text.vocabulary, text.words)?;
                self.text = self.text.with_words(vectors.rows());
            }
            return Ok(self);
        };
        let run = base.run.as_ref().context("base.run: there is none yet")?;
        let rules = config.rules();
        let weights = Weights::of_run(run);
        let start = weights.and_then(|weights| weights.load_into(self, rules.new, rules.unused));
        start.context("base.run")
    }

    fn at(mut self, moment: &Moment) -> Self {
        self.objective = self.objective.at(moment.progress);
        self
    }

    fn train_on(&self, batch: &[Shard<FeaturePair>], sharding: &Sharding) -> Step<Self::Carry> {
        let device = self.device();
        let step = sharding.backward(
            self,
            batch,
            |model: &Self, shard| model.encode(shard, &device),
            |embeddings| self.loss(embeddings[0].clone(), embeddings[1].clone()),
        );
        let mut embeddings = step.embeddings.into_iter();
        let mut next = || embeddings.next().expect("of images and of captions");
        let (images, texts) = (next(), next());
        Step {
            output: Output {
                logit_scale: System::logit_scale(self).map(Tensor::inner),
                ..Output::of_pairs(step.loss, images, texts)
            },
            gradients: step.gradients,
            carry: embeddings.next(),
        }
    }

    fn updated(mut self, carried: Vec<Self::Carry>) -> Self {
        self.objective = self.objective.clamped();
        let statistics = carried.into_iter().flatten();
        self.image = self.image.map(|image| image.follow(statistics));
        self
    }

    fn infer(&self, batch: &[Shard<FeaturePair>]) -> Output {
        let device = self.device();
        let (images, texts) = batch
            .iter()
            .map(|shard| {
                let image = match &self.image {
                    Some(_) => self.embed_image(shard.pixels(&device)),
                    None => self.embed_features(shard.features(&device)),
                };
                let (tokens, padding) = shard.texts(|pair| &pair.tokens, &device);
                (image, self.embed_text(tokens, padding))
            })
            .unzip();
        let [images, texts] = [images, texts].map(|parts| Tensor::cat(parts, 0));
        Output {
            logit_scale: System::logit_scale(self),
            ..Output::of_pairs(self.loss(images.clone(), texts.clone()), images, texts)
        }
    }

    fn logit_scale(&self) -> Option<Tensor<1>> {
        logit_scale(&self.objective)
    }

    fn parts(&self) -> Vec<(&'static str, usize)> {
        let of = |head: &Option<ProjectionHead>| head.as_ref().map_or(0, Module::num_params);
        let text = self.text_projection.as_ref().map_or(0, Module::num_params);
        let image = self.image.as_ref().map_or(0, ResNet::trained_parameters);
        vec![
            ("image encoder", image),
            ("text encoder", self.text.num_params()),
            ("projections", self.image_projection.num_params() + text),
            ("heads", of(&self.image_head) + of(&self.text_head)),
            ("objective", self.objective.num_params()),
        ]
    }
}
