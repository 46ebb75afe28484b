//! Pretrains ALBEF, or SRCL on top of it, on image–caption files, and reports how well it retrieves,
//! before and after its matching head orders the candidates anew.

use std::process::ExitCode;

use burn_contrastive_examples::cli::{self, Task, TrainingArguments};
use burn_contrastive_examples::systems::albef::Albef;
use clap::Parser;

/// Pretrain ALBEF on image–caption files.
///
/// Without options it generates a set of captioned scenes, trains small encoders on it in a few
/// minutes on the CPU, and writes report.html and metrics.json. Ctrl-C saves a checkpoint and
/// stops. With `--objective srcl` a teacher of the weights is trained first, in the same run.
#[derive(Parser)]
#[command(name = "albef", version)]
struct Arguments {
    #[command(flatten)]
    training: TrainingArguments,
}

fn main() -> ExitCode {
    cli::exit(|| cli::train::<Albef>(Arguments::parse().training, Task::default()))
}
