//! `report.html`: one page for people, which needs nothing but itself.

mod accuracy;
pub(crate) mod figures;
mod gallery;
pub(crate) mod map;
mod sweeps;
mod tables;
mod weights;
mod zero_shot;

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, Render, html};

pub(super) use gallery::picture;
pub(super) use zero_shot::page as zero_shot;

use super::palette;
use super::thumbnail::Thumbnails;
use super::{Change, DirectionScores, Retrieval, RetrievalScores, RunReport};
use crate::number::{counted, fixed, grouped, rank, score, significant};

const STYLE: &str = include_str!("style.css");
/// The page may show its own styles and images; anything else a browser refuses to load.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// The whole page.
pub(super) fn page(run: &RunReport) -> String {
    let title = match run.title.trim() {
        "" => "Training run",
        title => title,
    };
    let mut thumbnails = Thumbnails::default();
    let main = html! {
        (headline(&run.retrieval))
        @if let Some(accuracy) = &run.accuracy { (accuracy::headline(accuracy)) }
        (retrieval_table(&run.retrieval))
        @if let Some(accuracy) = &run.accuracy { (accuracy::table(accuracy)) }
        (figures::training(run))
        (tables::tables(&run.tables))
        (figures::similarities(&run.similarities))
        (tables::histograms(&run.histograms))
        (map::maps(&run.maps))
        @if let Some(weights) = &run.weights { (weights::weights(weights, &mut thumbnails)) }
        (sweeps::sweeps(&run.sweeps))
        (gallery::examples(&run.examples, &mut thumbnails))
        (accuracy::answers(&run.answers, &mut thumbnails))
        (details(run))
    };
    document(title, facts(run), main)
}

/// A page that needs nothing but itself: title, a line of facts, and what follows.
pub(crate) fn document(title: &str, facts: Vec<String>, main: Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (title) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) (PreEscaped(palette::style_rules())) }
            }
            body {
                header {
                    h1 { (title) }
                    ul.facts { @for fact in facts { li { (fact) } } }
                }
                main { (main) }
                footer { "Written by burn-contrastive " (env!("CARGO_PKG_VERSION")) }
            }
        }
    }
    .into_string()
}

/// What a run was, in a line.
fn facts(run: &RunReport) -> Vec<String> {
    let parameters = run.parameter_total();
    let facts = [
        run.started_at()
            .map(|start| start.replace('T', " ").replace('Z', " UTC")),
        duration(run.seconds_total()),
        (!run.device.is_empty()).then(|| run.device.clone()),
        (parameters > 0).then(|| counted(parameters, "parameter")),
        (!run.dataset.name.is_empty()).then(|| run.dataset.name.clone()),
    ];
    facts.into_iter().flatten().collect()
}

/// `3.2s`, `4m 12s`; `None` where there is nothing to tell.
pub(crate) fn duration(seconds: f64) -> Option<String> {
    if seconds > 0.0 && seconds < 9.95 {
        return Some(format!("{seconds:.1}s"));
    }
    let rounded = Duration::try_from_secs_f64(seconds.round()).ok()?;
    (!rounded.is_zero()).then(|| humantime::format_duration(rounded).to_string())
}

/// The most important results.
pub(crate) fn headline(retrieval: &Retrieval) -> Markup {
    html! {
        @if retrieval.after.is_some() {
            dl.tiles aria-label="Headline results" {
                (tile("Image → text R@1", retrieval, |x| x.image_to_text.recall_at_1, 100.0))
                (tile("Text → image R@1", retrieval, |x| x.text_to_image.recall_at_1, 100.0))
                (tile("R@sum, of 600", retrieval, RetrievalScores::r_sum, 600.0))
            }
        }
    }
}

/// One result after training, out of `best`, with those to compare it to.
fn tile(
    name: &str,
    retrieval: &Retrieval,
    select: fn(&RetrievalScores) -> f64,
    best: f64,
) -> Markup {
    let [chance, before, after] = [retrieval.chance, retrieval.before, retrieval.after]
        .map(|scores| scores.as_ref().map(select));
    let after = after.unwrap_or(f64::NAN);
    html! {
        div.tile {
            dt { (name) }
            dd.number { (score(after)) @if best == 100.0 { span.unit { "%" } } }
            dd.meter aria-hidden="true" { (meter(after, chance, best)) }
            @if let Some(reranked) = &retrieval.reranked {
                dd.small { "reranked " strong { (score(select(reranked))) } }
            }
            @if let Some(before) = before { dd.small { "before training " (score(before)) } }
            @if let Some(chance) = chance {
                dd.small { "chance " (score(chance)) (times(after, chance)) }
            }
        }
    }
}

/// The inside of a meter: a bar as long as `value`, with a mark.
fn meter(value: f64, mark: Option<f64>, best: f64) -> Markup {
    html! {
        span style=(format!("width:{:.2}%", share(value, best))) {}
        @if let Some(mark) = mark { i style=(format!("left:{:.2}%", share(mark, best))) {} }
    }
}

/// `value` in percent of `best`, within the meter.
pub(crate) fn share(value: f64, best: f64) -> f64 {
    if value.is_finite() {
        (100.0 * value / best).clamp(0.0, 100.0)
    } else {
        0.0
    }
}

fn times(value: f64, chance: f64) -> Markup {
    let ratio = value / chance;
    html! {
        @if ratio.is_finite() && ratio >= 1.05 {
            " · " strong { (fixed(ratio, if ratio < 10.0 { 1 } else { 0 })) " × chance" }
        }
    }
}

fn retrieval_table(retrieval: &Retrieval) -> Markup {
    let lead = html! {
        "Held-out pairs"
        @if !retrieval.split.is_empty() { " (" (retrieval.split) ")" }
    };
    table_of_recalls(lead, retrieval, retrieval.rows())
}

