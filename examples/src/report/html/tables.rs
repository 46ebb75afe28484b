//! Tables of numbers, and histograms by name.

use maud::{Markup, html};

use super::figures::{distribution, occupied};
use crate::number::score;
use crate::report::{NamedHistogram, Table};

/// All tables, a section each.
pub(super) fn tables(tables: &[Table]) -> Markup {
    html! {
        @for (number, table) in tables.iter().enumerate() {
            @let id = format!("table-{number}");
            section aria-labelledby=(id) {
                h2 id=(id) { (table.title) }
                @if !table.lead.is_empty() { p.lead { (table.lead) } }
                div.scroll tabindex="0" role="region" aria-labelledby=(id) {
                    table {
                        thead { tr {
                            th scope="col" { (table.rows_are) }
                            @for column in &table.columns { th scope="col" { (column) } }
                        } }
                        tbody { @for row in &table.rows { tr {
                            th scope="row" { (row.name) }
                            @for number in &row.numbers { td { (score(*number)) } }
                        } } }
                    }
                }
            }
        }
    }
}

/// All histograms of similarities that are not empty.
pub(super) fn histograms(all: &[NamedHistogram]) -> Markup {
    let drawn: Vec<_> = all.iter().filter(|one| !one.histogram.is_blank()).collect();
    html! {
        @if !drawn.is_empty() {
            section aria-labelledby="by-class" {
                h2 #by-class { "Similarities by class" }
                p.lead {
                    "How similar items of one class (positives) and of different classes \
                     (negatives) are. Each distribution has area one; an upright line marks its \
                     mean."
                }
                div.figures {
                    @for NamedHistogram { name, histogram } in drawn {
                        (distribution(
                            name, histogram, &occupied(histogram), histogram.separation(),
                        ))
                    }
                }
            }
        }
    }
}
