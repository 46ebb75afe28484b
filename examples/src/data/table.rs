//! Reads a table of image path and caption, or class: CSV, or TSV by the extension `.tsv`.
//!
//! - A first row that names an image column (`image`, `path`, `filepath`, `filename`, …) and a
//!   caption column (`caption`, `text`, `title`, …; of classes `class`, `label`, `category`) is a
//!   header; a `split` column is optional.
//!   Without a header the first column is the path, which must exist, and the second the caption.
//! - A line is a row. All rows have as many cells as the first: a comma in a caption needs quotes
//!   around it. In TSV quotes mean nothing.
//! - Paths are relative to the table's folder. Rows with the same path are captions of one image.
//! - Without a `split` column, a hash of each path puts about 80 % of the images in train, 10 % in
//!   validation and 10 % in test: the same images on every machine, whatever the order of the rows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::str;

use anyhow::{Context, Result, bail, ensure};
use csv::StringRecord;

use super::collection::{Example, Split};
use super::listing::{Faults, Lines, Place};
use crate::number::counted;

/// The names of columns, the preferred first.
const IMAGE: &[&str] = &[
    "image",
    "image_path",
    "path",
    "filepath",
    "file_path",
    "filename",
    "file_name",
    "image_name",
    "file",
];
pub(super) const CAPTION: &[&str] = &["caption", "text", "title", "sentence", "comment"];
const SPLIT: &[&str] = &["split"];

/// What a table says about images: the word for it, and the names of its column.
#[derive(Clone, Copy)]
pub(super) struct Says {
    what: &'static str,
    names: &'static [&'static str],
}

/// A table of captions.
pub(super) const CAPTIONS: Says = Says {
    what: "caption",
    names: CAPTION,
};
/// A table of classes.
pub(super) const CLASSES: Says = Says {
    what: "class",
    names: &["class", "label", "category"],
};

/// Which column is what.
struct Columns {
    says: Says,
    image: usize,
    text: usize,
    split: Option<usize>,
}

impl Columns {
    /// The columns that a header row names; `None` if `row` is not a header.
    fn from_header(row: &StringRecord, says: Says) -> Result<Option<Self>> {
        let cells: Vec<_> = row.iter().map(|cell| cell.trim().to_lowercase()).collect();
        let find = |names: &[&str]| {
            let called = |name: &str| cells.iter().filter(|cell| *cell == name).count();
            let Some(name) = names.iter().find(|name| called(name) > 0) else {
                return Ok(None);
            };
            ensure!(called(name) == 1, "two columns are called `{name}`");
            Ok(cells.iter().position(|cell| cell == name))
        };
        let (Some(image), Some(text)) = (find(IMAGE)?, find(says.names)?) else {
            return Ok(None);
        };
        let split = find(SPLIT)?;
        Ok(Some(Self {
            says,
            image,
            text,
            split,
        }))
    }

    /// The columns of a table whose first row is `row`, and whether that is a header.
    fn of_table(row: &StringRecord, says: Says, folder: &Path) -> Result<(Self, bool)> {
        if let Some(columns) = Self::from_header(row, says)? {
            return Ok((columns, true));
        }
        let cell = |column: usize| row.get(column).unwrap_or_default().trim();
        let (image, separator) = (
            cell(0),
            [';', '\t'].into_iter().find(|c| cell(0).contains(*c)),
        );
        if row.len() == 1 {
            match separator {
                Some(';') => bail!("the row has one cell, with semicolons: separate by commas"),
                Some(_) => bail!("the row has one cell, with tabs: call the file .tsv"),
                None => bail!(
                    "the row has one cell, a table needs two: image path and {}",
                    says.what
                ),
            }
        }
        ensure!(
            folder.join(image).is_file(),
            "neither a header, which names a column {} and a column {}, nor a row of the table: \
             there is no image {}",
            IMAGE.join(", "),
            says.names.join(", "),
            folder.join(image).display()
        );
        let columns = Self {
            says,
            image: 0,
            text: 1,
            split: None,
        };
        Ok((columns, false))
    }

    /// Path, text and split of a row, or why it has none.
    fn parse<'a>(&self, row: &'a StringRecord) -> Result<(&'a str, &'a str, Split), String> {
        let cell = |column: usize, what: &str| match row.get(column).map(str::trim) {
            None | Some("") => Err(format!("the {what} is blank")),
            Some(text) => Ok(text),
        };
        let image = cell(self.image, "image path")?;
        let text = cell(self.text, self.says.what)?;
        let split = match self.split {
            None => split_of(image),
            Some(column) => {
                let name = cell(column, "split")?;
                Split::from_name(name)
                    .ok_or_else(|| format!("unknown split {name:?}; expected train, val or test"))?
            }
        };
        Ok((image, text, split))
    }
}

