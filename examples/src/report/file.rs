//! Files that are either complete or not there.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A file in the making, under a temporary name beside its own: no reader, and no crash, ever sees half of it under that.
/// Dropped before it is [committed](commit), it leaves nothing.
pub(crate) struct Partial {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
}

impl Partial {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(name);
        let file = File::create(&partial)
            .with_context(|| format!("{}: could not be written", path.display()))?;
        Ok(Self {
            path: path.to_path_buf(),
            partial,
            file: BufWriter::new(file),
        })
    }

    /// Appends.
    pub(crate) fn write(&mut self, content: &[u8]) -> Result<()> {
        self.file
            .write_all(content)
            .with_context(|| format!("{}: could not be written", self.path.display()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Of a committed file there is nothing to remove; of another, nothing that this would tell.
        let _ = fs::remove_file(&self.partial);
    }
}

/// Gives the files their names, once all of them are complete on the disk.
pub(crate) fn commit(files: impl IntoIterator<Item = Partial>) -> Result<()> {
    let mut files: Vec<_> = files.into_iter().collect();
    let failed = |path: &Path| {
        let message = format!("{}: could not be written", path.display());
        move |error: io::Error| anyhow::Error::new(error).context(message)
    };
    for file in &mut files {
        file.file
            .flush()
            .and_then(|()| file.file.get_ref().sync_all())
            .map_err(failed(&file.path))?;
    }
    for file in &files {
        fs::rename(&file.partial, &file.path).map_err(failed(&file.path))?;
    }
    Ok(())
}

/// Writes `content` to `path`, all of it or nothing.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = Partial::create(path)?;
    file.write(content)?;
    commit([file])
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

    #[test]
    fn nothing_appears_before_all_is_committed() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
        let mut files = [&one, &two].map(|path| Partial::create(path).unwrap());
        files[0].write(b"1").unwrap();
        assert!(!one.exists());
        commit(files).unwrap();
        assert_eq!(fs::read(&one).unwrap(), b"1");
        drop(Partial::create(&one).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        assert_eq!(fs::read(&one).unwrap(), b"1");
    }
}
