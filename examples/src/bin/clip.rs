//! Trains a CLIP dual encoder on image–caption files and reports how well the two find each other.

use std::process::ExitCode;

use burn_contrastive_examples::cli::{self, Task, TrainingArguments};
use burn_contrastive_examples::systems::clip::Clip;
use clap::Parser;

/// Train a CLIP dual encoder on image–caption files.
///
/// Without options it generates a set of captioned scenes, trains a small model on it in a few
/// minutes on the CPU, and writes report.html and metrics.json. Ctrl-C saves a checkpoint and
/// stops.
#[derive(Parser)]
#[command(name = "clip", version)]
struct Arguments {
    #[command(flatten)]
    training: TrainingArguments,
}

fn main() -> ExitCode {
    cli::exit(|| cli::train::<Clip>(Arguments::parse().training, Task::default()))
}
