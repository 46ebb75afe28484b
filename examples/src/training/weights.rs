//! Weights of an earlier run, or published ones, as the start of a run: `--init RUN[:PATH]`,
//! `--init FILE[:PATH]`.
//!
//! Parameters go by their paths in the model. One that has no counterpart is refused by name unless
//! it is asked for: a tower that silently keeps its random start costs more than any error.

mod init;
mod load;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use burn::store::burn_pack::Tensor as StoredTensor;
use burn::store::{BurnpackStore, ModuleStore, bridge};
use burn::tensor::{DType, Device, Shape, TensorData};

use super::checkpoint::{Checkpoint, Checkpoints, MODEL};
use super::config::TrainingConfig;
use super::folder::TOKENIZER_FILE;
use super::run::CONFIG_FILE;
use super::system::{System, SystemConfig};
use crate::published::{Layout, Published};

pub use init::{InitConfig, InitSource};

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
    /// What the paths of the parameters begin with that they are of, each with what stands for it
    /// in the paths of the layout.
    parts: Vec<[String; 2]>,
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
                let data = data.convert_dtype(DType::F32);
                // What is computed by them would be no number either.
                ensure!(
                    data.iter::<f32>().all(f32::is_finite),
                    "{name} has a number that is not finite"
                );
                Ok(data)
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
            parts: vec![Default::default()],
            source,
        })
    }

    /// Published weights for the module at `path`, which is empty for the whole model. Where a BERT
    /// has a fusion half, `text_layers` come before it.
    pub fn published(published: Published, path: &str, text_layers: usize) -> Self {
        let part = [path, ""].map(str::to_string);
        Self::of_parts(published, vec![part], text_layers)
    }

    /// Published weights for several modules, each with the module that it is to the layout; either
    /// may be empty, for the whole.
    pub(super) fn of_parts(
        published: Published,
        parts: Vec<[String; 2]>,
        text_layers: usize,
    ) -> Self {
        let theirs = parts.iter().map(|[_, theirs]| theirs.as_str());
        let theirs: Vec<_> = theirs.collect();
        let (layout, tensors) = (published.layout, published.tensors.into_iter());
        Self {
            tensors: tensors
                .filter(|(name, _)| layout.is_of(name, &theirs))
                .map(|(name, tensor)| (name, Values::Stored(tensor)))
                .collect(),
            layout: Some(layout),
            text_layers,
            parts: parts.into_iter().map(|part| part.map(below)).collect(),
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
        self.parts = vec![[prefix, String::new()]];
        Ok(self)
    }

    /// The parameters of the module `from`, as those of a module `to`; either may be empty, for
    /// the whole.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub fn moved(self, from: &str, to: &str) -> Result<Self> {
        let part = if from.is_empty() {
            self
        } else {
            self.below(from)?
        };
        let prefix = below(to.to_string());
        let length = part.parts[0][0].len();
        let moved = |name: &str| format!("{prefix}{}", &name[length..]);
        let tensors = part.tensors.into_iter();
        Ok(Self {
            tensors: tensors.map(|(name, data)| (moved(&name), data)).collect(),
            layout: None,
            text_layers: 0,
            source: part.source,
            parts: vec![[prefix, String::new()]],
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

/// What the paths of a module's parameters begin with; nothing for the whole model.
fn below(path: String) -> String {
    if path.is_empty() { path } else { path + "." }
}

#[cfg(test)]
mod tests;
