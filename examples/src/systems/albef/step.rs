//! A step of [`Albef`]: momentum forward, the three losses, backward.
//!
//! The contrast sees the whole batch and the queue. Matching and masked language are losses of a
//! shard, as they are those of one GPU's part of a batch in ALBEF: hard negatives are drawn among
//! the pairs of a shard.

use anyhow::Result;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use burn_contrastive::negatives::{FeatureQueue, PairFeatures};
use burn_contrastive::objective::Masked;
use burn_contrastive::schedule::Settings;
use burn_contrastive::sharded::{self, Sharding};
use rand::RngExt;

use super::config::{AlbefConfig, MatchIds};
use super::losses::{Rows, nothing};
use super::{Albef, AlbefModel, Encoded};
use crate::data::random::{self, Purpose};
use crate::data::{Batch, Pair, Pairs, Shard};
use crate::training::objective::logit_scale;
use crate::training::output::Output;
use crate::training::system::{Moment, Step, System};

/// What a shard gives to the contrast, and its own two losses.
struct Shared {
    encoded: Encoded,
    momentum: [Tensor<2>; 2],
    teacher: Option<[Tensor<2>; 2]>,
    /// `[pairs]`
    ids: Tensor<1, Int>,
    matching: Option<Tensor<1>>,
    masked_language: Option<Tensor<1>>,
}

impl Shared {
    /// The losses of the shard, `[1, 2]`: 0 for one that is not learned.
    fn losses(&self) -> Tensor<2> {
        let image = &self.encoded.image;
        let value = |loss: &Option<Tensor<1>>| match loss {
            Some(loss) => loss.clone().without_autodiff(),
            None => Tensor::zeros([1], &image.clone().without_autodiff().device()),
        };
        let losses = [&self.matching, &self.masked_language].map(value);
        Tensor::cat(losses.to_vec(), 0).unsqueeze()
    }

    /// All rows as constants but those of the student, then the losses, `share` of them.
    fn into_rows(self, share: f64) -> sharded::Encoded {
        let losses = self.losses() * share;
        let own = [self.matching, self.masked_language].into_iter().flatten();
        let loss = own.reduce(|sum, loss| sum + loss);
        let ids = self.ids.float().unsqueeze_dim::<2>(1);
        let constants = self.momentum.into_iter().chain([ids]);
        let constants = constants.chain(self.teacher.into_iter().flatten());
        let constants = constants.chain([losses]).map(Tensor::from_inner);
        let embeddings = [self.encoded.image, self.encoded.text].into_iter();
        let encoded = sharded::Encoded::new(embeddings.chain(constants));
        match loss {
            Some(loss) => encoded.with_loss(loss * share),
            None => encoded,
        }
    }
}

/// The rows of a batch, of what [`Shared::into_rows`] gave but the losses.
fn rows_of(embeddings: &[Tensor<2>]) -> Rows {
    let each = |index: usize| embeddings[index].clone();
    let ids = each(4).without_autodiff();
    Rows {
        image: each(0),
        text: each(1),
        momentum: [each(2), each(3)],
        ids: ids.squeeze_dim::<1>(1).int(),
        teacher: (embeddings.len() > 6).then(|| [each(5), each(6)]),
    }
}

impl Albef {
    /// A shard through the student, its momentum copy and the teacher.
    fn encode(&self, shard: &Shard, device: &Device) -> Shared {
        let batch = shard.to_batch(device);
        let inner = |batch: &Batch| {
            let images = batch.images.clone().without_autodiff();
            let tokens = batch.tokens.clone().without_autodiff();
            (images, tokens, batch.padding.clone().without_autodiff())
        };
        let constants = |model: &AlbefModel| {
            let (images, tokens, padding) = inner(&batch);
            model.encode(images, tokens, padding)
        };
        let encoded = self.model.encode(
            batch.images.clone(),
            batch.tokens.clone(),
            batch.padding.clone(),
        );
        let momentum = constants(self.momentum.encoder());
        let teacher = self.teacher.as_ref().map(|teacher| {
            let encoded = constants(teacher);
            [encoded.image, encoded.text]
        });
        let id = |pair: &Pair| match self.losses.ids {
            MatchIds::Meaning => pair.meaning as i32,
            MatchIds::Image | MatchIds::None => pair.image_id as i32,
        };
        let ids: Vec<i32> = shard.items.iter().map(id).collect();
        let ids = Tensor::<1, Int>::from_data(&ids[..], &device.clone().inner());
        let draw = self.draw(shard);
        Shared {
            matching: self.losses.matching.then(|| {
                let pairs = self.draw_pairs(&encoded, &momentum, ids.clone(), draw);
                self.match_pairs(&encoded, batch.padding.clone(), &pairs)
            }),
            masked_language: self.losses.masked_language.then(|| {
                let masked = self.hide_words(batch.tokens.clone(), &shard.padding, draw);
                let predict = |masked: &Masked| {
                    self.predict_words(batch.padding.clone(), &encoded, &momentum, masked)
                };
                masked.as_ref().map_or_else(|| nothing(&encoded), predict)
            }),
            encoded,
            momentum: [momentum.image, momentum.text],
            teacher,
            ids,
        }
    }

    /// The number that decides what a shard draws: of its own, and the same when it is encoded
    /// again.
    pub fn draw(&self, shard: &Shard) -> u64 {
        let Moment { seed, step, .. } = self.moment;
        let first = shard.items.first().map_or(0, |pair| pair.image_id);
        random::stream(seed, step as u64, first as u64, Purpose::Pretraining).random()
    }

