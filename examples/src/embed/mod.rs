//! What trained models are for: embeddings of images and captions, in a file that
//! [`audit`](crate::audit) reads, the pictures nearest to a text, and the model for others.
//!
//! | tensor | shape | what |
//! |---|---|---|
//! | `image_id` | `[captions]`, I64 | the row of each caption's image |
//! | `image` | `[images, D]`, F32 | embeddings of the images, after the projection, not normalised |
//! | `text` | `[captions, D]`, F32 | embeddings of the captions, likewise |
//!
//! Rows are in the order of the data. The metadata `paths` has the paths of the images, a JSON array.

mod export;
mod model;
mod rows;
mod search;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use rayon::prelude::*;

use crate::console::{say, warn};
use crate::data::{CaptionTokenizer, Collection, EvaluationSet, Split, TransformConfig};
use crate::number::{counted, grouped};
use crate::signals::{INTERRUPTED, on_interrupt};
use crate::training::evaluation::EmbedsPairs;
use crate::training::inputs::report_skipped;

pub use export::export;
pub use model::Model;
use rows::RowFile;
pub use search::Search;

/// What to embed, by what, and where to.
pub struct Options {
    /// A file of published weights, or the folder of a run.
    pub weights: PathBuf,
    /// The tokenizer, unless it lies beside the weights.
    pub tokenizer: Option<PathBuf>,
    /// The captioned images.
    pub data: PathBuf,
    /// Whether bad rows and images are left out.
    pub skip_bad: bool,
    /// The split, or all of the data.
    pub split: Option<Split>,
    /// The file to write.
    pub output: PathBuf,
    /// Images or captions that are embedded at once, by each core.
    pub batch_size: usize,
    /// The device.
    pub device: Device,
    /// Threads that decode images.
    pub workers: usize,
}

/// Embeds images and captions. What was interrupted goes on where it was if it is called again with
/// the same options; false if it was interrupted now.
///
/// # Errors
///
/// If the output exists, on weights, data or a tokenizer that cannot be read or do not fit, and if
/// the output cannot be written.
pub fn embed(options: &Options, interrupter: &Interrupter) -> Result<bool> {
    ensure!(
        options.batch_size > 0,
        "--batch-size 0: it must be at least 1"
    );
    ensure!(
        !options.output.exists(),
        "{} exists already: choose another --output",
        options.output.display()
    );
    let model = Model::open(
        &options.weights,
        options.tokenizer.as_deref(),
        &options.device,
    )?;
    let collection = Collection::read(&options.data, options.skip_bad)?;
    report_skipped(&collection.skipped, "image");
    let of = model::fingerprint(&options.weights)?;
    match model {
        Model::Clip(model, reading) => {
            write(&*model, reading, &of, collection, options, interrupter)
        }
        Model::Albef(model, reading) => {
            write(&*model, reading, &of, collection, options, interrupter)
        }
        Model::VisualSemantic(model, reading) => {
            write(&*model, reading, &of, collection, options, interrupter)
        }
    }
}

/// Lets Ctrl-C stop through `interrupter`; a second one ends the program at once.
///
/// # Errors
///
/// If the process has a handler already.
pub fn stop_on_ctrl_c(interrupter: Interrupter) -> Result<()> {
    on_interrupt(move || {
        if interrupter.should_stop() {
            std::process::exit(INTERRUPTED.into());
        }
        interrupter.stop(Some("Ctrl-C"));
        warn("Stopping: the same command goes on");
    })
}

/// How a model reads images and captions.
pub struct Reading {
    /// Of images.
    pub transform: TransformConfig,
    /// Of captions.
    pub tokenizer: CaptionTokenizer,
}

fn write(
    model: &(impl EmbedsPairs + Sync),
    reading: Reading,
    model_fingerprint: &str,
    collection: Collection,
    options: &Options,
    interrupter: &Interrupter,
) -> Result<bool> {
    let tokenizer = Arc::new(reading.tokenizer);
    let set = EvaluationSet::of(
        Arc::new(collection),
        options.split,
        tokenizer.clone(),
        reading.transform,
        options.workers,
    )?;
    let first = set.caption_batches_from(0, 1, &options.device).next();
    let first = first.context("there is no caption")??;
    let [_, width] = model.embed_captions(first).dims();
    let job = format!(
        "{model_fingerprint} {} {}",
        set.collection().fingerprint(),
        tokenizer.fingerprint()
    );
    let mut file = RowFile::open(&options.output, &set, width, options.batch_size, &job)?;
    let threads = rayon::current_num_threads();
    let mut progress = Progress::new(set.num_images() + set.num_captions(), file.written());
    if file.written() > 0 {
        say(format_args!(
            "Going on after {}",
            counted(file.written(), "row")
        ));
    }
    if file.written() < set.num_images() {
        let batches = set.image_batches_from(file.written(), options.batch_size, &options.device);
        let embed = |images: Tensor<4>| model.embed_images(images);
        if !all(
            batches,
            embed,
            threads,
            &mut file,
            &mut progress,
            interrupter,
        )? {
            return Ok(false);
        }
    }
    let captions = file.written() - set.num_images();
    let batches = set.caption_batches_from(captions, options.batch_size, &options.device);
    let embed = |captions| model.embed_captions(captions);
    if !all(
        batches,
        embed,
        threads,
        &mut file,
        &mut progress,
        interrupter,
    )? {
        return Ok(false);
    }
    file.finish()?;
    say(format_args!(
        "{} and {} embedded, {width} numbers each, in {}",
        counted(set.num_images(), "image"),
        counted(set.num_captions(), "caption"),
        options.output.display()
    ));
    Ok(true)
}

/// Embeds batches, several at the same time; false if it was interrupted.
fn all<B: Send, E: Into<anyhow::Error>>(
    mut batches: impl Iterator<Item = Result<B, E>>,
    embed: impl Fn(B) -> Tensor<2> + Sync,
    threads: usize,
    file: &mut RowFile,
    progress: &mut Progress,
    interrupter: &Interrupter,
) -> Result<bool> {
    loop {
        if interrupter.should_stop() {
            file.keep()?;
            return Ok(false);
        }
        let next = batches.by_ref().take(threads);
        let next: Vec<B> = next.collect::<Result<_, E>>().map_err(Into::into)?;
        if next.is_empty() {
            return Ok(true);
        }
        let rows: Vec<Vec<f32>> = next
            .into_par_iter()
            .map(|batch| embed(batch).into_data().iter::<f32>().collect())
            .collect();
        for rows in rows {
            file.push(&rows)?;
        }
        progress.report(file.written());
    }
}

/// Lines of progress, at most one every few seconds.
struct Progress {
    all: usize,
    before: usize,
    started: Instant,
    told: Instant,
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(5);

    fn new(all: usize, before: usize) -> Self {
        let now = Instant::now();
        Self {
            all,
            before,
            started: now,
            told: now,
        }
    }

    fn report(&mut self, done: usize) {
        if self.told.elapsed() < Self::EVERY {
            return;
        }
        self.told = Instant::now();
        let rate = (done - self.before) as f64 / self.started.elapsed().as_secs_f64();
        let left = (self.all - done) as f64 / rate.max(1e-9);
        warn(format_args!(
            "{} of {}  {rate:.0} rows/s  ETA {}:{:02}",
            grouped(done as u64),
            grouped(self.all as u64),
            left as u64 / 60,
            left as u64 % 60
        ));
    }
}
