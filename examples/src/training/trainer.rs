//! From a configuration and two loaders to a trained model, through burn-train's Learner.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use burn::data::dataloader::DataLoader;
use burn::module::Module;
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
use super::resume::Origin;
use super::strategy::{Ending, StepStrategy};
use crate::data::Shard;
use crate::models::DualEncoder;

/// Where training starts: at the first step, or where a checkpoint left off.
pub struct Start {
    /// The model, on a device with autodiff.
    pub model: DualEncoder,
    /// The optimiser with its moments.
    pub optimizer: ModuleOptimizer,
    /// Steps done, the next batch, the history.
    pub state: State,
    /// The checkpoint they come from.
    pub checkpoint: Option<PathBuf>,
}

impl Start {
    /// A new model, whose parameters follow from the configuration's seed.
    ///
    /// Burn has one random generator per process: where equal parameters matter, nothing else may
    /// draw from it at the same time.
    pub fn fresh(config: &TrainingConfig, device: &Device) -> Self {
        device.seed(config.seed);
        let device = device.clone().autodiff();
        let objective = config.objective.init(&device);
        let model = config.model.init(objective, &device);
        // A parameter is drawn when it is first read: all of them here, in their order.
        drop(model.valid());
        Self {
            model,
            optimizer: config.optimizer.init(),
            state: State::default(),
            checkpoint: None,
        }
    }

    /// The last checkpoint in a run's folder, with the settings that differ from those it was
    /// saved with noted in its history; `None` without a checkpoint.
    ///
    /// # Errors
    ///
    /// If it is damaged, if settings differ that may not, or if it was trained on other data.
    pub fn resumed(
        config: &TrainingConfig,
        data: &str,
        run: &Path,
        device: &Device,
    ) -> Result<Option<Self>> {
        let Some(folder) = Checkpoints::last_of(run)? else {
            return Ok(None);
        };
        let checkpoint = Checkpoint::open(&folder)?;
        let mut state = checkpoint.state.clone();
        let changes = checkpoint.origin.changes(config, state.step);
        state.history.changes.extend(changes?);
        ensure!(
            checkpoint.origin.data == data,
            "the data are not those that {} was trained on: other images, captions, splits, or \
             another tokenizer",
            folder.display()
        );
        let fresh = Self::fresh(config, device);
        let (model, optimizer) = checkpoint.load(fresh.model, fresh.optimizer)?;
        Ok(Some(Self {
            model,
            optimizer,
            state,
            checkpoint: Some(folder),
        }))
    }
}

/// The data of a run.
pub struct Loaders {
    /// Equal for equal data, such as [`Collection::fingerprint`]: a run resumes on no other.
    ///
    /// [`Collection::fingerprint`]: crate::data::Collection::fingerprint
    pub fingerprint: String,
    /// Training pairs. Its first iterator starts at the cursor of the [`Start`]; each further one
    /// yields the next epoch.
    pub train: Arc<dyn DataLoader<Vec<Shard>>>,
    /// Batches of a whole training epoch.
    pub batches_per_epoch: usize,
    /// Validation pairs, each image once.
    pub valid: Arc<dyn DataLoader<Vec<Shard>>>,
}

/// The result of training.
pub struct Trained {
    /// The model, without autodiff.
    pub model: DualEncoder,
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
pub fn train(
    config: &TrainingConfig,
    run: &Path,
    start: Start,
    loaders: Loaders,
    display: Box<dyn MetricsRenderer>,
    interrupter: Interrupter,
    team: Arc<Team>,
) -> Result<Trained> {
    let training = Training::begin();
    ensure!(
        loaders.batches_per_epoch > 0,
        "there are fewer training pairs than data.batch_size"
    );
    let total_steps = config
        .schedule
        .total_steps(loaders.batches_per_epoch, config.accumulation);
    let batches = total_steps.saturating_mul(config.accumulation);
    let epochs = batches.div_ceil(loaders.batches_per_epoch);
    let origin = Origin {
        config: config.clone(),
        data: loaders.fingerprint,
    };
    let checkpoints = Checkpoints::new(run, config.checkpoints.keep, origin);
    let (strategy, outcome) = StepStrategy::new(
        config.clone(),
        total_steps,
        checkpoints,
        start.checkpoint,
        start.optimizer,
        start.state,
        team,
    );

    // The strategy owns the optimiser that is used; the learner requires one as well.
    let learner = Learner::new(
        start.model,
        config.optimizer.init(),
        config.optimizer.learning_rate,
    );
    let recall = |direction| RetrievalRecallMetric::new(direction, 1);
    let has_logit_scale = learner.model().logit_scale().is_some();
    let mut training_loop = SupervisedTraining::new(run, loaders.train, loaders.valid)
        .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)))
        .with_application_logger(None)
        .with_metric_logger(InMemoryMetricLogger::new())
        .with_interrupter(interrupter)
        .renderer(display)
        .metric_train_numeric(LossMetric::new())
        .metric_train_numeric(LearningRateMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .metric_valid_numeric(recall(RetrievalDirection::ImageToText))
        .metric_valid_numeric(recall(RetrievalDirection::TextToImage))
        .num_epochs(epochs);
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
        model: result.model,
        history: state.history,
        ending: ending?,
    })
}
