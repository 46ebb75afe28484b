//! The settings of [`Albef`].

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use burn::tensor::Device;
use burn_contrastive::objective::{Input, ObjectiveConfig, Value as Parameter};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Albef, AlbefModel, published};
use crate::data::TokenStyle;
use crate::models::{BertConfig, ImageEncoderConfig, Pooling, ProjectionHead};
use crate::published::Published;
use crate::training::config::TrainingConfig;
use crate::training::objective::TrainingObjective;
use crate::training::settings;
use crate::training::system::{InitRules, SystemConfig, TextLimits, Towers};

/// The settings of [`Albef`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlbefConfig {
    /// The encoders; the name of a preset is short for its settings.
    pub model: AlbefModelConfig,
    /// The contrast; its name is short for its settings.
    pub objective: ObjectiveConfig,
    /// What is learned beside the contrast.
    pub losses: LossesConfig,
    /// The momentum copy and the queue.
    pub momentum: MomentumConfig,
    /// Masked language modelling.
    pub masking: MaskingConfig,
    /// The frozen teacher of the weights of negatives, for objectives that have one.
    pub teacher: TeacherConfig,
    /// The most tokens of a caption, `[CLS]` included; 25 in ALBEF.
    pub tokens: usize,
    /// Candidates of a query, the most similar ones, that the matching head orders anew when the
    /// model is evaluated; 128 on Flickr30K and 256 on MS-COCO in ALBEF.
    pub rerank: usize,
    /// The look at the weights of negatives, for objectives that have them.
    pub looks: LooksConfig,
}

/// The look at the weights of negatives, after the training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LooksConfig {
    /// Training batches whose weights are counted; 0 for none.
    pub batches: usize,
    /// Share of the pairs of such a batch that share their meaning with another pair of it, where
    /// meanings are known.
    pub equal_meaning: f64,
}

/// Shape of the encoders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlbefModelConfig {
    /// The image encoder.
    pub image: ImageEncoderConfig,
    /// The sentence encoder and the fusion layers.
    pub bert: BertConfig,
    /// Width of the space of the contrast.
    pub embedding: usize,
}

/// What is learned beside the contrast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossesConfig {
    /// Image–text matching.
    pub matching: bool,
    /// Masked language modelling.
    pub masked_language: bool,
    /// Which pairs are known to match besides those of the data, in the batch and in the queue.
    pub ids: MatchIds,
}

/// Which pairs are known to match besides those of the data. What the contrast makes of them is its
/// `same_id`; as hard negatives of matching they are never drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchIds {
    /// None, as in ALBEF's pretraining.
    #[default]
    None,
    /// The captions of one image, as in its fine-tuning on retrieval.
    Image,
    /// Images whose captions say the same, which the scenes know.
    Meaning,
}

/// The momentum copy and the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MomentumConfig {
    /// What the copy keeps of its own values at each step; 0.995 in ALBEF.
    pub momentum: f64,
    /// Pairs in the queue; 65,536 in ALBEF.
    pub queue: usize,
    /// Passes over the data during which the share of soft targets rises from 0; 1 in ALBEF.
    pub ramp_epochs: f64,
    /// Passes over the data during which the weight of the queue rises from 0; 0 in ALBEF. A short
    /// training changes its features faster than a queue can follow, and would learn to tell new
    /// features from old ones.
    pub queue_ramp_epochs: f64,
}

/// Masked language modelling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskingConfig {
    /// Probability that a token is to be predicted; 0.15 in BERT.
    pub probability: f64,
    /// Share of the momentum copy's predictions in the targets; 0.4 in ALBEF.
    pub soft_targets: f64,
}

/// The frozen teacher.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// The folder of the run that trained it; null trains one first.
    pub run: Option<PathBuf>,
    /// What it is trained on, a clean data set, where it is trained first; null for the data of the
    /// run.
    pub data: Option<PathBuf>,
    /// Steps of its training, where it is trained first.
    pub steps: usize,
}

/// The settings of `albef` unless others are given.
const TINY: &str = include_str!("../../../configs/albef_tiny.json");
/// The published ones.
const BASE: &str = include_str!("../../../configs/albef_base.json");

impl AlbefConfig {
    /// The published configuration (Li et al., 2021): ViT-B/16 at 256 pixels, BERT-base, on batches
    /// of 512.
    pub fn base() -> TrainingConfig<Self> {
        TrainingConfig::embedded(BASE)
    }

    /// Whether the objective reads a teacher's features.
    pub fn needs_teacher(&self) -> bool {
        self.objective.needs().contains(&Input::TeacherImage)
    }

    /// The share of soft targets of the contrast, at the end of its ramp.
    pub(super) fn soft_targets(&self) -> f64 {
        let value = |name| match self.objective.get(name) {
            Some(Parameter::Number(value)) => Some(value),
            _ => None,
        };
        value("momentum_alpha")
            .or_else(|| value("soft_targets"))
            .unwrap_or(0.0)
    }

