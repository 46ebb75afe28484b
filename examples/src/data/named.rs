//! Safetensors files whose rows belong to images, found by the names of their files.
//!
//! The names stand in the metadata `names`, a JSON array, row by row, without folders. In Python
//! `save_file(tensors, "file.safetensors", {"names": json.dumps(names)})` writes one. The rows may
//! be in any order and of more images than a collection has. Rows are read when they are needed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;
use anyhow::{Context, Result, bail, ensure};
use half::f16;
use serde_json::Map;

use super::Collection;
use crate::files::safetensors::{self, Opened};
use crate::files::{Partial, commit, sha256};

/// The key of the names in the file's metadata.
const NAMES: &str = "names";

/// A file whose header has been read.
pub(super) struct NamedRows {
    path: PathBuf,
    file: Mutex<File>,
    metadata: Metadata,
    start: u64,
}

/// Where the rows of a tensor are.
#[derive(Clone, Copy)]
pub(super) struct Place {
    start: u64,
    pub(super) dtype: Dtype,
}

impl NamedRows {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let Opened {
            file,
            metadata,
            start,
        } = safetensors::open(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            file: Mutex::new(file),
            metadata,
            start,
        })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A tensor of the file: where it is, and its shape. `all` says what such files have.
    pub(super) fn find(
        &self,
        name: &str,
        rank: usize,
        dtypes: &[Dtype],
        all: &str,
    ) -> Result<(Place, Vec<usize>)> {
        let file = self.path.display();
        let info = self.metadata.info(name);
        let info = info.with_context(|| format!("{file}: it has no tensor `{name}`: {all}"))?;
        ensure!(
            info.shape.len() == rank,
            "{file}: `{name}` has shape {:?}, it must have {rank} dimensions",
            info.shape
        );
        ensure!(
            dtypes.contains(&info.dtype),
            "{file}: `{name}` is {:?}, it must be one of {dtypes:?}",
            info.dtype
        );
        let place = Place {
            start: self.start + info.data_offsets.0 as u64,
            dtype: info.dtype,
        };
        Ok((place, info.shape.clone()))
    }

    /// Whether the file has a tensor of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// A list of the metadata, of `what` in words.
    pub(super) fn list(&self, key: &str, what: &str) -> Result<Vec<String>> {
        let file = self.path.display();
        let text = self.metadata.metadata().as_ref();
        let text = text.and_then(|all| all.get(key)).with_context(|| {
            format!("{file}: its metadata have no `{key}`: a JSON array of {what}")
        })?;
        serde_json::from_str(text)
            .with_context(|| format!("{file}: the metadata `{key}` are no JSON array of {what}"))
    }

    /// The names of the images, which must be as many, row by row.
    pub(super) fn names(&self, images: usize) -> Result<Vec<String>> {
        let file = self.path.display();
        let names = self.list(NAMES, "file names")?;
        ensure!(
            names.len() == images,
            "{file}: the metadata `{NAMES}` has {} names for the {images} images of `features`",
            names.len()
        );
        Ok(names)
    }

    /// For each image of the collection the row of its name.
    pub(super) fn rows(&self, names: &[String], collection: &Collection) -> Result<Vec<usize>> {
        rows(names, collection).with_context(|| self.path.display().to_string())
    }

    /// SHA-256 of the whole file, in hexadecimal; all of it is read.
    pub(super) fn fingerprint(&self) -> Result<String> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = file.rewind().and_then(|()| sha256(&mut *file));
        sum.with_context(|| format!("{}: could not be read", self.path.display()))
    }

    /// `count` values of a tensor from the value `from` on.
    pub(super) fn floats(&self, place: Place, from: usize, count: usize) -> Result<Vec<f32>> {
        let bytes = self.bytes(place, from, count)?;
        Ok(match place.dtype {
            Dtype::F16 => {
                let values = bytes.as_chunks().0.iter();
                values.map(|&x| f16::from_le_bytes(x).to_f32()).collect()
            }
            _ => {
                let values = bytes.as_chunks().0.iter();
                values.map(|&x| f32::from_le_bytes(x)).collect()
            }
        })
    }

    /// `count` whole numbers of a tensor from the number `from` on.
    pub(super) fn integers(&self, place: Place, from: usize, count: usize) -> Result<Vec<i64>> {
        let bytes = self.bytes(place, from, count)?;
        Ok(match place.dtype {
            Dtype::I32 => {
                let values = bytes.as_chunks().0.iter();
                values.map(|&x| i32::from_le_bytes(x).into()).collect()
            }
            _ => {
                let values = bytes.as_chunks().0.iter();
                values.map(|&x| i64::from_le_bytes(x)).collect()
            }
        })
    }

    /// The bytes of `count` values of a tensor from the value `from` on.
    fn bytes(&self, place: Place, from: usize, count: usize) -> Result<Vec<u8>> {
        let size = place.dtype.bitsize() / 8;
        let mut bytes = vec![0; count * size];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(place.start + (from * size) as u64))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// For each image of the collection the row of its name.
