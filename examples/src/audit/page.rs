//! The page for people: figures of the embeddings, of the weights, and of the objectives beside
//! each other.

use burn_contrastive::objective::{AnyConfig, Parameter, Value};
use maud::{Markup, html};

use super::statistics::BINS;
use super::weights::Weights;
use super::{Finding, Findings};
use crate::number::{counted, fixed, grouped, score, separated, significant};
use crate::report::chart::{self, Density};
use crate::report::html::{document, duration, figures, headline, map, share, table_of_recalls};
use crate::report::palette::Role;
use crate::report::{Histogram, Retrieval};

/// The whole page.
pub(super) fn page(findings: &Findings) -> String {
    let statistics = &findings.statistics;
    let [pairs, width] = findings.shape.map(|count| count as u64);
    let facts = vec![
        findings.file.clone(),
        counted(pairs, "pair"),
        counted(statistics.images, "image"),
        format!("width {}", grouped(width)),
        findings.device.clone(),
    ];
    let retrieval = Retrieval {
        split: String::new(),
        images: statistics.images as u64,
        captions: pairs,
        chance: Some((&statistics.chance).into()),
        before: None,
        after: Some((&statistics.retrieval).into()),
        ..Retrieval::default()
    };
    let rows = [
        ("chance", retrieval.chance),
        ("these embeddings", retrieval.after),
    ];
    let rows = rows
        .into_iter()
        .filter_map(|(name, scores)| Some((name, scores?)));
    let main = html! {
        (headline(&retrieval))
        (table_of_recalls(html! { "All pairs of the file" }, &retrieval, rows))
        (precision(findings))
        (similarities(findings))
        (map::section(&[("Pairs", &findings.map)]))
        @if let Some(weights) = &findings.weights { (weights_section(weights)) }
        (comparison(findings))
        (data(findings))
    };
    document("Embedding audit", facts, main)
}

fn precision(findings: &Findings) -> Markup {
    let Some(precision) = &findings.statistics.precision else {
        return html! {};
    };
    let sides = [
        ("Image → text", &precision.image_to_text),
        ("Text → image", &precision.text_to_image),
    ];
    html! {
        section aria-labelledby="precision" {
            h2 #precision { "Precision by label" }
            p.lead { "The percentage of the k nearest candidates that carry the query's label." }
            div.scroll tabindex="0" role="region" aria-labelledby="precision" {
                table {
                    thead { tr {
                        td {}
                        @for (k, _) in &precision.image_to_text { th scope="col" { "k = " (k) } }
                    } }
                    tbody { @for (name, figures) in sides { tr {
                        th scope="row" { (name) }
                        @for (_, percent) in figures { td { (score(*percent)) } }
                    } } }
                }
            }
        }
    }
}

fn similarities(findings: &Findings) -> Markup {
    let statistics = &findings.statistics;
    let similarity = &statistics.similarity;
    let histogram = Histogram::from(similarity.clone());
    // Of the bins as they were counted, which `--json` holds; the chart has wider ones.
    let separation = histogram.separation();
    let histogram = joined(histogram);
    let window = figures::occupied(&histogram);
    let shape = [
        (
            "Overlap",
            similarity.overlap(),
            "of the two distributions: 0 apart, 1 the same",
        ),
        (
            "Alignment",
            statistics.alignment,
            "mean squared distance of a pair, 0 at best",
        ),
        (
            "Uniformity",
            statistics.uniformity,
            "log mean Gaussian potential; lower is more spread out",
        ),
        (
            "Modality gap",
            statistics.modality_gap,
            "distance of the mean image from the mean caption",
        ),
    ];
    html! {
        section aria-labelledby="similarities" {
            h2 #similarities { "Similarities" }
            p.lead {
                "How similar matching pairs (positives) and all other pairs (negatives) are. Each \
                 distribution has area one, as there are far more negatives; an upright line marks \
                 its mean."
            }
            div.figures {
                @if !histogram.is_blank() {
                    (figures::distribution("Cosines", &histogram, &window, separation))
                }
                dl.measures {
                    @for (name, value, meaning) in shape {
                        div {
                            dt { (name) }
                            dd.number { (fixed(value, 3)) }
                            dd.small { (meaning) }
                        }
                    }
                    @for (name, of) in
                        [("Positives", similarity.positive), ("Negatives", similarity.negative)]
                    {
                        div {
                            dt { (name) }
                            dd.number { (fixed(of.mean, 3)) }
                            dd.small { "± " (fixed(of.deviation, 3)) }
                        }
                    }
                }
            }
        }
    }
}

/// With no more bins than the positives can fill evenly.
fn joined(histogram: Histogram) -> Histogram {
    let positives = histogram.positive.iter().sum::<u64>() as f64;
    let enough = |width: &usize| (BINS / width) as f64 <= 4.0 * positives.sqrt();
    let width = [1, 2, 4, 5].into_iter().find(enough).unwrap_or(10);
    let join = |counts: &[u64]| counts.chunks(width).map(|part| part.iter().sum()).collect();
    Histogram {
        positive: join(&histogram.positive),
        negative: join(&histogram.negative),
        ..histogram
    }
}

