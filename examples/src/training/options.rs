//! Where and how a run is computed and shown, which decides none of its results.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use burn::tensor::Device;

use super::distributed::Team;
use super::folder::RunFolder;

/// The arguments of a run besides its configuration.
#[derive(Clone)]
pub struct Options {
    /// The run's folder: configuration, tokenizer, checkpoints, report.
    pub folder: Folder,
    /// Where generated scenes are kept, for all runs.
    pub scenes: PathBuf,
    /// The device to compute on.
    pub device: Device,
    /// Its name, for the report.
    pub device_name: String,
    /// Threads that decode images.
    pub workers: usize,
    /// Whether to show Burn's dashboard, which needs a terminal, instead of lines.
    pub dashboard: bool,
    /// Steps between two progress lines.
    pub lines_every: usize,
    /// The processes that train together.
    pub team: Arc<Team>,
    /// The command line, for the report.
    pub command: String,
    /// The words of a command that resumes the run whose folder is put behind them.
    pub to_resume: Vec<String>,
    /// The run that this one is a stage of, which is the one to resume.
    pub stage_of: Option<PathBuf>,
}

/// The folder of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// It holds no run yet.
    New(PathBuf),
    /// It does not exist; where it does, a number is put behind its name.
    Numbered(PathBuf),
    /// It holds a run, which goes on from its last checkpoint, or begins anew if there is none.
    Resume(PathBuf),
}

impl Folder {
    /// The run to resume, or that there is room for a new one.
    pub(super) fn open(&self) -> Result<Option<RunFolder>> {
        match self {
            Self::New(path) => RunFolder::check(path).map(|()| None),
            Self::Numbered(_) => Ok(None),
            Self::Resume(path) => RunFolder::resume(path).map(Some),
        }
    }

    /// A run that begins.
    pub(super) fn begin(&self) -> Result<RunFolder> {
        match self {
            Self::Numbered(path) => RunFolder::begin_new(path),
            Self::New(path) | Self::Resume(path) => RunFolder::begin(path),
        }
    }
}

impl Options {
    /// The command that resumes the run in the folder `run`.
    pub(crate) fn resume_command(&self, run: &Path) -> String {
        let run = self.stage_of.as_deref().unwrap_or(run).to_string_lossy();
        let words = self.to_resume.iter().map(String::as_str).chain([&*run]);
        // Without a NUL, which no argument has, every word can be quoted.
        shlex::try_join(words).unwrap_or_else(|_| format!("clip --resume {run}"))
    }
}
