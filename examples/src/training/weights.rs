//! Weights of an earlier run as the start of another: `--init RUN[:PATH]`.
//!
//! Parameters go by their paths in the model. One that has no counterpart is refused by name unless
//! it is asked for: a tower that silently keeps its random start costs more than any error.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use burn::module::{Module, ModuleMapper, Param, ParamGroup, ParamId};
use burn::store::{BurnpackStore, ModuleStore, bridge};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, Checkpoints, MODEL};
use super::config::TrainingConfig;
use super::run::CONFIG_FILE;
use super::system::{System, SystemConfig};
use crate::models::resize_positions;
use crate::words::list;

/// The weights that a run starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitConfig {
    /// The folder of the run that has them; its last checkpoint is read.
    pub run: PathBuf,
    /// The part of that run's model to take, by the path of a module such as `model.image`, which
    /// starts the module of the same path; null for all of it.
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
        let weights = Weights::of_run(&self.run);
        let rules = config.rules();
        let mut new: Vec<&str> = self.new.iter().map(String::as_str).collect();
        let mut unused: Vec<&str> = self.unused.iter().map(String::as_str).collect();
        new.extend(rules.new);
        unused.extend(rules.unused);
        let start = |weights: Weights| {
            let weights = match &self.path {
                None => weights,
                Some(path) => weights.below(path)?,
            };
            let weights = weights.renamed(|path| config.renamed(path));
            weights.load_into(model, &new, &unused)
        };
        weights
            .and_then(start)
            .with_context(|| format!("--init {self}"))
    }
}

/// The parameters of a run's last checkpoint, by their paths.
pub struct Weights {
    tensors: BTreeMap<String, TensorData>,
    /// What all of their paths begin with.
    prefix: String,
    source: PathBuf,
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
                Ok((
                    path.clone(),
                    TensorData::from_bytes_vec(bytes, shape, dtype),
                ))
            });
            data.collect()
        };
        let tensors = read(&mut store).with_context(|| format!("cannot read {}", source.display()));
        Ok(Self {
            tensors: tensors?,
            prefix: String::new(),
            source,
        })
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

    /// A module that starts from these weights: all of it, or the part that they are of.
    /// Parameters whose paths match one of `new` may be missing here, and those that match one of
    /// `unused` may be of no use there; one of another shape may if it matches both. Position
    /// embeddings of images of another size are interpolated.
    ///
    /// # Errors
    ///
    /// Names the parameters that are missing, unused or of another shape, and what to do.
    pub fn load_into<M: Module>(
        self,
        module: M,
        new: &[impl AsRef<str>],
        unused: &[impl AsRef<str>],
    ) -> Result<M> {
        let (new, unused) = (groups(new)?, groups(unused)?);
        let mut load = Load {
            path: Vec::new(),
            containers: Vec::new(),
            left: self.tensors,
            prefix: self.prefix,
            new,
            unused: &unused,
            missing: Vec::new(),
            misshapen: Vec::new(),
        };
        let module = module.map(&mut load);
        let left = load.left.into_keys();
        let left: Vec<_> = left.filter(|path| !matches(&unused, path)).collect();
        let from = self.source.display();
        if let Some(first) = load.misshapen.first() {
            bail!("{from} does not fit the model: {first}");
        }
        if !load.missing.is_empty() {
            bail!(
                "{from} lacks {}: if they are to start anew, say so in init.new, as regular \
                 expressions of their paths",
                list(&load.missing)
            );
        }
        if !left.is_empty() {
            bail!(
                "{from} has {}, which the model has no use for: if that is right, say so in \
                 init.unused, as regular expressions of their paths",
                list(&left)
            );
        }
        Ok(module)
    }
}

fn groups(expressions: &[impl AsRef<str>]) -> Result<Vec<ParamGroup>> {
    let group = |expression: &str| {
        ParamGroup::from_regex(expression)
            .map_err(|_| anyhow!("init: {expression:?} is no regular expression"))
    };
    let all = expressions.iter();
    all.map(|expression| group(expression.as_ref())).collect()
}

fn matches(groups: &[ParamGroup], path: &str) -> bool {
    // Groups of paths do not look at the id.
    let id = ParamId::new();
    groups.iter().any(|group| group.matches(&id, Some(path)))
}

/// Gives parameters the values of the same paths.
struct Load<'a> {
    path: Vec<String>,
    /// The kinds of modules on that path.
    containers: Vec<String>,
    left: BTreeMap<String, TensorData>,
    /// Of the parameters that are looked for.
    prefix: String,
    new: Vec<ParamGroup>,
    unused: &'a [ParamGroup],
    missing: Vec<String>,
    misshapen: Vec<String>,
}

impl Load<'_> {
    /// Whether the parameter is an image encoder's: positions of words are no square.
    fn is_of_image(&self) -> bool {
        let container = self.containers.last();
        container.is_some_and(|container| container == "Struct:ImageEncoder")
    }
}

impl ModuleMapper for Load<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.to_string());
        self.containers.push(container.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let Some(data) = self.left.remove(&path) else {
            if path.starts_with(&self.prefix) && !matches(&self.new, &path) {
                self.missing.push(path);
            }
            return param;
        };
        let (shape, device) = (param.lazy_shape(), param.lazy_device());
        let found = data.shape().clone();
        let value = if found == shape {
            Some(Tensor::from_data(data, &device))
        } else if self.is_of_image() && path.ends_with("positions") {
            resized(data, &shape.to_vec(), &device)
        } else {
            None
        };
        match value {
            Some(value) => {
                let id = param.id;
                param.transform_for_load(value, id)
            }
            // One that may be new in place of one that may stay unused.
            None if matches(&self.new, &path) && matches(self.unused, &path) => param,
            None => {
                let [found, shape] = [found, shape].map(|shape| shape.to_vec());
                self.misshapen
                    .push(format!("{path} is {found:?} there and {shape:?} here"));
                param
            }
        }
    }
}

/// Position embeddings `[1, tokens, width]` of square images, for images of another size.
fn resized<const D: usize>(data: TensorData, to: &[usize], device: &Device) -> Option<Tensor<D>> {
    let from = data.shape().to_vec();
    let (&[1, old, width], &[1, new, same]) = (&from[..], to) else {
        return None;
    };
    let side = |patches: usize| {
        let side = patches.isqrt();
        (side > 0 && side.pow(2) == patches).then_some(side)
    };
    // A class token stands before the patches of both, or of none.
    let first = (0..2).find(|first| side(old - first).is_some() && side(new - first).is_some())?;
    if width != same {
        return None;
    }
    let positions = Tensor::<3>::from_data(data, device);
    let resized = resize_positions(positions, first, side(new - first)?);
    Some(Tensor::from_data(resized.into_data(), device))
}

#[cfg(test)]
mod tests;
