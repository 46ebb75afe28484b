//! The command line that all training programs share.

mod init;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use burn::train::Interrupter;
use clap::Args;

use crate::console::{self, say, warn};
use crate::data::Split;
use crate::memory;
use crate::signals::INTERRUPTED;
use crate::training::comparison::Comparison;
use crate::training::config::TrainingConfig;
use crate::training::device::parse_device;
use crate::training::distributed::{Distributed, Team};
use crate::training::interrupt::stop_on_ctrl_c;
use crate::training::plan::{Axis, Plan};
use crate::training::run::{self, CONFIG_FILE, Ended, Folder, Options, Program};
use crate::training::system::SystemConfig;
use crate::training::weights::InitConfig;

const DEVICE: &str = "flex";
const WORKERS: u16 = 2;

/// What `--data` takes where it names captioned images.
pub const DATA: &str = "A Karpathy folder (dataset*.json, as Flickr30K and MS-COCO have), COCO's \
    captions_*.json, a .csv or .tsv of image path and caption, or shards with images in them: \
    WebDataset's .tar or .parquet, one, a folder of them, or 'shards/{00000..00012}.tar'";

/// The options of a training program.
#[derive(Args, Clone)]
pub struct TrainingArguments {
    #[arg(long, value_name = "PATH", help = DATA)]
    data: Option<PathBuf>,

    /// Leave out bad rows and images, and count them, instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,

    /// A JSON file of settings over the defaults
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    config: Option<PathBuf>,

    /// The objective to train by, at its defaults, such as con-vse or siglip
    #[arg(long, value_name = "NAME", conflicts_with = "resume")]
    objective: Option<String>,

    /// One setting over those of the file, such as schedule.steps=500 or model=vit-b-32; may be
    /// repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Start from the weights, the settings of the model and the tokenizer of this run, or of a
    /// file of published weights; with :PATH from the weights of one of its modules. May be
    /// repeated, each for another module
    #[arg(long, value_name = "RUN[:PATH]", conflicts_with = "resume")]
    init: Vec<String>,

    /// Start the image encoder from a file of published weights
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    init_image: Option<PathBuf>,

    /// Start the text encoder from a file of published weights
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    init_text: Option<PathBuf>,

    /// Train once for each of these values of a setting, and compare; of several, for each
    /// combination
    #[arg(long, value_name = "KEY=VALUE,VALUE...", conflicts_with = "resume")]
    grid: Vec<Axis>,

    /// Train so often, with seeds that count up, and report means and deviations
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1_000))]
    seeds: Option<u16>,

    /// Go on with the run in this folder from its last checkpoint
    #[arg(long, value_name = "RUN", conflicts_with_all = ["output", "data"])]
    resume: Option<PathBuf>,

    /// Backend to compute on, with an index where the machine has several, such as cuda:1
    #[arg(long, default_value = DEVICE)]
    device: String,

    /// Train together with the other processes that mpirun started, each on its part of every batch
    #[arg(long, value_enum, value_name = "HOW")]
    distributed: Option<Distributed>,

    /// Folder of the new run [default: runs/PROGRAM-DATE-TIME]
    #[arg(long, value_name = "RUN")]
    output: Option<PathBuf>,

    /// Threads that decode images
    #[arg(long, default_value_t = WORKERS, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,

    /// Show progress as lines on a terminal too, instead of the dashboard
    #[arg(long)]
    plain: bool,

    /// Steps between two progress lines
    #[arg(long, default_value_t = 20, value_name = "STEPS")]
    lines_every: usize,

    /// Print the configuration that these options give, and stop
    #[arg(long)]
    print_config: bool,
}

