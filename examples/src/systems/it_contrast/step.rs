//! A step of [`ItContrast`]: both modalities, the negatives of the step, the contrast, backward.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use burn_contrastive::sharded::{Encoded, Sharding};

use super::config::ItContrastConfig;
use super::{ItContrast, RegionIds};
use crate::data::{RegionPair, RegionPairs, Shard};
use crate::training::objective::logit_scale;
use crate::training::output::Output;
use crate::training::system::{Moment, Step, System};

/// The rows of images, of captions and of ids.
fn three<T>(rows: Vec<T>) -> [T; 3] {
    let rows = rows.try_into().ok();
    rows.expect("a shard has rows of images, of captions and of ids")
}

impl ItContrast {
    /// The embeddings of a shard's images and captions.
    fn embed(&self, shard: &Shard<RegionPair>, device: &Device) -> [Tensor<2>; 2] {
        let (tokens, padding) = shard.texts(|pair| &pair.tokens, device);
        [
            self.embed_regions(shard.regions(self.feature(), device)),
            self.embed_words(tokens, padding),
        ]
    }

    /// The ids of a shard's pairs, `[pairs, 1]`, on a plain device.
    fn ids(&self, shard: &Shard<RegionPair>, device: &Device) -> Tensor<2> {
        let id = |pair: &RegionPair| match self.config.ids {
            RegionIds::Image => pair.image_id as f32,
            RegionIds::Meaning => pair.meaning as f32,
        };
        let ids: Vec<f32> = shard.items.iter().map(id).collect();
        let ids = Tensor::<1>::from_data(&ids[..], &device.clone().inner());
        ids.unsqueeze_dim(1)
    }

    /// The loss of all pairs at a step.
    fn loss(&self, [image, text, ids]: [Tensor<2>; 3], step: usize) -> Tensor<1> {
        let ids: Tensor<1, Int> = ids.without_autodiff().squeeze_dim::<1>(1).int();
        self.objective
            .forward(&self.features(image, text, ids, step))
    }
}

impl System for ItContrast {
    const NAME: &'static str = "it-contrast";
    const RETRIEVES: bool = true;

    type Config = ItContrastConfig;
    type Examples = RegionPairs;
    type Carry = ();

    fn at(mut self, moment: &Moment) -> Self {
        self.moment = *moment;
        self.objective = self.objective.at(moment.progress);
        self
    }

    fn train_on(&self, batch: &[Shard<RegionPair>], sharding: &Sharding) -> Step<()> {
        let device = self.device();
        let step = sharding.backward(
            self,
            batch,
            |model: &Self, shard| {
                let ids = Tensor::from_inner(model.ids(shard, &device));
                Encoded::new(model.embed(shard, &device).into_iter().chain([ids]))
            },
            |rows| self.loss(three(rows), self.moment.step),
        );
        let [images, texts, _] = three(step.embeddings);
        Step {
            output: Output {
                logit_scale: System::logit_scale(self).map(Tensor::inner),
                ..Output::of_pairs(step.loss, images, texts)
            },
            gradients: step.gradients,
            carry: (),
        }
    }

    fn updated(mut self, _carried: Vec<()>) -> Self {
        self.objective = self.objective.clamped();
        self
    }

    /// The negatives are those of the first step, whenever it is.
    fn infer(&self, batch: &[Shard<RegionPair>]) -> Output {
        let device = self.device();
        let rows = batch.iter().map(|shard| {
            let [image, text] = self.embed(shard, &device);
            [image, text, self.ids(shard, &device)]
        });
        let rows: Vec<_> = rows.collect();
        let all = |index: usize| Tensor::cat(rows.iter().map(|r| r[index].clone()).collect(), 0);
        let [images, texts, ids] = [0, 1, 2].map(all);
        let loss = self.loss([images.clone(), texts.clone(), ids], 0);
        Output {
            logit_scale: System::logit_scale(self),
            ..Output::of_pairs(loss, images, texts)
        }
    }

    fn logit_scale(&self) -> Option<Tensor<1>> {
        logit_scale(&self.objective)
    }

    fn parts(&self) -> Vec<(&'static str, usize)> {
        let bert = &self.model.bert;
        vec![
            ("words", bert.embeddings.num_params()),
            ("regions", self.model.regions.num_params()),
            ("transformer", bert.text.num_params()),
            ("objective", self.objective.num_params()),
        ]
    }
}
