//! Trains ITContrast on regions of images and captions, and reports how well the two find each
//! other.

use std::process::ExitCode;

use burn_contrastive_examples::cli::{self, Task, TrainingArguments};
use burn_contrastive_examples::data::regions::BoxesConfig;
use burn_contrastive_examples::signals::INTERRUPTED;
use burn_contrastive_examples::systems::it_contrast::{ItContrast, comparisons, regions};
use clap::{Args, Parser, Subcommand};

/// Train ITContrast on regions of images and their captions.
///
/// Without options it generates a set of captioned scenes, trains a small CLIP whose image tower
/// makes features of their regions, trains a small model on those in a few minutes on the CPU, and
/// writes report.html and metrics.json. Ctrl-C saves a checkpoint and stops. A detector's features
/// are read with `--set regions.file=FILE`.
#[derive(Parser)]
#[command(name = "it-contrast", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    training: TrainingArguments,

    #[command(subcommand)]
    command: Option<Command>,
}

/// What else there is to do.
#[derive(Subcommand)]
enum Command {
    /// Evaluate a run (--init RUN) without training it, such as on --data that it never saw
    ///
    /// The regions of the data are made by the image tower that made those of the run;
    /// `--set regions.file=FILE` reads a detector's.
    Evaluate(TrainingArguments),

    /// Train without synthesised negatives and noise, with either, and with both, on the same
    /// regions
    Ablation(TrainingArguments),

    /// Write features of regions by the image tower of a clip run (--init RUN) into a file
    /// (--output FILE)
    ///
    /// Regions are the objects of generated scenes, and boxes around them that are a little off;
    /// of other pictures the cells of a grid.
    Regions(RegionsArguments),
}

#[derive(Args)]
struct RegionsArguments {
    #[command(flatten)]
    training: TrainingArguments,

    /// Regions of each image
    #[arg(long, default_value_t = 6, value_name = "N")]
    per_image: usize,

    /// How far a further box of an object may be off it, as a share of its extent
    #[arg(long, default_value_t = 0.2, value_name = "SHARE")]
    jitter: f64,
}

fn main() -> ExitCode {
    let Arguments { training, command } = Arguments::parse();
    cli::exit(|| match command {
        None => cli::train::<ItContrast>(training, Task::default()),
        Some(Command::Evaluate(training)) => {
            cli::evaluate::<ItContrast>(training, Task::named(&["evaluate"]))
        }
        Some(Command::Ablation(training)) => {
            let task = Task::named(&["ablation"]);
            cli::compare::<ItContrast>(training, task, Vec::new(), |config, _| {
                comparisons::ablation(config)
            })
        }
        Some(Command::Regions(RegionsArguments {
            training,
            per_image,
            jitter,
        })) => {
            let written = regions::make(training, &BoxesConfig { per_image, jitter })?;
            Ok(if written {
                ExitCode::SUCCESS
            } else {
                INTERRUPTED.into()
            })
        }
    })
}
