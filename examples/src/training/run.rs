//! A whole run of a system: data, scores before, training, scores after, report.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use burn::train::Interrupter;

use super::config::TrainingConfig;
use super::folder::{RunFolder, TOKENIZER_FILE};
use super::history::History;
use super::inputs::Data;
pub use super::options::{Folder, Options};
pub use super::program::Program;
use super::progress::{Extent, Lines, dashboard};
use super::strategy::Ending;
use super::summary;
use super::system::System;
use super::trainer::{Loaders, Start, Trained, train};
use crate::console::say;
use crate::report::{Change, ParameterCount, RunReport, Stage};

/// The effective configuration in a run's folder.
pub const CONFIG_FILE: &str = "config.json";

/// The results for programs in a run's folder, which a finished run has.
pub(crate) const METRICS_FILE: &str = "metrics.json";

/// How a run ended.
pub enum Ended<S: Program> {
    /// It finished, with these results.
    Reached(Box<Reached<S>>),
    /// It finished; the first of its workers has the results.
    Helped,
    /// It was interrupted and can be resumed.
    Interrupted,
}

/// The results of a finished run on the held-out split.
pub struct Reached<S: Program> {
    /// What it was evaluated on.
    pub test: S::Test,
    /// The scores of the untrained model.
    pub before: S::Scores,
    /// The scores of the trained model.
    pub after: S::Scores,
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
pub fn run<S: Program>(
    config: &TrainingConfig<S::Config>,
    options: &Options,
    interrupter: Interrupter,
) -> Result<Ended<S>> {
    options.team.check(config)?;
    if options.team.is_first() {
        lead(config, options, interrupter)
    } else {
        help(config, options, interrupter)
    }
}

/// Evaluates without training, such as weights of an earlier run on data that it never saw, and
/// reports.
///
/// # Errors
///
/// As [`run`].
pub fn evaluate<S: Program>(
    config: &TrainingConfig<S::Config>,
    options: &Options,
) -> Result<S::Scores> {
    let mut stages = Stages::default();
    let started = SystemTime::now();
    let data = S::open(config, options, None)?;
    let folder = options.folder.begin()?;
    config.write(&folder.path.join(CONFIG_FILE))?;
    data.tokenizer.save(folder.path.join(TOKENIZER_FILE))?;
    stages.end("data");
    let ready = Start::<S>::fresh(config, &options.device).and_then(|start| {
        // Nothing interrupts it.
        S::complete(config, &data, options, &folder.path, &Interrupter::new())?;
        Ok(start.model)
    });
    let model = match ready {
        Ok(model) => model,
        Err(error) => {
            folder.take_back();
            return Err(error);
        }
    };
    let parameters = parameter_counts(&model);
    print_parameters(&parameters);
    let batch_size = config.division(&options.device, 1).pairs;
    let scores = model.valid().evaluate(&data.test, batch_size, true)?;
    stages.end("evaluation");
    let history = History::default();
    let report = RunReport {
        dataset: data.dataset,
        parameters,
        started: Some(started),
        stages: stages.ended,
        ..report::<S>(
            config,
            options,
            &history,
            S::report(&data.test, None, &scores, &history),
        )?
    };
    let shown = S::after(&data.test, &scores);
    publish(&report, &folder.path, &shown)?;
    Ok(scores)
}

/// The report of a run, of which a system has given the parts that are its own.
fn report<S: Program>(
    config: &TrainingConfig<S::Config>,
    options: &Options,
    history: &History,
    own: RunReport,
) -> Result<RunReport> {
    let mut curves = summary::curves(history, S::LOSSES, S::FIGURES);
    for (name, reference) in S::references(config) {
        let losses = S::LOSSES.iter().zip(&mut curves.losses);
        let found = losses.into_iter().find(|(loss, _)| **loss == name);
        if let Some((_, curve)) = found {
            curve.reference = Some(reference);
        }
    }
    Ok(RunReport {
        title: S::TITLE.to_string(),
        command: options.command.clone(),
        config: config.to_value()?,
        changes: history.changes.clone(),
        device: match options.team.count() {
            1 => options.device_name.clone(),
            count => format!("{count} × {}", options.device_name),
        },
        curves,
        ..own
    })
}

/// Writes a report into the folder of a run, and says where it is under the scores.
pub(super) fn publish(report: &RunReport, run: &Path, scores: &str) -> Result<()> {
    report.write(run)?;
    say(format_args!("\n{scores}\n"));
    say(format_args!(
        "Report: {}\nFor programs: {}",
        run.join("report.html").display(),
        run.join(METRICS_FILE).display()
    ));
    Ok(())
}

/// A run that comes before another, in a folder `name` of its own in the folder of the other. One
/// that is finished is left as it is; one that was interrupted goes on. Returns its folder,
/// by a path that is the same for all workers, or `None` if it is interrupted.
///
/// # Errors
///
/// As [`run`].
pub fn stage<S: Program>(
    name: &str,
    config: &TrainingConfig<S::Config>,
    options: &Options,
    of: &Path,
    interrupter: &Interrupter,
) -> Result<Option<PathBuf>> {
    let path = of.join(name);
    let absolute = std::path::absolute(&path)?;
    let began = RunFolder::began(&path);
    if began && path.join(METRICS_FILE).is_file() {
        return Ok(Some(absolute));
    }
    let folder = if began {
        Folder::Resume(path)
    } else {
        Folder::New(path)
    };
    let options = Options {
        folder,
        // Of stages in stages, the outermost run is the one to resume.
        stage_of: Some(options.stage_of.clone().unwrap_or_else(|| of.to_path_buf())),
        ..options.clone()
    };
    if options.team.is_first() {
        say(format_args!("Stage: {name}"));
    }
    let ended = S::run(config, &options, interrupter.clone())?;
    // The other workers read what the first one writes at its end.
    options.team.of_first("")?;
    Ok(match ended {
        Ended::Reached(_) | Ended::Helped => Some(absolute),
        Ended::Interrupted => None,
    })
}

/// A run of one worker, or of the first of several.
fn lead<S: Program>(
    config: &TrainingConfig<S::Config>,
    options: &Options,
    interrupter: Interrupter,
) -> Result<Ended<S>> {
    let mut stages = Stages::default();
    let started = SystemTime::now();
    let device = &options.device;
    let resumed = options.folder.open()?;
    let path = resumed.as_ref().map(|run| &*run.path);
    let data = S::open(config, options, path)?;
    let checkpoint = match path {
        Some(run) => Start::resumed(config, &data.fingerprint, run, device)?,
        None => None,
    };
    let is_new = resumed.is_none();
    let run = match resumed {
        Some(run) => run,
        None => options.folder.begin()?,
    };
    config.write(&run.path.join(CONFIG_FILE))?;
    data.tokenizer.save(run.path.join(TOKENIZER_FILE))?;
    tell(options, &run.path)?;
    stages.end("data");
    let goes_on = checkpoint.is_some();
    let fresh = match fresh(config, &data, options, &run.path, goes_on, &interrupter) {
        Ok(Some(fresh)) => fresh,
        Ok(None) => return Ok(Ended::Interrupted),
        Err(error) => {
            if is_new {
                run.take_back();
            }
            return Err(error);
        }
    };
    stages.end("earlier stages");

    let parameters = parameter_counts(&fresh.model);
    print_parameters(&parameters);
    let division = config.division(device, options.team.count());
    let before = fresh.model.evaluate(&data.test, division.pairs, false)?;
    say(format_args!("\n{}", S::before(&data.test, &before)));
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

    let after = trained.model.evaluate(&data.test, division.pairs, true)?;
    stages.end("evaluation after training");

    let history = &trained.history;
    let report = RunReport {
        dataset: data.dataset,
        parameters,
        started: Some(started),
        stages: stages.ended,
        ..report::<S>(
            config,
            options,
            history,
            S::report(&data.test, Some(&before), &after, history),
        )?
    };
    let scores = S::after(&data.test, &after);
    publish(&report, &run.path, &format!("After training\n{scores}"))?;
    Ok(Ended::Reached(Box::new(Reached {
        test: data.test,
        before,
        after,
        losses: history.first_and_last_losses(),
    })))
}

/// The model before its first step, after what comes before; `None` if that is interrupted.
fn fresh<S: Program>(
    config: &TrainingConfig<S::Config>,
    data: &Data<S>,
    options: &Options,
    run: &Path,
    goes_on: bool,
    interrupter: &Interrupter,
) -> Result<Option<Start<S>>> {
    let prepared = S::prepare(config, data, options, run, interrupter)?;
    let (data, device) = (&data.fingerprint, &options.device);
    let start = |prepared| Start::of_run(&prepared, config, data, run, goes_on, device);
    prepared.map(start).transpose()
}

/// The part of any other worker: it trains with the others, and writes nothing.
fn help<S: Program>(
    config: &TrainingConfig<S::Config>,
    options: &Options,
    interrupter: Interrupter,
) -> Result<Ended<S>> {
    // By then the first worker has drawn the scenes, and saved the tokenizer.
    let run = PathBuf::from(options.team.of_first("")?);
    let data = S::open(config, options, Some(&run))?;
    let device = &options.device;
    let checkpoint = Start::resumed(config, &data.fingerprint, &run, device)?;
    let Some(prepared) = S::prepare(config, &data, options, &run, &interrupter)? else {
        return Ok(Ended::Interrupted);
    };
    let start = match checkpoint {
        Some(start) => start,
        None => Start::fresh(&prepared, device)?,
    };
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

/// Trains from `start` with a dashboard or lines of progress.
fn train_on<S: Program>(
    data: &Data<S>,
    config: &TrainingConfig<S::Config>,
    options: &Options,
    run: &Path,
    start: Start<S>,
    interrupter: Interrupter,
) -> Result<Trained<S>> {
    let cursor = start.state.cursor;
    let shared = &config.shared;
    data.train.seek(cursor.epoch, cursor.batch);
    let batches_per_epoch = data.train.batches_per_epoch();
    let extent = Extent {
        first_step: start.state.step,
        total_steps: shared
            .schedule
            .total_steps(batches_per_epoch, shared.accumulation),
        pairs_a_step: shared.data.batch_size * shared.accumulation,
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
        train: Arc::new(data.train.clone()),
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

fn parameter_counts(model: &impl System) -> Vec<ParameterCount> {
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
