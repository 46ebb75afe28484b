//! Features of regions by the image tower of a `clip` run: parts of the images, drawn out to the
//! size of whole ones.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use burn::train::Interrupter;
use rayon::prelude::*;

use crate::cli::{Started, TrainingArguments, Writing, start_writing};
use crate::console::say;
use crate::data::regions::{BoxesConfig, image_names};
use crate::data::{Collection, RegionWriter};
use crate::number::counted;
use crate::systems::clip::{Clip, ClipConfig};
use crate::training::config::TrainingConfig;
use crate::training::inputs::open_data;
use crate::training::weights::trained;

/// Images that are cut up at once.
const AT_ONCE: usize = 32;

/// An image tower, as a `clip` run left it.
pub struct Tower {
    config: TrainingConfig<ClipConfig>,
    model: Clip,
    device: Device,
}

impl Tower {
    /// The tower of the run in the folder `run`, on `device`.
    ///
    /// # Errors
    ///
    /// If there is no finished step of `clip`.
    pub fn of_run(run: &Path, device: &Device) -> Result<Self> {
        let (config, model) = trained::<Clip>(run, device)?;
        Ok(Self {
            config,
            model,
            device: device.clone().inner(),
        })
    }

    /// Width of its features.
    pub fn width(&self) -> usize {
        self.config.system.model.embedding
    }

    /// Writes the regions of all images of `collection` to the file `path`, unless interrupted
    /// before: then there is no file, and the answer is false.
    ///
    /// # Errors
    ///
    /// If an image cannot be read, or the file not be written.
    pub fn write(
        &self,
        path: &Path,
        collection: &Collection,
        boxes: &BoxesConfig,
        seed: u64,
        interrupter: &Interrupter,
    ) -> Result<bool> {
        let all: Vec<usize> = (0..collection.examples.len()).collect();
        let classes = boxes.classes(collection);
        let boxes: Vec<_> = all
            .iter()
            .map(|&i| boxes.boxes(collection, i, seed))
            .collect();
        let names = image_names(collection);
        let mut writer = RegionWriter::with_classes(
            path,
            &names,
            boxes.clone(),
            self.width(),
            classes.as_ref(),
        )?;
        for images in all.chunks(AT_ONCE) {
            if interrupter.should_stop() {
                return Ok(false);
            }
            let features = self.features(collection, images, &boxes)?;
            let mut features = features.as_slice();
            for &image in images {
                let (own, rest) = features.split_at(boxes[image].len() * self.width());
                writer.push(own)?;
                features = rest;
            }
        }
        writer.finish()?;
        say(format_args!(
            "Regions: {} of {} in {}",
            counted(boxes.iter().map(Vec::len).sum::<usize>(), "region"),
            counted(all.len(), "image"),
            path.display()
        ));
        Ok(true)
    }

    /// The features of all regions of some images, one behind the other.
    fn features(
        &self,
        collection: &Collection,
        images: &[usize],
        boxes: &[Vec<[f32; 4]>],
    ) -> Result<Vec<f32>> {
        let transform = self.config.transform();
        let cut = |&image: &usize| -> Result<Vec<f32>> {
            let decoded = collection.decode(image)?;
            let mut values = Vec::with_capacity(boxes[image].len() * transform.values());
            for &sides in &boxes[image] {
                transform.normalise(&transform.region(&decoded, sides), &mut values);
            }
            Ok(values)
        };
        let parts = images.par_iter().map(cut).collect::<Result<Vec<_>>>()?;
        let pixels = transform.tensor(parts.concat(), &self.device);
        let features = self.model.embed_image(pixels).into_data();
        Ok(features.iter::<f32>().collect())
    }
}

/// Writes the regions of the images of a collection by the tower of a run: what
/// `it-contrast regions` does.
///
/// # Errors
///
/// Without `--init` and `--output`, on bad data, and on files that cannot be read or written.
pub fn make(arguments: TrainingArguments, boxes: &BoxesConfig) -> Result<bool> {
    boxes.check()?;
    let run = "a run of clip whose image tower to use";
    let Some(Writing { started, run, file }) = start_writing::<Clip>(arguments, "regions", run)?
    else {
        return Ok(true);
    };
    let Started {
        config,
        options,
        interrupter,
    } = started;
    let tower = Tower::of_run(&run, &options.device)?;
    let collection = open_data(&config.shared.data, &options.scenes)?;
    let seed = config.shared.seed;
    tower.write(&file, &collection, boxes, seed, &interrupter)
}
