//! The page of a search.

use std::path::PathBuf;

use maud::{Markup, html};

use super::html::{document, picture};
use super::thumbnail::Thumbnails;
use crate::number::{counted, fixed};

/// The pictures of one text, best first, each with its cosine similarity to the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Hits {
    /// The text.
    pub text: String,
    /// Pictures and similarities.
    pub pictures: Vec<(PathBuf, f64)>,
}

/// What was found in a file of embeddings.
pub struct SearchPage<'a> {
    /// The file.
    pub file: String,
    /// What was found for each text.
    pub hits: &'a [Hits],
}

impl SearchPage<'_> {
    /// A self-contained page.
    pub fn to_html(&self) -> String {
        let mut thumbnails = Thumbnails::default();
        let facts = vec![self.file.clone(), counted(self.hits.len(), "text")];
        let sections = self.hits.iter().enumerate();
        let sections: Vec<Markup> = sections
            .map(|(index, hits)| section(index, hits, &mut thumbnails))
            .collect();
        document(
            "Search",
            facts,
            html! { @for section in sections { (section) } },
        )
    }
}

fn section(index: usize, hits: &Hits, thumbnails: &mut Thumbnails) -> Markup {
    let id = format!("text-{index}");
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (hits.text) }
            div.queries.small {
                @for (rank, (file, similarity)) in hits.pictures.iter().enumerate() {
                    div.query {
                        (picture(file, &format!("rank {}", rank + 1), thumbnails))
                        span.small { (rank + 1) ". cosine " (fixed(*similarity, 3)) }
                    }
                }
            }
        }
    }
}
