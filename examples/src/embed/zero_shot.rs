//! The class of an image by the captions that speak of the classes: zero-shot classification, as
//! Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021),
//! section 3.1.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Error, Result, bail, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use burn_contrastive::retrieval::Shortlist;

use super::model::Model;
use super::{Progress, next_rows};
use crate::console::warn;
use crate::data::{
    CaptionBatch, CaptionTokenizer, ClassPrompts, ClassifiedImages, EvaluationSet, Split,
};
use crate::number::counted;
use crate::report::{Classified, ZeroShotReport, ZeroShotSources};
use crate::training::inputs::report_skipped;
use crate::words::shown;

/// What to classify, by what, and into which classes.
pub struct ZeroShot {
    /// A file of published weights, or the folder of a run.
    pub weights: PathBuf,
    /// The tokenizer, unless it lies beside the weights.
    pub tokenizer: Option<PathBuf>,
    /// The file of [classes and templates](ClassPrompts::read).
    pub classes: PathBuf,
    /// The [images](ClassifiedImages::read).
    pub data: PathBuf,
    /// Whether bad rows and images are left out.
    pub skip_bad: bool,
    /// The split, or all of the data.
    pub split: Option<Split>,
    /// Images or captions that are embedded at once, by each core.
    pub batch_size: usize,
    /// The device.
    pub device: Device,
    /// Threads that decode images.
    pub workers: usize,
}

impl ZeroShot {
    /// Classifies.
    ///
    /// # Errors
    ///
    /// On weights, a tokenizer, classes or images that cannot be read or do not fit, and on
    /// embeddings that are not finite: no image has a class by those.
    pub fn run(&self) -> Result<ZeroShotReport> {
        ensure!(self.batch_size > 0, "--batch-size 0: it must be at least 1");
        let ClassPrompts { names, prompts } = ClassPrompts::read(&self.classes)?;
        let model = Model::open(&self.weights, self.tokenizer.as_deref(), &self.device)?;
        let data = ClassifiedImages::read(&self.data, &names, self.skip_bad)?;
        report_skipped(&data.images.skipped, "image");
        let set = EvaluationSet::of(
            data.images.clone(),
            self.split,
            Arc::new(model.tokenizer.clone()),
            model.transform.clone(),
            self.workers,
        )?;
        let all: Vec<String> = prompts.iter().flatten().cloned().collect();
        let cut = cut(&all, &model.tokenizer)?;
        let nearest = Shortlist::new(
            self.images(&model, &set)?,
            self.classes(&model, &prompts, &all)?,
            ZeroShotReport::listed(names.len()),
        );
        let images = (0..set.num_images()).map(|image| {
            let cosines = nearest.similarities(image).iter().copied();
            Classified {
                image: set.image_path(image).to_owned(),
                class: data.classes[set.indices()[image]],
                nearest: nearest
                    .candidates(image)
                    .iter()
                    .copied()
                    .zip(cosines)
                    .collect(),
            }
        });
        let sources = ZeroShotSources {
            weights: self.weights.display().to_string(),
            classes: self.classes.display().to_string(),
            data: self.data.display().to_string(),
            split: self.split.map(|split| split.to_string()),
            left_out: data.images.skipped.len() as u64,
            prompts: all.len() as u64,
            cut,
        };
        let images: Vec<_> = images.collect();
        Ok(ZeroShotReport::new(sources, &names, &images))
    }

    /// The embeddings of all images, `[images, D]`.
    fn images(&self, model: &Model, set: &EvaluationSet) -> Result<Tensor<2>> {
        let batches = set.image_batches(self.batch_size, &self.device);
        let count = set.num_images();
        let rows = self.rows(count, batches, |images| model.encoders.images(images))?;
        self.finite(rows, count, |image| {
            format!("image {}", set.image_path(image).display())
        })
    }

    /// An embedding of each class, `[classes, D]`: the mean of those of its captions at unit
    /// length. The paper calls it an ensemble over the embedding space (section 3.1.4). `all` are
    /// the captions of all.
    fn classes(&self, model: &Model, prompts: &[Vec<String>], all: &[String]) -> Result<Tensor<2>> {
        let batches = all.chunks(self.batch_size);
        let batches =
            batches.map(|texts| CaptionBatch::read(texts, &model.tokenizer, &self.device));
        let rows = self.rows(all.len(), batches, |texts| model.encoders.captions(texts))?;
        let rows = self.finite(rows, all.len(), |row| format!("prompt {:?}", all[row]))?;
        let [_, width] = rows.dims();
        let values: Vec<f64> = rows.into_data().iter::<f64>().collect();
        let mut rows = values.chunks(width);
        let mut means = Vec::with_capacity(prompts.len() * width);
        for prompts in prompts {
            let mut mean = vec![0.0; width];
            for row in rows.by_ref().take(prompts.len()) {
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                let share = 1.0 / (norm.max(f64::MIN_POSITIVE) * prompts.len() as f64);
                mean.iter_mut()
                    .zip(row)
                    .for_each(|(sum, x)| *sum += share * x);
            }
            means.extend(mean.into_iter().map(|x| x as f32));
        }
        let means = TensorData::new(means, [prompts.len(), width]);
        Ok(Tensor::from_data(means, &self.device))
    }

    /// The embeddings of all batches, `count` rows in all.
    fn rows<B: Send, E: Into<Error>>(
        &self,
        count: usize,
        mut batches: impl Iterator<Item = Result<B, E>>,
        embed: impl Fn(B) -> Tensor<2> + Sync,
    ) -> Result<Vec<f32>> {
        let mut progress = Progress::new(count, 0);
        let (mut rows, mut done) = (Vec::new(), 0);
        loop {
            let next = next_rows(&mut batches, &embed)?;
            if next.is_empty() {
                return Ok(rows);
            }
            done += next.len() * self.batch_size;
            rows.extend(next.into_iter().flatten());
            progress.report(done.min(count));
        }
    }

    /// Rows of numbers as a tensor, if all of them are finite; `name` is of a row.
    fn finite(
        &self,
        values: Vec<f32>,
        rows: usize,
        name: impl Fn(usize) -> String,
    ) -> Result<Tensor<2>> {
        let width = values.len() / rows;
        let bad = values.iter().position(|value| !value.is_finite());
        if let Some(bad) = bad {
            bail!(
                "{} gives {} an embedding with {}: nothing is near to that",
                self.weights.display(),
                name(bad / width),
                values[bad]
            );
        }
        let values = TensorData::new(values, [rows, width]);
        Ok(Tensor::from_data(values, &self.device))
    }
}

/// Those of the captions that do not fit the context, of which is told.
fn cut(prompts: &[String], tokenizer: &CaptionTokenizer) -> Result<Vec<String>> {
    let mut cut = Vec::new();
    for prompt in prompts {
        if tokenizer.cuts(prompt)? {
            cut.push(prompt.clone());
        }
    }
    if let Some(first) = cut.first() {
        warn(format_args!(
            "Longer than {} tokens, and cut: {}; the first: {}",
            tokenizer.context_length(),
            counted(cut.len(), "prompt"),
            shown(first)
        ));
    }
    Ok(cut)
}
