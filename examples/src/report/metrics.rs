//! `metrics.json`: the results of a run for programs.

use serde::{Deserialize, Serialize};

use super::{
    Accuracy, AnswerExample, Change, Curves, Dataset, Fact, Maps, NamedHistogram, ParameterCount,
    RetrievalScores, RunReport, Similarities, Stage, Sweep, Table, Weights,
};

/// The results of a run, as `metrics.json` holds them. [The module](super) documents every key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Version of this layout, [`Metrics::SCHEMA`].
    pub schema: u32,
    /// Heading of the report.
    pub title: String,
    /// Command line that starts this run again.
    pub command: String,
    /// Device that computed.
    pub device: String,
    /// Start of the run in UTC, RFC 3339.
    pub started: Option<String>,
    /// Seconds of all stages.
    #[serde(with = "crate::number::or_null")]
    pub seconds: f64,
    /// Seconds of each stage.
    pub stages: Vec<Stage>,
    /// Number of all parameters.
    pub parameters: u64,
    /// Number of parameters of each part of the model.
    pub parameters_by_part: Vec<ParameterCount>,
    /// What it was trained and tested on.
    pub dataset: Dataset,
    /// Retrieval on the held-out pairs.
    pub retrieval: RetrievalMetrics,
    /// Quantities over the optimisation steps.
    pub curves: Curves,
    /// Similarities of held-out pairs.
    pub similarities: Similarities,
    /// Held-out pairs as points of a plane.
    #[serde(default)]
    pub maps: Maps,
    /// The run's complete configuration.
    pub config: serde_json::Value,
    /// The settings that changed when the run was resumed.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// Single figures by name.
    #[serde(default)]
    pub facts: Vec<Fact>,
    /// How often the model answers right.
    #[serde(default)]
    pub accuracy: Option<Accuracy>,
    /// Some questions with what the trained model answered.
    #[serde(default)]
    pub answers: Vec<AnswerExample>,
    /// Contrastive weights of the negatives.
    #[serde(default)]
    pub weights: Option<Weights>,
    /// Results by the value of one parameter each.
    #[serde(default)]
    pub sweeps: Vec<Sweep>,
    /// Figures that runs are compared by besides recall and accuracy, the one that says most last.
    #[serde(default)]
    pub compared: Vec<Fact>,
    /// Tables of what else was measured.
    #[serde(default)]
    pub tables: Vec<Table>,
    /// Similarities by class.
    #[serde(default)]
    pub histograms: Vec<NamedHistogram>,
}

/// Retrieval on the held-out pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetrievalMetrics {
    /// Which pairs were searched.
    pub split: String,
    /// Number of images searched.
    pub images: u64,
    /// Number of captions searched.
    pub captions: u64,
    /// What a random order scores.
    pub chance: Option<ScoresWithSum>,
    /// The model before its first step.
    pub before: Option<ScoresWithSum>,
    /// The trained model.
    pub after: Option<ScoresWithSum>,
    /// The trained model, its first results reordered by matching.
    #[serde(default)]
    pub reranked: Option<ScoresWithSum>,
    /// How many of the first results were reordered.
    #[serde(default)]
    pub reranked_top: Option<u64>,
}

/// Scores of both directions and the sum of the six recalls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoresWithSum {
    /// The scores.
    #[serde(flatten)]
    pub scores: RetrievalScores,
    /// Sum of the six recalls.
    #[serde(with = "crate::number::or_null")]
    pub r_sum: f64,
}

impl Metrics {
    /// Version of the layout; every change of the keys raises it. 2 has all keys of 1, with the
    /// same meaning, and new ones: files of 1 are read, with nothing under the new keys.
    pub const SCHEMA: u32 = 2;

    /// The figures that runs of one program are compared by, with their names. The last is the one
    /// that says most: of its own where it has some, else R@sum of a run that retrieves.
    pub fn figures(&self) -> Vec<(&str, f64)> {
        let mut figures = Vec::new();
        if let Some(accuracy) = &self.accuracy {
            figures.push(("accuracy", accuracy.after));
        }
        if let Some(after) = &self.retrieval.after {
            let both = [after.scores.image_to_text, after.scores.text_to_image];
            let [there, back] = both.map(|scores| scores.recall_at_1);
            figures.extend([
                ("R@1 image → text", there),
                ("R@1 text → image", back),
                ("R@sum", after.r_sum),
            ]);
        }
        let own = self.compared.iter();
        figures.extend(own.map(|fact| (fact.name.as_str(), fact.value)));
        figures
    }
}

impl From<RetrievalScores> for ScoresWithSum {
    fn from(scores: RetrievalScores) -> Self {
        Self {
            scores,
            r_sum: scores.r_sum(),
        }
    }
}

impl From<&RunReport> for Metrics {
    fn from(run: &RunReport) -> Self {
        let retrieval = &run.retrieval;
        Self {
            schema: Self::SCHEMA,
            title: run.title.clone(),
            command: run.command.clone(),
            device: run.device.clone(),
            started: run.started_at(),
            seconds: run.seconds_total(),
            stages: run.stages.clone(),
            parameters: run.parameter_total(),
            parameters_by_part: run.parameters.clone(),
            dataset: run.dataset.clone(),
            retrieval: RetrievalMetrics {
                split: retrieval.split.clone(),
                images: retrieval.images,
                captions: retrieval.captions,
                chance: retrieval.chance.map(Into::into),
                before: retrieval.before.map(Into::into),
                after: retrieval.after.map(Into::into),
                reranked: retrieval.reranked.map(Into::into),
                reranked_top: retrieval.reranked_top,
            },
            curves: run.curves.clone(),
            similarities: run.similarities.clone(),
            maps: run.maps.clone(),
            config: run.config.clone(),
            changes: run.changes.clone(),
            facts: run.facts.clone(),
            accuracy: run.accuracy.clone(),
            answers: run.answers.clone(),
            weights: run.weights.clone(),
            sweeps: run.sweeps.clone(),
            compared: run.compared.clone(),
            tables: run.tables.clone(),
            histograms: run.histograms.clone(),
        }
    }
}
