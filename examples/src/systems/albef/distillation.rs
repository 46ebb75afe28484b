//! Momentum distillation, as ALBEF is fine-tuned with (Li et al., 2021, section 3.3).

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// The momentum copy and its share in the targets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillationConfig {
    /// What the copy keeps of its own values at each step; 0.995 in ALBEF.
    pub momentum: f64,
    /// Share of the copy's predictions in the targets; 0.4 in ALBEF.
    pub soft_targets: f64,
    /// Passes over the data during which that share rises from 0; 1 in ALBEF.
    pub ramp_epochs: f64,
}

impl DistillationConfig {
    /// The share of the copy's predictions after so many passes over the data.
    pub(super) fn share(&self, epochs: f64) -> f64 {
        if epochs < self.ramp_epochs {
            self.soft_targets * epochs / self.ramp_epochs
        } else {
            self.soft_targets
        }
    }

    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub(super) fn check(&self) -> Result<()> {
        for (key, share) in [
            ("momentum", self.momentum),
            ("soft_targets", self.soft_targets),
        ] {
            ensure!(
                (0.0..=1.0).contains(&share),
                "distillation.{key} = {share} must be in [0, 1]"
            );
        }
        let ramp_epochs = self.ramp_epochs;
        ensure!(
            ramp_epochs >= 0.0 && ramp_epochs.is_finite(),
            "distillation.ramp_epochs = {ramp_epochs} must be at least 0"
        );
        Ok(())
    }
}
