//! How the C library's allocator keeps memory.

/// Keeps freed memory for the next tensor, and one pool of it for all threads, where the C library
/// is glibc. To be called before any thread starts.
///
/// By default, glibc gives the memory of large tensors back to the system whenever they are freed,
/// and a training step spends a fifth of its time on getting it again, page by page.
pub fn keep() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let set = |parameter, value| {
            // SAFETY: `mallopt` takes any numbers, and answers 0 to those that it does not know.
            #[allow(unsafe_code)]
            unsafe {
                libc::mallopt(parameter, value) == 1
            }
        };
        // Older versions take 32 MiB at most. Without one of the two, the next setting would do
        // harm: each of them ends glibc's own choice of both.
        if set(libc::M_MMAP_THRESHOLD, 1 << 30) || set(libc::M_MMAP_THRESHOLD, 32 << 20) {
            set(libc::M_TRIM_THRESHOLD, i32::MAX);
            // The pools of other threads would give back 64 MiB at a time regardless.
            set(libc::M_ARENA_MAX, 1);
        }
    }
}
