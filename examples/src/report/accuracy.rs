//! How often a model answers right: questions about images, statements about pairs of them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::lossy;
use crate::number;

/// Accuracy on held-out questions. All accuracies are in percent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Which questions were answered: `test`.
    pub split: String,
    /// Number of questions.
    pub count: u64,
    /// Accuracy of the majority answer: of always giving the most frequent answer of the training
    /// split.
    #[serde(with = "number::or_null")]
    pub majority: f64,
    /// Accuracy of the model before its first step; `None` where not measured.
    pub before: Option<f64>,
    /// Accuracy of the trained model.
    #[serde(with = "number::or_null")]
    pub after: f64,
    /// The same questions by their kind; empty where they have none.
    pub by_kind: Vec<KindAccuracy>,
}

/// Accuracy on the questions of one kind, in percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindAccuracy {
    /// The kind: `colour`, `count`.
    pub kind: String,
    /// Number of questions of this kind.
    pub count: u64,
    /// Accuracy of the majority answer to this kind.
    #[serde(with = "number::or_null")]
    pub majority: f64,
    /// Accuracy of the trained model.
    #[serde(with = "number::or_null")]
    pub after: f64,
}

/// A question with what the trained model answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerExample {
    /// Files of the one or two images that it is about, in their order.
    #[serde(serialize_with = "lossy::paths")]
    pub images: Vec<PathBuf>,
    /// The question, or the statement to judge.
    pub question: String,
    /// The right answer.
    pub expected: String,
    /// The model's answer.
    pub given: String,
    /// Probability that the model gave its answer, from 0 to 1.
    #[serde(with = "number::or_null")]
    pub confidence: f64,
    /// Whether the model's answer counts as right.
    pub is_right: bool,
}
