//! The settings of [`Nlvr`].

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Nlvr;
use super::assignment::TextAssignmentConfig;
use crate::models::TwinFusion;
use crate::systems::albef::config::{AlbefConfig, AlbefModelConfig};
use crate::systems::albef::distillation::DistillationConfig;
use crate::training::config::TrainingConfig;
use crate::training::folder::TOKENIZER_FILE;
use crate::training::system::{InitRules, SystemConfig, TextLimits, Towers};

/// The settings of [`Nlvr`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NlvrConfig {
    /// The encoders, those of the pretraining; the name of a preset is short for its settings.
    pub model: AlbefModelConfig,
    /// The momentum copy and its share in the targets.
    pub distillation: DistillationConfig,
    /// Text assignment, which comes before.
    pub assignment: AssignmentConfig,
    /// The most tokens of a statement or a caption, `[CLS]` included.
    pub tokens: usize,
}

/// Text assignment, which comes before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssignmentConfig {
    /// Captioned images to train on, those of the pretraining in ALBEF; null for the scenes, where
    /// the statements are about scenes, and else leaves it out.
    pub data: Option<PathBuf>,
    /// Steps to train for; 0 leaves it out.
    pub steps: usize,
    /// Passes over the captioned images, 1 in ALBEF; where given, it takes the place of `steps`.
    pub epochs: Option<usize>,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Captioned images a batch.
    pub batch_size: usize,
    /// Height and width of the images, in pixels, 256 in ALBEF; null for that of the statements.
    pub image_size: Option<usize>,
}

/// The settings of `albef nlvr2` unless others are given, over those of `albef`.
const TINY: &str = include_str!("../../../../configs/albef_tiny_nlvr2.json");
/// The published ones, over those of a pretrained run.
#[cfg(test)]
pub(super) const BASE: &str = include_str!("../../../../configs/albef_base_nlvr2.json");

impl AssignmentConfig {
    /// Whether there is none.
    pub(super) fn is_left_out(&self) -> bool {
        self.epochs.unwrap_or(self.steps) == 0
    }

    fn check(&self) -> Result<()> {
        let rate = self.learning_rate;
        ensure!(
            rate.is_finite() && rate > 0.0,
            "assignment.learning_rate = {rate} must be positive"
        );
        ensure!(
            self.batch_size > 1,
            "assignment.batch_size must be at least 2: the other images of a batch are the negatives"
        );
        Ok(())
    }
}

/// Checks the encoders, and that they have room for so many tokens.
pub(super) fn check_encoders(model: &AlbefModelConfig, tokens: usize) -> Result<()> {
    model.check().context("model")?;
    let context = model.bert.context;
    ensure!(
        (2..=context).contains(&tokens),
        "tokens = {tokens} must be in 2..=model.bert.context = {context}"
    );
    Ok(())
}

/// The path of a pretrained parameter in a [`TwinEncoder`](super::TwinEncoder): the layers of its
/// fusion become twins.
pub(super) fn renamed(path: &str) -> Vec<String> {
    const FUSION: &str = "model.bert.fusion.";
    match path.strip_prefix(FUSION) {
        Some(inner) if inner.starts_with("layers.") => {
            let paths = TwinFusion::paths_of(inner).into_iter();
            paths.map(|path| format!("{FUSION}{path}")).collect()
        }
        _ => vec![path.to_string()],
    }
}

