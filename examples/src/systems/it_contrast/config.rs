//! The settings of `it-contrast`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use burn::tensor::Device;
use burn_contrastive::negatives::HardNegativeSynthesisConfig;
use burn_contrastive::objective::{AnyConfig, ConVseConfig, InfoCmrConfig, Input, ObjectiveConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ItContrast;
use crate::data::TokenStyle;
use crate::data::regions::BoxesConfig;
use crate::models::{DualEncoderConfig, JointBertConfig};
use crate::training::config::TrainingConfig;
use crate::training::objective::TrainingObjective;
use crate::training::settings;
use crate::training::system::{InitRules, SystemConfig, TextLimits};

/// The settings of [`ItContrast`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItContrastConfig {
    /// The transformer; the name of a preset, `tiny` or `base`, is short for its settings.
    pub model: JointBertConfig,
    /// The objective; its name is short for its settings. InfoCMR, unless `noise` and `synthesis`
    /// are off.
    pub objective: ObjectiveConfig,
    /// How an image and a caption are compared.
    pub similarity: Similarity,
    /// Whether hard negatives are synthesised: SynHNC.
    pub synthesis: bool,
    /// Whether noise is a negative of every anchor: the sum over `g` of equation 7.
    pub noise: bool,
    /// What these negatives are.
    pub negatives: NegativesConfig,
    /// Which pairs are no negatives of each other in the synthesis.
    pub ids: RegionIds,
    /// Where features of regions come from.
    pub regions: RegionsConfig,
    /// Whether the transformer reads the names of the objects beside the regions, as OSCAR does.
    pub tags: bool,
    /// Longest caption in tokens, and longest list of tags, special ones included.
    pub tokens: usize,
}

/// How an image and a caption are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Similarity {
    /// By the cosine of their means, as in the paper.
    #[default]
    Pooled,
    /// Each region with its closest word, and each word with its closest region.
    LateInteraction,
}

/// What the negatives beside those of the batch are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NegativesConfig {
    /// Clusters of the other modality, and hard negatives of each anchor; the paper gives no
    /// number.
    pub clusters: usize,
    /// Width of the kernel, σ; 0.1 in the paper.
    pub sigma: f64,
    /// Whether each anchor clusters its own negatives, as the paper has it, at N times the cost.
    pub per_anchor: bool,
    /// Noise vectors a step, Z; 128 in the paper.
    pub noise: usize,
}

impl NegativesConfig {
    /// The source of hard negatives.
    pub(super) fn synthesis(&self, seed: u64) -> HardNegativeSynthesisConfig {
        HardNegativeSynthesisConfig::new()
            .with_clusters(self.clusters)
            .with_sigma(self.sigma)
            .with_per_anchor(self.per_anchor)
            .with_seed(seed)
    }
}

/// Which pairs match each other besides those of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegionIds {
    /// The captions of one image.
    #[default]
    Image,
    /// Images whose captions say the same too, which the scenes know.
    Meaning,
}

/// Where features of regions come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionsConfig {
    /// A [file](crate::data::RegionFile) of a detector's features, say; null makes one first, in
    /// the run's folder.
    pub file: Option<PathBuf>,
    /// The run of `clip` whose image tower makes the features of such a file; null trains one
    /// first.
    pub run: Option<PathBuf>,
    /// Which regions such a file has.
    pub boxes: BoxesConfig,
    /// How the tower is trained, where it is trained first.
    pub tower: TowerConfig,
}

/// How the tower is trained that makes features of regions: as `clip` is, but for this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TowerConfig {
    /// The two encoders. The vocabulary and the context of the texts are those of `model`.
    pub model: DualEncoderConfig,
    /// Steps of its training.
    pub steps: usize,
    /// Pairs in a batch.
    pub batch_size: usize,
}

/// The stage of a run that trains the tower.
pub(super) const TOWER: &str = "clip";

/// The settings of `it-contrast` unless others are given.
const TINY: &str = include_str!("../../../configs/it_contrast_tiny.json");
/// The published ones.
const BASE: &str = include_str!("../../../configs/it_contrast_base.json");

