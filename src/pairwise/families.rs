//! What several objectives make of pairs and of their reductions: positives, sums of log-sum-exps,
//! the hardest pairs.

use burn::tensor::{Bool, Int, Tensor};

use super::expr::Expr;
use super::pairs::Pairs;
use super::reduction::{columns, rows};

/// Which pairs are positives.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // There is one at a time.
pub enum Positives {
    /// Row `i` and column `i`.
    Diagonal,
    /// No pair.
    None,
    /// Rows and columns that carry the same label, maybe several for an anchor.
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

/// `log (e^x + e^y + …)`, element by element: the log-sum-exp of several sets of candidates from
/// theirs. −∞ where all are.
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
    // Differences from a finite value: −∞ − −∞ is not 0.
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

/// `log (Σ e^l / n)`, the logarithm of the mean weight; 0 over nothing, where weights do not
/// matter.
pub(crate) fn log_mean(log_sum: &Tensor<1>, count: &Tensor<1>) -> Tensor<1> {
    let nothing = count.clone().equal_elem(0.0);
    let log_count = count.clone().mask_fill(nothing.clone(), 1.0).log();
    log_sum.clone().mask_fill(nothing, 0.0) - log_count
}

/// What [`hardest`] gives along one axis.
#[derive(Clone, Debug)]
pub struct Hardest {
    /// The similarity of the pair, differentiable; −∞ where every pair is left out.
    pub similarity: Tensor<1>,
    /// Its column (or row), the lowest of equals; on the device without autodiff.
    pub index: Tensor<1, Int>,
}

/// The pair with the largest similarity of each row and of each column, the pairs where
/// `left_out` is not 0 left out.
///
/// One pass finds the pairs; their similarities are then computed again by plain operations over
/// `N + M` pairs, which autodiff differentiates: the gradient reaches one pair of each row and
/// column, in `O(N·D)`.
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
