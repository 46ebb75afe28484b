//! Several programs that work on one comparison, one core each, and end with the one that started
//! them.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::files;
use crate::signals::INTERRUPTED;

/// Starts this program `jobs` times with these arguments, and waits for all.
///
/// # Errors
///
/// If one cannot be started, or fails; it has said why.
pub fn run(jobs: usize, arguments: &[String]) -> Result<()> {
    let program = std::env::current_exe().context("this program does not know its own path")?;
    let start = || {
        let mut command = Command::new(&program);
        // Runs are compared by their time too, and their bits depend on the count of threads.
        command.args(arguments).env("RAYON_NUM_THREADS", "1");
        command.stdin(Stdio::piped()).spawn()
    };
    let workers: Vec<Child> = (0..jobs)
        .map(|_| start())
        .collect::<std::io::Result<_>>()
        .context("a worker could not be started")?;
    let mut failed = 0;
    for mut worker in workers {
        // Its input is closed when this program ends, in whatever way.
        let input = worker.stdin.take();
        let status = worker.wait().context("a worker could not be waited for")?;
        drop(input);
        failed += usize::from(!status.success());
    }
    if failed > 0 {
        bail!("{failed} of {jobs} workers failed; what is done is kept");
    }
    Ok(())
}

/// Ends this program, a worker, when the one that started it ends.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        let mut input = std::io::stdin();
        // Nothing is sent: this returns when the other side is closed.
        let _ = input.read(&mut [0]);
        files::remove_unfinished();
        std::process::exit(INTERRUPTED.into());
    });
}
