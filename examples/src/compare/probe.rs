//! How well weights of negatives tell the false ones, over a training.

use std::path::Path;

use anyhow::Result;
use burn::tensor::{Device, Tensor};
use burn_contrastive::analysis::BatchWeights;
use burn_contrastive::negatives::PairFeatures;
use burn_contrastive::objective::{AnyConfig, ObjectiveConfig};
use burn_contrastive::retrieval::auc;
use burn_contrastive::similarity::SimilarityConfig;
use burn_contrastive::weighting::SimilarityRegulation;
use serde::{Deserialize, Serialize};

use super::data::{Drawn, Material};
use super::embeddings;
use super::setup::Setup;
use super::trial::Teacher;
use crate::systems::clip::Clip;
use crate::training::objective::regulation;

/// The seed of the batches, that of no run.
const SEED: u64 = 1 << 40;

/// Areas under the ROC curve of low weights for false negatives: the chance that a false negative
/// weighs less than another negative, the mean over the batches that are looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// Steps done.
    pub step: usize,
    /// By the weights of the objective at that moment; `None` where it weighs nothing.
    pub weights: Option<f64>,
    /// By the similarities of the model alone, as SRCL weighs by them.
    pub student: Option<f64>,
    /// By those of the teacher alone; `None` without one.
    pub teacher: Option<f64>,
    /// What the objective leaves out at that moment, if it leaves out negatives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Removed>,
}

/// The shares of negatives, of both directions together, that are left out of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// Of the false ones.
    pub false_negatives: f64,
    /// Of the others.
    pub others: f64,
}

/// Features of those batches, with the meanings of their pairs.
pub struct Looked {
    batches: Vec<(PairFeatures, Vec<usize>)>,
}

/// Batches whose weights are looked at.
pub struct Probe {
    batches: Vec<Drawn>,
    regulation: Option<SimilarityRegulation>,
    threshold: Option<f64>,
    alpha: Box<dyn Fn(f64) -> f64>,
}

impl Probe {
    /// The batches of a comparison: the same for all runs, of training pairs.
    pub fn new(
        objective: &ObjectiveConfig,
        setup: &Setup,
        material: &Material,
        device: &Device,
    ) -> Self {
        let (protocol, size) = (&setup.protocol, setup.training.shared.data.batch_size);
        let batches = protocol.probe_batches;
        let batches = material.batches(protocol.probe_rate, size, SEED, batches, device);
        let regulation = regulation(objective);
        let fixed = regulation.map_or(0.0, |regulation| regulation.alpha);
        let schedule = objective.schedules().alpha;
        Self {
            batches: batches.collect(),
            regulation,
            threshold: match &objective.kind {
                AnyConfig::FalseNegativeRemoval(config) => Some(config.threshold),
                _ => None,
            },
            alpha: Box::new(move |progress| {
                schedule.map_or(fixed, |schedule| schedule.at(progress))
            }),
        }
    }

    /// What a model, which is without autodiff, and the teacher make of them.
    pub fn features(&self, model: &Clip, teacher: Option<&Teacher>) -> Looked {
        let embed = |drawn: &Drawn| {
            let batch = &drawn.batch;
            let image = model.embed_image(batch.images.clone());
            let text = model.embed_text(batch.tokens.clone(), batch.padding.clone());
            let features = PairFeatures::new(image, text);
            match teacher.map(|teacher| teacher.of(drawn)) {
                Some([image, text]) => features.with_teacher(image, text),
                None => features,
            }
        };
        let meanings = self.batches.iter().map(|drawn| drawn.meanings.clone());
        Looked {
            batches: self.batches.iter().map(embed).zip(meanings).collect(),
        }
    }

    /// How well weights tell the false negatives of these batches.
    pub fn look(&self, features: &Looked, step: usize, progress: f64) -> Look {
        let literal = SimilarityRegulation::new();
        let own = self
            .regulation
            .map(|own| own.with_alpha((self.alpha)(progress)));
        let has_teacher = features
            .batches
            .iter()
            .all(|(one, _)| one.teacher_image.is_some());
        let teacher = has_teacher.then(|| literal.with_alpha(1.0));
        Look {
            step,
            weights: own.and_then(|own| features.area(own)),
            student: features.area(literal.with_alpha(0.0)),
            teacher: teacher.and_then(|teacher| features.area(teacher)),
            removed: own
                .zip(self.threshold)
                .map(|(own, threshold)| features.removed(own, threshold)),
        }
    }
}

