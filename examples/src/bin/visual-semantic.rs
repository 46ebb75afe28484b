//! Trains a visual-semantic embedding on image–caption files: a base network by VSE++, and heads on
//! top of it by ConVSE++ or another objective; reports how well images and captions find each
//! other.

use std::process::ExitCode;

use burn_contrastive_examples::cli::{self, Task, TrainingArguments};
use burn_contrastive_examples::signals::INTERRUPTED;
use burn_contrastive_examples::systems::visual_semantic::{VisualSemantic, features};
use clap::{Parser, Subcommand};

/// Train a visual-semantic embedding on image–caption files.
///
/// Without options it generates a set of captioned scenes, trains a small base network and heads
/// on top of it in a few minutes on the CPU, and writes report.html and metrics.json. Ctrl-C saves
/// a checkpoint and stops. `--set base.run=RUN` starts from a base network that is trained already.
#[derive(Parser)]
#[command(
    name = "visual-semantic",
    version,
    args_conflicts_with_subcommands = true
)]
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
    Evaluate(TrainingArguments),

    /// Write features of images by the image encoder of a run (--init RUN) into a file (--output
    /// FILE), which `--set features.file=FILE` reads
    Features(TrainingArguments),
}

fn main() -> ExitCode {
    let Arguments { training, command } = Arguments::parse();
    cli::exit(|| match command {
        None => cli::train::<VisualSemantic>(training, Task::default()),
        Some(Command::Evaluate(training)) => {
            cli::evaluate::<VisualSemantic>(training, Task::named(&["evaluate"]))
        }
        Some(Command::Features(training)) => Ok(if features::make(training)? {
            ExitCode::SUCCESS
        } else {
            INTERRUPTED.into()
        }),
    })
}
