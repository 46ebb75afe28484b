//! What a program prints.
//!
//! A reader that goes away (`clip | head`) ends the printing and nothing else, and so does a full
//! disk, but that is an error in the end: [`finish`].

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, OnceLock};

use anyhow::{Context, Result};

/// The first failure other than a closed pipe.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// One of several processes that do the same.
static SPEAKER: OnceLock<String> = OnceLock::new();

/// From now on this process, one of several that do the same, prints nothing to standard output,
/// and its name before what it prints to standard error.
pub fn speak_as(name: String) {
    let _ = SPEAKER.set(name);
}

/// Prints a line to standard output.
pub fn say(line: impl Display) {
    if SPEAKER.get().is_none() {
        keep_failure(writeln!(io::stdout(), "{line}"));
    }
}

/// Prints a line to standard error.
pub fn warn(line: impl Display) {
    // There is no place left to say that this failed.
    let _ = match SPEAKER.get() {
        Some(name) => writeln!(io::stderr(), "{name}: {line}"),
        None => writeln!(io::stderr(), "{line}"),
    };
}

/// Writes out what was printed.
///
/// # Errors
///
/// If standard output took less than everything, unless its reader has gone away.
pub fn finish() -> Result<()> {
    keep_failure(io::stdout().flush());
    let failure = FAILURE.lock().expect("nothing panics with the lock").take();
    failure.map_or(Ok(()), |error| {
        Err(error).context("standard output could not be written")
    })
}

fn keep_failure(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != ErrorKind::BrokenPipe
    {
        let mut failure = FAILURE.lock().expect("nothing panics with the lock");
        failure.get_or_insert(error);
    }
}
