//! Reads a table of image path and caption: CSV, or TSV by the extension `.tsv`.
//!
//! - A first row that names an image column (`image`, `path`, `filepath` or `filename`) and a caption column (`caption`, `text`
//!   or `title`) is a header; a `split` column is optional. Without a header the first column is the path, the second the caption.
//! - Paths are relative to the table's folder. Rows with the same path are captions of one image.
//! - Without a `split` column, a hash of each path puts about 80 % of the images in train, 10 % in validation and 10 % in test:
//!   the same images on every machine, whatever the order of the rows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use anyhow::{Context, Result, bail};
use csv::StringRecord;

use super::collection::{Example, Faults, Place, Split};

/// Which column is what.
struct Columns {
    image: usize,
    caption: usize,
    split: Option<usize>,
}

impl Columns {
    /// The columns that a header row names; `None` if `row` is not a header.
    fn from_header(row: &StringRecord) -> Option<Self> {
        let find = |names: &[&str]| {
            let mut cells = row.iter().map(|cell| cell.trim().to_lowercase());
            cells.position(|cell| names.contains(&cell.as_str()))
        };
        Some(Self {
            image: find(&["image", "path", "filepath", "filename"])?,
            caption: find(&["caption", "text", "title"])?,
            split: find(&["split"]),
        })
    }

    /// Path, caption and split of a row, or why it has none.
    fn parse<'a>(&self, row: &'a StringRecord) -> Result<(&'a str, &'a str, Split), String> {
        let cell = |column: usize, what: &str| match row.get(column).map(str::trim) {
            Some("") => Err(format!("the {what} is blank")),
            Some(text) => Ok(text),
            None => Err(format!(
                "no {what}: the row has {} columns, the {what} would be column {}",
                row.len(),
                column + 1
            )),
        };
        let image = cell(self.image, "image path")?;
        let caption = cell(self.caption, "caption")?;
        let split = match self.split {
            None => split_of(image),
            Some(column) => {
                let name = cell(column, "split")?;
                Split::from_name(name)
                    .ok_or_else(|| format!("unknown split {name:?}; expected train, val or test"))?
            }
        };
        Ok((image, caption, split))
    }
}

/// Reads `file`, a `.tsv` or else comma-separated table.
pub(super) fn read(file: &Path, faults: &mut Faults) -> Result<Vec<Example>> {
    let tabs = file
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(if tabs { b'\t' } else { b',' })
        .quoting(!tabs)
        .has_headers(false)
        .flexible(true)
        .from_path(file)
        .with_context(|| format!("cannot open {}", file.display()))?;
    let folder = file.parent().unwrap_or(Path::new(""));

    let mut columns = Columns {
        image: 0,
        caption: 1,
        split: None,
    };
    let mut examples: Vec<Example> = Vec::new();
    let mut known = HashMap::new();
    let mut row = StringRecord::new();
    let mut first = true;
    loop {
        let line = reader.position().line();
        match reader.read_record(&mut row) {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) => {
                let line = error.position().map_or(line, csv::Position::line);
                faults.report(file, Place::Line(line), "the row is not valid UTF-8")?;
                first = false;
                continue;
            }
            Err(error) => bail!("{}, line {line}: {error}", file.display()),
        }
        let line = row.position().map_or(line, csv::Position::line);
        if std::mem::take(&mut first) {
            strip_byte_order_mark(&mut row);
            if let Some(header) = Columns::from_header(&row) {
                columns = header;
                continue;
            }
        }
        let place = Place::Line(line);
        let (image, caption, split) = match columns.parse(&row) {
            Ok(parts) => parts,
            Err(reason) => {
                faults.report(file, place, reason)?;
                continue;
            }
        };
        match known.entry(image.to_owned()) {
            Entry::Vacant(slot) => {
                slot.insert(examples.len());
                examples.push(Example {
                    image: folder.join(image),
                    captions: vec![caption.to_owned()],
                    split,
                    place,
                    scene: None,
                });
            }
            Entry::Occupied(slot) => {
                let example = &mut examples[*slot.get()];
                if example.split == split {
                    example.captions.push(caption.to_owned());
                } else {
                    let reason = format!(
                        "{image} is in split {split} here but in {} in {}",
                        example.split, example.place
                    );
                    faults.report(file, place, reason)?;
                }
            }
        }
    }
    Ok(examples)
}

/// The split of an image whose table names none: 80 % train, 10 % validation, 10 % test.
fn split_of(image: &str) -> Split {
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

/// Spreadsheet programs put a byte-order mark before the first cell.
fn strip_byte_order_mark(row: &mut StringRecord) {
    if row.get(0).is_some_and(|cell| cell.starts_with('\u{feff}')) {
        *row = row
            .iter()
            .map(|cell| cell.trim_start_matches('\u{feff}'))
            .collect();
    }
}
