//! The results file: what all runs share, the settings that were chosen, and a line for each run.
//!
//! It is written anew after each run, as a whole or not at all, by one program at a time.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use burn_contrastive::objective::ObjectiveConfig;
use serde::{Deserialize, Serialize};

use super::chance::Chance;
use super::contenders::ALL;
use super::figures::Figures;
use super::probe::Look;
use super::setup::Setup;
use super::trial::{Stage, Trial};
use crate::files;
use crate::lock::Lock;
use crate::number;

/// Everything that is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// What all runs share.
    pub setup: Setup,
    /// That of the [`Material`](super::data::Material) of all runs.
    pub data: String,
    /// The settings that were chosen for each objective by its validation; follows from the runs.
    pub chosen: BTreeMap<String, Choice>,
    /// What a random order of the test images and captions would retrieve.
    #[serde(default)]
    pub chance: Option<Chance>,
    /// What was run, sorted.
    pub runs: Vec<Run>,
}

/// Settings that were chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The objective.
    pub objective: ObjectiveConfig,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// R@sum of the validation images by which it was chosen.
    #[serde(with = "number::or_null")]
    pub validation: f64,
    /// The parameter that was searched.
    #[serde(default)]
    pub parameter: String,
    /// Its values that were tried, ascending, each with all learning rates.
    #[serde(default)]
    pub tried: Vec<f64>,
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// What was run.
    pub trial: Trial,
    /// How it failed, if it did: then nothing was measured.
    pub failure: Option<String>,
    /// R@sum of the validation images.
    #[serde(with = "number::or_null")]
    pub validation: f64,
    /// The figures of the test images, of runs to be compared.
    pub test: Option<Figures>,
    /// The weights of negatives over the training.
    pub looks: Vec<Look>,
    /// The median time of a step.
    #[serde(with = "number::or_null")]
    pub step_seconds: f64,
    /// The most bytes that a step needs beside those that are kept.
    pub step_bytes: Option<u64>,
    /// The time of all of it.
    pub seconds: f64,
    /// Where and when it ran, if that was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

/// Where and when a run was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The processor's model, as the system has it.
    pub processor: String,
    /// Cores that this program may use.
    pub cores: usize,
    /// Programs that worked side by side.
    pub jobs: usize,
    /// When it ended, in seconds since 1970.
    pub ended: u64,
}

impl Made {
    /// Here and now.
    pub fn now(jobs: usize) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            processor: processor().unwrap_or_else(|| "unknown".to_string()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            jobs,
            ended: since.map_or(0, |since| since.as_secs()),
        }
    }
}

/// The model of the first processor, on Linux.
fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, model) = lines.find(|(key, _)| key.trim() == "model name")?;
    Some(model.trim().to_string())
}

impl Results {
    /// No run yet.
    pub fn new(setup: Setup, data: String) -> Self {
        Self {
            setup,
            data,
            chosen: BTreeMap::new(),
            chance: None,
            runs: Vec::new(),
        }
    }

    /// Those of a file; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is no results file.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let name = || path.display().to_string();
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(name)?,
        };
        let mut json = serde_json::Deserializer::from_slice(&text);
        let results: Self = serde_path_to_error::deserialize(&mut json)
            .with_context(|| format!("{} is no results file of compare", path.display()))?;
        json.end().with_context(name)?;
        Ok(Some(results))
    }

    /// Checks that these results are of a setup and of data. Other rates and more seeds are no
    /// other setup.
    ///
    /// # Errors
    ///
    /// If not, saying what differs.
    pub fn check(&self, setup: &Setup, data: &str) -> Result<()> {
        let mut theirs = setup.clone();
        theirs.protocol.rates.clone_from(&self.setup.protocol.rates);
        theirs.protocol.seeds = self.setup.protocol.seeds;
        theirs.protocol.fewer_seeds = self.setup.protocol.fewer_seeds;
        ensure!(
            theirs == self.setup,
            "the results there are of another setup, and runs of two setups are not comparable: \
             choose another --output, or the settings of that file"
        );
        ensure!(
            data == self.data,
            "the results there are of other data: other images, captions, splits or tokens"
        );
        Ok(())
    }

    /// The run of a trial, if it ended.
    pub fn run(&self, trial: &Trial) -> Option<&Run> {
        self.runs.iter().find(|run| run.trial == *trial)
    }

    /// Adds a run, and chooses settings where all of an objective's were searched.
    pub fn add(&mut self, run: Run) {
        self.runs.retain(|other| other.trial != run.trial);
        self.runs.push(run);
        self.runs.sort_by(|a, b| {
            order(&a.trial)
                .partial_cmp(&order(&b.trial))
                .expect("no NaN")
        });
        self.choose();
    }

    /// Chooses the settings of each objective that is searched.
    pub fn choose(&mut self) {
        let choices = ALL
            .iter()
            .filter_map(|contender| Some((contender.name.to_string(), contender.choice(self)?)));
        self.chosen = choices.collect();
    }

    /// The file's content: a line for each run.
    fn to_json(&self) -> Result<String> {
        let mut shared = serde_json::to_value(self)?;
        shared["runs"] = serde_json::json!([]);
        let runs = self.runs.iter().map(serde_json::to_string);
        let runs = runs
            .collect::<serde_json::Result<Vec<_>>>()?
            .join(",\n    ");
        let text = serde_json::to_string_pretty(&shared)?;
        Ok(text.replacen("\"runs\": []", &format!("\"runs\": [\n    {runs}\n  ]"), 1) + "\n")
    }

    /// Writes the file, all of it or nothing.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write(path, self.to_json()?.as_bytes())
    }
}

