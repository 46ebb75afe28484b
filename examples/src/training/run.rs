//! A whole run: data, tokenizer, retrieval before, training, retrieval after, report.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use burn::tensor::Device;
use burn::train::Interrupter;
use burn_contrastive::retrieval::CrossModalMetrics;

use super::config::TrainingConfig;
use super::distributed::Team;
use super::evaluation::Embedded;
use super::folder::{RunFolder, TOKENIZER_FILE};
use super::inputs::Data;
use super::progress::{Extent, Lines, dashboard};
use super::strategy::Ending;
use super::summary;
use super::trainer::{Loaders, Start, Trained, train};
use crate::console::say;
use crate::data::{Collection, EvaluationSet, Split};
use crate::models::DualEncoder;
use crate::number::counted;
use crate::report::{
    self, Change, ParameterCount, Retrieval, RetrievalScores, RunReport, Similarities, Stage,
};

/// The effective configuration in a run's folder.
pub const CONFIG_FILE: &str = "config.json";
const HISTOGRAM_BINS: usize = 50;
const EXAMPLES: usize = 8;

/// The arguments of a run besides its configuration.
pub struct Options {
    /// The run's folder: configuration, tokenizer, checkpoints, report.
    pub folder: Folder,
    /// Where generated scenes are kept, for all runs.
    pub scenes: PathBuf,
    /// The device to compute on.
    pub device: Device,
    /// Its name, for the report.
    pub device_name: String,
    /// Threads that decode images.
    pub workers: usize,
    /// Whether to show Burn's dashboard, which needs a terminal, instead of lines.
    pub dashboard: bool,
    /// Steps between two progress lines.
    pub lines_every: usize,
    /// The processes that train together.
    pub team: Arc<Team>,
    /// The command line, for the report.
    pub command: String,
    /// The words of a command that resumes the run whose folder is put behind them.
    pub to_resume: Vec<String>,
}

/// The folder of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// It holds no run yet.
    New(PathBuf),
    /// It does not exist; where it does, a number is put behind its name.
    Numbered(PathBuf),
    /// It holds a run, which goes on from its last checkpoint, or begins anew if there is none.
    Resume(PathBuf),
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// It finished, with these results.
    Reached(Box<Reached>),
    /// It finished; the first of its workers has the results.
    Helped,
    /// It was interrupted and can be resumed.
    Interrupted,
}

/// The results of a finished run on the held-out split.
#[derive(Clone, Debug)]
pub struct Reached {
    /// Retrieval by chance.
    pub chance: RetrievalScores,
    /// Retrieval of the untrained model.
    pub before: CrossModalMetrics,
    /// Retrieval of the trained model.
    pub after: CrossModalMetrics,
    /// Mean training losses of the first and of the last tenth of the steps.
    pub losses: (f64, f64),
}

/// Trains and evaluates. All workers of the team call it with the same configuration.
///
/// Nothing is written before the data are read and every setting is checked.
///
/// # Errors
///
/// On bad data or configuration, on files that cannot be read or written, if the folder is not free
/// to write to, if the loss is not finite, and if workers differ.
pub fn run(config: &TrainingConfig, options: &Options, interrupter: Interrupter) -> Result<Ended> {
    options.team.check(config)?;
    let ended = if options.team.is_first() {
        lead(config, options, interrupter)
    } else {
        help(config, options, interrupter)
    };
    if ended.is_ok() {
        options.team.finish();
    }
    ended
}

