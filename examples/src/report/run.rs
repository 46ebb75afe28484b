//! What a run has to tell.

use std::fmt::Write;
use std::time::SystemTime;

use burn_contrastive::retrieval::CrossModalMetrics;
use serde::{Deserialize, Serialize};

use super::{
    Accuracy, AnswerExample, Curve, Examples, Histogram, Maps, NamedCurve, NamedHistogram,
    Retrieval, RetrievalScores, Sweep, Table, Weights,
};
use crate::number;

/// Everything that a report shows of one training run. Whatever is empty or `None` is left out of
/// the page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Heading of the page.
    pub title: String,
    /// Command line that starts this run again.
    pub command: String,
    /// The run's complete configuration.
    pub config: serde_json::Value,
    /// The settings that changed when it was resumed.
    pub changes: Vec<Change>,
    /// Device that computed, as its backend names it.
    pub device: String,
    /// What it was trained and tested on.
    pub dataset: Dataset,
    /// Number of parameters of each part of the model.
    pub parameters: Vec<ParameterCount>,
    /// When the run started.
    pub started: Option<SystemTime>,
    /// How long each of its stages took, in their order.
    pub stages: Vec<Stage>,
    /// Retrieval by chance, before and after training.
    pub retrieval: Retrieval,
    /// Quantities over the optimisation steps.
    pub curves: Curves,
    /// Similarities of held-out pairs before and after training.
    pub similarities: Similarities,
    /// Held-out pairs as points of a plane before and after training.
    #[serde(default)]
    pub maps: Maps,
    /// What the trained model retrieves for some queries.
    pub examples: Examples,
    /// Single figures by name, in the order of their table.
    #[serde(default)]
    pub facts: Vec<Fact>,
    /// How often it answers right; `None` for a model that does not answer.
    #[serde(default)]
    pub accuracy: Option<Accuracy>,
    /// Some questions with what the trained model answered.
    #[serde(default)]
    pub answers: Vec<AnswerExample>,
    /// Contrastive weights of the negatives; `None` where all weigh the same.
    #[serde(default)]
    pub weights: Option<Weights>,
    /// Results by the value of one parameter each.
    #[serde(default)]
    pub sweeps: Vec<Sweep>,
    /// Figures that runs are compared by besides recall and accuracy, the one that says most last;
    /// not shown, they are in a table or among the facts too.
    #[serde(default)]
    pub compared: Vec<Fact>,
    /// Tables of what else was measured.
    #[serde(default)]
    pub tables: Vec<Table>,
    /// Similarities by class.
    #[serde(default)]
    pub histograms: Vec<NamedHistogram>,
}

impl RunReport {
    /// Number of parameters of all parts.
    pub fn parameter_total(&self) -> u64 {
        self.parameters.iter().map(|part| part.count).sum()
    }

    /// Start of the run in UTC, RFC 3339: `2026-01-31T12:00:00Z`. `None` where unknown, before 1970
    /// or after 9999.
    pub fn started_at(&self) -> Option<String> {
        let started = self
            .started
            .filter(|&time| time >= SystemTime::UNIX_EPOCH)?;
        let mut text = String::new();
        write!(text, "{}", humantime::format_rfc3339_seconds(started)).ok()?;
        Some(text)
    }

    /// With further facts, which stand before its own.
    pub fn with_facts_before(mut self, facts: impl IntoIterator<Item = Fact>) -> Self {
        self.facts.splice(..0, facts);
        self
    }

    /// Seconds of all stages.
    pub fn seconds_total(&self) -> f64 {
        self.stages.iter().map(|stage| stage.seconds).sum()
    }
}

/// A setting that changed when the run was resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Steps done before.
    pub step: usize,
    /// The setting's key.
    pub setting: String,
    /// Its value up to then.
    pub from: serde_json::Value,
    /// Its value since.
    pub to: serde_json::Value,
}

/// The pairs of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// Its splits.
    pub splits: Vec<Split>,
}

/// One split of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// `train`, `validation`, `test`.
    pub name: String,
    /// Number of images.
    pub images: u64,
    /// Number of captions.
    pub captions: u64,
}

/// Size of a part of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterCount {
    /// The part: `image encoder`, `text encoder`.
    pub part: String,
    /// Its number of parameters.
    pub count: u64,
}

/// A single figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is: `ln N`, `logit scale at the end`.
    pub name: String,
    /// The value; not finite where there is none, `null` in JSON.
    #[serde(with = "number::or_null")]
    pub value: f64,
    /// Its unit, if it has one: `%`.
    pub unit: Option<String>,
}

impl Fact {
    /// The recalls of both directions, in percent, and their sum, of what `name` says.
    pub fn of_retrieval(name: &str, metrics: &CrossModalMetrics) -> Vec<Self> {
        let recall = |direction: &str, k: usize, value: f64| Self {
            name: format!("{name}: R@{k} {direction}"),
            value,
            unit: Some("%".to_string()),
        };
        let both = [
            ("image → text", &metrics.image_to_text),
            ("text → image", &metrics.text_to_image),
        ];
        let recalls = both.into_iter().flat_map(|(direction, ranks)| {
            [
                recall(direction, 1, ranks.recall_at_1),
                recall(direction, 5, ranks.recall_at_5),
                recall(direction, 10, ranks.recall_at_10),
            ]
        });
        let sum = Self {
            name: format!("{name}: R@sum"),
            value: RetrievalScores::from(metrics).r_sum(),
            unit: None,
        };
        recalls.chain([sum]).collect()
    }
}

/// A stage of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What was done: `training`, `evaluation`.
    pub name: String,
    /// How long it took.
    #[serde(with = "number::or_null")]
    pub seconds: f64,
}

/// Quantities over the optimisation steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// Training loss of each step (or of every n-th).
    pub loss: Curve,
    /// Loss of the validation pairs.
    pub validation_loss: Curve,
    /// Learning rate.
    pub learning_rate: Curve,
    /// Logit scale: what similarities are multiplied with. Empty where the objective has none.
    pub logit_scale: Curve,
    /// Retrieval among the validation pairs, by increasing step.
    pub validation: Vec<Validation>,
    /// The training losses that the loss is a sum of, by name: `contrast`, `matching`, `masked
    /// language`. Empty where there is only one.
    #[serde(default)]
    pub losses: Vec<NamedCurve>,
    /// Other figures measured over training, by name: `accuracy on validation`.
    #[serde(default)]
    pub figures: Vec<NamedCurve>,
}

/// Retrieval among the validation pairs after some steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Number of optimisation steps done.
    pub step: u64,
    /// The scores.
    pub scores: RetrievalScores,
}

/// Similarities of held-out pairs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Similarities {
    /// Of the model before its first step.
    pub before: Option<Histogram>,
    /// Of the trained model.
    pub after: Option<Histogram>,
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn only_a_start_that_rfc_3339_can_write_has_a_text() {
        let started_at = |started| {
            RunReport {
                started,
                ..RunReport::default()
            }
            .started_at()
        };
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(started_at(None), None);
        assert_eq!(started_at(Some(epoch - Duration::from_secs(1))), None);
        assert_eq!(
            started_at(epoch.checked_add(Duration::from_secs(1 << 40))),
            None
        );
        assert_eq!(
            started_at(Some(epoch + Duration::from_secs(86_400))).as_deref(),
            Some("1970-01-02T00:00:00Z")
        );
    }
}
