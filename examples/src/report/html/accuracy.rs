//! How often the model answers right, and some of its answers.

use maud::{Markup, html};

use super::gallery::picture;
use super::meter;
use crate::number::{fixed, grouped, score};
use crate::report::thumbnail::Thumbnails;
use crate::report::{Accuracy, AnswerExample};

/// The most important result.
pub(super) fn headline(accuracy: &Accuracy) -> Markup {
    html! {
        dl.tiles aria-label="Headline accuracy" {
            div.tile {
                dt { "Accuracy" }
                dd.number { (score(accuracy.after)) span.unit { "%" } }
                dd.meter aria-hidden="true" {
                    (meter(accuracy.after, Some(accuracy.majority), 100.0))
                }
                @if let Some(before) = accuracy.before {
                    dd.small { "before training " (score(before)) }
                }
                dd.small { "majority answer " (score(accuracy.majority)) }
            }
        }
    }
}

/// The accuracy by kind, beside that of the majority answer.
pub(super) fn table(accuracy: &Accuracy) -> Markup {
    let row = |name: &str, count, majority, after| {
        html! {
            th scope="row" {
                (name)
                div.meter aria-hidden="true" { (meter(after, Some(majority), 100.0)) }
            }
            td { (grouped(count)) }
            td { (score(majority)) }
            td { (score(after)) }
        }
    };
    html! {
        section aria-labelledby="accuracy" {
            h2 #accuracy { "Accuracy" }
            p.lead {
                "Percentage of right answers on held-out examples"
                @if !accuracy.split.is_empty() { " (" (accuracy.split) ")" }
                ". The majority answer is to give the most frequent answer of the training split \
                 to all. A bar is the trained model; the mark on it is the majority answer."
            }
            div.scroll tabindex="0" role="region" aria-labelledby="accuracy" {
                table.kinds {
                    thead { tr {
                        th scope="col" { "kind" }
                        th scope="col" { "examples" }
                        th scope="col" { "majority answer" }
                        th scope="col" { "after training" }
                    } }
                    tbody {
                        @for of in &accuracy.by_kind {
                            tr { (row(&of.kind, of.count, of.majority, of.after)) }
                        }
                        tr.total {
                            (row("all", accuracy.count, accuracy.majority, accuracy.after))
                        }
                    }
                }
            }
        }
    }
}

/// Some answers of the trained model.
pub(super) fn answers(answers: &[AnswerExample], thumbnails: &mut Thumbnails) -> Markup {
    html! {
        @if !answers.is_empty() {
            section aria-labelledby="answers" {
                h2 #answers { "Answers" }
                p.lead {
                    "Held-out examples with the answer of the trained model, the probability that \
                     it gives to this answer, and the right one."
                }
                div.queries.small { @for answer in answers { (card(answer, thumbnails)) } }
            }
        }
    }
}

fn card(answer: &AnswerExample, thumbnails: &mut Thumbnails) -> Markup {
    let (class, verdict) = if answer.is_right {
        ("first", "✓ right")
    } else {
        ("far", "✗ wrong")
    };
    let several = answer.images.len() > 1;
    html! {
        article.query.wrong[!answer.is_right] {
            div.ask { blockquote { (answer.question) } span.badge.(class) { (verdict) } }
            div.pair {
                @for (place, image) in (1..).zip(&answer.images) {
                    @let what = if several { format!("Image {place}") } else { "Image".into() };
                    (picture(image, &what, thumbnails))
                }
            }
            dl.sides {
                div {
                    dt { "answer" }
                    dd { (answer.given) " " span.score { (fixed(answer.confidence, 2)) } }
                }
                div { dt { "right answer" } dd { (answer.expected) } }
            }
        }
    }
}
