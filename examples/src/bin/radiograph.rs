//! Trains image and sentence encoders on studies of radiographs and their reports, by ReCo or
//! another objective, and reports how well they retrieve by class; its subcommands measure the
//! image encoder by classification.

use std::process::ExitCode;

use burn_contrastive_examples::cli::{self, Task, TrainingArguments};
use burn_contrastive_examples::systems::radiograph::Radiograph;
use burn_contrastive_examples::systems::radiograph::classifier::{Classifier, FINETUNE, LINEAR};
use clap::{Parser, Subcommand};

/// Train encoders of radiographs and of report sentences.
///
/// --data takes a studies.json or its folder. Without options it generates studies with known
/// findings, trains small encoders on them in a few minutes on the CPU, and writes report.html and
/// metrics.json. Ctrl-C saves a checkpoint and stops. --objective is `reco`, `info-nce`,
/// `barlow-twins`, `orthogonality` or any other of images and texts.
#[derive(Parser)]
#[command(name = "radiograph", version, args_conflicts_with_subcommands = true)]
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

    /// Train a linear classifier on the features of a run's image encoder (--init RUN), which stays
    /// as it is; --set labels=0.01 uses the labels of 1 % of the studies
    Linear(TrainingArguments),

    /// Train the image encoder of a run (--init RUN) and a linear layer to classify; --set
    /// labels=0.01 uses the labels of 1 % of the studies
    Finetune(TrainingArguments),
}

fn main() -> ExitCode {
    let Arguments { training, command } = Arguments::parse();
    let classify = |training, command: &[&str], settings| {
        let task = Task {
            command,
            settings: Some(settings),
        };
        cli::train::<Classifier>(training, task)
    };
    cli::exit(|| match command {
        None => cli::train::<Radiograph>(training, Task::default()),
        Some(Command::Evaluate(training)) => {
            cli::evaluate::<Radiograph>(training, Task::named(&["evaluate"]))
        }
        Some(Command::Linear(training)) => classify(training, &["linear"], LINEAR),
        Some(Command::Finetune(training)) => classify(training, &["finetune"], FINETUNE),
    })
}
