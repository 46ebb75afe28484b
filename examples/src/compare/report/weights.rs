//! Whether weights find the false negatives, and what removal removes.

use super::charts;
use super::document::Block;
use super::measures::{fixed, percent, runs};
use crate::compare::contenders::{BASELINE, ORACLE};
use crate::compare::probe::{Look, Removed};
use crate::compare::results::Results;
use crate::report::palette::Role;

/// What negatives could be weighed by.
pub(super) struct Source {
    /// The objective whose runs have it.
    pub contender: &'static str,
    /// The area.
    pub of: fn(&Look) -> Option<f64>,
    /// Its row in the table.
    name: &'static str,
    /// Its name in the chart, and its colour, if it is there.
    pub drawn: &'static str,
    pub colour: Option<Role>,
    /// Whether it is the same in all runs and at all times.
    is_fixed: bool,
}

const fn source(
    contender: &'static str,
    of: fn(&Look) -> Option<f64>,
    name: &'static str,
) -> Source {
    Source {
        contender,
        of,
        name,
        drawn: contender,
        colour: None,
        is_fixed: false,
    }
}

const fn drawn(colour: Role, source: Source) -> Source {
    Source {
        colour: Some(colour),
        ..source
    }
}

/// All of them.
pub(super) const SOURCES: [Source; 8] = [
    Source {
        drawn: "the teacher",
        is_fixed: true,
        ..drawn(
            Role::Text,
            source("srcl", |look| look.teacher, "the teacher alone"),
        )
    },
    source("srcl", |look| look.weights, "weights of `srcl`"),
    drawn(
        Role::First,
        source(
            "srcl-calibrated",
            |look| look.weights,
            "weights of `srcl-calibrated`",
        ),
    ),
    source(
        "srcl-searched",
        |look| look.weights,
        "weights of `srcl-searched`",
    ),
    drawn(
        Role::Second,
        source(
            "false-negative-removal",
            |look| look.weights,
            "weights of `false-negative-removal`",
        ),
    ),
    source("srcl", |look| look.student, "the model of `srcl` alone"),
    drawn(
        Role::Reference,
        source(
            BASELINE,
            |look| look.student,
            "the model of `info-nce` alone",
        ),
    ),
    drawn(
        Role::Positive,
        source(
            ORACLE,
            |look| look.student,
            "the model of `multi-positive` alone",
        ),
    ),
];

/// The lowest and the highest rate; one, where there is one.
fn ends(results: &Results) -> Vec<f64> {
    match results.setup.protocol.rates.as_slice() {
        [first, .., last] => vec![*first, *last],
        rates => rates.to_vec(),
    }
}

/// The section.
pub(super) fn section(results: &Results) -> Vec<Block> {
    let protocol = &results.setup.protocol;
    let mut blocks = vec![Block::Text(format!(
        "The area under the ROC curve: the chance that a false negative weighs less than another \
         negative, in {} batches at a rate of {}, the same for all runs; the mean over the seeds. \
         They are training pairs, which the teacher was trained on too. *Alone* means by the \
         similarities of one model only.",
        protocol.probe_batches,
        percent(protocol.probe_rate)
    ))];
    blocks.push(table(results));
    blocks.extend(conclusion(results).map(Block::Text));
    blocks.extend(charts::weights(results));
    blocks.extend(removal(results));
    blocks
}

fn table(results: &Results) -> Block {
    let steps = results.setup.training.shared.schedule.steps as f64;
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    for (index, rate) in ends(results).into_iter().enumerate() {
        for source in SOURCES
            .iter()
            .filter(|source| index == 0 || !source.is_fixed)
        {
            let points = areas(results, source.contender, rate, source.of);
            if points.is_empty() {
                continue;
            }
            columns = points
                .iter()
                .map(|(step, _)| format!("{} % of the steps", fixed(100.0 * step / steps, 0)))
                .collect();
            let areas = points.iter().map(|(_, area)| fixed(*area, 3));
            let first = if source.is_fixed {
                source.name.to_string()
            } else {
                format!("{}, trained at {}", source.name, percent(rate))
            };
            rows.push(std::iter::once(first).chain(areas).collect());
        }
    }
    columns.insert(0, "weights by".to_string());
    Block::Table { columns, rows }
}

