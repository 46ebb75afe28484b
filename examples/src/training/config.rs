//! One serialisable configuration of everything that decides a run's results.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::optimizer::OptimizerConfig;
use super::schedule::ScheduleConfig;
use super::settings;
use super::sharding::{Division, ShardingConfig};
use super::system::SystemConfig;
use super::weights::InitConfig;
use crate::data::{
    LoaderConfig, RandAugmentConfig, ScenesConfig, TokenizerConfig, TransformConfig,
};
use crate::files;

/// Everything that decides a run's results, except the device and the number of threads: the
/// settings that all systems share, and those of one system, `C`. In JSON both stand side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingConfig<C> {
    /// The system's own settings: its models and objectives.
    pub system: C,
    /// What is the same for all systems.
    pub shared: SharedConfig,
}

/// The settings that are the same for all systems.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedConfig {
    /// Decides the initial parameters, the order of the data, its augmentation and dropout.
    pub seed: u64,
    /// The weights that it starts from, or a list of several, each for its part; null starts from
    /// new ones.
    #[serde(default)]
    pub init: Option<InitConfig>,
    /// The data and how it reaches the model.
    pub data: DataConfig,
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
    /// A Karpathy folder, a table of image path and caption, or shards; null generates scenes.
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
    /// Pairs of which batches are made at a time, in the order of their shards; null makes them of
    /// all pairs, or of 10,000 where the images lie in shards.
    #[serde(default)]
    pub shuffle_buffer: Option<usize>,
    /// Smallest and largest share of an image's area that a random crop keeps.
    pub crop_scale: [f64; 2],
    /// Smallest and largest width of a random crop divided by its height.
    pub crop_ratio: [f64; 2],
    /// Probability of mirroring a training image; captions that speak of left and right forbid it.
    pub flip: f64,
    /// RandAugment of training images after crop and flip; null for none.
    #[serde(default)]
    pub rand_augment: Option<RandAugmentConfig>,
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

impl Default for SharedConfig {
    /// A few hundred steps on small scenes.
    fn default() -> Self {
        Self {
            seed: 0,
            init: None,
            data: DataConfig::default(),
            optimizer: OptimizerConfig {
                learning_rate: 1e-3,
                weight_decay: 0.1,
                decoupled: true,
                beta_1: 0.9,
                beta_2: 0.98,
                epsilon: 1e-6,
                max_grad_norm: Some(1.0),
                groups: Vec::new(),
            },
            schedule: ScheduleConfig::default(),
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
            rand_augment,
            ..
        } = TransformConfig::default();
        Self {
            path: None,
            skip_bad: false,
            scenes: ScenesConfig::default(),
            tokenizer: None,
            batch_size: 128,
            equal_meaning: 0.0,
            shuffle_buffer: None,
            crop_scale,
            crop_ratio,
            flip,
            rand_augment,
            mean,
            std,
        }
    }
}

impl<C: SystemConfig> Default for TrainingConfig<C> {
    fn default() -> Self {
        C::defaults()
    }
}

impl<C: SystemConfig> TrainingConfig<C> {
    /// How images become tensors of the model's size.
    pub fn transform(&self) -> TransformConfig {
        let DataConfig {
            crop_scale,
            crop_ratio,
            flip,
            mean,
            std,
            ref rand_augment,
            ..
        } = self.shared.data;
        TransformConfig {
            size: self.system.image_size() as u32,
            crop_scale,
            crop_ratio,
            flip,
            mean,
            std,
            rand_augment: rand_augment.clone(),
        }
    }

    /// How texts become tokens that the model has room for.
    pub fn tokenizer(&self) -> TokenizerConfig {
        let text = self.system.text();
        TokenizerConfig {
            vocab_size: text.vocabulary,
            context_length: text.context,
            style: text.style,
            ..TokenizerConfig::default()
        }
    }

    /// How examples become batches for `device`, with that many threads that decode images; of the
    /// batches, the part of that worker.
    pub fn loader(&self, workers: usize, device: &Device, part: [usize; 2]) -> LoaderConfig {
        let data = &self.shared.data;
        LoaderConfig {
            batch_size: data.batch_size,
            shard: self.division(device, part[1]).pairs,
            part,
            workers,
            prefetch: self.transform().prefetch(workers),
            seed: self.shared.seed,
            equal_meaning: data.equal_meaning,
            shuffle_buffer: data.shuffle_buffer,
        }
    }

