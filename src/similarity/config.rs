//! How an objective compares embeddings: what all objectives share.

use burn::config::Config;
use burn::module::Content;
use burn::tensor::Tensor;

use super::l2_normalize;
use super::normalize::l2_normalize_above;
use crate::check;
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
    /// The precision of matrix products. Default: full, f32 stays f32.
    #[config(default = "Precision::Full")]
    pub precision: Precision,
}

impl Default for SimilarityConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl SimilarityConfig {
    /// Embeddings ready to be compared: in the dtype to compute with (f64 for f64, f32 for
    /// everything else), normalised if [`normalize`](Self::normalize) says so.
    ///
    /// # Shapes
    ///
    /// - `embeddings`: `[N, D]`
    /// - returns `[N, D]`
    pub fn prepare(&self, embeddings: Tensor<2>) -> Tensor<2> {
        self.prepare_with(embeddings, l2_normalize)
    }

    /// [`prepare`](Self::prepare) which normalises to `x / max(‖x‖, epsilon)`: a row of smaller
    /// norm becomes shorter than 1.
    pub(crate) fn prepare_above(&self, embeddings: Tensor<2>, epsilon: f64) -> Tensor<2> {
        self.prepare_with(embeddings, |x| l2_normalize_above(x, epsilon))
    }

    fn prepare_with(
        &self,
        embeddings: Tensor<2>,
        normalize: impl FnOnce(Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let dtype = check::compute_dtype(embeddings.dtype());
        let embeddings = embeddings.cast(dtype);
        if self.normalize {
            normalize(embeddings)
        } else {
            embeddings
        }
    }

    /// All pairs of embeddings that [`prepare`](Self::prepare) returned.
    ///
    /// # Panics
    ///
    /// As [`Pairs::new`].
    #[track_caller]
    pub fn pairs(&self, a: Tensor<2>, b: Tensor<2>) -> Pairs {
        self.evaluate(Pairs::new(a, b))
    }

    /// All pairs within one set of embeddings that [`prepare`](Self::prepare) returned.
    ///
    /// # Panics
    ///
    /// As [`Pairs::within`].
    #[track_caller]
    pub fn pairs_within(&self, a: Tensor<2>) -> Pairs {
        self.evaluate(Pairs::within(a))
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
