//! Features of an image's regions, such as a detector's, from a file.
//!
//! A safetensors file with three tensors and a list of names, row by row an image:
//!
//! | what | shape | dtype | meaning |
//! |---|---|---|---|
//! | `features` | `[images, R, D]` | F32 or F16 | a feature of each region |
//! | `boxes` | `[images, R, 4]` | F32 | `x0 y0 x1 y1`, as shares of width and height, in [0, 1] |
//! | `count` | `[images]` | I32 or I64 | how many of the `R` regions the image has, from the first |
//! | metadata `names` | | | the file names of the images, without folders, a JSON array |
//!
//! In Python `save_file(tensors, "regions.safetensors", {"names": json.dumps(names)})` writes one.
//! What stands behind an image's last region is not read. The rows may be in any order and of more
//! images than a collection has: an image is found by its name.
//!
//! The header, the names and the counts are read when the file is opened; features and boxes row by
//! row when they are needed, since those of MS-COCO are larger than most memories. A run reads the
//! file once as it starts, for its fingerprint.

mod boxes;
mod examples;
#[cfg(test)]
mod tests;
mod writer;

pub use super::named::{image_name, image_names};
pub use boxes::BoxesConfig;
pub use examples::{POSITION, RegionBatch, RegionPair, RegionPairs};
pub use writer::RegionWriter;

use std::path::Path;

use ::safetensors::Dtype;
use anyhow::{Context, Result, bail, ensure};

use super::Collection;
use super::named::{NamedRows, Place};

/// Numbers of a box.
const SIDES: usize = 4;
/// What such a file has.
const ALL: &str = "files of regions have `features`, `boxes`, `count`";

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
    file: NamedRows,
    features: Place,
    boxes: Place,
    /// Most regions of an image, R, and the width of a feature, D.
    shape: [usize; 2],
    /// For each image of the collection, its row.
    rows: Vec<usize>,
    /// For each row, how many regions it has.
    counts: Vec<usize>,
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
        let file = NamedRows::open(path)?;
        let place =
            |tensor: &str, rank: usize, dtypes: &[Dtype]| file.find(tensor, rank, dtypes, ALL);
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
        let names = file.names(images)?;
        let rows = file.rows(&names, collection)?;
        let mut opened = Self {
            file,
            features,
            boxes,
            shape: [most, width],
            rows,
            counts: Vec::new(),
        };
        opened.counts = opened.read_counts(count, &names)?;
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
        self.file.path()
    }

    /// SHA-256 of the file, in hexadecimal: equal for equal files, features included, all of which
    /// are read for it.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        self.file.fingerprint()
    }

    /// Reads the regions of all images of the collection, to see that they can be.
    ///
    /// # Errors
    ///
    /// As [`regions`](Self::regions).
    pub fn check(&self) -> Result<()> {
        (0..self.rows.len()).try_for_each(|index| self.regions(index).map(drop))
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
        let place = || format!("{}, row {row}", self.file.path().display());
        let features = self
            .file
            .floats(self.features, row * most * width, count * width);
        let features = features.with_context(place)?;
        let boxes = self
            .file
            .floats(self.boxes, row * most * SIDES, count * SIDES);
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

    fn read_counts(&self, place: Place, names: &[String]) -> Result<Vec<usize>> {
        let name = self.file.path().display();
        let bytes = self.file.bytes(place, 0, names.len());
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
}
