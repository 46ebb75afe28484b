//! `radiograph linear` and `radiograph finetune`: what an image encoder has learned, by how well
//! its features classify images (Lin et al., section 4.3; ConVIRT).
//!
//! The encoder of a run of `radiograph` without its projection head gets one linear layer, with a
//! logit for each class, since an image may be of several. In linear evaluation only that layer
//! is trained, and batch norm keeps its running statistics; in fine-tuning all of it is.

mod config;
mod program;

use anyhow::Result;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::{Device, Tensor, TensorData};
use burn_contrastive::sharded::{Encoded, Sharding};

use crate::data::{LabelledImage, LabelledImages, Shard};
use crate::models::ResNet;
use crate::training::output::{Figure, Output};
use crate::training::system::{Moment, Step, System};

pub use config::{ClassifierConfig, FINETUNE, LINEAR, TrainedPart};
pub use program::{Classified, ClassifierTest};

/// The encoder of images, at the path that it has in a [`Radiograph`](super::Radiograph).
#[derive(Module, Debug)]
pub struct Backbone {
    /// The image encoder.
    pub image: ResNet,
}

/// The system: see [the module](self).
#[derive(Module, Debug)]
pub struct Classifier {
    /// The encoder.
    pub model: Backbone,
    /// From features to a logit of each class.
    pub head: Linear,
    #[module(skip)]
    trained: TrainedPart,
}

impl Classifier {
    fn new(config: &ClassifierConfig, device: &Device) -> Self {
        let image = config.image.init(device);
        let image = match config.trained {
            TrainedPart::Head => image.no_grad(),
            TrainedPart::All => image,
        };
        let head = LinearConfig::new(config.image.features(), config.classes);
        Self {
            model: Backbone { image },
            head: head.init(device),
            trained: config.trained,
        }
    }

    /// Logits of a shard, `[images, classes]`, by the running statistics.
    fn logits(&self, shard: &Shard<LabelledImage>, device: &Device) -> Tensor<2> {
        let images = shard.images(|image| &image.pixels, device);
        self.head.forward(self.model.image.forward(images))
    }

    /// Logits of a shard in training, and the statistics of its images, where they count.
    fn encode(
        &self,
        shard: &Shard<LabelledImage>,
        device: &Device,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        match self.trained {
            TrainedPart::Head => (self.logits(shard, device), None),
            TrainedPart::All => {
                let images = shard.images(|image| &image.pixels, device);
                let (features, statistics) = self.model.image.forward_train(images);
                (self.head.forward(features), Some(statistics))
            }
        }
    }

    /// The probabilities of a shard's classes, image by image.
    fn classify(&self, shard: &Shard<LabelledImage>, device: &Device) -> Vec<f64> {
        let probabilities = sigmoid(self.logits(shard, device)).into_data();
        probabilities.iter::<f64>().collect()
    }
}

/// Binary cross-entropy of logits with the labels that are known, as a sum over them times `share`,
/// `[1]`; nothing of an image or a class has more weight than another.
fn cross_entropy(logits: &Tensor<2>, items: &[LabelledImage], share: f64) -> Tensor<1> {
    let device = logits.device();
    let weights = |of: &dyn Fn(bool) -> f32| {
        let labels = items.iter().flat_map(|item| &item.labels);
        let weights: Vec<f32> = labels.map(|label| label.map_or(0.0, of)).collect();
        Tensor::<2>::from_data(TensorData::new(weights, logits.dims()), &device)
    };
    let positive = weights(&|label| f32::from(u8::from(label)));
    let negative = weights(&|label| f32::from(u8::from(!label)));
    let log = positive * log_sigmoid(logits.clone()) + negative * log_sigmoid(-logits.clone());
    -log.sum() * share
}

/// Labels of these images that are known.
fn known(items: &[LabelledImage]) -> usize {
    let labels = items.iter().flat_map(|item| &item.labels);
    labels.filter(|label| label.is_some()).count()
}

