//! What may change when a run is resumed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::report::Change;

/// Settings, or groups of them, that a resumed run may change: its length, the learning rate, when
/// to validate and to save, and sharding, which changes the rounding and, with dropout, what is
/// drawn. Where the data lie may change too, for they are compared themselves.
const MAY_CHANGE: [&str; 8] = [
    "schedule",
    "optimizer.learning_rate",
    "optimizer.max_grad_norm",
    "validation",
    "checkpoints",
    "sharding",
    "data.path",
    "data.skip_bad",
];

/// Which run a checkpoint belongs to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// Its settings.
    pub config: Value,
    /// Equal for equal data.
    pub data: String,
}

impl Origin {
    /// The settings that `config` changes after `step` steps.
    ///
    /// # Errors
    ///
    /// Names the first that may not change.
    pub fn changes(&self, config: &Value, step: usize) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for (setting, from, to) in differences(&self.config, config) {
            ensure!(
                may_change(&setting),
                "the run was trained with {setting} = {from}, it cannot go on with {to}: only {} \
                 may change when a run is resumed",
                MAY_CHANGE.join(", ")
            );
            changes.push(Change {
                step,
                setting,
                from,
                to,
            });
        }
        Ok(changes)
    }
}

fn may_change(setting: &str) -> bool {
    MAY_CHANGE.iter().any(|key| {
        let rest = setting.strip_prefix(key);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// The settings that differ, by their dotted keys, with both values; null where there is none.
pub(super) fn differences(a: &Value, b: &Value) -> Vec<(String, Value, Value)> {
    let [mut from, mut to] = [BTreeMap::new(), BTreeMap::new()];
    settings("", a, &mut from);
    settings("", b, &mut to);
    let keys: BTreeSet<_> = from.keys().chain(to.keys()).cloned().collect();
    let both = keys.into_iter().map(|key| {
        let [from, to] = [&mut from, &mut to].map(|settings| settings.remove(&key));
        (key, from.unwrap_or_default(), to.unwrap_or_default())
    });
    both.filter(|(_, from, to)| from != to).collect()
}

/// Every setting in `value` by its dotted key.
fn settings(key: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
    let Value::Object(group) = value else {
        found.insert(key.to_string(), value.clone());
        return;
    };
    for (name, value) in group {
        let key = if key.is_empty() {
            name.clone()
        } else {
            format!("{key}.{name}")
        };
        settings(&key, value, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::clip::ClipConfig;
    use crate::training::config::TrainingConfig;
    use serde_json::json;

    fn config(pairs: &[&str]) -> Value {
        let pairs: Vec<_> = pairs.iter().map(ToString::to_string).collect();
        let config = TrainingConfig::<ClipConfig>::load(None, &pairs).unwrap();
        config.to_value().unwrap()
    }

    fn changes(pairs: &[&str]) -> Result<Vec<Change>> {
        let origin = Origin {
            config: config(&[]),
            data: String::new(),
        };
        origin.changes(&config(pairs), 8)
    }

    #[test]
    fn length_rate_and_sharding_may_change_and_are_noted() {
        assert_eq!(changes(&[]).unwrap(), []);
        let noted = changes(&[
            "schedule.steps=900",
            "optimizer.max_grad_norm=null",
            "optimizer.learning_rate=1e-4",
            "sharding.mode=recompute",
            "sharding.pairs=16",
        ]);
        let change = |setting: &str, from, to| Change {
            step: 8,
            setting: setting.to_string(),
            from,
            to,
        };
        assert_eq!(
            noted.unwrap(),
            [
                change("optimizer.learning_rate", json!(1e-3), json!(1e-4)),
                change("optimizer.max_grad_norm", json!(1.0), json!(null)),
                change("schedule.steps", json!(300), json!(900)),
                change("sharding.mode", json!("auto"), json!("recompute")),
                change("sharding.pairs", json!(null), json!(16)),
            ]
        );
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for (pair, expected) in [
            ("model.embedding=128", "model.embedding = 64"),
            ("seed=1", "with seed = 0, it cannot go on with 1"),
            ("data.batch_size=16", "data.batch_size = 128"),
            ("data.scenes.seed=5", "data.scenes.seed = 0"),
            ("accumulation=2", "accumulation = 1"),
            ("optimizer.beta_2=0.9", "optimizer.beta_2"),
            ("objective=siglip", "objective."),
        ] {
            let error = changes(&[pair]).unwrap_err().to_string();
            assert!(error.contains(expected), "{pair}: {error}");
            assert!(error.contains("only schedule, "), "{error}");
        }
    }
}
