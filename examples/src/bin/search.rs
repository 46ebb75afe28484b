//! Finds the pictures that are most similar to a text.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use burn_contrastive_examples::cli;
use burn_contrastive_examples::console::say;
use burn_contrastive_examples::embed::{Search, check_new};
use burn_contrastive_examples::signals::leave_no_remains_on_ctrl_c;
use burn_contrastive_examples::training::device::parse_device;
use clap::Parser;

/// Show the pictures of a file of embeddings that are most similar to a text.
///
/// Reads what `embed` wrote, prints the paths with their cosine similarities, and with --output
/// writes a page with thumbnails.
#[derive(Parser)]
#[command(name = "search", version)]
struct Arguments {
    /// The file that `embed` wrote
    #[arg(long, value_name = "FILE.safetensors")]
    embeddings: PathBuf,

    /// The weights that it was embedded by: a file, or the folder of a run
    #[arg(long, value_name = "FILE_OR_RUN")]
    weights: PathBuf,

    /// Their tokenizer [default: the tokenizer.json beside the weights]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,

    /// What to look for; may be repeated
    #[arg(long, required = true)]
    text: Vec<String>,

    /// How many pictures to show
    #[arg(long, default_value_t = 12)]
    top: usize,

    /// The page to write
    #[arg(long, value_name = "FILE.html")]
    output: Option<PathBuf>,

    /// Backend to compute on, with an index where the machine has several, such as cuda:1
    #[arg(long, default_value = "flex")]
    device: String,
}

fn main() -> ExitCode {
    cli::exit(|| run(Arguments::parse()).map(|()| ExitCode::SUCCESS))
}

fn run(arguments: Arguments) -> Result<()> {
    leave_no_remains_on_ctrl_c()?;
    if let Some(output) = &arguments.output {
        check_new(&[("--output", output)])?;
    }
    let search = Search {
        embeddings: arguments.embeddings,
        weights: arguments.weights,
        tokenizer: arguments.tokenizer,
        texts: arguments.text,
        top: arguments.top,
        device: parse_device(&arguments.device, "search")?,
    };
    let hits = search.run()?;
    for hit in &hits {
        say(format_args!("{}", hit.text));
        for (picture, similarity) in &hit.pictures {
            say(format_args!("{similarity:8.4}  {}", picture.display()));
        }
    }
    if let Some(output) = arguments.output {
        search.write_page(&hits, &output)?;
        say(format_args!("Page: {}", output.display()));
    }
    Ok(())
}
