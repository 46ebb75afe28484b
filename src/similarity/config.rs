//! How an objective compares embeddings: what all objectives share.

use burn::config::Config;
use burn::module::Content;
use burn::tensor::Tensor;

use super::Embeddings;
use crate::pairwise::{DEFAULT_MEMORY_BUDGET, Evaluation, Pairs, Precision};

/// How an objective compares embeddings, and how much memory that may take.
#[derive(Config, Copy, Debug, PartialEq)]
pub struct SimilarityConfig {
    /// Whether embeddings are l2-normalised first, so that similarities are cosines; otherwise they
    /// are dot products. Default true.
    #[config(default = true)]
    pub normalize: bool,
    /// How the similarities are evaluated. Default: streaming, `O(N·D)` memory and the budget
    /// below.
    #[config(default = "Evaluation::Auto")]
    pub evaluation: Evaluation,
    /// Bytes of similarities that may exist at a time. Default 1 GiB.
    #[config(default = "DEFAULT_MEMORY_BUDGET")]
    pub memory_budget: usize,
    /// The precision of matrix products. Default: the highest, f32 stays f32.
    #[config(default = "Precision::Highest")]
    pub precision: Precision,
}

impl Default for SimilarityConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl SimilarityConfig {
    /// Embeddings ready to be compared, by direction if [`normalize`](Self::normalize) says so.
    ///
    /// # Shapes
    ///
    /// - `embeddings`: `[N, D]`
    pub fn prepare(&self, embeddings: Tensor<2>) -> Embeddings {
        self.prepare_above(embeddings, 0.0)
    }

    /// [`prepare`](Self::prepare) which normalises to `x / max(‖x‖, least)`: a row of smaller norm
    /// becomes shorter than 1.
    pub(crate) fn prepare_above(&self, embeddings: Tensor<2>, least: f64) -> Embeddings {
        if self.normalize {
            Embeddings::directions(embeddings, least)
        } else {
            embeddings.into()
        }
    }

    /// All pairs of embeddings that [`prepare`](Self::prepare) returned.
    ///
    /// # Panics
    ///
    /// As [`Pairs::new`].
    #[track_caller]
    pub fn pairs(&self, a: impl Into<Embeddings>, b: impl Into<Embeddings>) -> Pairs {
        self.evaluate(Pairs::of(a.into(), b.into()))
    }

    /// All pairs within one set of embeddings that [`prepare`](Self::prepare) returned.
    ///
    /// # Panics
    ///
    /// As [`Pairs::within`].
    #[track_caller]
    pub fn pairs_within(&self, a: impl Into<Embeddings>) -> Pairs {
        self.evaluate(Pairs::of_within(a.into()))
    }

    /// What it says, for the display of an objective.
    pub(crate) fn show(&self, content: Content) -> Content {
        content
            .add("normalize", &self.normalize)
            .add("evaluation", &format!("{:?}", self.evaluation))
    }

    pub(super) fn evaluate(&self, pairs: Pairs) -> Pairs {
        pairs
            .with_evaluation(self.evaluation)
            .with_memory_budget(self.memory_budget)
            .with_precision(self.precision)
    }
}