fn weights_section(weights: &Weights) -> Markup {
    let judge = match weights.regulation.alpha {
        1.0 => "the teacher",
        0.0 => "these embeddings",
        _ => "the teacher and these embeddings",
    };
    html! {
        section aria-labelledby="weights" {
            h2 #weights { "Weights of the negatives" }
            p.lead {
                "SRCL weighs each negative by how little it resembles the anchor according to "
                (judge) " (α\u{a0}=\u{a0}" (significant(weights.regulation.alpha))
                "), with a mean of one for each anchor: false negatives should get little weight."
            }
            div.figures {
                (histogram(weights))
                (heat_map(weights))
            }
            (likely(weights))
        }
    }
}

fn histogram(weights: &Weights) -> Markup {
    let bounds = weights.edges[0]..*weights.edges.last().expect("edges");
    let density = |role, counts: &[u64]| {
        let all = counts.iter().sum::<u64>() as f64;
        let width = (bounds.end - bounds.start) / counts.len() as f64;
        Density {
            role,
            heights: counts
                .iter()
                .map(|&count| count as f64 / all / width)
                .collect(),
            mean: 1.0,
        }
    };
    let densities = [
        density(Role::First, &weights.image_to_text),
        density(Role::Second, &weights.text_to_image),
    ];
    let heights = densities.iter().flat_map(|density| &density.heights);
    let highest = heights.copied().fold(0.0, f64::max);
    let svg = chart::densities(
        "weight",
        &densities,
        bounds.clone(),
        bounds.clone(),
        highest,
    );
    let below = |share: f64| {
        let counts = || weights.image_to_text.iter().zip(&weights.text_to_image);
        let all: u64 = counts().map(|(a, b)| a + b).sum();
        let mut sum = 0;
        for ((a, b), edge) in counts().zip(&weights.edges[1..]) {
            sum += a + b;
            if sum as f64 >= share * all as f64 {
                return *edge;
            }
        }
        bounds.end
    };
    let description = format!(
        "From {} to {}; a tenth of all negatives weigh less than {}, half less than {}. \
         The upright line is the mean, 1.",
        fixed(bounds.start, 2),
        fixed(bounds.end, 2),
        fixed(below(0.1), 2),
        fixed(below(0.5), 2),
    );
    let legend = [
        (Role::First, "image → text"),
        (Role::Second, "text → image"),
    ];
    figures::figure(
        "Distribution of the weights",
        &legend,
        &svg,
        &description,
        html! { (description) },
    )
}

/// A weight in four characters, where it has fewer than four digits before the point.
fn short(weight: f64) -> String {
    fixed(
        weight,
        (2.0 - weight.log10().floor()).clamp(0.0, 2.0) as usize,
    )
}

/// The weights that some captions give to some images, dark where small.
fn heat_map(weights: &Weights) -> Markup {
    let all = || {
        weights
            .heat
            .iter()
            .flatten()
            .filter(|weight| !weight.is_nan())
    };
    let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &w| {
        (low.min(w), high.max(w))
    });
    let heat = |weight: f64| {
        if high > low {
            (100.0 * (high - weight) / (high - low)).round()
        } else {
            0.0
        }
    };
    html! {
        figure {
            h3 { "Weights of some captions" }
            div.scroll.heat tabindex="0" role="region"
                aria-label="Weights that captions give to images" {
                table {
                    thead { tr {
                        td {}
                        @for row in &weights.rows { th scope="col" { span { (whole(*row)) } } }
                    } }
                    tbody { @for (text, line) in weights.rows.iter().zip(&weights.heat) { tr {
                        th scope="row" { (whole(*text)) }
                        @for &weight in line {
                            @if weight.is_nan() { td.self { "·" } }
                            @else {
                                td style=(format!("--heat:{}%", heat(weight)))
                                    title=(fixed(weight, 4)) { span { (short(weight)) } }
                            }
                        }
                    } } }
                }
            }
            figcaption {
                "Captions down, images across, by their rows in the file: those of the likeliest \
                 false negatives first. Strong colour is little weight."
            }
        }
    }
}

fn likely(weights: &Weights) -> Markup {
    let teacher = weights.likely.iter().any(|pair| pair.teacher.is_some());
    html! {
        @if !weights.likely.is_empty() {
            h3 #likely { "Likely false negatives" }
            p.lead {
                "The least weighed: " (counted(weights.likely.len(), "pair"))
                " of an image and another's caption."
            }
            div.scroll tabindex="0" role="region" aria-labelledby="likely" {
                table.dense {
                    thead { tr {
                        th scope="col" { "image (row)" }
                        th scope="col" { "caption (row)" }
                        th scope="col" { "similarity" }
                        @if teacher { th scope="col" { "by the teacher" } }
                        th scope="col" { "weight, image → text" }
                        th scope="col" { "weight, text → image" }
                    } }
                    tbody { @for pair in &weights.likely { tr {
                        th scope="row" { (whole(pair.image)) }
                        td { (whole(pair.text)) }
                        td { (fixed(pair.similarity, 3)) }
                        @if teacher { td { (fixed(pair.teacher.unwrap_or(f64::NAN), 3)) } }
                        td { (fixed(pair.image_to_text, 3)) }
                        td { (fixed(pair.text_to_image, 3)) }
                    } } }
                }
            }
        }
    }
}

