//! Writes files of regions, row by row.

use std::path::Path;

use ::safetensors::Dtype;
use anyhow::{Result, ensure};

use super::{CLASS, CLASSES, Classes, Regions, SIDES};
use crate::data::named::NamedWriter;

/// A file of regions being written; it has its name once it is [finished](Self::finish).
pub struct RegionWriter {
    file: NamedWriter,
    /// Number of images, most regions of one, width of a feature.
    shape: [usize; 3],
    written: usize,
    /// The boxes of every image, which are known before the features.
    boxes: Vec<Vec<[f32; 4]>>,
}

impl RegionWriter {
    /// A file of the images `names`, row by row, whose regions have these `boxes` and features of
    /// that `width`.
    ///
    /// # Errors
    ///
    /// If there is no image, or one without a region, and if the file cannot be written.
    pub fn create(
        path: &Path,
        names: &[String],
        boxes: Vec<Vec<[f32; 4]>>,
        width: usize,
    ) -> Result<Self> {
        Self::with_classes(path, names, boxes, width, None)
    }

    /// Likewise, with what each region shows.
    ///
    /// # Errors
    ///
    /// Likewise, and if there are not as many classes of regions as boxes.
    pub fn with_classes(
        path: &Path,
        names: &[String],
        boxes: Vec<Vec<[f32; 4]>>,
        width: usize,
        classes: Option<&Classes>,
    ) -> Result<Self> {
        let most = boxes.iter().map(Vec::len).max().unwrap_or(0);
        let least = boxes.iter().map(Vec::len).min().unwrap_or(0);
        ensure!(
            names.len() == boxes.len() && least > 0 && width > 0,
            "a file of regions needs images, each with a region, and features: there are {} names, \
             {} rows of at least {least} boxes, and {width} numbers a feature",
            names.len(),
            boxes.len()
        );
        let images = names.len();
        let shapes = [&[images, most, SIDES][..], &[images, most, width]];
        let mut tensors = vec![
            ("count", Dtype::I32, &shapes[0][..1]),
            ("boxes", Dtype::F32, shapes[0]),
            ("features", Dtype::F32, shapes[1]),
        ];
        let mut lists = Vec::new();
        if let Some(Classes { names, of_regions }) = classes {
            let lengths = of_regions.iter().map(Vec::len);
            ensure!(
                lengths.eq(boxes.iter().map(Vec::len)),
                "a file of regions needs a class of each region, or none at all"
            );
            tensors.insert(1, (CLASS, Dtype::I32, &shapes[0][..2]));
            lists.push((CLASSES, names.as_slice()));
        }
        let mut file = NamedWriter::create(path, names, &tensors, &lists)?;
        file.push(boxes.iter().map(|row| (row.len() as i32).to_le_bytes()))?;
        for row in classes.iter().flat_map(|classes| &classes.of_regions) {
            let mut values: Vec<i32> = row.iter().map(|&class| class as i32).collect();
            values.resize(most, 0);
            file.push(values.into_iter().map(i32::to_le_bytes))?;
        }
        for row in &boxes {
            let mut values: Vec<f32> = row.as_flattened().to_vec();
            values.resize(most * SIDES, 0.0);
            file.push(values.into_iter().map(f32::to_le_bytes))?;
        }
        Ok(Self {
            file,
            shape: [images, most, width],
            written: 0,
            boxes,
        })
    }

    /// The regions of the next image: their features, region by region.
    ///
    /// # Errors
    ///
    /// If they are not as many as the image has boxes, and if the file cannot be written.
    pub fn push(&mut self, features: &[f32]) -> Result<()> {
        let [images, most, width] = self.shape;
        let row = self.written;
        ensure!(row < images, "the file has {images} rows already");
        let expected = self.boxes[row].len() * width;
        ensure!(
            features.len() == expected,
            "row {row}: {} numbers, the regions have {expected}",
            features.len()
        );
        let mut values = features.to_vec();
        values.resize(most * width, 0.0);
        self.file.push(values.into_iter().map(f32::to_le_bytes))?;
        self.written += 1;
        Ok(())
    }

    /// Gives the file its name.
    ///
    /// # Errors
    ///
    /// If a row is missing, and if the file cannot be written.
    pub fn finish(self) -> Result<()> {
        let [images, _, _] = self.shape;
        self.file.finish(self.written, images)
    }
}

impl Regions {
    /// The boxes with their extent, `x0 y0 x1 y1 w h` of each region.
    pub fn positions(&self) -> Vec<f32> {
        let sides = self.boxes.iter();
        sides
            .flat_map(|&[x0, y0, x1, y1]| [x0, y0, x1, y1, x1 - x0, y1 - y0])
            .collect()
    }
}
