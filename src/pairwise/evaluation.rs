//! How a reduction is evaluated, and how much memory that may take.

use burn::config::Config;

/// How the similarities of all pairs are evaluated. The results agree to rounding.
#[derive(Config, Copy, Debug, PartialEq, Eq)]
pub enum Evaluation {
    /// Streaming, and where a backward pass will follow, as many similarities as the memory budget
    /// holds are kept for it instead of being computed again (by the CPU's kernels: elsewhere
    /// nothing is kept). The default.
    Auto,
    /// In blocks, each forgotten after use: `O(N·D)` memory whatever the budget.
    Streaming,
    /// The whole matrix at once, with plain tensor operations and Burn's autodiff: several times
    /// `N·M` values. The reference that the others are tested against.
    Dense,
}

/// What the factors of matrix products are rounded to, on devices that have faster arithmetic for
/// it. Sums are in f32 in any case, and so is everything that is computed of a similarity.
///
/// The rounding shows in the similarities: at temperature 0.01 an error of 2⁻¹¹ in a cosine moves a
/// logit by 0.05. The CPU's kernels, f64, and devices without the type compute in full.
#[derive(Config, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// To nothing: f32 stays f32. The default.
    Full,
    /// To tf32, 11 significant bits: tensor cores of NVIDIA from Ampere on.
    Tf32,
    /// To bf16, 8 significant bits: the fastest, and half the memory traffic. For embeddings that
    /// come in bf16, or cosines at temperatures of 0.05 and more: as mixed-precision training
    /// elsewhere.
    Bf16,
}

/// The default memory budget, in bytes: 1 GiB.
pub const DEFAULT_MEMORY_BUDGET: usize = 1 << 30;

/// How much memory a pass may take, and how exact its products are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    #[cfg_attr(not(feature = "_cube"), allow(dead_code))] // Read by kernels.
    pub precision: Precision,
    /// Bytes of similarities that may exist at a time.
    #[cfg_attr(not(feature = "_cube"), allow(dead_code))]
    pub budget: usize,
    /// Of these, bytes for a block that is computed and forgotten.
    pub block: usize,
    /// Of these, bytes kept from the forward pass for the backward one.
    pub kept: usize,
}

/// The most that a block takes: 1,024 rows of 4,096 and the gaps between them, in f32.
const BLOCK: usize = 1024 * (4096 + 16) * 4;

impl Limits {
    /// For a matrix of `all` bytes.
    pub(super) fn new(
        evaluation: Evaluation,
        precision: Precision,
        budget: usize,
        all: usize,
    ) -> Self {
        let [block, kept] = match evaluation {
            // Where everything is kept (with some room between the rows) no block is in flight;
            // else the two share the budget.
            Evaluation::Auto if all + all / 32 <= budget => [BLOCK.min(budget), budget],
            Evaluation::Auto => {
                let block = BLOCK.min(budget / 2);
                [block, budget - block]
            }
            Evaluation::Streaming | Evaluation::Dense => [BLOCK.min(budget), 0],
        };
        Self {
            precision,
            budget,
            block,
            kept,
        }
    }
}
