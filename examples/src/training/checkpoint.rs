//! Checkpoints by step: everything that the next step depends on, in a folder that is either
//! complete or absent.
//!
//! ```text
//! RUN/checkpoints/step-000200/model.bpk       parameters
//!                             optimizer.bpk   the optimiser's moments and step counts
//!                             state.json      step, place in the data, history
//! ```
//! The learning rate follows from the step, the order of the data and its augmentation from epoch
//! and place, and dropout is seeded anew each batch, so no further random state needs keeping.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::store::ModuleRecord;
use serde::{Deserialize, Serialize};

use super::history::History;

const FORMAT: u32 = 1;
const MODEL: &str = "model.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const STATE: &str = "state.json";
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
}

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// The checkpoints in a run's folder, of which the last `keep` (at least one) are kept.
    pub fn new(run: &Path, keep: usize) -> Self {
        Self {
            folder: run.join("checkpoints"),
            keep: keep.max(1),
        }
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
        let name = format!("{PREFIX}{:06}", state.step);
        let path = self.folder.join(&name);
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
        for (_, old) in self.list()?.iter().rev().skip(self.keep) {
            fs::remove_dir_all(old).with_context(|| {
                format!("the old checkpoint {} could not be deleted", old.display())
            })?;
        }
        Ok(path)
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
        };
        fs::write(folder.join(STATE), serde_json::to_vec(&file)?)?;
        for name in [MODEL, OPTIMIZER, STATE] {
            File::open(folder.join(name))?.sync_all()?;
        }
        Ok(())
    }

    /// Folder of the last checkpoint.
    ///
    /// # Errors
    ///
    /// If the folder of the checkpoints exists and cannot be read.
    pub fn last(&self) -> Result<Option<PathBuf>> {
        Ok(self.list()?.pop().map(|(_, path)| path))
    }

    /// Complete checkpoints with their steps, oldest first.
    fn list(&self) -> Result<Vec<(usize, PathBuf)>> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        let context = || format!("the folder {} could not be read", self.folder.display());
        for entry in fs::read_dir(&self.folder).with_context(context)? {
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
}

/// Reads a checkpoint into a model and an optimiser made with the same configuration.
///
/// # Errors
///
/// If a file is missing, damaged, or does not fit the model.
pub fn load<M: Module>(
    folder: &Path,
    model: M,
    optimizer: ModuleOptimizer,
) -> Result<(M, ModuleOptimizer, State)> {
    (|| {
        let text = fs::read_to_string(folder.join(STATE))
            .with_context(|| format!("cannot read {STATE}"))?;
        let file: StateFile =
            serde_json::from_str(&text).with_context(|| format!("{STATE} is damaged"))?;
        ensure!(
            file.format == FORMAT,
            "it is of format {}, this program reads format {FORMAT}",
            file.format,
        );
        let model = ModuleRecord::load(folder.join(MODEL))
            .and_then(|record| model.try_load_record(record))
            .with_context(|| format!("{MODEL} is damaged or of another model"))?;
        let record = OptimizerRecord::load(folder.join(OPTIMIZER))
            .with_context(|| format!("{OPTIMIZER} is damaged"))?;
        Ok((model, optimizer.load_record(record), file.state))
    })()
    .with_context(|| {
        format!(
            "the checkpoint {} cannot be resumed from \
             (delete that folder to fall back to the one before)",
            folder.display()
        )
    })
}
