//! JSON of an objective by name: its name and its parameters, side by side.

use std::collections::HashSet;
use std::fmt::{self, Display};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::catalogue::AnyConfig;
use super::config::{ObjectiveConfig, hint};
use crate::check::shortened;
use crate::objective::entry::Value;
use crate::schedule::{Schedule, Settings};

impl Serialize for ObjectiveConfig {
    /// With every parameter at its value, defaults included.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("objective", self.name())?;
        for parameter in self.clone().parameters() {
            map.serialize_entry(parameter.name, &parameter.get())?;
        }
        if let AnyConfig::WeightedSum(sum) = &self.kind {
            map.serialize_entry("terms", &sum.terms)?;
        }
        map.serialize_entry("weight", &self.weight)?;
        if let Some(schedules) = &self.schedules {
            map.serialize_entry("schedule", schedules)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ObjectiveConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectiveVisitor)
    }
}

struct ObjectiveVisitor;

impl<'de> Visitor<'de> for ObjectiveVisitor {
    type Value = ObjectiveConfig;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an objective, such as {\"objective\": \"info-nce\", \"temperature\": 0.07}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ObjectiveConfig, A::Error> {
        // Parameters may stand before the name of the objective they belong to.
        let (mut name, mut terms) = (None::<String>, None::<Terms>);
        let mut schedules = None::<Settings<Schedule>>;
        let mut values = Vec::<(String, Value)>::new();
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let shown = shortened(&key);
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom(format!("`{shown}` is given twice")));
            }
            let named = |error| of(&format!("`{shown}`: "), error);
            match key.as_str() {
                "objective" => name = Some(map.next_value().map_err(named)?),
                "terms" => terms = Some(map.next_value()?),
                "schedule" => schedules = Some(map.next_value().map_err(named)?),
                _ => values.push((key, map.next_value().map_err(named)?)),
            }
        }
        let Some(name) = name else {
            let keys: Vec<_> = values.iter().map(|(key, _)| key.as_str()).collect();
            let nearest = keys
                .iter()
                .find(|key| hint(key, &["objective"]).contains("did you mean"))
                .map_or(String::new(), |key| format!("; `{key}` is not known"));
            return Err(A::Error::custom(format!(
                "`objective` is missing, the name of one{nearest}; there are {}",
                AnyConfig::names().join(", ")
            )));
        };
        let mut config = ObjectiveConfig::named(&name).map_err(A::Error::custom)?;
        match (&mut config.kind, terms) {
            (AnyConfig::WeightedSum(sum), Some(Terms(terms))) => sum.terms = terms,
            (AnyConfig::WeightedSum(_), None) => {
                return Err(A::Error::custom(
                    "`sum` needs `terms`, a list of objectives",
                ));
            }
            (_, Some(_)) => {
                return Err(A::Error::custom(format!(
                    "`{name}` has no parameter `terms`; `sum` has"
                )));
            }
            (_, None) => {}
        }
        for (key, value) in values {
            config.set(&key, value).map_err(A::Error::custom)?;
        }
        config.schedules = schedules;
        Ok(config)
    }
}

/// The terms of a sum; an error says which it is of.
struct Terms(Vec<ObjectiveConfig>);

impl<'de> Deserialize<'de> for Terms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TermsVisitor;

        impl<'de> Visitor<'de> for TermsVisitor {
            type Value = Terms;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of objectives for `terms`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Terms, A::Error> {
                let mut terms = Vec::new();
                loop {
                    let place = format!("`terms[{}]`: ", terms.len());
                    match list.next_element().map_err(|error| of(&place, error))? {
                        Some(term) => terms.push(term),
                        None => return Ok(Terms(terms)),
                    }
                }
            }
        }

        deserializer.deserialize_seq(TermsVisitor)
    }
}

/// The error with the place that it is of; without its middle, where what it quotes is long.
fn of<E: Error>(place: &str, error: impl Display) -> E {
    const ENDS: usize = 200;
    let error: Vec<char> = error.to_string().chars().collect();
    let text = |part: &[char]| part.iter().collect::<String>();
    let message = if error.len() > 2 * ENDS {
        let (start, end) = (&error[..ENDS], &error[error.len() - ENDS..]);
        format!("{}…{}", text(start), text(end))
    } else {
        text(&error)
    };
    E::custom(place.to_string() + &message)
}
