//! Large buffers.

use bytemuck::Zeroable;

/// That many zeros.
///
/// On Linux, large buffers ask for huge pages: each is written once and freed, and a fault for
/// every four kilobytes of it would cost as much as a tenth of the work that fills it.
pub(super) fn zeros<T: Clone + Zeroable>(len: usize) -> Vec<T> {
    let buffer = vec![T::zeroed(); len];
    #[cfg(target_os = "linux")]
    ask_for_huge_pages(&buffer);
    buffer
}

#[cfg(target_os = "linux")]
fn ask_for_huge_pages<T>(buffer: &[T]) {
    const HUGE_PAGE: usize = 2 << 20;
    let start = buffer.as_ptr().addr().next_multiple_of(HUGE_PAGE);
    let end = (buffer.as_ptr().addr() + size_of_val(buffer)) / HUGE_PAGE * HUGE_PAGE;
    if start < end {
        let first = buffer.as_ptr().with_addr(start);
        // SAFETY: the range lies within the buffer, and the advice changes no content. That it is
        // not taken does no harm.
        unsafe { libc::madvise(first.cast_mut().cast(), end - start, libc::MADV_HUGEPAGE) };
    }
}
