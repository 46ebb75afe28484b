//! One batch through the dual encoder: what burn-train's Learner asks of a model.

use burn::module::Module;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{ExecutionError, Tensor};
use burn::train::metric::{Adaptor, ItemLazy, LossInput};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use burn_contrastive::objective::Features;
use burn_contrastive::retrieval::{LogitScaleInput, RetrievalInput};

use crate::data::Batch;
use crate::models::DualEncoder;

/// What a batch gives: its loss, the logit scale, and the embeddings of its pairs.
#[derive(Clone, Debug)]
pub struct PairOutput {
    /// The objective, `[1]`.
    pub loss: Tensor<1>,
    /// The factor on the similarities, `[1]`, if the objective has one.
    pub logit_scale: Option<Tensor<1>>,
    /// Embeddings of the images, `[batch, embedding]`.
    pub images: Tensor<2>,
    /// Embeddings of the captions, `[batch, embedding]`.
    pub texts: Tensor<2>,
}

impl PairOutput {
    fn of(model: &DualEncoder, batch: Batch) -> Self {
        let images = model.embed_image(batch.images);
        let texts = model.embed_text(batch.tokens, batch.padding);
        let features = Features::new(images.clone(), texts.clone());
        Self {
            loss: model.objective.forward(&features),
            logit_scale: model.logit_scale(),
            images,
            texts,
        }
    }

    /// All pairs of several batches; the loss is the mean over the batches, which have their
    /// negatives each.
    pub fn join(outputs: Vec<Self>) -> Option<Self> {
        let logit_scale = outputs.first()?.logit_scale.clone();
        let (losses, (images, texts)): (Vec<_>, (Vec<_>, Vec<_>)) = outputs
            .into_iter()
            .map(|output| (output.loss, (output.images, output.texts)))
            .unzip();
        Some(Self {
            loss: Tensor::cat(losses, 0).mean(),
            logit_scale,
            images: Tensor::cat(images, 0),
            texts: Tensor::cat(texts, 0),
        })
    }

    /// The same values without their graph.
    fn inner(self) -> Self {
        Self {
            loss: self.loss.inner(),
            logit_scale: self.logit_scale.map(Tensor::inner),
            images: self.images.inner(),
            texts: self.texts.inner(),
        }
    }
}

impl ItemLazy for PairOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<LossInput> for PairOutput {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.loss.clone())
    }
}

impl Adaptor<LogitScaleInput> for PairOutput {
    fn adapt(&self) -> LogitScaleInput {
        let scale = self.logit_scale.clone();
        LogitScaleInput::new(scale.expect("its metric is shown for objectives that have one"))
    }
}

impl Adaptor<RetrievalInput> for PairOutput {
    fn adapt(&self) -> RetrievalInput {
        RetrievalInput::new(self.images.clone(), self.texts.clone())
    }
}

impl TrainStep for DualEncoder {
    type Input = Batch;
    type Output = PairOutput;

    fn step(&self, batch: Batch) -> TrainOutput<PairOutput> {
        let output = PairOutput::of(self, batch);
        let gradients = output.loss.backward();
        TrainOutput::new(self, gradients, output.inner())
    }

    /// An optimiser step, after which logit scales are put back into their ranges.
    fn optimize(
        self,
        optimizer: &mut ModuleOptimizer,
        learning_rate: ModuleLearningRate,
        gradients: GradientsParams,
    ) -> Self
    where
        Self: Module + Sized,
    {
        let mut model = optimizer.step(learning_rate, self, gradients);
        model.objective = model.objective.clamped();
        model
    }
}

impl InferenceStep for DualEncoder {
    type Input = Batch;
    type Output = PairOutput;

    fn step(&self, batch: Batch) -> PairOutput {
        PairOutput::of(self, batch)
    }
}
