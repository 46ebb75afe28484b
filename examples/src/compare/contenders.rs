//! The objectives that are compared, and what is searched of each.

use burn_contrastive::objective::ObjectiveConfig;
use serde_json::{Value, json};

use super::setup::Protocol;

/// An objective that takes part.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// What it is called.
    pub name: &'static str,
    /// Its settings, as JSON.
    base: &'static str,
    /// The parameter that is searched.
    parameter: &'static str,
    /// Its values.
    values: [f64; 3],
    /// Whether it is one of the eight with more seeds: those that do something about false
    /// negatives, what they are compared with, and the most used alternative.
    pub is_central: bool,
}

const fn contender(
    name: &'static str,
    base: &'static str,
    parameter: &'static str,
    values: [f64; 3],
) -> Contender {
    Contender {
        name,
        base,
        parameter,
        values,
        is_central: false,
    }
}

const fn central(of: Contender) -> Contender {
    Contender {
        is_central: true,
        ..of
    }
}

/// The name of the objective that all others are compared with.
pub const BASELINE: &str = "info-nce";

/// The name of the objective that is told which pairs mean the same.
pub const ORACLE: &str = "multi-positive";

const WIDE: [f64; 3] = [0.03, 0.07, 0.2];
const NARROW: [f64; 3] = [0.05, 0.1, 0.2];
const MARGINS: [f64; 3] = [0.1, 0.2, 0.4];
const LAMBDAS: [f64; 3] = [0.05, 0.2, 0.6];

/// All that take part, the central ones first.
pub const ALL: [Contender; 18] = [
    central(contender(
        "info-nce",
        r#"{"objective": "info-nce"}"#,
        "temperature",
        WIDE,
    )),
    central(contender(
        "srcl",
        r#"{"objective": "srcl"}"#,
        "temperature",
        WIDE,
    )),
    central(contender(
        "srcl-calibrated",
        r#"{"objective": "srcl"}"#,
        "weight_temperature",
        [0.2, 0.4, 0.7],
    )),
    central(contender(
        "false-negative-removal",
        r#"{"objective": "false-negative-removal", "weight_temperature": 0.3}"#,
        "threshold",
        [0.02, 0.05, 0.1],
    )),
    central(contender(
        "multi-positive",
        r#"{"objective": "multi-positive"}"#,
        "temperature",
        WIDE,
    )),
    central(contender(
        "reco",
        r#"{"objective": "reco"}"#,
        "lambda",
        LAMBDAS,
    )),
    central(contender(
        "image-text-contrastive",
        r#"{"objective": "image-text-contrastive",
            "schedule": {"soft_targets": {"from": 0, "to": 1, "end": 0.1}}}"#,
        "momentum_alpha",
        [0.2, 0.4, 0.6],
    )),
    central(contender(
        "siglip",
        r#"{"objective": "siglip"}"#,
        "bias",
        [-10.0, -5.0, -2.0],
    )),
    contender(
        "con-vse",
        r#"{"objective": "con-vse"}"#,
        "temperature",
        NARROW,
    ),
    contender("dcl", r#"{"objective": "dcl"}"#, "temperature", NARROW),
    contender("vse", r#"{"objective": "vse"}"#, "margin", MARGINS),
    contender(
        "vse-plus-plus",
        r#"{"objective": "vse-plus-plus"}"#,
        "margin",
        MARGINS,
    ),
    contender(
        "con-vse-plus-plus",
        r#"{"objective": "con-vse-plus-plus"}"#,
        "margin",
        MARGINS,
    ),
    contender(
        "orthogonality",
        r#"{"objective": "orthogonality"}"#,
        "lambda",
        LAMBDAS,
    ),
    contender("mvn", r#"{"objective": "mvn"}"#, "temperature", NARROW),
    contender(
        "nt-xent",
        r#"{"objective": "nt-xent"}"#,
        "temperature",
        NARROW,
    ),
    contender(
        "barlow-twins",
        r#"{"objective": "barlow-twins", "center": true}"#,
        "lambda",
        [0.005, 0.02, 0.1],
    ),
    contender(
        "info-cmr",
        r#"{"objective": "info-cmr"}"#,
        "temperature",
        [0.03, 0.05, 0.1],
    ),
];

impl Contender {
    /// That of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|contender| contender.name == name)
    }

    /// The parameter that is searched.
    pub fn parameter(&self) -> &'static str {
        self.parameter
    }

    /// The values that it is searched among, the least and the greatest at the ends.
    pub fn values(&self) -> [f64; 3] {
        self.values
    }

    /// Its settings to choose from: the values of its parameter, with each learning rate.
    pub fn settings(&self, protocol: &Protocol) -> Vec<(ObjectiveConfig, f64)> {
        let objectives = self.values.iter().map(|&value| self.with(value));
        let rates = &protocol.learning_rates;
        objectives
            .flat_map(|objective| rates.iter().map(move |&rate| (objective.clone(), rate)))
            .collect()
    }

    fn with(&self, value: f64) -> ObjectiveConfig {
        let mut settings: Value = serde_json::from_str(self.base).expect("a constant");
        settings[self.parameter] = json!(value);
        if let Some(ramp) = settings.pointer_mut("/schedule/soft_targets/to") {
            *ramp = json!(value);
        }
        serde_json::from_value(settings).expect("a constant")
    }

    /// How many seeds it is trained with.
    pub fn seeds(&self, protocol: &Protocol) -> usize {
        if self.is_central {
            protocol.seeds
        } else {
            protocol.fewer_seeds
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_in_range_and_differs_from_the_others() {
        let protocol = Protocol::default();
        for contender in &ALL {
            let settings = contender.settings(&protocol);
            assert_eq!(settings.len(), 6, "{}", contender.name);
            for (place, setting) in settings.iter().enumerate() {
                setting.0.check().unwrap();
                assert!(!settings[..place].contains(setting), "{}", contender.name);
            }
        }
    }

    #[test]
    fn eight_are_central_and_names_are_unique() {
        assert_eq!(ALL.iter().filter(|one| one.is_central).count(), 8);
        for (place, one) in ALL.iter().enumerate() {
            assert!(ALL[..place].iter().all(|other| other.name != one.name));
            assert_eq!(Contender::named(one.name).unwrap().name, one.name);
        }
        assert!(Contender::named(BASELINE).is_some() && Contender::named(ORACLE).is_some());
    }
}
