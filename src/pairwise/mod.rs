//! Reductions over all pairs of two sets of embeddings: the engine under the objectives.
//!
//! An objective touches the similarity matrix `S = A·Bᵀ` only through reductions over its rows and
//! columns. So it states what it computes of one pair, as an [`Expr`], asks [`Pairs`] for
//! reductions of that, and does the rest with `O(N)` tensors:
//!
//! ```
//! # use burn::tensor::{Device, Distribution, Tensor};
//! use burn_contrastive::pairwise::{Expr, Pairs, columns, rows};
//! # let device = Device::default();
//! # let image = Tensor::<2>::random([8, 4], Distribution::Default, &device);
//! # let text = Tensor::<2>::random([8, 4], Distribution::Default, &device);
//! # let margin = 0.2;
//!
//! // The sum of hinges: every negative closer than the positive by less than a margin costs.
//! let positive = (image.clone() * text.clone()).sum_dim(1).squeeze_dim::<1>(1);
//! let mut pairs = Pairs::new(image, text);
//! let (c, by_row, by_column) =
//!     (pairs.similarity(), pairs.row(positive.clone()), pairs.column(positive));
//! let hinge = |own: &Expr| {
//!     let cost = (&(&c - own) + margin).relu();
//!     Expr::select(&Expr::diagonal(), &Expr::constant(0.0), &cost)
//! };
//! let loss = pairs.total(&(hinge(&by_row) + hinge(&by_column)));
//! assert_eq!(loss.dims(), [1]);
//! ```
//!
//! No `N×M` matrix exists, forward or backward: the matrix is computed in blocks, each reduced and,
//! in the backward pass, turned into its coefficients `∂L/∂s_ij` (the expression's derivative) and
//! multiplied into the gradients. `docs/architecture.md` has a picture,
//! `docs/adding-an-objective.md` a walk through an objective of one's own.

mod autodiff;
mod backward;
mod blocks;
mod chunked;
#[cfg(feature = "_cpu")]
mod cpu;
#[cfg(feature = "_cube")]
mod cube;
mod divided;
mod evaluation;
mod expr;
mod families;
mod form;
mod ops;
mod pairs;
mod pass;
mod reduction;
mod tape;
#[cfg(any(feature = "_cpu", feature = "_cube"))]
mod terms;

pub use evaluation::{DEFAULT_MEMORY_BUDGET, Evaluation, Precision};
pub use expr::Expr;
pub(crate) use families::log_mean;
pub use families::{Hardest, Positives, hardest, log_add_exp};
pub(crate) use ops::exact_product;
pub use pairs::Pairs;
pub(crate) use pairs::{row_norms, share_memory_budget};
pub use reduction::{Along, Reduction, columns, rows};
