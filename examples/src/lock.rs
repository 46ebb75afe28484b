//! Files that keep two programs from writing to one folder at the same time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

/// Held until it is dropped, or its program ends in whatever way.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until no other program holds the lock.
    pub(crate) fn wait(path: &Path) -> Result<Self> {
        let file = open(path)?;
        match file.lock() {
            // Some file systems have no locks.
            Err(error) if error.kind() != ErrorKind::Unsupported => {
                Err(error).with_context(|| failed(path))
            }
            _ => Ok(Self { _file: file }),
        }
    }

    /// `None` if another program holds the lock.
    pub(crate) fn now(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) if error.kind() != ErrorKind::Unsupported => {
                Err(error).with_context(|| failed(path))
            }
            _ => Ok(Some(Self { _file: file })),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(path);
    file.with_context(|| failed(path))
}

fn failed(path: &Path) -> String {
    format!("{} could not be locked", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::now(&path).unwrap();
        assert!(first.is_some());
        assert!(Lock::now(&path).unwrap().is_none());
        drop(first);
        assert!(Lock::wait(&path).is_ok());
    }
}