impl ItContrastConfig {
    /// The published configuration (section 4.1): OSCAR-base on the regions of a detector.
    pub fn base() -> TrainingConfig<Self> {
        TrainingConfig::embedded(BASE)
    }

    /// InfoCMR, where its noise is contrasted with regions and words one by one.
    pub(super) fn late_noise(&self) -> Option<InfoCmrConfig> {
        match &self.objective.kind {
            AnyConfig::InfoCmr(config)
                if self.noise && self.similarity == Similarity::LateInteraction =>
            {
                Some(config.clone())
            }
            _ => None,
        }
    }

    /// The objective that is trained by: without noise InfoCMR is ConVSE, of the same temperature,
    /// which still takes hard negatives.
    pub(super) fn objective(&self) -> ObjectiveConfig {
        let mut objective = self.objective.clone();
        if let AnyConfig::InfoCmr(config) = &self.objective.kind
            && !self.noise
        {
            objective.kind = AnyConfig::ConVse(ConVseConfig {
                logit_scale: config.logit_scale.clone(),
                directions: config.directions,
                similarity: config.similarity,
            });
        }
        objective
    }

    fn check_objective(&self) -> Result<()> {
        self.objective.check()?;
        let is_info_cmr = matches!(self.objective.kind, AnyConfig::InfoCmr(_));
        ensure!(
            is_info_cmr || !self.synthesis && !self.noise,
            "objective {}: synthesised negatives and noise are info-cmr's; set synthesis=false and \
             noise=false",
            self.objective.name()
        );
        let is_late = self.similarity == Similarity::LateInteraction;
        ensure!(
            !is_late || is_info_cmr,
            "objective {}: similarity=late-interaction is for info-cmr",
            self.objective.name()
        );
        ensure!(
            !is_late || !self.synthesis,
            "similarity=late-interaction: a synthesised negative stands for one embedding, mixed \
             of those of whole images or captions, not for the regions of an image or the words \
             of a caption; set synthesis=false"
        );
        if is_late {
            let inputs = self.objective();
            let inputs = inputs.check_inputs(|input| self.noise && input == Input::Noise);
            inputs.map_err(|error| {
                anyhow!("objective {error}; late interaction takes images, texts and noise alone")
            })?;
        }
        let there = [
            Input::Noise,
            Input::HardImage,
            Input::HardText,
            Input::Label,
        ];
        let there = |input| there.contains(&input) && (is_info_cmr || input == Input::Label);
        let inputs = self.objective.check_inputs(there);
        inputs.map_err(|error| anyhow!("objective {error}; it-contrast gives label"))
    }
}

impl SystemConfig for ItContrastConfig {
    type System = ItContrast;

    /// A small model on small scenes: minutes on two CPU cores.
    fn defaults() -> TrainingConfig<Self> {
        TrainingConfig::embedded(TINY)
    }

    /// All settings are taken over but the weights that it started from itself.
    fn started_from(earlier: &Value) -> Result<TrainingConfig<Self>> {
        TrainingConfig::from_value(earlier.clone()).context("it is no run of it-contrast")
    }

    /// The tower that made the features which the weights of that run read.
    fn taken_from(&mut self, run: &Path) {
        let regions = &mut self.regions;
        if regions.file.is_none() {
            regions.run.get_or_insert_with(|| run.join(TOWER));
        }
    }

    fn check(&self) -> Result<()> {
        self.model.check().context("model")?;
        self.check_objective()?;
        let negatives = &self.negatives;
        if self.synthesis {
            let checked = negatives.synthesis(0).check();
            checked.context("negatives")?;
        }
        ensure!(
            !self.noise || (1..=1_000_000).contains(&negatives.noise),
            "negatives.noise = {} must be in 1..=1000000; noise=false takes none",
            negatives.noise
        );
        let context = self.model.bert.context;
        ensure!(
            (2..=context).contains(&self.tokens),
            "tokens = {} must be in 2..=model.bert.context = {context}",
            self.tokens
        );
        let RegionsConfig {
            file,
            run,
            boxes,
            tower,
        } = &self.regions;
        boxes.check().context("regions.boxes")?;
        tower.model.check().context("regions.tower.model")?;
        ensure!(tower.steps > 0, "regions.tower.steps must be at least 1");
        ensure!(
            tower.batch_size > 0,
            "regions.tower.batch_size must be at least 1"
        );
        ensure!(
            file.is_some() || run.is_some() || tower.model.embedding == self.model.feature,
            "model.feature = {} must be regions.tower.model.embedding = {}, whose features it \
             reads",
            self.model.feature,
            tower.model.embedding
        );
        Ok(())
    }

