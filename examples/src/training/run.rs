//! A whole run: data, tokenizer, retrieval before, training, retrieval after, report.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use burn::train::Interrupter;
use burn_contrastive::retrieval::CrossModalMetrics;

use super::config::TrainingConfig;
use super::evaluation::Embedded;
use super::progress::{Extent, Lines, dashboard};
use super::strategy::Ending;
use super::summary;
use super::trainer::{Loaders, Start, Trained, train};
use crate::data::{
    CaptionTokenizer, Collection, EvaluationSet, PairLoader, ScenesConfig, Split, scenes,
};
use crate::models::DualEncoder;
use crate::report::{
    self, ParameterCount, Retrieval, RetrievalScores, RunReport, Similarities, Stage,
};

/// The effective configuration in a run's folder.
pub const CONFIG_FILE: &str = "config.json";
const TOKENIZER_FILE: &str = "tokenizer.json";
const HISTOGRAM_BINS: usize = 50;
const EXAMPLES: usize = 8;

/// The arguments of a run besides its configuration.
pub struct Options {
    /// The run's folder: configuration, tokenizer, checkpoints, report.
    pub run: PathBuf,
    /// Whether to resume from the folder's last checkpoint.
    pub resume: bool,
    /// Where generated scenes are kept, for all runs.
    pub scenes: PathBuf,
    /// The device to compute on.
    pub device: Device,
    /// Its name, for the report.
    pub device_name: String,
    /// Threads that decode images.
    pub workers: usize,
    /// Whether to show Burn's dashboard, which needs a terminal, instead of lines.
    pub dashboard: bool,
    /// Steps between two progress lines.
    pub lines_every: usize,
    /// The command line, for the report.
    pub command: String,
}

/// The results of a finished run on the held-out split.
#[derive(Clone, Debug)]
pub struct Reached {
    /// Retrieval by chance.
    pub chance: RetrievalScores,
    /// Retrieval of the untrained model.
    pub before: CrossModalMetrics,
    /// Retrieval of the trained model.
    pub after: CrossModalMetrics,
    /// Mean training losses of the first and of the last tenth of the steps.
    pub losses: (f64, f64),
}

/// Trains and evaluates; `None` if the run was interrupted and can be resumed.
///
/// # Errors
///
/// On bad data or configuration, on files that cannot be read or written, and if the loss is not
/// finite.
pub fn run(
    config: &TrainingConfig,
    options: &Options,
    interrupter: Interrupter,
) -> Result<Option<Reached>> {
    let mut stages = Stages::default();
    let started = SystemTime::now();
    let Options { run, device, .. } = options;
    refuse_another_run(options)?;
    let data = Data::open(config, options)?;
    stages.end("data");

    let fresh = Start::fresh(config, device);
    let parameters = parameter_counts(&fresh.model);
    print_parameters(&parameters);
    let embed =
        |model: &DualEncoder| Embedded::new(model, &data.test, config.data.batch_size, device);
    let embedded = embed(&fresh.model)?;
    let before = embedded.ranks().metrics();
    let similarities_before = embedded.histogram(HISTOGRAM_BINS).into();
    let chance = RetrievalScores::chance(&captions_of_images(&data.test));
    print_before(&data.test, &chance, &before);
    stages.end("evaluation before training");

    let trained = data.train(config, options, fresh, interrupter)?;
    stages.end("training");
    report_unreadable(&data.pairs.unreadable());
    if let Ending::Interrupted(checkpoint) = &trained.ending {
        print_interrupted(checkpoint, run);
        return Ok(None);
    }

    let embedded = embed(&trained.model)?;
    let ranks = embedded.ranks();
    let after = ranks.metrics();
    stages.end("evaluation after training");
    println!("\nAfter training\n{after}\n");

    let report = RunReport {
        parameters,
        started: Some(started),
        stages: stages.ended,
        retrieval: retrieval(&data.test, chance, &before, &after),
        curves: summary::curves(&trained.history),
        similarities: Similarities {
            before: Some(similarities_before),
            after: Some(embedded.histogram(HISTOGRAM_BINS).into()),
        },
        examples: summary::examples(&data.test, &embedded, &ranks, EXAMPLES),
        ..header(config, options, &data.collection)?
    };
    write_report(&report, run)?;
    Ok(Some(Reached {
        chance,
        before,
        after,
        losses: trained.history.first_and_last_losses(),
    }))
}

