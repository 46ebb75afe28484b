//! The settings of [`Radiograph`].

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use burn_contrastive::objective::InfoNceConfig;
use burn_contrastive::similarity::LogitScaleConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Radiograph, RadiographModel, SentenceEncoder};
use crate::data::{FindingsConfig, TokenStyle};
use crate::models::{BertConfig, ProjectionHead, ResNetConfig};
use crate::training::config::TrainingConfig;
use crate::training::objective::TrainingObjective;
use crate::training::settings;
use crate::training::system::{InitRules, SystemConfig, TextLimits, Towers};

/// The settings of [`Radiograph`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RadiographConfig {
    /// The encoders; the name of a preset is short for its settings.
    pub model: RadiographModelConfig,
    /// The objective; its name is short for its settings.
    pub objective: TrainingObjective,
    /// The most tokens of a sentence, special ones included.
    pub tokens: usize,
    /// What studies to generate where `data.path` is null.
    pub findings: FindingsConfig,
    /// The file of queries and candidates by class; null for `retrieval.json` beside the studies,
    /// if there is one.
    pub retrieval: Option<PathBuf>,
}

/// Shape of the encoders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RadiographModelConfig {
    /// The image encoder.
    pub image: ResNetConfig,
    /// The sentence encoder.
    pub bert: BertConfig,
    /// How a sentence's states become one vector.
    pub pooling: SentencePooling,
    /// Width of the space of the contrast, and of the layer before it; 512 (section 4.1).
    pub embedding: usize,
}

/// How a sentence's states become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SentencePooling {
    /// The state of the first token, `[CLS]`.
    Token,
    /// The greatest of each value over the tokens that are not padding, as in ConVIRT.
    Max,
}

/// The settings of `radiograph` unless others are given.
const TINY: &str = include_str!("../../../configs/radiograph_tiny.json");
/// The published ones.
const BASE: &str = include_str!("../../../configs/radiograph_base.json");

/// Temperature of ConVIRT's InfoNCE, which is not learned.
const TEMPERATURE: f64 = 0.1;
/// Weight of ConVIRT's direction from image to text.
const IMAGE_TO_TEXT: f64 = 0.75;

impl RadiographConfig {
    /// The published configuration (Lin et al., section 4.1): ResNet-50 at 224 pixels and a
    /// BERT-base whose embeddings and first six layers are frozen, on batches of 64.
    pub fn base() -> TrainingConfig<Self> {
        TrainingConfig::embedded(BASE)
    }
}

impl RadiographModelConfig {
    /// Checks every size.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        self.image.check()?;
        self.image.check_trained()?;
        self.bert.check()?;
        ensure!(
            self.bert.fusion_layers == 0,
            "bert.fusion_layers = {} must be 0: no layer looks at an image",
            self.bert.fusion_layers
        );
        ensure!(
            (1..=65_536).contains(&self.embedding),
            "embedding = {} must be in 1..=65536",
            self.embedding
        );
        Ok(())
    }

    fn preset(name: &str) -> Result<Value> {
        settings::tiny_or_base(
            name,
            || RadiographConfig::defaults().system.model,
            || RadiographConfig::base().system.model,
        )
    }

    /// New encoders.
    pub(super) fn init(&self, device: &Device) -> RadiographModel {
        let bert = self.bert.init(device);
        let head = |width| ProjectionHead::mlp(width, self.embedding, self.embedding, device);
        RadiographModel {
            image: self.image.init(device),
            bert: SentenceEncoder {
                embeddings: bert.embeddings,
                text: bert.text,
                pooling: self.pooling,
            },
            image_projection: head(self.image.features()),
            text_projection: head(self.bert.width),
        }
    }

    /// What sentences of at most `tokens` tokens may be.
    pub(super) fn text(&self, tokens: usize) -> TextLimits {
        TextLimits {
            vocabulary: self.bert.vocabulary,
            vocabulary_key: "model.bert.vocabulary",
            context: tokens,
            context_key: "tokens",
            style: TokenStyle::default(),
        }
    }

    /// Checks that there is room for so many tokens.
    pub(super) fn check_tokens(&self, tokens: usize) -> Result<()> {
        let context = self.bert.context;
        ensure!(
            (2..=context).contains(&tokens),
            "tokens = {tokens} must be in 2..=model.bert.context = {context}"
        );
        Ok(())
    }
}

impl SystemConfig for RadiographConfig {
    type System = Radiograph;

    /// Small encoders on small generated studies: minutes on two CPU cores.
    fn defaults() -> TrainingConfig<Self> {
        TrainingConfig::embedded(TINY)
    }

    /// All settings are taken over but the weights that it started from itself.
    fn started_from(earlier: &Value) -> Result<TrainingConfig<Self>> {
        TrainingConfig::from_value(earlier.clone()).context("it is no run of radiograph")
    }

    fn towers() -> Towers {
        Towers {
            image: Some("model.image"),
            text: Some("model.bert"),
            language_head: None,
        }
    }

