//! The page of a zero-shot classification.

use std::collections::{BTreeMap, HashMap};

use maud::{Markup, html};

use super::gallery::picture;
use super::{document, meter, share, times};
use crate::number::{counted, fixed, grouped, score};
use crate::report::thumbnail::Thumbnails;
use crate::report::{ClassResult, ZeroShotExample, ZeroShotReport};
use crate::words::shown;

/// Classes in the matrix at most, for a page that can be read.
const MATRIX: usize = 12;
/// Characters of a name in the matrix and beside it.
const SHORT: usize = 20;
/// Confusions beside it.
const FREQUENT: usize = 12;
/// Rows of a table at most.
const ROWS: usize = 50;

/// The whole page.
pub(in crate::report) fn page(report: &ZeroShotReport) -> String {
    let sources = &report.sources;
    let facts = vec![
        sources.weights.clone(),
        sources.data.clone(),
        counted(report.images, "image"),
        format!("{} classes", grouped(report.classes.len() as u64)),
        counted(sources.prompts, "prompt"),
    ];
    let main = html! {
        (headline(report))
        (notes(report))
        (confusions(report))
        (classes(report))
        (examples(report))
    };
    document("Zero-shot classification", facts, main)
}

fn headline(report: &ZeroShotReport) -> Markup {
    let tile = |name: &str, value: f64, chance: f64| {
        html! {
            div.tile {
                dt { (name) }
                dd.number { (score(value)) span.unit { "%" } }
                dd.meter aria-hidden="true" { (meter(value, Some(chance), 100.0)) }
                dd.small { "chance " (score(chance)) (times(value, chance)) }
            }
        }
    };
    let (all, chance) = (&report.all, &report.chance);
    html! {
        dl.tiles aria-label="Headline accuracy" {
            (tile("Top-1", all.top_1, chance.top_1))
            (tile(&format!("Top-{}", report.k), all.top_k, chance.top_k))
            (tile("Top-1, mean of the classes", report.mean_of_classes, chance.top_1))
        }
    }
}

/// What a reader must know of the numbers.
fn notes(report: &ZeroShotReport) -> Markup {
    let sources = &report.sources;
    let names = |names: &[String]| {
        let few = names.iter().take(MATRIX).map(|name| shown(name));
        let more = names.len().saturating_sub(MATRIX);
        let few = few.collect::<Vec<_>>().join(", ");
        let more = (more > 0).then(|| format!(" and {} more", grouped(more as u64)));
        few + &more.unwrap_or_default()
    };
    let absent = report.absent();
    html! {
        section aria-labelledby="how" {
            h2 #how { "How" }
            p.lead {
                "An image is taken for the class whose embedding is nearest to its own by cosine. \
                 That of a class is the mean of the embeddings, at unit length, of the captions \
                 that speak of it: its texts in all templates of " (sources.classes) "."
                @if let Some(split) = &sources.split {
                    " The images are those of split " (split) "."
                }
            }
            @if !absent.is_empty() {
                p.lead { "Without an image, and in no score: " (names(&absent)) "." }
            }
            @if !sources.cut.is_empty() {
                p.lead {
                    "Longer than the context, and cut: " (counted(sources.cut.len(), "prompt"))
                    ", such as “" (sources.cut[0]) "”."
                }
            }
            @if sources.left_out > 0 {
                p.lead { "Left out as bad: " (grouped(sources.left_out)) "." }
            }
        }
    }
}

/// The matrix, and the most frequent confusions.
fn confusions(report: &ZeroShotReport) -> Markup {
    let wrong = report.confused();
    let images: HashMap<&str, u64> = report
        .classes
        .iter()
        .map(|class| (class.name.as_str(), class.images))
        .collect();
    html! {
        section aria-labelledby="confusion" {
            h2 #confusion { "Confusion" }
            p.lead {
                "What the images of a class (a row) are taken for (a column), as numbers of \
                 images. The stronger a colour, the more of the row. On the diagonal they are \
                 right."
                @if report.classes.len() > MATRIX {
                    " Of " (grouped(report.classes.len() as u64)) " classes, those that are \
                     confused most often."
                }
            }
            div.figures {
                (matrix(report))
                @if !wrong.is_empty() {
                    div.scroll tabindex="0" role="region" aria-label="Frequent confusions" {
                        table.dense.confused {
                            thead { tr {
                                th scope="col" { "class" }
                                th scope="col" { "taken for" }
                                th scope="col" { "images" }
                                th scope="col" { "of the class" }
                            } }
                            tbody { @for cell in wrong.iter().take(FREQUENT) { tr {
                                th scope="row" title=(cell.class) { (short(&cell.class)) }
                                td title=(cell.taken_for) { (short(&cell.taken_for)) }
                                td { (grouped(cell.count)) }
                                td {
                                    (score(share(cell.count as f64, images[&*cell.class] as f64)))
                                    " %"
                                }
                            } } }
                        }
                    }
                }
            }
        }
    }
}

