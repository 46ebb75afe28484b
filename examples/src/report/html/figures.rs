//! The figures of the page: curves of the training and distributions of the similarities.

use std::ops::Range;

use maud::{Markup, PreEscaped, html};

use crate::number::{counted, fixed, grouped, significant};
use crate::report::chart::{self, Density, Extent, Line};
use crate::report::palette::Role;
use crate::report::{Curve, Histogram, RetrievalScores, RunReport, Similarities, Validation};

/// Points of a curve that a chart of this size can show.
const POINTS: usize = 600;

/// The curves of the training.
pub(super) fn training(run: &RunReport) -> Markup {
    let curves = &run.curves;
    let figures: Vec<Markup> = [
        loss(&curves.loss, &curves.validation_loss),
        validation(&curves.validation),
        single("Learning rate", &curves.learning_rate, Extent::FromZero),
        single("Logit scale", &curves.logit_scale, Extent::Fit),
    ]
    .into_iter()
    .flatten()
    .collect();
    html! {
        @if !figures.is_empty() {
            section aria-labelledby="training" {
                h2 #training { "Training" }
                div.figures { @for figure in figures { (figure) } }
            }
        }
    }
}

/// A chart with its title, legend and caption; the description is what is heard in its place.
pub(crate) fn figure(
    title: &str,
    legend: &[(Role, &str)],
    svg: &str,
    description: &str,
    caption: Markup,
) -> Markup {
    html! {
        figure {
            h3 { (title) }
            @if !legend.is_empty() {
                ul.legend { @for (role, name) in legend {
                    li { span class=(role.class()) aria-hidden="true" {} (name) }
                } }
            }
            div.chart role="img" aria-label=(format!("{title}. {description}")) {
                (PreEscaped(svg))
            }
            figcaption { (caption) }
        }
    }
}

fn line(role: Role, faint: bool, curve: &Curve) -> Line {
    let points = curve.thinned(POINTS).points;
    Line {
        role,
        faint,
        points: points
            .iter()
            .map(|point| (point.step as f64, point.value))
            .collect(),
    }
}

fn loss(training: &Curve, validation: &Curve) -> Option<Markup> {
    // What the caption tells is what was measured, as `metrics.json` has it.
    let measured = if training.is_blank() {
        validation
    } else {
        training
    };
    let course = course(measured);
    let (training, validation) = (&clipped(training), &clipped(validation));
    let window = (training.curve.points.len() as f64 / 50.0).max(1.0);
    let smooth = training.curve.smoothed(window);
    let mut lines = vec![
        line(Role::First, true, &training.curve),
        line(Role::First, false, &smooth),
    ];
    let mut legend = vec![(Role::First, "training")];
    if !validation.curve.is_blank() {
        lines.push(line(Role::Second, false, &validation.curve));
        legend.push((Role::Second, "validation"));
    }
    let svg = chart::lines(&lines, Extent::FromZero)?;
    let spikes = training.spikes + validation.spikes;
    let missing = [training, validation]
        .map(|curve| curve.curve.points.len() - curve.curve.finite().count())
        .iter()
        .sum();
    let caption = html! {
        (course)
        @if window > 1.0 {
            " Pale: every value; strong: moving average over about "
            (values(window.round() as usize)) "."
        }
        @if spikes > 0 {
            " " strong { (values(spikes)) " far above the others, drawn at the upper edge." }
        }
        @if missing > 0 { " " strong { (values(missing)) " not finite." } }
    };
    Some(figure("Loss", &legend, &svg, &course, caption))
}

fn values(count: usize) -> String {
    counted(count, "value")
}

/// A curve whose few extreme values do not flatten all others.
struct Clipped {
    curve: Curve,
    /// Number of values that were cut down.
    spikes: usize,
}

/// Cuts a curve down to twice what 98 % of its values do not exceed.
fn clipped(curve: &Curve) -> Clipped {
    let mut sorted: Vec<f64> = curve.finite().map(|point| point.value).collect();
    sorted.sort_by(f64::total_cmp);
    let usual = sorted.len().saturating_sub(1) * 98 / 100;
    let ceiling = sorted
        .get(usual)
        .map_or(f64::INFINITY, |value| 2.0 * value.abs());
    let mut curve = curve.clone();
    let mut spikes = 0;
    for point in &mut curve.points {
        if point.value.is_finite() && point.value > ceiling {
            point.value = ceiling;
            spikes += 1;
        }
    }
    Clipped { curve, spikes }
}

fn single(title: &str, curve: &Curve, extent: Extent) -> Option<Markup> {
    let svg = chart::lines(&[line(Role::First, false, curve)], extent)?;
    let description = course(curve);
    Some(figure(
        title,
        &[],
        &svg,
        &description,
        html! { (description) },
    ))
}

/// In words: where a curve starts and ends.
fn course(curve: &Curve) -> String {
    let mut finite = curve.finite();
    match (finite.next(), finite.next_back()) {
        (Some(first), Some(last)) => format!(
            "From {} at step {} to {} at step {}.",
            significant(first.value),
            grouped(first.step),
            significant(last.value),
            grouped(last.step)
        ),
        (Some(only), None) => format!(
            "{} at step {}.",
            significant(only.value),
            grouped(only.step)
        ),
        _ => "No values.".to_string(),
    }
}

