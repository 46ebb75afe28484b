//! Files that are either complete or not there.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes `content` to `path` under a temporary name and renames it, so that no reader, and no crash, ever sees half a
/// file.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(name);
    let written = (|| {
        let mut file = File::create(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    })();
    written
        .inspect_err(|_| {
            // The error below says what went wrong; whether the remains could be removed adds nothing.
            let _ = fs::remove_file(&partial);
        })
        .with_context(|| format!("{}: could not be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_file_is_replaced_and_nothing_else_remains() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.html");
        write(&path, b"old and longer").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_no_remains() {
        let directory = tempfile::tempdir().unwrap();
        let occupied = directory.path().join("metrics.json");
        fs::create_dir(&occupied).unwrap();
        let error = write(&occupied, b"{}").unwrap_err();
        assert!(error.to_string().contains("metrics.json"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
