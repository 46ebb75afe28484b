//! Which objectives to evaluate: those of a file, or all that the embeddings have inputs for.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use burn_contrastive::objective::{AnyConfig, Features, ObjectiveConfig};
use serde_json::Value;

use super::measure::Named;
use crate::unique::check_keys;
use crate::words::{brief, shown};

/// The longest list that is read, in bytes.
const LONGEST_LIST: u64 = 10_000_000;

/// The objectives of a JSON file: a list of objects as [`ObjectiveConfig`] reads them, each with a
/// `"name"` that its results go by, the objective's own unless said.
///
/// # Errors
///
/// If the file cannot be read or is longer than 10 MB, on malformed JSON, unknown objectives and
/// parameters (with the nearest known ones), and on names that are empty or used twice.
pub fn read(path: &Path) -> Result<Vec<Named>> {
    let file = || path.display().to_string();
    let mut text = String::new();
    let read = File::open(path).map(|file| file.take(LONGEST_LIST + 1));
    read.and_then(|mut file| file.read_to_string(&mut text))
        .with_context(file)?;
    ensure!(
        text.len() as u64 <= LONGEST_LIST,
        "{} is longer than a list of objectives can be, 10 MB",
        file()
    );
    parse(&text).with_context(file)
}

fn parse(text: &str) -> Result<Vec<Named>> {
    // Some editors begin a file with a byte-order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    ensure!(!text.trim().is_empty(), "it is empty");
    let list: Value = serde_json::from_str(text).context("this is not valid JSON")?;
    check_keys(text.as_bytes())?;
    let Value::Array(list) = list else {
        bail!(
            "expected a list of objectives, \
             such as [{{\"name\": \"a\", \"objective\": \"info-nce\"}}]"
        );
    };
    ensure!(!list.is_empty(), "the list of objectives is empty");
    let mut objectives = Vec::new();
    let mut names = HashSet::new();
    for (index, mut entry) in list.into_iter().enumerate() {
        let place = || format!("objective {} of the list", index + 1);
        let name = entry.as_object_mut().and_then(|entry| entry.remove("name"));
        let name = match name {
            None => None,
            Some(Value::String(name)) if !name.trim().is_empty() => Some(name),
            Some(other) => bail!("{}: `name` is {}, it must be a word", place(), brief(other)),
        };
        let place = || match &name {
            Some(name) => format!("objective `{}`", shown(name)),
            None => place(),
        };
        let config = serde_json::from_value::<ObjectiveConfig>(entry)
            .map_err(|error| anyhow!("{}: {}", place(), brief(error)))?;
        let name = name.unwrap_or_else(|| config.name().to_string());
        ensure!(
            names.insert(name.clone()),
            "the name `{}` is used twice: give each objective a `name` of its own",
            shown(&name)
        );
        objectives.push(Named { name, config });
    }
    Ok(objectives)
}

/// Every objective whose inputs are there, at its defaults.
pub fn all_possible(features: &Features) -> Vec<Named> {
    let possible = |name: &&str| {
        let config = ObjectiveConfig::named(name).expect("a name of the list");
        (config.check_features(features).is_ok() && *name != "sum").then(|| Named {
            name: name.to_string(),
            config,
        })
    };
    AnyConfig::names().iter().filter_map(possible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn each_objective_has_a_name_and_its_parameters() {
        let list = parse(
            r#"[{"name": "a", "objective": "info-nce", "temperature": 0.05},
                {"objective": "vse"}]"#,
        )
        .unwrap();
        assert_eq!(list[0].name, "a");
        assert_eq!(list[1].name, "vse");
        let AnyConfig::InfoNce(config) = &list[0].config.kind else {
            panic!("{:?}", list[0]);
        };
        assert_eq!(config.logit_scale.temperature, 0.05);
    }

    #[test]
    fn errors_name_the_entry_and_the_fault() {
        for (text, expected) in [
            ("[1", "this is not valid JSON"),
            (" \n", "it is empty"),
            (
                r#"[{"objective": "vse", "margin": 1, "margin": 2}]"#,
                "`margin` is given twice",
            ),
            ("{}", "expected a list of objectives"),
            ("[]", "the list of objectives is empty"),
            (
                "[3]",
                "objective 1 of the list: invalid type: integer `3`, expected an objective",
            ),
            (r#"[{"name": 3, "objective": "vse"}]"#, "`name` is 3"),
            (
                r#"[{"objective": "vse"}, {"objective": "vse"}]"#,
                "the name `vse` is used twice",
            ),
            (
                r#"[{"name": "x", "objective": "infonce"}]"#,
                "objective `x`: there is no objective `infonce`; did you mean `info-nce`?",
            ),
            (
                r#"[{"name": "x", "objective": "vse", "margn": 1}]"#,
                "objective `x`: `vse` has no parameter `margn`; did you mean `margin`?",
            ),
            (
                r#"[{"objective": "vse", "margin": true}]"#,
                "objective 1 of the list: `margin` of `vse` is true, it must be a number",
            ),
        ] {
            let message = message(text);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