/// Runs a program: errors go to standard error, and the exit status says how it ended.
pub fn exit(program: impl FnOnce() -> Result<ExitCode>) -> ExitCode {
    memory::keep();
    match program().and_then(|code| console::finish().map(|()| code)) {
        Ok(code) => code,
        Err(error) => {
            warn(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The split that an argument names.
///
/// # Errors
///
/// If there is none of that name.
pub fn split(name: &str) -> Result<Split> {
    Split::from_name(name).context("there are train, validation and test")
}

/// What the options of a program come to.
pub struct Started<C> {
    /// The settings.
    pub config: TrainingConfig<C>,
    /// The rest.
    pub options: Options,
    /// What Ctrl-C sets.
    pub interrupter: Interrupter,
}

/// A program of a system: the words of its subcommand, and the settings that it has in place of the
/// system's own, as JSON.
#[derive(Clone, Copy, Default)]
pub struct Task<'a> {
    /// The words of the subcommand; empty for the program itself.
    pub command: &'a [&'a str],
    /// Settings that lie over those of the system, or of the run that it starts from.
    pub settings: Option<&'a str>,
}

impl<'a> Task<'a> {
    /// A subcommand whose system has settings of its own.
    pub fn named(command: &'a [&'a str]) -> Self {
        Self {
            command,
            settings: None,
        }
    }
}

/// Trains a system as the options say: once, or several times to compare.
///
/// # Errors
///
/// On settings, data or files that are bad, and as [`run`](run::run).
pub fn train<S: Program>(arguments: TrainingArguments, task: Task) -> Result<ExitCode> {
    let plan = plan(&arguments, task, Vec::new())?;
    let Some(started) = start::<S>(arguments, task)? else {
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(plan) = plan {
        let comparison = plan.comparison(&started.config)?;
        return run_all::<S>(&comparison, &plan, &started);
    }
    let Started {
        config,
        options,
        interrupter,
    } = started;
    let ended = S::run(&config, &options, interrupter)?;
    options.team.finish();
    Ok(match ended {
        Ended::Reached(_) | Ended::Helped => ExitCode::SUCCESS,
        Ended::Interrupted => INTERRUPTED.into(),
    })
}

/// Evaluates the weights of an earlier run, without training.
///
/// # Errors
///
/// Without `--init`, with several processes, and as [`evaluate`](run::evaluate).
pub fn evaluate<S: Program>(arguments: TrainingArguments, task: Task) -> Result<ExitCode> {
    ensure!(
        arguments.grid.is_empty() && arguments.seeds.is_none(),
        "evaluate scores one run: leave out --grid and --seeds"
    );
    let Some(started) = start::<S>(arguments, task)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let Started {
        config, options, ..
    } = started;
    ensure!(
        config.shared.init.is_some(),
        "evaluate needs --init RUN, the run whose weights to evaluate"
    );
    ensure!(
        options.team.count() == 1 && !matches!(options.folder, Folder::Resume(_)),
        "evaluate is done by one process, at once: leave out --distributed and --resume"
    );
    run::evaluate::<S>(&config, &options)?;
    Ok(ExitCode::SUCCESS)
}

/// Trains the runs of a subcommand that compares, perhaps with several seeds. `axes` are what it
/// varies by its own options; `comparison` makes the runs of them.
///
/// # Errors
///
/// As `comparison`, and as [`Comparison::run`].
pub fn compare<S: Program>(
    arguments: TrainingArguments,
    task: Task,
    axes: Vec<Axis>,
    comparison: impl FnOnce(&TrainingConfig<S::Config>, &[Axis]) -> Result<Comparison<S::Config>>,
) -> Result<ExitCode> {
    ensure!(
        arguments.grid.is_empty(),
        "`{}` varies settings of its own: leave out --grid",
        task.command.join(" ")
    );
    let plan = plan(&arguments, task, axes.clone())?;
    let plan = plan.unwrap_or_else(|| Plan::once(task.command, axes));
    let Some(started) = start::<S>(arguments, task)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let comparison = comparison(&started.config, &plan.grid)?;
    run_all::<S>(&comparison, &plan, &started)
}

fn run_all<S: Program>(
    comparison: &Comparison<S::Config>,
    plan: &Plan,
    started: &Started<S::Config>,
) -> Result<ExitCode> {
    let Started {
        options,
        interrupter,
        ..
    } = started;
    ensure!(
        options.team.count() == 1,
        "a comparison trains its runs one after another in one process: leave out --distributed"
    );
    let ended = comparison.run::<S>(plan, options, interrupter)?;
    Ok(match ended {
        Some(_) => ExitCode::SUCCESS,
        None => INTERRUPTED.into(),
    })
}

/// What the options ask to compare, or what the comparison does that they resume; `None` if
/// neither.
///
/// # Errors
///
/// If the comparison to resume is that of another subcommand.
fn plan(arguments: &TrainingArguments, task: Task, axes: Vec<Axis>) -> Result<Option<Plan>> {
    let Some(run) = &arguments.resume else {
        let grid = [axes, arguments.grid.clone()].concat();
        let seeds = arguments.seeds;
        return Ok((!grid.is_empty() || seeds.is_some()).then(|| Plan {
            seeds: seeds.unwrap_or(1).into(),
            ..Plan::once(task.command, grid)
        }));
    };
    let plan = Plan::read(run)?;
    if let Some(plan) = &plan {
        ensure!(
            plan.command == task.command,
            "{} holds a comparison of `{}`: resume it with that",
            run.display(),
            plan.command.join(" ")
        );
    }
    Ok(plan)
}

/// What the options come to; `None` if they only ask to print the configuration, which is done.
///
/// # Errors
///
/// On settings that are bad, and devices that there are not.
pub fn start<S: Program>(
    arguments: TrainingArguments,
    task: Task,
) -> Result<Option<Started<S::Config>>> {
    let team = Team::start(arguments.distributed, S::NAME)?;
    let to_resume = to_resume(&arguments, task.command, &team);
    let config = configuration::<S>(&arguments, task)?;
    if arguments.print_config {
        say(config.to_json()?);
        return Ok(None);
    }
    let options = Options {
        device: parse_device(&arguments.device, S::NAME)?,
        device_name: arguments.device,
        folder: match (arguments.resume, arguments.output) {
            (Some(run), _) => Folder::Resume(run),
            (None, Some(run)) => Folder::New(run),
            (None, None) => Folder::Numbered(new_run(S::NAME, task.command)),
        },
        scenes: PathBuf::from("runs"),
        workers: arguments.workers.into(),
        dashboard: !arguments.plain && std::io::stdout().is_terminal(),
        lines_every: arguments.lines_every,
        team,
        command: words(std::env::args_os()).join(" "),
        to_resume,
        stage_of: None,
    };
    let interrupter = Interrupter::new();
    stop_on_ctrl_c(interrupter.clone())?;
    Ok(Some(Started {
        config,
        options,
        interrupter,
    }))
}

/// What a subcommand needs that writes a file by the weights of a run.
pub struct Writing<C> {
    /// The settings and the rest.
    pub started: Started<C>,
    /// The run, of `--init`.
    pub run: PathBuf,
    /// The file, of `--output`: there is none yet.
    pub file: PathBuf,
}

/// What the options come to of the subcommand `name` that writes a file by the weights of a run,
/// which is `run` in words; `None` if they only ask to print the configuration, which is done.
///
/// # Errors
///
/// As [`start`]; without `--init` of a whole run, without `--output`, if that file exists, and with
/// several runs or processes.
pub fn start_writing<S: Program>(
    arguments: TrainingArguments,
    name: &str,
    run: &str,
) -> Result<Option<Writing<S::Config>>> {
    ensure!(
        arguments.grid.is_empty() && arguments.seeds.is_none(),
        "{name} writes one file: leave out --grid and --seeds"
    );
    let Some(started) = start::<S>(arguments, Task::named(&[name]))? else {
        return Ok(None);
    };
    ensure!(
        started.options.team.count() == 1,
        "{name} is done by one process: leave out --distributed"
    );
    let init = started.config.shared.init.as_ref();
    let init = init.with_context(|| format!("{name} needs --init RUN, {run}"))?;
    let init = init.single();
    let init = init.with_context(|| format!("{name} takes one run: give --init once"))?;
    ensure!(
        init.path.is_none(),
        "{name} takes a whole run: leave out the part, --init {}",
        init.run.display()
    );
    let Folder::New(file) = &started.options.folder else {
        bail!("{name} needs --output FILE, the file to write");
    };
    ensure!(
        !file.exists(),
        "{} exists already: choose another --output",
        file.display()
    );
    Ok(Some(Writing {
        run: init.run.clone(),
        file: file.clone(),
        started,
    }))
}

fn configuration<S: Program>(
    arguments: &TrainingArguments,
    task: Task,
) -> Result<TrainingConfig<S::Config>> {
    // The objective comes first: settings may be its own.
    let objective = arguments.objective.iter();
    let objective = objective.map(|name| format!("objective={name}"));
    let settings: Vec<_> = objective.chain(arguments.set.iter().cloned()).collect();
    let file = arguments.config.as_deref();
    let mut config = if let Some(run) = &arguments.resume {
        TrainingConfig::<S::Config>::read(&run.join(CONFIG_FILE))?.with(None, &settings)?
    } else {
        let base = match init::init::<S>(arguments)? {
            Some(init) => init::started_from::<S>(init)?,
            None => TrainingConfig::default(),
        };
        let base = match task.settings {
            Some(text) => base.overlaid(text),
            None => base,
        };
        base.with(file, &settings)?
    };
    let init = config.shared.init.as_ref();
    if let Some(source) = init.and_then(|init| init.of_tokens(S::Config::towers())) {
        ensure!(
            config.shared.data.tokenizer.is_some(),
            "--init {source}: no tokenizer.json lies beside it; name the one that the weights were \
             trained with: --set data.tokenizer=FILE"
        );
    }
    let shared = &mut config.shared;
    if let Some(path) = &arguments.data {
        shared.data.path = Some(path.clone());
    }
    shared.data.skip_bad |= arguments.skip_bad;
    // The run may be resumed from another folder than this one.
    let absolute = |path: Option<PathBuf>| path.map(std::path::absolute).transpose();
    shared.data.path = absolute(shared.data.path.take())?;
    shared.data.tokenizer = absolute(shared.data.tokenizer.take())?;
    let init = shared.init.iter_mut().flat_map(InitConfig::paths);
    for path in init.chain(config.system.paths()) {
        *path = std::path::absolute(&*path)?;
    }
    Ok(config)
}

/// The words of the command that resumes this run, up to the run's folder: what decides how it is
/// computed and shown is not in the folder.
fn to_resume(arguments: &TrainingArguments, command: &[&str], team: &Team) -> Vec<String> {
    let mut words = words(std::env::args_os().take(1));
    words.extend(command.iter().map(ToString::to_string));
    if let Some(Distributed::Mpi) = arguments.distributed {
        words.splice(..0, ["mpirun", "-n"].map(str::to_string));
        words.insert(2, team.count().to_string());
    }
    if arguments.device != DEVICE {
        words.extend(["--device".to_string(), arguments.device.clone()]);
    }
    if arguments.workers != WORKERS {
        words.extend(["--workers".to_string(), arguments.workers.to_string()]);
    }
    if arguments.plain {
        words.push("--plain".to_string());
    }
    if let Some(Distributed::Mpi) = arguments.distributed {
        words.extend(["--distributed", "mpi"].map(str::to_string));
    }
    words.push("--resume".to_string());
    words
}

fn words(arguments: impl Iterator<Item = OsString>) -> Vec<String> {
    arguments
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

/// `runs/clip-20260131-235959`, in UTC.
fn new_run(program: &str, command: &[&str]) -> PathBuf {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let stamp = now
        .trim_end_matches('Z')
        .replace(['-', ':'], "")
        .replace('T', "-");
    let name = [&[program], command].concat().join("-");
    Path::new("runs").join(format!("{name}-{stamp}"))
}
