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

/// Writes the report on `results`, which are those of the file `source`: as Markdown with its
/// charts beside it, as a page, or both; all files or none.
///
/// # Errors
///
/// If nothing was compared yet, or a file cannot be written.
pub fn report(
    results: &Results,
    source: &Path,
    markdown: Option<&Path>,
    page: Option<&Path>,
) -> Result<()> {
    ensure!(
        results.runs.iter().any(|run| run.test.is_some()),
        "{} has no run to report on yet: settings are still searched",
        source.display()
    );
    let place = markdown.or(page).map_or(Path::new("."), files::folder);
    let document = document(results, &link(source, place));
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

/// The path of a file from a folder on, with slashes; as it is, where there is none.
fn link(file: &Path, folder: &Path) -> String {
    let relative = || -> Option<String> {
        let [file, folder] = [file, folder].map(|path| path.canonicalize().ok());
        let (file, folder) = (file?, folder?);
        let shared = folder
            .ancestors()
            .find(|ancestor| file.starts_with(ancestor))?;
        let up = folder.strip_prefix(shared).ok()?.components().map(|_| "..");
        let down = file.strip_prefix(shared).ok()?.components();
        let down: Option<Vec<_>> = down.map(|part| part.as_os_str().to_str()).collect();
        Some(up.chain(down?).collect::<Vec<_>>().join("/"))
    };
    relative().unwrap_or_else(|| file.display().to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_linked_from_where_the_report_lies() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["docs", "examples/results"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::write(at("examples/results/a.json"), "").unwrap();
        let file = at("examples/results/a.json");
        assert_eq!(link(&file, &at("docs")), "../examples/results/a.json");
        assert_eq!(link(&file, &at("examples/results")), "a.json");
        assert_eq!(link(&file, root.path()), "examples/results/a.json");
        assert_eq!(link(Path::new("gone.json"), root.path()), "gone.json");
    }
}
