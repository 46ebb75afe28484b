//! Pairs in memory, and batches of which a known share are false negatives of each other.
//!
//! A false negative is a pair of the batch whose caption means the same: the same attributes, shown
//! by another image and told in other words; where attributes are not known, another caption of the
//! same image. [`plan_batches`] sees to it that a share `rate` of each batch has one, and no other
//! pair.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Device, Tensor};
use rand::RngExt;
use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::setup::Setup;
use crate::data::random::{Purpose, stream};
use crate::data::{
    Batch, CaptionBatch, CaptionTokenizer, Collection, Padding, Pair, Scene, Shard, Split,
    TransformConfig, plan_batches,
};
use crate::training::evaluation::EmbedsPairs;
use crate::training::inputs;

/// Images with their captions, in memory.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Each image as the model sees it, not normalised: `[3, size, size]`.
    pub pixels: Vec<Vec<u8>>,
    /// The tokens of all captions, image by image.
    pub captions: Vec<Vec<u32>>,
    /// The image of each caption.
    pub image_of_caption: Vec<usize>,
    /// Equal for two images exactly if their captions mean the same.
    pub meanings: Vec<usize>,
    /// What each image shows, where that is known of all.
    pub scenes: Option<Vec<Scene>>,
}

/// A pair to learn from: an image, and captions of which one is drawn.
#[derive(Clone, Debug)]
struct Choice {
    image: usize,
    captions: std::ops::Range<usize>,
}

/// What all runs of a comparison read.
#[derive(Clone, Debug)]
pub struct Material {
    /// Pairs to learn from.
    pub train: Part,
    /// Pairs to choose settings by.
    pub validation: Part,
    /// Pairs to report on.
    pub test: Part,
    /// Equal for equal images, captions and tokens.
    pub fingerprint: String,
    choices: Vec<Choice>,
    /// Of each of `choices`, as [`Part::meanings`].
    meanings: Vec<usize>,
    transform: TransformConfig,
    padding: Padding,
}

/// A batch of training pairs.
pub struct Drawn {
    /// Its tensors; `image_ids` are places in [`Part::pixels`].
    pub batch: Batch,
    /// The place of each caption in [`Part::captions`].
    pub captions: Vec<usize>,
    /// The meaning of each pair.
    pub meanings: Vec<usize>,
}

impl Material {
    /// The captioned images that the settings name, or generated scenes in a folder of `folder`.
    ///
    /// Scenes are divided here, all images of one meaning together: unlike their own held-out
    /// splits, validation and test then have images of equal meaning, as the training pairs do.
    ///
    /// # Errors
    ///
    /// On bad data, if a split is empty, and if a batch cannot have its share of false negatives.
    pub fn open(setup: &Setup, folder: &Path) -> Result<Self> {
        let config = &setup.training;
        let collection = inputs::open_data(&config.shared.data, folder)?;
        let [train, validation, test] = match &config.shared.data.path {
            Some(_) => Split::ALL.map(|split| collection.indices(split)),
            None => divided(&collection, setup),
        };
        for (split, images) in Split::ALL.into_iter().zip([&train, &validation, &test]) {
            ensure!(
                !images.is_empty(),
                "{} has no image in the split {split}: a comparison needs all three",
                collection.file.display()
            );
        }
        let texts = || {
            let captions = train
                .iter()
                .flat_map(|&image| &collection.examples[image].captions);
            Ok(captions.map(String::as_str).collect::<Vec<_>>().into_iter())
        };
        let tokenizer = inputs::open_tokenizer(config, None, texts)?;
        let read = |images: &[usize]| Part::read(&collection, images, &tokenizer, setup);
        let (train, validation, test) = (read(&train)?, read(&validation)?, read(&test)?);
        let choices = choices(&train);
        let meanings = choices.iter().map(|choice| train.meanings[choice.image]);
        let material = Self {
            meanings: meanings.collect(),
            choices,
            fingerprint: format!("{} {}", collection.fingerprint(), tokenizer.fingerprint()),
            transform: config.transform(),
            padding: tokenizer.padding(),
            train,
            validation,
            test,
        };
        for &rate in &setup.protocol.rates {
            material.check(rate, setup)?;
        }
        Ok(material)
    }

    /// Checks that batches can have this share of false negatives.
    fn check(&self, rate: f64, setup: &Setup) -> Result<()> {
        let size = setup.training.shared.data.batch_size;
        let plan = self.plan(rate, size, 0, 0);
        let Some(batch) = plan.first() else {
            bail!(
                "{} training pairs do not fill a batch of {size}",
                self.choices.len()
            );
        };
        let found = sharing(batch, &self.meanings);
        let wanted = rate * size as f64;
        ensure!(
            (found as f64 - wanted).abs() <= 2.0,
            "a rate of {rate} needs {wanted:.0} of {size} pairs that have a false negative in \
             their batch, these data give {found}: {}",
            match self.train.scenes {
                Some(_) => "more images must share a meaning",
                None => "more images must have several captions",
            }
        );
        Ok(())
    }

    /// The batches of an epoch, as places among the pairs.
    fn plan(&self, rate: f64, size: usize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
        let mut order = stream(seed, epoch as u64, 0, Purpose::Order);
        plan_batches(&self.meanings, size, rate, &mut order)
    }

