//! The parameters of objectives by name: read and written as plain values, kept in the objectives'
//! own configs.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

use crate::check::{self, ConfigError};
use crate::objective::contrastive::{Directions, SameId};
use crate::objective::reduction::BatchReduction;
use crate::pairwise::Precision;
use crate::similarity::LogitScaleConfig;
use crate::weighting::{Norm, SimilarityRegulation};

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number.
    Number(f64),
    /// True or false.
    Flag(bool),
    /// One of a few words, such as `"mean"` and `"sum"`.
    Word(String),
    /// `null`: no number, where a parameter may have none.
    None,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Word(word) => f.write_str(word),
            Self::None => f.write_str("none"),
        }
    }
}

impl Value {
    /// The value as a message shows it.
    pub(in crate::objective) fn shown(&self) -> String {
        match self {
            Self::Number(number) => check::number(*number),
            Self::Word(word) => format!("{:?}", check::shortened(word)),
            Self::Flag(_) | Self::None => self.to_string(),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;

        impl Visitor<'_> for AnyValue {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a number, true, false, null or a word")
            }

            fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
                Ok(Value::Number(number))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Number(number as f64))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
                Ok(Value::Number(number as f64))
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
                Ok(Value::Flag(flag))
            }

            fn visit_str<E>(self, word: &str) -> Result<Value, E> {
                Ok(Value::Word(word.to_string()))
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::None)
            }
        }

        deserializer.deserialize_any(AnyValue)
    }
}

/// A parameter of an objective: its name, and where its config keeps it.
#[derive(Debug)]
pub struct Parameter<'a> {
    /// Its name in JSON.
    pub name: &'static str,
    /// The field of the config, as the config's `check` names it.
    field: &'static str,
    slot: Box<dyn Slot + 'a>,
}

impl<'a> Parameter<'a> {
    pub(in crate::objective) fn new(name: &'static str, slot: impl Slot + 'a) -> Self {
        Self::of_field(name, name, slot)
    }

    /// A parameter whose name is not that of its field.
    pub(in crate::objective) fn of_field(
        name: &'static str,
        field: &'static str,
        slot: impl Slot + 'a,
    ) -> Self {
        let slot = Box::new(slot);
        Self { name, field, slot }
    }

    /// The name of the field that keeps it.
    pub(in crate::objective) fn field(&self) -> &'static str {
        self.field
    }

    /// Those of weights by similarity.
    pub(in crate::objective) fn regulation(regulation: &'a mut SimilarityRegulation) -> [Self; 4] {
        [
            Self::new("alpha", &mut regulation.alpha),
            Self::new("weight_temperature", &mut regulation.weight_temperature),
            Self::new("delta", &mut regulation.norm),
            Self::new("differentiable", &mut regulation.differentiable),
        ]
    }

    /// Its value.
    pub fn get(&self) -> Value {
        self.slot.get()
    }

    /// Gives it another value. The range of a logit scale widens as far as a temperature needs;
    /// whether a value is in the objective's range is checked by
    /// [`ObjectiveConfig::check`](crate::objective::ObjectiveConfig::check).
    ///
    /// # Errors
    ///
    /// If the value is of another kind, with what it must be.
    pub fn set(&mut self, value: Value) -> Result<(), String> {
        self.slot.set(value)
    }

    /// Checks the range that it has beside that of its field, in the name of `objective`.
    pub(in crate::objective) fn check(&self, objective: &'static str) -> Result<(), ConfigError> {
        match (self.slot.range(), self.get()) {
            (Some((low, high)), Value::Number(x)) => {
                check::range(objective, self.name, x, low, high)
            }
            _ => Ok(()),
        }
    }
}

/// Where a parameter is kept.
pub(in crate::objective) trait Slot: fmt::Debug {
    fn get(&self) -> Value;

    /// The error says what the value must be.
    fn set(&mut self, value: Value) -> Result<(), String>;

    /// A range that its field does not have.
    fn range(&self) -> Option<(f64, f64)> {
        None
    }
}

