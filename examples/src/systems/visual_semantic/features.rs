//! Features of images by the image encoder of a run, into a file.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::Interrupter;
use rayon::prelude::*;

use super::{VisualSemantic, VisualSemanticConfig};
use crate::cli::{Started, Task, TrainingArguments, start};
use crate::console::say;
use crate::data::features::FeatureWriter;
use crate::data::regions::image_name;
use crate::data::{Collection, decode};
use crate::models::ResNet;
use crate::number::counted;
use crate::training::config::TrainingConfig;
use crate::training::inputs::open_data;
use crate::training::run::{CONFIG_FILE, Folder};
use crate::training::system::SystemConfig;
use crate::training::weights::Weights;

const NOTHING: &[&str] = &[];
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
        let device = device.clone().inner();
        let config = TrainingConfig::<VisualSemanticConfig>::read(&run.join(CONFIG_FILE));
        let config = config.with_context(|| format!("{}: no such run", run.display()))?;
        let model: VisualSemantic = config.system.init(&device);
        let model = Weights::of_run(run)?.load_into(model, NOTHING, NOTHING)?;
        let image = model.image.with_context(|| {
            format!(
                "{} reads features itself: it has no image encoder",
                run.display()
            )
        })?;
        Ok(Self {
            image,
            config,
            device,
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
        let names: Vec<_> = all.iter().map(|&i| image_name(collection, i)).collect();
        let width = self.config.system.model.image.features();
        let mut writer = FeatureWriter::create(path, &names, width)?;
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
            let decoded = decode(&collection.examples[image].image);
            let decoded = decoded.with_context(|| collection.place(image))?;
            let mut values = Vec::with_capacity(transform.values());
            transform.normalise(&transform.evaluate(&decoded), &mut values);
            Ok(values)
        };
        let values = images.par_iter().map(read).collect::<Result<Vec<_>>>()?;
        let size = transform.size as usize;
        let data = TensorData::new(values.concat(), [images.len(), 3, size, size]);
        Ok(self.image.forward(Tensor::from_data(data, &self.device)))
    }
}

/// Writes the features of the images of a collection by the image encoder of a run: what
/// `visual-semantic features` does. False if it was interrupted.
///
/// # Errors
///
/// Without `--init` and `--output`, on bad data, and on files that cannot be read or written.
pub fn make(arguments: TrainingArguments) -> Result<bool> {
    let Some(started) = start::<VisualSemantic>(arguments, Task::named(&["features"]))? else {
        return Ok(true);
    };
    let Started {
        config,
        options,
        interrupter,
    } = started;
    let init = config.shared.init.as_ref();
    let init = init.context("features needs --init RUN, a run whose image encoder to use")?;
    ensure!(
        init.path.is_none(),
        "features takes a whole run: leave out the part, --init {}",
        init.run.display()
    );
    let Folder::New(path) = &options.folder else {
        bail!("features needs --output FILE, the file to write");
    };
    ensure!(
        !path.exists(),
        "{} exists already: choose another --output",
        path.display()
    );
    let tower = Tower::of_run(&init.run, &options.device)?;
    let collection = open_data(&config.shared.data, &options)?;
    tower.write(path, &collection, &interrupter)
}