/// The data of a run, split three ways.
struct Data {
    collection: Arc<Collection>,
    /// The training split.
    pairs: PairLoader,
    /// The validation split.
    valid: PairLoader,
    /// The held-out split.
    test: EvaluationSet,
}

impl Data {
    /// Opens the data and begins the run's folder, with its configuration and tokenizer.
    fn open(config: &TrainingConfig, options: &Options) -> Result<Self> {
        let Options {
            run,
            device,
            workers,
            ..
        } = options;
        let collection = Arc::new(open_data(config, options)?);
        // After the data, so that data that cannot be read leaves no folder behind.
        fs::create_dir_all(run)
            .with_context(|| format!("the run's folder {} could not be made", run.display()))?;
        config.write(&run.join(CONFIG_FILE))?;
        let tokenizer = Arc::new(open_tokenizer(config, run, &collection)?);
        let (transform, loader) = (config.transform(), config.loader(*workers));
        let pairs = PairLoader::new(
            collection.clone(),
            Split::Train,
            tokenizer.clone(),
            transform.clone(),
            loader.clone(),
            device,
        )?;
        let valid = PairLoader::in_order(
            collection.clone(),
            Split::Validation,
            tokenizer.clone(),
            transform.clone(),
            loader,
            device,
        )?;
        let test = EvaluationSet::new(
            collection.clone(),
            Split::Test,
            tokenizer,
            transform,
            *workers,
        )?;
        Ok(Self {
            collection,
            pairs,
            valid,
            test,
        })
    }

    /// Trains from `fresh`, or from the run's last checkpoint, with a dashboard or lines of
    /// progress.
    fn train(
        &self,
        config: &TrainingConfig,
        options: &Options,
        fresh: Start,
        interrupter: Interrupter,
    ) -> Result<Trained> {
        let start = if options.resume {
            Start::resumed(config, &options.run, &options.device)?
        } else {
            fresh
        };
        let cursor = start.state.cursor;
        self.pairs.seek(cursor.epoch, cursor.batch);
        let batches_per_epoch = self.pairs.batches_per_epoch();
        let extent = Extent {
            first_step: start.state.step,
            total_steps: config
                .schedule
                .total_steps(batches_per_epoch, config.accumulation),
            pairs_a_step: config.data.batch_size * config.accumulation,
        };
        if options.resume {
            println!(
                "Resuming after step {} of {}.",
                extent.first_step, extent.total_steps
            );
        }
        let loaders = Loaders {
            train: Arc::new(self.pairs.clone()),
            batches_per_epoch,
            valid: Arc::new(self.valid.clone()),
        };
        let display = if options.dashboard {
            dashboard(interrupter.clone())
        } else {
            Box::new(Lines::new(io::stdout(), extent, options.lines_every))
        };
        train(config, &options.run, start, loaders, display, interrupter)
    }
}

fn print_before(test: &EvaluationSet, chance: &RetrievalScores, before: &CrossModalMetrics) {
    println!(
        "\nHeld-out split: {} images, {} captions. By chance R@1 is {:.2} % and {:.2} %.\n\n\
         Before training\n{before}\n",
        test.num_images(),
        test.num_captions(),
        chance.image_to_text.recall_at_1,
        chance.text_to_image.recall_at_1,
    );
}

fn print_interrupted(checkpoint: &Path, run: &Path) {
    println!(
        "\nInterrupted; saved {}. To go on:\n    {}",
        checkpoint.display(),
        resume_command(run)
    );
}

fn retrieval(
    test: &EvaluationSet,
    chance: RetrievalScores,
    before: &CrossModalMetrics,
    after: &CrossModalMetrics,
) -> Retrieval {
    Retrieval {
        split: "test".to_string(),
        images: test.num_images() as u64,
        captions: test.num_captions() as u64,
        chance: Some(chance),
        before: Some(before.into()),
        after: Some(after.into()),
    }
}

fn write_report(report: &RunReport, run: &Path) -> Result<()> {
    report.write(run)?;
    println!(
        "Report: {}\nFor programs: {}",
        run.join("report.html").display(),
        run.join("metrics.json").display()
    );
    Ok(())
}

/// The command that resumes a run.
pub fn resume_command(run: &Path) -> String {
    format!(
        "cargo run --release --bin clip -- --resume {}",
        run.display()
    )
}

/// Refuses to begin a run in the folder of another.
fn refuse_another_run(options: &Options) -> Result<()> {
    let run = &options.run;
    ensure!(
        options.resume || !run.join(CONFIG_FILE).exists(),
        "{} already holds a run; choose another --output, or go on with it:\n    {}",
        run.display(),
        resume_command(run),
    );
    Ok(())
}

