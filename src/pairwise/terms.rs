//! What the products of a pass multiply: numbers as they are, or as sums of rounded ones.

use burn::tensor::DType;

use super::Precision;
use crate::check::compute_dtype;

/// A matrix as the sum of so many of this type: each is the rounded rest of those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub dtype: DType,
    pub count: usize,
}

impl Terms {
    /// Of nothing.
    #[cfg_attr(not(feature = "_cube"), allow(dead_code))]
    pub const NONE: Self = Self::new(DType::F32, 0);

    const fn new(dtype: DType, count: usize) -> Self {
        Self { dtype, count }
    }

    /// Which terms of two matrices are multiplied: products of two small ones are below the
    /// rounding of the others.
    #[cfg_attr(not(feature = "_cube"), allow(dead_code))]
    pub fn multiplied(left: usize, right: usize) -> impl Iterator<Item = [usize; 2]> {
        Self::multiplied_below(left, right, left.max(right))
    }

    /// Those whose indices add up to less than `end`.
    pub fn multiplied_below(
        left: usize,
        right: usize,
        end: usize,
    ) -> impl Iterator<Item = [usize; 2]> {
        let pairs = (0..left).flat_map(move |i| (0..right).map(move |j| [i, j]));
        pairs.filter(move |[i, j]| i + j < end)
    }
}

/// The factors of the products of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Factors {
    /// Embeddings, multiplied with one another.
    pub similarity: Terms,
    /// Embeddings, multiplied by coefficients.
    pub gradient: Terms,
    /// Coefficients; `None` where they take the place of the similarities, in their type.
    pub coefficient: Option<Terms>,
}

impl Factors {
    /// For embeddings of that dtype, on a device that multiplies `matrix_units`.
    ///
    /// A bf16 holds 8 significant bits: three make an f32, two an f16 or 16 bits of an f32. Without
    /// an instruction for a type rounding would cost time and digits, and gain nothing.
    pub fn new(embeddings: DType, precision: Precision, matrix_units: &[DType]) -> Self {
        let has_bf16 = matrix_units.contains(&DType::BF16);
        let wide = Terms::new(compute_dtype(embeddings), 1);
        let in_full = Self {
            similarity: wide,
            gradient: wide,
            coefficient: None,
        };
        // How many bf16 a coefficient is.
        let count = match precision {
            Precision::Highest => 3,
            Precision::High => 2,
            Precision::Medium => 1,
        };
        let bf16 = |count| Terms::new(DType::BF16, count);
        let rounded = |similarity, gradient| Self {
            similarity,
            gradient: bf16(gradient),
            coefficient: Some(bf16(count)),
        };
        match embeddings {
            DType::BF16 if has_bf16 => rounded(bf16(1), 1),
            DType::F16 if matrix_units.contains(&DType::F16) => {
                let exact = Terms::new(DType::F16, 1);
                if has_bf16 {
                    // Not as f16, whose range coefficients would leave.
                    rounded(exact, count.min(2))
                } else {
                    Self {
                        similarity: exact,
                        ..in_full
                    }
                }
            }
            // An f16 is the sum of two bf16. By coefficients of three those make five products,
            // which take as long as one of f32.
            DType::F16 if has_bf16 && precision != Precision::Highest => rounded(bf16(2), 2),
            DType::F16 | DType::F64 => in_full,
            _ if has_bf16 && precision != Precision::Highest => rounded(bf16(count), count),
            _ => in_full,
        }
    }
}
