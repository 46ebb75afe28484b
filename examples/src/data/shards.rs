//! Shards: files of many images each, with their captions.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::braces::expand;
use super::collection::{Example, Split};
use super::listing::{Faults, entries};
use super::parquet::Table;
use super::table::CAPTION;
use super::{parquet, tar};
use crate::words::brief;

/// What holds captions in a shard, the preferred name first.
pub(super) fn caption_names() -> impl Iterator<Item = &'static str> {
    CAPTION.iter().copied().chain(["captions", "sentences"])
}

/// A kind of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tar,
    Parquet,
}

impl Kind {
    /// The kind of a file, by its extension.
    pub(super) fn of(file: &Path) -> Option<Self> {
        let extension = file.extension()?.to_string_lossy().to_lowercase();
        match extension.as_str() {
            "tar" => Some(Self::Tar),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Shards of one kind, in order.
#[derive(Debug)]
pub(super) struct Shards {
    kind: Kind,
    files: Vec<PathBuf>,
}

impl Shards {
    /// A shard alone; `None` if it is none.
    pub(super) fn file(file: &Path) -> Option<Self> {
        Some(Self {
            kind: Kind::of(file)?,
            files: vec![file.to_owned()],
        })
    }

    /// The shards that a pattern stands for; `None` if it is none.
    ///
    /// # Errors
    ///
    /// If one is missing, if they are not all of one kind, or too many.
    pub(super) fn pattern(pattern: &Path) -> Result<Option<Self>> {
        let Some(text) = pattern.to_str().filter(|text| text.contains('{')) else {
            return Ok(None);
        };
        let files: Vec<PathBuf> = expand(text)
            .with_context(|| format!("the pattern {}", brief(text)))?
            .into_iter()
            .map(PathBuf::from)
            .collect();
        let Some(kind) = Kind::of(&files[0]) else {
            return Ok(None);
        };
        for file in &files {
            ensure!(
                Kind::of(file) == Some(kind),
                "{text} stands for shards of two kinds: {} and {}",
                files[0].display(),
                file.display()
            );
            ensure!(file.is_file(), "{} of {text} is missing", file.display());
        }
        Ok(Some(Self { kind, files }))
    }

    /// The shards in a folder, or in the folders in it; archives before others, for beside its
    /// archives img2dataset writes tables without images.
    pub(super) fn folder(folder: &Path) -> Result<Option<Self>> {
        let all = entries(folder)?;
        for kind in [Kind::Tar, Kind::Parquet] {
            let own = |files: Vec<PathBuf>| -> Vec<PathBuf> {
                let is_one = |file: &PathBuf| Kind::of(file) == Some(kind) && file.is_file();
                files.into_iter().filter(is_one).collect()
            };
            let mut files = own(all.clone());
            if files.is_empty() {
                for below in all.iter().filter(|path| path.is_dir()) {
                    files.extend(own(entries(below)?));
                }
            }
            if !files.is_empty() {
                return Ok(Some(Self { kind, files }));
            }
        }
        Ok(None)
    }

    /// The images in all of them, in order.
    pub(super) fn read(&self, faults: &mut Faults) -> Result<Vec<Example>> {
        let folders: HashSet<_> = self.files.iter().map(|file| file.parent()).collect();
        let runs = Arc::default();
        let read = |(number, file): (usize, &PathBuf)| -> Result<(Vec<Example>, Faults)> {
            let mut faults = faults.apart();
            let split = split(file, folders.len() > 1);
            let examples = match self.kind {
                Kind::Tar => tar::read(file, split, &mut faults)?,
                Kind::Parquet => {
                    let table = Arc::new(Table::open(file, number, &runs)?);
                    parquet::read(&table, split, &mut faults)?
                }
            };
            Ok((examples, faults))
        };
        let read: Vec<_> = self.files.par_iter().enumerate().map(read).collect();
        let mut examples = Vec::new();
        for shard in read {
            let (own, skipped) = shard?;
            examples.extend(own);
            faults.join(skipped);
        }
        Ok(examples)
    }
}

/// The split that the name of a shard says, such as `train-00000-of-00005.parquet`, or where they
/// lie in `several` folders, that of its folder.
fn split(file: &Path, several: bool) -> Option<Split> {
    let stem = file.file_stem()?.to_string_lossy();
    let words = stem.split(|character: char| !character.is_ascii_alphanumeric());
    let own = words.filter_map(Split::from_name).next();
    let folder = || {
        file.parent()?
            .file_name()
            .map(|name| name.to_string_lossy())
    };
    own.or_else(|| {
        folder()
            .filter(|_| several)
            .and_then(|name| Split::from_name(&name))
    })
}

#[cfg(test)]
mod tests;
