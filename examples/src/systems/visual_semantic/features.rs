//! Features of images by the image encoder of a run, into a file.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use rayon::prelude::*;

use super::{VisualSemantic, VisualSemanticConfig};
use crate::cli::{Started, TrainingArguments, Writing, start_writing};
use crate::console::say;
use crate::data::Collection;
use crate::data::features::FeatureWriter;
use crate::data::regions::image_names;
use crate::models::ResNet;
use crate::number::counted;
use crate::training::config::TrainingConfig;
use crate::training::inputs::open_data;
use crate::training::weights::trained;

/// Images that are encoded at once.
const AT_ONCE: usize = 32;

/// The image encoder of a run.
struct Tower {
    config: TrainingConfig<VisualSemanticConfig>,
    image: ResNet,
    device: Device,
}

impl Tower {
    fn of_run(run: &Path, device: &Device) -> Result<Self> {
        let (config, model) = trained::<VisualSemantic>(run, device)?;
        let image = model.image.with_context(|| {
            format!(
                "{} reads features itself: it has no image encoder",
                run.display()
            )
        })?;
        Ok(Self {
            image,
            config,
            device: device.clone().inner(),
        })
    }

    /// Writes the features of all images, unless interrupted before: then the answer is false.
    fn write(
        &self,
        path: &Path,
        collection: &Collection,
        interrupter: &Interrupter,
    ) -> Result<bool> {
        let all: Vec<usize> = (0..collection.examples.len()).collect();
        let width = self.config.system.model.image.features();
        let mut writer = FeatureWriter::create(path, &image_names(collection), width)?;
        for images in all.chunks(AT_ONCE) {
            if interrupter.should_stop() {
                return Ok(false);
            }
            let features = self.features(collection, images)?.into_data();
            writer.push(&features.iter::<f32>().collect::<Vec<_>>())?;
        }
        writer.finish()?;
        say(format_args!(
            "Features: {} of {width} numbers each in {}",
            counted(all.len(), "image"),
            path.display()
        ));
        Ok(true)
    }

    /// The features of some images, as they are evaluated: `[images, features]`.
    fn features(&self, collection: &Collection, images: &[usize]) -> Result<Tensor<2>> {
        let transform = self.config.transform();
        let read = |&image: &usize| -> Result<Vec<f32>> {
            let decoded = collection.decode(image)?;
            let mut values = Vec::with_capacity(transform.values());
            transform.normalise(&transform.evaluate(&decoded), &mut values);
            Ok(values)
        };
        let values = images.par_iter().map(read).collect::<Result<Vec<_>>>()?;
        let pixels = transform.tensor(values.concat(), &self.device);
        Ok(self.image.forward(pixels))
    }
}

/// Writes the features of the images of a collection by the image encoder of a run: what
/// `visual-semantic features` does. False if it was interrupted.
///
/// # Errors
///
/// Without `--init` and `--output`, on bad data, and on files that cannot be read or written.
pub fn make(arguments: TrainingArguments) -> Result<bool> {
    let run = "a run whose image encoder to use";
    let writing = start_writing::<VisualSemantic>(arguments, "features", run)?;
    let Some(Writing { started, run, file }) = writing else {
        return Ok(true);
    };
    let Started {
        config,
        options,
        interrupter,
    } = started;
    let tower = Tower::of_run(&run, &options.device)?;
    let collection = open_data(&config.shared.data, &options.scenes)?;
    tower.write(&file, &collection, &interrupter)
}
