//! `clip`: a dual encoder and one contrastive objective.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use burn_contrastive::objective::{Features, InfoNceConfig};
use burn_contrastive::sharded::{Encoded, Sharding};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::{EvaluationSet, Pairs, Shard, TokenStyle};
use crate::models::{DualEncoder, DualEncoderConfig, ImageTowerConfig, PRESETS};
use crate::published::Published;
use crate::report::RunReport;
use crate::training::config::{SharedConfig, TrainingConfig};
use crate::training::evaluation::Retrieved;
use crate::training::history::History;
use crate::training::inputs::{self, Data};
use crate::training::objective::{TrainingObjective, logit_scale};
use crate::training::output::Output;
use crate::training::run::{self, Ended, Options, Program};
use crate::training::system::{Moment, Step, System, SystemConfig, TextLimits, Towers};

/// The settings of [`Clip`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipConfig {
    /// The two encoders; the name of a preset is short for its settings.
    pub model: DualEncoderConfig,
    /// The objective; its name is short for its settings.
    pub objective: TrainingObjective,
}

impl SystemConfig for ClipConfig {
    type System = Clip;

    /// A small model on small scenes: minutes on two CPU cores.
    fn defaults() -> TrainingConfig<Self> {
        TrainingConfig {
            system: Self {
                model: DualEncoderConfig::tiny(),
                objective: TrainingObjective::InfoNce(InfoNceConfig::new()),
            },
            shared: SharedConfig::default(),
        }
    }

    /// All settings are taken over but the weights that it started from itself.
    fn started_from(earlier: &Value) -> Result<TrainingConfig<Self>> {
        TrainingConfig::from_value(earlier.clone()).context("it is no run of clip")
    }

    /// The model is theirs, and the optimiser CLIP's (table 19 of its paper), with a learning rate
    /// for fine-tuning.
    fn started_from_published(published: &Published) -> Result<TrainingConfig<Self>> {
        let mut config = Self::defaults();
        config.system.model = published.clip()?;
        let optimizer = &mut config.shared.optimizer;
        optimizer.learning_rate = 1e-5;
        optimizer.weight_decay = 0.2;
        optimizer.beta_2 = 0.98;
        optimizer.epsilon = 1e-6;
        Ok(config)
    }

    fn towers() -> Towers {
        Towers {
            image: Some("image"),
            text: Some("text"),
            language_head: None,
        }
    }

    fn check(&self) -> Result<()> {
        self.model.check().context("model")?;
        self.objective.check()
    }

    /// `model=NAME` is short for that preset's settings, `model.image=NAME` for those of its image
    /// encoder, `objective=NAME` for that objective's.
    fn preset(key: &str, value: &Value) -> Option<Result<Value>> {
        match key {
            "model" => value.as_str().map(|name| {
                let config = DualEncoderConfig::preset(name).ok_or_else(|| {
                    anyhow!(
                        "there is no preset `{name}`; there are {}",
                        PRESETS.join(", ")
                    )
                })?;
                Ok(serde_json::to_value(config)?)
            }),
            "model.image" => ImageTowerConfig::preset(value),
            "objective" => TrainingObjective::preset(value),
            _ => None,
        }
    }

    fn has_dropout(&self) -> bool {
        self.model.has_dropout()
    }

    fn image_size(&self) -> usize {
        self.model.image.image_size()
    }

    fn text(&self) -> TextLimits {
        TextLimits {
            vocabulary: self.model.text.vocabulary,
            vocabulary_key: "model.text.vocabulary",
            context: self.model.text.context,
            context_key: "model.text.context",
            style: TokenStyle::default(),
        }
    }

    fn init(&self, device: &Device) -> Clip {
        let objective = self.objective.init(device);
        self.model.init(objective, device)
    }
}

/// An image encoder, a text encoder and the objective that aligns them.
pub type Clip = DualEncoder;

impl System for Clip {
    const NAME: &'static str = "clip";
    const RETRIEVES: bool = true;

    type Config = ClipConfig;
    type Examples = Pairs;
    /// The statistics of the shards by the norms of the image encoder, if it has such.
    type Carry = Option<Tensor<2>>;

