//! Pretrains ALBEF, or SRCL on top of it, on image–caption files, and reports how well it retrieves,
//! before and after its matching head orders the candidates anew; its subcommands fine-tune it.

use std::process::ExitCode;

use burn_contrastive_examples::cli::{self, Task, TrainingArguments};
use burn_contrastive_examples::systems::albef::Albef;
use burn_contrastive_examples::systems::albef::nlvr::Nlvr;
use burn_contrastive_examples::systems::albef::vqa::Vqa;
use clap::{Parser, Subcommand};

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

/// What a pretrained model is fine-tuned for.
#[derive(Subcommand)]
enum Command {
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

fn main() -> ExitCode {
    let Arguments { training, command } = Arguments::parse();
    cli::exit(|| match command {
        None => cli::train::<Albef>(training, Task::default()),
        Some(Command::Vqa(training)) => cli::train::<Vqa>(training, Task::named(&["vqa"])),
        Some(Command::Nlvr2(training)) => cli::train::<Nlvr>(training, Task::named(&["nlvr2"])),
    })
}
