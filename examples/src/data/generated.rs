//! Folders that a generator writes: whole or unfinished, made once for the same parameters, and
//! never in the place of something else.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::lock::Lock;

/// What a generator writes into its folder.
pub(super) struct Generated<'a> {
    /// What it makes, for messages, in the plural.
    pub noun: &'static str,
    /// The file of the parameters, written first.
    pub marker: &'static str,
    /// The file that is written last: a folder without it is unfinished.
    pub listing: &'static str,
    /// Other files and folders that it writes, or that are added later.
    pub others: &'a [&'static str],
}

impl Generated<'_> {
    /// Makes sure that `dir` holds what `make` writes for the parameters `wanted`: false if it did
    /// already. What was made for other parameters is replaced; an interrupted set is finished.
    /// Another program that makes the set is waited for (`dir.lock`).
    pub fn ensure<M: PartialEq + Serialize + DeserializeOwned>(
        &self,
        dir: &Path,
        wanted: &M,
        make: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        let read = || fs::read_to_string(dir.join(self.marker));
        let is_the_same =
            |text: &str| serde_json::from_str::<M>(text).is_ok_and(|found| found == *wanted);
        // A finished set needs no lock, and may be where nobody can write.
        if read().is_ok_and(|text| is_the_same(&text)) && dir.join(self.listing).is_file() {
            return Ok(false);
        }
        let lock = dir.with_added_extension("lock");
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let _lock = Lock::wait(&lock)?;
        match read() {
            Ok(text) if is_the_same(&text) => {
                if dir.join(self.listing).is_file() {
                    return Ok(false);
                }
            }
            Ok(_) => self.clear(dir)?,
            Err(error) if error.kind() == ErrorKind::NotFound => self.ensure_empty(dir)?,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot read {}", dir.join(self.marker).display()));
            }
        }
        let images = dir.join("images");
        fs::create_dir_all(&images)
            .with_context(|| format!("cannot create {}", images.display()))?;
        write(&dir.join(self.marker), &serde_json::to_vec_pretty(wanted)?)?;
        make()?;
        Ok(true)
    }

    /// Removes a set that its generator wrote, the listing first: from then on it counts as
    /// unfinished.
    fn clear(&self, dir: &Path) -> Result<()> {
        let lists = std::iter::once(&self.listing).chain(self.others);
        let lists = lists.map(|list| fs::remove_file(dir.join(list)));
        let removed = lists.chain([fs::remove_dir_all(dir.join("images"))]);
        for result in removed {
            match result {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| {
                        format!("cannot replace the {} in {}", self.noun, dir.display())
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn ensure_empty(&self, dir: &Path) -> Result<()> {
        // A program that was killed early leaves an empty folder of images.
        let _ = fs::remove_dir(dir.join("images"));
        match fs::read_dir(dir) {
            Ok(mut entries) => match entries.next() {
                Some(_) => bail!(
                    "{} holds something else than generated {}; choose another folder",
                    dir.display(),
                    self.noun
                ),
                None => Ok(()),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => {
                let noun = self.noun;
                Err(error).with_context(|| format!("cannot write {noun} to {}", dir.display()))
            }
        }
    }
}

/// Writes a file under a temporary name first.
pub(super) fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let write = || -> std::io::Result<()> {
        fs::File::create(&partial)?.write_all(bytes)?;
        fs::rename(&partial, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}
