//! What a comparison varies: values of settings, and seeds. It is kept in the folder of the
//! comparison, so that whoever resumes it need not say it again.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Error, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::comparison::{Comparison, Variant};
use super::config::TrainingConfig;
use super::system::SystemConfig;
use crate::files;

/// The file in the folder of a comparison, which a run has none of.
pub(super) const PLAN_FILE: &str = "comparison.json";

/// How reading fails where there is no file, or no folder.
const MISSING: [ErrorKind; 2] = [ErrorKind::NotFound, ErrorKind::NotADirectory];

/// What a comparison varies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The words of the subcommand that compares.
    pub command: Vec<String>,
    /// Settings with their values; every combination is a run.
    pub grid: Vec<Axis>,
    /// How often each is trained.
    pub seeds: usize,
}

/// A setting with the values that it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// The setting.
    pub key: String,
    /// At least one, each as in `--set key=value`.
    pub values: Vec<String>,
}

impl FromStr for Axis {
    type Err = Error;

    /// Reads `key=value,value`; a comma within brackets, braces or quotes divides nothing.
    fn from_str(text: &str) -> Result<Self> {
        let example = "expected key=value,value, such as objective.temperature=0.05,0.1";
        let (key, list) = text.split_once('=').context(example)?;
        let (key, values) = (key.trim().to_string(), split(list));
        ensure!(
            !key.is_empty() && values.iter().all(|value| !value.is_empty()),
            example
        );
        for (place, value) in values.iter().enumerate() {
            ensure!(!values[..place].contains(value), "{value} is there twice");
        }
        Ok(Self { key, values })
    }
}

/// The parts between commas that are in no brackets and no quotes.
fn split(list: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut escaped) = (0_i32, false, false);
    let parts = list.split(|letter: char| {
        let was_escaped = std::mem::take(&mut escaped);
        match letter {
            '\\' => escaped = quoted && !was_escaped,
            '"' if !was_escaped => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            ',' => return depth == 0 && !quoted,
            _ => {}
        }
        false
    });
    parts.map(|part| part.trim().to_string()).collect()
}

impl Plan {
    /// Each combination of these values once.
    pub fn once(command: &[&str], grid: Vec<Axis>) -> Self {
        Self {
            command: command.iter().map(ToString::to_string).collect(),
            grid,
            seeds: 1,
        }
    }

    /// Saves it in the folder of a comparison.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        files::write(&folder.join(PLAN_FILE), &text)
    }

    /// That of the comparison in a folder; `None` where it is none.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let file = folder.join(PLAN_FILE);
        let name = || file.display().to_string();
        let text = match fs::read(&file) {
            Err(error) if MISSING.contains(&error.kind()) => return Ok(None),
            text => text.with_context(name)?,
        };
        serde_json::from_slice(&text).with_context(name).map(Some)
    }

    /// One run for each combination of the values, over `config`; `config` itself without any.
    ///
    /// # Errors
    ///
    /// If a setting is unknown, or a value is out of its range.
    pub fn comparison<C: SystemConfig>(&self, config: &TrainingConfig<C>) -> Result<Comparison<C>> {
        let mut combinations: Vec<Vec<(&str, &str)>> = vec![Vec::new()];
        for axis in &self.grid {
            let with_each = |combination: Vec<_>| {
                let values = axis.values.iter();
                let pairs = values.map(|value| (axis.key.as_str(), value.as_str()));
                let with = move |pair| [&combination[..], &[pair]].concat();
                pairs.map(with)
            };
            combinations = combinations.into_iter().flat_map(with_each).collect();
        }
        let mut variants: Vec<Variant<C>> = Vec::new();
        for combination in combinations {
            let variant = variant(config, &combination)?;
            ensure!(
                variants.iter().all(|other| other.folder != variant.folder),
                "--grid: two runs would have the folder {}",
                variant.folder
            );
            variants.push(variant);
        }
        let keys: Vec<_> = self.grid.iter().map(|axis| axis.key.as_str()).collect();
        let parameter = keys.join(", ");
        let runs: Vec<_> = variants.iter().map(|variant| &variant.config).collect();
        let share = C::share(config, &runs);
        Ok(Comparison {
            title: match keys.len() {
                0 => format!("{} seeds", self.seeds),
                _ => format!("By {parameter}"),
            },
            parameter: match keys.len() {
                0 => "settings".to_string(),
                _ => parameter,
            },
            config: config.clone(),
            variants,
            baseline: None,
            share,
        })
    }
}

