//! Matrix products of one thread, into memory that tasks share.

use crate::host::Real;

/// A matrix that several tasks write to, each its own part.
#[derive(Clone, Copy)]
pub(super) struct Shared<T>(*mut T);

// SAFETY: what tasks write to through it is disjoint, as each use says.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: likewise.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(matrix: &mut [T]) -> Self {
        Self(matrix.as_mut_ptr())
    }

    pub fn offset(self, offset: usize) -> Self {
        Self(self.at(offset))
    }

    pub fn at(self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }

    /// Of elements that are of that type under another name.
    pub fn cast<U>(self) -> Shared<U> {
        assert_eq!(size_of::<T>(), size_of::<U>());
        Shared(self.0.cast())
    }
}

/// The rows of a tile, each a strip, in a matrix that other tasks work on at the same time.
pub(super) struct Strips<T> {
    start: *mut T,
    stride: usize,
    rows: usize,
    columns: usize,
}

impl<T> Strips<T> {
    /// # Safety
    ///
    /// `rows` strips of `columns` elements, `stride` apart from `start` on, are the caller's alone
    /// for as long as this lives.
    pub unsafe fn new(start: *mut T, stride: usize, rows: usize, columns: usize) -> Self {
        Self {
            start,
            stride,
            rows,
            columns,
        }
    }

    #[inline(always)]
    pub fn row(&self, row: usize) -> &[T] {
        assert!(row < self.rows);
        // SAFETY: one of the strips that `new` was promised; `&self` lets nobody write to it.
        unsafe { std::slice::from_raw_parts(self.start.add(row * self.stride), self.columns) }
    }

    #[inline(always)]
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows);
        // SAFETY: one of the strips that `new` was promised; `&mut self` gives them out one by one.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.columns) }
    }
}

/// `dst [m, n] = keep·dst + lhs [m, k]·rhs [k, n]`, on one thread; the pairs are strides between
/// rows and between columns.
///
/// # Safety
///
/// The matrices lie in memory that the caller may read, and write for `dst`.
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn gemm<T: Real>(
    [m, n, k]: [usize; 3],
    dst: *mut T,
    dst_stride: usize,
    accumulate: bool,
    lhs: *const T,
    (lhs_rows, lhs_columns): (usize, usize),
    rhs: *const T,
    (rhs_rows, rhs_columns): (usize, usize),
) {
    // SAFETY: the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst,
            1,
            dst_stride as isize,
            accumulate,
            lhs,
            lhs_columns as isize,
            lhs_rows as isize,
            rhs,
            rhs_columns as isize,
            rhs_rows as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Two sets of embeddings whose products are similarities: `width` elements a row, rows `apart`.
#[derive(Clone, Copy)]
pub(super) struct Plain<'a, T> {
    pub a: &'a [T],
    pub b: &'a [T],
    pub width: usize,
    pub apart: usize,
}

impl<T: Real> Plain<'_, T> {
    /// `dst = A·Bᵀ` of `rows` rows of `a` and `columns` rows of `b`, from `i0` and `j0` on.
    ///
    /// # Safety
    ///
    /// `dst` is the caller's, `rows` rows of `columns` elements, `stride` apart.
    pub unsafe fn multiply(
        &self,
        [i0, j0]: [usize; 2],
        [rows, columns]: [usize; 2],
        dst: *mut T,
        stride: usize,
    ) {
        let &Self { a, b, width, apart } = self;
        let (a, b) = (&a[i0 * apart..], &b[j0 * apart..]);
        let end = |rows: usize| (rows - 1) * apart + width;
        assert!(a.len() >= end(rows) && b.len() >= end(columns));
        let (lhs, rhs) = (a.as_ptr(), b.as_ptr());
        // SAFETY: checked, and the caller's promise.
        unsafe {
            gemm(
                [rows, columns, width],
                dst,
                stride,
                false,
                lhs,
                (apart, 1),
                rhs,
                (1, apart),
            )
        };
    }
}
