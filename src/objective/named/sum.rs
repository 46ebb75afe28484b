//! A weighted sum of objectives, itself an objective.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::config::ObjectiveConfig;
use super::objective::Objective;
use crate::check::{self, ConfigError};
use crate::objective::entry::{Evaluate, Features, Named};
use crate::schedule::Settings;
use crate::similarity::{LogitScale, SimilarityConfig};

/// Configuration of [`WeightedSum`]: by name `"sum"`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightedSumConfig {
    /// The objectives, each with its [`weight`](ObjectiveConfig::weight).
    pub terms: Vec<ObjectiveConfig>,
}

impl WeightedSumConfig {
    /// Without terms: at least one must be added.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks the terms.
    ///
    /// # Errors
    ///
    /// Where there are none, or [`ObjectiveConfig::check`] of a term fails.
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = "WeightedSum";
        if self.terms.is_empty() {
            let problem = "is empty, it needs at least one objective";
            return Err(ConfigError::new(name, "terms", problem));
        }
        for (k, term) in self.terms.iter().enumerate() {
            let of_term =
                |error: ConfigError| error.within(name, |field| format!("terms[{k}].{field}"));
            term.check().map_err(of_term)?;
        }
        Ok(())
    }

    /// Builds the sum on `device`.
    ///
    /// # Panics
    ///
    /// Where [`check`](Self::check) fails.
    #[track_caller]
    pub fn init(&self, device: &Device) -> WeightedSum {
        check::or_panic(self.check());
        let terms = self.terms.iter();
        WeightedSum::new(terms.map(|term| (term.weight, term.init_unweighted(device))))
    }
}

impl Named for WeightedSumConfig {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn similarities(&mut self) -> Vec<&mut SimilarityConfig> {
        let terms = self.terms.iter_mut();
        terms
            .flat_map(|term| term.kind.get_mut().similarities())
            .collect()
    }
}

/// A weighted sum of objectives: `Σ_k w_k·L_k`, itself an objective.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::objective::{Features, ObjectiveConfig, WeightedSum};
///
/// let device = Device::default();
/// let term = |name| ObjectiveConfig::named(name).unwrap().init(&device);
/// let sum = WeightedSum::new([(1.0, term("info-nce")), (0.1, term("uniformity"))]);
/// // N equal embeddings: ln N, and 0.
/// let equal = Tensor::<2>::ones([4, 3], &device);
/// let loss = sum.forward(&Features::new(equal.clone(), equal));
/// assert!((loss.into_scalar::<f32>() - 4f32.ln()).abs() < 1e-5);
/// ```
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
            "WeightedSum: `terms` is empty, it needs at least one objective"
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
            .expect("a sum has at least one term")
    }

    /// The same sum with other values of what changes during training, in every term that has them.
    ///
    /// # Panics
    ///
    /// Where a value is out of a term's range.
    #[track_caller]
    pub fn with_settings(mut self, settings: &Settings) -> Self {
        self.set(settings);
        self
    }

    /// The same sum when a share `progress` of the training is done: see [`Objective::at`].
    ///
    /// # Panics
    ///
    /// As [`Objective::at`].
    #[track_caller]
    pub fn at(mut self, progress: f64) -> Self {
        self.set_progress(progress);
        self
    }

    #[track_caller]
    pub(super) fn set_progress(&mut self, progress: f64) {
        for term in &mut self.terms {
            term.set_progress(progress);
        }
    }
}

impl Evaluate for WeightedSum {
    fn evaluate(&self, features: &Features) -> Tensor<1> {
        self.forward(features)
    }

    fn set(&mut self, settings: &Settings) {
        for term in &mut self.terms {
            term.kind.get_mut().set(settings);
        }
    }

    fn scales(&mut self) -> Vec<&mut LogitScale> {
        let terms = self.terms.iter_mut();
        terms.flat_map(Objective::logit_scales).collect()
    }
}