/// A run of one worker, or of the first of several.
fn lead(config: &TrainingConfig, options: &Options, interrupter: Interrupter) -> Result<Ended> {
    let mut stages = Stages::default();
    let started = SystemTime::now();
    let device = &options.device;
    let resumed = options.folder.open()?;
    let path = resumed.as_ref().map(|run| &*run.path);
    let data = Data::open(config, options, path)?;
    let checkpoint = match path {
        Some(run) => Start::resumed(config, &data.fingerprint, run, device)?,
        None => None,
    };
    let run = match (resumed, &options.folder) {
        (Some(run), _) => run,
        (None, Folder::Numbered(path)) => RunFolder::begin_new(path)?,
        (None, Folder::New(path) | Folder::Resume(path)) => RunFolder::begin(path)?,
    };
    config.write(&run.path.join(CONFIG_FILE))?;
    data.tokenizer.save(run.path.join(TOKENIZER_FILE))?;
    tell(options, &run.path)?;
    stages.end("data");

    let fresh = Start::fresh(config, device);
    let parameters = parameter_counts(&fresh.model);
    print_parameters(&parameters);
    let division = config.division(device, options.team.count());
    let embed = |model: &DualEncoder| Embedded::new(model, &data.test, division.pairs, device);
    let embedded = embed(&fresh.model)?;
    let before = embedded.ranks().metrics();
    let similarities_before = embedded.histogram(HISTOGRAM_BINS).into();
    let chance = RetrievalScores::chance(&captions_of_images(&data.test));
    print_before(&data.test, &chance, &before);
    stages.end("evaluation before training");

    let start = checkpoint.unwrap_or(fresh);
    options.team.check_equal(&data.fingerprint, &start.model)?;
    say(format_args!("Each batch: {}{division}\n", options.team));
    let trained = train_on(&data, config, options, &run.path, start, interrupter)?;
    stages.end("training");
    if let Ending::Interrupted(checkpoint) = &trained.ending {
        say(format_args!(
            "\nInterrupted; saved {}. To go on:\n    {}",
            checkpoint.display(),
            options.resume_command(&run.path)
        ));
        return Ok(Ended::Interrupted);
    }

    let embedded = embed(&trained.model)?;
    let ranks = embedded.ranks();
    let after = ranks.metrics();
    stages.end("evaluation after training");

    let report = RunReport {
        parameters,
        started: Some(started),
        stages: stages.ended,
        retrieval: retrieval(&data.test, chance, &before, &after),
        curves: summary::curves(&trained.history),
        changes: trained.history.changes.clone(),
        similarities: Similarities {
            before: Some(similarities_before),
            after: Some(embedded.histogram(HISTOGRAM_BINS).into()),
        },
        examples: summary::examples(&data.test, &embedded, &ranks, EXAMPLES),
        ..header(config, options, &data.collection)?
    };
    report.write(&run.path)?;
    say(format_args!("\nAfter training\n{after}\n"));
    say(format_args!(
        "Report: {}\nFor programs: {}",
        run.path.join("report.html").display(),
        run.path.join("metrics.json").display()
    ));
    Ok(Ended::Reached(Box::new(Reached {
        chance,
        before,
        after,
        losses: trained.history.first_and_last_losses(),
    })))
}

/// The part of any other worker: it trains with the others, and writes nothing.
fn help(config: &TrainingConfig, options: &Options, interrupter: Interrupter) -> Result<Ended> {
    // By then the first worker has drawn the scenes, and saved the tokenizer.
    let run = PathBuf::from(options.team.of_first("")?);
    let data = Data::open(config, options, Some(&run))?;
    let device = &options.device;
    let checkpoint = Start::resumed(config, &data.fingerprint, &run, device)?;
    let start = checkpoint.unwrap_or_else(|| Start::fresh(config, device));
    options.team.check_equal(&data.fingerprint, &start.model)?;
    let trained = train_on(&data, config, options, &run, start, interrupter)?;
    Ok(match trained.ending {
        Ending::Finished => Ended::Helped,
        Ending::Interrupted(_) => Ended::Interrupted,
    })
}

/// Says to the other workers where the run is.
fn tell(options: &Options, run: &Path) -> Result<()> {
    let path = std::path::absolute(run)?;
    let path = path.to_str();
    if options.team.count() > 1 {
        let path = path.context("the path of a run of several workers must be Unicode")?;
        options.team.of_first(path)?;
    }
    Ok(())
}

impl Folder {
    /// The run to resume, or that there is room for a new one.
    fn open(&self) -> Result<Option<RunFolder>> {
        match self {
            Self::New(path) => RunFolder::check(path).map(|()| None),
            Self::Numbered(_) => Ok(None),
            Self::Resume(path) => RunFolder::resume(path).map(Some),
        }
    }
}

impl Options {
    /// The command that resumes the run in the folder `run`.
    fn resume_command(&self, run: &Path) -> String {
        let run = run.to_string_lossy();
        let words = self.to_resume.iter().map(String::as_str).chain([&*run]);
        // Without a NUL, which no argument has, every word can be quoted.
        shlex::try_join(words).unwrap_or_else(|_| format!("clip --resume {run}"))
    }
}

