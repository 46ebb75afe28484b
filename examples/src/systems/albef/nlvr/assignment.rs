//! Text assignment: which of two images a caption belongs to, the first, the second, or neither.
//!
//! A third of the captions have their own image first and a hard negative second, a third the other
//! way round, and a third two hard negatives. These are other images of the shard, drawn with the
//! weights `exp(cosine/0.07)` of the pretrained embeddings, as in ALBEF's code.

use anyhow::Result;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use burn_contrastive::sharded::Sharding;
use burn_contrastive::similarity::l2_normalize;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::{NlvrConfig, check_encoders, renamed};
use super::{Judged, TwinEncoder, infer, train_on};
use crate::data::random::{self, Purpose};
use crate::data::{Pairs, Shard};
use crate::models::ProjectionHead;
use crate::systems::albef::config::AlbefModelConfig;
use crate::systems::albef::first;
use crate::training::config::TrainingConfig;
use crate::training::output::Output;
use crate::training::system::{InitRules, Moment, Step, System, SystemConfig, TextLimits};

/// Classes of a caption.
const CLASSES: usize = 3;
/// The images of a caption do not have its own.
const NEITHER: usize = 2;
/// Of the softmax by which negatives are drawn.
const TEMPERATURE: f64 = 0.07;

/// The settings of [`TextAssignment`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextAssignmentConfig {
    /// The encoders.
    pub model: AlbefModelConfig,
    /// The most tokens of a caption, `[CLS]` included.
    pub tokens: usize,
}

/// The system of text assignment: twins and a head of three classes.
#[derive(Module, Debug)]
pub struct TextAssignment {
    /// The encoders, which are trained for what comes after.
    pub model: TwinEncoder,
    /// Tells the classes apart.
    pub assignment_head: ProjectionHead,
    /// The pretrained embedding of an image, by which negatives are drawn; not trained.
    pub image_projection: ProjectionHead,
    #[module(skip)]
    moment: Moment,
}

/// Two images for each caption, by the rows of a shard.
#[derive(Clone, Debug, Default, PartialEq)]
struct Assigned {
    captions: Vec<usize>,
    images: [Vec<usize>; 2],
    classes: Vec<usize>,
}

impl Assigned {
    /// Draws for all captions of a shard that have a negative: another image with an `id` of its
    /// own. `similarities` of each image with all others, row by row, say how likely one is drawn;
    /// without, all are alike.
    fn draw(ids: &[usize], similarities: Option<&[f64]>, rng: &mut impl Rng) -> Self {
        let mut assigned = Self::default();
        for caption in 0..ids.len() {
            let others = (0..ids.len()).filter(|&other| ids[other] != ids[caption]);
            let others: Vec<usize> = others.collect();
            let row = similarities.map(|all| &all[caption * ids.len()..][..ids.len()]);
            let class = rng.random_range(0..CLASSES);
            let Some(negative) = choose(&others, row, rng) else {
                continue;
            };
            let images = match class {
                0 => [caption, negative],
                1 => [negative, caption],
                _ => {
                    let left = others.into_iter().filter(|&other| other != negative);
                    let second = choose(&left.collect::<Vec<_>>(), row, rng);
                    // Of two captions, each has one negative.
                    [negative, second.unwrap_or(negative)]
                }
            };
            assigned.captions.push(caption);
            assigned.classes.push(class);
            for (all, image) in assigned.images.iter_mut().zip(images) {
                all.push(image);
            }
        }
        assigned
    }

    /// What stands for a shard without any negatives, where its loss does not count.
    fn without_negatives() -> Self {
        Self {
            captions: vec![0],
            images: [vec![0], vec![0]],
            classes: vec![NEITHER],
        }
    }
}

/// One of the images, by its similarity to that of a caption.
fn choose(images: &[usize], similarities: Option<&[f64]>, rng: &mut impl Rng) -> Option<usize> {
    let Some(similarities) = similarities else {
        return images.choose(rng).copied();
    };
    let of = |image: &usize| similarities[*image];
    let largest = images.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
    let weight = |image: &usize| {
        // The largest has the weight 1, so that not all of them vanish. Parameters that are not
        // finite are for the loss to show.
        let weight = ((of(image) - largest) / TEMPERATURE).exp();
        if weight.is_finite() { weight } else { 1.0 }
    };
    images.choose_weighted(rng, weight).ok().copied()
}

