//! What the program of a system reads, measures and reports.

use std::path::Path;

use anyhow::Result;
use burn::train::Interrupter;

use super::config::TrainingConfig;
use super::history::History;
use super::inputs::Data;
use super::options::Options;
use super::run::Ended;
use super::system::System;
use crate::report::{Reference, RunReport};

/// What the program of a system reads, measures and reports.
pub trait Program: System {
    /// Heading of its report.
    const TITLE: &'static str;

    /// What it is evaluated on.
    type Test;

    /// What it scores there.
    type Scores;

    /// Its data; `resumed` is the folder of the run that goes on.
    ///
    /// # Errors
    ///
    /// On bad data, and on files that cannot be read or written.
    fn open(
        config: &TrainingConfig<Self::Config>,
        options: &Options,
        resumed: Option<&Path>,
    ) -> Result<Data<Self>>;

    /// What comes before its training, such as the training of a teacher, as
    /// [stages](super::run::stage) in the folder `run`; features of its data are given to them.
    /// Returns the configuration with the results in place, or `None` if a stage was interrupted.
    /// All workers of a team call it.
    ///
    /// # Errors
    ///
    /// As [`run`](super::run::run).
    fn prepare(
        config: &TrainingConfig<Self::Config>,
        _data: &Data<Self>,
        _options: &Options,
        _run: &Path,
        _interrupter: &Interrupter,
    ) -> Result<Option<TrainingConfig<Self::Config>>> {
        Ok(Some(config.clone()))
    }

    /// Makes what its data lack, such as features of them by a network of an earlier run, in the
    /// folder `run`; false if it was interrupted. It is all that comes before an
    /// [evaluation](super::run::evaluate) without training, and a part of
    /// [`prepare`](Self::prepare).
    ///
    /// # Errors
    ///
    /// If a file cannot be read or written.
    fn complete(
        _config: &TrainingConfig<Self::Config>,
        _data: &Data<Self>,
        _options: &Options,
        _run: &Path,
        _interrupter: &Interrupter,
    ) -> Result<bool> {
        Ok(true)
    }

    /// Its scores, `batch_size` examples at a time; before its training perhaps only those that
    /// say something.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    fn evaluate(
        &self,
        test: &Self::Test,
        batch_size: usize,
        is_trained: bool,
    ) -> Result<Self::Scores>;

    /// What is evaluated, and the scores before the training, in words.
    fn before(test: &Self::Test, scores: &Self::Scores) -> String;

    /// The scores after the training, in words.
    fn after(test: &Self::Test, scores: &Self::Scores) -> String;

    /// The parts of the report that are its own; `before` are the scores before the training, if
    /// there was one.
    fn report(
        test: &Self::Test,
        before: Option<&Self::Scores>,
        after: &Self::Scores,
        history: &History,
    ) -> RunReport;

    /// Lines to compare its losses with in the report, such as a loss by chance, by their names in
    /// [`LOSSES`](System::LOSSES).
    fn references(_config: &TrainingConfig<Self::Config>) -> Vec<(&'static str, Reference)> {
        Vec::new()
    }

    /// Trains and evaluates it: [`run`](super::run::run) of this system, which is compiled where
    /// this is written, once, and not in every program that calls it.
    ///
    /// # Errors
    ///
    /// As [`run`](super::run::run).
    fn run(
        config: &TrainingConfig<Self::Config>,
        options: &Options,
        interrupter: Interrupter,
    ) -> Result<Ended<Self>>;
}
