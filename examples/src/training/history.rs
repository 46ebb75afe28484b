//! What a run has measured so far: a record a step, a record a validation.

use burn_contrastive::retrieval::CrossModalMetrics;
use serde::{Deserialize, Serialize};

use crate::report::Change;

/// What one optimiser step measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps done, this one included.
    pub step: usize,
    /// Mean loss of the step's batches, before its update.
    pub loss: f64,
    /// The losses that it is the sum of, in the order of the system's names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<f64>,
    /// Norm of the gradient over all parameters, before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Logit scale before the update, if the objective has one.
    pub logit_scale: Option<f64>,
}

/// What one validation measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationRecord {
    /// Steps done.
    pub step: usize,
    /// Mean loss of the validation batches.
    pub loss: f64,
    /// Retrieval among all validation images and captions, for systems that retrieve.
    pub retrieval: Option<CrossModalMetrics>,
    /// The system's figures, in the order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<f64>,
}

/// Everything measured since the first step, whatever the number of interruptions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The settings that changed on the way.
    pub changes: Vec<Change>,
    /// One record a step.
    pub steps: Vec<StepRecord>,
    /// One record a validation.
    pub validations: Vec<ValidationRecord>,
}

impl History {
    /// The validation with the highest sum of recalls, the earliest of equals.
    pub fn best(&self) -> Option<&ValidationRecord> {
        let sum = |record: &ValidationRecord| Some(record.retrieval.as_ref()?.recall_sum);
        let retrieved = self.validations.iter().rev();
        retrieved
            .filter_map(|record| Some((sum(record)?, record)))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, record)| record)
    }

    /// Mean losses of the first and of the last tenth of the steps; NaN without any.
    pub fn first_and_last_losses(&self) -> (f64, f64) {
        let tenth = self.steps.len().div_ceil(10);
        let mean = |part: &[StepRecord]| {
            part.iter().map(|record| record.loss).sum::<f64>() / part.len() as f64
        };
        (
            mean(&self.steps[..tenth]),
            mean(&self.steps[self.steps.len() - tenth..]),
        )
    }
}