/// A name where there is little room.
fn short(name: &str) -> String {
    let name = shown(name);
    match name.char_indices().nth(SHORT) {
        Some((end, _)) => format!("{}…", name[..end].trim_end()),
        None => name,
    }
}

/// The classes of the matrix: all, or those of the most frequent confusions.
fn in_matrix(report: &ZeroShotReport) -> Vec<&ClassResult> {
    let all = report.classes.iter();
    if report.classes.len() <= MATRIX {
        return all.collect();
    }
    let mut names = Vec::new();
    for cell in report.confused() {
        for name in [&cell.class, &cell.taken_for] {
            if names.len() < MATRIX && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    all.filter(|class| names.contains(&&class.name)).collect()
}

fn matrix(report: &ZeroShotReport) -> Markup {
    let shown_classes = in_matrix(report);
    let counts: BTreeMap<(&str, &str), u64> = report
        .confusion
        .iter()
        .map(|cell| ((cell.class.as_str(), cell.taken_for.as_str()), cell.count))
        .collect();
    let names = || shown_classes.iter().map(|class| class.name.as_str());
    html! {
        figure {
            div.scroll.heat tabindex="0" role="region" aria-label="Confusion matrix" {
                table {
                    thead { tr {
                        td {}
                        @for name in names() {
                            th scope="col" title=(name) { span { (short(name)) } }
                        }
                    } }
                    tbody { @for class in &shown_classes { tr {
                        th scope="row" title=(class.name) { (short(&class.name)) }
                        @for name in names() {
                            @match counts.get(&(class.name.as_str(), name)) {
                                Some(&count) => td style=(format!(
                                    "--heat:{:.0}%", share(count as f64, class.images as f64)
                                )) { span { (grouped(count)) } },
                                None => td { "·" },
                            }
                        }
                    } } }
                }
            }
        }
    }
}

/// The scores of each class, the worst first.
fn classes(report: &ZeroShotReport) -> Markup {
    let seen = report.classes.iter().filter(|class| class.images > 0);
    let mut seen: Vec<_> = seen.collect();
    seen.sort_by(|a, b| a.scores.top_1.total_cmp(&b.scores.top_1));
    let chance = report.chance.top_1;
    html! {
        section aria-labelledby="classes" {
            h2 #classes { "Classes" }
            p.lead {
                "The percentage of a class's images that are taken for it, and of those that have \
                 it among the nearest; the worst first. The mark on a bar is chance."
                @if seen.len() > ROWS {
                    " Of " (grouped(seen.len() as u64)) " classes, the " (ROWS) " worst."
                }
            }
            div.scroll tabindex="0" role="region" aria-labelledby="classes" {
                table.kinds {
                    thead { tr {
                        th scope="col" { "class" }
                        th scope="col" { "images" }
                        th scope="col" { "top\u{2011}1" }
                        th scope="col" { "top\u{2011}" (report.k) }
                    } }
                    tbody { @for class in seen.iter().take(ROWS) { tr {
                        th scope="row" {
                            (shown(&class.name))
                            div.meter aria-hidden="true" {
                                (meter(class.scores.top_1, Some(chance), 100.0))
                            }
                        }
                        td { (grouped(class.images)) }
                        td { (score(class.scores.top_1)) }
                        td { (score(class.scores.top_k)) }
                    } } }
                }
            }
        }
    }
}

fn examples(report: &ZeroShotReport) -> Markup {
    let mut thumbnails = Thumbnails::default();
    let cards = report.examples.iter();
    let cards: Vec<Markup> = cards.map(|one| card(one, &mut thumbnails)).collect();
    html! {
        section aria-labelledby="examples" {
            h2 #examples { "Examples" }
            p.lead {
                "An image of each of the most frequent confusions, then some that are right, each \
                 with the nearest classes and their cosines."
            }
            div.queries.small { @for card in cards { (card) } }
        }
    }
}

fn card(example: &ZeroShotExample, thumbnails: &mut Thumbnails) -> Markup {
    let (class, verdict) = if example.is_right {
        ("first", "✓ right")
    } else {
        ("far", "✗ wrong")
    };
    html! {
        article.query.wrong[!example.is_right] {
            div.ask {
                (picture(&example.image, "Image", thumbnails))
                span.badge.(class) { (verdict) }
            }
            ol.captions {
                @for (name, cosine) in &example.nearest {
                    li.match[*name == example.class] {
                        span.text { (shown(name)) }
                        span.score { (fixed(*cosine, 3)) }
                    }
                }
            }
            p.own { span { "It is of the class " strong { (shown(&example.class)) } } }
        }
    }
}
