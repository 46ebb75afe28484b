//! Files that are either complete or absent.

pub(crate) mod safetensors;
mod target;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tempfile::TempPath;

use target::Target;
pub(crate) use target::{are_same, folder, is_stdout};

/// The temporary files that there may be. They are made, named and removed under this lock.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn unfinished() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the temporary files, for a program that ends now: a [`commit`] under way goes to its end
/// before, and nothing is begun or named any more.
pub(crate) fn remove_unfinished() {
    let paths = unfinished();
    for path in paths.iter() {
        // Most often it is gone already.
        let _ = fs::remove_file(path);
    }
    std::mem::forget(paths);
}

/// SHA-256 of what is left to read, in hexadecimal.
pub(crate) fn sha256(file: &mut impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(file, &mut hash)?;
    Ok(format!("{:x}", hash.finalize()))
}

/// A file being written, under a temporary name in the folder of its own: no reader sees half of
/// it under its own name, not even after a crash. Dropped before it is [committed](commit), it
/// leaves nothing behind.
///
/// Where the path is a symbolic link, this is the file that it leads to. What is no file (a pipe,
/// `/dev/stdout`) takes what is written as it comes.
pub(crate) struct Partial {
    path: PathBuf,
    output: Output,
}

enum Output {
    File {
        content: BufWriter<File>,
        temporary: TempPath,
        /// The path that it is to have, links followed.
        own: PathBuf,
    },
    Stream(BufWriter<Box<dyn Write>>),
}

impl Partial {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let output = match Target::of(path)? {
            Target::File(own) => Output::file(own),
            Target::Stream => OpenOptions::new()
                .write(true)
                .open(path)
                .map(Output::stream),
            Target::Stdout => Ok(Output::stream(io::stdout())),
        };
        Ok(Self {
            path: path.to_path_buf(),
            output: output.with_context(|| failed(path))?,
        })
    }

    /// Appends.
    pub(crate) fn write(&mut self, content: &[u8]) -> Result<()> {
        let written = match &mut self.output {
            Output::File { content: file, .. } => file.write_all(content),
            Output::Stream(stream) => unless_its_reader_left(stream.write_all(content)),
        };
        written.with_context(|| failed(&self.path))
    }

    /// Writes out what a stream was given; flushes the content of a file to the disk.
    fn complete(self) -> Result<Option<Complete>> {
        let failed = || failed(&self.path);
        match self.output {
            Output::File {
                content,
                temporary,
                own,
            } => {
                let content = content.into_inner().map_err(|error| error.into_error());
                let on_disk = content.and_then(|content| content.sync_all());
                on_disk.with_context(failed)?;
                Ok(Some(Complete {
                    path: self.path,
                    temporary,
                    own,
                }))
            }
            Output::Stream(mut stream) => {
                unless_its_reader_left(stream.flush()).with_context(failed)?;
                Ok(None)
            }
        }
    }
}

impl Output {
    /// A new file in the folder of `own`, with the permissions of the one that it is to replace.
    fn file(own: PathBuf) -> io::Result<Self> {
        let create = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path);
        let mut paths = unfinished();
        let file = tempfile::Builder::new().make_in(folder(&own), create)?;
        paths.insert(file.path().to_path_buf());
        let (content, temporary) = file.into_parts();
        if let Ok(older) = fs::metadata(&own) {
            content.set_permissions(older.permissions())?;
        }
        Ok(Self::File {
            content: BufWriter::new(content),
            temporary,
            own,
        })
    }

    fn stream(stream: impl Write + 'static) -> Self {
        Self::Stream(BufWriter::new(Box::new(stream)))
    }
}

fn unless_its_reader_left(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn failed(path: &Path) -> String {
    format!("{}: could not be written", path.display())
}

/// A file that lacks nothing but its name.
struct Complete {
    path: PathBuf,
    temporary: TempPath,
    own: PathBuf,
}

impl Complete {
    /// Gives the file its name. `keep` says whether the older file of that name may have to be put
    /// back.
    fn put_in_place(self, keep: bool) -> Result<InPlace> {
        let put = || -> io::Result<_> {
            let exists = fs::symlink_metadata(&self.own).is_ok();
            let older = (keep && exists).then(|| second_name(&self.own));
            let older = older.transpose()?;
            self.temporary
                .persist(&self.own)
                .map_err(|error| error.error)?;
            Ok(older)
        };
        let older = put().with_context(|| failed(&self.path))?;
        Ok(InPlace {
            own: self.own,
            older,
        })
    }
}

/// A file that has its name, and the one that had it before.
struct InPlace {
    own: PathBuf,
    older: Option<TempPath>,
}

impl InPlace {
    /// Puts the older file back.
    fn undo(self) {
        // There is no third place to go to if this fails too.
        let _ = match self.older {
            Some(older) => older.persist(&self.own).map_err(|error| error.error),
            None => fs::remove_file(&self.own),
        };
    }
}

/// Another name of the file, where the file system has such; else a copy.
fn second_name(file: &Path) -> io::Result<TempPath> {
    let link = |path: &Path| match fs::hard_link(file, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => fs::copy(file, path).map(drop),
        linked => linked,
    };
    let named = tempfile::Builder::new().make_in(folder(file), link)?;
    Ok(named.into_temp_path())
}

/// Gives the files their names, once all of them are complete on the disk: all of them, or none.
pub(crate) fn commit(files: impl IntoIterator<Item = Partial>) -> Result<()> {
    let complete = files.into_iter().map(Partial::complete);
    let complete: Vec<_> = complete.collect::<Result<_>>()?;
    let mut paths = unfinished();
    let mut files = complete.into_iter().flatten().peekable();
    let mut in_place = Vec::new();
    while let Some(file) = files.next() {
        paths.remove(&*file.temporary);
        match file.put_in_place(files.peek().is_some()) {
            Ok(file) => in_place.push(file),
            Err(error) => {
                in_place.into_iter().rev().for_each(InPlace::undo);
                return Err(error);
            }
        }
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
    fn a_private_file_stays_private() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.json");
        fs::write(&path, b"1").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        write(&path, b"2").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
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
    fn a_file_that_cannot_be_named_takes_the_others_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["new", "old", "occupied"].map(|name| directory.path().join(name));
        fs::write(&paths[1], b"as it was").unwrap();
        let mut files = paths.each_ref().map(|path| Partial::create(path).unwrap());
        for file in &mut files {
            file.write(b"content").unwrap();
        }
        fs::create_dir(&paths[2]).unwrap();
        let error = commit(files).unwrap_err();
        assert!(error.to_string().contains("occupied"), "{error}");
        assert!(!paths[0].exists());
        assert_eq!(fs::read(&paths[1]).unwrap(), b"as it was");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
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