    /// The objective of that name in ALBEF's place: with the momentum copy's candidates and the
    /// queue, and where it has weights, ALBEF's soft targets.
    fn objective(name: &str) -> Result<Value> {
        let refused = |error| anyhow!("{error}");
        let mut config = ObjectiveConfig::named(name).map_err(refused)?;
        let is = |config: &ObjectiveConfig, name| config.get(name).is_some();
        if is(&config, "momentum") {
            for extra in ["momentum", "queue"] {
                config.set(extra, Parameter::Flag(true)).map_err(refused)?;
            }
            if config.needs().contains(&Input::TeacherImage) {
                // The weights of the paper's figures, which the literal reading does not give.
                for (extra, value) in [("soft_targets", 0.4), ("weight_temperature", 0.3)] {
                    let value = Parameter::Number(value);
                    config.set(extra, value).map_err(refused)?;
                }
            }
        }
        Ok(serde_json::to_value(config)?)
    }
}

impl AlbefModelConfig {
    /// The settings that the name of a preset is short for.
    ///
    /// # Errors
    ///
    /// If there is no such preset.
    pub fn preset(name: &str) -> Result<Value> {
        settings::tiny_or_base(
            name,
            || AlbefConfig::defaults().system.model,
            || AlbefConfig::base().system.model,
        )
    }

    /// Whether training draws dropout masks.
    pub fn has_dropout(&self) -> bool {
        self.image.dropout > 0.0 || self.bert.dropout > 0.0
    }

    /// New encoders; without the fusion layers and the language head for a teacher of the contrast.
    pub(super) fn init(&self, fusion: bool, device: &Device) -> AlbefModel {
        let mut bert = self.bert.clone();
        if !fusion {
            bert.layers -= bert.fusion_layers;
            bert.fusion_layers = 0;
        }
        let projection = |width| ProjectionHead::linear(width, self.embedding, true, device);
        AlbefModel {
            image: self.image.init(device),
            bert: bert.init(device),
            image_projection: projection(self.image.width),
            text_projection: projection(bert.width),
            language_head: fusion.then(|| bert.init_language_head(device)),
        }
    }

    /// What texts of at most `tokens` tokens may be.
    pub(super) fn text(&self, tokens: usize) -> TextLimits {
        TextLimits {
            vocabulary: self.bert.vocabulary,
            vocabulary_key: "model.bert.vocabulary",
            context: tokens,
            context_key: "tokens",
            style: TokenStyle::albef(),
        }
    }

    /// Checks that the encoders fit each other.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        self.image.check()?;
        self.bert.check()?;
        ensure!(
            self.image.width == self.bert.width,
            "image.width = {} must be bert.width = {}: fusion layers look at the image's tokens",
            self.image.width,
            self.bert.width
        );
        ensure!(
            self.image.pooling == Pooling::Token,
            "image.pooling must be \"token\": the contrast reads the image's first token"
        );
        ensure!(
            (1..=65_536).contains(&self.embedding),
            "embedding = {} must be in 1..=65536",
            self.embedding
        );
        ensure!(
            self.bert.fusion_layers > 0 && self.bert.fusion_layers < self.bert.layers,
            "bert.fusion_layers = {} must be in 1..bert.layers = {}",
            self.bert.fusion_layers,
            self.bert.layers
        );
        Ok(())
    }
}

impl SystemConfig for AlbefConfig {
    type System = Albef;

    /// Small encoders on small scenes: minutes on two CPU cores.
    fn defaults() -> TrainingConfig<Self> {
        TrainingConfig::embedded(TINY)
    }

    /// The encoders are theirs, and the optimiser that of ALBEF's fine-tuning on retrieval.
    fn started_from_published(published: &Published) -> Result<TrainingConfig<Self>> {
        published::settings(published)
    }

    fn towers() -> Towers {
        AlbefModelConfig::TOWERS
    }

    fn text_layers(&self) -> usize {
        self.model.text_layers()
    }

    /// All settings are taken over but the weights that it started from itself.
    fn started_from(earlier: &Value) -> Result<TrainingConfig<Self>> {
        TrainingConfig::from_value(earlier.clone()).context("it is no run of albef")
    }

