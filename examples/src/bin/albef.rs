//! Pretrains ALBEF, or SRCL on top of it, on image–caption files, and reports how well it retrieves,
//! before and after its matching head orders the candidates anew; or trains a pretrained one on
//! another task.

use std::process::ExitCode;

use burn_contrastive_examples::cli::{self, TrainingArguments};
use burn_contrastive_examples::systems::albef::Albef;
use burn_contrastive_examples::systems::albef::nlvr::Nlvr;
use clap::{Parser, Subcommand};

/// Pretrain ALBEF on image–caption files.
///
/// Without options it generates a set of captioned scenes, trains small encoders on it in a few
/// minutes on the CPU, and writes report.html and metrics.json. Ctrl-C saves a checkpoint and
/// stops. With `--objective srcl` a teacher of the weights is trained first, in the same run.
#[derive(Parser)]
#[command(name = "albef", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,

    #[command(flatten)]
    training: TrainingArguments,
}

/// What a pretrained model is trained on.
#[derive(Subcommand)]
enum Task {
    /// Statements about two images, true or false, after text assignment on captioned images
    ///
    /// `--init RUN` is the pretrained run. `--data` takes a statements.json or a folder of NLVR2 or
    /// NLVR; without it, statements about the generated scenes are made.
    Nlvr2(TrainingArguments),
}

fn main() -> ExitCode {
    let Arguments { task, training } = Arguments::parse();
    cli::exit(|| match task {
        None => cli::train::<Albef>(training, &[]),
        Some(Task::Nlvr2(training)) => cli::train::<Nlvr>(training, &["nlvr2"]),
    })
}
