//! Where an image is: in a file of its own, or inside a shard with many others.
//!
//! Every image has a path. That of one inside a shard begins with the shard's own, as in
//! `shards/00000.tar/000012.jpg`: messages, reports and files of embeddings have it, and
//! [`Pictures`] finds the image again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use image::RgbImage;

use super::listing::open;
use super::parquet::Table;
use super::shards::Kind;
use super::{tar, transform};

/// An image on disk.
#[derive(Clone, Debug)]
pub struct Picture {
    path: PathBuf,
    /// Where in its shard it is; `None` of a file of its own.
    inside: Option<Inside>,
}

#[derive(Clone, Debug)]
enum Inside {
    Member {
        archive: Arc<Path>,
        at: u64,
        length: u64,
    },
    Row {
        table: Arc<Table>,
        row: usize,
    },
}

/// What an image can be read from.
pub trait ImageFile: BufRead + Seek {}

impl<R: BufRead + Seek> ImageFile for R {}

impl From<PathBuf> for Picture {
    fn from(path: PathBuf) -> Self {
        Self { path, inside: None }
    }
}

impl Picture {
    /// `length` bytes of a tar archive from the byte `at` on.
    pub(super) fn member(archive: &Arc<Path>, name: &str, at: u64, length: u64) -> Self {
        Self {
            path: archive.join(name),
            inside: Some(Inside::Member {
                archive: archive.clone(),
                at,
                length,
            }),
        }
    }

    /// A row of a Parquet file.
    pub(super) fn row(table: &Arc<Table>, row: usize, name: &str) -> Self {
        Self {
            path: table.path().join(row.to_string()).join(name),
            inside: Some(Inside::Row {
                table: table.clone(),
                row,
            }),
        }
    }

    /// The file, or the shard's path and the name in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The shard that it lies in, and the part of it where it has parts that can be read alone.
    pub(super) fn shard(&self) -> Option<(&Path, usize)> {
        match self.inside.as_ref()? {
            Inside::Member { archive, .. } => Some((archive, 0)),
            Inside::Row { table, row } => Some((table.path(), table.group_of(*row))),
        }
    }

    /// Opens it to read it.
    ///
    /// # Errors
    ///
    /// If it cannot be.
    pub fn open(&self) -> Result<Box<dyn ImageFile>> {
        Ok(match &self.inside {
            None => {
                // Opening a pipe would wait for somebody to write to it.
                ensure!(fs::metadata(&self.path)?.is_file(), "it is not a file");
                Box::new(BufReader::new(File::open(&self.path)?))
            }
            Some(Inside::Member {
                archive,
                at,
                length,
            }) => Box::new(Cursor::new(part(&mut open(archive)?, *at, *length)?)),
            Some(Inside::Row { table, row }) => Box::new(Cursor::new(table.image(*row)?)),
        })
    }

    /// The image as a viewer shows it: see [`decode`](transform::decode).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn decode(&self) -> Result<RgbImage> {
        let read = || transform::decode_from(self.open()?);
        read().with_context(|| format!("cannot read image {}", self.path.display()))
    }
}

/// `length` bytes of a file from the byte `at` on.
pub(super) fn part(file: &mut File, at: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    file.take(length).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 == length, "the file breaks off");
    Ok(bytes)
}

/// Images by their paths. What a shard holds is read once.
#[derive(Default)]
pub struct Pictures {
    /// The members of archives.
    members: HashMap<PathBuf, HashMap<PathBuf, Picture>>,
    tables: HashMap<PathBuf, Arc<Table>>,
}

impl Pictures {
    /// The image at a path that a [`Picture`] had.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn find(&mut self, path: &Path) -> Result<Picture> {
        let shard = path.ancestors().skip(1).find(|above| above.is_file());
        let Some((shard, kind)) = shard.and_then(|shard| Some((shard, Kind::of(shard)?))) else {
            return Ok(path.to_owned().into());
        };
        let found = match kind {
            Kind::Tar => self.member(shard, path)?,
            Kind::Parquet => self.row(shard, path)?,
        };
        found.with_context(|| format!("{} has no such image", shard.display()))
    }

    fn member(&mut self, archive: &Path, path: &Path) -> Result<Option<Picture>> {
        if !self.members.contains_key(archive) {
            let shared = Arc::from(archive);
            let members = tar::members(archive)?.found.into_iter().map(|member| {
                let picture = Picture::member(&shared, &member.name, member.at, member.length);
                (picture.path.clone(), picture)
            });
            self.members.insert(archive.to_owned(), members.collect());
        }
        Ok(self.members[archive].get(path).cloned())
    }

    fn row(&mut self, file: &Path, path: &Path) -> Result<Option<Picture>> {
        if !self.tables.contains_key(file) {
            let table = Table::open(file, 0, &Arc::default())?;
            self.tables.insert(file.to_owned(), Arc::new(table));
        }
        let table = &self.tables[file];
        let Ok(inside) = path.strip_prefix(file) else {
            return Ok(None);
        };
        let mut parts = inside.iter().map(|part| part.to_string_lossy());
        let row = parts.next().and_then(|row| row.parse().ok());
        let row = row.filter(|row| *row < table.rows());
        Ok(row.map(|row| Picture::row(table, row, &parts.next().unwrap_or_default())))
    }
}
