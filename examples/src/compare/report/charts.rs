//! The charts of the report.

use super::document::{Block, Chart};
use super::measures::{Measure, NDCG, SUM, fixed, percent, sample};
use super::weights::{SOURCES, Source, areas};
use crate::compare::contenders::{BASELINE, ORACLE};
use crate::compare::results::Results;
use crate::report::chart::{Line, Stroke, lines_over};
use crate::report::palette::Role;

/// What is drawn, with its colour: the baseline, the papers' ways, and the oracle.
const DRAWN: [(&str, Role); 6] = [
    (BASELINE, Role::Reference),
    ("srcl-calibrated", Role::First),
    ("false-negative-removal", Role::Second),
    ("reco", Role::Negative),
    ("image-text-contrastive", Role::Text),
    (ORACLE, Role::Positive),
];

/// Retrieval over the false-negative rate; nothing, where there is one rate.
pub(super) fn rates(results: &Results) -> Vec<Block> {
    if results.setup.protocol.rates.len() < 2 {
        return Vec::new();
    }
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
            "From {first} to {last}: {}. Bars are standard errors of each mean alone; what seeds \
             do to all objectives alike is in them, so that bars that meet do not mean that Δ is \
             small beside its error.",
            words.join(", ")
        ),
    })
}

/// How well weights tell false negatives, over the training at the highest rate.
pub(super) fn weights(results: &Results) -> Vec<Block> {
    let Some(&rate) = results.setup.protocol.rates.last() else {
        return Vec::new();
    };
    let (mut lines, mut legend) = (Vec::new(), Vec::new());
    for Source {
        contender,
        of,
        colour,
        drawn,
        ..
    } in SOURCES
    {
        let Some(role) = colour else { continue };
        let points = areas(results, contender, rate, of);
        if points.is_empty() {
            continue;
        }
        legend.push((role, drawn.to_string()));
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
             negative; 0.5 is a coin. `info-nce` and `multi-positive` weigh nothing: theirs is by \
             the similarities of their models.",
            percent(rate)
        ),
    });
    chart.map(Block::Chart).into_iter().collect()
}
