//! A step of [`ItContrast`]: both modalities, the negatives of the step, the contrast, backward.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use burn_contrastive::sharded::{Encoded, Sharding};

use super::config::ItContrastConfig;
use super::{ItContrast, RegionIds, Similarity, late};
use crate::data::{RegionPair, RegionPairs, Shard};
use crate::training::objective::logit_scale;
use crate::training::output::Output;
use crate::training::system::{Moment, Step, System};

impl ItContrast {
    /// What a shard gives to the loss: embeddings of images and captions with ids, or all their
    /// states.
    fn rows(&self, shard: &Shard<RegionPair>, device: &Device) -> Vec<Tensor<2>> {
        if self.config.similarity == Similarity::LateInteraction {
            return late::rows(self, shard, device);
        }
        let (tokens, padding) = shard.texts(|pair| &pair.tokens, device);
        let ids = self.ids(shard, device);
        vec![
            self.look(shard.regions(self.feature(), device)).mean(),
            self.read(tokens, padding).mean(),
            if device.is_autodiff() {
                Tensor::from_inner(ids)
            } else {
                ids
            },
        ]
    }

    /// The embeddings of images and captions, of their rows.
    fn pooled(&self, rows: &[Tensor<2>]) -> [Tensor<2>; 2] {
        match self.config.similarity {
            Similarity::Pooled => [rows[0].clone(), rows[1].clone()],
            Similarity::LateInteraction => late::means(rows),
        }
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

    /// The loss of all pairs at a step, of their rows.
    fn loss(&self, rows: &[Tensor<2>], step: usize) -> Tensor<1> {
        if self.config.similarity == Similarity::LateInteraction {
            let noise = self.config.late_noise.as_ref().and_then(|config| {
                let [images, _] = late::means(rows);
                Some((config, self.noise(&images, step as u64)?))
            });
            return late::loss(&self.objective, rows, noise);
        }
        let [image, text] = self.pooled(rows);
        let ids = rows[2].clone().without_autodiff();
        let ids: Tensor<1, Int> = ids.squeeze_dim::<1>(1).int();
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
            |model: &Self, shard| Encoded::new(model.rows(shard, &device)),
            |rows| self.loss(&rows, self.moment.step),
        );
        let [images, texts] = self.pooled(&step.embeddings);
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
        let shards = batch.iter().map(|shard| self.rows(shard, &device));
        let shards: Vec<_> = shards.collect();
        let all = |index: usize| {
            let each = shards.iter().map(|rows| rows[index].clone());
            Tensor::cat(each.collect(), 0)
        };
        let rows: Vec<_> = (0..shards[0].len()).map(all).collect();
        let loss = self.loss(&rows, 0);
        let [images, texts] = self.pooled(&rows);
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