fn rows(names: &[String], collection: &Collection) -> Result<Vec<usize>> {
    let mut row_of = HashMap::new();
    for (row, name) in names.iter().enumerate() {
        if let Some(first) = row_of.insert(name.as_str(), row) {
            bail!("rows {first} and {row} are both of {name}");
        }
    }
    let mut taken = HashMap::new();
    let find = |index: usize| {
        let name = image_name(collection, index);
        let row = row_of.get(&*name).copied();
        let row =
            row.with_context(|| format!("it has no row for {name} ({})", collection.place(index)))?;
        if let Some(other) = taken.insert(row, index) {
            bail!(
                "the row of {name} is that of two images: {} and {}; rows are found by the file's \
                 name",
                collection.place(other),
                collection.place(index)
            );
        }
        Ok(row)
    };
    (0..collection.examples.len()).map(find).collect()
}

/// The names of all images of a collection in a file of regions or of features.
pub fn image_names(collection: &Collection) -> Vec<String> {
    let all = 0..collection.examples.len();
    all.map(|index| image_name(collection, index)).collect()
}

/// The name of an image in a file of regions or of features.
pub fn image_name(collection: &Collection, index: usize) -> String {
    let image = &collection.examples[index].image;
    let name = image.path().file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// A file being written: its header, then what is [pushed](Self::push), tensor by tensor.
pub(super) struct NamedWriter {
    path: PathBuf,
    partial: Partial,
}

impl NamedWriter {
    /// A file of tensors of four bytes a number, each a name, a dtype and a shape, with further
    /// lists of the metadata by their keys.
    pub(super) fn create(
        path: &Path,
        names: &[String],
        tensors: &[(&str, Dtype, &[usize])],
        lists: &[(&str, &[String])],
    ) -> Result<Self> {
        let mut notes = Map::new();
        for &(key, list) in [(NAMES, names)].iter().chain(lists) {
            notes.insert(key.to_string(), serde_json::to_string(list)?.into());
        }
        let tensors = tensors.iter();
        let tensors = tensors.map(|&(name, dtype, shape)| (name.to_string(), dtype, shape));
        let mut partial = Partial::create(path)?;
        partial.write(&safetensors::header(tensors, notes))?;
        let path = path.to_path_buf();
        Ok(Self { path, partial })
    }

    /// Further numbers.
    pub(super) fn push(&mut self, numbers: impl IntoIterator<Item = [u8; 4]>) -> Result<()> {
        let bytes: Vec<u8> = numbers.into_iter().flatten().collect();
        self.partial.write(&bytes)
    }

    /// Gives the file its name, if all `images` have been `written`.
    pub(super) fn finish(self, written: usize, images: usize) -> Result<()> {
        ensure!(
            written == images,
            "{}: {written} of {images} rows were written",
            self.path.display()
        );
        commit([self.partial])
    }
}
