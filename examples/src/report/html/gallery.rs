//! Queries with what the model retrieved for them.

use std::path::Path;

use maud::{Markup, html};

use crate::number::{fixed, grouped};
use crate::report::thumbnail::Thumbnails;
use crate::report::{CaptionQuery, Examples, ImageQuery};

/// The examples of both directions.
pub(super) fn examples(examples: &Examples, thumbnails: &mut Thumbnails) -> Markup {
    if examples.text_to_image.is_empty() && examples.image_to_text.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="examples" {
            h2 #examples { "Examples" }
            p.lead {
                "Queries that were not trained on, with the results that the trained model finds \
                 most similar, best first. "
                span.tick { "✓" } " marks a true match."
            }
            @if !examples.text_to_image.is_empty() {
                h3 { "Caption → images" }
                div.queries {
                    @for query in &examples.text_to_image {
                        (caption_query(query, thumbnails))
                    }
                }
            }
            @if !examples.image_to_text.is_empty() {
                h3 { "Image → captions" }
                div.queries {
                    @for query in &examples.image_to_text {
                        (image_query(query, thumbnails))
                    }
                }
            }
        }
    }
}

fn caption_query(query: &CaptionQuery, thumbnails: &mut Thumbnails) -> Markup {
    let found = query.results.iter().any(|result| result.is_match);
    html! {
        article.query {
            div.ask { blockquote { (query.caption) } (badge(query.rank)) }
            ol.images {
                @for (place, result) in (1..).zip(&query.results) {
                    li.match[result.is_match] {
                        (picture(&result.image, &format!("Result {place}"), thumbnails))
                        span.score {
                            @if result.is_match { (tick()) } (fixed(result.similarity, 2))
                        }
                    }
                }
            }
            @if !found {
                div.own {
                    (picture(&query.image, "The caption's own image", thumbnails))
                    span { "its own image, at rank " (grouped(query.rank)) }
                }
            }
        }
    }
}

fn image_query(query: &ImageQuery, thumbnails: &mut Thumbnails) -> Markup {
    let found = query.results.iter().any(|result| result.is_match);
    html! {
        article.query {
            div.ask { (picture(&query.image, "Query", thumbnails)) (badge(query.rank)) }
            ol.captions {
                @for result in &query.results {
                    li.match[result.is_match] {
                        span.text { @if result.is_match { (tick()) } (result.caption) }
                        span.score { (fixed(result.similarity, 2)) }
                    }
                }
            }
            @if !found {
                p.own { span { "Its own, at rank " (grouped(query.rank)) ": " (query.caption) } }
            }
        }
    }
}

/// The check mark of a match, spoken as a word.
fn tick() -> Markup {
    html! { span.tick role="img" aria-label="match" { "✓" } }
}

fn badge(rank: u64) -> Markup {
    let class = match rank {
        1 => "first",
        2..=5 => "near",
        _ => "far",
    };
    html! { span.badge.(class) { "rank " (grouped(rank)) } }
}

/// An image in the page, or a placeholder that says there is none.
pub(in crate::report) fn picture(file: &Path, what: &str, thumbnails: &mut Thumbnails) -> Markup {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let what = format!("{what}: {name}");
    html! {
        @if let Some(thumbnail) = thumbnails.of(file) {
            img src=(thumbnail.uri) width=(thumbnail.width) height=(thumbnail.height)
                alt=(what) title=(name);
        } @else {
            span.missing role="img" aria-label=(format!("{what} (not available)")) title=(name) {
                "no image"
            }
        }
    }
}