/// What the areas say, in a sentence.
fn conclusion(results: &Results) -> Option<String> {
    let rate = *results.setup.protocol.rates.last()?;
    let of = |contender, of: fn(&Look) -> Option<f64>| areas(results, contender, rate, of);
    let model = of(BASELINE, |look| look.student);
    let teacher = of("srcl", |look| look.teacher);
    let weights = of("srcl", |look| look.weights);
    let ends = |points: &[(f64, f64)]| Some([points.first()?.1, points.last()?.1]);
    let ([teacher, _], weights, model) = (ends(&teacher)?, ends(&weights)?, ends(&model)?);
    let found = [teacher, weights[1], model[1]]
        .into_iter()
        .fold(1.0, f64::min);
    let verdict = if found > 0.9 {
        " So knowing which negatives are false is not what is wanting here."
    } else {
        ""
    };
    let [weights, model] =
        [weights, model].map(|ends| ends.map(|end| fixed(end, 3)).join(" at the first look to "));
    Some(format!(
        "The teacher finds false negatives with an area of {}. The weights of `srcl`, which go by \
         the teacher at first and by its own model at the end, go from {weights} at the last, and \
         the model of `info-nce`, which is trained to push false negatives away, from {model} \
         (trained at {}).{verdict}",
        fixed(teacher, 3),
        percent(rate)
    ))
}

/// What removal leaves out.
fn removal(results: &Results) -> Vec<Block> {
    let name = "false-negative-removal";
    let mut rows = Vec::new();
    for rate in ends(results) {
        for (of, what) in [
            (
                (|removed| removed.false_negatives) as fn(&Removed) -> f64,
                "false negatives",
            ),
            (|removed| removed.others, "other negatives"),
        ] {
            let points = areas(results, name, rate, |look| look.removed.as_ref().map(of));
            if points.is_empty() {
                continue;
            }
            let shares = points.iter().map(|(_, share)| fixed(100.0 * share, 1));
            let first = format!("{what}, trained at {}", percent(rate));
            rows.push(std::iter::once(first).chain(shares).collect::<Vec<_>>());
        }
    }
    let Some(first) = rows.first() else {
        let text =
            format!("What `{name}` leaves out of the loss was not written down in these runs.");
        return vec![Block::Text(text)];
    };
    let looks = (1..first.len()).map(|look| format!("look {look}"));
    let columns = std::iter::once("removed, %".to_string())
        .chain(looks)
        .collect();
    vec![
        Block::Text(format!(
            "`{name}` leaves out what weighs less than its threshold. Of the negatives of the same \
             batches, at the same moments, in percent:"
        )),
        Block::Table { columns, rows },
    ]
}

/// The mean over the runs of an objective at a rate of what looks have, each with its step; of no
/// look, if a run does not have it.
pub(super) fn areas(
    results: &Results,
    contender: &str,
    rate: f64,
    of: impl Fn(&Look) -> Option<f64>,
) -> Vec<(f64, f64)> {
    let measured: Vec<_> = runs(results, contender, rate)
        .filter(|run| run.failure.is_none())
        .collect();
    let places = measured.first().map_or(0, |run| run.looks.len());
    let mean = |place: usize| {
        let looks = measured.iter().filter_map(|run| run.looks.get(place));
        let areas: Option<Vec<f64>> = looks.map(&of).collect();
        let areas = areas.filter(|areas| !areas.is_empty())?;
        let step = measured.first()?.looks.get(place)?.step as f64;
        Some((step, areas.iter().sum::<f64>() / areas.len() as f64))
    };
    (0..places).filter_map(mean).collect()
}
