//! The figures of the page: curves of the training and distributions of the similarities.

use std::iter;
use std::ops::Range;

use maud::{Markup, PreEscaped, html};

use crate::number::{counted, fixed, grouped, significant};
use crate::report::chart::{self, Density, Extent, Line, Stroke};
use crate::report::palette::Role;
use crate::report::{
    Curve, Histogram, Reference, RetrievalScores, RunReport, Similarities, Validation,
};

/// Points of a curve that a chart of this size can show.
const POINTS: usize = 600;

/// The curves of the training.
pub(super) fn training(run: &RunReport) -> Markup {
    let curves = &run.curves;
    let none = Curve::default();
    let whole = loss("Loss", &curves.loss, &curves.validation_loss, None);
    let parts = curves.losses.iter().map(|part| {
        let title = format!("Loss: {}", part.name);
        loss(&title, &part.curve, &none, part.reference.as_ref())
    });
    let usual = [
        validation(&curves.validation),
        single(
            "Learning rate",
            &curves.learning_rate,
            Extent::FromZero,
            None,
        ),
        single("Logit scale", &curves.logit_scale, Extent::Fit, None),
    ];
    let others = curves.figures.iter().map(|of| {
        let reference = of.reference.as_ref();
        single(&of.name, &of.curve, Extent::FromZero, reference)
    });
    let figures: Vec<Markup> = iter::once(whole)
        .chain(parts)
        .chain(usual)
        .chain(others)
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

fn line(role: Role, stroke: Stroke, curve: &Curve) -> Line {
    let points = curve.thinned(POINTS).points;
    Line {
        role,
        stroke,
        points: points
            .iter()
            .map(|point| (point.step as f64, point.value))
            .collect(),
    }
}

/// A value that a curve is compared with: the line of it, its name, and in words.
struct Compared<'a> {
    line: Line,
    name: &'a str,
    words: String,
}

impl<'a> Compared<'a> {
    /// Beside `curve`, from the first step on; `None` where one of them cannot be drawn.
    fn new(reference: Option<&'a Reference>, curve: &Curve) -> Option<Self> {
        let Reference { label, value } = reference?;
        let last = curve.finite().next_back()?.step as f64;
        chart::is_drawable(*value).then(|| Self {
            line: Line {
                role: Role::Reference,
                stroke: Stroke::Dashed,
                points: vec![(0.0, *value), (last, *value)],
            },
            name: label,
            words: format!(" Dashed: {label}, {}.", significant(*value)),
        })
    }
}

fn loss(
    title: &str,
    training: &Curve,
    validation: &Curve,
    reference: Option<&Reference>,
) -> Option<Markup> {
    // What the caption tells is what was measured, as `metrics.json` has it.
    let measured = if training.is_blank() {
        validation
    } else {
        training
    };
    let compared = Compared::new(reference, measured);
    let mut course = course(measured);
    let (training, validation) = (&clipped(training), &clipped(validation));
    let window = (training.curve.points.len() as f64 / 50.0).max(1.0);
    let smooth = training.curve.smoothed(window);
    let mut lines = vec![
        line(Role::First, Stroke::Faint, &training.curve),
        line(Role::First, Stroke::Strong, &smooth),
    ];
    let mut legend = vec![(Role::First, "training")];
    if !validation.curve.is_blank() {
        lines.push(line(Role::Second, Stroke::Strong, &validation.curve));
        legend.push((Role::Second, "validation"));
    }
    if let Some(Compared { line, name, words }) = &compared {
        lines.push(line.clone());
        legend.push((line.role, name));
        course += words;
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
    Some(figure(title, &legend, &svg, &course, caption))
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

fn single(
    title: &str,
    curve: &Curve,
    extent: Extent,
    reference: Option<&Reference>,
) -> Option<Markup> {
    let mut lines = vec![line(Role::First, Stroke::Strong, curve)];
    let mut legend = Vec::new();
    let mut description = course(curve);
    let compared = Compared::new(reference, curve);
    if let Some(Compared { line, name, words }) = &compared {
        lines.push(line.clone());
        legend.extend([(Role::First, "measured"), (line.role, name)]);
        description += words;
    }
    let svg = chart::lines(&lines, extent)?;
    Some(figure(
        title,
        &legend,
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
            Stroke::Faint,
            &curve(|scores| scores.image_to_text.recall_at_5),
        ),
        line(
            Role::Second,
            Stroke::Faint,
            &curve(|scores| scores.text_to_image.recall_at_5),
        ),
        line(Role::First, Stroke::Strong, &image_to_text),
        line(Role::Second, Stroke::Strong, &text_to_image),
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
    let names = [Some("positive pairs"), Some("negative pairs")];
    let svg = densities("cosine similarity", histogram, names, window);
    figure(
        title,
        &legend(names),
        &svg,
        &description,
        html! { (description) },
    )
}

/// The names of positives and negatives in a legend, of those that are drawn.
pub(super) fn legend(names: [Option<&str>; 2]) -> Vec<(Role, &str)> {
    let [positive, negative] = names;
    let positive = positive.map(|name| (Role::Positive, name));
    let negative = negative.map(|name| (Role::Negative, name));
    positive.into_iter().chain(negative).collect()
}

/// The densities of positives and negatives, of those that have a name, in front of each other.
pub(super) fn densities(
    quantity: &str,
    histogram: &Histogram,
    names: [Option<&str>; 2],
    window: &Range<f64>,
) -> String {
    let density = |role, counts, mean| Density {
        role,
        heights: histogram.density(counts),
        mean,
    };
    let negative = density(Role::Negative, &histogram.negative, histogram.negative_mean);
    let positive = density(Role::Positive, &histogram.positive, histogram.positive_mean);
    let densities: Vec<Density> = [(names[1], negative), (names[0], positive)]
        .into_iter()
        .filter_map(|(name, density)| name.map(|_| density))
        .collect();
    let heights = densities.iter().flat_map(|density| &density.heights);
    let highest = heights.copied().fold(0.0, f64::max);
    let bounds = histogram.low..histogram.high;
    chart::densities(quantity, &densities, bounds, window.clone(), highest)
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
