//! What the environment says of the device, and the log.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;

/// A number of the environment.
pub fn setting(name: &str, otherwise: u64) -> u64 {
    let Some(text) = word(name) else {
        return otherwise;
    };
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or(otherwise)
}

/// A variable of the environment that is set, and not to nothing.
pub fn word(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// Whether kernels run.
pub fn computes() -> bool {
    setting("STUB_CUDA_COMPUTE", 0) != 0
}

/// A line of the log. The program under test may write its own in between.
pub fn say(line: &str) {
    static LOG: OnceLock<Option<File>> = OnceLock::new();
    let open = || {
        let path = word("STUB_CUDA_LOG")?;
        OpenOptions::new().append(true).create(true).open(path).ok()
    };
    if let Some(mut log) = LOG.get_or_init(open).as_ref() {
        let _ = log.write_all(format!("{line}\n").as_bytes());
    }
}
