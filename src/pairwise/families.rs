//! The reductions that the known objectives are made of, family by family.
//!
//! Each is a few lines over [`Pairs`]; an objective that none of them fits asks [`Pairs`] itself. All but
//! [`log_add_exp`] reduce along rows and columns: of pairs [`within`](Pairs::within) one set, where
//! the two are the same, ask [`Pairs::reduce`] for the rows.

use burn::tensor::{Bool, Int, Tensor};

use super::expr::Expr;
use super::form::{columns, rows};
use super::pairs::Pairs;

/// Which pairs are positives.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // One at a time, and not for long.
pub enum Positives {
    /// Row `i` and column `i`.
    Diagonal,
    /// No pair.
    None,
    /// Rows and columns that carry the same label, several an anchor maybe.
    Labels {
        /// `[N]`
        rows: Tensor<1, Int>,
        /// `[M]`
        columns: Tensor<1, Int>,
    },
    /// The pairs where the mask holds, `[N, M]`.
    Mask(Tensor<2, Bool>),
}

impl Positives {
    /// 1 for a positive pair, 0 for a negative one.
    #[track_caller]
    pub fn of(self, pairs: &mut Pairs) -> Expr {
        match self {
            Self::Diagonal => Expr::diagonal(),
            Self::None => Expr::constant(0.0),
            Self::Labels { rows, columns } => pairs.same_label(rows, columns),
            Self::Mask(mask) => pairs.mask(mask),
        }
    }
}

/// One number for each row and one for each column.
#[derive(Clone, Debug)]
pub struct BothWays {
    /// `[N]`
    pub rows: Tensor<1>,
    /// `[M]`
    pub columns: Tensor<1>,
}

impl BothWays {
    fn pair(results: Vec<Tensor<1>>) -> Self {
        let [rows, columns] = results.try_into().expect("two results");
        Self { rows, columns }
    }
}

/// **Softmax.** `log Σ e^logit` over each row and each column, the pairs where `left_out` is not 0
/// left out: of nothing, −∞.
///
/// InfoNCE and its relatives leave out the positives, and treat them apart.
#[track_caller]
pub fn softmax(pairs: Pairs, logit: &Expr, left_out: &Expr) -> BothWays {
    let logit = logit.except(left_out);
    BothWays::pair(pairs.reduce(&[rows().log_sum_exp(&logit), columns().log_sum_exp(&logit)]))
}

/// **Several blocks.** `log (e^x + e^y + …)`, element by element: joins the log-sum-exps of blocks that
/// share their anchors. −∞ where all are.
///
/// # Shapes
///
/// - `groups`: `[N]` each, one or more
///
/// # Panics
///
/// Without any group.
#[track_caller]
pub fn log_add_exp(groups: &[Tensor<1>]) -> Tensor<1> {
    let (first, others) = groups
        .split_first()
        .expect("log_add_exp: there is nothing to add, it needs one group at least");
    let max = others.iter().fold(first.clone().detach(), |max, group| {
        max.max_pair(group.clone().detach())
    });
    // Differences from a finite number: −∞ − −∞ is not 0.
    let nothing = max.clone().equal_elem(f64::NEG_INFINITY);
    let shift = max.mask_fill(nothing.clone(), 0.0);
    let sum = others
        .iter()
        .fold((first.clone() - shift.clone()).exp(), |sum, group| {
            sum + (group.clone() - shift.clone()).exp()
        });
    let log = sum.mask_fill(nothing.clone(), 1.0).log() + shift;
    log.mask_fill(nothing, f64::NEG_INFINITY)
}

/// **Weighted softmax.** `log Σ w·e^logit` over each row and each column, where the weights of a row
/// (and, anew, those of a column) are proportional to `e^log_weight` and have mean one.
///
/// Both sums of a row come out of one pass: `Σ w·e^z = n·Σ e^{z + l} / Σ e^l` with `l` the logarithm
/// of the unnormalised weight and `n` the number of pairs. Without [`detach`](Expr::detach), the
/// gradient flows through the weights too.
#[track_caller]
pub fn weighted_softmax(
    pairs: Pairs,
    logit: &Expr,
    log_weight: &Expr,
    left_out: &Expr,
) -> BothWays {
    let weighted = (logit + log_weight).except(left_out);
    let weights = log_weight.except(left_out);
    let count = taken(left_out);
    let results = pairs.reduce(&[
        rows().log_sum_exp(&weighted),
        rows().log_sum_exp(&weights),
        rows().sum(&count),
        columns().log_sum_exp(&weighted),
        columns().log_sum_exp(&weights),
        columns().sum(&count),
    ]);
    let normalised = |sums: &[Tensor<1>]| {
        let [weighted, weights, count] = sums else {
            unreachable!("three results")
        };
        weighted.clone() - log_mean(weights, count)
    };
    BothWays {
        rows: normalised(&results[..3]),
        columns: normalised(&results[3..]),
    }
}

/// 1 for the pairs that are not left out.
fn taken(left_out: &Expr) -> Expr {
    Expr::select(left_out, &Expr::constant(0.0), &Expr::constant(1.0))
}

