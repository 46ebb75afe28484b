//! From a configuration and two loaders to a trained model, through burn-train's Learner.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use burn::data::dataloader::DataLoader;
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::{LearningRateMetric, LossMetric};
use burn::train::renderer::MetricsRenderer;
use burn::train::{Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use burn_contrastive::retrieval::{LogitScaleMetric, RetrievalDirection, RetrievalRecallMetric};

use super::checkpoint::{Checkpoint, Checkpoints, State};
use super::config::TrainingConfig;
use super::distributed::Team;
use super::history::History;
use super::interrupt::Training;
use super::learned::{Learned, NamedMetric};
use super::resume::Origin;
use super::strategy::{Ending, Extent, StepStrategy};
use super::system::{Item, System, SystemConfig};
use crate::data::Shard;

/// The folder, in a run's, of the model before its first step.
pub(super) const START: &str = "start";

/// Where training starts: at the first step, or where a checkpoint left off.
pub struct Start<S: System> {
    /// The model, on a device with autodiff.
    pub model: S,
    /// The optimiser with its moments.
    pub optimizer: ModuleOptimizer,
    /// Steps done, the next batch, the history.
    pub state: State,
    /// The checkpoint they come from.
    pub checkpoint: Option<PathBuf>,
}

impl<S: System> Start<S> {
    /// A new model, whose parameters follow from the configuration's seed, or from the run that it
    /// starts from.
    ///
    /// Burn has one random generator per process: where equal parameters matter, nothing else may
    /// draw from it at the same time.
    ///
    /// # Errors
    ///
    /// If weights cannot be read, or do not fit the model.
    pub fn fresh(config: &TrainingConfig<S::Config>, device: &Device) -> Result<Self> {
        let mut model = Self::drawn(config, device);
        if let Some(init) = &config.shared.init {
            model = init.start(model, &config.system)?;
        }
        Ok(Self {
            model: config.shared.optimizer.freeze(model.begun(&config.system)?),
            optimizer: config.shared.optimizer.init(),
            state: State::default(),
            checkpoint: None,
        })
    }

    /// The model before its first step of the run in the folder `run`, which keeps one that starts
    /// from weights of another run: its scores before the training, which are measured again
    /// whenever it goes on, do not need that run any more. `prepared` is `config` with the results
    /// of earlier stages in place; `goes_on` if the run has a checkpoint.
    ///
    /// # Errors
    ///
    /// As [`fresh`](Self::fresh); if what is kept is damaged, or cannot be written.
    pub(super) fn of_run(
        prepared: &TrainingConfig<S::Config>,
        config: &TrainingConfig<S::Config>,
        data: &str,
        run: &Path,
        goes_on: bool,
        device: &Device,
    ) -> Result<Self> {
        let absolute = std::path::absolute(run)?;
        let is_of_another = match &prepared.shared.init {
            Some(init) => {
                let sources = init.sources().iter();
                let sources = sources.map(|source| std::path::absolute(&source.run));
                let sources = sources.collect::<Result<Vec<_>, _>>()?;
                !sources.iter().all(|source| source.starts_with(&absolute))
            }
            None => false,
        };
        if !is_of_another {
            return Self::fresh(prepared, device);
        }
        let kept = run.join(START);
        if goes_on && let Some(start) = Self::resumed(config, data, &kept, device)? {
            return Ok(start);
        }
        let start = Self::fresh(prepared, device)?;
        let origin = Origin {
            config: config.to_value()?,
            data: data.to_string(),
        };
        let saved =
            Checkpoints::new(&kept, 1, origin).save(&start.model, &start.optimizer, &start.state);
        if let Err(error) = saved {
            // A start that fails is in nobody's way.
            let _ = std::fs::remove_dir_all(&kept);
            return Err(error);
        }
        Ok(start)
    }

    fn drawn(config: &TrainingConfig<S::Config>, device: &Device) -> S {
        device.seed(config.shared.seed);
        let model = config.system.init(&device.clone().autodiff());
        // A parameter is drawn when it is first read: all of them here, in their order.
        drop(model.valid());
        model
    }

    /// The last checkpoint in a run's folder, with the settings that differ from those it was
    /// saved with noted in its history; `None` without a checkpoint.
    ///
    /// # Errors
    ///
    /// If it is damaged, if settings differ that may not, or if it was trained on other data.
    pub fn resumed(
        config: &TrainingConfig<S::Config>,
        data: &str,
        run: &Path,
        device: &Device,
    ) -> Result<Option<Self>> {
        let Some(folder) = Checkpoints::last_of(run)? else {
            return Ok(None);
        };
        let checkpoint = Checkpoint::open(&folder)?;
        let mut state = checkpoint.state.clone();
        let changes = checkpoint.origin.changes(&config.to_value()?, state.step);
        state.history.changes.extend(changes?);
        ensure!(
            checkpoint.origin.data == data,
            "the data are not those that {} was trained on: other images, features of them, \
             captions, splits, or another tokenizer",
            folder.display()
        );
        let optimizer = &config.shared.optimizer;
        let model = optimizer.freeze(Self::drawn(config, device));
        let (model, optimizer) = checkpoint.load(model, optimizer.init())?;
        Ok(Some(Self {
            model,
            optimizer,
            state,
            checkpoint: Some(folder),
        }))
    }
}

/// The data of a run.
pub struct Loaders<S: System> {
    /// Equal for equal data, such as [`Collection::fingerprint`]: a run resumes on no other.
    ///
    /// [`Collection::fingerprint`]: crate::data::Collection::fingerprint
    pub fingerprint: String,
    /// What to train on. Its first iterator starts at the cursor of the [`Start`]; each further one
    /// yields the next epoch.
    pub train: Arc<dyn DataLoader<Vec<Shard<Item<S>>>>>,
    /// Batches of a whole training epoch.
    pub batches_per_epoch: usize,
    /// What to validate on, each example once.
    pub valid: Arc<dyn DataLoader<Vec<Shard<Item<S>>>>>,
}

/// The result of training.
pub struct Trained<S> {
    /// The model, without autodiff.
    pub model: S,
    /// Everything measured since the first step.
    pub history: History,
    /// Why it ended.
    pub ending: Ending,
}

/// Trains from `start` until the schedule ends or `interrupter` asks to stop, with checkpoints in
/// the folder `run`. All workers of `team` call it; the first one validates and saves.
///
/// # Errors
///
/// If the loss or its gradient is not finite (the message names the step and the last good
/// checkpoint), if data cannot be read or a checkpoint not written.
pub fn train<S: System>(
    config: &TrainingConfig<S::Config>,
    run: &Path,
    start: Start<S>,
    loaders: Loaders<S>,
    display: Box<dyn MetricsRenderer>,
    interrupter: Interrupter,
    team: Arc<Team>,
) -> Result<Trained<S>> {
    let training = Training::begin();
    ensure!(
        loaders.batches_per_epoch > 0,
        "there are fewer training pairs than data.batch_size"
    );
    let shared = &config.shared;
    let total_steps = shared
        .schedule
        .total_steps(loaders.batches_per_epoch, shared.accumulation);
    let batches = total_steps.saturating_mul(shared.accumulation);
    let epochs = batches.div_ceil(loaders.batches_per_epoch);
    let origin = Origin {
        config: config.to_value()?,
        data: loaders.fingerprint,
    };
    let checkpoints = Checkpoints::new(run, shared.checkpoints.keep, origin);
    let extent = Extent {
        total_steps,
        batches_per_epoch: loaders.batches_per_epoch,
    };
    let (strategy, outcome) = StepStrategy::<S>::new(
        config.clone(),
        extent,
        checkpoints,
        start.checkpoint,
        start.optimizer,
        start.state,
        team,
    );

    // The strategy owns the optimiser that is used; the learner requires one as well.
    let has_logit_scale = start.model.logit_scale().is_some();
    let learner = Learner::new(
        Learned {
            system: start.model,
        },
        shared.optimizer.init(),
        shared.optimizer.learning_rate,
    );
    let mut training_loop = SupervisedTraining::new(run, loaders.train, loaders.valid)
        .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)))
        .with_application_logger(None)
        .with_metric_logger(InMemoryMetricLogger::new())
        .with_interrupter(interrupter)
        .renderer(display)
        .metric_train_numeric(LossMetric::new())
        .metric_train_numeric(LearningRateMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .num_epochs(epochs);
    for loss in NamedMetric::losses::<S>() {
        training_loop = training_loop
            .metric_train_numeric(loss.clone())
            .metric_valid_numeric(loss);
    }
    for figure in NamedMetric::figures::<S>() {
        training_loop = training_loop.metric_valid_numeric(figure);
    }
    if S::RETRIEVES {
        let recall = |direction| RetrievalRecallMetric::new(direction, 1);
        training_loop = training_loop
            .metric_valid_numeric(recall(RetrievalDirection::ImageToText))
            .metric_valid_numeric(recall(RetrievalDirection::TextToImage));
    }
    if has_logit_scale {
        training_loop = training_loop.metric_train_numeric(LogitScaleMetric::new());
    }
    let result = training_loop.launch(learner);
    // Closes the dashboard before anything else is printed.
    drop(result.renderer);
    drop(training);

    let (ending, state) = outcome
        .lock()
        .map_err(|_| anyhow!("training panicked"))?
        .take()
        .context("training ended without an outcome")?;
    Ok(Trained {
        model: result.model.system,
        history: state.history,
        ending: ending?,
    })
}
