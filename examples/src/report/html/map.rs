//! Maps of the embeddings.

use maud::{Markup, html};

use super::figures::figure;
use crate::number::counted;
use crate::report::chart::{self, Line, Stroke};
use crate::report::palette::Role;
use crate::report::{Map, Maps};

/// The maps before and after training.
pub(super) fn maps(maps: &Maps) -> Markup {
    section(&[
        ("Before training", &maps.before),
        ("After training", &maps.after),
    ])
}

/// Maps with their titles, those that there are.
pub(crate) fn section(maps: &[(&str, &Option<Map>)]) -> Markup {
    let maps = maps
        .iter()
        .filter_map(|(title, map)| map.as_ref().map(|map| (title, map)));
    let figures: Vec<_> = maps.filter_map(|(title, map)| drawn(title, map)).collect();
    html! {
        @if !figures.is_empty() {
            section aria-labelledby="map" {
                h2 #map { "Map of the embeddings" }
                p.lead {
                    "Images and captions by t-SNE: near each other where their embeddings are. A \
                     line joins a pair. Distances between groups, and directions, say nothing."
                }
                div.figures { @for figure in figures { (figure) } }
            }
        }
    }
}

fn drawn(title: &str, map: &Map) -> Option<Markup> {
    let point = |[x, y]: [f64; 2]| (x, y);
    let joined = map.images.iter().zip(&map.captions).map(|(&a, &b)| Line {
        role: Role::Grid,
        stroke: Stroke::Faint,
        points: vec![point(a), point(b)],
    });
    let dots = |role, points: &[[f64; 2]]| Line {
        role,
        stroke: Stroke::Dots,
        points: points.iter().copied().map(point).collect(),
    };
    let sides = [
        dots(Role::First, &map.images),
        dots(Role::Second, &map.captions),
    ];
    let lines: Vec<_> = joined.chain(sides).collect();
    let svg = chart::lines_over("", &lines)?;
    let legend = [(Role::First, "images"), (Role::Second, "captions")];
    let description = format!("{}.", counted(map.images.len(), "pair"));
    Some(figure(
        title,
        &legend,
        &svg,
        &description,
        html! { (description) },
    ))
}
