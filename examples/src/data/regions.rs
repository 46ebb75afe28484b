//! Features of an image's regions, such as a detector's, from a file.
//!
//! A safetensors file with three tensors and a list of names, row by row an image:
//!
//! | what | shape | dtype | meaning |
//! |---|---|---|---|
//! | `features` | `[images, R, D]` | F32 or F16 | a feature of each region |
//! | `boxes` | `[images, R, 4]` | F32 | `x0 y0 x1 y1`, as shares of width and height, in [0, 1] |
//! | `count` | `[images]` | I32 or I64 | how many of the `R` regions the image has, the first ones |
//! | metadata `names` | | | the file names of the images, without folders, a JSON array |
//!
//! In Python `save_file(tensors, "regions.safetensors", {"names": json.dumps(names)})` writes one.
//! What stands behind an image's last region is not read. The rows may be in any order and of more
//! images than a collection has: an image is found by its name.
//!
//! The header, the names and the counts are read when the file is opened; features and boxes row by
//! row when they are needed, since those of MS-COCO are larger than most memories.

mod boxes;
mod examples;
#[cfg(test)]
mod tests;
mod writer;

pub use boxes::BoxesConfig;
pub use examples::{POSITION, RegionBatch, RegionPair, RegionPairs};
pub use writer::RegionWriter;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;
use anyhow::{Context, Result, bail, ensure};
use half::f16;
use sha2::{Digest, Sha256};

use super::Collection;
use crate::files::safetensors::{self, Opened};

/// Numbers of a box.
const SIDES: usize = 4;
/// The key of the names in the file's metadata.
const NAMES: &str = "names";

/// The regions of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Regions {
    /// Features, region by region.
    pub features: Vec<f32>,
    /// `x0 y0 x1 y1` of each region, as shares of the image's width and height.
    pub boxes: Vec<[f32; 4]>,
}

/// A file of regions whose header, names and counts have been read, for the images of a collection.
pub struct RegionFile {
    path: PathBuf,
    file: Mutex<File>,
    features: Place,
    boxes: Place,
    /// Most regions of an image, R, and the width of a feature, D.
    shape: [usize; 2],
    /// For each image of the collection, its row.
    rows: Vec<usize>,
    /// For each row, how many regions it has.
    counts: Vec<usize>,
    fingerprint: String,
}

/// Where the rows of a tensor are.
#[derive(Clone, Copy)]
struct Place {
    start: u64,
    dtype: Dtype,
}

impl RegionFile {
    /// Opens the file at `path`, which must have a row for each image of `collection`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not of this format, or lacks an image; the message names what
    /// is wrong.
    pub fn open(path: &Path, collection: &Collection) -> Result<Self> {
        let name = path.display();
        let Opened {
            file,
            metadata,
            start,
        } = safetensors::open(path)?;
        let place = |tensor: &str, rank: usize, dtypes: &[Dtype]| {
            find(&metadata, tensor, rank, dtypes, start).with_context(|| name.to_string())
        };
        let (features, shape) = place("features", 3, &[Dtype::F32, Dtype::F16])?;
        let (boxes, box_shape) = place("boxes", 3, &[Dtype::F32])?;
        let (count, count_shape) = place("count", 1, &[Dtype::I32, Dtype::I64])?;
        let [images, most, width] = shape[..] else {
            unreachable!("its rank was checked");
        };
        ensure!(
            images > 0 && most > 0 && width > 0,
            "{name}: `features` has shape {shape:?}; it needs an image, a region and a number"
        );
        ensure!(
            box_shape == [images, most, SIDES],
            "{name}: `boxes` has shape {box_shape:?}, it must be {:?}, as `features` has {shape:?}",
            [images, most, SIDES]
        );
        ensure!(
            count_shape == [images],
            "{name}: `count` has shape {count_shape:?}, it must be [{images}], as `features` has \
             {shape:?}"
        );
        let names = names(&metadata).with_context(|| name.to_string())?;
        ensure!(
            names.len() == images,
            "{name}: the metadata `{NAMES}` has {} names for the {images} images of `features`",
            names.len()
        );
        let mut opened = Self {
            path: path.to_path_buf(),
            file: Mutex::new(file),
            features,
            boxes,
            shape: [most, width],
            rows: Vec::new(),
            counts: Vec::new(),
            fingerprint: String::new(),
        };
        opened.counts = opened.read_counts(count, &names)?;
        opened.rows = rows(&names, collection).with_context(|| name.to_string())?;
        opened.fingerprint = opened.summed(&names);
        Ok(opened)
    }

    /// The width of a feature, D.
    pub fn width(&self) -> usize {
        self.shape[1]
    }