impl Looked {
    /// The mean area of the batches.
    fn area(&self, regulation: SimilarityRegulation) -> Option<f64> {
        let areas = self.batches.iter();
        let areas = areas.map(|(features, meanings)| area(regulation, features, meanings));
        let areas = areas.collect::<Option<Vec<f64>>>()?;
        Some(areas.iter().sum::<f64>() / areas.len() as f64)
    }

    /// The shares of the negatives whose weight is below a threshold.
    fn removed(&self, regulation: SimilarityRegulation, threshold: f64) -> Removed {
        // Of false negatives and of others: those that are removed, and all.
        let mut counts = [[0_u32; 2]; 2];
        for (features, meanings) in &self.batches {
            for negative in negatives(regulation, features, meanings) {
                let [removed, all] = &mut counts[usize::from(!negative.is_false)];
                *removed += negative
                    .weights
                    .map(|one| u32::from(one < threshold))
                    .iter()
                    .sum::<u32>();
                *all += 2;
            }
        }
        let [false_negatives, others] =
            counts.map(|[removed, all]| f64::from(removed) / f64::from(all));
        Removed {
            false_negatives,
            others,
        }
    }

    /// Writes all batches, one after the other, with the meanings as labels.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let cat = |of: fn(&PairFeatures) -> Option<&Tensor<2>>| {
            let rows = self
                .batches
                .iter()
                .map(|(features, _)| of(features).cloned());
            rows.collect::<Option<Vec<_>>>()
                .map(|rows| Tensor::cat(rows, 0))
        };
        let matrices = [
            ("image", cat(|features| Some(&features.image))),
            ("text", cat(|features| Some(&features.text))),
            (
                "teacher_image",
                cat(|features| features.teacher_image.as_ref()),
            ),
            (
                "teacher_text",
                cat(|features| features.teacher_text.as_ref()),
            ),
        ];
        let matrices = matrices.iter();
        let matrices: Vec<_> = matrices
            .filter_map(|(name, matrix)| Some((*name, matrix.as_ref()?)))
            .collect();
        let meanings = self
            .batches
            .iter()
            .flat_map(|(_, meanings)| meanings.clone());
        let meanings: Vec<usize> = meanings.collect();
        embeddings::write(path, &matrices, &[("label", &meanings)])
    }
}

/// A pair of an image and the text of another pair.
struct Negative {
    /// Its weight among the negatives of the image, and among those of the text.
    weights: [f64; 2],
    /// Whether both mean the same.
    is_false: bool,
}

/// All negatives of a batch.
fn negatives(
    regulation: SimilarityRegulation,
    features: &PairFeatures,
    meanings: &[usize],
) -> Vec<Negative> {
    let pairs = meanings.len();
    let weights = BatchWeights::new(regulation, features.clone(), None, SimilarityConfig::new());
    let [by_image, by_text] = weights.block(0..pairs, 0..pairs).map(values);
    let places = (0..pairs).flat_map(|image| (0..pairs).map(move |text| (image, text)));
    places
        .filter(|(image, text)| image != text)
        .map(|(image, text)| Negative {
            weights: [&by_image, &by_text].map(|weights| weights[image * pairs + text]),
            is_false: meanings[image] == meanings[text],
        })
        .collect()
}

/// The area of one batch, the mean weight of both directions being the score.
fn area(
    regulation: SimilarityRegulation,
    features: &PairFeatures,
    meanings: &[usize],
) -> Option<f64> {
    let negatives = negatives(regulation, features, meanings);
    let scores = negatives
        .iter()
        .map(|negative| -negative.weights.iter().sum::<f64>());
    let labels = negatives.iter().map(|negative| Some(negative.is_false));
    auc(&scores.collect::<Vec<_>>(), &labels.collect::<Vec<_>>())
}

fn values(matrix: Tensor<2>) -> Vec<f64> {
    matrix.into_data().iter::<f64>().collect()
}
