//! What several objectives make of pairs and of their reductions: positives, sums of log-sum-exps,
//! the hardest pairs.

use burn::backend::Dispatch;
use burn::tensor::{Bool, Int, Tensor};

use super::chunked::pool;
use super::expr::Expr;
use super::ops::exact_product;
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
    let [a, b] = [&pairs.a, &pairs.b].map(|x| x.clone().values());
    let tokens = pairs.tokens;
    let similarity = pairs.similarity().except(left_out);
    let found = pairs
        .constant()
        .reduce(&[rows().max(&similarity), columns().max(&similarity)]);
    let index = |found: &[Tensor<1>]| found[1].clone().int();
    let [by_row, by_column] = [index(&found[..2]), index(&found[2..])];
    let of_rows = rowwise(a.clone(), b.clone().select(0, by_row.clone()), tokens);
    let of_columns = rowwise(a.select(0, by_column.clone()), b, tokens);
    let hardest = |found: &[Tensor<1>], similarity: Tensor<1>, index| {
        let nothing = found[0].clone().equal_elem(f64::NEG_INFINITY);
        Hardest {
            similarity: similarity.mask_fill(nothing, f64::NEG_INFINITY),
            index,
        }
    };
    [
        hardest(&found[..2], of_rows, by_row),
        hardest(&found[2..], of_columns, by_column),
    ]
}

/// The similarity of row `i` of `a` with row `i` of `b`, `[N]`, in plain operations.
fn rowwise(a: Tensor<2>, b: Tensor<2>, tokens @ [p, t]: [usize; 2]) -> Tensor<1> {
    if tokens == [1, 1] {
        return (a * b).sum_dim(1).squeeze_dim::<1>(1);
    }
    let [n, width] = a.dims();
    let d = width / p;
    let products = exact_product(a.reshape([n, p, d]), b.reshape([n, t, d]).transpose());
    let products = products.reshape([n * p, t]).into_dispatch();
    Tensor::<2>::from_dispatch(pool::<Dispatch>(products, tokens).0).squeeze_dim(1)
}
