//! One run: an encoder pair trained by one objective, with what was measured meanwhile.
//!
//! The loop is that of [`training::strategy`](crate::training::strategy) without what a run of half
//! a minute has no use for: checkpoints, validation, shards and a display, which would be part of
//! the time of a step.

use std::time::Instant;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor};
use burn_contrastive::momentum::{MomentumEncoder, MomentumEncoderConfig};
use burn_contrastive::negatives::{GaussianNegatives, GaussianNegativesConfig};
use burn_contrastive::objective::{Features, Input, ObjectiveConfig};
use serde::{Deserialize, Serialize};

use super::data::{Drawn, Material};
use super::probe::{Look, Looked, Probe};
use super::setup::Setup;
use crate::audit::heap;
use crate::systems::clip::{Clip, ClipConfig};
use crate::training::config::TrainingConfig;
use crate::training::objective::TrainingObjective;
use crate::training::optimizer::{clip_factor, global_norm, scale};
use crate::training::trainer::Start;

/// Momentum of the momentum encoder: that of `albef_tiny.json`, for trainings of this length.
pub(super) const MOMENTUM: f64 = 0.95;

/// The step whose memory is measured: late enough for everything that is kept from step to step to
/// be there.
const MEASURED_STEP: usize = 2;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// What it is for.
    pub stage: Stage,
    /// The name of its [`Contender`](super::contenders::Contender).
    pub contender: String,
    /// Its objective.
    pub objective: ObjectiveConfig,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// The share of the pairs of its batches that have a false negative there.
    pub rate: f64,
    /// Decides initial parameters, batches and captions.
    pub seed: u64,
}

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Its model is the frozen teacher of those that need one.
    Teacher,
    /// To choose settings by its validation.
    Search,
    /// To be compared by its test.
    Compare,
}

/// Embeddings of all training pairs by a frozen teacher.
pub struct Teacher {
    /// Those of the images, `[images, width]`.
    pub images: Tensor<2>,
    /// Those of the captions, `[captions, width]`.
    pub texts: Tensor<2>,
}

/// The result of a run.
pub struct Trained {
    /// The model, without autodiff.
    pub model: Clip,
    /// The weights of negatives over the training.
    pub looks: Vec<Look>,
    /// The features by which the last look was taken.
    pub probe: Looked,
    /// The median time of a step, from the batch in memory to the updated model.
    pub step_seconds: f64,
    /// The most bytes that a step needs beside those that are kept; `None` where the program does
    /// not count them.
    pub step_bytes: Option<u64>,
}

/// What a step reads beside its batch, and what it carries to the next.
struct Sources<'a> {
    needs: Vec<Input>,
    teacher: Option<&'a Teacher>,
    momentum: Option<MomentumEncoder<Clip>>,
    noise: GaussianNegatives,
}

impl Trial {
    /// The settings of `clip` that it is trained with.
    pub fn config(&self, setup: &Setup) -> TrainingConfig<ClipConfig> {
        let mut config = setup.training.clone();
        config.system.objective = TrainingObjective::Named(Box::new(self.objective.clone()));
        config.shared.seed = self.seed;
        config.shared.optimizer.learning_rate = self.learning_rate;
        config
    }

    /// Whether its objective reads a teacher.
    pub fn needs_teacher(&self) -> bool {
        self.objective.needs().contains(&Input::TeacherImage)
    }

    /// Trains it. The parameters are drawn from Burn's generator, of which there is one in a
    /// process: no other run may begin at the same time.
    ///
    /// # Errors
    ///
    /// If the loss or its gradient is not finite, naming the step.
    ///
    /// # Panics
    ///
    /// If it needs a teacher and has none.
    pub fn train(
        &self,
        setup: &Setup,
        material: &Material,
        teacher: Option<&Teacher>,
        device: &Device,
    ) -> Result<Trained> {
        let config = self.config(setup);
        let teacher = teacher.filter(|_| self.needs_teacher());
        let start = Start::<Clip>::fresh(&config, device)?;
        let (mut model, mut optimizer) = (start.model, start.optimizer);
        let mut sources = Sources::new(self, teacher, &model);
        let probe = Probe::new(&self.objective, setup, material, device);
        let training = device.clone().autodiff();
        let total = config.shared.schedule.steps;
        let size = config.shared.data.batch_size;
        let batches = material.batches(self.rate, size, self.seed, total, &training);
        let (mut looks, mut seconds, mut bytes) = (Vec::new(), Vec::with_capacity(total), None);
        let mut looked = None;
        for (step, drawn) in batches.enumerate() {
            let since = Instant::now();
            let take = || self.step(&config, model, &mut optimizer, &mut sources, &drawn, step);
            let (stepped, peak) = heap::peak_of(take);
            model = stepped?;
            seconds.push(since.elapsed().as_secs_f64());
            if step == MEASURED_STEP.min(total - 1) {
                bytes = peak;
            }
            let looks_due = (step + 1) * setup.protocol.looks / total;
            if looks_due > step * setup.protocol.looks / total {
                let progress = (step + 1) as f64 / total as f64;
                let features = probe.features(&model.valid(), teacher);
                looks.push(probe.look(&features, step + 1, progress));
                looked = Some(features);
            }
        }
        Ok(Trained {
            model: model.valid(),
            looks,
            probe: looked.expect("there is a look after the last step"),
            step_seconds: median(seconds),
            step_bytes: bytes,
        })
    }