fn comparison(findings: &Findings) -> Markup {
    let objectives = &findings.objectives;
    let most = |of: &dyn Fn(&Finding) -> f64| objectives.iter().map(of).fold(0.0, f64::max);
    let slowest = most(&|found| found.seconds);
    let largest = most(&|found| found.peak_bytes.unwrap_or(0) as f64);
    let bar = |value: f64, most: f64, text: String| {
        html! {
            td { (text) span.bar { i style=(format!("width:{:.1}%", share(value, most))) {} } }
        }
    };
    html! {
        section aria-labelledby="objectives" {
            h2 #objectives { "Objectives" }
            p.lead {
                "Losses are each in their own units: compare them between embeddings, not with \
                 each other. Time is that of one evaluation, forward and backward; memory is what \
                 it takes beside the embeddings. The gradient is by the embeddings as they are in \
                 the file."
            }
            div.scroll tabindex="0" role="region" aria-labelledby="objectives" {
                table.stack {
                    thead { tr {
                        th scope="col" { "name" }
                        th.text scope="col" { "objective" }
                        th scope="col" { "loss" }
                        th scope="col" { "time" }
                        th scope="col" { "peak memory" }
                        th scope="col" { "‖gradient‖ image" }
                        th scope="col" { "text" }
                    } }
                    tbody { @for found in objectives { tr {
                        th scope="row" { (found.name) }
                        td.text { (parameters(found)) }
                        td { (significant(found.loss)) }
                        (bar(found.seconds, slowest, time(found.seconds)))
                        @match found.peak_bytes {
                            Some(bytes) => (bar(bytes as f64, largest, memory(bytes))),
                            None => td { "–" },
                        }
                        td { (significant(found.gradient_norms[0])) }
                        td { (significant(found.gradient_norms[1])) }
                    } } }
                }
            }
        }
    }
}

/// `vse · margin 0.2 · reduction mean`; without the name where it is that of the list, and without
/// extras that are off.
fn parameters(found: &Finding) -> String {
    let mut config = found.config.clone();
    let name = Some(config.name()).filter(|name| *name != found.name);
    let parameters = config.parameters();
    let parameters = parameters
        .iter()
        .filter(|parameter| !is_off(parameter))
        .map(|parameter| {
            let value = separated(&parameter.get().to_string());
            format!("{} {value}", parameter.name)
        });
    let terms = match &found.config.kind {
        AnyConfig::WeightedSum(sum) => sum.terms.as_slice(),
        _ => &[],
    };
    let terms = terms
        .iter()
        .map(|term| format!("{} × {}", separated(&term.weight.to_string()), term.name()));
    let parts = name
        .map(str::to_string)
        .into_iter()
        .chain(parameters)
        .chain(terms);
    parts.collect::<Vec<_>>().join(" · ")
}

/// Whether a parameter leaves an extra off, or products as they are.
fn is_off(parameter: &Parameter) -> bool {
    match parameter.get() {
        Value::Flag(false) | Value::None => true,
        Value::Number(0.0) => ["label_smoothing", "soft_targets"].contains(&parameter.name),
        Value::Word(word) => ["negative", "highest"].contains(&word.as_str()),
        _ => false,
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{} µs", fixed(1e6 * s, 0)),
        s if s < 1.0 => format!("{} ms", fixed(1e3 * s, 1)),
        s => duration(s).unwrap_or_default(),
    }
}

fn memory(bytes: u64) -> String {
    match bytes as f64 {
        b if b < 1e6 => format!("{} kB", fixed(b / 1e3, 1)),
        b if b < 1e9 => format!("{} MB", fixed(b / 1e6, 1)),
        b => format!("{} GB", fixed(b / 1e9, 2)),
    }
}

fn data(findings: &Findings) -> Markup {
    html! {
        section aria-labelledby="data" {
            h2 #data { "Data" }
            div.columns {
                table {
                    caption { (findings.file) }
                    thead { tr {
                        th scope="col" { "tensor" }
                        th scope="col" { "shape" }
                        th scope="col" { "dtype" }
                    } }
                    tbody { @for found in &findings.found { tr {
                        th scope="row" { (found.name) }
                        td { (shape(&found.shape)) }
                        td { (found.dtype) }
                    } } }
                }
            }
        }
    }
}

/// A shape such as `2,000 × 512`.
fn shape(sizes: &[usize]) -> String {
    let sizes: Vec<_> = sizes.iter().copied().map(whole).collect();
    sizes.join(" × ")
}

fn whole(number: usize) -> String {
    grouped(number as u64)
}