fn variant<C: SystemConfig>(
    config: &TrainingConfig<C>,
    combination: &[(&str, &str)],
) -> Result<Variant<C>> {
    let pairs = combination.iter();
    let pairs: Vec<_> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
    let names = combination.iter().map(|(key, value)| {
        let (_, last) = key.rsplit_once('.').unwrap_or(("", key));
        plain(&format!("{last}-{value}"))
    });
    let [folder, value] = if combination.is_empty() {
        ["run", "as configured"].map(String::from)
    } else {
        let values: Vec<_> = combination.iter().map(|(_, value)| *value).collect();
        [names.collect::<Vec<_>>().join("-"), values.join(", ")]
    };
    Ok(Variant {
        folder,
        number: value.parse().ok(),
        value,
        config: config
            .with(None, &pairs)
            .map_err(|error| anyhow!("--grid: {}", error.root_cause()))?,
    })
}

/// Text as part of a file's name.
fn plain(text: &str) -> String {
    let plain = |letter: char| {
        let is_plain = letter.is_ascii_alphanumeric() || "-_.+".contains(letter);
        if is_plain { letter } else { '_' }
    };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::clip::ClipConfig;

    fn axis(text: &str) -> Axis {
        text.parse().unwrap()
    }

    fn plan(grid: &[&str]) -> Plan {
        Plan::once(&[], grid.iter().map(|text| axis(text)).collect())
    }

    #[test]
    fn values_are_divided_by_commas_outside_of_brackets_and_quotes() {
        assert_eq!(axis("a.b=1, 2,3").values, ["1", "2", "3"]);
        let boxes = axis("data.crop_scale=[0.2,1],[0.5,1]");
        assert_eq!(boxes.values, ["[0.2,1]", "[0.5,1]"]);
        let quoted = axis(r#"a="x,\"y","z""#);
        assert_eq!(quoted.values, [r#""x,\"y""#, r#""z""#]);
        assert_eq!(axis(r#"a={"b":[1,2]},null"#).values.len(), 2);
    }

    #[test]
    fn what_is_no_list_of_values_is_refused() {
        for text in ["", "a", "=1", "a=", "a=1,", "a=,1"] {
            let error = text.parse::<Axis>().unwrap_err().to_string();
            assert!(error.contains("key=value,value"), "{text}: {error}");
        }
        let error = "a=1,2,1".parse::<Axis>().unwrap_err().to_string();
        assert!(error.contains("1 is there twice"), "{error}");
    }

    #[test]
    fn every_combination_is_a_run_with_a_folder_of_its_own() {
        let config = TrainingConfig::<ClipConfig>::default();
        let plan = plan(&["model.embedding=16,32", "objective=con-vse,siglip"]);
        let comparison = plan.comparison(&config).unwrap();
        let folders = comparison.variants.iter().map(|variant| &variant.folder);
        let expected = ["16-con-vse", "16-siglip", "32-con-vse", "32-siglip"];
        let expected = expected.map(|name| {
            let (embedding, objective) = name.split_once('-').unwrap();
            format!("embedding-{embedding}-objective-{objective}")
        });
        assert_eq!(folders.cloned().collect::<Vec<_>>(), expected);
        assert_eq!(comparison.variants[2].config.system.model.embedding, 32);
        assert_eq!(comparison.variants[2].value, "32, con-vse");
        assert_eq!(comparison.variants[2].number, None);
        assert_eq!(comparison.parameter, "model.embedding, objective");
    }

    #[test]
    fn without_a_grid_there_is_one_run_and_one_numeric_setting_is_an_axis() {
        let config = TrainingConfig::<ClipConfig>::default();
        let alone = plan(&[]).comparison(&config).unwrap();
        assert_eq!(alone.variants.len(), 1);
        assert_eq!(alone.variants[0].config, config);
        let numeric = plan(&["model.embedding=16"]).comparison(&config).unwrap();
        assert_eq!(numeric.variants[0].number, Some(16.0));
    }

    #[test]
    fn unknown_settings_bad_values_and_equal_folders_are_refused() {
        let config = TrainingConfig::<ClipConfig>::default();
        for (grid, expected) in [
            ("schedule.stepz=1", "did you mean schedule.steps?"),
            ("model.embedding=8,0", "embedding"),
            (
                "data.path=\"a/b\",\"a_b\"",
                "two runs would have the folder path-_a_b_",
            ),
        ] {
            let error = plan(&[grid]).comparison(&config).map(|_| ()).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_folder_of_a_comparison_keeps_the_plan() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Plan::read(folder.path()).unwrap(), None);
        let plan = plan(&["model.embedding=16,32"]);
        plan.write(folder.path()).unwrap();
        assert_eq!(Plan::read(folder.path()).unwrap(), Some(plan));
        fs::write(folder.path().join(PLAN_FILE), "{").unwrap();
        let error = Plan::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(PLAN_FILE), "{error}");
    }
}