type Direction = fn(&RetrievalScores) -> &DirectionScores;
type Measure = fn(&DirectionScores) -> String;

/// How often queries find their counterparts: `lead` begins the explanation. Each row of scores is
/// a column of the page, under its name: three narrow tables stack where there is no room.
pub(crate) fn table_of_recalls(
    lead: Markup,
    retrieval: &Retrieval,
    rows: impl IntoIterator<Item = (impl Render, RetrievalScores)>,
) -> Markup {
    let rows: Vec<_> = rows.into_iter().collect();
    if rows.is_empty() {
        return html! {};
    }
    let names = html! {
        thead { tr { td {} @for (name, _) in &rows { th scope="col" { (name) } } } }
    };
    let directions: [(&str, Direction); 2] = [
        ("Image → text", |scores| &scores.image_to_text),
        ("Text → image", |scores| &scores.text_to_image),
    ];
    let measures: [(&str, Measure); 5] = [
        ("R@1", |of| score(of.recall_at_1)),
        ("R@5", |of| score(of.recall_at_5)),
        ("R@10", |of| score(of.recall_at_10)),
        ("median rank", |of| rank(of.median_rank)),
        ("mean rank", |of| rank(of.mean_rank)),
    ];
    html! {
        section aria-labelledby="retrieval" {
            h2 #retrieval { "Retrieval" }
            p.lead {
                (lead) ": " (counted(retrieval.images, "image")) " and "
                (counted(retrieval.captions, "caption")) ". Each image ranks all captions, and \
                 each caption ranks all images. Recall (R@k) is the percentage of queries with a \
                 match among the first k; ranks are those of the first match, 1 is best."
                @if retrieval.reranked.is_some() {
                    " Reranked: the first "
                    @if let Some(top) = retrieval.reranked_top { (counted(top, "result")) }
                    @else { "results" }
                    " of the trained model, in the order of how well each matches the query."
                }
            }
            div.columns.recalls.many[rows.len() > 3] {
                @for (direction, of) in directions { table {
                    caption { (direction) }
                    (names)
                    tbody { @for (measure, show) in measures { tr {
                        th scope="row" { (measure) }
                        @for (_, scores) in &rows { td { (show(of(scores))) } }
                    } } }
                } }
                table {
                    caption { "Both directions" }
                    (names)
                    tbody { tr {
                        th scope="row" { "R@sum" }
                        @for (_, scores) in &rows { td { (score(scores.r_sum())) } }
                    } }
                }
            }
        }
    }
}

/// What is needed to understand and repeat the run.
fn details(run: &RunReport) -> Markup {
    let config = match &run.config {
        serde_json::Value::Null => None,
        // A JSON value always serialises.
        config => serde_json::to_string_pretty(config).ok(),
    };
    html! {
        section aria-labelledby="run" {
            h2 #run { "Run" }
            div.columns { (data(run)) (model(run)) (time(run)) (figures_by_name(run)) }
            @if !run.command.is_empty() {
                h3 { "Command" }
                pre { code { (run.command) } }
            }
            @if let Some(config) = config {
                details { summary { "Configuration" } pre { code { (config) } } }
            }
            @for Change { step, setting, from, to } in &run.changes {
                p { "After step " (step) ": " code { (setting) " = " (to) } ", before "
                    code { (from) } "." }
            }
        }
    }
}

fn data(run: &RunReport) -> Markup {
    html! {
        @if !run.dataset.splits.is_empty() {
            table {
                caption { "Data" }
                thead { tr {
                    th scope="col" { "split" }
                    th scope="col" { "images" }
                    th scope="col" { "captions" }
                } }
                tbody { @for split in &run.dataset.splits { tr {
                    th scope="row" { (split.name) }
                    td { (grouped(split.images)) } td { (grouped(split.captions)) }
                } } }
            }
        }
    }
}

fn model(run: &RunReport) -> Markup {
    html! {
        @if !run.parameters.is_empty() {
            table {
                caption { "Model" }
                thead { tr { th scope="col" { "part" } th scope="col" { "parameters" } } }
                tbody {
                    @for part in &run.parameters { tr {
                        th scope="row" { (part.part) } td { (grouped(part.count)) }
                    } }
                    tr.total { th scope="row" { "all" } td { (grouped(run.parameter_total())) } }
                }
            }
        }
    }
}

fn time(run: &RunReport) -> Markup {
    let stages = run
        .stages
        .iter()
        .filter_map(|stage| Some((&stage.name, duration(stage.seconds)?)));
    html! {
        @if !run.stages.is_empty() {
            table {
                caption { "Time" }
                thead { tr { th scope="col" { "stage" } th scope="col" { "duration" } } }
                tbody {
                    @for (name, time) in stages {
                        tr { th scope="row" { (name) } td { (time) } }
                    }
                    @if let Some(time) = duration(run.seconds_total()) {
                        tr.total { th scope="row" { "all" } td { (time) } }
                    }
                }
            }
        }
    }
}

fn figures_by_name(run: &RunReport) -> Markup {
    html! {
        @if !run.facts.is_empty() {
            table {
                caption { "Figures" }
                thead { tr { th scope="col" { "figure" } th scope="col" { "value" } } }
                tbody { @for fact in &run.facts { tr {
                    th scope="row" { (fact.name) }
                    td { (plain(fact.value)) @if let Some(unit) = &fact.unit { " " (unit) } }
                } } }
            }
        }
    }
}

/// A value of any kind: a whole number as such, any other with about four digits.
fn plain(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e7 {
        fixed(value, 0)
    } else {
        significant(value)
    }
}
