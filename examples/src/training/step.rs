//! One batch through the dual encoder, shard by shard: what burn-train's Learner asks of a model.
//!
//! The tensors of a shard exist while it is encoded, and one loss sees the embeddings of all.

use burn::module::Module;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, ExecutionError, Tensor};
use burn::train::metric::{Adaptor, ItemLazy, LossInput};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use burn_contrastive::objective::Features;
use burn_contrastive::retrieval::{LogitScaleInput, RetrievalInput};
use burn_contrastive::sharded::{Encoded, Sharding};

use crate::data::Shard;
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
}

impl DualEncoder {
    /// A batch forward and backward; of several workers each has its own shards of it.
    pub fn train_on(&self, batch: &[Shard], sharding: &Sharding) -> TrainOutput<PairOutput> {
        let device = self.device();
        let step = sharding.backward(
            self,
            batch,
            |model: &Self, shard| Encoded::new(model.embed(shard, &device)),
            |embeddings| self.loss(&pair(embeddings)),
        );
        let [images, texts] = pair(step.embeddings);
        let item = PairOutput {
            loss: step.loss,
            logit_scale: self.logit_scale().map(Tensor::inner),
            images,
            texts,
        };
        TrainOutput {
            grads: step.gradients,
            item,
        }
    }

    /// The embeddings of a shard's images and of its captions.
    fn embed(&self, shard: &Shard, device: &Device) -> [Tensor<2>; 2] {
        let batch = shard.to_batch(device);
        [
            self.embed_image(batch.images),
            self.embed_text(batch.tokens, batch.padding),
        ]
    }

    fn loss(&self, [images, texts]: &[Tensor<2>; 2]) -> Tensor<1> {
        let features = Features::new(images.clone(), texts.clone());
        self.objective.forward(&features)
    }

    fn device(&self) -> Device {
        self.devices().swap_remove(0)
    }
}

fn pair<T>(both: Vec<T>) -> [T; 2] {
    let both = both.try_into().ok();
    both.expect("a shard has embeddings of images and of captions")
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
    type Input = Vec<Shard>;
    type Output = PairOutput;

    /// In the memory of a shard; [`train_on`](Self::train_on) has the choice.
    fn step(&self, batch: Vec<Shard>) -> TrainOutput<PairOutput> {
        self.train_on(&batch, &Sharding::recompute())
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
    type Input = Vec<Shard>;
    type Output = PairOutput;

    fn step(&self, batch: Vec<Shard>) -> PairOutput {
        let device = self.device();
        let embeddings = batch.iter().map(|shard| self.embed(shard, &device));
        let (images, texts) = embeddings.map(|[image, text]| (image, text)).unzip();
        let [images, texts] = [images, texts].map(|parts| Tensor::cat(parts, 0));
        PairOutput {
            loss: self.loss(&[images.clone(), texts.clone()]),
            logit_scale: self.logit_scale(),
            images,
            texts,
        }
    }
}