/// Trains from `start` with a dashboard or lines of progress.
fn train_on(
    data: &Data,
    config: &TrainingConfig,
    options: &Options,
    run: &Path,
    start: Start,
    interrupter: Interrupter,
) -> Result<Trained> {
    let cursor = start.state.cursor;
    data.pairs.seek(cursor.epoch, cursor.batch);
    let batches_per_epoch = data.pairs.batches_per_epoch();
    let extent = Extent {
        first_step: start.state.step,
        total_steps: config
            .schedule
            .total_steps(batches_per_epoch, config.accumulation),
        pairs_a_step: config.data.batch_size * config.accumulation,
    };
    if extent.first_step > 0 {
        say(format_args!(
            "Resuming after step {} of {}.",
            extent.first_step, extent.total_steps
        ));
        let changes = &start.state.history.changes;
        for change in changes.iter().filter(|c| c.step == extent.first_step) {
            let Change {
                setting, from, to, ..
            } = change;
            say(format_args!(
                "From here on {setting} = {to}, so far {from}."
            ));
        }
    }
    let loaders = Loaders {
        fingerprint: data.fingerprint.clone(),
        train: Arc::new(data.pairs.clone()),
        batches_per_epoch,
        valid: Arc::new(data.valid.clone()),
    };
    let display = if !options.team.is_first() {
        Box::new(Lines::new(io::sink(), extent, options.lines_every))
    } else if options.dashboard {
        dashboard(interrupter.clone())
    } else {
        Box::new(Lines::new(io::stdout(), extent, options.lines_every))
    };
    let team = options.team.clone();
    team.watch(&interrupter, run);
    train(config, run, start, loaders, display, interrupter, team)
}

fn print_before(test: &EvaluationSet, chance: &RetrievalScores, before: &CrossModalMetrics) {
    say(format_args!(
        "\nHeld-out split: {}, {}. By chance R@1 is {:.2} % and {:.2} %.\n\n\
         Before training\n{before}\n",
        counted(test.num_images(), "image"),
        counted(test.num_captions(), "caption"),
        chance.image_to_text.recall_at_1,
        chance.text_to_image.recall_at_1,
    ));
}

fn retrieval(
    test: &EvaluationSet,
    chance: RetrievalScores,
    before: &CrossModalMetrics,
    after: &CrossModalMetrics,
) -> Retrieval {
    Retrieval {
        split: "test".to_string(),
        images: test.num_images() as u64,
        captions: test.num_captions() as u64,
        chance: Some(chance),
        before: Some(before.into()),
        after: Some(after.into()),
        ..Retrieval::default()
    }
}

fn captions_of_images(set: &EvaluationSet) -> Vec<usize> {
    let mut counts = vec![0; set.num_images()];
    for &image in set.image_of_caption() {
        counts[image] += 1;
    }
    counts
}

fn parameter_counts(model: &DualEncoder) -> Vec<ParameterCount> {
    model
        .parts()
        .into_iter()
        .map(|(part, count)| ParameterCount {
            part: part.to_string(),
            count: count as u64,
        })
        .collect()
}

fn print_parameters(parameters: &[ParameterCount]) {
    let total: u64 = parameters.iter().map(|part| part.count).sum();
    let parts: Vec<_> = parameters
        .iter()
        .map(|part| format!("{} {}", part.part, part.count))
        .collect();
    say(format_args!("Parameters: {total} ({})", parts.join(", ")));
}

/// The part of a report that does not depend on the results.
fn header(
    config: &TrainingConfig,
    options: &Options,
    collection: &Collection,
) -> Result<RunReport> {
    Ok(RunReport {
        title: "CLIP dual encoder".to_string(),
        command: options.command.clone(),
        config: serde_json::to_value(config)?,
        device: match options.team.count() {
            1 => options.device_name.clone(),
            count => format!("{count} × {}", options.device_name),
        },
        dataset: dataset(collection),
        ..RunReport::default()
    })
}

fn dataset(collection: &Collection) -> report::Dataset {
    let splits = [Split::Train, Split::Validation, Split::Test].map(|split| report::Split {
        name: split.name().to_string(),
        images: collection.indices(split).len() as u64,
        captions: collection.captions(split).count() as u64,
    });
    report::Dataset {
        name: collection.file.display().to_string(),
        splits: splits.to_vec(),
    }
}

/// Measures how long the stages take, one after the other.
struct Stages {
    since: Instant,
    ended: Vec<Stage>,
}

impl Default for Stages {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            ended: Vec::new(),
        }
    }
}

impl Stages {
    fn end(&mut self, name: &str) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.ended.push(Stage {
            name: name.to_string(),
            seconds,
        });
        self.since = Instant::now();
    }
}
