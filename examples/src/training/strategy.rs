//! A training strategy for burn-train's Learner that counts steps, not epochs: checkpoints by step,
//! exact resumption, gradient accumulation, clipping by the global norm.
//!
//! Burn's own strategy checkpoints at the ends of epochs, leaves the loop without one when it is
//! interrupted, and starts a resumed epoch from its first batch. This one keeps Burn's metrics,
//! dashboard and interrupter. The [`Learner`] hides its optimiser, which a checkpoint needs, so the
//! strategy brings its own.
//!
//! **Accumulation.** With `accumulation` = A, a step averages the losses and gradients of A batches
//! of B pairs. A contrastive loss does not add up over batches: the negatives are those of each
//! batch, so this lowers the variance of the gradient but does not equal one batch of A·B pairs.
//!
//! **Sharding.** Each batch is encoded in shards, under one loss of all its pairs: that does equal
//! the undivided batch, see [`sharded`](burn_contrastive::sharded).

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, bail};
use burn::data::dataloader::{DataLoader, Progress};
use burn::optim::{GradientsAccumulator, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use burn::train::{
    EventProcessorTraining, Interrupter, Learner, LearnerEvent, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
};
use burn_contrastive::sharded::Sharding;
use rand::RngExt;

use super::checkpoint::{Checkpoints, Cursor, State};
use super::config::TrainingConfig;
use super::distributed::Team;
use super::evaluation::retrieval_of_pairs;
use super::history::{StepRecord, ValidationRecord};
use super::learned::Learned;
use super::optimizer::{clip_factor, global_norm, scale};
use super::output::Output;
use super::sharding::Division;
use super::system::{Item, Moment, System, SystemConfig};
use crate::data::Shard;
use crate::data::random::{self, Purpose};

/// Why training ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps were done.
    Finished,
    /// It was interrupted; the path is that of the checkpoint to resume from.
    Interrupted(PathBuf),
}

/// The outcome of training: how it ended, and its state.
pub type Outcome = (Result<Ending>, State);

/// How far a training goes.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Optimiser steps at its end.
    pub total_steps: usize,
    /// Batches of a whole epoch.
    pub batches_per_epoch: usize,
}

/// See [the module](self). One value trains once.
pub struct StepStrategy<S: System> {
    config: TrainingConfig<S::Config>,
    extent: Extent,
    checkpoints: Checkpoints,
    /// The last checkpoint so far.
    saved: Option<PathBuf>,
    start: Mutex<Option<(ModuleOptimizer, State)>>,
    outcome: Arc<Mutex<Option<Outcome>>>,
    team: Arc<Team>,
}

impl<S: System> StepStrategy<S> {
    /// A strategy that continues from `state` with that optimiser to the end of `extent`; `saved`
    /// is the checkpoint they come from, if any.
    ///
    /// The outcome appears in the returned slot when training has ended. The training loader's
    /// first iterator must start at the state's cursor, and each further one give the next epoch.
    pub fn new(
        config: TrainingConfig<S::Config>,
        extent: Extent,
        checkpoints: Checkpoints,
        saved: Option<PathBuf>,
        optimizer: ModuleOptimizer,
        state: State,
        team: Arc<Team>,
    ) -> (Self, Arc<Mutex<Option<Outcome>>>) {
        let outcome = Arc::new(Mutex::new(None));
        let strategy = Self {
            config,
            extent,
            checkpoints,
            saved,
            start: Mutex::new(Some((optimizer, state))),
            outcome: outcome.clone(),
            team,
        };
        (strategy, outcome)
    }
}

impl<S: System> SupervisedLearningStrategy<Learned<S>> for StepStrategy<S> {
    fn fit(
        &self,
        components: TrainingComponents<Learned<S>>,
        learner: Learner<Learned<S>>,
        train: TrainLoader<Learned<S>>,
        valid: ValidLoader<Learned<S>>,
        _starting_epoch: usize,
    ) -> (Learned<S>, SupervisedTrainingEventProcessor<Learned<S>>) {
        let start = self
            .start
            .lock()
            .expect("the start is never poisoned")
            .take();
        let (optimizer, state) = start.expect("a strategy trains once");
        let model = learner.model().system;
        let device = model.device();
        let mut session = Session {
            strategy: self,
            interrupter: components.interrupter,
            events: components.event_processor,
            valid: valid.to_device(&device.clone().inner()),
            saved: self.saved.clone(),
            pending: Pending::new(),
            train_items: train.num_items(),
            model: Some(model),
            division: self.config.division(&device, self.team.count()),
            device,
            optimizer,
            state,
        };
        let ending = session.run(&*train.to_device(&session.device));
        let system = session
            .model
            .expect("the model is put back after every update");
        *self.outcome.lock().expect("the outcome is never poisoned") =
            Some((ending, session.state));
        (Learned { system }, session.events)
    }
}

/// The batches of a step that is not complete yet.
struct Pending<S: System> {
    gradients: GradientsAccumulator<S>,
    outputs: Vec<Output>,
    carried: Vec<S::Carry>,
}