impl TextAssignment {
    fn new(config: &TextAssignmentConfig, device: &Device) -> Self {
        let AlbefModelConfig {
            image, embedding, ..
        } = &config.model;
        let plain = device.clone().inner();
        let projection = ProjectionHead::linear(image.width, *embedding, true, &plain);
        Self {
            model: TwinEncoder::new(&config.model, device),
            assignment_head: ProjectionHead::linear(image.width, CLASSES, true, device),
            image_projection: projection.no_grad(),
            moment: Moment::default(),
        }
    }

    /// Cosines of images, row by row.
    fn similarities(&self, image_tokens: &Tensor<3>) -> Vec<f64> {
        let images = first(image_tokens.clone().without_autodiff());
        let images = l2_normalize(self.image_projection.forward(images));
        let similarities = images.clone().matmul(images.transpose()).into_data();
        similarities.iter::<f64>().collect()
    }

    /// Logits of the classes of a shard and its loss, with negatives that are hard and anew at
    /// each step, to train on; or else always the same, whatever the parameters.
    fn judge(&self, shard: &Shard, is_training: bool, device: &Device) -> Judged {
        self.assigned(shard, is_training, device).0
    }

    /// [`judge`](Self::judge), and which captions have been judged.
    pub(super) fn assigned(
        &self,
        shard: &Shard,
        is_training: bool,
        device: &Device,
    ) -> (Judged, Vec<usize>) {
        let batch = shard.to_batch(device);
        let image_tokens = self.model.image.tokens(batch.images);
        let key = batch.image_ids.first().map_or(0, |&id| id as u64);
        let drawn = if is_training {
            let Moment { seed, step, .. } = self.moment;
            let mut rng = random::stream(seed, step as u64, key, Purpose::TextAssignment);
            let similarities = self.similarities(&image_tokens);
            Assigned::draw(&batch.image_ids, Some(&similarities), &mut rng)
        } else {
            let mut rng = random::stream(0, u64::MAX, key, Purpose::TextAssignment);
            Assigned::draw(&batch.image_ids, None, &mut rng)
        };
        let counts = !drawn.captions.is_empty();
        let drawn = if counts {
            drawn
        } else {
            Assigned::without_negatives()
        };
        let rows = |indices: &[usize]| {
            let indices: Vec<i32> = indices.iter().map(|&index| index as i32).collect();
            Tensor::<1, Int>::from_data(&indices[..], device)
        };
        let images = drawn.images.each_ref();
        let images = images.map(|images| image_tokens.clone().select(0, rows(images)));
        let captions = rows(&drawn.captions);
        let tokens = batch.tokens.select(0, captions.clone());
        let padding = batch.padding.int().select(0, captions).bool();
        let logits = self
            .assignment_head
            .forward(self.model.fuse(images, tokens, padding));
        let mut judged = Judged::new(logits, drawn.classes, None);
        if !counts {
            judged.loss = judged.loss * 0.0;
            return (judged, Vec::new());
        }
        (judged, drawn.captions)
    }
}

impl System for TextAssignment {
    const NAME: &'static str = "albef";
    const FIGURES: &'static [&'static str] = &["Accuracy"];

    type Config = TextAssignmentConfig;
    type Examples = Pairs;
    type Carry = ();

    fn at(mut self, moment: &Moment) -> Self {
        self.moment = *moment;
        self
    }

    fn train_on(&self, batch: &[Shard], sharding: &Sharding) -> Step<()> {
        let device = self.device();
        train_on(self, batch, sharding, |system: &Self, shard| {
            system.judge(shard, true, &device)
        })
    }

    fn updated(self, _carried: Vec<()>) -> Self {
        self
    }

    fn infer(&self, batch: &[Shard]) -> Output {
        let device = self.device();
        infer(batch, |shard| self.judge(shard, false, &device))
    }

    fn logit_scale(&self) -> Option<Tensor<1>> {
        None
    }

    fn parts(&self) -> Vec<(&'static str, usize)> {
        let mut parts = self.model.parts();
        parts.push(("head", self.assignment_head.num_params()));
        parts
    }
}

impl SystemConfig for TextAssignmentConfig {
    type System = TextAssignment;

    /// What comes before `albef nlvr2` where nothing else is given.
    fn defaults() -> TrainingConfig<Self> {
        let config = NlvrConfig::defaults();
        TrainingConfig {
            system: Self {
                model: config.system.model,
                tokens: config.system.tokens,
            },
            shared: config.shared,
        }
    }

