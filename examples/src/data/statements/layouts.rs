//! The forms in which statements are distributed.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Statement;
use crate::data::collection::Split;
use crate::data::listing::{Element, Elements, Faults, Lines, Place, read_json};

/// Pictures of a statement of NLVR.
const PERMUTATIONS: usize = 6;

/// A statement in this project's own form.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::data) struct Row {
    pub images: [String; 2],
    pub text: String,
    pub label: bool,
    #[serde(default)]
    pub kind: String,
    pub split: String,
}

impl Element for Row {
    const MANY: &'static str = "statements";
}

#[derive(Deserialize)]
struct OwnFile {
    statements: Elements<Row>,
}

/// Reads this project's own form.
pub(super) fn own(file: &Path, faults: &mut Faults) -> Result<Vec<Statement>> {
    let listing: OwnFile = read_json(file, "a file of statements")?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut items = Vec::with_capacity(listing.statements.0.len());
    for (index, row) in listing.statements.0.into_iter().enumerate() {
        let place = Place::Element("statements", index);
        let item = row.and_then(|row| {
            let split = Split::from_name(&row.split).ok_or_else(|| {
                format!("unknown split {:?}; expected train, val or test", row.split)
            })?;
            if row.images.iter().any(|image| image.trim().is_empty()) {
                return Err("an image path is blank".into());
            }
            let images = row.images.map(|image| folder.join(image));
            let mut item = statement(images, &row.text, row.label, split, place)?;
            item.kind = row.kind;
            Ok(item)
        });
        match item {
            Ok(item) => items.push(item),
            Err(reason) => faults.report(file, place, reason)?,
        }
    }
    Ok(items)
}

/// A line of NLVR2 or NLVR.
#[derive(Deserialize)]
struct Line {
    sentence: String,
    label: Value,
    identifier: String,
    /// A number in NLVR2, a word in NLVR.
    #[serde(default)]
    directory: Option<Value>,
}

impl Line {
    /// The label, which both sets write as a word.
    fn label(&self) -> Result<bool, String> {
        let word = match &self.label {
            Value::Bool(label) => return Ok(*label),
            Value::String(word) => word.to_lowercase(),
            _ => String::new(),
        };
        match word.as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!(
                "the label is {}; expected true or false",
                self.label
            )),
        }
    }

    /// The name of its folder of images, where it gives one.
    fn directory(&self) -> Option<String> {
        match self.directory.as_ref()? {
            Value::String(name) => Some(name.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

/// Reads JSON lines; `parse` gives the statements of a line.
fn lines(
    file: &Path,
    faults: &mut Faults,
    parse: impl Fn(Line, Place) -> Result<Vec<Statement>, String>,
) -> Result<Vec<Statement>> {
    let mut lines = Lines::open(file)?;
    let mut items = Vec::new();
    while let Some((place, line)) = lines.next_line()? {
        let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        if line.trim_ascii().is_empty() {
            continue;
        }
        let line = serde_json::from_slice::<Line>(line).map_err(|error| error.to_string());
        match line.and_then(|line| parse(line, place)) {
            Ok(found) => items.extend(found),
            Err(reason) => faults.report(file, place, reason)?,
        }
    }
    Ok(items)
}

/// Reads a file of NLVR2.
pub(super) fn nlvr2(file: &Path, split: Split, faults: &mut Faults) -> Result<Vec<Statement>> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let own = file.file_stem().unwrap_or_default();
    let folders = [
        folder.join("images"),
        folder.join(own),
        folder.join("images").join(own),
    ];
    lines(file, faults, |line, place| {
        let Some((pair, _)) = line.identifier.rsplit_once('-') else {
            let shown = &line.identifier;
            return Err(format!(
                "the identifier is {shown:?}; expected one like dev-840-0-0"
            ));
        };
        let directory = line.directory();
        let images = ["img0", "img1"].map(|image| {
            let name = format!("{pair}-{image}.png");
            let plain = folders.iter().map(|folder| folder.join(&name));
            let inner = directory.iter().flat_map(|directory| {
                let inner = folders.iter().map(move |folder| folder.join(directory));
                inner.map(|folder| folder.join(&name))
            });
            let found = plain.chain(inner).find(|image| image.is_file());
            found.ok_or_else(|| {
                let places = folders
                    .each_ref()
                    .map(|folder| folder.display().to_string());
                format!("image {name} not found in {}", places.join(", "))
            })
        });
        let [left, right] = images;
        let images = [left?, right?];
        Ok(vec![statement(
            images,
            &line.sentence,
            line.label()?,
            split,
            place,
        )?])
    })
}

/// Reads a file of NLVR.
pub(super) fn nlvr(file: &Path, split: Split, faults: &mut Faults) -> Result<Vec<Statement>> {
    let folder = file.with_file_name("images");
    let own = file.file_stem().unwrap_or_default().display();
    lines(file, faults, |line, place| {
        let directory = line.directory().ok_or("it has no directory")?;
        let label = line.label()?;
        let statements = (0..PERMUTATIONS).map(|permutation| {
            let name = format!("{own}-{}-{permutation}.png", line.identifier);
            let image = folder.join(&directory).join(name);
            statement([image.clone(), image], &line.sentence, label, split, place)
        });
        statements.collect()
    })
}

/// A statement, or why it is refused.
fn statement(
    images: [PathBuf; 2],
    text: &str,
    label: bool,
    split: Split,
    place: Place,
) -> Result<Statement, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("the statement is blank".into());
    }
    Ok(Statement {
        images,
        text: text.to_owned(),
        label,
        kind: String::new(),
        split,
        file: 0,
        place,
    })
}
