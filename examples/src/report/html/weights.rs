//! How much the negatives weigh: all of them, those known to match, and the lowest.

use std::path::Path;

use maud::{Markup, html};

use super::figures::{densities, figure, legend, occupied};
use super::gallery::picture;
use crate::number::{counted, fixed};
use crate::report::thumbnail::Thumbnails;
use crate::report::{WeightExample, Weights};

/// The distribution of the weights, and the lowest of them.
pub(super) fn weights(weights: &Weights, thumbnails: &mut Thumbnails) -> Markup {
    let distribution = distribution(weights);
    html! {
        @if distribution.is_some() || !weights.lowest.is_empty() {
            section aria-labelledby="weights" {
                h2 #weights { "Contrastive weights" }
                p.lead {
                    "How much the contrastive loss counts each negative. False negatives, those \
                     that match their anchor all the same, should weigh little."
                }
                @if let Some(distribution) = distribution { div.figures { (distribution) } }
                @if !weights.lowest.is_empty() {
                    h3 { "Lowest weights" }
                    div.queries { @for of in &weights.lowest { (card(of, thumbnails)) } }
                }
            }
        }
    }
}

/// The chart, and the figures of it.
fn distribution(weights: &Weights) -> Option<Markup> {
    let histogram = weights.histogram();
    if histogram.is_blank() {
        return None;
    }
    let total = |counts: &[u64]| counts.iter().fold(0_u64, |sum, &of| sum.saturating_add(of));
    let (all, known) = (total(&weights.all), total(&weights.known_false));
    let mut measures = vec![(
        "Mean of all",
        fixed(weights.mean, 3),
        counted(all, "negative"),
    )];
    if known > 0 {
        let mean = fixed(weights.mean_of_known_false, 3);
        let count = counted(known, "negative");
        measures.push((
            "Mean of known false",
            mean,
            format!("{count} known to match"),
        ));
    }
    if let Some(chance) = weights.auc {
        let meaning = "how often a known false negative weighs less than another".to_string();
        measures.push((
            "Told apart",
            format!("{} %", fixed(100.0 * chance, 2)),
            meaning,
        ));
    }
    let description: Vec<String> = measures
        .iter()
        .map(|(name, value, meaning)| format!("{name}: {value}, {meaning}."))
        .collect();
    let names = [
        (known > 0).then_some("known false negatives"),
        Some("all negatives"),
    ];
    let svg = densities("weight", &histogram, names, &occupied(&histogram));
    let caption = html! { "Each distribution has area one; an upright line marks its mean." };
    let title = "Distribution of the weights";
    let chart = figure(title, &legend(names), &svg, &description.join(" "), caption);
    Some(html! {
        (chart)
        dl.measures.few {
            @for (name, value, meaning) in measures {
                div { dt { (name) } dd.number { (value) } dd.small { (meaning) } }
            }
        }
    })
}

fn card(example: &WeightExample, thumbnails: &mut Thumbnails) -> Markup {
    let (class, verdict) = if example.is_false_negative {
        ("first", "✓ known to match")
    } else {
        ("near", "not known to match")
    };
    let (anchor, candidate) = (&example.anchor_image, &example.candidate_image);
    html! {
        article.query {
            div.ask {
                span.weight { "weight " strong { (fixed(example.weight, 3)) } }
                span.badge.(class) { (verdict) }
            }
            dl.sides {
                (side("anchor", anchor.as_deref(), example.anchor_text.as_deref(), thumbnails))
                (side(
                    "negative",
                    candidate.as_deref(),
                    example.candidate_text.as_deref(),
                    thumbnails,
                ))
            }
        }
    }
}

/// One of the two that are contrasted.
fn side(
    name: &str,
    image: Option<&Path>,
    text: Option<&str>,
    thumbnails: &mut Thumbnails,
) -> Markup {
    html! {
        div {
            dt { (name) }
            @if let Some(image) = image { dd { (picture(image, name, thumbnails)) } }
            @if let Some(text) = text { dd { blockquote { (text) } } }
        }
    }
}
