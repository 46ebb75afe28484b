//! Trains a CLIP dual encoder on image–caption files and reports how well the two find each other.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Result;
use burn::train::Interrupter;
use burn_contrastive_examples::console::{self, say, warn};
use burn_contrastive_examples::memory;
use burn_contrastive_examples::signals::INTERRUPTED;
use burn_contrastive_examples::systems::clip::{Clip, ClipConfig};
use burn_contrastive_examples::training::config::TrainingConfig;
use burn_contrastive_examples::training::device::parse_device;
use burn_contrastive_examples::training::distributed::{Distributed, Team};
use burn_contrastive_examples::training::interrupt::stop_on_ctrl_c;
use burn_contrastive_examples::training::run::{CONFIG_FILE, Ended, Folder, Options, run};
use clap::Parser;

const DEVICE: &str = "flex";
const WORKERS: u16 = 2;

/// Train a CLIP dual encoder on image–caption files.
///
/// Without options it generates a set of captioned scenes, trains a small model on it in a few
/// minutes on the CPU, and writes report.html and metrics.json. Ctrl-C saves a checkpoint and
/// stops.
#[derive(Parser)]
#[command(name = "clip", version)]
struct Arguments {
    /// A Karpathy folder (dataset*.json, as Flickr30K and MS-COCO have), or a .csv or .tsv of image
    /// path and caption
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,

    /// Leave out bad rows and images, and count them, instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,

    /// A JSON file of settings over the defaults
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    config: Option<PathBuf>,

    /// The objective to train by, at its defaults: any that needs images and texts alone, such as
    /// con-vse or siglip
    #[arg(long, value_name = "NAME", conflicts_with = "resume")]
    objective: Option<String>,

    /// One setting over those of the file, such as schedule.steps=500 or model=vit-b-32; may be
    /// repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Go on with the run in this folder from its last checkpoint
    #[arg(long, value_name = "RUN", conflicts_with_all = ["output", "data"])]
    resume: Option<PathBuf>,

    /// Backend to compute on, with an index where the machine has several, such as cuda:1
    #[arg(long, default_value = DEVICE)]
    device: String,

    /// Train together with the other processes that mpirun started, each on its part of every batch
    #[arg(long, value_enum, value_name = "HOW")]
    distributed: Option<Distributed>,

    /// Folder of the new run [default: runs/clip-DATE-TIME]
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

fn main() -> ExitCode {
    memory::keep();
    let ended = clip(Arguments::parse());
    match ended.and_then(|code| console::finish().map(|()| code)) {
        Ok(code) => code,
        Err(error) => {
            warn(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn clip(arguments: Arguments) -> Result<ExitCode> {
    let team = Team::start(arguments.distributed)?;
    let to_resume = to_resume(&arguments, &team);
    // The objective comes first: settings may be its own.
    let objective = arguments.objective.map(|name| format!("objective={name}"));
    let settings: Vec<_> = objective.into_iter().chain(arguments.set).collect();
    let mut config = match &arguments.resume {
        Some(run) => {
            TrainingConfig::<ClipConfig>::read(&run.join(CONFIG_FILE))?.with(None, &settings)?
        }
        None => TrainingConfig::load(arguments.config.as_deref(), &settings)?,
    };
    if let Some(path) = arguments.data {
        config.shared.data.path = Some(path);
    }
    config.shared.data.skip_bad |= arguments.skip_bad;
    // The run may be resumed from another folder than this one.
    let absolute = |path: Option<PathBuf>| path.map(std::path::absolute).transpose();
    config.shared.data.path = absolute(config.shared.data.path)?;
    config.shared.data.tokenizer = absolute(config.shared.data.tokenizer)?;
    if arguments.print_config {
        say(config.to_json()?);
        return Ok(ExitCode::SUCCESS);
    }

    let options = Options {
        device: parse_device(&arguments.device, "clip")?,
        device_name: arguments.device,
        folder: match (arguments.resume, arguments.output) {
            (Some(run), _) => Folder::Resume(run),
            (None, Some(run)) => Folder::New(run),
            (None, None) => Folder::Numbered(new_run()),
        },
        scenes: PathBuf::from("runs"),
        workers: arguments.workers.into(),
        dashboard: !arguments.plain && std::io::stdout().is_terminal(),
        lines_every: arguments.lines_every,
        team,
        command: words(std::env::args_os()).join(" "),
        to_resume,
    };
    let interrupter = Interrupter::new();
    stop_on_ctrl_c(interrupter.clone())?;
    Ok(match run::<Clip>(&config, &options, interrupter)? {
        Ended::Reached(_) | Ended::Helped => ExitCode::SUCCESS,
        Ended::Interrupted => INTERRUPTED.into(),
    })
}

/// The words of the command that resumes this run, up to the run's folder: what decides how it is
/// computed and shown is not in the folder.
fn to_resume(arguments: &Arguments, team: &Team) -> Vec<String> {
    let mut command = words(std::env::args_os().take(1));
    if let Some(Distributed::Mpi) = arguments.distributed {
        command.splice(..0, ["mpirun", "-n"].map(str::to_string));
        command.insert(2, team.count().to_string());
    }
    if arguments.device != DEVICE {
        command.extend(["--device".to_string(), arguments.device.clone()]);
    }
    if arguments.workers != WORKERS {
        command.extend(["--workers".to_string(), arguments.workers.to_string()]);
    }
    if arguments.plain {
        command.push("--plain".to_string());
    }
    if let Some(Distributed::Mpi) = arguments.distributed {
        command.extend(["--distributed", "mpi"].map(str::to_string));
    }
    command.push("--resume".to_string());
    command
}

fn words(arguments: impl Iterator<Item = OsString>) -> Vec<String> {
    arguments
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

/// `runs/clip-20260131-235959`, in UTC.
fn new_run() -> PathBuf {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let stamp = now
        .trim_end_matches('Z')
        .replace(['-', ':'], "")
        .replace('T', "-");
    PathBuf::from("runs").join(format!("clip-{stamp}"))
}
