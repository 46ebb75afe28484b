//! Resident memory of this process, from Linux's `/proc`; 0 elsewhere.

/// Gives free memory back to the system, so that [`peak`] counts what an evaluation takes anew.
#[allow(unsafe_code)]
pub fn release() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: glibc's function; it takes any padding and locks the allocator itself.
        unsafe { malloc_trim(0) };
    }
}

/// Starts a new peak and returns the bytes resident now.
pub fn reset_peak() -> u64 {
    // 5 sets the peak back to what is resident.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    status("VmRSS:")
}

/// Most bytes resident since [`reset_peak`].
pub fn peak() -> u64 {
    status("VmHWM:")
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}