impl System for Classifier {
    const NAME: &'static str = "radiograph";
    const FIGURES: &'static [&'static str] = &["Accuracy of labels"];

    type Config = ClassifierConfig;
    type Examples = LabelledImages;
    /// The batch norms' statistics of the shards, `[shards, values]`, where they are trained.
    type Carry = Option<Tensor<2>>;

    /// Weights that were read are trained unless said.
    fn begun(mut self, _config: &ClassifierConfig) -> Result<Self> {
        if self.trained == TrainedPart::Head {
            self.model.image = self.model.image.no_grad();
        }
        Ok(self)
    }

    fn at(self, _moment: &Moment) -> Self {
        self
    }

    fn train_on(
        &self,
        batch: &[Shard<LabelledImage>],
        sharding: &Sharding,
    ) -> Step<Option<Tensor<2>>> {
        let device = self.device();
        let step = sharding.backward(
            self,
            batch,
            |system: &Self, shard| {
                let (logits, statistics) = system.encode(shard, &device);
                let sum = cross_entropy(&logits, &shard.items, 1.0).unsqueeze();
                let known = [[known(&shard.items) as f32]];
                let known = Tensor::from_data(known, &device.clone().inner());
                let constants = [Some(known), statistics].into_iter().flatten();
                Encoded::new(std::iter::once(sum).chain(constants.map(Tensor::from_inner)))
            },
            // Of the labels of all workers, which may know different numbers of them.
            |rows| rows[0].clone().sum() / rows[1].clone().sum().clamp_min(1.0),
        );
        let statistics = step.embeddings.get(2).cloned();
        Step {
            output: Output {
                loss: step.loss,
                losses: Vec::new(),
                logit_scale: None,
                embeddings: None,
                figures: Vec::new(),
            },
            gradients: step.gradients,
            carry: statistics.map(Tensor::without_autodiff),
        }
    }

    fn updated(mut self, carried: Vec<Option<Tensor<2>>>) -> Self {
        self.model.image = self.model.image.follow(carried.into_iter().flatten());
        self
    }

    fn infer(&self, batch: &[Shard<LabelledImage>]) -> Output {
        let device = self.device();
        let all: usize = batch.iter().map(|shard| known(&shard.items)).sum();
        let share = 1.0 / all.max(1) as f64;
        let (mut losses, mut right) = (Vec::new(), 0);
        for shard in batch {
            let logits = self.logits(shard, &device);
            losses.push(cross_entropy(&logits, &shard.items, share));
            let logits = logits.into_data();
            let labels = shard.items.iter().flat_map(|item| &item.labels);
            let taken = logits.iter::<f64>().zip(labels);
            right += taken
                .filter(|(logit, label)| **label == Some(*logit > 0.0))
                .count();
        }
        Output {
            loss: Tensor::cat(losses, 0).sum(),
            losses: Vec::new(),
            logit_scale: None,
            embeddings: None,
            figures: vec![Figure {
                sum: 100.0 * right as f64,
                count: all as f64,
            }],
        }
    }

    fn logit_scale(&self) -> Option<Tensor<1>> {
        None
    }

    fn parts(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("image encoder", self.model.image.trained_parameters()),
            ("classifier", self.head.num_params()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::system::SystemConfig;

    #[test]
    fn parameters_are_counted_without_the_statistics_of_norms() {
        let config = ClassifierConfig::defaults().system;
        let classifier = config.init(&Device::flex());
        let [encoder, head] = classifier.parts().try_into().unwrap();
        assert_eq!(encoder.1, classifier.model.image.trained_parameters());
        let features = config.image.features();
        assert_eq!(head.1, (features + 1) * config.classes);
        assert!(encoder.1 + head.1 < classifier.num_params());
    }

    #[test]
    fn the_loss_is_the_mean_over_the_labels_that_are_known() {
        let device = Device::flex();
        let item = |labels: [Option<bool>; 2]| LabelledImage {
            pixels: Vec::new(),
            labels: labels.to_vec(),
            index: 0,
        };
        let items = [item([Some(true), None]), item([Some(false), Some(true)])];
        assert_eq!(known(&items), 3);
        let logits = Tensor::<2>::from_data([[2.0, 77.0], [-1.0, 0.5]], &device);
        let loss = cross_entropy(&logits, &items, 1.0 / 3.0).into_scalar::<f64>();
        let softplus = |x: f64| x.exp().ln_1p();
        let expected = (softplus(-2.0) + softplus(-1.0) + softplus(-0.5)) / 3.0;
        assert!((loss - expected).abs() < 1e-6, "{loss} is not {expected}");
        // Far logits do not overflow.
        let far = Tensor::<2>::from_data([[1e4, 0.0], [-1e4, 1e4]], &device);
        let loss = cross_entropy(&far, &items, 1.0).into_scalar::<f64>();
        assert!(loss.abs() < 1e-6, "{loss}");
    }
}
