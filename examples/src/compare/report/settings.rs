//! The settings that were chosen, and what a step costs.

use burn_contrastive::objective::{Input, ObjectiveConfig};
use burn_contrastive::schedule::Schedule;

use super::document::Block;
use super::measures::{fixed, listed, percent};
use super::tables::called;
use crate::compare::contenders::{ALL, BASELINE, Contender};
use crate::compare::results::{Choice, Results, Run};
use crate::compare::search::setting;
use crate::compare::trial::MOMENTUM;

/// The settings that were chosen, and from what.
pub(super) fn chosen(results: &Results) -> Vec<Block> {
    let protocol = &results.setup.protocol;
    let rows = ALL.iter().filter_map(|contender| {
        let chosen = results.chosen.get(contender.name)?;
        let value = setting(&chosen.objective, &chosen.parameter);
        let (first, last) = (chosen.tried.first()?, chosen.tried.last()?);
        let edge = if value == Some(*first) || value == Some(*last) {
            ", an end"
        } else {
            ""
        };
        let tried: Vec<String> = chosen.tried.iter().map(shown).collect();
        Some(vec![
            called(contender),
            format!(
                "`{}` {}{edge}",
                chosen.parameter,
                value.as_ref().map_or("–".into(), shown)
            ),
            tried.join(", "),
            chosen.learning_rate.to_string(),
            fixed(chosen.validation, 1),
            besides(chosen),
        ])
    });
    let columns = [
        "objective",
        "chosen",
        "tried",
        "learning rate",
        "validation R@sum",
        "not at its default, and what changes over the training",
    ];
    let rates: Vec<String> = protocol.learning_rates.iter().map(f64::to_string).collect();
    vec![
        Block::Text(format!(
            "By R@sum of the validation images, at a rate of {} with a seed of its own, each value \
             with learning rates of {}. *An end*: the best is still at an end of what was tried. \
             What the last column does not name is at its default in the crate.{}",
            percent(protocol.search_rate),
            listed(&rates),
            calibrated(results)
        )),
        Block::Table {
            columns: columns.map(String::from).to_vec(),
            rows: rows.collect(),
        },
    ]
}

/// A number, or a setting, with a minus sign where it has one.
fn shown(value: &impl ToString) -> String {
    value.to_string().replace('-', "−")
}

/// Where the weight temperatures of SRCL come from.
fn calibrated(results: &Results) -> String {
    let searched = results.chosen.get("srcl-searched");
    let searched = searched.and_then(|chosen| setting(&chosen.objective, &chosen.parameter));
    let own = burn_contrastive::weighting::SimilarityRegulation::calibrated();
    searched.map_or(String::new(), |searched| {
        format!(
            " `srcl-calibrated` is `SrclConfig::calibrated()`, whose weight temperature of {} is \
             fitted to the figures of SRCL's paper; that of `srcl-searched` is searched: \
             {searched}.",
            own.weight_temperature
        )
    })
}

/// What is set and not searched, and not as the crate has it; schedules; momentum.
fn besides(chosen: &Choice) -> String {
    let objective = &chosen.objective;
    let settings = serde_json::to_value(objective).unwrap_or_default();
    let name = settings["objective"].as_str().unwrap_or_default();
    let default = ObjectiveConfig::named(name).ok();
    let default = default.and_then(|default| serde_json::to_value(default).ok());
    let default = default.unwrap_or_default();
    let mut parts = Vec::new();
    for (key, value) in settings.as_object().into_iter().flatten() {
        let is_shown = *key != chosen.parameter && key != "schedule" && default[key] != *value;
        if is_shown {
            parts.push(format!("`{key}` {}", shown(value)));
        }
    }
    let schedules = serde_json::to_value(objective.schedules()).unwrap_or_default();
    for (key, schedule) in schedules.as_object().into_iter().flatten() {
        if let Ok(schedule) = serde_json::from_value::<Schedule>(schedule.clone()) {
            parts.push(format!("`{key}` {}", over(&schedule)));
        }
    }
    if objective.needs().contains(&Input::MomentumImage) {
        parts.push(format!("momentum encoder with momentum {MOMENTUM}"));
    }
    if parts.is_empty() {
        "–".to_string()
    } else {
        parts.join("; ")
    }
}

/// A schedule in words.
fn over(schedule: &Schedule) -> String {
    let Schedule {
        from,
        to,
        begin,
        end,
        ..
    } = schedule;
    let share = |share: &f64| fixed(100.0 * share, 0);
    let when = if (*begin, *end) == (0.0, 1.0) {
        "over all steps".to_string()
    } else {
        format!("from {} to {} % of the steps", share(begin), share(end))
    };
    format!("from {from} to {to} {when}")
}

/// Time and memory of a step.
pub(super) fn costs(results: &Results) -> Vec<Block> {
    let baseline = Contender::named(BASELINE).and_then(|one| Cost::of(results, one));
    let rows = ALL.iter().filter_map(|contender| {
        let cost = Cost::of(results, contender)?;
        let milliseconds = |seconds: f64| fixed(1e3 * seconds, 1);
        let ratio = baseline
            .as_ref()
            .map_or(f64::NAN, |baseline| cost.median / baseline.median);
        Some(vec![
            called(contender),
            cost.runs.to_string(),
            milliseconds(cost.median),
            format!(
                "{} to {}",
                milliseconds(cost.least),
                milliseconds(cost.greatest)
            ),
            fixed(ratio, 2),
            cost.bytes
                .map_or("–".to_string(), |bytes| fixed(bytes as f64 / 1e6, 1)),
        ])
    });
    let columns = [
        "objective",
        "runs",
        "ms a step, median",
        "least to greatest",
        "times `info-nce`",
        "MB of the third step",
    ];
    vec![
        Block::Text(
            "Of each run the median time of a step, from a batch in memory to the updated model, \
             on one core; here the median, the least and the greatest of all runs of an \
             objective, those of the search too. Runs are side by side with another one and with \
             other programs, not all with the same, so that objectives are only told apart where \
             their ranges are. Memory is the most that the third step of a run allocates beside \
             what is kept from step to step, the greatest of the runs. Training a teacher and \
             embedding the pairs by it are in neither; a momentum encoder is in both."
                .to_string(),
        ),
        Block::Table {
            columns: columns.map(String::from).to_vec(),
            rows: rows.collect(),
        },
    ]
}

/// What steps of an objective cost.
struct Cost {
    runs: usize,
    median: f64,
    least: f64,
    greatest: f64,
    bytes: Option<u64>,
}

impl Cost {
    fn of(results: &Results, contender: &Contender) -> Option<Self> {
        let all = results.runs.iter();
        let all: Vec<&Run> = all
            .filter(|run| run.trial.contender == contender.name && run.failure.is_none())
            .collect();
        let mut seconds: Vec<f64> = all.iter().map(|run| run.step_seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let middle = [(seconds.len().checked_sub(1)?) / 2, seconds.len() / 2];
        Some(Self {
            runs: seconds.len(),
            median: middle.map(|place| seconds[place]).iter().sum::<f64>() / 2.0,
            least: seconds[0],
            greatest: *seconds.last()?,
            bytes: all.iter().filter_map(|run| run.step_bytes).max(),
        })
    }
}
