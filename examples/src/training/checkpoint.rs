//! Checkpoints by step: everything that the next step depends on, in a folder that is either
//! complete or absent.
//!
//! ```text
//! RUN/checkpoints/step-000200/model.bpk       parameters
//!                             optimizer.bpk   the optimiser's moments and step counts
//!                             state.json      step, place in the data, history; whose they are
//!                             SHA256SUMS      of these, as `sha256sum --check` reads it
//! ```
//! Nothing of a checkpoint is used before its checksums hold.
//!
//! The learning rate follows from the step, the order of the data and its augmentation from epoch
//! and place, and dropout is seeded anew each batch, so no further random state needs keeping.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::store::ModuleRecord;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::history::History;
use super::resume::Origin;
use crate::files::sha256;

const FORMAT: u32 = 3;
pub(crate) const MODEL: &str = "model.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const STATE: &str = "state.json";
const FILES: [&str; 3] = [MODEL, OPTIMIZER, STATE];
const SUMS: &str = "SHA256SUMS";
const FOLDER: &str = "checkpoints";
const PREFIX: &str = "step-";
const UNFINISHED: &str = ".unfinished-";

/// The next batch of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Batch in the epoch, from 0.
    pub batch: usize,
}

/// The state of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimiser steps done.
    pub step: usize,
    /// The next batch.
    pub cursor: Cursor,
    /// What was measured so far.
    pub history: History,
}

#[derive(Serialize, Deserialize)]
struct StateFile {
    format: u32,
    #[serde(flatten)]
    state: State,
    #[serde(flatten)]
    origin: Origin,
}

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    origin: Origin,
}

impl Checkpoints {
    /// The checkpoints in a run's folder, of which the last `keep` (at least one) are kept.
    pub fn new(run: &Path, keep: usize, origin: Origin) -> Self {
        Self {
            folder: run.join(FOLDER),
            keep: keep.max(1),
            origin,
        }
    }

    /// Folder of the last checkpoint in a run's folder.
    ///
    /// # Errors
    ///
    /// If the folder of the checkpoints exists and cannot be read.
    pub fn last_of(run: &Path) -> Result<Option<PathBuf>> {
        Ok(list(&run.join(FOLDER))?.pop().map(|(_, path)| path))
    }

    /// Writes a checkpoint under a temporary name, renames it, then deletes those beyond the last
    /// `keep`. Returns its folder.
    ///
    /// # Errors
    ///
    /// If a file cannot be written; no checkpoint is deleted then.
    pub fn save<M: Module>(
        &self,
        model: &M,
        optimizer: &ModuleOptimizer,
        state: &State,
    ) -> Result<PathBuf> {
        let name = name(state.step);
        let path = self.path(state.step);
        let unfinished = self.folder.join(format!("{UNFINISHED}{name}"));
        self.write(&unfinished, model, optimizer, state)
            .and_then(|()| {
                if path.exists() {
                    fs::remove_dir_all(&path)?;
                }
                fs::rename(&unfinished, &path)?;
                Ok(())
            })
            .with_context(|| format!("the checkpoint {} could not be written", path.display()))?;
        for (_, old) in list(&self.folder)?.iter().rev().skip(self.keep) {
            fs::remove_dir_all(old).with_context(|| {
                format!("the old checkpoint {} could not be deleted", old.display())
            })?;
        }
        Ok(path)
    }

    /// The folder of the checkpoint after `step` steps.
    pub fn path(&self, step: usize) -> PathBuf {
        self.folder.join(name(step))
    }

    fn write<M: Module>(
        &self,
        folder: &Path,
        model: &M,
        optimizer: &ModuleOptimizer,
        state: &State,
    ) -> Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        model.clone().into_record().save(folder.join(MODEL))?;
        optimizer.to_record().save(folder.join(OPTIMIZER))?;
        let file = StateFile {
            format: FORMAT,
            state: state.clone(),
            origin: self.origin.clone(),
        };
        fs::write(folder.join(STATE), serde_json::to_vec(&file)?)?;
        fs::write(folder.join(SUMS), sums(folder)?)?;
        for name in FILES.into_iter().chain([SUMS]) {
            File::open(folder.join(name))?.sync_all()?;
        }
        Ok(())
    }
}

fn name(step: usize) -> String {
    format!("{PREFIX}{step:06}")
}

/// The names and checksums of a checkpoint's files, as `sha256sum` writes them.
fn sums(folder: &Path) -> Result<String> {
    let mut sums = String::new();
    for name in FILES {
        let mut file =
            File::open(folder.join(name)).with_context(|| format!("cannot open {name}"))?;
        let sum = sha256(&mut file).with_context(|| format!("cannot read {name}"))?;
        sums += &format!("{sum}  {name}\n");
    }
    Ok(sums)
}

/// Complete checkpoints in a folder with their steps, oldest first.
fn list(folder: &Path) -> Result<Vec<(usize, PathBuf)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let context = || format!("the folder {} could not be read", folder.display());
    for entry in fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let step = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix(PREFIX)?.parse().ok());
        if let Some(step) = step {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// A checkpoint whose checksums hold.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    /// Where the run was.
    pub state: State,
    /// Which run it was.
    pub origin: Origin,
}

impl Checkpoint {
    /// Opens the checkpoint in a folder.
    ///
    /// # Errors
    ///
    /// If a file is missing or damaged, naming it, or of another format.
    pub fn open(folder: &Path) -> Result<Self> {
        (|| {
            let expected = fs::read_to_string(folder.join(SUMS));
            let expected = expected.with_context(|| format!("cannot read {SUMS}"))?;
            for (line, name) in sums(folder)?.lines().zip(FILES) {
                ensure!(
                    expected.lines().any(|expected| expected == line),
                    "{name} is damaged: its checksum is not that in {SUMS}"
                );
            }
            let text = fs::read_to_string(folder.join(STATE))?;
            let file: Value = serde_json::from_str(&text)?;
            ensure!(
                file["format"] == FORMAT,
                "it is of format {}, this program reads format {FORMAT}",
                file["format"]
            );
            let file: StateFile = serde_json::from_value(file)?;
            Ok(Self {
                folder: folder.to_path_buf(),
                state: file.state,
                origin: file.origin,
            })
        })()
        .with_context(|| cannot_resume(folder))
    }

    /// Loads the parameters into a model and an optimiser made with the same configuration.
    ///
    /// # Errors
    ///
    /// If they do not fit the model.
    pub fn load<M: Module>(
        &self,
        model: M,
        optimizer: ModuleOptimizer,
    ) -> Result<(M, ModuleOptimizer)> {
        (|| {
            let model = ModuleRecord::load(self.folder.join(MODEL))
                .and_then(|record| model.try_load_record(record))
                .with_context(|| format!("{MODEL} is of another model"))?;
            let record = OptimizerRecord::load(self.folder.join(OPTIMIZER))
                .with_context(|| format!("{OPTIMIZER} cannot be read"))?;
            anyhow::Ok((model, optimizer.load_record(record)))
        })()
        .with_context(|| cannot_resume(&self.folder))
    }
}

fn cannot_resume(folder: &Path) -> String {
    format!(
        "the checkpoint {} cannot be resumed from \
         (move that folder away to fall back to the one before)",
        folder.display()
    )
}