impl<T: Slot> Slot for &mut T {
    fn get(&self) -> Value {
        (**self).get()
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        (**self).set(value)
    }

    fn range(&self) -> Option<(f64, f64)> {
        (**self).range()
    }
}

fn number(value: Value) -> Result<f64, String> {
    match value {
        Value::Number(number) => Ok(number),
        _ => Err("a number".into()),
    }
}

fn number_or_none(value: Value) -> Result<Option<f64>, String> {
    match value {
        Value::Number(number) => Ok(Some(number)),
        Value::None => Ok(None),
        _ => Err("a number or null".into()),
    }
}

impl Slot for f64 {
    fn get(&self) -> Value {
        Value::Number(*self)
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        *self = number(value)?;
        Ok(())
    }
}

impl Slot for Option<f64> {
    fn get(&self) -> Value {
        self.map_or(Value::None, Value::Number)
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        *self = number_or_none(value)?;
        Ok(())
    }
}

impl Slot for bool {
    fn get(&self) -> Value {
        Value::Flag(*self)
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        let Value::Flag(flag) = value else {
            return Err("true or false".into());
        };
        *self = flag;
        Ok(())
    }
}

/// δ of the softmax of weights; none where weights are divided by their mean.
impl Slot for Norm {
    fn get(&self) -> Value {
        match self {
            Self::Mean => Value::None,
            Self::Softmax { delta } => Value::Number(*delta),
        }
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        *self = match number_or_none(value)? {
            Some(delta) => Self::Softmax { delta },
            None => Self::Mean,
        };
        Ok(())
    }
}

/// The initial temperature of a logit scale.
#[derive(Debug)]
pub(in crate::objective) struct Temperature<'a>(pub &'a mut LogitScaleConfig);

impl Slot for Temperature<'_> {
    fn get(&self) -> Value {
        Value::Number(self.0.temperature)
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        let temperature = number(value)?;
        widen(self.0, temperature, 1.0 / temperature);
        Ok(())
    }

    fn range(&self) -> Option<(f64, f64)> {
        Some(INVERTIBLE)
    }
}

/// The initial factor of a logit scale, the inverse of its temperature.
#[derive(Debug)]
pub(in crate::objective) struct Scale<'a>(pub &'a mut LogitScaleConfig);

impl Slot for Scale<'_> {
    fn get(&self) -> Value {
        Value::Number(1.0 / self.0.temperature)
    }

    fn set(&mut self, value: Value) -> Result<(), String> {
        let scale = number(value)?;
        widen(self.0, 1.0 / scale, scale);
        Ok(())
    }

    fn range(&self) -> Option<(f64, f64)> {
        Some(INVERTIBLE)
    }
}

/// The numbers that are normal in f32, as their inverses are: temperatures and their scales.
const INVERTIBLE: (f64, f64) = (f32::MIN_POSITIVE as f64, 1.0 / f32::MIN_POSITIVE as f64);

fn widen(config: &mut LogitScaleConfig, temperature: f64, scale: f64) {
    config.temperature = temperature;
    config.min = config.min.min(scale);
    config.max = config.max.max(scale);
}

/// The words for the values of an enum.
macro_rules! words {
    ($type:ty { $($value:ident = $word:literal),+ }) => {
        impl Slot for $type {
            fn get(&self) -> Value {
                let word = match self { $(Self::$value => $word,)+ };
                Value::Word(word.into())
            }

            fn set(&mut self, value: Value) -> Result<(), String> {
                let known = || [$(concat!("\"", $word, "\"")),+].join(" or ");
                let Value::Word(word) = value else {
                    return Err(known());
                };
                *self = match word.as_str() {
                    $($word => Self::$value,)+
                    _ => return Err(known()),
                };
                Ok(())
            }
        }
    };
}

words!(BatchReduction { Mean = "mean", Sum = "sum" });
words!(Directions { Mean = "mean", Sum = "sum" });
words!(Precision { Highest = "highest", High = "high", Medium = "medium" });
words!(SameId { Negative = "negative", LeftOut = "left_out", Positive = "positive" });
