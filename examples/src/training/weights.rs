//! Weights of an earlier run, or published ones, as the start of a run: `--init RUN[:PATH]`,
//! `--init FILE[:PATH]`.
//!
//! Parameters go by their paths in the model. One that has no counterpart is refused by name unless
//! it is asked for: a tower that silently keeps its random start costs more than any error.

mod load;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, ensure};
use burn::store::burn_pack::Tensor as StoredTensor;
use burn::store::{BurnpackStore, ModuleStore, bridge};
use burn::tensor::{DType, Device, Shape, TensorData};
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, Checkpoints, MODEL};
use super::config::TrainingConfig;
use super::folder::TOKENIZER_FILE;
use super::run::CONFIG_FILE;
use super::system::{System, SystemConfig};
use crate::published::{Layout, Published};

/// The weights that a run starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitConfig {
    /// The folder of the run that has them, whose last checkpoint is read; or a file of
    /// [`Published`] weights.
    pub run: PathBuf,
    /// The part of that run's model to take, by the path of a module such as `model.image`, which
    /// starts the module of the same path; null for all of it. Of a file, the module that all of it
    /// starts.
    #[serde(default)]
    pub path: Option<String>,
    /// Regular expressions: parameters of the new model whose paths match one may be new.
    #[serde(default)]
    pub new: Vec<String>,
    /// Regular expressions: parameters of the earlier model whose paths match one may stay unused.
    #[serde(default)]
    pub unused: Vec<String>,
}

impl FromStr for InitConfig {
    type Err = anyhow::Error;

    /// `RUN`, or `RUN:PATH`.
    fn from_str(text: &str) -> Result<Self> {
        let (run, path) = match text.rsplit_once(':') {
            // A colon in the name of a folder is none of ours.
            Some((run, path)) if !path.contains(['/', '\\']) && !Path::new(text).exists() => {
                (run, Some(path.to_string()))
            }
            _ => (text, None),
        };
        ensure!(!run.is_empty(), "--init {text}: there is no run before `:`");
        Ok(Self {
            path,
            ..Self::all_of(PathBuf::from(run))
        })
    }
}

impl fmt::Display for InitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.run.display())?;
        self.path.iter().try_for_each(|path| write!(f, ":{path}"))
    }
}

impl InitConfig {
    /// All weights of the run in that folder.
    pub fn all_of(run: PathBuf) -> Self {
        Self {
            run,
            path: None,
            new: Vec::new(),
            unused: Vec::new(),
        }
    }

    /// A model that starts from these weights.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or do not fit the model.
    pub(super) fn start<C: SystemConfig>(&self, model: C::System, config: &C) -> Result<C::System> {
        let rules = config.rules();
        let mut new: Vec<&str> = self.new.iter().map(String::as_str).collect();
        let mut unused: Vec<&str> = self.unused.iter().map(String::as_str).collect();
        new.extend(rules.new);
        unused.extend(rules.unused);
        let start = || {
            let weights = if self.is_published() {
                // Nothing is published that has an objective's parameters but the logit scale.
                new.push(r"(^|\.)objective\.");
                let path = self.path.as_deref().unwrap_or_default();
                Weights::published(Published::open(&self.run)?, path, config.text_layers())
            } else {
                let weights = Weights::of_run(&self.run)?;
                let weights = match &self.path {
                    None => weights,
                    Some(path) => weights.below(path)?,
                };
                weights.renamed(|path| config.renamed(path))
            };
            weights.load_into(model, &new, &unused)
        };
        start().with_context(|| format!("--init {self}"))
    }

    /// The tokenizer that the weights were trained with, if it is known: the run's, or one beside
    /// the published file.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        if !self.is_published() {
            return Some(self.run.join(TOKENIZER_FILE));
        }
        match self.path {
            Some(_) => None,
            None => tokenizer_beside(&self.run),
        }
    }

    /// Whether they are a file of published weights.
    pub fn is_published(&self) -> bool {
        self.run.is_file()
    }
}

/// The `tokenizer.json` beside a file of published weights, if there is one.
pub(crate) fn tokenizer_beside(weights: &Path) -> Option<PathBuf> {
    let beside = weights.with_file_name(TOKENIZER_FILE);
    beside.is_file().then_some(beside)
}

/// The parameters of a run's last checkpoint, by their paths, or of a published file, by the names
/// of its layout.
pub struct Weights {
    tensors: BTreeMap<String, Values>,
    /// Of a published file.
    layout: Option<Layout>,
    /// Layers of a text half, see [`Layout::key`].
    text_layers: usize,
    /// What the paths of the parameters begin with that they are of.
    prefix: String,
    source: PathBuf,
}

/// The values of a parameter.
#[derive(Clone)]
enum Values {
    Read(TensorData),
    /// Those of a large file are read when they are wanted, one after the other.
    Stored(StoredTensor),
}

impl Values {
    fn shape(&self) -> Shape {
        match self {
            Self::Read(data) => data.shape().clone(),
            Self::Stored(tensor) => tensor.shape.clone(),
        }
    }