    fn check(&self) -> Result<()> {
        check_encoders(&self.model, self.tokens)
    }

    /// As `albef nlvr2`.
    fn started_from(earlier: &Value) -> Result<TrainingConfig<Self>> {
        let config = NlvrConfig::started_from(earlier)?;
        Ok(TrainingConfig {
            system: Self {
                model: config.system.model,
                tokens: config.system.tokens,
            },
            shared: config.shared,
        })
    }

    fn rules(&self) -> InitRules {
        InitRules {
            new: &["^assignment_head\\."],
            unused: &[
                "^model\\.(text_projection|language_head)\\.",
                "^(momentum|queue|teacher|objective|matching_head)\\.",
            ],
        }
    }

    fn renamed(&self, path: &str) -> Vec<String> {
        match path.strip_prefix("model.image_projection.") {
            Some(inner) => vec![format!("image_projection.{inner}")],
            None => renamed(path),
        }
    }

    fn has_dropout(&self) -> bool {
        self.model.image.dropout > 0.0 || self.model.bert.dropout > 0.0
    }

    fn image_size(&self) -> usize {
        self.model.image.image_size
    }

    fn text(&self) -> TextLimits {
        self.model.text(self.tokens)
    }

    fn init(&self, device: &Device) -> TextAssignment {
        TextAssignment::new(self, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng(seed: u64) -> impl Rng {
        random::stream(seed, 0, 0, Purpose::TextAssignment)
    }

    /// Each of several shards of ids, drawn many times.
    fn drawn(ids: &[usize], similarities: Option<&[f64]>) -> Vec<Assigned> {
        let draw = |seed| Assigned::draw(ids, similarities, &mut rng(seed));
        (0..600).map(draw).collect()
    }

    #[test]
    fn a_third_of_the_captions_have_their_image_first_second_or_not_at_all() {
        // Images 3 and 4 are the same.
        let ids = [10, 11, 12, 7, 7];
        let mut classes = [0; CLASSES];
        for assigned in drawn(&ids, None) {
            assert_eq!(assigned.captions, [0, 1, 2, 3, 4]);
            for (row, &class) in assigned.classes.iter().enumerate() {
                let images = assigned.images.each_ref().map(|images| images[row]);
                let own = images.map(|image| ids[image] == ids[row]);
                assert_eq!(own, [class == 0, class == 1]);
                if class < NEITHER {
                    assert_eq!(images[class], row, "its own image, not an equal one");
                } else {
                    assert_ne!(images[0], images[1]);
                }
                classes[class] += 1;
            }
        }
        // 1,000 each on average, with a deviation of 26.
        assert!(
            classes.iter().all(|n| (900..1100).contains(n)),
            "{classes:?}"
        );
    }

    #[test]
    fn similar_images_are_drawn_more_often_and_each_as_its_weight_says() {
        let step = TEMPERATURE * 3f64.ln();
        // Of the first caption, image 2 has three times the weight of image 1.
        let similarities = [1.0, 0.2, 0.2 + step, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let mut counts = [0; 3];
        for assigned in drawn(&[0, 1, 2], Some(&similarities)) {
            match assigned.classes[0] {
                0 => counts[assigned.images[1][0]] += 1,
                1 => counts[assigned.images[0][0]] += 1,
                _ => {}
            }
        }
        let share = f64::from(counts[2]) / f64::from(counts[1] + counts[2]);
        assert_eq!(counts[0], 0);
        assert!((share - 0.75).abs() < 0.07, "{counts:?}");
    }

    #[test]
    fn weights_that_vanish_or_are_no_numbers_do_not_stop_the_draw() {
        let far = [1.0, -1e9, -2e9, -1e9, 1.0, -2e9, f64::NAN, f64::NAN, 1.0];
        for assigned in drawn(&[0, 1, 2], Some(&far)) {
            assert_eq!(assigned.captions, [0, 1, 2]);
        }
    }

    #[test]
    fn a_caption_without_a_negative_is_left_out() {
        assert_eq!(Assigned::draw(&[4], None, &mut rng(0)), Assigned::default());
        for assigned in drawn(&[4, 4, 4], None) {
            assert_eq!(assigned, Assigned::default());
        }
        // With one, it is both.
        let two = drawn(&[4, 5], None);
        let neither = two.iter().find(|two| two.classes[0] == NEITHER).unwrap();
        assert_eq!(neither.images.each_ref().map(|images| images[0]), [1, 1]);
    }
}
