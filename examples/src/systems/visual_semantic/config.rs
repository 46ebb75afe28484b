//! The settings of [`VisualSemantic`].

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::VisualSemantic;
use crate::data::TokenStyle;
use crate::models::{GruEncoderConfig, RESNETS, ResNetConfig, check};
use crate::training::comparison::Share;
use crate::training::config::TrainingConfig;
use crate::training::objective::TrainingObjective;
use crate::training::schedule::ScheduleConfig;
use crate::training::settings;
use crate::training::system::{InitRules, SystemConfig, TextLimits, Towers};

/// The settings of [`VisualSemantic`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisualSemanticConfig {
    /// The encoders and the heads; the name of a preset is short for its settings.
    pub model: VisualSemanticModelConfig,
    /// The features of images that are read in place of them.
    pub features: FeaturesConfig,
    /// The objective; its name is short for its settings.
    pub objective: TrainingObjective,
    /// Whether the image encoder is trained, its norms by the statistics of each batch; else it
    /// stays as it is, its norms by their running statistics.
    pub train_image: bool,
    /// The base network that it starts from; null for new weights, or those of `init`.
    pub base: Option<BaseConfig>,
}

/// Where features of images come from that were computed before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturesConfig {
    /// A [file](crate::data::FeatureFile) of one for each image; null for an image encoder of its
    /// own.
    pub file: Option<PathBuf>,
    /// How wide those of the file are: 2,048 of ResNet-152.
    pub width: usize,
}

/// Shape of the encoders and of the heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisualSemanticModelConfig {
    /// The image encoder; the name of one, such as `resnet-50`, is short for its settings.
    pub image: ResNetConfig,
    /// The caption encoder.
    pub text: GruEncoderConfig,
    /// Width of the base network's space; 1,024 in VSE++.
    pub embedding: usize,
    /// The heads on top of the base network, one a side; null for none.
    pub heads: Option<HeadsConfig>,
}

/// Shape of the heads: two layers with a ReLU between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadsConfig {
    /// Width between the layers; 2,048 in ConVSE.
    pub hidden: usize,
    /// Width of the embeddings; 1,024 in ConVSE.
    pub output: usize,
}

/// The base network: the same encoders without heads, trained in two phases before the run itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseConfig {
    /// The folder of a finished run that trained one; null trains one first.
    pub run: Option<PathBuf>,
    /// What it is trained by; its name is short for its settings.
    pub objective: TrainingObjective,
    /// How it is trained first.
    pub first: PhaseConfig,
    /// How its training goes on; null ends it after the first phase.
    pub second: Option<PhaseConfig>,
}

/// A phase of the base network's training. All other settings are those of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseConfig {
    /// Whether the image encoder is trained.
    pub train_image: bool,
    /// Pairs a batch.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Length and learning rate.
    pub schedule: ScheduleConfig,
}

/// The settings of `visual-semantic` unless others are given.
const TINY: &str = include_str!("../../../configs/visual_semantic_tiny.json");
/// The published ones.
const BASE: &str = include_str!("../../../configs/visual_semantic_base.json");

impl VisualSemanticConfig {
    /// The published configuration (paper of ConVSE, section IV.A): ResNet-152, a GRU of 1,024.
    pub fn base() -> TrainingConfig<Self> {
        TrainingConfig::embedded(BASE)
    }

    /// The base network's phases, in order.
    pub fn phases(&self) -> impl Iterator<Item = (&'static str, &PhaseConfig)> {
        self.base.iter().flat_map(|base| {
            let second = base.second.iter().map(|phase| ("second", phase));
            std::iter::once(("first", &base.first)).chain(second)
        })
    }

    /// Whether features are read, in place of images.
    pub fn reads_features(&self) -> bool {
        self.features.file.is_some()
    }

    /// Width of what is projected into the space of the base network.
    pub(super) fn features(&self) -> usize {
        if self.reads_features() {
            self.features.width
        } else {
            self.model.image.features()
        }
    }

    /// Checks that no phase trains an image encoder that is not there.
    fn check_features(&self) -> Result<()> {
        check::size("features.width", self.features.width, 65_536)?;
        if !self.reads_features() {
            return Ok(());
        }
        let phases = self.phases();
        let phases = phases.map(|(name, phase)| (format!("base.{name}."), phase.train_image));
        let mut all = phases.chain([(String::new(), self.train_image)]);
        if let Some((phase, _)) = all.find(|(_, trains)| *trains) {
            bail!(
                "{phase}train_image = true, but features.file leaves no image encoder to train: \
                 set {phase}train_image=false"
            );
        }
        Ok(())
    }

