//! The reductions of one evaluation, and the passes that carry it out.

use std::sync::Arc;

use super::evaluation::Limits;
use super::expr::Expr;
use super::pass::{Named, Pass, Steps, Teacher};
use super::reduction::{Axis, Kind, Reduction};
use crate::workers::Workers;

/// Which inputs a gradient is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub left: bool,
    pub right: bool,
    pub rows: bool,
    pub columns: bool,
    pub scalars: bool,
}

impl Wanted {
    /// Whether similarities are worth keeping: coefficients will be computed of them.
    pub fn coefficients(self) -> bool {
        self.left || self.right
    }

    pub fn anything(self) -> bool {
        self.left || self.right || self.rows || self.columns || self.scalars
    }
}

/// The reductions of one evaluation, and how it may be carried out.
///
/// It becomes two passes: [`forward`](Self::forward), and [`backward`](Self::backward) from the
/// results and their gradients; or, for sums, one [`with_gradient`](Self::with_gradient).
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub reductions: Vec<Reduction>,
    /// How many vectors of rows, of columns, and how many scalars are bound.
    pub rows: usize,
    pub columns: usize,
    pub scalars: usize,
    /// Both sides are the same embeddings, and the expressions the same for (i, j) and (j, i).
    pub symmetric: bool,
    /// Whether the first vector of rows and of columns is what the similarities are multiplied by,
    /// `1/‖x‖`, and the second the same where it depends on `x`, else 0.
    pub has_norms: bool,
    /// Whether the third vector of rows is what rows of `a` are multiplied by before they are
    /// multiplied with `b`.
    pub has_scale: bool,
    /// The widths of the teachers.
    pub teachers: Vec<usize>,
    /// How many tokens a row of `a` and a row of `b` consist of: see [`Pass::tokens`].
    pub tokens: [usize; 2],
    pub limits: Limits,
    /// Those that the pairs are divided among.
    pub workers: Option<Arc<dyn Workers>>,
}

impl Form {
    /// The pass that reduces, and keeps similarities where a pass with coefficients follows.
    pub fn forward(&self, keep: bool) -> Pass {
        self.keeping(keep, self.pass(self.reductions.clone(), None))
    }

    /// One sweep with these reductions and this coefficient; no gradient is wanted yet.
    pub(super) fn pass(&self, mut reductions: Vec<Reduction>, coefficient: Option<Expr>) -> Pass {
        if self.symmetric {
            assert!(reductions.iter().all(|r| r.axis == Axis::Rows));
            let with_transpose = |r: Reduction| [r.transposed(), r].into_iter().rev();
            reductions = reductions.into_iter().flat_map(with_transpose).collect();
        }
        let [off_diagonal, on_diagonal] =
            [false, true].map(|on| Steps::new(&reductions, coefficient.as_ref(), Some(on)));
        Pass {
            named: Named::of([&off_diagonal, &on_diagonal]),
            teachers: Teacher::list(&self.teachers, [&off_diagonal, &on_diagonal]),
            off_diagonal,
            on_diagonal,
            reductions,
            coefficient,
            left: false,
            right: false,
            symmetric: self.symmetric,
            first_row: 0,
            tokens: self.tokens,
            only_totals: false,
            has_scale: self.has_scale,
            limits: self.limits,
        }
    }

    pub(super) fn keeping(&self, keep: bool, mut pass: Pass) -> Pass {
        pass.limits.kept = if keep { self.limits.kept } else { 0 };
        pass
    }

    /// Axis and nature of every result, in order: whether it is a log-sum-exp.
    pub fn results(&self) -> impl Iterator<Item = (Axis, bool)> {
        self.reductions.iter().flat_map(|r| {
            let is_log_sum_exp = [Kind::LogSumExp, Kind::SoftmaxMean].contains(&r.kind);
            (0..r.kind.results()).map(move |k| (r.axis, is_log_sum_exp && k == 0))
        })
    }

    /// Length of all results one after the other.
    pub fn result_len(&self, sizes: [usize; 2]) -> usize {
        self.results().map(|(axis, _)| axis.len(sizes)).sum()
    }
}
