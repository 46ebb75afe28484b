//! The parameters of objectives by name: read and written as plain values, kept in the objectives' own configs.

use std::fmt;

use super::config::Extras;
use crate::objective::Reduction;
use crate::similarity::LogitScaleConfig;
use crate::weighting::SimilarityRegulation;

/// The value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// True or false.
    Flag(bool),
    /// `"mean"` or `"sum"`.
    Reduction(Reduction),
    /// `null`: of a number that need not be there.
    None,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Reduction(Reduction::Mean) => f.write_str("mean"),
            Self::Reduction(Reduction::Sum) => f.write_str("sum"),
            Self::None => f.write_str("none"),
        }
    }
}

/// A parameter of an objective: its name, and where its config keeps it.
#[derive(Debug)]
pub struct Parameter<'a> {
    /// Its name in JSON.
    pub name: &'static str,
    slot: Slot<'a>,
}

#[derive(Debug)]
enum Slot<'a> {
    Number(&'a mut f64),
    Optional(&'a mut Option<f64>),
    Temperature(&'a mut LogitScaleConfig),
    Scale(&'a mut LogitScaleConfig),
    Flag(&'a mut bool),
    Reduction(&'a mut Reduction),
}

impl<'a> Parameter<'a> {
    pub(super) fn number(name: &'static str, slot: &'a mut f64) -> Self {
        let slot = Slot::Number(slot);
        Self { name, slot }
    }

    /// The initial temperature of a logit scale.
    pub(super) fn temperature(scale: &'a mut LogitScaleConfig) -> Self {
        let slot = Slot::Temperature(scale);
        Self {
            name: "temperature",
            slot,
        }
    }

    /// The same by its inverse, the initial scale.
    pub(super) fn scale(scale: &'a mut LogitScaleConfig) -> Self {
        let slot = Slot::Scale(scale);
        Self {
            name: "scale",
            slot,
        }
    }

    /// Those of every softmax contrast.
    pub(super) fn contrast(
        scale: &'a mut LogitScaleConfig,
        directions: &'a mut Reduction,
        extras: &'a mut Extras,
    ) -> Vec<Self> {
        let guided_margin = Slot::Optional(&mut extras.guided_margin);
        vec![
            Self::temperature(scale),
            Self::reduction(directions),
            Self::flag("hard_negatives", &mut extras.hard_negatives),
            Self::number("label_smoothing", &mut extras.label_smoothing),
            Self {
                name: "guided_margin",
                slot: guided_margin,
            },
        ]
    }

    /// A margin, and how losses are reduced.
    pub(super) fn margin(margin: &'a mut f64, reduction: &'a mut Reduction) -> Vec<Self> {
        vec![Self::number("margin", margin), Self::reduction(reduction)]
    }

    /// Those of weights by similarity.
    pub(super) fn regulation(regulation: &'a mut SimilarityRegulation) -> [Self; 2] {
        [
            Self::number("alpha", &mut regulation.alpha),
            Self::number("weight_temperature", &mut regulation.weight_temperature),
        ]
    }

    pub(super) fn flag(name: &'static str, slot: &'a mut bool) -> Self {
        let slot = Slot::Flag(slot);
        Self { name, slot }
    }

    pub(super) fn reduction(slot: &'a mut Reduction) -> Self {
        let slot = Slot::Reduction(slot);
        Self {
            name: "reduction",
            slot,
        }
    }

    /// Its value.
    pub fn get(&self) -> Value {
        match &self.slot {
            Slot::Number(number) => Value::Number(**number),
            Slot::Optional(number) => number.map_or(Value::None, Value::Number),
            Slot::Temperature(scale) => Value::Number(scale.temperature),
            Slot::Scale(scale) => Value::Number(1.0 / scale.temperature),
            Slot::Flag(flag) => Value::Flag(**flag),
            Slot::Reduction(reduction) => Value::Reduction(**reduction),
        }
    }

    /// Gives it another value. The range of a logit scale widens as far as a temperature takes; whether a value is in
    /// the objective's range is checked when the objective is built.
    ///
    /// # Errors
    ///
    /// If the value is of another kind, with what it must be.
    pub fn set(&mut self, value: Value) -> Result<(), &'static str> {
        match (&mut self.slot, value) {
            (Slot::Number(slot), Value::Number(number)) => **slot = number,
            (Slot::Optional(slot), Value::Number(number)) => **slot = Some(number),
            (Slot::Optional(slot), Value::None) => **slot = None,
            (Slot::Temperature(scale), Value::Number(temperature)) => {
                widen(scale, temperature, 1.0 / temperature);
            }
            (Slot::Scale(scale), Value::Number(factor)) => widen(scale, 1.0 / factor, factor),
            (Slot::Flag(slot), Value::Flag(flag)) => **slot = flag,
            (Slot::Reduction(slot), Value::Reduction(reduction)) => **slot = reduction,
            (Slot::Number(_) | Slot::Temperature(_) | Slot::Scale(_), _) => return Err("a number"),
            (Slot::Optional(_), _) => return Err("a number or null"),
            (Slot::Flag(_), _) => return Err("true or false"),
            (Slot::Reduction(_), _) => return Err("\"mean\" or \"sum\""),
        }
        Ok(())
    }
}

fn widen(scale: &mut LogitScaleConfig, temperature: f64, factor: f64) {
    scale.temperature = temperature;
    scale.min = scale.min.min(factor);
    scale.max = scale.max.max(factor);
}
