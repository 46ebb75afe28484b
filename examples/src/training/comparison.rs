//! Several runs of a system that differ in one setting, and their retrieval side by side.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use burn::train::Interrupter;

use super::config::TrainingConfig;
use super::folder::TOKENIZER_FILE;
use super::options::Options;
use super::run::{CONFIG_FILE, METRICS_FILE, Program, publish, stage};
use super::system::SystemConfig;
use crate::report::{Metrics, RunReport, Sweep, SweepRow};

/// One of the runs.
pub struct Variant<C> {
    /// The folder of the run, in that of the comparison.
    pub folder: String,
    /// The value of the setting, as it is shown.
    pub value: String,
    /// The value, if it is a number.
    pub number: Option<f64>,
    /// The settings of the run.
    pub config: TrainingConfig<C>,
}

/// Runs that differ in one setting.
pub struct Comparison<C> {
    /// Heading of the report.
    pub title: String,
    /// What the setting is.
    pub parameter: String,
    /// The settings that the runs share.
    pub config: TrainingConfig<C>,
    /// The runs.
    pub variants: Vec<Variant<C>>,
    /// A run without the setting, which the others are compared with.
    pub baseline: Option<Variant<C>>,
    /// Gives a run what all share that is trained before them, such as a teacher: from the shared
    /// settings once that is done.
    pub share: fn(&TrainingConfig<C>, &mut TrainingConfig<C>),
}

const COLUMNS: [&str; 3] = ["R@1 image → text", "R@1 text → image", "R@sum"];

impl<C> Comparison<C> {
    /// Trains all runs, as [stages](stage) in one folder, which resumes at the first that is not
    /// finished, and reports. `None` if one is interrupted.
    ///
    /// # Errors
    ///
    /// As [`run`](super::run::run), and if the scores of a run cannot be read.
    pub fn run<S: Program<Config = C>>(
        &self,
        options: &Options,
        interrupter: &Interrupter,
    ) -> Result<Option<Sweep>>
    where
        C: SystemConfig<System = S>,
    {
        let folder = match options.folder.open()? {
            Some(folder) => folder,
            None => options.folder.begin()?,
        };
        let run = &folder.path;
        self.config.write(&run.join(CONFIG_FILE))?;
        // All runs read the same tokens.
        let data = S::open(&self.config, options, Some(run))?;
        data.tokenizer.save(run.join(TOKENIZER_FILE))?;
        let Some(prepared) = S::prepare(&self.config, options, run, interrupter)? else {
            return Ok(None);
        };
        let row = |variant: &Variant<C>| -> Result<Option<SweepRow>> {
            let (name, mut config) = (&variant.folder, variant.config.clone());
            (self.share)(&prepared, &mut config);
            let trained = stage::<S>(name, &config, options, run, interrupter)?;
            trained.map(|run| scores(&run, variant)).transpose()
        };
        let mut rows = Vec::new();
        for variant in &self.variants {
            match row(variant)? {
                Some(row) => rows.push(row),
                None => return Ok(None),
            }
        }
        let baseline = match &self.baseline {
            Some(variant) => match row(variant)? {
                Some(row) => Some(row),
                None => return Ok(None),
            },
            None => None,
        };
        let sweep = Sweep {
            title: self.title.clone(),
            parameter: self.parameter.clone(),
            columns: COLUMNS.map(String::from).to_vec(),
            rows,
            baseline,
        };
        let report = RunReport {
            title: self.title.clone(),
            command: options.command.clone(),
            config: self.config.to_value()?,
            device: options.device_name.clone(),
            dataset: data.dataset,
            sweeps: vec![sweep.clone()],
            ..RunReport::default()
        };
        publish(&report, run, &table(&sweep))?;
        Ok(Some(sweep))
    }
}

/// Retrieval of a finished run.
fn scores<C>(run: &Path, variant: &Variant<C>) -> Result<SweepRow> {
    let file = run.join(METRICS_FILE);
    let read = || -> Result<Metrics> { Ok(serde_json::from_slice(&fs::read(&file)?)?) };
    let metrics = read().with_context(|| format!("cannot read {}", file.display()))?;
    let after = metrics.retrieval.after;
    let after = after.with_context(|| format!("{} has no retrieval", file.display()))?;
    Ok(SweepRow {
        value: variant.value.clone(),
        numbers: vec![
            after.scores.image_to_text.recall_at_1,
            after.scores.text_to_image.recall_at_1,
            after.r_sum,
        ],
        numeric: variant.number,
    })
}

/// A comparison for a person to read.
fn table(sweep: &Sweep) -> String {
    let rows = || sweep.rows.iter().chain(&sweep.baseline);
    let names = rows().map(|row| row.value.chars().count());
    let width = names.chain([sweep.parameter.chars().count()]).max();
    let width = width.unwrap_or_default();
    let mut text = format!("{:width$}", sweep.parameter);
    for column in &sweep.columns {
        text += &format!("  {column}");
    }
    for row in rows() {
        text += &format!("\n{:width$}", row.value);
        for (number, column) in row.numbers.iter().zip(&sweep.columns) {
            text += &format!("  {number:>width$.2}", width = column.chars().count());
        }
    }
    text
}