    /// How one of that many workers divides and encodes its part of a batch on `device`.
    pub fn division(&self, device: &Device, workers: usize) -> Division {
        let batch_size = self.shared.data.batch_size / workers;
        let dropout = self.system.has_dropout();
        self.shared.sharding.division(batch_size, dropout, device)
    }

    /// The configuration of a file that is part of this program.
    ///
    /// # Panics
    ///
    /// If it is not a whole configuration.
    pub(crate) fn embedded(text: &str) -> Self {
        let value = serde_json::from_str(text).map_err(anyhow::Error::from);
        value
            .and_then(Self::from_value)
            .expect("the file is a whole configuration")
    }

    /// This configuration with the settings of a file that is part of this program laid over it.
    ///
    /// # Panics
    ///
    /// If they are no settings of it.
    pub(crate) fn overlaid(&self, text: &str) -> Self {
        let overlay = || -> Result<Self> {
            let mut value = self.to_value()?;
            settings::apply_file(&mut value, text, &C::preset)?;
            Self::from_value(value)
        };
        overlay().expect("the file has settings")
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
        let mut value = self.to_value()?;
        if let Some(path) = file {
            let name = || format!("--config {}", path.display());
            let text = fs::read_to_string(path).with_context(name)?;
            settings::apply_file(&mut value, &text, &C::preset).with_context(name)?;
        }
        for pair in pairs {
            settings::apply_pair(&mut value, pair, &C::preset).context("--set")?;
        }
        let config = Self::from_value(value).context("the configuration is not valid")?;
        config.check().context("the configuration is not valid")?;
        Ok(config)
    }

    /// The configuration saved in a run's folder.
    ///
    /// # Errors
    ///
    /// If the file is missing or is not a configuration of this system.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("there is no run to read: {}", path.display()))?;
        let name = || format!("{} is not a configuration of this program", path.display());
        let value: Value = serde_json::from_str(&text).with_context(name)?;
        Self::from_value(value).with_context(name)
    }

    /// Saves this configuration.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write(path, (self.to_json()? + "\n").as_bytes())
    }

    /// All settings with their values, for a person to read.
    ///
    /// # Errors
    ///
    /// If a value has no form in JSON.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(&self.to_value()?)?)
    }

    /// All settings with their values.
    ///
    /// # Errors
    ///
    /// If a value has no form in JSON.
    pub fn to_value(&self) -> Result<Value> {
        let mut all = object(&self.system)?;
        all.extend(object(&self.shared)?);
        Ok(Value::Object(all))
    }

    /// What [`to_value`](Self::to_value) gave.
    ///
    /// # Errors
    ///
    /// If it is of another system, with the key that is wrong.
    pub fn from_value(value: Value) -> Result<Self> {
        let Value::Object(mut own) = value else {
            anyhow::bail!("it is no JSON object");
        };
        let keys = object(&SharedConfig::default())?;
        let shared = keys.keys().filter_map(|key| own.remove_entry(key));
        let shared = shared.collect();
        Ok(Self {
            system: parse(own)?,
            shared: parse(shared)?,
        })
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.system.check()?;
        self.shared.check(self.system.has_dropout())?;
        self.transform().validate().context("data")
    }
}

fn object(settings: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(settings)? {
        Value::Object(object) => Ok(object),
        _ => anyhow::bail!("settings are no JSON object"),
    }
}

/// Settings from JSON; an error has the key of what is wrong.
fn parse<T: DeserializeOwned>(object: Map<String, Value>) -> Result<T> {
    Ok(serde_path_to_error::deserialize(Value::Object(object))?)
}

impl SharedConfig {
    fn check(&self, dropout: bool) -> Result<()> {
        for (key, value) in [
            ("accumulation", self.accumulation),
            ("checkpoints.keep", self.checkpoints.keep),
        ] {
            ensure!(value > 0, "{key} must be at least 1");
        }
        ensure!(
            self.data.batch_size > 1,
            "data.batch_size must be at least 2: the other pairs of a batch are the negatives",
        );
        if let Some(buffer) = self.data.shuffle_buffer {
            ensure!(
                buffer >= self.data.batch_size,
                "data.shuffle_buffer is {buffer}; it must hold a batch, data.batch_size = {}",
                self.data.batch_size
            );
        }
        self.schedule.check()?;
        self.optimizer.check()?;
        self.sharding.check(dropout)?;
        if self.data.path.is_none() {
            self.data.scenes.check().context("data.scenes")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
