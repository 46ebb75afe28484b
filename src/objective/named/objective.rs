//! Any objective, as one module.

use burn::module::Module;
use burn::tensor::Tensor;

use super::config::AnyObjective;
use super::features::Features;
use crate::similarity::LogitScale;

/// An objective by name; built by [`ObjectiveConfig::init`](super::ObjectiveConfig::init), or from one at hand:
/// `Objective::from(AnyObjective::InfoNce(info_nce))`.
#[derive(Module, Debug)]
pub struct Objective {
    /// Which objective.
    pub kind: AnyObjective,
}

impl From<AnyObjective> for Objective {
    fn from(kind: AnyObjective) -> Self {
        Self { kind }
    }
}

impl Objective {
    /// The loss of a batch, in the objective's own units.
    ///
    /// # Shapes
    ///
    /// - `features`: as [`Features`] says; what the objective does not use is ignored
    /// - returns `[1]`, f64 for f64 embeddings, f32 for all others
    ///
    /// # Panics
    ///
    /// Where an input that the objective needs is missing
    /// (see [`ObjectiveConfig::needs`](super::ObjectiveConfig::needs)), and as the objective itself.
    #[track_caller]
    pub fn forward(&self, features: &Features) -> Tensor<1> {
        let (image, text) = (features.image.clone(), features.text.clone());
        match &self.kind {
            AnyObjective::InfoNce(objective) => objective.forward(image, text),
            AnyObjective::Vse(objective) => objective.forward(image, text),
            AnyObjective::VsePlusPlus(objective) => objective.forward(image, text),
            AnyObjective::ConVsePlusPlus(objective) => objective.forward(image, text),
            AnyObjective::ReCo(objective) => objective.forward(image, text),
            AnyObjective::Orthogonality(objective) => objective.forward(image, text),
            AnyObjective::Alignment(objective) => objective.forward(image, text),
            AnyObjective::Uniformity(objective) => objective.forward(image, text),
            AnyObjective::BarlowTwins(objective) => objective.forward(image, text),
            AnyObjective::SigLip(objective) => objective.forward(image, text),
            AnyObjective::MaxMargin(objective) => objective.forward(image, text),
            AnyObjective::Sum(sum) => sum.forward(features),
        }
    }

    /// The factors between similarities and logits, learned or fixed, that the objective holds: one, or none, or those
    /// of a sum's terms.
    pub fn logit_scales(&mut self) -> Vec<&mut LogitScale> {
        match &mut self.kind {
            AnyObjective::InfoNce(objective) => vec![&mut objective.logit_scale],
            AnyObjective::SigLip(objective) => vec![&mut objective.logit_scale],
            AnyObjective::Sum(sum) => sum.terms.iter_mut().flat_map(Self::logit_scales).collect(),
            _ => vec![],
        }
    }

    /// The same objective with its logit scales inside their ranges: call it after an optimiser step.
    pub fn clamped(mut self) -> Self {
        for scale in self.logit_scales() {
            *scale = scale.clone().clamped();
        }
        self
    }
}

/// A weighted sum of objectives: `Σ_k w_k·L_k`, itself an objective.
#[derive(Module, Debug)]
pub struct WeightedSum {
    terms: Vec<Objective>,
    weights: Vec<f64>,
}

impl WeightedSum {
    /// The sum of these objectives, each times its weight.
    ///
    /// # Panics
    ///
    /// Where there are none, or a weight is not finite.
    #[track_caller]
    pub fn new(terms: impl IntoIterator<Item = (f64, Objective)>) -> Self {
        let (weights, terms): (Vec<_>, Vec<_>) = terms.into_iter().unzip();
        assert!(
            !terms.is_empty(),
            "WeightedSum: `terms` is empty: it needs one objective at least"
        );
        for weight in &weights {
            assert!(
                weight.is_finite(),
                "WeightedSum: `weight` is {weight}, it must be finite"
            );
        }
        Self { terms, weights }
    }

    /// The weighted sum of the losses: see [`Objective::forward`].
    ///
    /// # Shapes
    ///
    /// - `features`: as [`Features`] says
    /// - returns `[1]`
    ///
    /// # Panics
    ///
    /// As [`Objective::forward`].
    #[track_caller]
    pub fn forward(&self, features: &Features) -> Tensor<1> {
        let weighted = |(term, &weight): (&Objective, &f64)| term.forward(features) * weight;
        let losses = self.terms.iter().zip(&self.weights).map(weighted);
        losses
            .reduce(|sum, loss| sum + loss)
            .expect("one term at least")
    }
}