/// `log (Σ e^l / n)`, the logarithm of the mean weight; 0 over nothing, where weights do not matter.
pub(crate) fn log_mean(log_sum: &Tensor<1>, count: &Tensor<1>) -> Tensor<1> {
    let nothing = count.clone().equal_elem(0.0);
    let log_count = count.clone().mask_fill(nothing.clone(), 1.0).log();
    log_sum.clone().mask_fill(nothing, 0.0) - log_count
}

/// **Removal by weight.** `log Σ e^logit` over the pairs whose weight, as in [`weighted_softmax`], is at
/// least `threshold`: a row judges by the row's weights, a column by the column's. Two passes, since
/// the weights' sums come first; which pairs remain is a constant to the gradient.
#[track_caller]
pub fn softmax_above(
    pairs: Pairs,
    logit: &Expr,
    log_weight: &Expr,
    threshold: f64,
    left_out: &Expr,
) -> BothWays {
    let weights = log_weight.detach().except(left_out);
    let count = taken(left_out);
    // Without gradients nothing is kept for a backward pass.
    let sums = pairs.clone().constant().reduce(&[
        rows().log_sum_exp(&weights),
        rows().sum(&count),
        columns().log_sum_exp(&weights),
        columns().sum(&count),
    ]);
    // A weight over the mean is at least the threshold.
    let least = |log_sum: &Tensor<1>, count: &Tensor<1>| log_mean(log_sum, count) + threshold.ln();
    let mut pairs = pairs;
    let by_row = pairs.row(least(&sums[0], &sums[1]));
    let by_column = pairs.column(least(&sums[2], &sums[3]));
    let kept = |least: &Expr| {
        let removed = (least - log_weight.detach()).step();
        logit.except(&removed).except(left_out)
    };
    BothWays::pair(pairs.reduce(&[
        rows().log_sum_exp(&kept(&by_row)),
        columns().log_sum_exp(&kept(&by_column)),
    ]))
}

/// What [`soft_targets`] gives along one axis, each `[N]` (or `[M]`).
#[derive(Clone, Debug)]
pub struct SoftTargets {
    /// `log Σ e^logit`.
    pub log_sum_exp: Tensor<1>,
    /// `log Σ e^target`: with it, targets of several blocks are joined.
    pub target_log_sum_exp: Tensor<1>,
    /// The mean of `logit` under `softmax(target)`.
    pub mean_logit: Tensor<1>,
}

impl SoftTargets {
    /// Cross-entropy of `softmax(logit)` against `softmax(target)`, in nats.
    pub fn cross_entropy(&self) -> Tensor<1> {
        self.log_sum_exp.clone() - self.mean_logit.clone()
    }
}

/// **Soft targets.** What cross-entropy against the softmax of other logits is made of, along the rows
/// and along the columns, in one pass.
#[track_caller]
pub fn soft_targets(pairs: Pairs, logit: &Expr, target: &Expr) -> [SoftTargets; 2] {
    let results = pairs.reduce(&[
        rows().log_sum_exp(logit),
        rows().softmax_mean(target, logit),
        columns().log_sum_exp(logit),
        columns().softmax_mean(target, logit),
    ]);
    [&results[..3], &results[3..]].map(|results| {
        let [log_sum_exp, target_log_sum_exp, mean_logit] = results else {
            unreachable!("three results")
        };
        SoftTargets {
            log_sum_exp: log_sum_exp.clone(),
            target_log_sum_exp: target_log_sum_exp.clone(),
            mean_logit: mean_logit.clone(),
        }
    })
}

/// What [`hardest`] gives along one axis.
#[derive(Clone, Debug)]
pub struct Hardest {
    /// The similarity of the pair, differentiable; −∞ where every pair is left out.
    pub similarity: Tensor<1>,
    /// Its column (or row), the lowest of equals; on the device without autodiff.
    pub index: Tensor<1, Int>,
}

/// **Hardest.** The pair with the largest similarity of each row and of each column, the pairs where
/// `left_out` is not 0 left out.
///
/// One pass finds the pairs; their similarities are then computed again by plain operations over
/// `N + M` pairs, which autodiff differentiates: the gradient reaches one pair of each row and column,
/// in `O(N·D)`.
#[track_caller]
pub fn hardest(pairs: Pairs, left_out: &Expr) -> [Hardest; 2] {
    let (a, b) = (pairs.a.clone(), pairs.b.clone());
    let similarity = pairs.similarity().except(left_out);
    let found = pairs
        .constant()
        .reduce(&[rows().max(&similarity), columns().max(&similarity)]);
    let hardest = |found: &[Tensor<1>], anchors: &Tensor<2>, others: &Tensor<2>| {
        let index = found[1].clone().int();
        let closest = others.clone().select(0, index.clone());
        let similarity = (anchors.clone() * closest).sum_dim(1).squeeze_dim::<1>(1);
        let nothing = found[0].clone().equal_elem(f64::NEG_INFINITY);
        Hardest {
            similarity: similarity.mask_fill(nothing, f64::NEG_INFINITY),
            index,
        }
    };
    [hardest(&found[..2], &a, &b), hardest(&found[2..], &b, &a)]
}
