//! Ctrl-C and the other ways to ask a program to end.

use anyhow::{Context, Result};

use crate::files;

/// The exit code of a program that was interrupted.
pub const INTERRUPTED: u8 = 130;

/// Lets Ctrl-C (and SIGTERM, where there is one) end the program with exit code 130 and all files
/// written, or none and no remains.
///
/// # Errors
///
/// If the process has a handler already.
pub fn leave_no_remains_on_ctrl_c() -> Result<()> {
    on_interrupt(|| {
        files::remove_unfinished();
        std::process::exit(INTERRUPTED.into());
    })
}

/// Calls `handle` whenever the program is asked to end, by Ctrl-C or, on Unix, SIGTERM or SIGHUP.
/// Where a hang-up is ignored, as under `nohup`, it stays so.
///
/// # Errors
///
/// If the process has a handler already.
pub(crate) fn on_interrupt(handle: impl FnMut() + Send + 'static) -> Result<()> {
    register(handle).context("Ctrl-C could not be bound")
}

#[cfg(unix)]
fn register(mut handle: impl FnMut() + Send + 'static) -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = vec![SIGINT, SIGTERM];
    if is_default(SIGHUP) {
        signals.push(SIGHUP);
    }
    let mut signals = Signals::new(signals)?;
    std::thread::spawn(move || signals.forever().for_each(|_| handle()));
    Ok(())
}

/// Whether the process is known not to ignore a signal.
#[cfg(unix)]
fn is_default(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 0)
}

#[cfg(not(unix))]
fn register(handle: impl FnMut() + Send + 'static) -> Result<()> {
    Ok(ctrlc::set_handler(handle)?)
}
