//! Trains a CLIP dual encoder on image–caption files and reports how well the two find each other.

use std::process::ExitCode;

use burn_contrastive_examples::cli::{self, Task, TrainingArguments, Writing};
use burn_contrastive_examples::embed::export;
use burn_contrastive_examples::systems::clip::Clip;
use clap::{Parser, Subcommand};

/// Train a CLIP dual encoder on image–caption files.
///
/// Without options it generates a set of captioned scenes, trains a small model on it in a few
/// minutes on the CPU, and writes report.html and metrics.json. Ctrl-C saves a checkpoint and
/// stops.
#[derive(Parser)]
#[command(name = "clip", version, args_conflicts_with_subcommands = true)]
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
    /// Write the model of a run (--init RUN) into a folder (--output FOLDER) that Hugging Face's
    /// CLIPModel loads
    Export(TrainingArguments),
}

fn main() -> ExitCode {
    let Arguments { training, command } = Arguments::parse();
    cli::exit(|| match command {
        None => cli::train::<Clip>(training, Task::default()),
        Some(Command::Evaluate(training)) => {
            cli::evaluate::<Clip>(training, Task::named(&["evaluate"]))
        }
        Some(Command::Export(training)) => {
            let run = "the run whose model to write";
            if let Some(Writing { started, run, file }) =
                cli::start_writing::<Clip>(training, "export", run)?
            {
                export(&run, &file, &started.options.device)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    })
}
