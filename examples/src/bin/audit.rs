//! Prints statistics of embeddings, and the value and gradient of each objective on them.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use burn_contrastive::pairwise::Evaluation;
use burn_contrastive_examples::audit::heap::CountingAllocator;
use burn_contrastive_examples::audit::{Options, audit};
use burn_contrastive_examples::signals::leave_no_remains_on_ctrl_c;
use burn_contrastive_examples::training::device::parse_device;
use burn_contrastive_examples::{console, memory};
use clap::{Parser, ValueEnum};

/// The exit status if the arguments or the files are wrong, or a file could not be written.
const FAILED: u8 = 2;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Statistics of embeddings of images and texts, and the values of objectives on them.
///
/// Reads `image` and `text` ([N, D]; f16, bf16, f32 or f64) from a safetensors file, and where an
/// objective needs them teacher_image, teacher_text, queue_image, queue_text, noise, hard_image,
/// hard_text, image_id and label. Without --json, --gradients and --report it prints what it finds,
/// and writes nothing. Where one of these is /dev/stdout, what it finds goes to standard error.
#[derive(Parser)]
#[command(name = "audit", version)]
struct Arguments {
    /// The embeddings
    #[arg(long, value_name = "FILE.safetensors")]
    embeddings: PathBuf,

    /// A JSON list of objectives, such as [{"name": "a", "objective": "info-nce", "temperature":
    /// 0.07}] [default: all that the file has inputs for]
    #[arg(long, value_name = "FILE.json")]
    objectives: Option<PathBuf>,

    /// Backend to compute on, with an index where the machine has several, such as cuda:1
    #[arg(long, default_value = "flex")]
    device: String,

    /// How objectives evaluate the similarities of all pairs
    #[arg(long, value_enum, default_value = "auto")]
    evaluation: EvaluationName,

    /// Write everything found, for programs
    #[arg(long, value_name = "OUT.json")]
    json: Option<PathBuf>,

    /// Write the gradients by image and text of each objective
    #[arg(long, value_name = "OUT.safetensors")]
    gradients: Option<PathBuf>,

    /// Write a page for people
    #[arg(long, value_name = "OUT.html")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum EvaluationName {
    /// In blocks; similarities are kept for the backward pass as far as 1 GiB goes
    Auto,
    /// In blocks, each forgotten after use
    Streaming,
    /// All at once: the reference, with several N×N matrices
    Dense,
}

fn main() -> ExitCode {
    memory::keep();
    let run = match Arguments::try_parse() {
        Ok(arguments) => run(arguments),
        Err(refusal) if refusal.use_stderr() => refusal.exit(),
        Err(help) => print(&help),
    };
    match run.and_then(|()| console::finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::warn(format_args!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Help and version go to standard output, unless its reader has gone away.
fn print(help: &clap::Error) -> Result<()> {
    match help.print() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("standard output could not be written")
        }
        _ => Ok(()),
    }
}

fn run(arguments: Arguments) -> Result<()> {
    leave_no_remains_on_ctrl_c()?;
    let options = Options {
        device: parse_device(&arguments.device, "audit")?,
        device_name: arguments.device,
        embeddings: arguments.embeddings,
        objectives: arguments.objectives,
        evaluation: match arguments.evaluation {
            EvaluationName::Auto => Evaluation::Auto,
            EvaluationName::Streaming => Evaluation::Streaming,
            EvaluationName::Dense => Evaluation::Dense,
        },
        json: arguments.json,
        gradients: arguments.gradients,
        report: arguments.report,
    };
    let tell = if options.writes_to_stdout() {
        |findings| console::warn(findings)
    } else {
        |findings| console::say(findings)
    };
    let findings = audit(&options, |progress| {
        console::warn(format_args!("audit: {progress}"))
    })?;
    tell(findings);
    Ok(())
}
