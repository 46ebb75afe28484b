//! What a path to write to stands for.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{self, Path, PathBuf};

use anyhow::{Context, Result, bail};

/// What a path to write to stands for.
#[derive(Debug, PartialEq)]
pub(super) enum Target {
    /// A regular file, or one that is not there yet: its own path, links followed.
    File(PathBuf),
    /// A pipe or a device.
    Stream,
    /// What the program prints to.
    Stdout,
}

impl Target {
    /// # Errors
    ///
    /// If the path is that of a folder or of a disk, or cannot be followed.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let shown = path.display();
        let failed = || format!("{shown}: could not be written");
        let found = match fs::metadata(path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(failed),
        };
        let names_folder = path.to_string_lossy().ends_with(path::is_separator);
        if names_folder || found.as_ref().is_some_and(Metadata::is_dir) {
            bail!("{shown} is a folder: a file cannot take its place");
        }
        match found {
            Some(found) if is_disk(&found) => bail!("{shown} is a disk, not a file"),
            Some(found) if is_the_stdout(&found) => Ok(Self::Stdout),
            Some(found) if !found.is_file() => Ok(Self::Stream),
            _ => followed(path).map(Self::File).with_context(failed),
        }
    }
}

/// Whether what is written to one path is what the other has: the same file by the same or another
/// name, through links or not.
pub(crate) fn are_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        #[cfg(unix)]
        (Ok(one), Ok(other)) => identity(&one) == identity(&other),
        _ => matches!((followed(one), followed(other)), (Ok(one), Ok(other)) if one == other),
    }
}

/// Whether the path is that of what the program prints to.
pub(crate) fn is_stdout(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| is_the_stdout(&found))
}

/// The path itself, if it is a symbolic link that of what it leads to; that may not be there yet.
fn followed(path: &Path) -> io::Result<PathBuf> {
    if let Ok(own) = fs::canonicalize(path) {
        return Ok(own);
    }
    // As many links as Linux follows.
    let mut path = path.to_path_buf();
    for _ in 0..40 {
        let Ok(next) = fs::read_link(&path) else {
            let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
            return Ok(fs::canonicalize(folder(&path))?.join(name));
        };
        path = folder(&path).join(next);
    }
    Err(ErrorKind::InvalidInput.into())
}

/// The folder of a file: without one in its name, it lies in the current one.
pub(crate) fn folder(file: &Path) -> &Path {
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    folder.unwrap_or(Path::new("."))
}

#[cfg(unix)]
fn identity(file: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;

    (file.dev(), file.ino())
}

#[cfg(unix)]
fn is_disk(file: &Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_block_device(&file.file_type())
}

#[cfg(not(unix))]
fn is_disk(_: &Metadata) -> bool {
    false
}

/// Whether both are one; on `/dev/null` and its like nothing mixes.
#[cfg(unix)]
fn is_the_stdout(file: &Metadata) -> bool {
    use std::fs::File;
    use std::io::IsTerminal;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileTypeExt;

    let device = file.file_type().is_char_device();
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let stdout = stdout.and_then(|stdout| File::from(stdout).metadata());
    stdout.is_ok_and(|stdout| identity(file) == identity(&stdout))
        && (!device || io::stdout().is_terminal())
}

#[cfg(not(unix))]
fn is_the_stdout(_: &Metadata) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_also_to_what_is_not_there_yet() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), b"").unwrap();
        fs::hard_link(at("file"), at("hard")).unwrap();
        symlink("file", at("link")).unwrap();
        symlink("link", at("second")).unwrap();
        symlink("later", at("dangling")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let own = |name| fs::canonicalize(directory.path()).unwrap().join(name);
        assert_eq!(
            Target::of(&at("second")).unwrap(),
            Target::File(own("file"))
        );
        assert_eq!(
            Target::of(&at("dangling")).unwrap(),
            Target::File(own("later"))
        );
        assert!(Target::of(&at("loop")).is_err());
        for name in ["file", "hard", "link", "second"] {
            assert!(are_same(&at("file"), &at(name)), "{name}");
            assert!(!are_same(&at("later"), &at(name)), "{name}");
        }
        assert!(are_same(&at("later"), &at("dangling")));
        assert!(!are_same(&at("later"), &at("loop")));
    }

    #[test]
    fn devices_are_streams_and_folders_nothing_to_write_to() {
        for device in ["/dev/null", "/dev/zero"] {
            assert_eq!(Target::of(Path::new(device)).unwrap(), Target::Stream);
        }
        for folder in [".", "/dev", "not-there-yet/"] {
            let error = Target::of(Path::new(folder)).unwrap_err();
            assert!(
                error
                    .to_string()
                    .ends_with("is a folder: a file cannot take its place")
            );
        }
    }
}
