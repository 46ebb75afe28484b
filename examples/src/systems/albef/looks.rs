//! Looks inside: mutual information over the training, and the weights that SRCL gives to the
//! negatives of batches with known false ones
//! (Jiang et al., 2023, figures 3b, 7 and 8).

use anyhow::{Context, Result, anyhow};
use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_contrastive::analysis::{BatchWeights, mutual_information_bound};
use burn_contrastive::negatives::PairFeatures;
use burn_contrastive::objective::ContrastiveConfig;
use burn_contrastive::similarity::{LogitScaleConfig, SimilarityConfig};
use burn_contrastive::weighting::SimilarityRegulation;

use super::{Albef, Rows};
use crate::data::{Collection, Pair, PairLoader, Shard};
use crate::report::{WeightExample, Weights};
use crate::training::objective::logit_scale;
use crate::training::output::Figure;

/// Bins that weights are counted in at first, and the weight where the last one ends; larger
/// weights are counted there.
const FINE: usize = 1 << 12;
const LARGEST: f64 = 16.0;
/// The most bins that are shown.
const SHOWN: usize = 60;
/// Pairs with the smallest weights that are shown.
const LOWEST: usize = 12;

/// Batches whose weights are looked at.
pub struct Batches {
    /// Training pairs, of which some have the meaning of another of their batch.
    pub loader: PairLoader,
    /// How many batches.
    pub count: usize,
    /// How negatives are weighed.
    pub regulation: SimilarityRegulation,
}

/// Weights counted in bins of all negatives, and of those that are known to match.
struct Counts {
    all: Vec<u64>,
    known_false: Vec<u64>,
    sum: f64,
    sum_of_false: f64,
    lowest: Vec<(f64, WeightExample)>,
}

impl Albef {
    /// The mutual information of a batch in nats, the mean of both directions: the bound on that of
    /// its pairs, `ln N − L` (Jiang et al., equation 2), and that of anchors and negatives under
    /// the weights of the model by itself, `E log(1/w)` (equation 40), which is 0 without weights.
    pub(super) fn information(&self, rows: &Rows) -> Vec<Figure> {
        let [pairs, _] = rows.image.dims();
        let temperature = match logit_scale(&self.objective) {
            Some(scale) => 1.0 / scale.into_scalar::<f64>(),
            None => 1.0,
        };
        let contrast = ContrastiveConfig::new()
            .with_logit_scale(LogitScaleConfig::fixed(temperature))
            .init(&rows.image.device());
        let (image, text) = (rows.image.clone(), rows.text.clone());
        let directions = contrast.forward_directions(image.clone(), text.clone(), ());
        let bounds =
            directions.map(|losses| mutual_information_bound(losses, pairs).into_scalar::<f64>());
        let of_negatives = self.regulation.map_or([0.0; 2], |regulation| {
            let features = PairFeatures::new(image, text);
            let similarity = SimilarityConfig::new();
            BatchWeights::new(regulation.with_alpha(0.0), features, None, similarity).information()
        });
        [bounds, of_negatives]
            .map(|[by_image, by_text]| Figure {
                sum: (by_image + by_text) / 2.0 * pairs as f64,
                count: pairs as f64,
            })
            .to_vec()
    }

    /// The weights that the trained model gives by itself, α = 0, to the negatives of `batches`.
    ///
    /// # Errors
    ///
    /// If an image cannot be read.
    pub(super) fn weights(&self, batches: &Batches, collection: &Collection) -> Result<Weights> {
        let model = self.valid();
        let device = model.model.devices().swap_remove(0);
        let regulation = batches.regulation.with_alpha(0.0);
        let mut counts = Counts::new();
        let mut left = batches.count;
        while left > 0 {
            for batch in batches.loader.iter().take(left) {
                let batch = batch.map_err(|error| anyhow!("{error}"));
                let batch = batch.context("reading the training data failed")?;
                let [image, text] = model.features(&batch, &device);
                let features = PairFeatures::new(image, text);
                let weights =
                    BatchWeights::new(regulation, features, None, SimilarityConfig::new());
                let pairs: Vec<&Pair> = batch.iter().flat_map(|shard| &shard.items).collect();
                counts.add(&weights, &pairs, collection);
                left -= 1;
            }
        }
        Ok(counts.finish())
    }

    /// The embeddings of a batch.
    fn features(&self, batch: &[Shard], device: &Device) -> [Tensor<2>; 2] {
        let embed = |shard: &Shard| {
            let batch = shard.to_batch(device);
            let encoded = self.model.encode(batch.images, batch.tokens, batch.padding);
            (encoded.image, encoded.text)
        };
        let (images, texts): (Vec<_>, Vec<_>) = batch.iter().map(embed).unzip();
        [Tensor::cat(images, 0), Tensor::cat(texts, 0)]
    }
}

