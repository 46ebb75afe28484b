//! The results of a run for people (`report.html`) and for programs (`metrics.json`).
//!
//! A run fills in one plain struct, [`RunReport`], and calls [`RunReport::write`].
//!
//! `report.html` is one file without references: styles, charts (SVG) and thumbnails are inside, so
//! that it opens anywhere, offline, and can be mailed or archived.
//!
//! # metrics.json
//! Every value is finite or `null`. Recall is in percent, ranks count from one, time is in
//! seconds. A curve that a run does not have, as the logit scale of many objectives, is empty.
//!
//! | key | value |
//! |---|---|
//! | `schema` | version of this layout: [`Metrics::SCHEMA`] |
//! | `title`, `command`, `device` | text |
//! | `started` | start of the run in UTC, RFC 3339, or `null` |
//! | `seconds`, `stages[].{name, seconds}` | duration of the run and of each stage |
//! | `parameters`, `parameters_by_part[].{part, count}` | number of parameters |
//! | `dataset.{name, splits[].{name, images, captions}}` | what it was trained and tested on |
//! | `retrieval.{split, images, captions}` | the held-out pairs that were searched |
//! | `retrieval.{chance, before, after}` | scores, or `null` where not measured |
//! | … `.{image_to_text, text_to_image}.{recall_at_1, recall_at_5, recall_at_10}` | percent |
//! | … `.{image_to_text, text_to_image}.{median_rank, mean_rank}` | ranks from 1 |
//! | … `.r_sum` | sum of the six recalls, 600 at best |
//! | `retrieval.{reranked, reranked_top}` | the first `reranked_top` reordered, or `null` |
//! | `curves.{loss, validation_loss, learning_rate, logit_scale}[]` | `step`, `value` |
//! | `curves.validation[]` | `step`, `scores.{image_to_text, text_to_image}` as above |
//! | `curves.losses[].{name, curve[]}` | the parts of the loss, each `step`, `value` |
//! | `curves.figures[].{name, curve[]}` | other figures over training, each `step`, `value` |
//! | … `.reference.{label, value}` | what it is compared with, or `null` |
//! | `similarities.{before, after}` | histograms of the cosines, or `null` |
//! | … `.{low, high}` | the range, divided into equal bins |
//! | … `.{positive[], negative[]}` | pairs in each bin |
//! | … `.{positive_mean, negative_mean}` | means |
//! | `maps.{before, after}` | held-out pairs as points of a plane, by t-SNE, or `null` |
//! | … `.{images[], captions[]}` | `x`, `y` of each; a caption belongs to the image of its place |
//! | `config` | the run's complete configuration |
//! | `changes[].{step, setting, from, to}` | settings changed when it was resumed |
//! | `facts[].{name, value, unit}` | single figures; `unit` is text or `null` |
//! | `accuracy` | how often it answers right, or `null` |
//! | … `.{split, count}` | the held-out questions |
//! | … `.{majority, before, after}` | percent: the most frequent answer, the model |
//! | … `.by_kind[].{kind, count, majority, after}` | the same of each kind of question |
//! | `answers[].{images[], question}` | some questions, with one or two files |
//! | … `.{expected, given, is_right}` | the right one, the model's, whether it is right |
//! | … `.confidence` | probability that the model gave its answer, 0 to 1 |
//! | `weights` | contrastive weights of the negatives, or `null` |
//! | … `.{low, high}` | the range, divided into equal bins |
//! | … `.{all[], known_false[]}` | negatives in each bin: all, and those known to match |
//! | … `.{mean, mean_of_known_false}` | means |
//! | … `.auc` | chance that a known false negative weighs less, 0 to 1, or `null` |
//! | … `.lowest[].{anchor_image, anchor_text}` | who is contrasted; file, text or `null` |
//! | … `.lowest[].{candidate_image, candidate_text}` | the negative; file, text or `null` |
//! | … `.lowest[].{weight, is_false_negative}` | its weight, whether it is known to match |
//! | `sweeps[].{title, parameter, columns[]}` | text: what differs, what was measured |
//! | … `.rows[].{value, numbers[], numeric}` | a value as text, a number by column, as a number |
//! | … `.rows[].runs[].{name, numbers[]}` | the runs of a row that is a mean of several |
//! | … `.rows[].{deviations[], standard_errors[]}` | of these runs, and of their mean, by column |
//! | … `.baseline` | a row to compare with, or `null` |
//! | `compared[].{name, value, unit}` | what runs are compared by, as `facts` |
//! | `tables[].{title, lead, rows_are, columns[]}` | text: what else was measured |
//! | … `.rows[].{name, numbers[]}` | what is measured, a number by column |
//! | `histograms[].{name, histogram}` | cosines by class, as in `similarities` |

mod accuracy;
pub(crate) mod chart;
mod curve;
mod examples;
mod histogram;
pub(crate) mod html;
mod library;
mod lossy;
mod map;
mod metrics;
pub(crate) mod palette;
mod retrieval;
mod run;
mod search;
mod sweep;
mod table;
#[cfg(test)]
mod tests;
mod thumbnail;
mod weights;
mod zero_shot;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::files;

pub use accuracy::{Accuracy, AnswerExample, KindAccuracy};
pub use curve::{Curve, NamedCurve, Point, Reference};
pub use examples::{CaptionQuery, Examples, ImageQuery, RankedCaption, RankedImage};
pub use histogram::Histogram;
pub use map::{MAP_PAIRS, Map, Maps};
pub use metrics::{Metrics, RetrievalMetrics, ScoresWithSum};
pub use retrieval::{DirectionScores, Retrieval, RetrievalScores};
pub use run::{
    Change, Curves, Dataset, Fact, ParameterCount, RunReport, Similarities, Split, Stage,
    Validation,
};
pub use search::{Hits, SearchPage};
pub use sweep::{Sweep, SweepRow, SweepRun};
pub use table::{NamedHistogram, Table, TableRow};
pub use weights::{WeightExample, Weights};
pub use zero_shot::{
    ClassResult, ClassScores, Classified, Confusion, ZeroShotExample, ZeroShotReport,
    ZeroShotSources,
};

impl RunReport {
    /// Writes `report.html` and `metrics.json` into `directory`, which is created if need be. Each
    /// file appears complete or not at all.
    pub fn write(&self, directory: impl AsRef<Path>) -> Result<()> {
        let directory = directory.as_ref();
        fs::create_dir_all(directory)
            .with_context(|| format!("{}: could not be created", directory.display()))?;
        let mut metrics = serde_json::to_vec_pretty(&Metrics::from(self))?;
        metrics.push(b'\n');
        files::write(&directory.join("metrics.json"), &metrics)?;
        files::write(&directory.join("report.html"), self.to_html().as_bytes())
    }

    /// The page of `report.html`. Reads the images of the examples; in place of one that cannot be
    /// read, the page says so.
    pub fn to_html(&self) -> String {
        html::page(self)
    }
}