    fn check_base(&self) -> Result<()> {
        let Some(base) = &self.base else {
            return Ok(());
        };
        base.objective.check().context("base")?;
        for (name, phase) in self.phases() {
            let check = || {
                ensure!(
                    phase.batch_size > 1,
                    "batch_size = {} must be at least 2: the other pairs of a batch are the \
                     negatives",
                    phase.batch_size
                );
                ensure!(
                    phase.learning_rate.is_finite() && phase.learning_rate > 0.0,
                    "learning_rate = {} must be positive",
                    phase.learning_rate
                );
                phase.schedule.check()
            };
            check().with_context(|| format!("base.{name}"))?;
        }
        Ok(())
    }
}

/// How the base network is trained in a phase.
pub(super) fn of_phase(
    config: &TrainingConfig<VisualSemanticConfig>,
    phase: &PhaseConfig,
) -> TrainingConfig<VisualSemanticConfig> {
    let mut config = config.clone();
    let (system, shared) = (&mut config.system, &mut config.shared);
    if let Some(base) = system.base.take() {
        system.objective = base.objective;
    }
    system.model.heads = None;
    system.train_image = phase.train_image;
    shared.init = None;
    shared.data.batch_size = phase.batch_size;
    shared.optimizer.learning_rate = phase.learning_rate;
    shared.schedule = phase.schedule.clone();
    config
}

/// Everything that decides what the base network becomes.
fn of_base(
    config: &TrainingConfig<VisualSemanticConfig>,
) -> Vec<TrainingConfig<VisualSemanticConfig>> {
    let phases = config.system.phases();
    phases.map(|(_, phase)| of_phase(config, phase)).collect()
}

impl VisualSemanticModelConfig {
    fn preset(name: &str) -> Result<Value> {
        settings::tiny_or_base(
            name,
            || VisualSemanticConfig::defaults().system.model,
            || VisualSemanticConfig::base().system.model,
        )
    }

    /// Checks every size, and that the model is not absurdly large.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        self.image.check()?;
        self.text.check()?;
        check::size("embedding", self.embedding, 65_536)?;
        let features = (self.image.features() + self.text.width) as f64;
        let mut about = features * self.embedding as f64;
        if let Some(HeadsConfig { hidden, output }) = self.heads {
            check::size("heads.hidden", hidden, 65_536)?;
            check::size("heads.output", output, 65_536)?;
            about += 2.0 * hidden as f64 * (self.embedding + output) as f64;
        }
        check::parameters(about + self.image.about_parameters() + self.text.about_parameters())
    }
}

fn image_preset(name: &str) -> Result<Value> {
    let config = ResNetConfig::preset(name).ok_or_else(|| {
        let names = RESNETS.join(", ");
        anyhow!("there is no image encoder `{name}`; there are {names}")
    })?;
    Ok(serde_json::to_value(config)?)
}

impl SystemConfig for VisualSemanticConfig {
    type System = VisualSemantic;

    /// Small encoders on small scenes: minutes on two CPU cores.
    fn defaults() -> TrainingConfig<Self> {
        TrainingConfig::embedded(TINY)
    }

    /// All settings are taken over but what it started from itself, word vectors included.
    fn started_from(earlier: &Value) -> Result<TrainingConfig<Self>> {
        let earlier = TrainingConfig::from_value(earlier.clone());
        let mut config: TrainingConfig<Self> =
            earlier.context("it is no run of visual-semantic")?;
        config.system.base = None;
        config.system.model.text.vectors = None;
        Ok(config)
    }

    fn towers() -> Towers {
        Towers {
            image: Some("image"),
            ..Towers::default()
        }
    }

    fn check(&self) -> Result<()> {
        self.model.check().context("model")?;
        self.objective.check()?;
        self.check_base()?;
        self.check_features()?;
        let trains = self.train_image || self.phases().any(|(_, phase)| phase.train_image);
        if trains {
            self.model.image.check_trained().context("model")?;
        }
        Ok(())
    }

    /// `model=NAME` is short for that preset's settings, `model.image=NAME` for that network's,
    /// `objective=NAME` and `base.objective=NAME` for that objective's; groups that may be left out
    /// may be null.
    fn preset(key: &str, value: &Value) -> Option<Result<Value>> {
        match (key, value) {
            ("model", Value::String(name)) => Some(VisualSemanticModelConfig::preset(name)),
            ("model.image", Value::String(name)) => Some(image_preset(name)),
            ("base" | "base.second" | "model.heads", Value::Null) => Some(Ok(Value::Null)),
            ("objective" | "base.objective", _) => TrainingObjective::preset(value),
            _ => None,
        }
    }

    fn rules(&self) -> InitRules {
        // A base network has no heads, and objectives may differ.
        InitRules {
            new: &["^image_head\\.", "^text_head\\.", "^objective\\."],
            unused: if self.reads_features() {
                &["^objective\\.", "^image\\."]
            } else {
                &["^objective\\."]
            },
        }
    }

