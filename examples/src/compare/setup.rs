//! What all runs of a comparison share: encoders, data, budget, and what is varied.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::systems::clip::ClipConfig;
use crate::training::config::TrainingConfig;
use crate::training::system::SystemConfig;

/// What all runs share. Results of another setup are no part of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Encoders, data, optimiser and schedule, in the form of `clip`'s settings. Of the optimiser,
    /// the learning rate is searched; the objective is the run's.
    #[serde(serialize_with = "to_value", deserialize_with = "from_value")]
    pub training: TrainingConfig<ClipConfig>,
    /// What is varied, and measured.
    pub protocol: Protocol,
}

/// What is varied, and measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// Shares of a batch's pairs that have a false negative in it, ascending.
    pub rates: Vec<f64>,
    /// The one at which settings are chosen.
    pub search_rate: f64,
    /// Learning rates to choose from.
    pub learning_rates: Vec<f64>,
    /// Runs of each objective of the first group at each rate, which differ in their seeds.
    pub seeds: usize,
    /// The same, of the other objectives.
    pub fewer_seeds: usize,
    /// Images to choose settings by, of generated scenes.
    pub validation: usize,
    /// Images to report on, of generated scenes.
    pub test: usize,
    /// Batches in which weights are looked at.
    pub probe_batches: usize,
    /// Their false-negative rate.
    pub probe_rate: f64,
    /// How often they are looked at, after equal shares of the steps.
    pub looks: usize,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            rates: vec![0.0, 0.1, 0.3, 0.6],
            search_rate: 0.3,
            learning_rates: vec![1e-3, 3e-3],
            seeds: 4,
            fewer_seeds: 2,
            validation: 300,
            test: 500,
            probe_batches: 4,
            probe_rate: 0.3,
            looks: 6,
        }
    }
}

impl Setup {
    /// A small pair of encoders and a budget of half a minute a run on one CPU core.
    pub fn new() -> Self {
        Self {
            training: TrainingConfig::default()
                .overlaid(include_str!("../../configs/compare.json")),
            protocol: Protocol::default(),
        }
    }

    /// Checks the values, and that no setting is given that would have no effect.
    ///
    /// # Errors
    ///
    /// Names what is out of range or without effect.
    pub fn check(&self) -> Result<()> {
        self.training.check()?;
        let (own, default) = (&self.training, Self::new().training);
        let mut allowed = default.clone();
        allowed.system.model = own.system.model.clone();
        allowed.shared.schedule = own.shared.schedule.clone();
        allowed.shared.optimizer = own.shared.optimizer.clone();
        allowed.shared.optimizer.learning_rate = default.shared.optimizer.learning_rate;
        let data = &mut allowed.shared.data;
        data.path.clone_from(&own.shared.data.path);
        data.skip_bad = own.shared.data.skip_bad;
        data.tokenizer.clone_from(&own.shared.data.tokenizer);
        data.scenes = own.shared.data.scenes.clone();
        data.batch_size = own.shared.data.batch_size;
        ensure!(
            allowed == *own,
            "compare takes settings of model, schedule, optimizer (without learning_rate, which is \
             searched) and of data path, skip_bad, tokenizer, scenes and batch_size: others would \
             have no effect"
        );
        ensure!(
            own.shared.schedule.epochs.is_none(),
            "schedule.epochs: the budget of a comparison is schedule.steps"
        );
        ensure!(
            !own.system.has_dropout(),
            "dropout: the runs of a comparison have none"
        );
        self.protocol.check()
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Protocol {
    fn check(&self) -> Result<()> {
        ensure!(!self.rates.is_empty(), "there is no rate to compare at");
        for &rate in self
            .rates
            .iter()
            .chain([&self.search_rate, &self.probe_rate])
        {
            ensure!(
                (0.0..=1.0).contains(&rate),
                "a false-negative rate is {rate}; it must lie in 0..=1"
            );
        }
        for (place, rate) in self.rates.iter().enumerate() {
            ensure!(
                !self.rates[..place].contains(rate),
                "the rate {rate} is there twice"
            );
        }
        ensure!(
            self.rates.is_sorted(),
            "the rates are {:?}; they must ascend",
            self.rates
        );
        ensure!(
            !self.learning_rates.is_empty() && self.learning_rates.iter().all(|&rate| rate > 0.0),
            "learning rates must be positive, and at least one"
        );
        for (name, value) in [
            ("seeds", self.seeds),
            ("fewer seeds", self.fewer_seeds),
            ("validation images", self.validation),
            ("test images", self.test),
            ("probe batches", self.probe_batches),
            ("looks", self.looks),
        ] {
            ensure!(value > 0, "there are 0 {name}; it must be at least 1");
        }
        Ok(())
    }
}

fn to_value<S: serde::Serializer>(
    config: &TrainingConfig<ClipConfig>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let value = config.to_value().map_err(serde::ser::Error::custom)?;
    value.serialize(serializer)
}

fn from_value<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<TrainingConfig<ClipConfig>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let config = TrainingConfig::from_value(value).context("training");
    config.map_err(|error| serde::de::Error::custom(format!("{error:#}")))
}