/// Reads `file`, a `.tsv` or else comma-separated table that says this about images.
pub(super) fn read(file: &Path, says: Says, faults: &mut Faults) -> Result<Vec<Example>> {
    let is_tsv = file
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut lines = Lines::open(file)?;
    let mut table = None;
    while let Some((place, line)) = lines.next_line()? {
        let at_place = || format!("{}, {place}", file.display());
        let row = match cells(line, is_tsv) {
            Ok(None) => continue,
            Ok(Some(row)) => row,
            Err(reason) if table.is_none() => bail!("{}: {reason}", at_place()),
            Err(reason) => {
                faults.report(file, place, reason)?;
                continue;
            }
        };
        let table = match &mut table {
            Some(table) => table,
            none => {
                let (columns, is_header) =
                    Columns::of_table(&row, says, folder).with_context(at_place)?;
                let table = none.insert(Table {
                    folder,
                    columns,
                    width: row.len(),
                    first: place,
                    examples: Vec::new(),
                    known: HashMap::new(),
                });
                if is_header {
                    continue;
                }
                table
            }
        };
        if let Err(reason) = table.add(&row, place) {
            faults.report(file, place, reason)?;
        }
    }
    Ok(table.map_or_else(Vec::new, |table| table.examples))
}

/// The cells of a line, `None` of an empty one; or why it is not a row.
fn cells(line: &[u8], is_tsv: bool) -> Result<Option<StringRecord>, String> {
    if line.starts_with(&[0xff, 0xfe]) || line.starts_with(&[0xfe, 0xff]) {
        return Err("the table is UTF-16: save it as UTF-8".into());
    }
    // Spreadsheet programs put a byte-order mark before the first cell.
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = str::from_utf8(line).map_err(|_| "the row is not valid UTF-8")?;
    if line.contains('\r') {
        return Err("a carriage return is no end of a line: save with line feeds".into());
    }
    if line.trim().is_empty() {
        return Ok(None);
    }
    // The end of the line tells a cell whose quotes are closed from one whose are not.
    let line = format!("{line}\n");
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(if is_tsv { b'\t' } else { b',' })
        .quoting(!is_tsv)
        .has_headers(false)
        .buffer_capacity(line.len())
        .from_reader(line.as_bytes());
    let mut row = StringRecord::new();
    let read = reader.read_record(&mut row);
    read.map_err(|error| error.to_string())?;
    if row.iter().any(|cell| cell.contains('\n')) {
        return Err("a quote (\") opens a cell and none closes it in this line".into());
    }
    Ok(Some(row))
}

/// The rows read so far.
struct Table<'a> {
    folder: &'a Path,
    columns: Columns,
    /// Cells of the first row, and its line.
    width: usize,
    first: Place,
    examples: Vec<Example>,
    /// The index of the example of each path.
    known: HashMap<String, usize>,
}

impl Table<'_> {
    /// Adds a row, or says why it is refused.
    fn add(&mut self, row: &StringRecord, place: Place) -> Result<(), String> {
        if row.len() != self.width {
            return Err(format!(
                "the row has {}, {} has {}: a cell that holds the separator needs quotes",
                counted(row.len(), "cell"),
                self.first,
                self.width
            ));
        }
        let (image, caption, split) = self.columns.parse(row)?;
        match self.known.entry(image.to_owned()) {
            Entry::Vacant(slot) => {
                slot.insert(self.examples.len());
                self.examples.push(Example {
                    image: self.folder.join(image).into(),
                    captions: vec![caption.to_owned()],
                    split,
                    place,
                    scene: None,
                });
            }
            Entry::Occupied(slot) => {
                let example = &mut self.examples[*slot.get()];
                if example.split != split {
                    return Err(format!(
                        "{image} is in split {split} here but in {} in {}",
                        example.split, example.place
                    ));
                }
                example.captions.push(caption.to_owned());
            }
        }
        Ok(())
    }
}

/// The split of an image whose list names none: 80 % train, 10 % validation, 10 % test.
pub(super) fn split_of(image: &str) -> Split {
    match fnv1a(image.as_bytes()) % 10 {
        0..8 => Split::Train,
        8 => Split::Validation,
        _ => Split::Test,
    }
}

/// FNV-1a, 64 bits, with a final mix: fixed for ever, unlike the standard library's hashers.
fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

#[cfg(test)]
mod tests;
