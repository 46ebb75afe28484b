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
    /// The values that are tried first, decided before any was tried.
    values: [f64; 3],
    /// Whether it is one of the nine with more seeds: those that do something about false
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
pub const ALL: [Contender; 19] = [
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
        r#"{"objective": "srcl", "weight_temperature": 0.3}"#,
        "temperature",
        WIDE,
    )),
    central(contender(
        "srcl-searched",
        r#"{"objective": "srcl"}"#,
        "weight_temperature",
        [0.15, 0.3, 0.6],
    )),
    central(contender(
        "false-negative-removal",
        r#"{"objective": "false-negative-removal", "weight_temperature": 0.3}"#,
        "threshold",
        [0.1, 0.2, 0.3],
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

    /// The values that are tried first, the least and the greatest at the ends.
    pub fn values(&self) -> [f64; 3] {
        self.values
    }

    /// One value beyond the first or the last of its values, if `value` is that: by the ratio of
    /// that end to its neighbour, rounded to two digits and kept within bounds. `None` for any
    /// other value, and where the end is the bound.
    pub fn beyond(&self, value: f64) -> Option<f64> {
        let [first, middle, last] = self.values;
        let neighbour = (value == first || value == last).then_some(middle)?;
        let [least, greatest] = match self.parameter {
            "temperature" => [0.01, 0.5],
            "momentum_alpha" => [0.0, 1.0],
            _ => [f64::MIN, f64::MAX],
        };
        let rounded = format!("{:.1e}", value * value / neighbour);
        let beyond = rounded.parse::<f64>().ok()?.clamp(least, greatest);
        (beyond != value).then_some(beyond)
    }

    /// Its objective with a value of its parameter.
    pub fn with(&self, value: f64) -> ObjectiveConfig {
        let mut settings = self.fixed();
        settings[self.parameter] = json!(value);
        if let Some(ramp) = settings.pointer_mut("/schedule/soft_targets/to") {
            *ramp = json!(value);
        }
        serde_json::from_value(settings).expect("a constant")
    }

    /// Its settings that are not searched and not at their defaults, with its name.
    pub fn fixed(&self) -> Value {
        serde_json::from_str(self.base).expect("a constant")
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
    use burn_contrastive::objective::{AnyConfig, SrclConfig};

    use super::*;

    #[test]
    fn every_setting_is_in_range_and_differs_from_the_others() {
        for contender in &ALL {
            let ends = [contender.values[0], contender.values[2]];
            let beyond = ends.into_iter().filter_map(|end| contender.beyond(end));
            let values: Vec<f64> = contender.values.into_iter().chain(beyond).collect();
            assert!(contender.values.is_sorted(), "{}", contender.name);
            for (place, &value) in values.iter().enumerate() {
                contender.with(value).check().unwrap();
                assert!(!values[..place].contains(&value), "{}", contender.name);
            }
        }
    }

    #[test]
    fn the_value_beyond_an_end_is_as_far_as_the_end_from_its_neighbour() {
        let beyond = |name, value| Contender::named(name).unwrap().beyond(value);
        assert_eq!(beyond("con-vse", 0.05), Some(0.025));
        assert_eq!(beyond("con-vse", 0.2), Some(0.4));
        assert_eq!(beyond("con-vse", 0.1), None);
        assert_eq!(beyond("false-negative-removal", 0.1), Some(0.05));
        // 0.03²/0.07 and 0.2²/0.07, which is above the bound.
        assert_eq!(beyond("srcl", 0.03), Some(0.013));
        assert_eq!(beyond("srcl", 0.2), Some(0.5));
        assert_eq!(beyond("siglip", -10.0), Some(-20.0));
        assert_eq!(beyond("image-text-contrastive", 0.6), Some(0.9));
    }

    #[test]
    fn the_calibrated_one_is_that_of_the_library() {
        let calibrated = Contender::named("srcl-calibrated").unwrap();
        let library = AnyConfig::Srcl(SrclConfig::calibrated());
        assert_eq!(calibrated.with(0.07), library.into());
    }

    #[test]
    fn nine_are_central_and_names_are_unique() {
        assert_eq!(ALL.iter().filter(|one| one.is_central).count(), 9);
        for (place, one) in ALL.iter().enumerate() {
            assert!(ALL[..place].iter().all(|other| other.name != one.name));
            assert_eq!(Contender::named(one.name).unwrap().name, one.name);
        }
        assert!(Contender::named(BASELINE).is_some() && Contender::named(ORACLE).is_some());
    }
}