    fn at(mut self, moment: &Moment) -> Self {
        self.objective = self.objective.at(moment.progress);
        self
    }

    fn train_on(&self, batch: &[Shard], sharding: &Sharding) -> Step<Option<Tensor<2>>> {
        let device = self.device();
        let step = sharding.backward(
            self,
            batch,
            |model: &Self, shard| Encoded::new(model.encode(shard, &device)),
            |embeddings| self.loss(&embeddings[0], &embeddings[1]),
        );
        let mut embeddings = step.embeddings.into_iter();
        let [images, texts] = [(); 2].map(|()| embeddings.next().expect("a shard has both"));
        Step {
            output: Output {
                logit_scale: System::logit_scale(self).map(Tensor::inner),
                ..Output::of_pairs(step.loss, images, texts)
            },
            gradients: step.gradients,
            carry: embeddings.next().map(Tensor::without_autodiff),
        }
    }

    fn updated(mut self, carried: Vec<Option<Tensor<2>>>) -> Self {
        self.objective = self.objective.clamped();
        self.follow(carried.into_iter().flatten().collect())
    }

    fn infer(&self, batch: &[Shard]) -> Output {
        let device = self.device();
        let embeddings = batch.iter().map(|shard| self.embed(shard, &device));
        let (images, texts) = embeddings.map(|[image, text]| (image, text)).unzip();
        let [images, texts] = [images, texts].map(|parts| Tensor::cat(parts, 0));
        let loss = self.loss(&images, &texts);
        Output {
            logit_scale: System::logit_scale(self),
            ..Output::of_pairs(loss, images, texts)
        }
    }

    fn logit_scale(&self) -> Option<Tensor<1>> {
        logit_scale(&self.objective)
    }

    fn parts(&self) -> Vec<(&'static str, usize)> {
        let mut parts = self.towers().to_vec();
        parts.push(("objective", self.objective.num_params()));
        parts
    }
}

impl Program for Clip {
    const TITLE: &'static str = "CLIP dual encoder";

    type Test = EvaluationSet;
    type Scores = Retrieved;

    fn open(
        config: &TrainingConfig<ClipConfig>,
        options: &Options,
        resumed: Option<&Path>,
    ) -> Result<Data<Self>> {
        inputs::pairs(config, options, resumed, |collection, tokenizer, _| {
            inputs::held_out(config, options, collection, tokenizer)
        })
    }

    fn evaluate(
        &self,
        test: &EvaluationSet,
        batch_size: usize,
        _is_trained: bool,
    ) -> Result<Retrieved> {
        Retrieved::new(self, test, batch_size)
    }

    fn before(test: &EvaluationSet, scores: &Retrieved) -> String {
        scores.before(test)
    }

    fn after(_test: &EvaluationSet, scores: &Retrieved) -> String {
        scores.after()
    }

    fn report(
        test: &EvaluationSet,
        before: Option<&Retrieved>,
        after: &Retrieved,
        _history: &History,
    ) -> RunReport {
        after.report(test, before)
    }

    fn run(
        config: &TrainingConfig<ClipConfig>,
        options: &Options,
        interrupter: Interrupter,
    ) -> Result<Ended<Self>> {
        run::run(config, options, interrupter)
    }
}

impl Clip {
    /// The embeddings of a shard's images and of its captions.
    fn embed(&self, shard: &Shard, device: &Device) -> [Tensor<2>; 2] {
        let batch = shard.to_batch(device);
        [
            self.embed_image(batch.images),
            self.embed_text(batch.tokens, batch.padding),
        ]
    }

    /// The embeddings of a shard in training, and the statistics of the image encoder's norms, if
    /// it has such.
    fn encode(&self, shard: &Shard, device: &Device) -> Vec<Tensor<2>> {
        let batch = shard.to_batch(device);
        let (images, statistics) = self.embed_image_train(batch.images);
        let texts = self.embed_text(batch.tokens, batch.padding);
        let statistics = statistics.map(Tensor::from_inner);
        [images, texts].into_iter().chain(statistics).collect()
    }

    fn loss(&self, images: &Tensor<2>, texts: &Tensor<2>) -> Tensor<1> {
        let features = Features::new(images.clone(), texts.clone());
        self.objective.forward(&features)
    }
}
