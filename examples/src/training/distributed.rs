//! `--distributed`: several processes train one model, each on its part of every batch.
//!
//! The pairs of a batch do not depend on the number of workers, nor does a checkpoint: a run that
//! some number of workers began, any other may go on with. Every worker reads the data and has the
//! whole model; the first one writes files, validates and shows progress.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::train::Interrupter;
use burn_contrastive::workers::{self, Workers};
use clap::ValueEnum;
use sha2::{Digest, Sha256};

use super::checkpoint::Checkpoints;
use super::config::TrainingConfig;
use super::resume::differences;
use super::system::SystemConfig;

/// What connects the processes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Distributed {
    /// The processes that `mpirun` starts, on one machine or several with a common file system
    Mpi,
}

/// The workers of a run, of which this process is one.
#[derive(Debug, Default)]
pub struct Team {
    /// None where it is alone.
    workers: Option<Arc<dyn Workers>>,
    #[cfg(feature = "mpi")]
    mpi: Option<Arc<workers::mpi::Mpi>>,
}

impl Team {
    /// The processes of `program` that were started in that way; this one alone for `None`.
    ///
    /// # Errors
    ///
    /// If this program is built without it, or it does not start.
    pub fn start(distributed: Option<Distributed>, program: &str) -> Result<Arc<Self>> {
        match distributed {
            None => Ok(Arc::default()),
            Some(Distributed::Mpi) => Self::mpi(program),
        }
    }

    #[cfg(feature = "mpi")]
    fn mpi(_program: &str) -> Result<Arc<Self>> {
        let mpi = workers::mpi::Mpi::start().context("--distributed mpi")?;
        if mpi.rank() > 0 {
            crate::console::speak_as(format!("worker {}", mpi.rank()));
        }
        Ok(Arc::new(Self {
            workers: Some(mpi.clone()),
            mpi: Some(mpi),
        }))
    }

    #[cfg(not(feature = "mpi"))]
    fn mpi(program: &str) -> Result<Arc<Self>> {
        bail!(
            "--distributed mpi: this program was built without MPI; build and run it with\n    \
             cargo build --release --features mpi --bin {program}\n    \
             mpirun -n 4 target/release/{program} --distributed mpi"
        );
    }

    /// What shares a step, if there are several.
    pub fn workers(&self) -> Option<Arc<dyn Workers>> {
        self.workers.clone().filter(|workers| workers.count() > 1)
    }

    /// How many workers there are.
    pub fn count(&self) -> usize {
        self.workers.as_ref().map_or(1, |workers| workers.count())
    }

    /// Which of them this one is, from 0.
    pub fn rank(&self) -> usize {
        self.workers.as_ref().map_or(0, |workers| workers.rank())
    }

    /// Whether this one writes files, validates and shows progress.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Checks that the workers can share the run: equal settings, and batches of which each has an
    /// equal part.
    ///
    /// # Errors
    ///
    /// On every worker, with both values.
    pub fn check<C: SystemConfig>(&self, config: &TrainingConfig<C>) -> Result<()> {
        let Some(workers) = self.workers() else {
            return Ok(());
        };
        let own = serde_json::to_vec(&config.to_value()?)?;
        let all = workers.gather(&own)?;
        if let Some(rank) = all.iter().position(|other| *other != all[0]) {
            let [first, other] = [0, rank].map(|rank| serde_json::from_slice(&all[rank]));
            let (first, other) = (first?, other?);
            let differences = differences(&first, &other);
            let (setting, first, other) = differences.first().context("settings differ")?;
            bail!(
                "all workers need the same settings: worker {rank} has {setting} = {other}, \
                 worker 0 has {first}"
            );
        }
        let (pairs, count) = (config.shared.data.batch_size, self.count());
        ensure!(
            pairs.is_multiple_of(count),
            "data.batch_size = {pairs} cannot be divided among {count} workers: it needs to be a \
             multiple of {count}"
        );
        Ok(())
    }

