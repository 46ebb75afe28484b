//! One serialisable configuration of everything that decides a run's results.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use burn::tensor::Device;
use burn_contrastive::objective::InfoNceConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::objective::TrainingObjective;
use super::optimizer::OptimizerConfig;
use super::schedule::ScheduleConfig;
use super::settings;
use super::sharding::{Division, ShardingConfig};
use crate::data::{LoaderConfig, ScenesConfig, TokenizerConfig, TransformConfig};
use crate::files;
use crate::models::{DualEncoderConfig, PRESETS};

/// Everything that decides a run's results, except the device and the number of threads.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Decides the initial parameters, the order of the data, its augmentation and dropout.
    pub seed: u64,
    /// The data and how it reaches the model.
    pub data: DataConfig,
    /// The two encoders; the name of a preset is short for its settings.
    pub model: DualEncoderConfig,
    /// The objective; its name is short for its settings.
    pub objective: TrainingObjective,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// Length and learning rate.
    pub schedule: ScheduleConfig,
    /// Batches a step: their losses and gradients are averaged. The negatives of a pair are those
    /// of its own batch.
    pub accumulation: usize,
    /// How a batch is divided to be encoded: in less memory, or on several cores. One loss sees all
    /// of its pairs, whatever the shards.
    pub sharding: ShardingConfig,
    /// When to validate.
    pub validation: ValidationConfig,
    /// When to save.
    pub checkpoints: CheckpointConfig,
}

/// The data and how it reaches the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A Karpathy folder, or a table of image path and caption; null generates scenes.
    pub path: Option<PathBuf>,
    /// Whether bad rows and images are left out rather than refused.
    pub skip_bad: bool,
    /// What scenes to generate.
    pub scenes: ScenesConfig,
    /// A `tokenizer.json` to use; null trains one on the training captions.
    pub tokenizer: Option<PathBuf>,
    /// Pairs a batch.
    pub batch_size: usize,
    /// Share of a batch's pairs that share their meaning with another pair of it.
    pub equal_meaning: f64,
    /// Smallest and largest share of an image's area that a random crop keeps.
    pub crop_scale: [f64; 2],
    /// Smallest and largest width of a random crop divided by its height.
    pub crop_ratio: [f64; 2],
    /// Probability of mirroring a training image; captions that speak of left and right forbid it.
    pub flip: f64,
    /// Mean of each channel, subtracted.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, divided by.
    pub std: [f32; 3],
}

/// When to validate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// Steps from one validation to the next; 0 validates after the last step only.
    pub every: usize,
}

/// When to save.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Steps from one checkpoint to the next; 0 saves after the last step and on interruption only.
    pub every: usize,
    /// How many to keep.
    pub keep: usize,
}

impl Default for TrainingConfig {
    /// A small model on small scenes: minutes on two CPU cores.
    fn default() -> Self {
        Self {
            seed: 0,
            data: DataConfig::default(),
            model: DualEncoderConfig::tiny(),
            objective: TrainingObjective::InfoNce(InfoNceConfig::new()),
            optimizer: OptimizerConfig {
                learning_rate: 1e-3,
                weight_decay: 0.1,
                beta_1: 0.9,
                beta_2: 0.98,
                epsilon: 1e-6,
                max_grad_norm: Some(1.0),
            },
            schedule: ScheduleConfig {
                steps: 300,
                epochs: None,
                warmup_steps: 30,
                final_fraction: 0.0,
            },
            accumulation: 1,
            sharding: ShardingConfig::default(),
            validation: ValidationConfig { every: 50 },
            checkpoints: CheckpointConfig {
                every: 100,
                keep: 2,
            },
        }
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        let TransformConfig {
            crop_scale,
            crop_ratio,
            flip,
            mean,
            std,
            ..
        } = TransformConfig::default();
        Self {
            path: None,
            skip_bad: false,
            scenes: ScenesConfig::default(),
            tokenizer: None,
            batch_size: 128,
            equal_meaning: 0.0,
            crop_scale,
            crop_ratio,
            flip,
            mean,
            std,
        }
    }
}

impl TrainingConfig {
    /// How images become tensors of the model's size.
    pub fn transform(&self) -> TransformConfig {
        let DataConfig {
            crop_scale,
            crop_ratio,
            flip,
            mean,
            std,
            ..
        } = self.data;
        TransformConfig {
            size: self.model.image.image_size as u32,
            crop_scale,
            crop_ratio,
            flip,
            mean,
            std,
            ..TransformConfig::default()
        }
    }

    /// How captions become tokens that the model has room for.
    pub fn tokenizer(&self) -> TokenizerConfig {
        TokenizerConfig {
            vocab_size: self.model.text.vocabulary,
            context_length: self.model.text.context,
            ..TokenizerConfig::default()
        }
    }