impl<S: System> Pending<S> {
    fn new() -> Self {
        Self {
            gradients: GradientsAccumulator::new(),
            outputs: Vec::new(),
            carried: Vec::new(),
        }
    }
}

struct Session<'a, S: System> {
    strategy: &'a StepStrategy<S>,
    interrupter: Interrupter,
    events: SupervisedTrainingEventProcessor<Learned<S>>,
    valid: ValidLoader<Learned<S>>,
    saved: Option<PathBuf>,
    pending: Pending<S>,
    train_items: usize,
    model: Option<S>,
    division: Division,
    device: Device,
    optimizer: ModuleOptimizer,
    state: State,
}

impl<S: System> Session<'_, S> {
    fn run(&mut self, train: &dyn DataLoader<Vec<Shard<Item<S>>>>) -> Result<Ending> {
        while self.state.step < self.strategy.extent.total_steps {
            let epoch = self.state.cursor.epoch + 1;
            let total_items = self.train_items;
            self.train_event(LearnerEvent::StartSplit {
                epoch_number: epoch,
                total_items,
            });
            let mut seen = 0;
            let mut batches = train.iter();
            while let Some(batch) = batches.next() {
                let batch = batch
                    .map_err(|error| anyhow!("{error}"))
                    .context("reading the training data failed")?;
                seen += 1;
                if let Some(ending) = self.batch(&batch, batches.progress())? {
                    return Ok(ending);
                }
            }
            if seen == 0 && self.state.cursor.batch == 0 {
                bail!(
                    "an epoch of the training data holds no batch; \
                     are there fewer pairs than data.batch_size?"
                );
            }
            drop(batches);
            self.train_event(LearnerEvent::EndSplit(epoch));
            self.train_event(LearnerEvent::EndEpoch(epoch));
            self.state.cursor.epoch += 1;
            self.state.cursor.batch = 0;
        }
        Ok(Ending::Finished)
    }

    /// One batch forward and backward, and the update if it completes a step.
    fn batch(&mut self, batch: &[Shard<Item<S>>], progress: Progress) -> Result<Option<Ending>> {
        let sharding = self.sharding();
        let moment = self.moment();
        let model = self
            .model
            .take()
            .expect("the model is put back after every update")
            .at(&moment);
        let step = model.train_on(batch, &sharding);
        self.state.cursor.batch += 1;
        self.pending.gradients.accumulate(&model, step.gradients);
        self.pending.outputs.push(step.output);
        self.pending.carried.push(step.carry);
        if self.pending.outputs.len() < self.strategy.config.shared.accumulation {
            self.model = Some(model);
            return Ok(None);
        }
        self.update(model, progress)?;
        self.after_step()
    }

    fn moment(&self) -> Moment {
        let Extent {
            total_steps,
            batches_per_epoch,
        } = self.strategy.extent;
        let (step, Cursor { epoch, batch }) = (self.state.step, self.state.cursor);
        Moment {
            seed: self.strategy.config.shared.seed,
            step,
            progress: step as f64 / total_steps as f64,
            epochs: epoch as f64 + batch as f64 / batches_per_epoch as f64,
        }
    }

    /// How the next batch is encoded. Dropout draws from a seed of that batch's own.
    fn sharding(&self) -> Sharding {
        let config = &self.strategy.config;
        let team = &self.strategy.team;
        let mut sharding = self.division.sharding();
        if let Some(workers) = team.workers() {
            sharding = sharding.with_workers(workers);
        }
        if !config.system.has_dropout() {
            return sharding;
        }
        let Cursor { epoch, batch } = self.state.cursor;
        let mut dropout = random::stream(
            config.shared.seed,
            epoch as u64,
            batch as u64,
            Purpose::Dropout,
        );
        sharding.with_seed(&self.device, dropout.random())
    }

    /// The optimiser step, unless the loss or the gradient is not finite.
    fn update(&mut self, model: S, progress: Progress) -> Result<()> {
        let config = &self.strategy.config.shared;
        let mut pending = std::mem::replace(&mut self.pending, Pending::new());
        let gradients = pending.gradients.grads();
        let output = Output::join(pending.outputs).expect("a step has a batch");
        let norm = global_norm(&model, &gradients).unwrap_or_else(|| output.loss.zeros_like());

        // One read for all of them: it waits for the device.
        let tensors = [output.loss.clone(), norm].into_iter();
        let tensors = tensors
            .chain(output.losses.iter().cloned())
            .chain(output.logit_scale.clone());
        let measured = Tensor::cat(tensors.collect(), 0).into_data();
        let measured: Vec<f64> = measured.iter::<f64>().collect();
        let (losses, logit_scale) = measured[2..].split_at(output.losses.len());
        let batches = config.accumulation as f64;
        let (step, total) = (self.state.step, self.strategy.extent.total_steps);
        let rates = config
            .optimizer
            .learning_rates(|peak| config.schedule.learning_rate(peak, step, total));
        let record = StepRecord {
            step: step + 1,
            loss: measured[0],
            losses: losses.to_vec(),
            gradient_norm: measured[1] / batches,
            learning_rate: rates.base(),
            logit_scale: logit_scale.first().copied(),
        };
        if !record.loss.is_finite() || !record.gradient_norm.is_finite() {
            self.model = Some(model);
            bail!(self.not_finite(&record));
        }

        let factor = clip_factor(record.gradient_norm, config.optimizer.max_grad_norm) / batches;
        let gradients = scale(&model, gradients, factor);
        let model = self.optimizer.step(rates.clone(), model, gradients);
        self.model = Some(model.updated(pending.carried));
        let step = record.step;
        self.state.step = step;
        self.state.history.steps.push(record);
        self.train_event(LearnerEvent::ProcessedItem(TrainingItem::new(
            output,
            progress,
            Some(step),
            Some(rates),
        )));
        Ok(())
    }

    fn not_finite(&self, record: &StepRecord) -> String {
        let advice = match &self.saved {
            Some(path) => format!(
                "the last good checkpoint is {}: resume from it with a lower \
                 optimizer.learning_rate or a lower optimizer.max_grad_norm",
                path.display()
            ),
            None => "there is no checkpoint yet: start again with a lower \
                     optimizer.learning_rate or a longer schedule.warmup_steps"
                .to_string(),
        };
        let scale = record.logit_scale;
        let scale = scale.map_or_else(String::new, |scale| format!(", logit scale {scale:.3}"));
        format!(
            "step {}: the loss is {} and the norm of its gradient {} \
             (learning rate {:.3e}{scale}). \
             The step was not taken and nothing of it was saved; {advice}",
            record.step, record.loss, record.gradient_norm, record.learning_rate,
        )
    }

    /// Validation and checkpoint where they are due; the ending, where this was the last step.
    fn after_step(&mut self) -> Result<Option<Ending>> {
        let config = &self.strategy.config.shared;
        let step = self.state.step;
        if let Some(error) = self.interrupter.error() {
            bail!("the progress display failed after step {step}: {error}");
        }
        let done = step >= self.strategy.extent.total_steps;
        let team = &self.strategy.team;
        if team.is_first() && (done || due(step, config.validation.every)) {
            self.validate()?;
            // The display goes back to the training split.
            self.train_event(LearnerEvent::StartSplit {
                epoch_number: self.state.cursor.epoch + 1,
                total_items: self.train_items,
            });
        }
        let stop = self.strategy.team.any(self.interrupter.should_stop())?;
        if done || stop || due(step, config.checkpoints.every) {
            let model = self
                .model
                .as_ref()
                .expect("the model is put back after every update");
            let checkpoints = &self.strategy.checkpoints;
            self.saved = Some(if self.strategy.team.is_first() {
                checkpoints.save(model, &self.optimizer, &self.state)?
            } else {
                checkpoints.path(step)
            });
        }
        Ok(match (&self.saved, done, stop) {
            (_, true, _) => Some(Ending::Finished),
            (Some(path), _, true) => Some(Ending::Interrupted(path.clone())),
            _ => None,
        })
    }

    /// What the validation examples measure, shown as one item so that the candidates of retrieval
    /// are all of them.
    fn validate(&mut self) -> Result<()> {
        let epoch = self.state.cursor.epoch + 1;
        let valid = self.valid.clone();
        let model = self
            .model
            .as_ref()
            .expect("the model is put back after every update")
            .valid();
        self.valid_event(LearnerEvent::StartSplit {
            epoch_number: epoch,
            total_items: valid.num_items(),
        });
        let outputs = valid
            .iter()
            .map(|batch| Ok(model.infer(&batch.map_err(|error| anyhow!("{error}"))?)))
            .collect::<Result<Vec<_>>>()
            .context("reading the validation data failed")?;
        if let Some(whole) = Output::join(outputs) {
            let step = self.state.step;
            self.state.history.validations.push(ValidationRecord {
                step,
                loss: whole.loss.clone().into_scalar::<f64>(),
                retrieval: whole.embeddings.as_ref().map(retrieval_of_pairs),
                figures: whole.figures.iter().map(|figure| figure.mean()).collect(),
            });
            let progress = Progress::new(valid.num_items(), valid.num_items(), None);
            let item = TrainingItem::new(whole, progress, Some(step), None);
            self.valid_event(LearnerEvent::ProcessedItem(item));
        }
        self.valid_event(LearnerEvent::EndSplit(epoch));
        Ok(())
    }

    fn train_event(&mut self, event: LearnerEvent<Output>) {
        let result = self.events.process_train(event);
        self.interrupter.fail_on_error(result);
    }

    fn valid_event(&mut self, event: LearnerEvent<Output>) {
        let result = self.events.process_valid(event);
        self.interrupter.fail_on_error(result);
    }
}

/// Whether something done every `every` steps (0: never) is due after step `step`.
fn due(step: usize, every: usize) -> bool {
    every > 0 && step.is_multiple_of(every)
}