    /// The names and values of the losses that there are.
    fn output(&self, loss: Tensor<1>, contrast: Tensor<1>, own: Tensor<1>, rows: &Rows) -> Output {
        let plain = |tensor: &Tensor<2>| tensor.clone().without_autodiff();
        let own = own.without_autodiff();
        Output {
            losses: vec![contrast, own.clone().slice(0..1), own.slice(1..2)],
            logit_scale: logit_scale(&self.objective).map(Tensor::without_autodiff),
            ..Output::of_pairs(loss, plain(&rows.image), plain(&rows.text))
        }
    }
}

impl System for Albef {
    const NAME: &'static str = "albef";
    const LOSSES: &'static [&'static str] = &["Contrast", "Matching", "Masked Language"];
    const FIGURES: &'static [&'static str] = &["MI bound", "MI of negatives"];
    const RETRIEVES: bool = true;

    type Config = AlbefConfig;
    type Examples = Pairs;
    type Carry = PairFeatures;

    fn begun(self, config: &AlbefConfig) -> Result<Self> {
        self.start(config)
    }

    fn at(mut self, moment: &Moment) -> Self {
        self.moment = *moment;
        self.objective = self.objective.at(moment.progress);
        let soft_targets = self.soft_targets * self.ramp();
        let settings = Settings {
            soft_targets: (self.soft_targets > 0.0).then_some(soft_targets),
            queue_weight: Some(self.risen(self.schedule.queue_ramp_epochs)),
            ..Settings::default()
        };
        self.objective = self.objective.with_settings(&settings);
        self
    }

    fn train_on(&self, batch: &[Shard], sharding: &Sharding) -> Step<PairFeatures> {
        let device = self.device();
        let own: usize = batch.iter().map(|shard| shard.items.len()).sum();
        let pairs = (own * sharding.workers()) as f64;
        let mut contrast = None;
        let step = sharding.backward(
            self,
            batch,
            |model: &Self, shard| {
                let share = shard.items.len() as f64 / pairs;
                model.encode(shard, &device).into_rows(share)
            },
            |embeddings| {
                let loss = self.contrast(&rows_of(&embeddings[..embeddings.len() - 1]));
                contrast = Some(loss.clone().inner());
                loss
            },
        );
        let (own, embeddings) = step.embeddings.split_last().expect("losses come last");
        let rows = rows_of(embeddings);
        let contrast = contrast.expect("the loss was taken");
        let own = own.clone().sum_dim(0).squeeze_dim::<1>(0);
        Step {
            output: self.output(step.loss, contrast, own, &rows),
            gradients: step.gradients,
            carry: rows.into_carry(),
        }
    }

    fn updated(mut self, carried: Vec<PairFeatures>) -> Self {
        self.objective = self.objective.clamped();
        self.momentum = self.momentum.update(&self.model);
        self.queue = carried.into_iter().fold(self.queue, FeatureQueue::push);
        self
    }

    fn infer(&self, batch: &[Shard]) -> Output {
        let device = self.device();
        let pairs: usize = batch.iter().map(|shard| shard.items.len()).sum();
        let shards: Vec<_> = batch
            .iter()
            .map(|shard| {
                let share = shard.items.len() as f64 / pairs as f64;
                let shared = self.encode(shard, &device);
                (shared.losses() * share, shared)
            })
            .collect();
        let all = |of: &dyn Fn(&Shared) -> Tensor<2>| {
            Tensor::cat(shards.iter().map(|(_, shard)| of(shard)).collect(), 0)
        };
        let teacher = |index: usize| {
            all(&|shard: &Shared| shard.teacher.as_ref().expect("of all")[index].clone())
        };
        let ids = shards.iter().map(|(_, shard)| shard.ids.clone());
        let rows = Rows {
            image: all(&|shard| shard.encoded.image.clone()),
            text: all(&|shard| shard.encoded.text.clone()),
            momentum: [0, 1].map(|index| all(&|shard: &Shared| shard.momentum[index].clone())),
            ids: Tensor::cat(ids.collect(), 0),
            teacher: self.teacher.is_some().then(|| [0, 1].map(teacher)),
        };
        let own = shards.iter().map(|(losses, _)| losses.clone());
        let own = Tensor::cat(own.collect(), 0).sum_dim(0).squeeze_dim::<1>(0);
        let contrast = self.contrast(&rows);
        let loss = contrast.clone() + own.clone().sum();
        Output {
            figures: self.information(&rows),
            ..self.output(loss, contrast, own, &rows)
        }
    }

    fn logit_scale(&self) -> Option<Tensor<1>> {
        logit_scale(&self.objective)
    }

    fn parts(&self) -> Vec<(&'static str, usize)> {
        let model = &self.model;
        let [embeddings, text] = [
            model.bert.embeddings.num_params(),
            model.bert.text.num_params(),
        ];
        let head = model.language_head.as_ref().map_or(0, Module::num_params);
        let projections = model.image_projection.num_params() + model.text_projection.num_params();
        vec![
            ("image encoder", model.image.num_params()),
            ("text encoder", embeddings + text),
            ("fusion encoder", model.bert.fusion.num_params()),
            ("projections", projections),
            ("heads", head + self.matching_head.num_params()),
            ("objective", self.objective.num_params()),
        ]
    }
}
