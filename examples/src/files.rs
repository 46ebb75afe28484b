//! Files that are either complete or absent.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

/// A file being written, under a temporary name in the folder of its own: no reader sees half of
/// it under its own name, not even after a crash. Dropped before it is [committed](commit), it
/// leaves nothing behind.
pub(crate) struct Partial {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl Partial {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        // Without a folder in its name, a file lies in the current one.
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let mut builder = tempfile::Builder::new();
        // Temporary files are private unless they ask for what files usually have.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .with_context(|| failed(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file: BufWriter::new(file),
        })
    }

    /// Appends.
    pub(crate) fn write(&mut self, content: &[u8]) -> Result<()> {
        self.file
            .write_all(content)
            .with_context(|| failed(&self.path))
    }

    /// Flushes the content to the disk.
    fn complete(self) -> Result<(PathBuf, NamedTempFile)> {
        let Self { path, file } = self;
        let file = file.into_inner().map_err(|error| error.into_error());
        let file = file.and_then(|file| file.as_file().sync_all().map(|()| file));
        Ok((path.clone(), file.with_context(|| failed(&path))?))
    }
}

fn failed(path: &Path) -> String {
    format!("{}: could not be written", path.display())
}

/// Gives the files their names, once all of them are complete on the disk.
pub(crate) fn commit(files: impl IntoIterator<Item = Partial>) -> Result<()> {
    let complete = files.into_iter().map(Partial::complete);
    for (path, file) in complete.collect::<Result<Vec<_>>>()? {
        file.persist(&path)
            .map_err(|error| error.error)
            .with_context(|| failed(&path))?;
    }
    Ok(())
}

/// Writes `content` to `path`, all of it or nothing.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = Partial::create(path)?;
    file.write(content)?;
    commit([file])
}

#[cfg(test)]
mod tests {
    use std::fs;

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

    #[cfg(unix)]
    #[test]
    fn others_may_read_the_file_as_they_may_any_other() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let [ours, plain] = ["ours", "plain"].map(|name| directory.path().join(name));
        write(&ours, b"1").unwrap();
        fs::write(&plain, b"1").unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
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
