//! The training objective: InfoNCE with all its settings, or any objective by its name.

use anyhow::{Result, anyhow};
use burn::tensor::{Device, Tensor};
use burn_contrastive::objective::{AnyConfig, InfoNceConfig, Objective, ObjectiveConfig};
use burn_contrastive::schedule::Settings;
use burn_contrastive::weighting::SimilarityRegulation;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The training objective. In JSON, either the settings of InfoNCE or those of [`ObjectiveConfig`],
/// which has the key `"objective"`, a name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TrainingObjective {
    /// InfoNCE, with the settings that it lacks by name.
    InfoNce(InfoNceConfig),
    /// An objective by its name.
    Named(Box<ObjectiveConfig>),
}

/// The key of an objective's name.
const NAME: &str = "objective";

impl TrainingObjective {
    /// The settings for which `value` is short, with all defaults: `value` is a name or an object
    /// with one. `None` for any other value.
    ///
    /// # Errors
    ///
    /// On unknown names and parameters, with the nearest known ones.
    pub fn preset(value: &Value) -> Option<Result<Value>> {
        let config = match value {
            Value::String(name) => ObjectiveConfig::named(name).map_err(|error| anyhow!(error)),
            Value::Object(settings) if settings.contains_key(NAME) => {
                serde_json::from_value(value.clone()).map_err(Into::into)
            }
            _ => return None,
        };
        Some(config.and_then(|config: ObjectiveConfig| Ok(serde_json::to_value(config)?)))
    }

    /// The same objective with its values as they are set from the first step on, such as without
    /// the warm-up of VSE++: for a training that goes on with an earlier one.
    #[must_use]
    pub fn unscheduled(self) -> Self {
        match self {
            Self::InfoNce(_) => self,
            Self::Named(mut config) => {
                config.schedules = Some(Settings::default());
                Self::Named(config)
            }
        }
    }

    /// Builds the objective.
    ///
    /// # Panics
    ///
    /// On values out of range, which [`check`](Self::check) finds.
    pub fn init(&self, device: &Device) -> Objective {
        self.named().init(device)
    }

    /// Checks that images and texts are the only inputs of the objective, and the values of its
    /// parameters.
    ///
    /// # Errors
    ///
    /// If it needs other inputs, naming them, or if a value is out of range.
    pub fn check(&self) -> Result<()> {
        let config = self.named();
        let inputs = config.check_inputs(|_| false);
        inputs.map_err(|error| {
            anyhow!("objective {error}; this program trains with image and text alone")
        })?;
        // Each names what is wrong as its own form of settings does.
        match self {
            Self::InfoNce(config) => config.check()?,
            Self::Named(config) => config.check()?,
        }
        Ok(())
    }

    fn named(&self) -> ObjectiveConfig {
        match self {
            Self::InfoNce(config) => AnyConfig::InfoNce(config.clone()).into(),
            Self::Named(config) => (**config).clone(),
        }
    }
}

/// The factor that multiplies the similarities of an objective, if it has one.
pub fn logit_scale(objective: &Objective) -> Option<Tensor<1>> {
    let mut objective = objective.clone();
    objective.logit_scales().first().map(|scale| scale.value())
}

/// How an objective weighs its negatives, if it does.
pub fn regulation(objective: &ObjectiveConfig) -> Option<SimilarityRegulation> {
    match &objective.kind {
        AnyConfig::Srcl(config) => Some(config.regulation),
        AnyConfig::FalseNegativeRemoval(config) => Some(config.regulation),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for TrainingObjective {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        // With the key of what is wrong.
        match value.get(NAME) {
            Some(_) => serde_path_to_error::deserialize(value).map(Self::Named),
            None => serde_path_to_error::deserialize(value).map(Self::InfoNce),
        }
        .map_err(D::Error::custom)
    }
}
