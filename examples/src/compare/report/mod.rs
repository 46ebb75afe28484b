//! What the runs show: tables, charts and sentences, all of them from the results file.

mod charts;
mod document;
mod findings;
mod measures;
mod settings;
mod setup;
mod tables;
mod weights;

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
    let document = |at: &Path, other: Option<&Path>| {
        let folder = files::folder(at);
        document(
            results,
            &link(source, folder),
            other.map(|other| link(other, folder)).as_deref(),
        )
    };
    let mut written: Vec<Partial> = Vec::new();
    let mut add = |path: &Path, content: &str| -> Result<()> {
        let mut file = Partial::create(path)?;
        file.write(content.as_bytes())?;
        written.push(file);
        Ok(())
    };
    if let Some(path) = markdown {
        let document = document(path, page);
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
        add(path, &document(path, None).page())?;
    }
    files::commit(written)
}

/// The path of a file, which need not be there yet, from a folder on, with slashes; as it is,
/// where there is no such folder.
fn link(file: &Path, folder: &Path) -> String {
    let relative = || -> Option<String> {
        let [home, folder] = [files::folder(file), folder].map(|path| path.canonicalize().ok());
        let (file, folder) = (home?.join(file.file_name()?), folder?);
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

fn document(results: &Results, source: &str, page: Option<&str>) -> Document {
    let section = |heading: &str, blocks: Vec<Block>| {
        if blocks.is_empty() {
            return blocks;
        }
        [vec![Block::Heading(heading.to_string())], blocks].concat()
    };
    let over_rates = [tables::over_the_rates(results), charts::rates(results)].concat();
    let parts = [
        setup::question(results, source, page),
        section("What is shown", findings::found(results)),
        section("What is not shown", setup::limits(results)),
        section("The set-up", setup::setup(results)),
        section("The figures", setup::figures(results)),
        section("The test", setup::test()),
        section("Over the rates", over_rates),
        tables::rates(results),
        section(
            "Do weights find the false negatives?",
            weights::section(results),
        ),
        section("Time and memory", settings::costs(results)),
        section("Settings that were chosen", settings::chosen(results)),
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
        assert_eq!(link(&at("docs/b.html"), &at("examples")), "../docs/b.html");
        let gone = Path::new("gone/a.json");
        assert_eq!(link(gone, root.path()), "gone/a.json");
    }
}