    /// `model=NAME` is short for that preset's settings, `objective=NAME` for that objective's.
    fn preset(key: &str, value: &Value) -> Option<Result<Value>> {
        match (key, value) {
            ("model", Value::String(name)) => Some(settings::tiny_or_base(
                name,
                || Self::defaults().system.model,
                || Self::base().system.model,
            )),
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

    /// That of the tower: the model itself sees regions.
    fn image_size(&self) -> usize {
        self.regions.tower.model.image.image_size()
    }

    fn text(&self) -> TextLimits {
        TextLimits {
            vocabulary: self.model.bert.vocabulary,
            vocabulary_key: "model.bert.vocabulary",
            context: self.tokens,
            context_key: "tokens",
            style: TokenStyle::default(),
        }
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let RegionsConfig { file, run, .. } = &mut self.regions;
        file.iter_mut().chain(run).collect()
    }

    fn init(&self, device: &Device) -> ItContrast {
        ItContrast::new(self, device)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;

    use super::*;

    fn refused(pairs: &[&str]) -> String {
        let pairs: Vec<String> = pairs.iter().map(ToString::to_string).collect();
        let refused = ItContrastConfig::defaults().with(None, &pairs);
        format!("{:#}", refused.unwrap_err())
    }

    #[test]
    fn the_published_configuration_has_the_size_of_oscar() {
        let config = ItContrastConfig::base();
        config.with(None, &[]).unwrap();
        let model = config.system.model.init(&Device::flex());
        // BERT-base without its pooler, and OSCAR's map of 2,054 numbers a region with a norm.
        let [width, feature] = [768, 2048 + 6];
        let regions = feature * width + width + 2 * width;
        assert_eq!(model.num_params(), 108_891_648 + regions);
        let system = &config.system;
        let negatives = &system.negatives;
        assert_eq!((negatives.sigma, negatives.noise), (0.1, 128));
        let AnyConfig::InfoCmr(objective) = &system.objective.kind else {
            panic!("it is InfoCMR");
        };
        assert_eq!(objective.logit_scale.temperature, 0.05);
        let shared = &config.shared;
        assert_eq!(shared.optimizer.learning_rate, 2e-5);
        assert_eq!(shared.data.batch_size, 128);
        assert_eq!(shared.schedule.epochs, Some(20));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        for (pairs, expected) in [
            (
                &["objective=vse-plus-plus"][..],
                "set synthesis=false and noise=false",
            ),
            (
                &["objective=srcl", "synthesis=false", "noise=false"],
                "it-contrast gives label",
            ),
            (
                &["model.bert.fusion_layers=1"],
                "fusion_layers = 1 must be 0",
            ),
            (
                &["model.feature=65"],
                "must be regions.tower.model.embedding = 64",
            ),
            (&["negatives.sigma=0"], "sigma"),
            (&["negatives.noise=0"], "negatives.noise = 0"),
            (&["regions.boxes.per_image=0"], "per_image = 0"),
            (&["tokens=4000"], "model.bert.context"),
            (&["similarity=late-interaction"], "stands for one embedding"),
            (
                &["similarity=late-interaction", "noise=false"],
                "set synthesis=false",
            ),
            (&["model=huge"], "there are tiny, base"),
        ] {
            let message = refused(pairs);
            assert!(message.contains(expected), "{pairs:?}: {message}");
        }
    }

    #[test]
    fn without_noise_the_objective_keeps_its_temperature() {
        let pairs = ["noise=false", "objective.temperature=0.2"].map(str::to_string);
        let config = ItContrastConfig::defaults().with(None, &pairs).unwrap();
        let objective = config.system.objective();
        assert_eq!(objective.name(), "con-vse");
        assert_eq!(
            objective.get("temperature"),
            config.system.objective.get("temperature")
        );
        assert!(objective.check_inputs(|_| false).is_ok());
    }
}
