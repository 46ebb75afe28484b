//! A system as burn-train's Learner knows models, and the metrics that it shows.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Tensor, TensorReadError};
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Adaptor, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes,
    NumericEntry, SerializedEntry,
};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use burn_contrastive::sharded::Sharding;

use super::output::Output;
use super::system::{Item, System};
use crate::data::Shard;

/// A system, with the steps that burn-train asks of a model.
#[derive(Module, Debug)]
pub struct Learned<S: System> {
    /// The system.
    pub system: S,
}

impl<S: System> TrainStep for Learned<S> {
    type Input = Vec<Shard<Item<S>>>;
    type Output = Output;

    /// In the memory of a shard; [`System::train_on`] has the choice.
    fn step(&self, batch: Self::Input) -> TrainOutput<Output> {
        let step = self.system.train_on(&batch, &Sharding::recompute());
        TrainOutput {
            grads: step.gradients,
            item: step.output,
        }
    }
}

impl<S: System> InferenceStep for Learned<S> {
    type Input = Vec<Shard<Item<S>>>;
    type Output = Output;

    fn step(&self, batch: Self::Input) -> Output {
        self.system.infer(&batch)
    }
}

/// One of a system's losses or figures, by its name.
#[derive(Clone)]
pub(super) struct NamedMetric {
    name: MetricName,
    read: Read,
    state: NumericMetricState,
}

#[derive(Clone, Copy)]
enum Read {
    Loss(usize),
    Figure(usize),
}

impl NamedMetric {
    /// The losses that the loss of a system is the sum of.
    pub fn losses<S: System>() -> impl Iterator<Item = Self> {
        Self::all(S::LOSSES, Read::Loss)
    }

    /// The figures of a system.
    pub fn figures<S: System>() -> impl Iterator<Item = Self> {
        Self::all(S::FIGURES, Read::Figure)
    }

    fn all(names: &'static [&str], read: fn(usize) -> Read) -> impl Iterator<Item = Self> {
        names.iter().enumerate().map(move |(index, name)| Self {
            name: Arc::new(name.to_string()),
            read: read(index),
            state: NumericMetricState::default(),
        })
    }
}

/// What a [`NamedMetric`] reads.
pub(super) struct Named {
    losses: Vec<Tensor<1>>,
    figures: Vec<f64>,
}

impl Adaptor<Named> for Output {
    fn adapt(&self) -> Named {
        Named {
            losses: self.losses.clone(),
            figures: self.figures.iter().map(|figure| figure.mean()).collect(),
        }
    }
}

impl Metric for NamedMetric {
    type Input = Named;

    fn update(
        &mut self,
        all: &Named,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let value = match self.read {
            Read::Loss(index) => all.losses[index].clone().try_into_scalar::<f64>()?,
            Read::Figure(index) => all.figures[index],
        };
        self.state.update(value, 1);
        let options = FormatOptions::new(self.name());
        Ok(self.state.compute_update(options.precision(2)))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        let options = FormatOptions::new(self.name());
        Ok(self.state.compute_final(options.precision(2)))
    }

    fn clear(&mut self) {
        self.state.reset();
    }

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: matches!(self.read, Read::Figure(_)),
        }
        .into()
    }
}

impl Numeric for NamedMetric {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}
