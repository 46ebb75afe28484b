//! A document of headings, paragraphs, tables and charts, as Markdown and as a page.

use maud::{Markup, html};

use crate::report::html::{document, figures::figure};
use crate::report::palette::Role;

/// A part of a document. Text may have `code` between backticks, and `[words](address)` for links.
#[derive(Clone)]
pub(super) enum Block {
    /// A heading of a section.
    Heading(String),
    /// A paragraph.
    Text(String),
    /// Points.
    List(Vec<String>),
    /// A table, whose first column names its rows.
    Table {
        columns: Vec<String>,
        rows: Vec<Vec<String>>,
    },
    /// A chart.
    Chart(Chart),
}

/// A chart with its legend.
#[derive(Clone)]
pub(super) struct Chart {
    /// Its heading, which says what the vertical axis is.
    pub title: String,
    /// The colours of its lines.
    pub legend: Vec<(Role, String)>,
    /// The drawing.
    pub svg: String,
    /// What it shows, in words.
    pub description: String,
}

/// A whole document.
pub(super) struct Document {
    pub title: String,
    pub blocks: Vec<Block>,
}

impl Document {
    /// The charts, in their order.
    pub fn charts(&self) -> impl Iterator<Item = &Chart> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Chart(chart) => Some(chart),
            _ => None,
        })
    }

    /// As Markdown, with its charts in the files `charts`.
    pub fn markdown(&self, charts: &[String]) -> String {
        let mut files = charts.iter();
        let mut text = format!("# {}\n", self.title);
        for block in &self.blocks {
            text += "\n";
            match block {
                Block::Heading(heading) => text += &format!("## {heading}\n"),
                Block::Text(paragraph) => text += &format!("{paragraph}\n"),
                Block::List(points) => {
                    text.extend(points.iter().map(|point| format!("- {point}\n")));
                }
                Block::Table { columns, rows } => {
                    text += &row(columns);
                    let rules = columns.iter().enumerate();
                    let rules = rules.map(|(column, _)| if column == 0 { "---" } else { "--:" });
                    text += &row(&rules.map(String::from).collect::<Vec<_>>());
                    text.extend(rows.iter().map(|cells| row(cells)));
                }
                Block::Chart(chart) => {
                    let file = files.next().expect("a file for each chart");
                    let Chart { title, .. } = chart;
                    text += &format!("![{title}]({file})\n\n**{title}.** {}\n", chart.description);
                }
            }
        }
        text
    }

    /// As a page that needs nothing but itself.
    pub fn page(&self) -> String {
        let sections = self.sections();
        let main = html! {
            @for (number, (heading, blocks)) in sections.iter().enumerate() {
                @let id = format!("section-{number}");
                section aria-labelledby=[heading.map(|_| &id)] {
                    @if let Some(heading) = heading { h2 id=(id) { (heading) } }
                    @for block in blocks { (shown(block)) }
                }
            }
        };
        document(&self.title, Vec::new(), main)
    }

    /// What comes before the first heading, and what after each.
    fn sections(&self) -> Vec<(Option<&str>, Vec<&Block>)> {
        let mut sections: Vec<(Option<&str>, Vec<&Block>)> = vec![(None, Vec::new())];
        for block in &self.blocks {
            match block {
                Block::Heading(heading) => sections.push((Some(heading), Vec::new())),
                _ => sections.last_mut().expect("at least one").1.push(block),
            }
        }
        sections
    }
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn shown(block: &Block) -> Markup {
    html! {
        @match block {
            Block::Heading(_) => {}
            Block::Text(text) => { p { (marked_up(text)) } }
            Block::List(points) => {
                ul { @for point in points { li { (marked_up(point)) } } }
            }
            Block::Table { columns, rows } => {
                div.scroll tabindex="0" {
                    table.dense {
                        thead { tr { @for column in columns {
                            th scope="col" { (marked_up(column)) }
                        } } }
                        tbody { @for cells in rows { tr {
                            @for (place, cell) in cells.iter().enumerate() {
                                @if place == 0 { th scope="row" { (marked_up(cell)) } }
                                @else { td { (marked_up(cell)) } }
                            }
                        } } }
                    }
                }
            }
            Block::Chart(chart) => {
                @let legend = chart.legend.iter().map(|(role, name)| (*role, name.as_str()));
                @let legend = legend.collect::<Vec<_>>();
                (figure(
                    &chart.title,
                    &legend,
                    &chart.svg,
                    &chart.description,
                    marked_up(&chart.description),
                ))
            }
        }
    }
}

