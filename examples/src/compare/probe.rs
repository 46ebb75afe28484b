//! How well weights of negatives tell the false ones, over a training.

use std::path::Path;

use anyhow::Result;
use burn::tensor::{Device, Tensor};
use burn_contrastive::analysis::BatchWeights;
use burn_contrastive::negatives::PairFeatures;
use burn_contrastive::objective::ObjectiveConfig;
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
}

/// Features of those batches, with the meanings of their pairs.
pub struct Looked {
    batches: Vec<(PairFeatures, Vec<usize>)>,
}

/// Batches whose weights are looked at.
pub struct Probe {
    batches: Vec<Drawn>,
    regulation: Option<SimilarityRegulation>,
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

/// The area of one batch, the mean weight of both directions being the score.
fn area(
    regulation: SimilarityRegulation,
    features: &PairFeatures,
    meanings: &[usize],
) -> Option<f64> {
    let pairs = meanings.len();
    let weights = BatchWeights::new(regulation, features.clone(), None, SimilarityConfig::new());
    let [by_image, by_text] = weights.block(0..pairs, 0..pairs).map(values);
    let mut scores = Vec::with_capacity(pairs * pairs);
    let mut labels = Vec::with_capacity(pairs * pairs);
    for (image, text) in (0..pairs).flat_map(|image| (0..pairs).map(move |text| (image, text))) {
        if image != text {
            let place = image * pairs + text;
            scores.push(-(by_image[place] + by_text[place]));
            labels.push(Some(meanings[image] == meanings[text]));
        }
    }
    auc(&scores, &labels)
}

fn values(matrix: Tensor<2>) -> Vec<f64> {
    matrix.into_data().iter::<f64>().collect()
}