    /// `steps` batches at a false-negative rate, epoch after epoch: a function of these arguments.
    pub fn batches<'a>(
        &'a self,
        rate: f64,
        size: usize,
        seed: u64,
        steps: usize,
        device: &Device,
    ) -> impl Iterator<Item = Drawn> + use<'a> {
        let device = device.clone();
        let epochs = (0..).flat_map(move |epoch| {
            let plan = self.plan(rate, size, seed, epoch).into_iter();
            plan.map(move |pairs| (epoch, pairs))
        });
        epochs
            .take(steps)
            .map(move |(epoch, pairs)| self.draw(&pairs, seed, epoch, &device))
    }

    fn draw(&self, pairs: &[usize], seed: u64, epoch: usize, device: &Device) -> Drawn {
        let caption = |&pair: &usize| {
            let mut draw = stream(seed, epoch as u64, pair as u64, Purpose::Caption);
            draw.random_range(self.choices[pair].captions.clone())
        };
        let captions: Vec<usize> = pairs.iter().map(caption).collect();
        let meanings: Vec<usize> = pairs.iter().map(|&pair| self.meanings[pair]).collect();
        let items = captions.iter().map(|&caption| {
            let image = self.train.image_of_caption[caption];
            Pair {
                pixels: self.train.pixels[image].clone(),
                tokens: self.train.captions[caption].clone(),
                image_id: image,
                meaning: self.train.meanings[image],
            }
        });
        let shard = Shard {
            items: items.collect(),
            transform: self.transform.clone(),
            padding: self.padding,
        };
        Drawn {
            batch: shard.to_batch(device),
            captions,
            meanings,
        }
    }

    /// The embeddings of the images of a part and of its captions, `[rows, width]` each.
    pub fn embed(&self, part: &Part, model: &impl EmbedsPairs, device: &Device) -> [Tensor<2>; 2] {
        const ROWS: usize = 128;
        let images = part.pixels.chunks(ROWS).map(|images| {
            let mut values = Vec::with_capacity(images.len() * self.transform.values());
            for pixels in images {
                self.transform.normalise(pixels, &mut values);
            }
            model.embed_images(self.transform.tensor(values, device))
        });
        let images = Tensor::cat(images.collect(), 0);
        let texts = part.captions.chunks(ROWS).map(|captions| {
            model.embed_captions(CaptionBatch::new(captions, self.padding, device))
        });
        [images, Tensor::cat(texts.collect(), 0)]
    }
}

impl Part {
    fn read(
        collection: &Collection,
        images: &[usize],
        tokenizer: &CaptionTokenizer,
        setup: &Setup,
    ) -> Result<Self> {
        let transform = setup.training.transform();
        let pixels = images.par_iter();
        let pixels = pixels.map(|&image| Ok(transform.evaluate(&collection.decode(image)?)));
        let mut part = Self {
            pixels: pixels.collect::<Result<_>>()?,
            meanings: collection.meanings(images),
            scenes: images
                .iter()
                .map(|&image| collection.examples[image].scene.clone())
                .collect(),
            ..Self::default()
        };
        for (place, &image) in images.iter().enumerate() {
            for caption in &collection.examples[image].captions {
                let tokens = tokenizer.encode(caption);
                let tokens = tokens.with_context(|| collection.place(image))?;
                part.captions.push(tokens);
                part.image_of_caption.push(place);
            }
        }
        Ok(part)
    }
}

/// Of images of known meaning each is a pair, with any of its captions; of others each caption.
fn choices(part: &Part) -> Vec<Choice> {
    let mut of_images: Vec<Choice> = Vec::new();
    for (caption, &image) in part.image_of_caption.iter().enumerate() {
        let last = of_images.last_mut().filter(|last| last.image == image);
        match last {
            Some(last) if part.scenes.is_some() => last.captions.end = caption + 1,
            _ => of_images.push(Choice {
                image,
                captions: caption..caption + 1,
            }),
        }
    }
    of_images
}

/// Training, validation and test images, all images of one meaning in one of them.
fn divided(collection: &Collection, setup: &Setup) -> [Vec<usize>; 3] {
    let all: Vec<usize> = (0..collection.examples.len()).collect();
    let meanings = collection.meanings(&all);
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); all.len()];
    for &image in &all {
        groups[meanings[image]].push(image);
    }
    groups.retain(|group| !group.is_empty());
    let seed = setup.training.shared.data.scenes.seed;
    groups.shuffle(&mut stream(seed, 0, 0, Purpose::SceneDivision));
    let mut groups = groups.into_iter();
    let mut take = |count: usize| {
        let mut images = Vec::new();
        while images.len() < count {
            let Some(group) = groups.next() else { break };
            images.extend(group);
        }
        images.sort_unstable();
        images
    };
    let test = take(setup.protocol.test);
    let validation = take(setup.protocol.validation);
    [take(usize::MAX), validation, test]
}

/// How many of a batch's pairs share their meaning with another of it.
fn sharing(batch: &[usize], meanings: &[usize]) -> usize {
    let mut counts: HashMap<usize, usize> = HashMap::new();
    for &pair in batch {
        *counts.entry(meanings[pair]).or_default() += 1;
    }
    counts.values().filter(|&&count| count > 1).sum()
}
