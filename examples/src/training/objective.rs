//! What the encoders are trained by: InfoNCE with all its settings, or any objective by its name.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use anyhow::{Result, anyhow, ensure};
use burn::tensor::Device;
use burn_contrastive::objective::{AnyConfig, InfoNceConfig, Objective, ObjectiveConfig};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// What the encoders are trained by. In JSON the settings of InfoNCE, or those of [`ObjectiveConfig`], which has
/// `"objective"`, a name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TrainingObjective {
    /// InfoNCE, with settings that it has not by name.
    InfoNce(InfoNceConfig),
    /// An objective by its name.
    Named(ObjectiveConfig),
}

/// The key that tells an objective by name.
const NAME: &str = "objective";

impl TrainingObjective {
    /// The settings that stand for `value`, a name or an object that has one, with all defaults; `None` for any other.
    ///
    /// # Errors
    ///
    /// On unknown names and parameters, with the nearest there are.
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

    /// Builds the objective.
    ///
    /// # Panics
    ///
    /// On values out of range, which [`check`](Self::check) finds.
    pub fn init(&self, device: &Device) -> Objective {
        self.named().init(device)
    }

    /// Checks that image and text are all that it needs, and its values.
    ///
    /// # Errors
    ///
    /// If it needs more, with what, or a value is out of range.
    pub fn check(&self) -> Result<()> {
        let config = self.named();
        let needs: Vec<_> = config
            .needs()
            .iter()
            .map(|input| format!("`{input}`"))
            .collect();
        ensure!(
            needs.is_empty(),
            "objective `{}` needs {}; this program trains with image and text alone",
            config.name(),
            needs.join(", ")
        );
        // Without a device that is always there, a value out of range is found when the run begins.
        #[cfg(feature = "flex")]
        checked_init(&config, &Device::flex())?;
        Ok(())
    }

    fn named(&self) -> ObjectiveConfig {
        match self {
            Self::InfoNce(config) => AnyConfig::InfoNce(config.clone()).into(),
            Self::Named(config) => config.clone(),
        }
    }
}

impl<'de> Deserialize<'de> for TrainingObjective {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let read = match value.get(NAME) {
            Some(_) => serde_json::from_value(value).map(Self::Named),
            None => serde_json::from_value(value).map(Self::InfoNce),
        };
        read.map_err(D::Error::custom)
    }
}

/// [`ObjectiveConfig::init`], whose panic on a value out of range becomes an error.
///
/// # Errors
///
/// If a value is out of range, with the message that names it.
pub fn checked_init(config: &ObjectiveConfig, device: &Device) -> Result<Objective> {
    silence_panics_where_asked();
    QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| config.init(device)));
    QUIET.set(false);
    result.map_err(|payload| match payload.downcast::<String>() {
        Ok(message) => anyhow!(message),
        Err(_) => anyhow!("`{}` could not be built", config.name()),
    })
}

thread_local! {
    /// Whether a panic of this thread is about to become an error.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Lets the panic hook speak, except of panics that are caught here; other threads' are none of these.
fn silence_panics_where_asked() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                hook(panic);
            }
        }));
    });
}
