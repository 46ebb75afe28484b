//! What trained models are for: embeddings of images and captions, in a file that
//! [`audit`](crate::audit) reads, the pictures nearest to a text, classes by their names, and the
//! model for others.
//!
//! A file of embeddings has
//!
//! | tensor | shape | what |
//! |---|---|---|
//! | `image_id` | `[captions]`, I64 | the row of each caption's image |
//! | `image` | `[images, D]`, F32 | embeddings of images, after the projection, not normalised |
//! | `text` | `[captions, D]`, F32 | embeddings of captions, likewise |
//!
//! Rows are in the order of the data. The metadata `paths` has the paths of the images, a JSON
//! array.

mod export;
mod model;
mod rows;
mod search;
mod zero_shot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use rayon::prelude::*;

use crate::console::{say, warn};
use crate::data::{EvaluationSet, Split};
use crate::files;
use crate::number::{counted, grouped};
use crate::signals::{INTERRUPTED, on_interrupt};

pub use export::export;
pub use model::{Encoders, Model};
use rows::RowFile;
pub use search::Search;
pub use zero_shot::ZeroShot;

/// What to embed, by what, and where to.
pub struct Options {
    /// A file of published weights, or the folder of a run.
    pub weights: PathBuf,
    /// The tokenizer, unless it lies beside the weights.
    pub tokenizer: Option<PathBuf>,
    /// The captioned images; for a run of `radiograph`, the studies.
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
    check_new(&[("--output", &options.output)])?;
    let model = Model::open(
        &options.weights,
        options.tokenizer.as_deref(),
        &options.device,
    )?;
    let collection = model.data(&options.data, options.skip_bad)?;
    let Model {
        encoders,
        transform,
        tokenizer,
        ..
    } = model;
    let job = format!(
        "{} {} {}",
        model::fingerprint(&options.weights)?,
        collection.fingerprint(),
        tokenizer.fingerprint()
    );
    let set = EvaluationSet::of(
        Arc::new(collection),
        options.split,
        Arc::new(tokenizer),
        transform,
        options.workers,
    )?;
    let (batch, device) = (options.batch_size, &options.device);
    let first = set.caption_batches_from(0, 1, device).next();
    let first = first.context("there is no caption")??;
    let [_, width] = encoders.captions(first).dims();
    let file = RowFile::open(&options.output, &set, width, batch, &job)?;
    let (images, captions) = (set.num_images(), set.num_captions());
    let mut writing = Writing::new(file, images + captions, interrupter);
    let first = writing.file.written().min(images);
    let batches = set.image_batches_from(first, batch, device);
    if !writing.all(batches, |images| encoders.images(images))? {
        return Ok(false);
    }
    let first = writing.file.written() - images;
    let batches = set.caption_batches_from(first, batch, device);
    if !writing.all(batches, |captions| encoders.captions(captions))? {
        return Ok(false);
    }
    writing.file.finish()?;
    say(format_args!(
        "{} and {} embedded, {width} numbers each, in {}",
        counted(images, "image"),
        counted(captions, "caption"),
        options.output.display()
    ));
    Ok(true)
}

/// Checks before any work that files are not there yet, that their folders are, and that no two are
/// one; the options that name them stand before them.
///
/// # Errors
///
/// If one of that does not hold.
pub fn check_new(outputs: &[(&str, &Path)]) -> Result<()> {
    for (index, (option, file)) in outputs.iter().enumerate() {
        ensure!(
            !file.exists(),
            "{} exists already: choose another {option}",
            file.display()
        );
        let folder = files::folder(file);
        ensure!(
            folder.is_dir(),
            "{option} {}: there is no folder {}",
            file.display(),
            folder.display()
        );
        for (other, before) in &outputs[..index] {
            ensure!(
                !files::are_same(file, before),
                "{other} and {option} are one file"
            );
        }
    }
    Ok(())
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

/// A file that is being written.
struct Writing<'a> {
    file: RowFile,
    progress: Progress,
    interrupter: &'a Interrupter,
}

impl<'a> Writing<'a> {
    /// Begins, or goes on, with a file that is to have `rows` rows.
    fn new(file: RowFile, rows: usize, interrupter: &'a Interrupter) -> Self {
        if file.written() > 0 {
            let rows = counted(file.written(), "row");
            say(format_args!("Going on after {rows}"));
        }
        Self {
            progress: Progress::new(rows, file.written()),
            file,
            interrupter,
        }
    }

    /// Embeds batches, one on each core at a time; false if it was interrupted.
    fn all<B: Send, E: Into<anyhow::Error>>(
        &mut self,
        mut batches: impl Iterator<Item = Result<B, E>>,
        embed: impl Fn(B) -> Tensor<2> + Sync,
    ) -> Result<bool> {
        loop {
            if self.interrupter.should_stop() {
                self.file.keep()?;
                return Ok(false);
            }
            let rows = next_rows(&mut batches, &embed)?;
            if rows.is_empty() {
                return Ok(true);
            }
            for rows in rows {
                self.file.push(&rows)?;
            }
            self.progress.report(self.file.written());
        }
    }
}

/// The embeddings of the next batches, one on each core; nothing after the last.
fn next_rows<B: Send, E: Into<anyhow::Error>>(
    batches: &mut impl Iterator<Item = Result<B, E>>,
    embed: impl Fn(B) -> Tensor<2> + Sync,
) -> Result<Vec<Vec<f32>>> {
    let next = batches.take(rayon::current_num_threads());
    let next: Vec<B> = next.collect::<Result<_, E>>().map_err(Into::into)?;
    let rows = next.into_par_iter();
    let rows = rows.map(|batch| embed(batch).into_data().iter::<f32>().collect());
    Ok(rows.collect())
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