    /// One step, in the order of [`training::system`](crate::training::system).
    fn step(
        &self,
        config: &TrainingConfig<ClipConfig>,
        mut model: Clip,
        optimizer: &mut ModuleOptimizer,
        sources: &mut Sources,
        drawn: &Drawn,
        step: usize,
    ) -> Result<Clip> {
        let shared = &config.shared;
        let total = shared.schedule.steps;
        model.objective = model.objective.at(step as f64 / total as f64);
        let loss = model
            .objective
            .forward(&sources.features(&model, drawn, step));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let loss = loss.into_scalar::<f64>();
        let norm = global_norm(&model, &gradients).map_or(0.0, |norm| norm.into_scalar::<f64>());
        ensure!(
            loss.is_finite() && norm.is_finite(),
            "step {}: the loss is {loss} and the norm of its gradient {norm}",
            step + 1
        );
        let factor = clip_factor(norm, shared.optimizer.max_grad_norm);
        let gradients = scale(&model, gradients, factor);
        let rates = shared
            .optimizer
            .learning_rates(|peak| shared.schedule.learning_rate(peak, step, total));
        model = optimizer.step(rates, model, gradients);
        model.objective = model.objective.clamped();
        sources.momentum = sources.momentum.take().map(|copy| copy.update(&model));
        Ok(model)
    }
}

impl<'a> Sources<'a> {
    fn new(trial: &Trial, teacher: Option<&'a Teacher>, model: &Clip) -> Self {
        let needs = trial.objective.needs();
        let copies = needs.contains(&Input::MomentumImage);
        let momentum = MomentumEncoderConfig::new().with_momentum(MOMENTUM);
        Self {
            teacher,
            momentum: copies.then(|| momentum.init(model)),
            noise: GaussianNegativesConfig::new().with_seed(trial.seed).init(),
            needs,
        }
    }

    /// The embeddings of a batch, with what the objective needs beside them.
    fn features(&self, model: &Clip, drawn: &Drawn, step: usize) -> Features {
        let batch = &drawn.batch;
        let image = model.embed_image(batch.images.clone());
        let text = model.embed_text(batch.tokens.clone(), batch.padding.clone());
        let mut features = Features::new(image, text);
        let image = &features.image;
        if let Some(teacher) = self.teacher {
            let [images, texts] = teacher.of(drawn);
            features.teacher_image = Some(Tensor::from_inner(images));
            features.teacher_text = Some(Tensor::from_inner(texts));
        }
        if let Some(copy) = &self.momentum {
            let copy = copy.encoder();
            let images = copy.embed_image(batch.images.clone().inner());
            let texts =
                copy.embed_text(batch.tokens.clone().inner(), batch.padding.clone().inner());
            features.momentum_image = Some(Tensor::from_inner(images));
            features.momentum_text = Some(Tensor::from_inner(texts));
        }
        if self.needs.contains(&Input::Noise) {
            features.noise = self.noise.draw(image, step as u64);
        }
        if self.needs.contains(&Input::Label) {
            features.label = Some(indices(&drawn.meanings, &image.device()));
        }
        features
    }
}

impl Teacher {
    /// Its embeddings of a batch, without autodiff.
    pub fn of(&self, drawn: &Drawn) -> [Tensor<2>; 2] {
        let device = self.images.device();
        let rows = |all: &Tensor<2>, rows| all.clone().select(0, indices(rows, &device));
        [
            rows(&self.images, &drawn.batch.image_ids),
            rows(&self.texts, &drawn.captions),
        ]
    }
}

fn indices(places: &[usize], device: &Device) -> Tensor<1, Int> {
    let places: Vec<i32> = places.iter().map(|&place| place as i32).collect();
    Tensor::from_data(places.as_slice(), device)
}

/// The middle of some numbers, of an even count the larger of two.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