fn open_data(config: &TrainingConfig, options: &Options) -> Result<Collection> {
    let path = match &config.data.path {
        Some(path) => path.clone(),
        None => {
            let folder = options.scenes.join(scenes_name(&config.data.scenes));
            if scenes::generate(&folder, &config.data.scenes)? {
                println!("Generated scenes in {}", folder.display());
            }
            folder
        }
    };
    let collection = Collection::read(&path, config.data.skip_bad)?;
    report_unreadable(&collection.skipped);
    println!("Data: {}", collection.file.display());
    Ok(collection)
}

/// One folder for each set of parameters.
fn scenes_name(scenes: &ScenesConfig) -> String {
    let ScenesConfig {
        train,
        validation,
        test,
        image_size,
        repeated,
        three_objects,
        seed,
    } = scenes;
    format!("scenes-{train}-{validation}-{test}-{image_size}px-{repeated}-{three_objects}-{seed}")
}

/// The run's own tokenizer, or the configured one, or one trained on the training captions; saved
/// in the run's folder.
fn open_tokenizer(
    config: &TrainingConfig,
    run: &Path,
    collection: &Collection,
) -> Result<CaptionTokenizer> {
    let own = run.join(TOKENIZER_FILE);
    let context = config.model.text.context;
    let tokenizer = if own.exists() {
        CaptionTokenizer::load(&own, context)?
    } else if let Some(file) = &config.data.tokenizer {
        CaptionTokenizer::load(file, context)?
    } else {
        ensure!(
            !collection.indices(Split::Train).is_empty(),
            "{} has no image in the split train",
            collection.file.display()
        );
        CaptionTokenizer::train(collection.captions(Split::Train), &config.tokenizer())?
    };
    ensure!(
        tokenizer.vocab_size() <= config.model.text.vocabulary,
        "the tokenizer has {size} tokens and the model room for {}: \
         set model.text.vocabulary={size}",
        config.model.text.vocabulary,
        size = tokenizer.vocab_size(),
    );
    tokenizer.save(&own)?;
    Ok(tokenizer)
}

fn report_unreadable(reasons: &[String]) {
    if let Some(first) = reasons.first() {
        println!(
            "Left out {} bad rows or images; the first: {first}",
            reasons.len()
        );
    }
}

fn captions_of_images(set: &EvaluationSet) -> Vec<usize> {
    let mut counts = vec![0; set.num_images()];
    for &image in set.image_of_caption() {
        counts[image] += 1;
    }
    counts
}

fn parameter_counts(model: &DualEncoder) -> Vec<ParameterCount> {
    model
        .parts()
        .into_iter()
        .map(|(part, count)| ParameterCount {
            part: part.to_string(),
            count: count as u64,
        })
        .collect()
}

fn print_parameters(parameters: &[ParameterCount]) {
    let total: u64 = parameters.iter().map(|part| part.count).sum();
    let parts: Vec<_> = parameters
        .iter()
        .map(|part| format!("{} {}", part.part, part.count))
        .collect();
    println!("Parameters: {total} ({})", parts.join(", "));
}

/// The part of a report that does not depend on the results.
fn header(
    config: &TrainingConfig,
    options: &Options,
    collection: &Collection,
) -> Result<RunReport> {
    Ok(RunReport {
        title: "CLIP dual encoder".to_string(),
        command: options.command.clone(),
        config: serde_json::to_value(config)?,
        device: options.device_name.clone(),
        dataset: dataset(collection),
        ..RunReport::default()
    })
}

fn dataset(collection: &Collection) -> report::Dataset {
    let splits = [Split::Train, Split::Validation, Split::Test].map(|split| report::Split {
        name: split.name().to_string(),
        images: collection.indices(split).len() as u64,
        captions: collection.captions(split).count() as u64,
    });
    report::Dataset {
        name: collection.file.display().to_string(),
        splits: splits.to_vec(),
    }
}

/// Measures how long the stages take, one after the other.
struct Stages {
    since: Instant,
    ended: Vec<Stage>,
}

impl Default for Stages {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            ended: Vec::new(),
        }
    }
}

impl Stages {
    fn end(&mut self, name: &str) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.ended.push(Stage {
            name: name.to_string(),
            seconds,
        });
        self.since = Instant::now();
    }
}
