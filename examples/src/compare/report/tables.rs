//! The tables of the report.

use burn_contrastive::objective::ObjectiveConfig;
use serde_json::Value;

use super::charts::areas;
use super::document::Block;
use super::measures::{
    Measure, NDCG, OTHERS, SUM, compared, difference, mean, percent, probability, runs, sample,
};
use crate::compare::contenders::{ALL, BASELINE, Contender, ORACLE};
use crate::compare::probe::Look;
use crate::compare::results::{Results, Run};
use crate::compare::trial::Stage;
use crate::number::{counted, fixed};

/// A section for each rate.
pub(super) fn rates(results: &Results) -> Vec<Block> {
    let rates = results.setup.protocol.rates.iter();
    rates.flat_map(|&rate| at(results, rate)).collect()
}

/// The objectives at a rate, the best by R@sum first.
fn at(results: &Results, rate: f64) -> Vec<Block> {
    let has = |measure: &Measure| {
        let mut samples = ALL
            .iter()
            .map(|one| sample(results, one.name, rate, *measure));
        samples.any(|sample| !sample.values.is_empty())
    };
    let [before, after] = OTHERS.split_at(2).into();
    let after: Vec<_> = after.iter().filter(|measure| has(measure)).collect();
    let differences = [SUM, NDCG].map(|measure| compared(results, rate, measure));
    let mut rows = Vec::new();
    for (place, contender) in ALL.iter().enumerate() {
        let of = |measure: Measure| sample(results, contender.name, rate, measure);
        let sum = of(SUM);
        if sum.values.is_empty() {
            continue;
        }
        let shown = |measure: &Measure| mean(&of(*measure), measure.decimals);
        let mut cells = vec![called(contender), sum.values.len().to_string()];
        cells.extend(before.iter().map(shown));
        for (measure, differences) in [SUM, NDCG].iter().zip(&differences) {
            let of_baseline = differences[place].as_ref();
            cells.push(shown(measure));
            cells.push(difference(of_baseline, measure.decimals));
            cells.push(probability(of_baseline));
        }
        cells.extend(after.iter().map(|measure| shown(measure)));
        rows.push((sum.mean(), cells));
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut columns = vec!["objective", "seeds"];
    columns.extend(before.iter().map(|measure| measure.name));
    for measure in [SUM, NDCG] {
        columns.extend([measure.name, "Δ", "p"]);
    }
    columns.extend(after.iter().map(|measure| measure.name));
    let failed: Vec<String> = ALL
        .iter()
        .flat_map(|one| runs(results, one.name, rate))
        .filter_map(|run| {
            Some(format!(
                "`{}`: {}",
                run.trial.contender,
                run.failure.as_ref()?
            ))
        })
        .collect();
    let mut blocks = vec![Block::Heading(format!("At a rate of {}", percent(rate)))];
    blocks.push(if rows.is_empty() {
        Block::Text("No run is done yet.".to_string())
    } else {
        Block::Table {
            columns: columns.into_iter().map(String::from).collect(),
            rows: rows.into_iter().map(|(_, cells)| cells).collect(),
        }
    });
    if !failed.is_empty() {
        blocks.push(Block::Text(format!("Failed: {}.", failed.join("; "))));
    }
    blocks
}

fn called(contender: &Contender) -> String {
    match contender.name {
        BASELINE => format!("`{BASELINE}`, the baseline"),
        ORACLE => format!("`{ORACLE}`, the oracle"),
        name => format!("`{name}`"),
    }
}

/// A source of weights: the objective, what of it, and its name.
type Source = (&'static str, fn(&Look) -> Option<f64>, &'static str);

const SOURCES: [Source; 7] = [
    ("srcl", |look| look.weights, "weights of `srcl`"),
    (
        "srcl-calibrated",
        |look| look.weights,
        "weights of `srcl-calibrated`",
    ),
    (
        "false-negative-removal",
        |look| look.weights,
        "weights of `false-negative-removal`",
    ),
    ("srcl", |look| look.teacher, "the teacher alone"),
    ("srcl", |look| look.student, "the model of `srcl` alone"),
    (
        BASELINE,
        |look| look.student,
        "the model of `info-nce` alone",
    ),
    (
        ORACLE,
        |look| look.student,
        "the model of `multi-positive` alone",
    ),
];

/// How well weights tell false negatives.
pub(super) fn weights(results: &Results) -> Vec<Block> {
    let steps = results.setup.training.shared.schedule.steps as f64;
    let protocol = &results.setup.protocol;
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    for &rate in [protocol.rates.first(), protocol.rates.last()]
        .into_iter()
        .flatten()
    {
        for (contender, of, name) in SOURCES {
            let points = areas(results, contender, rate, of);
            if points.is_empty() {
                continue;
            }
            columns = points
                .iter()
                .map(|(step, _)| format!("{} % of the steps", fixed(100.0 * step / steps, 0)))
                .collect();
            let areas = points.iter().map(|(_, area)| fixed(*area, 3));
            let first = format!("{name}, trained at {}", percent(rate));
            rows.push(std::iter::once(first).chain(areas).collect());
        }
    }
    columns.insert(0, "weights by".to_string());
    let batches = protocol.probe_batches;
    vec![
        Block::Text(format!(
            "The area under the ROC curve: the chance that a truly false negative weighs less \
             than another negative, in {batches} batches of training pairs at a rate of {}, the \
             same for all runs; the mean over the seeds. *Alone* means by the similarities of \
             one model only, which is what could be weighed by without the other.",
            percent(protocol.probe_rate)
        )),
        Block::Table { columns, rows },
    ]
}

/// Time and memory of a step.
pub(super) fn costs(results: &Results) -> Vec<Block> {
    let cost = |contender: &Contender| {
        let all = results
            .runs
            .iter()
            .filter(|run| run.trial.contender == contender.name && run.failure.is_none());
        let all: Vec<&Run> = all.collect();
        let seconds = all.iter().map(|run| run.step_seconds);
        let bytes = all.iter().filter_map(|run| run.step_bytes).max();
        let seconds = seconds.reduce(f64::min)?;
        Some((seconds, bytes))
    };
    let baseline = Contender::named(BASELINE).and_then(cost);
    let rows = ALL.iter().filter_map(|contender| {
        let (seconds, bytes) = cost(contender)?;
        let ratio = baseline.map_or(f64::NAN, |(baseline, _)| seconds / baseline);
        let bytes = bytes.map_or("–".to_string(), |bytes| fixed(bytes as f64 / 1e6, 1));
        let milliseconds = fixed(1e3 * seconds, 1);
        Some(vec![
            called(contender),
            milliseconds,
            fixed(ratio, 2),
            bytes,
        ])
    });
    let columns = ["objective", "ms a step", "times `info-nce`", "MB a step"];
    vec![
        Block::Text(
            "From a batch in memory to the updated model, on one core, with as many runs beside \
             it as there are cores: the least of the medians of an objective's runs, since what \
             else the machine does only adds to it. Memory is the most that a step allocates \
             beside what is kept from step to step. Training a teacher and embedding the pairs by \
             it are not in it; a momentum encoder is."
                .to_string(),
        ),
        Block::Table {
            columns: columns.map(String::from).to_vec(),
            rows: rows.collect(),
        },
    ]
}

/// The settings that were chosen, and from what.
pub(super) fn chosen(results: &Results) -> Vec<Block> {
    let protocol = &results.setup.protocol;
    let rows = ALL.iter().filter_map(|contender| {
        let chosen = results.chosen.get(contender.name)?;
        let value = value(&chosen.objective, &chosen.parameter);
        let tried = chosen.tried.iter().map(f64::to_string);
        let (first, last) = (chosen.tried.first()?, chosen.tried.last()?);
        let edge = if value == *first || value == *last {
            ", an end"
        } else {
            ""
        };
        Some(vec![
            called(contender),
            format!("`{}` {value}{edge}", chosen.parameter),
            tried.collect::<Vec<_>>().join(", "),
            format!("{}", chosen.learning_rate),
            fixed(chosen.validation, 1),
        ])
    });
    let columns = [
        "objective",
        "chosen",
        "tried",
        "learning rate",
        "validation R@sum",
    ];
    let rates = protocol.learning_rates.iter().map(f64::to_string);
    let is_left_out = |run: &&Run| {
        let contender = Contender::named(&run.trial.contender);
        let searched = contender.map(|one| one.searched(results));
        run.trial.stage == Stage::Search
            && !searched.is_some_and(|searched| searched.contains(&run.trial))
    };
    let left_out = match results.runs.iter().filter(is_left_out).count() {
        0 => String::new(),
        count => format!(
            " The file has {} of the search more, with values that are not among these any more \
             because validation showed them to be far from the best.",
            counted(count as u64, "run")
        ),
    };
    vec![
        Block::Text(format!(
            "By R@sum of the validation images, at a rate of {} with a seed of its own; each with \
             learning rates of {}. Everything else is at its default in the crate.{left_out}",
            percent(protocol.search_rate),
            rates.collect::<Vec<_>>().join(" and ")
        )),
        Block::Table {
            columns: columns.map(String::from).to_vec(),
            rows: rows.collect(),
        },
    ]
}

fn value(objective: &ObjectiveConfig, parameter: &str) -> f64 {
    let settings = serde_json::to_value(objective).unwrap_or(Value::Null);
    settings[parameter].as_f64().unwrap_or(f64::NAN)
}
