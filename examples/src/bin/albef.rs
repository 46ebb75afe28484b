//! Pretrains ALBEF, or SRCL on top of it, on image–caption files, and reports how well it
//! retrieves, before and after its matching head orders the candidates anew; its subcommands
//! fine-tune it.

use std::process::ExitCode;

use anyhow::Context;
use burn_contrastive_examples::cli::{self, Task, TrainingArguments};
use burn_contrastive_examples::systems::albef::nlvr::Nlvr;
use burn_contrastive_examples::systems::albef::vqa::Vqa;
use burn_contrastive_examples::systems::albef::{Albef, RETRIEVAL, comparisons};
use clap::{Args, Parser, Subcommand};

/// Pretrain ALBEF on image–caption files.
///
/// Without options it generates a set of captioned scenes, trains small encoders on it in a few
/// minutes on the CPU, and writes report.html and metrics.json. Ctrl-C saves a checkpoint and
/// stops. With `--objective srcl` a teacher of the weights is trained first, in the same run.
#[derive(Parser)]
#[command(name = "albef", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    training: TrainingArguments,

    #[command(subcommand)]
    command: Option<Command>,
}

/// What else there is to do.
#[derive(Subcommand)]
enum Command {
    /// Fine-tune on retrieval, from a pretrained run (--init RUN): contrast and matching, where the
    /// captions of one image match each other
    Retrieval(TrainingArguments),

    /// Evaluate a run (--init RUN) without training it, such as on --data that it never saw
    Evaluate(TrainingArguments),

    /// Train with negatives removed by their weight, at several thresholds, beside SRCL's weights
    Sweep(SweepArguments),

    /// Train with all negatives, and without those that are known to match
    Pilot(TrainingArguments),

    /// Answer questions about images, from a pretrained run (--init RUN)
    ///
    /// --data takes a questions.json or the folder of easy-VQA, of VQA v2 or of ALBEF's
    /// vqa_train.json; without it, questions about the generated scenes are made.
    Vqa(TrainingArguments),

    /// Tell whether statements about two images are true, after text assignment on captioned
    /// images, from a pretrained run (--init RUN)
    ///
    /// --data takes a statements.json or the folder of NLVR2 or NLVR; without it, statements about
    /// the generated scenes are made.
    Nlvr2(TrainingArguments),
}

#[derive(Args)]
struct SweepArguments {
    #[command(flatten)]
    training: TrainingArguments,

    /// Weights below which negatives are removed, of a mean of 1
    #[arg(long, default_value = "0.1,0.2,0.3,0.5,0.7")]
    thresholds: String,
}

fn main() -> ExitCode {
    let Arguments { training, command } = Arguments::parse();
    cli::exit(|| match command {
        None => cli::train::<Albef>(training, Task::default()),
        Some(Command::Retrieval(training)) => {
            let task = Task {
                command: &["retrieval"],
                settings: Some(RETRIEVAL),
            };
            cli::train::<Albef>(training, task)
        }
        Some(Command::Evaluate(training)) => {
            cli::evaluate::<Albef>(training, Task::named(&["evaluate"]))
        }
        Some(Command::Sweep(SweepArguments {
            training,
            thresholds,
        })) => {
            let thresholds = format!("threshold={thresholds}").parse();
            let thresholds = thresholds.context("--thresholds")?;
            let task = Task::named(&["sweep"]);
            cli::compare::<Albef>(training, task, vec![thresholds], comparisons::sweep)
        }
        Some(Command::Pilot(training)) => {
            let task = Task::named(&["pilot"]);
            cli::compare::<Albef>(training, task, Vec::new(), |config, _| {
                comparisons::pilot(config)
            })
        }
        Some(Command::Vqa(training)) => cli::train::<Vqa>(training, Task::named(&["vqa"])),
        Some(Command::Nlvr2(training)) => cli::train::<Nlvr>(training, Task::named(&["nlvr2"])),
    })
}
