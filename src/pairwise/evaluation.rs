//! How a reduction is evaluated, and how much memory that may take.

#[cfg(any(feature = "_cpu", feature = "_cube"))]
use burn::backend::DispatchDevice;
use burn::config::Config;
#[cfg(feature = "_cpu")]
use burn::tensor::DType;
use burn::tensor::Device;

#[cfg(feature = "_cpu")]
use super::cpu;
#[cfg(feature = "_cube")]
use super::cube;

/// How the similarities of all pairs are evaluated. The results agree to rounding.
#[derive(Config, Copy, Debug, PartialEq, Eq)]
pub enum Evaluation {
    /// Streaming, and where a backward pass will follow, as many similarities as the memory budget
    /// holds are kept for it instead of being computed again: by a GPU's kernels all or none, and
    /// by passes in plain operations none. The default.
    Auto,
    /// In blocks, each forgotten after use: `O(N·D)` memory whatever the budget.
    Streaming,
    /// The whole matrix at once, with plain tensor operations and Burn's autodiff: several times
    /// `N·M` values. The reference that the others are tested against.
    Dense,
}

/// How exact matrix products are: what may be rounded where a device multiplies rounded numbers
/// faster. One meaning on every device, and a permission: a device that would gain nothing computes
/// in f32 whatever is asked.
///
/// Sums are in f32 in any case, and so is everything that is computed of a similarity. Embeddings
/// in half precision are multiplied exactly at every level, as they are where a device gains by it.
/// f64 is never rounded. [`is_rounded_on`](Self::is_rounded_on) says what a level does on a device;
/// `docs/numerics.md` which devices have what.
///
/// In JSON, as the parameter `precision` of an objective by name, `"highest"`, `"high"`,
/// `"medium"`. The names are those of PyTorch's `set_float32_matmul_precision`.
#[derive(Config, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Nothing is rounded: f32 stays f32. The default.
    Highest,
    /// f32 as the sum of two bf16, 16 significant bits: three products on matrix units in the place
    /// of one without.
    High,
    /// f32 as bf16, 8 significant bits: the fastest, and half the memory traffic. For cosines at
    /// temperatures of 0.05 and more, as mixed-precision training elsewhere: at temperature 0.01 an
    /// error of 2⁻⁹ in a cosine moves a logit by 0.2.
    Medium,
}

impl Precision {
    /// Whether products of f32 embeddings are rounded at this level on a device: whether it
    /// multiplies bf16 faster, and this crate is built with its backend. Elsewhere the level is
    /// f32.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::Device;
    /// use burn_contrastive::pairwise::Precision;
    ///
    /// let device = Device::default();
    /// assert!(!Precision::Highest.is_rounded_on(&device));
    /// // Where a CPU has matrix instructions, and on most GPUs.
    /// println!("high is rounded: {}", Precision::High.is_rounded_on(&device));
    /// ```
    pub fn is_rounded_on(self, device: &Device) -> bool {
        match device.clone().inner().as_dispatch() {
            #[cfg(feature = "flex")]
            DispatchDevice::Flex(_) => cpu::multiplies_as_bf16(DType::F32, self),
            #[cfg(feature = "ndarray")]
            DispatchDevice::NdArray(_) => cpu::multiplies_as_bf16(DType::F32, self),
            #[cfg(feature = "_cube")]
            DispatchDevice::Cube(device) => cube::multiplies_as_bf16(device, self),
            #[allow(unreachable_patterns)] // With every backend of Burn's on.
            _ => false,
        }
    }
}

/// The default memory budget, in bytes: 1 GiB.
pub const DEFAULT_MEMORY_BUDGET: usize = 1 << 30;

/// How much memory a pass may take, and how exact its products are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    // Read by kernels.
    #[cfg_attr(not(any(feature = "_cpu", feature = "_cube")), allow(dead_code))]
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
