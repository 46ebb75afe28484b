//! Compares objectives where negatives are false: runs what is left, lists it, reports.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use burn_contrastive_examples::audit::heap::CountingAllocator;
use burn_contrastive_examples::cli::{self, DATA};
use burn_contrastive_examples::compare::contenders::{ALL, Contender};
use burn_contrastive_examples::compare::list::list;
use burn_contrastive_examples::compare::report::report;
use burn_contrastive_examples::compare::results::Results;
use burn_contrastive_examples::compare::setup::Setup;
use burn_contrastive_examples::compare::side_by_side;
use burn_contrastive_examples::compare::work::Comparison;
use burn_contrastive_examples::console::say;
use burn_contrastive_examples::signals::leave_no_remains_on_ctrl_c;
use burn_contrastive_examples::training::device::parse_device;
use clap::{Args, Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Which objective is best where negatives are false?
///
/// Trains one pair of small encoders by every objective, at several shares of false negatives, with
/// several seeds and the same budget, and measures what each retrieves.
#[derive(Parser)]
#[command(name = "compare", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Do what is left. What is done is never done again, also after an interruption
    Run {
        #[command(flatten)]
        what: What,

        /// Programs side by side, each with one core and about 400 MB [default: one a core]
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
        jobs: Option<u16>,

        /// Keep the embeddings of the test images of each run
        #[arg(long)]
        embeddings: bool,

        /// Started by another one
        #[arg(long, hide = true)]
        worker: bool,
    },
    /// Write what the runs show
    Report {
        /// The results file
        #[arg(
            long,
            value_name = "RESULTS.json",
            default_value = "runs/compare/results.json"
        )]
        results: PathBuf,

        /// As Markdown; its charts lie beside it
        #[arg(long, value_name = "OUT.md", required_unless_present = "page")]
        markdown: Option<PathBuf>,

        /// As a page that needs nothing but itself
        #[arg(long, value_name = "OUT.html")]
        page: Option<PathBuf>,
    },
    /// Show what is done and what is left, and how long it will take
    List {
        #[command(flatten)]
        what: What,

        /// Programs side by side [default: one a core]
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
        jobs: Option<u16>,
    },
}

/// What is compared.
#[derive(Args)]
struct What {
    /// Folder of the results; what it holds goes on with the settings that it began with
    #[arg(long, value_name = "FOLDER", default_value = "runs/compare")]
    output: PathBuf,

    /// The objectives that take part, with commas between [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,

    /// Seeds of the nine objectives that matter most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    seeds: Option<u16>,

    /// Seeds of the others
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    fewer_seeds: Option<u16>,

    /// Shares of a batch's pairs that have a false negative there, such as 0,0.1,0.3,0.6
    #[arg(long, value_name = "SHARES", value_delimiter = ',')]
    rates: Vec<f64>,

    #[arg(long, value_name = "PATH", help = DATA)]
    data: Option<PathBuf>,

    /// Leave out bad rows and images, and count them, instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,

    /// A JSON file of settings over the defaults: of model, schedule, optimizer and data
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// One setting over those of the file, such as schedule.steps=1000; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Backend to compute on
    #[arg(long, default_value = "flex")]
    device: String,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    cli::exit(|| {
        match command {
            Command::Run {
                what,
                jobs,
                embeddings,
                worker,
            } => run(&what, jobs, embeddings, worker)?,
            Command::Report {
                results,
                markdown,
                page,
            } => report_on(&results, markdown.as_deref(), page.as_deref())?,
            Command::List { what, jobs } => {
                let results = results(&what, &what.setup()?)?;
                say(list(&results, |one| what.has(one), cores(jobs)));
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn cores(jobs: Option<u16>) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    jobs.map_or_else(all, usize::from)
}

fn run(what: &What, jobs: Option<u16>, embeddings: bool, worker: bool) -> Result<()> {
    leave_no_remains_on_ctrl_c()?;
    let comparison = Comparison {
        setup: what.setup()?,
        only: what.only.clone(),
        folder: what.output.clone(),
        scenes: PathBuf::from("runs"),
        keeps_embeddings: embeddings,
        jobs: cores(jobs),
        device: parse_device(&what.device, "compare")?,
    };
    if worker {
        side_by_side::end_with_parent();
        return comparison.work(say);
    }
    comparison.begin()?;
    let jobs = cores(jobs);
    let results = results(what, &comparison.setup)?;
    say(format_args!(
        "{}\n",
        list(&results, |one| what.has(one), jobs)
    ));
    let mut arguments: Vec<String> = ["run", "--worker", "--device", &what.device]
        .map(String::from)
        .to_vec();
    let folder = what.output.to_str().context("--output is no text")?;
    arguments.extend([format!("--output={folder}"), format!("--jobs={jobs}")]);
    arguments.extend(what.only.iter().map(|name| format!("--only={name}")));
    arguments.extend(embeddings.then(|| "--embeddings".to_string()));
    side_by_side::run(jobs, &arguments)
}

fn report_on(file: &Path, markdown: Option<&Path>, page: Option<&Path>) -> Result<()> {
    leave_no_remains_on_ctrl_c()?;
    let results = Results::read(file)?;
    let results = results.with_context(|| format!("{} does not exist", file.display()))?;
    report(&results, file, markdown, page)
}

/// The results so far; none, where there is no file.
fn results(what: &What, setup: &Setup) -> Result<Results> {
    let file = what.output.join("results.json");
    let mut results =
        Results::read(&file)?.unwrap_or_else(|| Results::new(setup.clone(), String::new()));
    results.setup = setup.clone();
    results.choose();
    Ok(results)
}

impl What {
    fn has(&self, contender: &Contender) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == contender.name)
    }

    /// The setup of the results in the folder, or the default one, with the options laid over it.
    fn setup(&self) -> Result<Setup> {
        for name in &self.only {
            let names: Vec<_> = ALL.iter().map(|contender| contender.name).collect();
            ensure!(
                Contender::named(name).is_some(),
                "--only: there is no objective {name:?} to compare; there are {}",
                names.join(", ")
            );
        }
        let results = Results::read(&self.output.join("results.json"))?;
        let mut setup = results.map_or_else(Setup::new, |results| results.setup);
        let mut set = self.set.clone();
        if let Some(path) = &self.data {
            let path = std::path::absolute(path)?;
            set.push(format!("data.path={}", serde_json::to_string(&path)?));
        }
        if self.skip_bad {
            set.push("data.skip_bad=true".to_string());
        }
        setup.training = setup.training.with(self.config.as_deref(), &set)?;
        let protocol = &mut setup.protocol;
        if !self.rates.is_empty() {
            protocol.rates.clone_from(&self.rates);
            protocol.rates.sort_by(f64::total_cmp);
        }
        protocol.seeds = self.seeds.map_or(protocol.seeds, usize::from);
        protocol.fewer_seeds = self.fewer_seeds.map_or(protocol.fewer_seeds, usize::from);
        setup.check()?;
        Ok(setup)
    }
}