/// What runs are sorted by.
fn order(trial: &Trial) -> (u8, usize, f64, u64, f64, String) {
    let place = ALL
        .iter()
        .position(|contender| contender.name == trial.contender);
    (
        trial.stage as u8,
        place.unwrap_or(ALL.len()),
        trial.rate,
        trial.seed,
        trial.learning_rate,
        serde_json::to_string(&trial.objective).unwrap_or_default(),
    )
}

/// The folder of a comparison: the results file, and what programs that work on it side by side
/// tell each other.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// A trial that no other program runs meanwhile; held until it is dropped, or the program ends.
pub struct Claim {
    lock: Option<Lock>,
    path: PathBuf,
}

impl Drop for Claim {
    fn drop(&mut self) {
        drop(self.lock.take());
        // Who claims it in this moment holds a file without a name: the run is in the results by
        // then, and is looked for there under the lock.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// That of a folder, which is made if there is none.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("claims"))
            .with_context(|| format!("{} could not be made", folder.display()))?;
        Ok(Self {
            folder: folder.to_path_buf(),
        })
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The results file.
    pub fn file(&self) -> PathBuf {
        self.path("results.json")
    }

    /// Changes the results, while no other program does. `change` says whether to write them.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written, is of another setup or other data, and as `change`.
    pub fn with<T>(
        &self,
        setup: &Setup,
        data: &str,
        change: impl FnOnce(&mut Results) -> Result<(T, bool)>,
    ) -> Result<T> {
        let _lock = Lock::wait(&self.path("results.lock"))?;
        let mut results = match Results::read(&self.file())? {
            Some(results) => {
                let name = || self.file().display().to_string();
                results.check(setup, data).with_context(name)?;
                results
            }
            None => Results::new(setup.clone(), data.to_string()),
        };
        let before = (results.setup.clone(), results.chosen.clone());
        results.setup = setup.clone();
        results.choose();
        let is_new = (&results.setup, &results.chosen) != (&before.0, &before.1);
        let (answer, is_changed) = change(&mut results)?;
        if is_changed || is_new {
            results.write(&self.file())?;
        }
        Ok(answer)
    }

    /// Takes a trial, unless another program runs it.
    ///
    /// # Errors
    ///
    /// If the lock cannot be made.
    pub fn claim(&self, trial: &Trial) -> Result<Option<Claim>> {
        let name = files::sha256(&mut serde_json::to_string(trial)?.as_bytes())?;
        Self::taken(self.path("claims").join(&name[..16]))
    }

    /// Removes the claims of programs that ended before they could. While the results change, for
    /// then no program takes a trial.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read, or a lock not be made.
    pub fn remove_ended_claims(&self) -> Result<()> {
        let folder = self.path("claims");
        let name = || folder.display().to_string();
        for file in fs::read_dir(&folder).with_context(name)? {
            drop(Self::taken(file.with_context(name)?.path())?);
        }
        Ok(())
    }

    fn taken(path: PathBuf) -> Result<Option<Claim>> {
        let lock = Lock::now(&path)?;
        Ok(lock.map(|lock| Claim {
            lock: Some(lock),
            path,
        }))
    }
}

impl Stage {
    /// Whether its runs are measured on the test images.
    pub fn is_tested(self) -> bool {
        self == Self::Compare
    }
}