fn validation(history: &[Validation]) -> Option<Markup> {
    let curve = |select: fn(&RetrievalScores) -> f64| -> Curve {
        history
            .iter()
            .map(|point| (point.step, select(&point.scores)))
            .collect()
    };
    let image_to_text = curve(|scores| scores.image_to_text.recall_at_1);
    let text_to_image = curve(|scores| scores.text_to_image.recall_at_1);
    let lines = [
        line(
            Role::First,
            true,
            &curve(|scores| scores.image_to_text.recall_at_5),
        ),
        line(
            Role::Second,
            true,
            &curve(|scores| scores.text_to_image.recall_at_5),
        ),
        line(Role::First, false, &image_to_text),
        line(Role::Second, false, &text_to_image),
    ];
    let svg = chart::lines(&lines, Extent::FromZero)?;
    let legend = [
        (Role::First, "image → text"),
        (Role::Second, "text → image"),
    ];
    let description = format!(
        "Recall at 1 in percent. Image to text: {} Text to image: {}",
        course(&image_to_text),
        course(&text_to_image)
    );
    let caption = html! { "Percent of the queries. Strong: R@1, pale: R@5." };
    Some(figure(
        "Validation recall",
        &legend,
        &svg,
        &description,
        caption,
    ))
}

/// The distributions before and after training, over the same similarities.
pub(super) fn similarities(similarities: &Similarities) -> Markup {
    let histograms: Vec<(&str, &Histogram)> = [
        ("Before training", &similarities.before),
        ("After training", &similarities.after),
    ]
    .into_iter()
    .filter_map(|(title, histogram)| Some((title, histogram.as_ref()?)))
    .filter(|(_, histogram)| !histogram.is_blank())
    .collect();
    let window = histograms
        .iter()
        .map(|(_, histogram)| occupied(histogram))
        .reduce(|all, one| all.start.min(one.start)..all.end.max(one.end));
    html! {
        @if let Some(window) = window {
            section aria-labelledby="similarities" {
                h2 #similarities { "Similarities" }
                p.lead {
                    "How similar matching pairs (positives) and all other pairs (negatives) are. \
                     Each distribution has area one, as there are far more negatives; an upright \
                     line marks its mean."
                }
                div.figures {
                    @for (title, histogram) in histograms {
                        (distribution(title, histogram, &window, histogram.separation()))
                    }
                }
            }
        }
    }
}

/// From the first to the last bin that is not empty, with one bin of air.
pub(crate) fn occupied(histogram: &Histogram) -> Range<f64> {
    let bins = histogram.positive.len().max(histogram.negative.len());
    let width = (histogram.high - histogram.low) / bins as f64;
    let counts = |bin: &usize| {
        [&histogram.positive, &histogram.negative]
            .iter()
            .any(|counts| counts.get(*bin).is_some_and(|&count| count > 0))
    };
    let first = (0..bins).find(counts).unwrap_or(0).saturating_sub(1);
    let last = (0..bins).rfind(counts).unwrap_or(bins - 1);
    let edge = |bin: usize| histogram.low + bin.min(bins) as f64 * width;
    edge(first)..edge(last + 2)
}

/// The similarities of positives and negatives, with their means and their
/// [separation](Histogram::separation).
pub(crate) fn distribution(
    title: &str,
    histogram: &Histogram,
    window: &Range<f64>,
    separation: Option<f64>,
) -> Markup {
    let negative = histogram.density(&histogram.negative);
    let positive = histogram.density(&histogram.positive);
    let highest = negative
        .iter()
        .chain(&positive)
        .copied()
        .fold(0.0, f64::max);
    let distributions = [
        Density {
            role: Role::Negative,
            heights: negative,
            mean: histogram.negative_mean,
        },
        Density {
            role: Role::Positive,
            heights: positive,
            mean: histogram.positive_mean,
        },
    ];
    let bounds = histogram.low..histogram.high;
    let svg = chart::densities(
        "cosine similarity",
        &distributions,
        bounds,
        window.clone(),
        highest,
    );
    let means = format!(
        "Mean {} of the positives, {} of the negatives.",
        fixed(histogram.positive_mean, 3),
        fixed(histogram.negative_mean, 3)
    );
    let separation = separation.map(|chance| {
        format!(
            " A positive is more similar than a random negative in {} % of all cases.",
            fixed(100.0 * chance, 2)
        )
    });
    let description = means + &separation.unwrap_or_default();
    let legend = [
        (Role::Positive, "positive pairs"),
        (Role::Negative, "negative pairs"),
    ];
    figure(title, &legend, &svg, &description, html! { (description) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spike_does_not_flatten_a_curve() {
        let mut curve: Curve = (0..200)
            .map(|step| (step, 4.0 - 0.01 * step as f64))
            .collect();
        assert_eq!(clipped(&curve).spikes, 0);
        curve.points[120].value = 1e12;
        let clipped = clipped(&curve);
        assert_eq!(clipped.spikes, 1);
        assert!(clipped.curve.finite().all(|point| point.value <= 8.0));
    }

    #[test]
    fn the_window_of_a_distribution_holds_every_pair() {
        let mut histogram = Histogram {
            low: -1.0,
            high: 1.0,
            positive: vec![0; 10],
            negative: vec![0; 10],
            positive_mean: 0.0,
            negative_mean: 0.0,
        };
        histogram.positive[9] = 1;
        histogram.negative[5] = 1;
        let window = occupied(&histogram);
        assert!(
            (window.start + 0.2).abs() < 1e-9 && window.end == 1.0,
            "{window:?}"
        );
        histogram.negative[0] = 1;
        assert_eq!(occupied(&histogram), -1.0..1.0);
    }
}
