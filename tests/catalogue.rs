//! The tables of objectives in README, the crate's documentation and the guide list exactly the
//! objectives that exist.

use std::collections::BTreeSet;

use burn_contrastive::objective::{AnyConfig, Input, ObjectiveConfig};

const README: &str = include_str!("../README.md");
const LIBRARY: &str = include_str!("../src/lib.rs");
const GUIDE: &str = include_str!("../docs/objectives.md");
const EXPORTS: &str = include_str!("../src/objective/mod.rs");

/// The cells of a Markdown table's row.
fn cells(row: &str) -> Vec<&str> {
    row.trim()
        .trim_matches('|')
        .split('|')
        .map(str::trim)
        .collect()
}

/// The rows below the header that begins with these cells.
fn table<'a>(text: &'a str, header: &str) -> Vec<Vec<&'a str>> {
    let lines = text
        .lines()
        .map(|line| line.trim_start_matches("//!").trim());
    let mut rows = lines
        .skip_while(|line| !line.starts_with(header))
        .skip(2)
        .peekable();
    assert!(rows.peek().is_some(), "there is no table {header}");
    rows.take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect()
}

/// The first word in backticks, without brackets.
fn code(cell: &str) -> Option<&str> {
    cell.split('`').nth(1)
}

/// Objectives on a model's outputs, which cannot be built by name.
const NAMELESS: [&str; 2] = ["ImageTextMatching", "MaskedLanguage"];

/// Configs that do not belong to one objective.
const GENERAL: [&str; 3] = ["ContrastiveConfig", "ObjectiveConfig", "WeightedSumConfig"];

/// Every objective that the module exports, by its config.
fn exported() -> BTreeSet<&'static str> {
    let words = EXPORTS.split(|c: char| !c.is_ascii_alphanumeric());
    let configs = words.filter(|word| !GENERAL.contains(word) && *word != "AnyConfig");
    configs
        .filter_map(|word| word.strip_suffix("Config").filter(|name| !name.is_empty()))
        .collect()
}

fn names() -> BTreeSet<&'static str> {
    let names = AnyConfig::names().into_iter();
    names.filter(|&name| name != "sum").collect()
}

#[test]
fn catalogues_hold_every_objective_once() {
    for (file, text) in [("README.md", README), ("src/lib.rs", LIBRARY)] {
        let rows = table(text, "| objective | name |");
        let types: Vec<_> = rows.iter().filter_map(|row| code(row[0])).collect();
        let unique: BTreeSet<_> = types.iter().copied().collect();
        assert_eq!(types.len(), unique.len(), "{file} names an objective twice");
        assert_eq!(
            unique,
            exported(),
            "{file}, against the exports of src/objective/mod.rs"
        );
        let found: BTreeSet<_> = rows.iter().filter_map(|row| code(row[1])).collect();
        assert_eq!(found, names(), "{file}, against the names there are");
        for row in &rows {
            let nameless = NAMELESS.contains(&code(row[0]).unwrap());
            assert_eq!(code(row[1]).is_none(), nameless, "{file}: {row:?}");
        }
    }
}

#[test]
fn the_guide_has_every_name_with_its_parameters_and_inputs() {
    for name in names() {
        let heading = GUIDE
            .lines()
            .any(|line| line.starts_with("### ") && line.contains(&format!("`{name}`")));
        assert!(heading, "docs/objectives.md has no section on {name}");
    }
    let expected: Vec<Vec<String>> = AnyConfig::names().into_iter().map(row).collect();
    let found = table(GUIDE, "| name | parameters and defaults |");
    let lines: Vec<_> = expected
        .iter()
        .map(|row| format!("| {} |", row.join(" | ")))
        .collect();
    assert_eq!(found, expected, "the table should be\n{}", lines.join("\n"));
}

/// The parameters that every softmax contrast has, unless it is defined with one of them.
const EXTRAS: [&str; 8] = [
    "hard_negatives",
    "queue",
    "noise",
    "momentum",
    "same_id",
    "label_smoothing",
    "soft_targets",
    "guided_margin",
];

/// The row of the guide's table that an objective must have.
fn row(name: &str) -> Vec<String> {
    let mut config = ObjectiveConfig::named(name).unwrap();
    let code = |input: &Input| format!("`{input}`");
    let mut inputs: Vec<_> = config.needs().iter().map(code).collect();
    let optional: Vec<_> = config.uses().iter().map(code).collect();
    if !optional.is_empty() {
        inputs.push(format!("optional: {}", optional.join(", ")));
    }
    let mut parameters = config.parameters();
    // As `weight`, said once for all.
    parameters.retain(|parameter| parameter.name != "precision");
    let (extras, own): (Vec<_>, Vec<_>) = parameters.iter().partition(|p| EXTRAS.contains(&p.name));
    let own = own.iter().map(|p| format!("{} {}", p.name, p.get()));
    let mut parameters: Vec<_> = own.collect();
    if !extras.is_empty() {
        let mut missing = EXTRAS.to_vec();
        missing.retain(|name| extras.iter().all(|extra| extra.name != *name));
        parameters.push(match missing.as_slice() {
            [] => "extras".to_string(),
            missing => format!("extras except {}", missing.join(" and ")),
        });
    }
    if name == "sum" {
        parameters.push("terms, a list of objectives".to_string());
    }
    vec![
        format!("`{name}`"),
        parameters.join(", "),
        inputs.join(", "),
    ]
}

#[test]
fn the_guide_describes_every_extra() {
    let (_, after) = GUIDE
        .split_once("| name | parameters and defaults |")
        .unwrap();
    let found = table(after, "| extra |");
    let names: Vec<_> = found.iter().filter_map(|row| code(row[0])).collect();
    assert_eq!(names, EXTRAS);
    let mut con_vse = ObjectiveConfig::named("con-vse").unwrap();
    let parameters = con_vse.parameters();
    let extras = parameters.iter().filter(|p| EXTRAS.contains(&p.name));
    let defaults: Vec<_> = extras.map(|p| p.get().to_string()).collect();
    let described: Vec<_> = found.iter().map(|row| row[1]).collect();
    assert_eq!(described, defaults);
}