    fn has_dropout(&self) -> bool {
        false
    }

    fn image_size(&self) -> usize {
        self.model.image.image_size
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

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let runs = self.base.iter_mut().flat_map(|base| &mut base.run);
        runs.chain(&mut self.features.file)
            .chain(&mut self.model.text.vectors)
            .collect()
    }

    /// The base network, where all runs would train the same one.
    fn share(all: &TrainingConfig<Self>, runs: &[&TrainingConfig<Self>]) -> Option<Share<Self>> {
        let base = of_base(all);
        let trains = |run: &&TrainingConfig<Self>| {
            let base = run.system.base.as_ref();
            base.is_some_and(|base| base.run.is_none())
        };
        let is_shared = runs.iter().all(|run| trains(run) && of_base(run) == base);
        is_shared.then_some(|prepared, config| {
            if let (Some(own), Some(shared)) = (&mut config.system.base, &prepared.system.base) {
                own.run.clone_from(&shared.run);
            }
        })
    }

    fn init(&self, device: &Device) -> VisualSemantic {
        VisualSemantic::new(self, device)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;

    use super::*;

    #[test]
    fn the_published_configuration_has_the_published_size() {
        // Burn draws a parameter when it is first read, so that counting costs no memory.
        let config = VisualSemanticConfig::base();
        config.with(None, &[]).unwrap();
        let model = config.system.init(&Device::flex());
        // ResNet-152 without its classifier of 2,049,000.
        assert_eq!(
            model.image.unwrap().trained_parameters(),
            60_192_808 - 2_049_000
        );
        assert_eq!(model.image_projection.num_params(), 2048 * 1024 + 1024);
        assert!(model.text_projection.is_none());
        let head = 1024 * 2048 + 2048 + 2048 * 1024 + 1024;
        assert_eq!(model.image_head.unwrap().num_params(), head);
    }

    #[test]
    fn the_published_phases_are_those_of_the_paper() {
        let config = VisualSemanticConfig::base();
        // An epoch of the paper is each of five captions of an image, one of ours is one of them.
        let of = |config: &TrainingConfig<VisualSemanticConfig>| {
            let (system, shared) = (&config.system, &config.shared);
            let rate = |done| {
                let peak = shared.optimizer.learning_rate;
                shared.schedule.learning_rate(peak, done, 1000)
            };
            let epochs = shared.schedule.epochs.unwrap() / 5;
            (
                system.train_image,
                epochs,
                shared.data.batch_size,
                [rate(499), rate(500)],
            )
        };
        let [first, second] = of_base(&config).try_into().unwrap();
        let close = |found: [f64; 2], expected: [f64; 2]| {
            let both = found.into_iter().zip(expected);
            both.fold(true, |all, (a, b)| all && (a - b).abs() < 1e-12)
        };
        for (config, expected, rates) in [
            (&first, (false, 30, 128), [2e-4, 2e-5]),
            (&second, (true, 15, 128), [2e-5, 2e-5]),
            (&config, (false, 30, 256), [2e-5, 2e-5]),
        ] {
            let (train_image, epochs, batch, found) = of(config);
            assert_eq!((train_image, epochs, batch), expected);
            assert!(close(found, rates), "{found:?}");
        }
        let names = [&first, &second, &config].map(|config| {
            let objective = serde_json::to_value(&config.system.objective).unwrap();
            objective["objective"].as_str().unwrap().to_string()
        });
        assert_eq!(
            names,
            ["vse-plus-plus", "vse-plus-plus", "con-vse-plus-plus"]
        );
        assert!(first.system.model.heads.is_none() && first.system.base.is_none());
    }

    #[test]
    fn names_are_short_for_settings_and_groups_may_be_null() {
        let with = |pairs: &[&str]| {
            let pairs: Vec<String> = pairs.iter().map(ToString::to_string).collect();
            VisualSemanticConfig::defaults().with(None, &pairs)
        };
        let config = with(&["model=base", "model.image=resnet-50", "base.objective=vse"]);
        let config = config.unwrap().system;
        assert_eq!(
            config.model.image,
            ResNetConfig::preset("resnet-50").unwrap()
        );
        assert_eq!(config.model.text.width, 1024);
        let config = with(&["base=null", "model.heads=null"]).unwrap().system;
        assert!(config.base.is_none() && config.model.heads.is_none());
        assert!(with(&["base.second=null"]).unwrap().system.phases().count() == 1);
        let error = format!("{:#}", with(&["model.image=resnet-51"]).unwrap_err());
        assert!(
            error.contains("there is no image encoder `resnet-51`"),
            "{error}"
        );
    }
}