impl Counts {
    fn new() -> Self {
        Self {
            all: vec![0; FINE],
            known_false: vec![0; FINE],
            sum: 0.0,
            sum_of_false: 0.0,
            lowest: Vec::new(),
        }
    }

    fn add(&mut self, weights: &BatchWeights, pairs: &[&Pair], collection: &Collection) {
        let n = pairs.len();
        let [by_image, by_text] = weights.block(0..n, 0..n).map(|weights| {
            let weights = weights.into_data();
            weights.iter::<f64>().collect::<Vec<_>>()
        });
        for (image, text) in (0..n).flat_map(|image| (0..n).map(move |text| (image, text))) {
            if image == text {
                continue;
            }
            let is_false = pairs[image].meaning == pairs[text].meaning;
            let at = image * n + text;
            for (weight, by_image) in [(by_image[at], true), (by_text[at], false)] {
                self.count(weight, is_false);
                let is_low = self.lowest.last().is_none_or(|(last, _)| weight < *last);
                if self.lowest.len() < LOWEST || is_low {
                    let example = || {
                        let caption = collection.examples[pairs[text].image_id].captions[0].clone();
                        let picture = &collection.examples[pairs[image].image_id].image;
                        let picture = picture.path().to_owned();
                        let mut example = WeightExample {
                            weight,
                            is_false_negative: is_false,
                            ..WeightExample::default()
                        };
                        if by_image {
                            example.anchor_image = Some(picture);
                            example.candidate_text = Some(caption);
                        } else {
                            example.anchor_text = Some(caption);
                            example.candidate_image = Some(picture);
                        }
                        example
                    };
                    let place = self.lowest.partition_point(|(other, _)| *other <= weight);
                    self.lowest.insert(place, (weight, example()));
                    self.lowest.truncate(LOWEST);
                }
            }
        }
    }

    fn count(&mut self, weight: f64, is_false: bool) {
        let bin = (weight / LARGEST * FINE as f64) as usize;
        let bin = bin.min(FINE - 1);
        self.all[bin] += 1;
        self.sum += weight;
        if is_false {
            self.known_false[bin] += 1;
            self.sum_of_false += weight;
        }
    }

    fn finish(self) -> Weights {
        let used = self.all.iter().rposition(|&count| count > 0).unwrap_or(0) + 1;
        let each = used.div_ceil(SHOWN);
        let coarse = |fine: &[u64]| -> Vec<u64> {
            let bins = fine[..used].chunks(each);
            bins.map(|bins| bins.iter().sum()).collect()
        };
        let all = coarse(&self.all);
        let total = |counts: &[u64]| counts.iter().sum::<u64>() as f64;
        Weights {
            low: 0.0,
            high: (all.len() * each) as f64 * LARGEST / FINE as f64,
            known_false: coarse(&self.known_false),
            all,
            mean: self.sum / total(&self.all),
            mean_of_known_false: self.sum_of_false / total(&self.known_false),
            auc: area(&self.all, &self.known_false),
            lowest: self
                .lowest
                .into_iter()
                .map(|(_, example)| example)
                .collect(),
        }
    }
}

/// The probability that a known false negative weighs less than another negative, ties within a bin
/// counted half; `None` if there are none of one kind.
fn area(all: &[u64], known_false: &[u64]) -> Option<f64> {
    let (mut below, mut wins, mut others) = (0.0, 0.0, 0.0);
    for (&all, &known_false) in all.iter().zip(known_false) {
        let (known_false, other) = (known_false as f64, (all - known_false) as f64);
        wins += other * (below + known_false / 2.0);
        below += known_false;
        others += other;
    }
    (below > 0.0 && others > 0.0).then(|| wins / (below * others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_that_of_the_pairs() {
        // False negatives weigh 0 and 2, others 1, 2 and 3: of six pairs 4 are right, one is even.
        let (known_false, all) = ([1, 0, 1, 0], [1, 1, 2, 1]);
        assert_eq!(area(&all, &known_false), Some(4.5 / 6.0));
        assert_eq!(area(&all, &[0; 4]), None);
        assert_eq!(area(&all, &all), None);
    }

    #[test]
    fn large_weights_are_counted_and_few_bins_are_shown() {
        let mut counts = Counts::new();
        for weight in [0.0, 0.5, 1.0, 1e9] {
            counts.count(weight, weight < 0.3);
        }
        let weights = counts.finish();
        assert_eq!(weights.all.iter().sum::<u64>(), 4);
        assert_eq!(weights.known_false[0], 1);
        assert!(weights.all.len() <= SHOWN && weights.all.len() == weights.known_false.len());
        // The last bin may reach beyond the largest weight.
        let bin = weights.high / weights.all.len() as f64;
        assert!(
            (LARGEST..LARGEST + bin).contains(&weights.high),
            "{}",
            weights.high
        );
        assert_eq!(weights.auc, Some(1.0));
    }
}