    /// As they are, or as f32 where they are published.
    fn read(self) -> Result<TensorData> {
        match self {
            Self::Read(data) => Ok(data),
            Self::Stored(tensor) => {
                let name = tensor.name.clone();
                let data = bridge::into_data(tensor);
                let data = data.map_err(|error| anyhow!("cannot read {name}: {error}"))?;
                Ok(data.convert_dtype(DType::F32))
            }
        }
    }
}

/// The system that the run in a folder left in its last checkpoint, for inference on `device`, and
/// its settings.
///
/// # Errors
///
/// If there is no run of this system with a checkpoint.
pub fn trained<S: System>(run: &Path, device: &Device) -> Result<(TrainingConfig<S::Config>, S)> {
    const NOTHING: &[&str] = &[];
    let config = TrainingConfig::<S::Config>::read(&run.join(CONFIG_FILE));
    let config = config.with_context(|| format!("{}: no run of {}", run.display(), S::NAME))?;
    let model = config.system.init(&device.clone().inner());
    let model = Weights::of_run(run)?.load_into(model, NOTHING, NOTHING)?;
    Ok((config, model))
}

impl Weights {
    /// Reads the last checkpoint of the run in the folder `run`.
    ///
    /// # Errors
    ///
    /// If there is none, or it is damaged.
    pub fn of_run(run: &Path) -> Result<Self> {
        let folder = Checkpoints::last_of(run)?;
        let folder = folder.with_context(|| {
            format!(
                "{} is no run with a checkpoint, which weights could come from",
                run.display()
            )
        })?;
        // Checks its sums.
        Checkpoint::open(&folder)?;
        let source = folder.join(MODEL);
        let mut store = BurnpackStore::from_file(&source);
        let read = |store: &mut BurnpackStore| -> Result<_> {
            let all = store
                .get_all_tensors()
                .map_err(|error| anyhow!("{error}"))?;
            let data = all.iter().map(|(path, tensor)| {
                let data = bridge::to_data(tensor).map_err(|error| anyhow!("{error}"))?;
                // Read now: they are wanted whatever becomes of that run.
                let bytes = data.as_bytes().to_vec();
                let (shape, dtype) = (data.shape().clone(), data.dtype());
                let data = TensorData::from_bytes_vec(bytes, shape, dtype);
                Ok((path.clone(), Values::Read(data)))
            });
            data.collect()
        };
        let tensors = read(&mut store).with_context(|| format!("cannot read {}", source.display()));
        Ok(Self {
            tensors: tensors?,
            layout: None,
            text_layers: 0,
            prefix: String::new(),
            source,
        })
    }

    /// Published weights for the module at `path`, which is empty for the whole model. Where a BERT
    /// has a fusion half, `text_layers` come before it.
    pub fn published(published: Published, path: &str, text_layers: usize) -> Self {
        let tensors = published.tensors.into_iter();
        Self {
            tensors: tensors
                .map(|(name, tensor)| (name, Values::Stored(tensor)))
                .collect(),
            layout: Some(published.layout),
            text_layers,
            prefix: if path.is_empty() {
                String::new()
            } else {
                format!("{path}.")
            },
            source: published.path,
        }
    }

    /// Only the parameters of the module `path`, which start the module of the same path.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub fn below(mut self, path: &str) -> Result<Self> {
        let prefix = format!("{path}.");
        let modules = self.modules();
        self.tensors.retain(|name, _| name.starts_with(&prefix));
        ensure!(
            !self.tensors.is_empty(),
            "{} has no module {path}; there are {modules}",
            self.source.display()
        );
        self.prefix = prefix;
        Ok(self)
    }

    /// The parameters of the module `from`, as those of a module `to`; either may be empty, for
    /// the whole.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub fn moved(self, from: &str, to: &str) -> Result<Self> {
        let below = if from.is_empty() {
            self
        } else {
            self.below(from)?
        };
        let prefix = if to.is_empty() {
            String::new()
        } else {
            format!("{to}.")
        };
        let moved = |name: &str| format!("{prefix}{}", &name[below.prefix.len()..]);
        let tensors = below.tensors.into_iter();
        Ok(Self {
            tensors: tensors.map(|(name, data)| (moved(&name), data)).collect(),
            layout: None,
            text_layers: 0,
            source: below.source,
            prefix,
        })
    }

    /// The same parameters at the paths that `paths` gives for each.
    pub fn renamed(self, paths: impl Fn(&str) -> Vec<String>) -> Self {
        let tensors = self.tensors.into_iter().flat_map(|(path, data)| {
            let paths = paths(&path).into_iter();
            paths.map(move |path| (path, data.clone()))
        });
        Self {
            tensors: tensors.collect(),
            ..self
        }
    }

    /// Outermost modules, for messages.
    fn modules(&self) -> String {
        let mut modules: Vec<_> = self
            .tensors
            .keys()
            .filter_map(|name| Some(name.split_once('.')?.0))
            .collect();
        modules.dedup();
        modules.join(", ")
    }
}

#[cfg(test)]
mod tests;
