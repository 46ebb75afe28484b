//! Products by a processor's instructions for matrices: 32 × 32 sums at a time, in f32.
//!
//! A factor is given as [strips](STRIP) of 16 rows (of a right factor: columns), each a sequence of
//! *steps* along the sum. A step holds the terms of its elements, one [block](BLOCK) of words each:
//! 16 × 32 [elements](Elements) in bf16, of which two consecutive ones of the sum share a word, the
//! first in its low half; or 16 × 16 in f32. The words of a left block are ordered by rows, those of
//! a right block by words of the sum.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(test)]
mod emulated;

use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
pub(super) use self::avx512::transpose;
use crate::pairwise::terms::Terms;

/// Rows, or columns, of a strip.
pub(super) const STRIP: usize = 16;
/// Words of a block: 16 rows of 16.
pub(super) const BLOCK: usize = STRIP * STRIP;
/// Rows and columns of the sums that are computed at a time.
pub(super) const SIDE: usize = 2 * STRIP;

/// What the elements of a factor are in the words of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elements {
    /// Themselves.
    F32,
    /// Sums of so many bf16, the terms.
    Bf16(usize),
}

impl Elements {
    /// How many of the sum are in a step.
    pub fn in_step(self) -> usize {
        match self {
            Self::F32 => STRIP,
            Self::Bf16(_) => 2 * STRIP,
        }
    }

    /// Blocks of a step.
    pub fn terms(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16(terms) => terms,
        }
    }
}

/// What multiplies matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Units {
    /// Intel's AMX, of bf16.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
    /// AVX-512 with products of bf16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// AVX-512, of f32.
    #[cfg(target_arch = "x86_64")]
    Avx512F32,
    /// AMX's arithmetic in plain code: for tests where there is none.
    #[cfg(test)]
    Emulated,
}

impl Units {
    /// Those of bf16 that passes use: of this processor. In tests that is AMX, emulated where there
    /// is none: either computes the same, to the bit.
    pub fn of_bf16() -> Option<Self> {
        #[cfg(test)]
        return match Self::of_processor() {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Some(Self::Amx) => Some(Self::Amx),
            _ => Some(Self::Emulated),
        };
        #[cfg(not(test))]
        Self::of_processor()
    }

    /// Those of bf16 of this processor, if it has any and the system lets this process use them.
    pub fn of_processor() -> Option<Self> {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if amx::is_granted() {
            return Some(Self::Amx);
        }
        #[cfg(target_arch = "x86_64")]
        if avx512::has_bf16() {
            return Some(Self::Avx512Bf16);
        }
        None
    }

    /// Those of f32 of this processor.
    pub fn of_f32() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if avx512::has_f32() {
            return Some(Self::Avx512F32);
        }
        None
    }

    /// How many of its products take as long as one of f32.
    pub fn rate(self) -> usize {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => 5,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => 2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512F32 => 1,
            #[cfg(test)]
            Self::Emulated => 5,
        }
    }

    /// Makes this thread ready to multiply.
    pub fn ready(self) -> Ready {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self == Self::Amx {
            amx::configure();
        }
        Ready {
            units: self,
            of_thread: PhantomData,
        }
    }
}

/// Which terms of two factors are multiplied.
#[derive(Clone, Debug)]
pub(super) struct Multiplied {
    /// Terms of the left and of the right factor.
    terms: [usize; 2],
    /// Bytes from step to step of each; then of each product the bytes from the beginning of the
    /// step to its terms; then [`END`].
    table: Vec<usize>,
}

/// The end of a table.
const END: usize = usize::MAX;

impl Multiplied {
    /// Of `left` and `right` terms those whose products count; all of them where `exact`.
    pub fn new(left: usize, right: usize, exact: bool) -> Self {
        let bytes = |blocks: usize| blocks * size_of::<[u32; BLOCK]>();
        let mut table = vec![bytes(left), bytes(right)];
        let most = if exact { left + right } else { left.max(right) };
        for [i, j] in Terms::multiplied_below(left, right, most) {
            table.extend([bytes(i), bytes(j)]);
        }
        table.push(END);
        Self {
            terms: [left, right],
            table,
        }
    }

    /// How many products that is.
    pub fn count(&self) -> usize {
        self.table.len() / 2 - 1
    }

    /// The words of so many steps of each factor.
    fn words(&self, steps: usize) -> [usize; 2] {
        self.terms.map(|terms| steps * terms * BLOCK)
    }
}

/// What is multiplied, and where it goes: `dst = left · right`, or `dst += left · right`, 32 × 32
/// sums of so many steps, of two strips each.
pub(super) struct Product<'a> {
    pub multiplied: &'a Multiplied,
    pub steps: usize,
    pub left: [&'a [u32]; 2],
    pub right: [&'a [u32]; 2],
    pub dst: *mut f32,
    /// From one row of `dst` to the next.
    pub stride: usize,
    pub accumulate: bool,
    /// How many of the rows count: in the others there may be anything.
    pub rows: usize,
}

/// A thread that is ready to multiply, until this is dropped.
pub(super) struct Ready {
    units: Units,
    of_thread: PhantomData<*const ()>,
}

impl Ready {
    /// # Safety
    ///
    /// `dst` is the caller's: 32 rows of 32 elements.
    #[inline]
    pub unsafe fn multiply(&self, product: &Product) {
        let &Product {
            multiplied,
            steps,
            left,
            right,
            ..
        } = product;
        let [of_left, of_right] = multiplied.words(steps);
        assert!(steps > 0 && left.iter().all(|strip| strip.len() >= of_left));
        assert!(right.iter().all(|strip| strip.len() >= of_right));
        // SAFETY: checked, and the caller's promise; the processor has the instructions, and `ready`
        // has configured this thread.
        unsafe {
            match self.units {
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                Units::Amx => amx::multiply(product),
                #[cfg(target_arch = "x86_64")]
                Units::Avx512Bf16 => avx512::multiply_bf16(product),
                #[cfg(target_arch = "x86_64")]
                Units::Avx512F32 => avx512::multiply_f32(product),
                #[cfg(test)]
                Units::Emulated => emulated::multiply(product),
            }
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self.units == Units::Amx {
            amx::release();
        }
    }
}