    /// Most regions of an image, R.
    pub fn room(&self) -> usize {
        self.shape[0]
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Equal for files of the same names, shapes and counts, in hexadecimal; the features are not
    /// read for it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The regions of image `index` of the collection.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, a number is not finite, or a box is none; the message names file
    /// and row.
    pub fn regions(&self, index: usize) -> Result<Regions> {
        let row = self.rows[index];
        let [most, width] = self.shape;
        let count = self.counts[row];
        let place = || format!("{}, row {row}", self.path.display());
        let features = self.row(self.features, row * most * width, count * width);
        let features = features.with_context(place)?;
        let boxes = self.row(self.boxes, row * most * SIDES, count * SIDES);
        let boxes = boxes.with_context(place)?;
        if let Some(at) = features.iter().position(|value| !value.is_finite()) {
            bail!(
                "{}: `features` holds {} in region {}: all numbers must be finite",
                place(),
                features[at],
                at / width
            );
        }
        let boxes: Vec<[f32; SIDES]> = boxes.as_chunks().0.to_vec();
        for (region, sides) in boxes.iter().enumerate() {
            let [x0, y0, x1, y1] = *sides;
            let fits = |low: f32, high: f32| 0.0 <= low && low < high && high <= 1.0;
            ensure!(
                fits(x0, x1) && fits(y0, y1),
                "{}: the box of region {region} is {sides:?}; it must be x0 y0 x1 y1 with \
                 0 ≤ x0 < x1 ≤ 1 and 0 ≤ y0 < y1 ≤ 1",
                place()
            );
        }
        Ok(Regions { features, boxes })
    }

    /// `count` values of a tensor from the value `from` on.
    fn row(&self, place: Place, from: usize, count: usize) -> Result<Vec<f32>> {
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

    fn bytes(&self, place: Place, from: usize, count: usize) -> Result<Vec<u8>> {
        let size = place.dtype.bitsize() / 8;
        let mut bytes = vec![0; count * size];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(place.start + (from * size) as u64))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn read_counts(&self, place: Place, names: &[String]) -> Result<Vec<usize>> {
        let name = self.path.display();
        let bytes = self.bytes(place, 0, names.len());
        let bytes = bytes.with_context(|| format!("{name}: `count` could not be read"))?;
        let counts: Vec<i64> = match place.dtype {
            Dtype::I32 => {
                let values = bytes.as_chunks().0.iter();
                values.map(|&x| i32::from_le_bytes(x).into()).collect()
            }
            _ => {
                let values = bytes.as_chunks().0.iter();
                values.map(|&x| i64::from_le_bytes(x)).collect()
            }
        };
        let [most, _] = self.shape;
        let checked = counts.iter().zip(names).map(|(&count, image)| {
            ensure!(
                (1..=most as i64).contains(&count),
                "{name}: `count` of {image} is {count}; it must lie in 1..={most}"
            );
            Ok(count as usize)
        });
        checked.collect()
    }

    fn summed(&self, names: &[String]) -> String {
        let mut sum = Sha256::new();
        for (name, count) in names.iter().zip(&self.counts) {
            sum.update(name.as_bytes());
            sum.update([0]);
            sum.update(count.to_le_bytes());
        }
        sum.update(self.shape.map(usize::to_le_bytes).concat());
        let bytes = sum.finalize();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A tensor of the file: where it is, and its shape.
fn find(
    metadata: &Metadata,
    name: &str,
    rank: usize,
    dtypes: &[Dtype],
    start: u64,
) -> Result<(Place, Vec<usize>)> {
    let info = metadata.info(name);
    let info = info.with_context(|| {
        format!("it has no tensor `{name}`: files of regions have `features`, `boxes`, `count`")
    })?;
    ensure!(
        info.shape.len() == rank,
        "`{name}` has shape {:?}, it must have {rank} dimensions",
        info.shape
    );
    ensure!(
        dtypes.contains(&info.dtype),
        "`{name}` is {:?}, it must be one of {dtypes:?}",
        info.dtype
    );
    let place = Place {
        start: start + info.data_offsets.0 as u64,
        dtype: info.dtype,
    };
    Ok((place, info.shape.clone()))
}

/// The names of the images, row by row.
fn names(metadata: &Metadata) -> Result<Vec<String>> {
    let text = metadata.metadata().as_ref().and_then(|all| all.get(NAMES));
    let text = text.with_context(|| {
        format!("its metadata have no `{NAMES}`: a JSON array of the images' file names")
    })?;
    let names = serde_json::from_str(text);
    names.with_context(|| format!("the metadata `{NAMES}` are no JSON array of file names"))
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
                "the row of {name} is that of two images: {} and {}; regions are found by the \
                 file's name",
                collection.place(other),
                collection.place(index)
            );
        }
        Ok(row)
    };
    (0..collection.examples.len()).map(find).collect()
}

/// The name of an image in a file of regions.
pub fn image_name(collection: &Collection, index: usize) -> String {
    let image = &collection.examples[index].image;
    let name = image.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
