//! Features of an image's regions, such as a detector's, from a file.
//!
//! A safetensors file with three or four tensors and lists of names, row by row an image:
//!
//! | what | shape | dtype | meaning |
//! |---|---|---|---|
//! | `features` | `[images, R, D]` | F32 or F16 | a feature of each region |
//! | `boxes` | `[images, R, 4]` | F32 | `x0 y0 x1 y1`, as shares of width and height, in [0, 1] |
//! | `count` | `[images]` | I32 or I64 | how many of the `R` regions the image has, from the first |
//! | `class` | `[images, R]` | I32 or I64 | what a region shows, a place in `classes`; optional |
//! | metadata `names` | | | the file names of the images, without folders, a JSON array |
//! | metadata `classes` | | | the names of the classes, a JSON array; where there is `class` |
//!
//! In Python `save_file(tensors, "regions.safetensors", {"names": json.dumps(names)})` writes one.
//! What stands behind an image's last region is not read. The rows may be in any order and of more
//! images than a collection has: an image is found by its name.
//!
//! The header, the names and the counts are read when the file is opened; features and boxes row by
//! row when they are needed, since those of MS-COCO are larger than most memories. As a run starts, it
//! reads all of the file, for its fingerprint.

mod boxes;
mod examples;
#[cfg(test)]
mod tests;
mod writer;

pub use super::named::{image_name, image_names};
pub use boxes::BoxesConfig;
pub use examples::{POSITION, RegionBatch, RegionPair, RegionPairs, Tags};
pub use writer::RegionWriter;

use std::path::Path;

use ::safetensors::Dtype;
use anyhow::{Context, Result, bail, ensure};

use super::Collection;
use super::named::{NamedRows, Place};

/// Numbers of a box.
const SIDES: usize = 4;
/// The tensor that says what regions show, and the list of its classes.
const CLASS: &str = "class";
const CLASSES: &str = "classes";
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

/// What the regions of images show.
#[derive(Clone, Debug, PartialEq)]
pub struct Classes {
    /// The names of the classes.
    pub names: Vec<String>,
    /// For each image, the class of each of its regions.
    pub of_regions: Vec<Vec<usize>>,
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
    /// The class of each region, and the names of the classes.
    classes: Option<(Place, Vec<String>)>,
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
            classes: None,
        };
        opened.classes = opened.find_classes(images)?;
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

    /// Reads the regions of all images of the collection, and what they show, to see that they can
    /// be.
    ///
    /// # Errors
    ///
    /// As [`regions`](Self::regions) and [`tags`](Self::tags).
    pub fn check(&self) -> Result<()> {
        (0..self.rows.len()).try_for_each(|index| {
            if self.has_tags() {
                self.tags(index)?;
            }
            self.regions(index).map(drop)
        })
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

    /// Whether the file says what the regions show.
    pub fn has_tags(&self) -> bool {
        self.classes.is_some()
    }

    /// What the regions of image `index` of the collection show, in words, one behind the other.
    ///
    /// # Errors
    ///
    /// If the file does not say it, if it cannot be read, or a class is none; the message names
    /// file and row.
    pub fn tags(&self, index: usize) -> Result<String> {
        let row = self.rows[index];
        let place = || format!("{}, row {row}", self.file.path().display());
        let (classes, names) = self.classes.as_ref().with_context(|| {
            let file = self.file.path().display();
            format!("{file}: it has no `{CLASS}`, which says what each region shows")
        })?;
        let classes = self
            .file
            .integers(*classes, row * self.room(), self.counts[row]);
        let classes = classes.with_context(place)?;
        let named = classes.iter().enumerate().map(|(region, &class)| {
            let name = usize::try_from(class).ok();
            let name = name.and_then(|class| names.get(class));
            name.map(String::as_str).with_context(|| {
                format!(
                    "{}: `{CLASS}` of region {region} is {class}; it must lie in 0..={}",
                    place(),
                    names.len() - 1
                )
            })
        });
        Ok(named.collect::<Result<Vec<_>>>()?.join(" "))
    }

    fn find_classes(&self, images: usize) -> Result<Option<(Place, Vec<String>)>> {
        if !self.file.has(CLASS) {
            return Ok(None);
        }
        let name = self.file.path().display();
        let (place, shape) = self.file.find(CLASS, 2, &[Dtype::I32, Dtype::I64], ALL)?;
        let expected = [images, self.room()];
        ensure!(
            shape == expected,
            "{name}: `{CLASS}` has shape {shape:?}, it must be {expected:?}"
        );
        let names = self.file.list(CLASSES, "names of classes")?;
        ensure!(
            !names.is_empty() && names.iter().all(|class| !class.trim().is_empty()),
            "{name}: the metadata `{CLASSES}` must name classes, none of them blank"
        );
        Ok(Some((place, names)))
    }

    fn read_counts(&self, place: Place, names: &[String]) -> Result<Vec<usize>> {
        let name = self.file.path().display();
        let counts = self.file.integers(place, 0, names.len());
        let counts = counts.with_context(|| format!("{name}: `count` could not be read"))?;
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
