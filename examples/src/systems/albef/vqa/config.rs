//! The settings of [`Vqa`].

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Vqa;
use crate::published::Published;
use crate::systems::albef::distillation::DistillationConfig;
use crate::systems::albef::{AlbefConfig, AlbefModelConfig, published};
use crate::training::config::{SharedConfig, TrainingConfig};
use crate::training::system::{InitRules, SystemConfig, TextLimits, Towers};

/// The settings of [`Vqa`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqaConfig {
    /// The encoders; the name of a preset is short for its settings.
    pub model: AlbefModelConfig,
    /// From what the decoder of the answers starts.
    pub decoder: DecoderStart,
    /// The momentum copy, whose predictions are a part of the targets.
    pub distillation: DistillationConfig,
    /// The most tokens of a question, `[CLS]` included; 25 in ALBEF.
    pub tokens: usize,
    /// Answers of the list that are compared by their whole likelihood: those whose first tokens
    /// are the most likely; 128 in ALBEF.
    pub answers: usize,
    /// The most questions that a validation answers.
    pub validation_questions: usize,
}

/// From what the decoder of the answers starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecoderStart {
    /// From the embeddings, the fusion layers and the language head, as in ALBEF.
    Fusion,
    /// From the decoder of the run that it starts from, which has learned to answer.
    Decoder,
}

/// What differs from the settings of `albef`: minutes on two CPU cores.
const TINY: &str = include_str!("../../../../configs/albef_tiny_vqa.json");

impl VqaConfig {
    /// Settings for the encoders of a pretraining, with the published values of everything else.
    fn of(model: AlbefModelConfig, tokens: usize) -> Self {
        Self {
            model,
            decoder: DecoderStart::Fusion,
            distillation: DistillationConfig {
                momentum: 0.995,
                soft_targets: 0.4,
                ramp_epochs: 1.0,
            },
            tokens,
            answers: 128,
            validation_questions: 5000,
        }
    }

    /// With the settings of a file that is part of this program.
    fn overlaid(system: Self, shared: SharedConfig) -> TrainingConfig<Self> {
        TrainingConfig { system, shared }.overlaid(TINY)
    }
}

impl SystemConfig for VqaConfig {
    type System = Vqa;

    /// Small encoders on questions about small scenes.
    fn defaults() -> TrainingConfig<Self> {
        let TrainingConfig { system, shared } = AlbefConfig::defaults();
        Self::overlaid(Self::of(system.model, system.tokens), shared)
    }

    /// Of a run of `albef`, the encoders and how they read images and sentences, and the scenes; of
    /// a run of `albef vqa` everything but the weights that it started from itself.
    fn started_from(earlier: &Value) -> Result<TrainingConfig<Self>> {
        if let Ok(mut own) = TrainingConfig::<Self>::from_value(earlier.clone()) {
            own.system.decoder = DecoderStart::Decoder;
            return Ok(own);
        }
        let earlier = TrainingConfig::<AlbefConfig>::from_value(earlier.clone())
            .context("it is neither a run of `albef` nor one of `albef vqa`")?;
        let mut config = Self::defaults();
        config.system.model = earlier.system.model;
        config.system.tokens = earlier.system.tokens;
        let (data, read) = (&mut config.shared.data, earlier.shared.data);
        data.scenes = read.scenes;
        (data.mean, data.std) = (read.mean, read.std);
        Ok(config)
    }

    /// The encoders are theirs.
    fn started_from_published(published: &Published) -> Result<TrainingConfig<Self>> {
        let mut config = Self::defaults();
        let system = &mut config.system;
        system.model = published::model::<Self>(published)?;
        // An answer has one token more than its tokenizer gives.
        system.tokens = system
            .tokens
            .min(system.model.bert.context.saturating_sub(1));
        Ok(config)
    }

    fn towers() -> Towers {
        AlbefModelConfig::TOWERS
    }

    fn text_layers(&self) -> usize {
        self.model.text_layers()
    }

    fn check(&self) -> Result<()> {
        self.model.check().context("model")?;
        self.distillation.check()?;
        // An answer has one token more than its tokenizer gives, for its end.
        let most = self.model.bert.context.saturating_sub(1);
        ensure!(
            (2..=most).contains(&self.tokens),
            "tokens = {} must be in 2..={most}, less than model.bert.context",
            self.tokens
        );
        for (key, count) in [
            ("answers", self.answers),
            ("validation_questions", self.validation_questions),
        ] {
            ensure!(count > 0, "{key} must be at least 1");
        }
        Ok(())
    }

    fn preset(key: &str, value: &Value) -> Option<Result<Value>> {
        let name = value.as_str()?;
        (key == "model").then(|| AlbefModelConfig::preset(name))
    }

    fn rules(&self) -> InitRules {
        // Momentum copies are made anew, and so is a decoder of fusion layers.
        match self.decoder {
            DecoderStart::Fusion => InitRules {
                new: &["^decoder\\.", "^momentum"],
                unused: &[
                    "^decoder\\.",
                    "^momentum",
                    "^queue\\.",
                    "^teacher\\.",
                    "^objective\\.",
                    "^matching_head\\.",
                    // As ALBEF's own code calls it.
                    "^itm_head\\.",
                ],
            },
            DecoderStart::Decoder => InitRules {
                new: &["^momentum"],
                unused: &["^momentum"],
            },
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

    fn init(&self, device: &Device) -> Vqa {
        Vqa::new(self, device)
    }
}