/// Text with links, code, bold and slanted parts.
fn marked_up(text: &str) -> Markup {
    let link = || {
        let (before, rest) = text.split_once("](")?;
        let (address, after) = rest.split_once(')')?;
        let (before, words) = before.rsplit_once('[')?;
        Some((before, words, address, after))
    };
    match link() {
        Some((before, words, address, after)) => html! {
            (unlinked(before)) a href=(address) { (unlinked(words)) } (marked_up(after))
        },
        None => unlinked(text),
    }
}

/// Text whose parts between backticks are code, between double stars bold, and between single
/// ones slanted.
fn unlinked(text: &str) -> Markup {
    let slanted = |text: &str| {
        html! {
            @for (place, part) in text.split('*').enumerate() {
                @if place % 2 == 1 { em { (part) } } @else { (part) }
            }
        }
    };
    let bold = |text: &str| {
        html! {
            @for (place, part) in text.split("**").enumerate() {
                @if place % 2 == 1 { strong { (part) } } @else { (slanted(part)) }
            }
        }
    };
    html! {
        @for (place, part) in text.split('`').enumerate() {
            @if place % 2 == 1 { code { (part) } } @else { (bold(part)) }
        }
    }
}

/// Height of a row of a legend, in the units of a drawing.
const ROW: usize = 64;

impl Chart {
    /// The drawing with its legend below it, for where there is no page around it.
    pub fn alone(&self) -> String {
        let entries = self.legend.iter().enumerate().map(|(place, (role, name))| {
            let (x, y) = (200 + 860 * (place % 2), HEIGHT + ROW * (place / 2));
            let colour = role.colour();
            let fill = format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2);
            html! {
                rect x=(x) y=(y) width="36" height="36" fill=(fill) {}
                text x=(x + 52) y=(y + 34) font-family="sans-serif" font-size="44" fill="#5A6473" {
                    (name)
                }
            }
        });
        let legend: String = entries.map(|entry| entry.into_string()).collect();
        let height = HEIGHT + ROW * self.legend.len().div_ceil(2);
        let higher = |old: &str| old.replacen(&HEIGHT.to_string(), &height.to_string(), 1);
        let svg = ["height=\"1080\"", "0 0 1920 1080"]
            .iter()
            .fold(self.svg.clone(), |svg, old| {
                svg.replacen(old, &higher(old), 1)
            });
        match svg.rsplit_once("</svg>") {
            Some((drawing, rest)) => format!("{drawing}{legend}</svg>{rest}"),
            None => svg,
        }
    }
}

/// Height of a drawing.
const HEIGHT: usize = 1080;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_the_same_text() {
        let chart = Chart {
            title: "R@sum".to_string(),
            legend: vec![(Role::First, "a < b".to_string())],
            svg: "<svg height=\"1080\"></svg>\n".to_string(),
            description: "Rising.".to_string(),
        };
        let alone = chart.alone();
        assert!(alone.starts_with("<svg height=\"1144\">"), "{alone}");
        assert!(alone.ends_with("a &lt; b</text></svg>\n"), "{alone}");
        let table = Block::Table {
            columns: vec!["objective".to_string(), "R@1".to_string()],
            rows: vec![vec!["`dcl`".to_string(), "1.0".to_string()]],
        };
        let blocks = vec![
            Block::Text("*By* `compare` & **none** of [`a.json`](../a.json).".to_string()),
            Block::Heading("Found".to_string()),
            Block::List(vec!["one".to_string()]),
            table,
            Block::Chart(chart),
        ];
        let document = Document {
            title: "Results".to_string(),
            blocks,
        };
        assert_eq!(
            document.markdown(&["a.svg".to_string()]),
            "# Results\n\n*By* `compare` & **none** of [`a.json`](../a.json).\n\n## Found\n\n- one\n\n\
             | objective | R@1 |\n| --- | --: |\n| `dcl` | 1.0 |\n\n\
             ![R@sum](a.svg)\n\n**R@sum.** Rising.\n"
        );
        let page = document.page();
        for part in [
            "<p><em>By</em> <code>compare</code> &amp; <strong>none</strong> of \
             <a href=\"../a.json\"><code>a.json</code></a>.</p>",
            "<h2 id=\"section-1\">Found</h2><ul><li>one</li></ul>",
            "<th scope=\"row\"><code>dcl</code></th><td>1.0</td>",
            "Rising.",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }
}
