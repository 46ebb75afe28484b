//! The charts of the report.

use super::document::{Block, Chart};
use super::measures::{Measure, NDCG, SUM, percent, runs, sample};
use crate::compare::contenders::{BASELINE, ORACLE};
use crate::compare::probe::Look;
use crate::compare::results::Results;
use crate::number::fixed;
use crate::report::chart::{Line, Stroke, lines_over};
use crate::report::palette::Role;

/// What is drawn, with the colour: the baseline, the papers' three ways, and the oracle.
const DRAWN: [(&str, Role); 5] = [
    (BASELINE, Role::Reference),
    ("srcl-calibrated", Role::First),
    ("false-negative-removal", Role::Second),
    ("reco", Role::Negative),
    (ORACLE, Role::Positive),
];

/// Retrieval over the false-negative rate.
pub(super) fn rates(results: &Results) -> Vec<Block> {
    [SUM, NDCG]
        .into_iter()
        .filter_map(|measure| rate_chart(results, measure))
        .map(Block::Chart)
        .collect()
}

fn rate_chart(results: &Results, measure: Measure) -> Option<Chart> {
    let (mut lines, mut legend, mut words) = (Vec::new(), Vec::new(), Vec::new());
    for (name, role) in DRAWN {
        let mut points = Vec::new();
        for &rate in &results.setup.protocol.rates {
            let sample = sample(results, name, rate, measure);
            if sample.values.is_empty() {
                continue;
            }
            let (at, mean) = (100.0 * rate, sample.mean());
            points.push((at, mean));
            if let Some(error) = sample.error() {
                lines.push(Line {
                    role,
                    stroke: Stroke::Faint,
                    points: vec![(at, mean - error), (at, mean + error)],
                });
            }
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            continue;
        };
        let [from, to] = [first.1, last.1].map(|value| fixed(value, measure.decimals));
        words.push(format!("`{name}` {from} to {to}"));
        legend.push((role, name.to_string()));
        lines.push(Line {
            role,
            stroke: Stroke::Dotted,
            points,
        });
    }
    let rates = &results.setup.protocol.rates;
    let [first, last] = [rates.first()?, rates.last()?].map(|&rate| percent(rate));
    Some(Chart {
        title: format!("{} by the rate of false negatives", measure.name),
        legend,
        svg: lines_over("pairs of a batch with a false negative, %", &lines)?,
        description: format!(
            "From {first} to {last}: {}. Bars are standard errors of the mean.",
            words.join(", ")
        ),
    })
}

/// What looks are drawn: the objective, what of it, its colour and its name.
type Drawn = (&'static str, fn(&Look) -> Option<f64>, Role, &'static str);

const WEIGHTS: [Drawn; 4] = [
    (
        "srcl",
        |look| look.teacher,
        Role::Reference,
        "teacher alone",
    ),
    ("srcl", |look| look.weights, Role::First, "weights of srcl"),
    (
        "false-negative-removal",
        |look| look.weights,
        Role::Second,
        "weights of removal",
    ),
    (
        BASELINE,
        |look| look.student,
        Role::Positive,
        "model of info-nce",
    ),
];

/// How well weights tell false negatives, over the training at the highest rate.
pub(super) fn weights(results: &Results) -> Vec<Block> {
    let Some(&rate) = results.setup.protocol.rates.last() else {
        return Vec::new();
    };
    let (mut lines, mut legend) = (Vec::new(), Vec::new());
    for (contender, of, role, name) in WEIGHTS {
        let points = areas(results, contender, rate, of);
        if points.is_empty() {
            continue;
        }
        legend.push((role, name.to_string()));
        lines.push(Line {
            role,
            stroke: Stroke::Dotted,
            points,
        });
    }
    let chart = lines_over("step", &lines).map(|svg| Chart {
        title: "Area under the ROC curve of low weights for false negatives".to_string(),
        legend,
        svg,
        description: format!(
            "Over the training at {}: the chance that a false negative weighs less than another \
             negative; 0.5 is a coin.",
            percent(rate)
        ),
    });
    chart.map(Block::Chart).into_iter().collect()
}

/// The mean area over the runs of an objective at a rate, at each look.
pub(super) fn areas(
    results: &Results,
    contender: &str,
    rate: f64,
    of: fn(&Look) -> Option<f64>,
) -> Vec<(f64, f64)> {
    let measured: Vec<_> = runs(results, contender, rate)
        .filter(|run| run.failure.is_none())
        .collect();
    let places = measured.first().map_or(0, |run| run.looks.len());
    let mean = |place: usize| {
        let looks = measured.iter().filter_map(|run| run.looks.get(place));
        let areas: Option<Vec<f64>> = looks.map(of).collect();
        let areas = areas.filter(|areas| !areas.is_empty())?;
        let step = measured.first()?.looks.get(place)?.step as f64;
        Some((step, areas.iter().sum::<f64>() / areas.len() as f64))
    };
    (0..places).filter_map(mean).collect()
}
