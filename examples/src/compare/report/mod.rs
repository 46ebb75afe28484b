//! What the runs show: tables, charts and sentences, all of them from the results file.

mod charts;
mod document;
mod findings;
mod measures;
mod tables;

use std::path::Path;

use anyhow::{Context, Result, ensure};

use self::document::{Block, Document};
use super::results::Results;
use crate::files::{self, Partial};

/// Writes the report on `results`, whose file is called `source`: as Markdown with its charts
/// beside it, as a page, or both; all files or none.
///
/// # Errors
///
/// If nothing was compared yet, or a file cannot be written.
pub fn report(
    results: &Results,
    source: &str,
    markdown: Option<&Path>,
    page: Option<&Path>,
) -> Result<()> {
    ensure!(
        results.runs.iter().any(|run| run.test.is_some()),
        "{source} has no run to report on yet: settings are still searched"
    );
    let document = document(results, source);
    let mut written: Vec<Partial> = Vec::new();
    let mut add = |path: &Path, content: &str| -> Result<()> {
        let mut file = Partial::create(path)?;
        file.write(content.as_bytes())?;
        written.push(file);
        Ok(())
    };
    if let Some(path) = markdown {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let stem = stem.with_context(|| format!("{} is no name of a file", path.display()))?;
        let mut names = Vec::new();
        for (number, chart) in (1..).zip(document.charts()) {
            let name = format!("{stem}-{number}.svg");
            add(&path.with_file_name(&name), &chart.alone())?;
            names.push(name);
        }
        add(path, &document.markdown(&names))?;
    }
    if let Some(path) = page {
        add(path, &document.page())?;
    }
    files::commit(written)
}

fn document(results: &Results, source: &str) -> Document {
    let heading = |text: &str| vec![Block::Heading(text.to_string())];
    let parts = [
        findings::question(source),
        heading("The set-up"),
        findings::setup(results),
        heading("What is shown"),
        findings::found(results),
        tables::rates(results),
        heading("Over the rates"),
        charts::rates(results),
        heading("Do weights find the false negatives?"),
        tables::weights(results),
        charts::weights(results),
        heading("Time and memory"),
        tables::costs(results),
        heading("Settings that were chosen"),
        tables::chosen(results),
        heading("What is not shown"),
        findings::limits(results),
    ];
    Document {
        title: "Which objective, when negatives are false?".to_string(),
        blocks: parts.into_iter().flatten().collect(),
    }
}
