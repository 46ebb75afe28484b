//! How a reduction is evaluated, and how much memory that may take.

use burn::config::Config;

/// How the similarities of all pairs are evaluated. The results agree to rounding.
#[derive(Config, Copy, Debug, PartialEq, Eq)]
pub enum Evaluation {
    /// Streaming, and where a backward pass will follow, as many similarities as the memory budget
    /// holds are kept for it instead of being computed again (by the CPU's kernels: elsewhere nothing
    /// is kept). The default.
    Auto,
    /// In blocks, each forgotten after use: `O(N·D)` memory whatever the budget.
    Streaming,
    /// The whole matrix at once, with plain tensor operations and Burn's autodiff: several times
    /// `N·M` numbers. The reference that the others are tested against.
    Dense,
}

/// What the factors of matrix products are rounded to, on devices that have faster arithmetic for it. Sums are
/// in f32 whatever is chosen, and so is everything that is computed of a similarity.
///
/// It counts at the similarities: at temperature 0.01 a rounding of 2⁻¹¹ in a cosine moves a logit by 0.05.
/// The CPU's kernels, f64, and devices without the type compute in full.
#[derive(Config, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// To nothing: f32 stays f32. The default.
    Full,
    /// To tf32, 11 significant bits: tensor cores of NVIDIA from Ampere on.
    Tf32,
    /// To bf16, 8 significant bits: the fastest, and half the memory traffic. Embeddings that come in bf16, cosines
    /// at temperatures of 0.05 and more: what mixed-precision training does elsewhere.
    Bf16,
}

/// The default memory budget, in bytes: 1 GiB.
pub const DEFAULT_MEMORY_BUDGET: usize = 1 << 30;

/// Bytes of the blocks that are computed and forgotten: 1,024 rows of 4,096 and what separates them, in f32.
const BLOCK: usize = 1024 * (4096 + 16) * 4;

impl Evaluation {
    /// Bytes for a block in flight and for kept similarities, of `all` bytes in the matrix.
    pub(super) fn memory(self, budget: usize, all: usize) -> [usize; 2] {
        match self {
            // Where everything is kept (with some room between the rows) no block is in flight; else
            // the two share the budget.
            Self::Auto if all + all / 32 <= budget => [BLOCK.min(budget), budget],
            Self::Auto => {
                let block = BLOCK.min(budget / 2);
                [block, budget - block]
            }
            Self::Streaming | Self::Dense => [BLOCK.min(budget), 0],
        }
    }
}
