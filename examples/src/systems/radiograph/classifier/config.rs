//! The settings of [`Classifier`].

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Classifier;
use crate::data::{FindingsConfig, TokenStyle};
use crate::models::ResNetConfig;
use crate::systems::radiograph::RadiographConfig;
use crate::training::config::TrainingConfig;
use crate::training::system::{InitRules, SystemConfig, TextLimits, Towers};

/// The settings of linear evaluation, over those of the run that it starts from.
pub const LINEAR: &str = include_str!("../../../../configs/radiograph_linear.json");
/// The settings of fine-tuning, likewise.
pub const FINETUNE: &str = include_str!("../../../../configs/radiograph_finetune.json");

/// The settings of [`Classifier`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// The image encoder, that of the run it starts from.
    pub image: ResNetConfig,
    /// What is trained.
    pub trained: TrainedPart,
    /// Classes, as many as the studies name.
    pub classes: usize,
    /// Share of the training studies whose labels are used: 0.01, 0.1 and 1 (section 4.3). Which
    /// ones, the seed decides; a larger share has all of a smaller one.
    pub labels: f64,
    /// What studies to generate where `data.path` is null.
    pub findings: FindingsConfig,
    /// Room of the tokenizer's vocabulary: that of the run it starts from goes with this one.
    pub vocabulary: usize,
    /// Longest sentence of that run in tokens.
    pub tokens: usize,
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainedPart {
    /// The linear layer, on features by the running statistics: linear evaluation.
    Head,
    /// Everything: fine-tuning.
    All,
}

impl ClassifierConfig {
    fn of(earlier: TrainingConfig<RadiographConfig>) -> TrainingConfig<Self> {
        let RadiographConfig {
            model,
            tokens,
            findings,
            ..
        } = earlier.system;
        let system = Self {
            image: model.image,
            trained: TrainedPart::Head,
            classes: crate::data::findings::Finding::ALL.len(),
            labels: 1.0,
            findings,
            vocabulary: model.bert.vocabulary,
            tokens,
        };
        let mut shared = earlier.shared;
        shared.init = None;
        // Those of the text encoder.
        shared.optimizer.groups = Vec::new();
        TrainingConfig { system, shared }.overlaid(LINEAR)
    }
}

impl SystemConfig for ClassifierConfig {
    type System = Classifier;

    /// Linear evaluation of a small encoder on small generated studies.
    fn defaults() -> TrainingConfig<Self> {
        Self::of(RadiographConfig::defaults())
    }

    /// The encoder, the data and how they are read are those of the earlier run.
    fn started_from(earlier: &Value) -> Result<TrainingConfig<Self>> {
        let earlier = TrainingConfig::<RadiographConfig>::from_value(earlier.clone());
        let earlier = earlier.context(
            "that is no run of `radiograph`, whose image encoder `linear` and `finetune` measure",
        )?;
        Ok(Self::of(earlier))
    }

    fn towers() -> Towers {
        Towers {
            image: Some("model.image"),
            ..Towers::default()
        }
    }

    fn check(&self) -> Result<()> {
        self.image.check()?;
        if self.trained == TrainedPart::All {
            self.image.check_trained()?;
        }
        ensure!(
            (1..=100_000).contains(&self.classes),
            "classes = {} must be in 1..=100000",
            self.classes
        );
        ensure!(
            self.labels > 0.0 && self.labels <= 1.0,
            "labels = {} must be in (0, 1]",
            self.labels
        );
        self.findings.check().context("findings")
    }

    fn rules(&self) -> InitRules {
        InitRules {
            new: &["^head\\."],
            unused: &[
                "^model\\.(bert|image_projection|text_projection)\\.",
                "^objective\\.",
            ],
        }
    }

    fn has_dropout(&self) -> bool {
        false
    }

    fn image_size(&self) -> usize {
        self.image.image_size
    }

    fn text(&self) -> TextLimits {
        TextLimits {
            vocabulary: self.vocabulary,
            vocabulary_key: "vocabulary",
            context: self.tokens,
            context_key: "tokens",
            style: TokenStyle::default(),
        }
    }

    fn init(&self, device: &Device) -> Classifier {
        Classifier::new(self, device)
    }
}