impl NlvrConfig {
    /// How text assignment is trained before this, in the folder `run`; `None` where there is none.
    pub(super) fn of_assignment(
        config: &TrainingConfig<Self>,
        run: &Path,
    ) -> Option<TrainingConfig<TextAssignmentConfig>> {
        let NlvrConfig {
            model,
            assignment,
            tokens,
            ..
        } = &config.system;
        let has_captions = assignment.data.is_some() || config.shared.data.path.is_none();
        if assignment.is_left_out() || !has_captions {
            return None;
        }
        let mut model = model.clone();
        if let Some(size) = assignment.image_size {
            model.image.image_size = size;
        }
        let mut shared = config.shared.clone();
        shared.data.path = assignment.data.clone();
        shared.data.batch_size = assignment.batch_size;
        // A caption must not describe its negatives.
        shared.data.equal_meaning = 0.0;
        let tokenizer = &mut shared.data.tokenizer;
        tokenizer.get_or_insert_with(|| run.join(TOKENIZER_FILE));
        shared.optimizer.learning_rate = assignment.learning_rate;
        let schedule = &mut shared.schedule;
        // Not used where epochs are given, but never 0.
        schedule.steps = assignment.steps.max(1);
        schedule.epochs = assignment.epochs;
        if schedule.epochs.is_none() {
            schedule.warmup_steps = schedule.warmup_steps.min(assignment.steps / 10);
        }
        Some(TrainingConfig {
            system: TextAssignmentConfig {
                model,
                tokens: *tokens,
            },
            shared,
        })
    }
}

impl SystemConfig for NlvrConfig {
    type System = Nlvr;

    /// Small encoders on statements about small scenes: minutes on two CPU cores.
    fn defaults() -> TrainingConfig<Self> {
        let TrainingConfig { system, shared } = AlbefConfig::defaults();
        let system = Self {
            model: system.model,
            tokens: system.tokens,
            distillation: DistillationConfig::default(),
            assignment: AssignmentConfig::default(),
        };
        TrainingConfig { system, shared }.overlaid(TINY)
    }

    fn towers() -> Towers {
        Towers {
            image: Some("model.image"),
            ..Towers::default()
        }
    }

    fn check(&self) -> Result<()> {
        check_encoders(&self.model, self.tokens)?;
        let mut assigned = self.model.clone();
        if let Some(size) = self.assignment.image_size {
            assigned.image.image_size = size;
        }
        assigned.check().context("assignment.image_size")?;
        self.distillation.check()?;
        self.assignment.check()
    }

    fn preset(key: &str, value: &Value) -> Option<Result<Value>> {
        let name = (key == "model").then_some(key)?;
        AlbefConfig::preset(name, value)
    }

    /// The encoders, what a text may be, how pixels are normalised, the scenes, and the captioned
    /// images for text assignment are those of the pretraining.
    fn started_from(earlier: &Value) -> Result<TrainingConfig<Self>> {
        let earlier = TrainingConfig::<AlbefConfig>::from_value(earlier.clone());
        let earlier = earlier.context(
            "that is no run of `albef`, from whose pretrained weights `albef nlvr2` starts",
        )?;
        let mut config = Self::defaults();
        let (system, data) = (&mut config.system, &mut config.shared.data);
        system.model = earlier.system.model;
        system.tokens = earlier.system.tokens;
        system.assignment.data = earlier.shared.data.path;
        data.scenes = earlier.shared.data.scenes;
        data.mean = earlier.shared.data.mean;
        data.std = earlier.shared.data.std;
        Ok(config)
    }

    fn rules(&self) -> InitRules {
        InitRules {
            new: &["^head\\.", "^momentum\\."],
            // Of the pretraining, or of text assignment.
            unused: &[
                "^model\\.(image_projection|text_projection|language_head)\\.",
                "^(momentum|queue|teacher|objective|matching_head|assignment_head|image_projection)\\.",
            ],
        }
    }

    fn renamed(&self, path: &str) -> Vec<String> {
        renamed(path)
    }

    fn has_dropout(&self) -> bool {
        self.model.image.dropout > 0.0 || self.model.bert.dropout > 0.0
    }

    fn image_size(&self) -> usize {
        self.model.image.image_size
    }

    fn text(&self) -> TextLimits {
        self.model.text(self.tokens)
    }

    fn init(&self, device: &Device) -> Nlvr {
        Nlvr::new(self, device)
    }
}
