//! The tables of what was measured.

use super::document::Block;
use super::findings::change_name;
use super::measures::{
    Compared, Measure, NDCG, OTHERS, SUM, change, compared, compared_to, difference, fixed, listed,
    mean, not_finite, over_rates, percent, probabilities, runs, sample,
};
use crate::compare::chance::Chance;
use crate::compare::contenders::{ALL, BASELINE, Contender, ORACLE};
use crate::compare::results::Results;

/// A section for each rate.
pub(super) fn rates(results: &Results) -> Vec<Block> {
    let rates = results.setup.protocol.rates.iter();
    rates.flat_map(|&rate| at(results, rate)).collect()
}

/// The objectives at a rate, the best by R@sum first.
fn at(results: &Results, rate: f64) -> Vec<Block> {
    let mut blocks = vec![Block::Heading(format!("At a rate of {}", percent(rate)))];
    let (columns, rows) = table(results, rate);
    blocks.push(if rows.is_empty() {
        Block::Text("No run is done yet.".to_string())
    } else {
        Block::Table { columns, rows }
    });
    let failed = ALL.iter().flat_map(|one| runs(results, one.name, rate));
    let failed = failed.filter_map(|run| {
        let trial = &run.trial;
        let why = run.failure.as_ref()?;
        Some(format!("`{}`, seed {}: {why}", trial.contender, trial.seed))
    });
    let failed: Vec<String> = failed.collect();
    if !failed.is_empty() {
        blocks.push(Block::Text(format!("Failed: {}.", failed.join("; "))));
    }
    let missing = not_finite(results, rate);
    if !missing.is_empty() {
        blocks.push(Block::Text(format!(
            "Not finite, and in no mean: {}.",
            listed(&missing)
        )));
    }
    blocks
}

/// The columns of the table of a rate, and its rows.
fn table(results: &Results, rate: f64) -> (Vec<String>, Vec<Vec<String>>) {
    let has = |measure: &Measure| {
        let mut samples = ALL
            .iter()
            .map(|one| sample(results, one.name, rate, *measure));
        samples.any(|sample| !sample.values.is_empty())
    };
    let (before, after) = OTHERS.split_at(2);
    let after: Vec<_> = after.iter().filter(|measure| has(measure)).collect();
    let differences = [SUM, NDCG].map(|measure| compared(results, rate, measure));
    let mut rows = Vec::new();
    for (place, contender) in ALL.iter().enumerate() {
        let of = |measure: Measure| sample(results, contender.name, rate, measure);
        let sum = of(SUM);
        let seeds = runs(results, contender.name, rate).filter(|run| run.test.is_some());
        let seeds = seeds.count();
        if seeds == 0 {
            continue;
        }
        let shown = |measure: &Measure| mean(&of(*measure), measure.decimals);
        let mut cells = vec![called(contender), seeds.to_string()];
        cells.extend(before.iter().map(shown));
        for (measure, differences) in [SUM, NDCG].iter().zip(&differences) {
            cells.push(shown(measure));
            cells.extend(differs(differences[place].as_ref(), *measure));
        }
        cells.extend(after.iter().map(|measure| shown(measure)));
        rows.push((sum.mean(), cells));
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut columns = vec!["objective".to_string(), "seeds".to_string()];
    columns.extend(before.iter().map(|measure| measure.name.to_string()));
    for measure in [SUM, NDCG] {
        columns.push(measure.name.to_string());
        columns.extend(difference_columns(measure.name));
    }
    columns.extend(after.iter().map(|measure| measure.name.to_string()));
    let mut rows: Vec<Vec<String>> = rows.into_iter().map(|(_, cells)| cells).collect();
    if let Some(chance) = results.chance.as_ref().filter(|_| !rows.is_empty()) {
        rows.push(by_chance(chance, columns.len()));
    }
    (columns, rows)
}

fn difference_columns(name: &str) -> [String; 2] {
    [format!("Δ {name}"), format!("p; adjusted ({name})")]
}

fn differs(compared: Option<&Compared>, measure: Measure) -> [String; 2] {
    [
        difference(compared, measure.decimals),
        probabilities(compared),
    ]
}

/// The row of a random order.
fn by_chance(chance: &Chance, columns: usize) -> Vec<String> {
    let percent = |value: f64| fixed(value, 1);
    let none = || "–".to_string();
    let mut cells = vec!["a random order".to_string(), none()];
    cells.extend(
        [
            chance.image_to_text,
            chance.text_to_image,
            chance.recall_sum,
        ]
        .map(percent),
    );
    cells.extend([
        none(),
        none(),
        percent(chance.by_equality.ndcg),
        none(),
        none(),
    ]);
    cells.push(percent(chance.by_equality.r_precision));
    if let Some(overlap) = chance.by_overlap {
        cells.extend([overlap.ndcg, overlap.r_precision].map(percent));
    }
    cells.resize_with(columns, none);
    cells
}

/// An objective with what it is here for.
pub(super) fn called(contender: &Contender) -> String {
    match contender.name {
        BASELINE => format!("`{BASELINE}`, the baseline"),
        ORACLE => format!("`{ORACLE}`, the oracle"),
        name => format!("`{name}`"),
    }
}

/// All objectives over the rates: the mean difference, and how it changes.
pub(super) fn over_the_rates(results: &Results) -> Vec<Block> {
    let rates = &results.setup.protocol.rates;
    if rates.len() < 2 {
        return Vec::new();
    }
    let mut blocks = vec![Block::Text(format!(
        "For each seed, a figure's mean over the rates, and its {}. Both are compared as figures \
         at one rate are, with one value a seed: runs of one seed have the same first parameters \
         at all rates, so that they are no independent runs. The mean has the most power.",
        change_name(rates)
    ))];
    for measure in [SUM, NDCG] {
        let overall = compared_to(BASELINE, |name| over_rates(results, name, measure));
        let changes = compared_to(BASELINE, |name| change(results, name, measure));
        let mut rows = Vec::new();
        for (place, contender) in ALL.iter().enumerate() {
            let own = over_rates(results, contender.name, measure);
            if own.values.is_empty() {
                continue;
            }
            let mut cells = vec![called(contender), mean(&own, measure.decimals)];
            cells.extend(differs(overall[place].as_ref(), measure));
            let own_change = change(results, contender.name, measure);
            cells.push(mean(&own_change, measure.decimals));
            cells.extend(differs(changes[place].as_ref(), measure));
            rows.push((own.mean(), cells));
        }
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut columns = vec![format!("{}: objective", measure.name)];
        for name in ["mean".to_string(), change_name(rates)] {
            columns.extend([name.clone()].into_iter().chain(difference_columns(&name)));
        }
        blocks.push(Block::Table {
            columns,
            rows: rows.into_iter().map(|(_, cells)| cells).collect(),
        });
    }
    blocks
}