    fn check(&self) -> Result<()> {
        self.model.check().context("model")?;
        self.objective.check()?;
        let there = [
            Input::MomentumImage,
            Input::MomentumText,
            Input::QueueImage,
            Input::QueueText,
            Input::QueueImageLabel,
            Input::QueueTextLabel,
            Input::QueueTeacherImage,
            Input::QueueTeacherText,
            Input::TeacherImage,
            Input::TeacherText,
            Input::Label,
        ];
        let inputs = self.objective.check_inputs(|input| there.contains(&input));
        inputs.map_err(|error| {
            anyhow!("objective {error}; albef gives {}", {
                let names = there.map(Input::name);
                names.join(", ")
            })
        })?;
        let MomentumConfig {
            momentum,
            queue,
            ramp_epochs,
            queue_ramp_epochs,
        } = self.momentum;
        ensure!(
            (0.0..=1.0).contains(&momentum),
            "momentum.momentum = {momentum} must be in [0, 1]"
        );
        ensure!(
            (1..=100_000_000).contains(&queue),
            "momentum.queue = {queue} must be in 1..=100000000"
        );
        for (key, epochs) in [
            ("ramp_epochs", ramp_epochs),
            ("queue_ramp_epochs", queue_ramp_epochs),
        ] {
            ensure!(
                epochs >= 0.0 && epochs.is_finite(),
                "momentum.{key} = {epochs} must be at least 0"
            );
        }
        for (key, share) in [
            ("probability", self.masking.probability),
            ("soft_targets", self.masking.soft_targets),
        ] {
            ensure!(
                (0.0..=1.0).contains(&share),
                "masking.{key} = {share} must be in [0, 1]"
            );
        }
        ensure!(self.teacher.steps > 0, "teacher.steps must be at least 1");
        let context = self.model.bert.context;
        ensure!(
            (2..=context).contains(&self.tokens),
            "tokens = {} must be in 2..=model.bert.context = {context}",
            self.tokens
        );
        ensure!(self.rerank > 0, "rerank must be at least 1");
        ensure!(
            (0.0..=1.0).contains(&self.looks.equal_meaning),
            "looks.equal_meaning = {} must be in [0, 1]",
            self.looks.equal_meaning
        );
        Ok(())
    }

    /// `model=NAME` is short for that preset's settings, `objective=NAME` for that objective's in
    /// ALBEF's place.
    fn preset(key: &str, value: &Value) -> Option<Result<Value>> {
        match (key, value) {
            ("model", Value::String(name)) => Some(AlbefModelConfig::preset(name)),
            ("objective", Value::String(name)) => Some(Self::objective(name)),
            ("objective", _) => TrainingObjective::preset(value),
            _ => None,
        }
    }

    fn rules(&self) -> InitRules {
        // Momentum copies and queues are made anew, and objectives may differ.
        InitRules {
            new: &["^momentum\\.", "^queue\\.", "^teacher\\.", "^objective\\."],
            unused: &["^momentum\\.", "^queue\\.", "^teacher\\.", "^objective\\."],
        }
    }

    fn has_dropout(&self) -> bool {
        self.model.has_dropout()
    }

    fn image_size(&self) -> usize {
        self.model.image.image_size
    }

    fn text(&self) -> TextLimits {
        self.model.text(self.tokens)
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let TeacherConfig { run, data, .. } = &mut self.teacher;
        run.iter_mut().chain(data).collect()
    }

    fn init(&self, device: &Device) -> Albef {
        Albef::new(self, device)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn_contrastive::objective::AnyConfig;

    use super::*;
    use crate::models::MatchingHead;

    #[test]
    fn the_published_configuration_has_the_published_size() {
        // Burn draws a parameter when it is first read, so that counting costs no memory.
        let config = AlbefConfig::base();
        config.with(None, &[]).unwrap();
        let AlbefConfig {
            model, objective, ..
        } = config.system;
        let device = Device::flex();
        let encoders = model.init(true, &device);
        let head = encoders.language_head.as_ref().unwrap().num_params();
        let [image, bert] = [encoders.image.num_params(), encoders.bert.num_params()];
        // "BERT-base with 123.7M parameters and ViT-B/16 with 85.8M" (Li et al., section 3.5).
        assert_eq!([image, bert + head], [85_844_736, 123_697_722]);
        let matching = MatchingHead::new(model.bert.width, &device).num_params();
        assert_eq!(encoders.num_params() + matching, 209_937_724);
        // The temperature.
        assert_eq!(objective.init(&device).num_params(), 1);
    }

    #[test]
    fn a_name_is_the_objective_in_the_place_of_albefs() {
        let with = |name: &str| {
            let pairs = [format!("objective={name}")];
            AlbefConfig::defaults().with(None, &pairs).unwrap().system
        };
        let srcl = with("srcl");
        assert!(srcl.needs_teacher());
        assert_eq!(srcl.soft_targets(), 0.4);
        assert!(srcl.objective.needs().contains(&Input::QueueTeacherText));
        let AnyConfig::Srcl(config) = &srcl.objective.kind else {
            panic!("it is SRCL");
        };
        assert_eq!(config.regulation.weight_temperature, 0.3);

        let plain = with("info-nce");
        assert!(!plain.needs_teacher());
        assert_eq!(plain.soft_targets(), 0.0);
        assert!(plain.objective.needs().contains(&Input::MomentumImage));
        assert_eq!(with("image-text-contrastive").soft_targets(), 0.4);
    }
}