    /// How pairs become batches for `device`, with that many threads that decode images; of the
    /// batches, the part of that worker.
    pub fn loader(&self, workers: usize, device: &Device, part: [usize; 2]) -> LoaderConfig {
        LoaderConfig {
            batch_size: self.data.batch_size,
            shard: self.division(device, part[1]).pairs,
            part,
            workers,
            prefetch: self.transform().prefetch(workers),
            seed: self.seed,
            equal_meaning: self.data.equal_meaning,
        }
    }

    /// How one of that many workers divides and encodes its part of a batch on `device`.
    pub fn division(&self, device: &Device, workers: usize) -> Division {
        let (batch_size, dropout) = (self.data.batch_size / workers, self.model.has_dropout());
        self.sharding.division(batch_size, dropout, device)
    }

    /// The defaults, with the settings of `file` and then each `key=value` of `pairs` laid over
    /// them.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, on an unknown key (the message names the nearest one), a value
    /// of another kind, or values that do not fit together.
    pub fn load(file: Option<&Path>, pairs: &[String]) -> Result<Self> {
        Self::default().with(file, pairs)
    }

    /// This configuration with the settings of `file` and then each `key=value` of `pairs` laid
    /// over it.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn with(&self, file: Option<&Path>, pairs: &[String]) -> Result<Self> {
        let mut value = serde_json::to_value(self)?;
        if let Some(path) = file {
            let name = || format!("--config {}", path.display());
            let text = fs::read_to_string(path).with_context(name)?;
            settings::apply_file(&mut value, &text, &preset).with_context(name)?;
        }
        for pair in pairs {
            settings::apply_pair(&mut value, pair, &preset).context("--set")?;
        }
        let config: Self =
            serde_path_to_error::deserialize(value).context("the configuration is not valid")?;
        config.check().context("the configuration is not valid")?;
        Ok(config)
    }

    /// The configuration saved in a run's folder.
    ///
    /// # Errors
    ///
    /// If the file is missing or is not a configuration of this program.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("there is no run to read: {}", path.display()))?;
        let name = || format!("{} is not a configuration of this program", path.display());
        let value: Value = serde_json::from_str(&text).with_context(name)?;
        serde_path_to_error::deserialize(value).with_context(name)
    }

    /// Saves this configuration.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        files::write(path, text.as_bytes())
    }

    fn check(&self) -> Result<()> {
        self.model.check().context("model")?;
        let Self {
            optimizer,
            schedule,
            ..
        } = self;
        for (key, value) in [
            ("schedule.steps", schedule.steps),
            ("accumulation", self.accumulation),
            ("checkpoints.keep", self.checkpoints.keep),
        ] {
            ensure!(value > 0, "{key} must be at least 1");
        }
        ensure!(
            schedule.epochs != Some(0),
            "schedule.epochs must be at least 1, or null"
        );
        ensure!(
            self.data.batch_size > 1,
            "data.batch_size must be at least 2: the other pairs of a batch are the negatives",
        );
        ensure!(
            optimizer.learning_rate.is_finite() && optimizer.learning_rate > 0.0,
            "optimizer.learning_rate = {} must be positive",
            optimizer.learning_rate,
        );
        ensure!(
            optimizer.max_grad_norm.is_none_or(|norm| norm > 0.0),
            "optimizer.max_grad_norm must be positive, or null for no clipping",
        );
        for (key, beta) in [("beta_1", optimizer.beta_1), ("beta_2", optimizer.beta_2)] {
            ensure!(
                (0.0..1.0).contains(&beta),
                "optimizer.{key} = {beta} must be in [0, 1)"
            );
        }
        ensure!(
            optimizer.epsilon.is_finite() && optimizer.epsilon > 0.0,
            "optimizer.epsilon = {} must be positive",
            optimizer.epsilon,
        );
        ensure!(
            optimizer.weight_decay.is_finite() && optimizer.weight_decay >= 0.0,
            "optimizer.weight_decay = {} must be at least 0",
            optimizer.weight_decay,
        );
        ensure!(
            (0.0..=1.0).contains(&schedule.final_fraction),
            "schedule.final_fraction = {} must be in [0, 1]",
            schedule.final_fraction,
        );
        self.objective.check()?;
        self.sharding.check(self.model.has_dropout())?;
        if self.data.path.is_none() {
            self.data.scenes.check().context("data.scenes")?;
        }
        self.transform().validate().context("data")
    }
}

/// `model=NAME` is short for that preset's settings, `objective=NAME` for that objective's.
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
        "objective" => TrainingObjective::preset(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
