//! A feature of each image, such as one of a trained residual network, from a file.
//!
//! A safetensors file with one tensor and a list of names, row by row an image:
//!
//! | what | shape | dtype | meaning |
//! |---|---|---|---|
//! | `features` | `[images, D]` | F32 or F16 | the feature of the image |
//! | metadata `names` | | | the file names of the images, without folders, a JSON array |
//!
//! In Python `save_file({"features": f}, "features.safetensors", {"names": json.dumps(names)})`
//! writes one. The rows may be in any order and of more images than a collection has: an image is
//! found by its name. Features are read when they are needed.

mod examples;
#[cfg(test)]
mod tests;

pub use examples::{FeaturePair, FeaturePairs, Seen};

use std::path::Path;

use ::safetensors::Dtype;
use anyhow::{Context, Result, bail, ensure};

use super::Collection;
use super::named::{NamedRows, NamedWriter, Place};

/// A file of features whose header and names have been read, for the images of a collection.
pub struct FeatureFile {
    file: NamedRows,
    features: Place,
    width: usize,
    /// For each image of the collection, its row.
    rows: Vec<usize>,
}

impl FeatureFile {
    /// Opens the file at `path`, which must have a row for each image of `collection`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not of this format, or lacks an image; the message names what
    /// is wrong.
    pub fn open(path: &Path, collection: &Collection) -> Result<Self> {
        let file = NamedRows::open(path)?;
        let all = "files of features have `features`";
        let (features, shape) = file.find("features", 2, &[Dtype::F32, Dtype::F16], all)?;
        let [images, width] = shape[..] else {
            unreachable!("its rank was checked");
        };
        ensure!(
            images > 0 && width > 0,
            "{}: `features` has shape {shape:?}; it needs an image and a number",
            path.display()
        );
        let names = file.names(images)?;
        Ok(Self {
            rows: file.rows(&names, collection)?,
            file,
            features,
            width,
        })
    }

    /// The width of a feature, D.
    pub fn width(&self) -> usize {
        self.width
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

    /// Reads the features of all images of the collection, to see that they can be.
    ///
    /// # Errors
    ///
    /// As [`feature`](Self::feature).
    pub fn check(&self) -> Result<()> {
        (0..self.rows.len()).try_for_each(|index| self.feature(index).map(drop))
    }

    /// The feature of image `index` of the collection.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or a number is not finite; the message names file and row.
    pub fn feature(&self, index: usize) -> Result<Vec<f32>> {
        let row = self.rows[index];
        let place = || format!("{}, row {row}", self.file.path().display());
        let from = row * self.width;
        let feature = self.file.floats(self.features, from, self.width);
        let feature = feature.with_context(place)?;
        if let Some(at) = feature.iter().position(|value| !value.is_finite()) {
            bail!(
                "{}: `features` holds {} at {at}: all numbers must be finite",
                place(),
                feature[at]
            );
        }
        Ok(feature)
    }
}

/// A file of features being written; it has its name once it is [finished](Self::finish).
pub struct FeatureWriter {
    file: NamedWriter,
    /// Number of images, width of a feature.
    shape: [usize; 2],
    written: usize,
}

impl FeatureWriter {
    /// A file of the images `names`, row by row, with features of that `width`.
    ///
    /// # Errors
    ///
    /// If there is no image or no number, and if the file cannot be written.
    pub fn create(path: &Path, names: &[String], width: usize) -> Result<Self> {
        let shape = [names.len(), width];
        ensure!(
            !names.is_empty() && width > 0,
            "a file of features needs images and numbers: it would have the shape {shape:?}"
        );
        Ok(Self {
            file: NamedWriter::create(path, names, &[("features", Dtype::F32, &shape)], &[])?,
            shape,
            written: 0,
        })
    }

    /// The features of the next images, one behind the other.
    ///
    /// # Errors
    ///
    /// If they are not whole rows or too many, and if the file cannot be written.
    pub fn push(&mut self, features: &[f32]) -> Result<()> {
        let [images, width] = self.shape;
        let rows = features.len() / width;
        ensure!(
            features.len() == rows * width && self.written + rows <= images,
            "{} numbers behind row {} of {images}, which have {width} each",
            features.len(),
            self.written
        );
        self.file.push(features.iter().map(|x| x.to_le_bytes()))?;
        self.written += rows;
        Ok(())
    }

    /// Gives the file its name.
    ///
    /// # Errors
    ///
    /// If a row is missing, and if the file cannot be written.
    pub fn finish(self) -> Result<()> {
        self.file.finish(self.written, self.shape[0])
    }
}
