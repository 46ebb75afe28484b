//! Classifies images by captions that speak of the classes.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use burn_contrastive_examples::cli;
use burn_contrastive_examples::console::say;
use burn_contrastive_examples::data::Split;
use burn_contrastive_examples::embed::{ZeroShot, check_new};
use burn_contrastive_examples::signals::leave_no_remains_on_ctrl_c;
use burn_contrastive_examples::training::device::parse_device;
use clap::Parser;

/// Classify images without having trained for it: by the captions that speak of the classes.
///
/// An image is taken for the class whose captions are nearest to it, on the mean. Prints how often
/// that is right, and writes a page with the confusions.
#[derive(Parser)]
#[command(name = "zero-shot", version)]
struct Arguments {
    /// A file of published CLIP weights (safetensors or PyTorch), or the folder of a run
    #[arg(long, value_name = "FILE_OR_RUN")]
    weights: PathBuf,

    /// A tokenizer.json, bpe_simple_vocab_16e6.txt.gz or vocab.txt [default: the tokenizer.json
    /// beside the weights]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,

    /// The classes, and templates of captions, such as {"templates": ["a photo of a {}."],
    /// "classes": ["cat", {"name": "dog", "texts": ["dog", "puppy"]}]}
    #[arg(long, value_name = "FILE.json")]
    classes: PathBuf,

    /// A folder with a folder of images for each class, or a .csv or .tsv of image path and class
    #[arg(long, value_name = "PATH")]
    data: PathBuf,

    /// Leave out bad rows and images, and those of other classes, instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,

    /// Only this split: train, validation or test
    #[arg(long, value_name = "NAME", value_parser = cli::split)]
    split: Option<Split>,

    /// The page to write
    #[arg(long, value_name = "FILE.html")]
    output: PathBuf,

    /// Write the same numbers for programs
    #[arg(long, value_name = "FILE.json")]
    metrics: Option<PathBuf>,

    /// Images or captions that are embedded at once, by each core
    #[arg(long, default_value_t = 32)]
    batch_size: usize,

    /// Backend to compute on, with an index where the machine has several, such as cuda:1
    #[arg(long, default_value = "flex")]
    device: String,
}

fn main() -> ExitCode {
    cli::exit(|| run(Arguments::parse()).map(|()| ExitCode::SUCCESS))
}

fn run(arguments: Arguments) -> Result<()> {
    leave_no_remains_on_ctrl_c()?;
    let (output, metrics) = (arguments.output, arguments.metrics);
    let mut outputs = vec![("--output", output.as_path())];
    outputs.extend(metrics.as_deref().map(|metrics| ("--metrics", metrics)));
    check_new(&outputs)?;
    let zero_shot = ZeroShot {
        weights: arguments.weights,
        tokenizer: arguments.tokenizer,
        classes: arguments.classes,
        data: arguments.data,
        skip_bad: arguments.skip_bad,
        split: arguments.split,
        batch_size: arguments.batch_size,
        device: parse_device(&arguments.device, "zero-shot")?,
        workers: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let report = zero_shot.run()?;
    report.write(&output, metrics.as_deref())?;
    say(report);
    say(format_args!("Page: {}", output.display()));
    Ok(())
}
