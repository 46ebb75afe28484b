//! Embeds images and captions by a trained model.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use burn::train::Interrupter;
use burn_contrastive_examples::cli;
use burn_contrastive_examples::data::Split;
use burn_contrastive_examples::embed::{Options, embed, stop_on_ctrl_c};
use burn_contrastive_examples::signals::INTERRUPTED;
use burn_contrastive_examples::training::device::parse_device;
use clap::Parser;

/// Embed the images and captions of a data set by a trained model, into a file for `audit`.
///
/// The file has `image` [images, D], `text` [captions, D] (after the projection, not normalised)
/// and `image_id`, the row of each caption's image, in the order of the data. Ctrl-C stops; the
/// same command goes on.
#[derive(Parser)]
#[command(name = "embed", version)]
struct Arguments {
    /// A file of published CLIP weights (safetensors or PyTorch), or the folder of a run
    #[arg(long, value_name = "FILE_OR_RUN")]
    weights: PathBuf,

    /// A tokenizer.json, bpe_simple_vocab_16e6.txt.gz or vocab.txt [default: the tokenizer.json
    /// beside the weights]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,

    #[arg(long, value_name = "PATH", help = cli::DATA)]
    data: PathBuf,

    /// Leave out bad rows and images, and count them, instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,

    /// Only this split: train, validation or test
    #[arg(long, value_name = "NAME", value_parser = cli::split)]
    split: Option<Split>,

    /// The file to write
    #[arg(long, value_name = "FILE.safetensors")]
    output: PathBuf,

    /// Images or captions that are embedded at once, by each core
    #[arg(long, default_value_t = 32)]
    batch_size: usize,

    /// Backend to compute on, with an index where the machine has several, such as cuda:1
    #[arg(long, default_value = "flex")]
    device: String,
}

fn main() -> ExitCode {
    cli::exit(|| run(Arguments::parse()))
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let options = Options {
        weights: arguments.weights,
        tokenizer: arguments.tokenizer,
        data: arguments.data,
        skip_bad: arguments.skip_bad,
        split: arguments.split,
        output: arguments.output,
        batch_size: arguments.batch_size,
        device: parse_device(&arguments.device, "embed")?,
        workers: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let interrupter = Interrupter::new();
    stop_on_ctrl_c(interrupter.clone())?;
    Ok(if embed(&options, &interrupter)? {
        ExitCode::SUCCESS
    } else {
        INTERRUPTED.into()
    })
}
