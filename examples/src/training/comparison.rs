//! Several runs of a system that differ in a setting or in their seeds, and their scores side by
//! side.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::train::Interrupter;

use super::config::TrainingConfig;
use super::folder::TOKENIZER_FILE;
use super::options::Options;
use super::plan::Plan;
use super::run::{CONFIG_FILE, METRICS_FILE, Program, publish, stage};
use super::system::SystemConfig;
use crate::console::say;
use crate::report::html::duration;
use crate::report::{Metrics, RunReport, Sweep, SweepRow, SweepRun};

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

/// Gives the settings of a run what was trained before, which is in those that all runs share.
pub type Share<C> = fn(&TrainingConfig<C>, &mut TrainingConfig<C>);

/// Runs that differ in a setting.
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
    /// settings once that is done. `None` where each run trains all that it needs.
    pub share: Option<Share<C>>,
}

impl<C> Comparison<C> {
    /// Trains all runs, each as often as `plan` says with seeds that count up from its own, as
    /// [stages](stage) in one folder, which resumes at the first that is not finished, and reports.
    /// All runs of a seed come before those of the next. `None` if one is interrupted.
    ///
    /// # Errors
    ///
    /// As [`run`](super::run::run), and if the scores of a run cannot be read.
    pub fn run<S: Program<Config = C>>(
        &self,
        plan: &Plan,
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
        plan.write(run)?;
        self.config.write(&run.join(CONFIG_FILE))?;
        // All runs read the same tokens.
        let data = S::open(&self.config, options, Some(run))?;
        data.tokenizer.save(run.join(TOKENIZER_FILE))?;
        let prepared = match self.share {
            Some(_) => S::prepare(&self.config, &data, options, run, interrupter)?,
            None => Some(self.config.clone()),
        };
        let Some(prepared) = prepared else {
            return Ok(None);
        };
        let variants: Vec<_> = self.variants.iter().chain(&self.baseline).collect();
        let mut runs: Vec<Vec<SweepRun>> = variants.iter().map(|_| Vec::new()).collect();
        let mut columns: Option<Vec<String>> = None;
        let mut left = Left::new(plan.seeds * variants.len());
        for seed in 0..plan.seeds {
            for (variant, runs) in variants.iter().zip(&mut runs) {
                let (name, config) = self.one(variant, seed, plan.seeds, &prepared)?;
                if !run.join(&name).join(METRICS_FILE).is_file() {
                    left.tell(&variant.value, config.shared.seed);
                }
                let Some(trained) = stage::<S>(&name, &config, options, run, interrupter)? else {
                    return Ok(None);
                };
                left.done();
                let (names, numbers) = figures(&trained)?;
                let expected = columns.get_or_insert_with(|| names.clone());
                ensure!(
                    *expected == names,
                    "{} was scored by {}, the runs before by {}",
                    trained.display(),
                    names.join(", "),
                    expected.join(", "),
                );
                runs.push(SweepRun { name, numbers });
            }
        }
        let rows = variants.iter().zip(runs);
        let mut rows: Vec<_> = rows
            .map(|(variant, runs)| SweepRow::of_runs(variant.value.clone(), variant.number, runs))
            .collect();
        let baseline = self.baseline.as_ref().and_then(|_| rows.pop());
        let sweep = Sweep {
            title: self.title.clone(),
            parameter: self.parameter.clone(),
            columns: columns.unwrap_or_default(),
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

    /// The folder and the settings of a variant's run with its `index`-th seed, of so many.
    fn one(
        &self,
        variant: &Variant<C>,
        index: usize,
        seeds: usize,
        prepared: &TrainingConfig<C>,
    ) -> Result<(String, TrainingConfig<C>)>
    where
        C: Clone,
    {
        let mut config = variant.config.clone();
        if let Some(share) = self.share {
            share(prepared, &mut config);
        }
        let seed = config.shared.seed.checked_add(index as u64);
        config.shared.seed = seed.context("the seeds after `seed` exceed 64 bits")?;
        let name = if seeds == 1 {
            variant.folder.clone()
        } else {
            format!("{}-seed-{}", variant.folder, config.shared.seed)
        };
        Ok((name, config))
    }
}

/// How many runs are left, and how long they will take.
struct Left {
    total: usize,
    done: usize,
    since: Instant,
    trained: usize,
}

impl Left {
    fn new(total: usize) -> Self {
        Self {
            total,
            done: 0,
            since: Instant::now(),
            trained: 0,
        }
    }

    /// Says which run begins, and when all may be done by the time of those that were trained now.
    fn tell(&mut self, value: &str, seed: u64) {
        let seconds = self.since.elapsed().as_secs_f64() / self.trained.max(1) as f64;
        let left = seconds * (self.total - self.done) as f64;
        let left = Some(left).filter(|_| self.trained > 0);
        let left = left.and_then(duration);
        let left = left.map_or(String::new(), |left| format!("; about {left} for the rest"));
        say(format_args!(
            "\nRun {} of {}: {value}, seed {seed}{left}",
            self.done + 1,
            self.total
        ));
        self.trained += 1;
    }

    fn done(&mut self) {
        self.done += 1;
    }
}

/// The figures of a finished run, with their names.
fn figures(run: &Path) -> Result<(Vec<String>, Vec<f64>)> {
    let file = run.join(METRICS_FILE);
    let read = || -> Result<Metrics> { Ok(serde_json::from_slice(&fs::read(&file)?)?) };
    let metrics = read().with_context(|| format!("cannot read {}", file.display()))?;
    let figures = metrics.figures();
    ensure!(!figures.is_empty(), "{} has no scores", file.display());
    let figures = figures.into_iter();
    Ok(figures
        .map(|(name, value)| (name.to_string(), value))
        .unzip())
}

/// A comparison for a person to read.
fn table(sweep: &Sweep) -> String {
    let rows = || sweep.rows.iter().chain(&sweep.baseline);
    let names = rows().map(|row| row.value.clone());
    let mut columns = vec![aligned(&sweep.parameter, names, false)];
    for (column, name) in sweep.columns.iter().enumerate() {
        let shown = rows().map(|row| {
            let spread = row.deviation(column).zip(row.standard_error(column));
            let spread =
                spread.map(|(deviation, error)| format!(" ± {deviation:.2} (s.e. {error:.2})"));
            format!("{:.2}{}", row.numbers[column], spread.unwrap_or_default())
        });
        columns.push(aligned(name, shown, true));
    }
    let medians = rows().map(|row| match row.median() {
        Some(median) => format!("  median {}", median.name),
        None => String::new(),
    });
    let medians = [String::new()].into_iter().chain(medians);
    let lines = medians.enumerate().map(|(line, median)| {
        let cells: Vec<&str> = columns.iter().map(|cells| cells[line].as_str()).collect();
        cells.join("  ") + &median
    });
    let mut text = lines.collect::<Vec<_>>().join("\n");
    if rows().any(|row| !row.runs.is_empty()) {
        text +=
            "\n± standard deviation of the runs (of a sample), s.e. standard error of their mean";
    }
    text
}

/// The cells of a column, with its name above them, as wide as the widest.
fn aligned(name: &str, cells: impl Iterator<Item = String>, is_right: bool) -> Vec<String> {
    let cells: Vec<String> = [name.to_string()].into_iter().chain(cells).collect();
    let widths = cells.iter().map(|cell| cell.chars().count());
    let width = widths.max().unwrap_or_default();
    let pad = |cell: String| {
        if is_right {
            format!("{cell:>width$}")
        } else {
            format!("{cell:width$}")
        }
    };
    cells.into_iter().map(pad).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_deviations_and_errors() {
        let run = |name: &str, numbers: [f64; 2]| SweepRun {
            name: name.to_string(),
            numbers: numbers.to_vec(),
        };
        let several = vec![
            run("a-seed-0", [30.0, 400.0]),
            run("a-seed-1", [34.0, 404.0]),
        ];
        let sweep = |rows: Vec<SweepRow>| Sweep {
            parameter: "objective".to_string(),
            columns: vec!["R@1".to_string(), "R@sum of the folds".to_string()],
            rows,
            ..Sweep::default()
        };
        let several = SweepRow::of_runs("a".to_string(), None, several);
        let one = SweepRow::of_runs("b".to_string(), None, vec![run("b", [1.5, 20.0])]);
        let expected = "\
objective                       R@1         R@sum of the folds
a          32.00 ± 2.83 (s.e. 2.00)  402.00 ± 2.83 (s.e. 2.00)  median a-seed-0
b                              1.50                      20.00
± standard deviation of the runs (of a sample), s.e. standard error of their mean";
        assert_eq!(table(&sweep(vec![several, one.clone()])), expected);
        let expected = "\
objective   R@1  R@sum of the folds
b          1.50               20.00";
        assert_eq!(table(&sweep(vec![one])), expected);
    }
}