    fn check(&self) -> Result<()> {
        self.model.check().context("model")?;
        self.objective.check()?;
        self.model.check_tokens(self.tokens)?;
        self.findings.check().context("findings")
    }

    /// `model=NAME` is short for that preset's settings, `objective=NAME` for that objective's;
    /// `info-nce` is ConVIRT's.
    fn preset(key: &str, value: &Value) -> Option<Result<Value>> {
        match (key, value) {
            ("model", Value::String(name)) => Some(RadiographModelConfig::preset(name)),
            ("objective", Value::String(name)) if name == "info-nce" => {
                let config = InfoNceConfig::new()
                    .with_logit_scale(LogitScaleConfig::fixed(TEMPERATURE))
                    .with_image_to_text_weight(IMAGE_TO_TEXT);
                Some(serde_json::to_value(config).map_err(Into::into))
            }
            ("objective", _) => TrainingObjective::preset(value),
            _ => None,
        }
    }

    fn rules(&self) -> InitRules {
        // Objectives may differ.
        InitRules {
            new: &["^objective\\."],
            unused: &["^objective\\."],
        }
    }

    fn has_dropout(&self) -> bool {
        self.model.bert.dropout > 0.0
    }

    fn image_size(&self) -> usize {
        self.model.image.image_size
    }

    fn text(&self) -> TextLimits {
        self.model.text(self.tokens)
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        self.retrieval.iter_mut().collect()
    }

    fn init(&self, device: &Device) -> Radiograph {
        Radiograph {
            model: self.model.init(device),
            objective: self.objective.init(device),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::Tensor;

    use super::*;
    use crate::training::system::System;

    #[test]
    fn the_published_configuration_has_the_published_size() {
        let config = RadiographConfig::base();
        config.with(None, &[]).unwrap();
        let system = config.system.init(&Device::flex());
        // torchvision's ResNet-50 without its classifier; BERT-base, cased, without its pooler.
        assert_eq!(system.parts()[0], ("image encoder", 25_557_032 - 2_049_000));
        let model = system.model;
        assert_eq!(model.bert.num_params(), 108_310_272 - 590_592);
        let heads = [&model.image_projection, &model.text_projection].map(Module::num_params);
        let head = |width: usize| (width + 1) * 512 + 513 * 512;
        assert_eq!(heads, [head(2048), head(768)]);
    }

    #[test]
    fn the_published_configuration_freezes_embeddings_and_the_lower_half_of_the_layers() {
        let config = RadiographConfig::base();
        let mut model = RadiographConfig::defaults().system.model;
        (model.bert.layers, model.bert.width) = (12, 8);
        let model = model.init(&Device::flex().autodiff());
        let model = Holder { model };
        let frozen = config.shared.optimizer.freeze(model).model;
        let trains = |module: &dyn Fn(&mut Counted)| {
            let mut counted = Counted::default();
            module(&mut counted);
            counted
        };
        let embeddings = trains(&|counted| frozen.bert.embeddings.visit(counted));
        assert_eq!((embeddings.trained, embeddings.all), (0, 5));
        let layers = trains(&|counted| frozen.bert.text.visit(counted));
        assert_eq!(2 * layers.trained, layers.all);
        assert!(layers.all > 100);
        let heads = trains(&|counted| frozen.text_projection.visit(counted));
        assert_eq!(heads.trained, heads.all);
    }

    /// A model at the path that it has in the system.
    #[derive(Module, Debug)]
    struct Holder {
        model: RadiographModel,
    }

    /// Parameters, and those of them that train.
    #[derive(Default)]
    struct Counted {
        trained: usize,
        all: usize,
    }

    impl ModuleVisitor for Counted {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.all += 1;
            self.trained += usize::from(param.is_require_grad());
        }
    }

    #[test]
    fn info_nce_by_name_is_that_of_convirt_and_the_others_are_the_papers() {
        let with = |name: &str| {
            let pairs = [format!("objective={name}")];
            let config = RadiographConfig::defaults().with(None, &pairs);
            config.unwrap().system.objective
        };
        let TrainingObjective::InfoNce(config) = with("info-nce") else {
            panic!("it is InfoNCE with all its settings");
        };
        assert_eq!(config.image_to_text_weight, 0.75);
        assert_eq!(config.logit_scale, LogitScaleConfig::fixed(0.1));
        for name in ["reco", "orthogonality", "barlow-twins"] {
            let TrainingObjective::Named(config) = with(name) else {
                panic!("{name} is an objective by name");
            };
            assert_eq!(config.name(), name);
        }
        let pairs = ["objective.lambda=0.3".to_string()];
        let config = RadiographConfig::defaults().with(None, &pairs).unwrap();
        let TrainingObjective::Named(config) = config.system.objective else {
            panic!("the default is ReCo");
        };
        let lambda = config.get("lambda");
        assert_eq!(
            lambda,
            Some(burn_contrastive::objective::Value::Number(0.3))
        );
    }
}