    /// Checks that all workers have the same data, and a model with the same parameters.
    ///
    /// # Errors
    ///
    /// On every worker, with both values.
    pub fn check_equal<M: Module>(&self, data: &str, model: &M) -> Result<()> {
        let Some(workers) = self.workers() else {
            return Ok(());
        };
        workers::require_equal(&*workers, "data (their fingerprint)", data)?;
        let mut hash = Hash(Sha256::new());
        model.visit(&mut hash);
        let parameters = format!("{:x}", hash.0.finalize());
        workers::require_equal(&*workers, "parameters (their SHA-256)", parameters)?;
        Ok(())
    }

    /// What the first worker says, on all.
    ///
    /// # Errors
    ///
    /// If a worker is lost.
    pub fn of_first(&self, mine: &str) -> Result<String> {
        match self.workers() {
            Some(workers) => Ok(String::from_utf8(workers.broadcast(mine.as_bytes())?)?),
            None => Ok(mine.to_string()),
        }
    }

    /// Whether it holds on any worker.
    ///
    /// # Errors
    ///
    /// If a worker is lost.
    pub fn any(&self, mine: bool) -> Result<bool> {
        match self.workers() {
            Some(workers) => {
                let all = workers.gather(&[u8::from(mine)])?;
                Ok(all.concat().contains(&1))
            }
            None => Ok(mine),
        }
    }

    /// Says which worker is lost and where the last checkpoint of the run is, if this process is
    /// told to end while it waits.
    #[cfg_attr(not(feature = "mpi"), allow(unused_variables))]
    pub fn watch(&self, interrupter: &Interrupter, run: &Path) {
        #[cfg(feature = "mpi")]
        if let Some(mpi) = &self.mpi {
            let (interrupter, run) = (interrupter.clone(), run.to_path_buf());
            mpi.on_loss(
                move || interrupter.should_stop(),
                move |lost| crate::console::warn(format_args!("error: {lost}; {}", last_of(&run))),
            );
        }
    }

    /// Waits for all workers and ends what connects them: before the process ends without an error.
    pub fn finish(&self) {
        #[cfg(feature = "mpi")]
        if let Some(mpi) = &self.mpi {
            mpi.finish();
        }
    }
}

/// "2 workers, each with ", or nothing.
impl fmt::Display for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            1 => Ok(()),
            count => write!(f, "{count} workers, each with "),
        }
    }
}

/// Where the last checkpoint of a run is, for messages.
#[cfg_attr(not(feature = "mpi"), allow(dead_code))]
fn last_of(run: &Path) -> String {
    match Checkpoints::last_of(run) {
        Ok(Some(checkpoint)) => format!(
            "the last good checkpoint is {}: go on from it with --resume {}",
            checkpoint.display(),
            run.display()
        ),
        _ => "there is no checkpoint yet".to_string(),
    }
}

/// A hash of all parameters.
struct Hash(Sha256);

impl ModuleVisitor for Hash {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.update(param.val().into_data().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::clip::ClipConfig;

    #[test]
    fn a_team_of_one_checks_and_waits_for_nothing() {
        let team = Team::start(None, "clip").unwrap();
        assert_eq!((team.count(), team.rank()), (1, 0));
        team.check(&TrainingConfig::<ClipConfig>::default())
            .unwrap();
        assert!(!team.any(false).unwrap() && team.any(true).unwrap());
        assert_eq!(team.of_first("here").unwrap(), "here");
        assert_eq!(team.to_string(), "");
        team.finish();
    }

    #[cfg(not(feature = "mpi"))]
    #[test]
    fn without_mpi_the_message_says_how_to_build_with_it() {
        let error = Team::start(Some(Distributed::Mpi), "albef").unwrap_err();
        let error = error.to_string();
        assert!(error.contains("built without MPI"), "{error}");
        assert!(error.contains("cargo build --release --features mpi --bin albef"));
    }
}
