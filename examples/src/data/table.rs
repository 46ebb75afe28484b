//! Reads a table of image path and caption: CSV, or TSV by the extension `.tsv`.
//!
//! - A first row that names an image column (`image`, `path`, `filepath` or `filename`) and a
//!   caption column (`caption`, `text` or `title`) is a header; a `split` column is optional.
//!   Without a header the first column is the path, the second the caption.
//! - Paths are relative to the table's folder. Rows with the same path are captions of one image.
//! - Without a `split` column, a hash of each path puts about 80 % of the images in train, 10 % in
//!   validation and 10 % in test: the same images on every machine, whatever the order of the rows.

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
    let mut table = Table {
        folder: file.parent().unwrap_or(Path::new("")),
        columns: Columns {
            image: 0,
            caption: 1,
            split: None,
        },
        examples: Vec::new(),
        known: HashMap::new(),
    };
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
        if std::mem::take(&mut first) {
            strip_byte_order_mark(&mut row);
            if let Some(header) = Columns::from_header(&row) {
                table.columns = header;
                continue;
            }
        }
        let place = Place::Line(row.position().map_or(line, csv::Position::line));
        if let Err(reason) = table.add(&row, place) {
            faults.report(file, place, reason)?;
        }
    }
    Ok(table.examples)
}

/// The rows read so far.
struct Table<'a> {
    folder: &'a Path,
    columns: Columns,
    examples: Vec<Example>,
    /// The index of the example of each path.
    known: HashMap<String, usize>,
}

impl Table<'_> {
    /// Adds a row, or says why it is refused.
    fn add(&mut self, row: &StringRecord, place: Place) -> Result<(), String> {
        let (image, caption, split) = self.columns.parse(row)?;
        match self.known.entry(image.to_owned()) {
            Entry::Vacant(slot) => {
                slot.insert(self.examples.len());
                self.examples.push(Example {
                    image: self.folder.join(image),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Collection;
    use crate::data::testing::picture;

    /// Reads `text` as `captions.<extension>` beside the images `a.png` and `sub/b.png`.
    fn collection(extension: &str, text: impl AsRef<[u8]>, skip_bad: bool) -> Result<Collection> {
        let dir = tempfile::tempdir().unwrap();
        picture(&dir.path().join("a.png"), [1; 3]);
        picture(&dir.path().join("sub/b.png"), [2; 3]);
        std::fs::write(dir.path().join(format!("captions.{extension}")), text).unwrap();
        Collection::read(dir.path(), skip_bad)
    }

    #[test]
    fn rows_with_one_path_are_captions_of_one_image() {
        let collection = collection(
            "csv",
            "caption,split,image\n\"red, round\",train,a.png\nblau – ü 青,test,sub/b.png\n\
             red,train,a.png\nred,train,a.png\n",
            false,
        )
        .unwrap();
        let [a, b] = collection.examples.as_slice() else {
            panic!("two images")
        };
        assert_eq!(
            (a.captions.as_slice(), a.split),
            (
                ["red, round", "red", "red"].map(String::from).as_slice(),
                Split::Train
            )
        );
        assert_eq!(
            (b.captions.as_slice(), b.split),
            (["blau – ü 青".to_owned()].as_slice(), Split::Test)
        );
        assert_eq!((a.place, b.place), (Place::Line(2), Place::Line(3)));
    }

    #[test]
    fn tsv_needs_no_quotes_and_headers_are_optional() {
        for text in [
            "a.png\tsaid \"yes\nsub/b.png\t\"quoted\"\n",
            "PATH\tTitle\na.png\tsaid \"yes\nsub/b.png\t\"quoted\"\n",
        ] {
            let collection = collection("tsv", text, false).unwrap();
            let captions: Vec<_> = collection
                .examples
                .iter()
                .map(|example| example.captions[0].as_str())
                .collect();
            assert_eq!(captions, ["said \"yes", "\"quoted\""]);
        }
    }

    #[test]
    fn a_byte_order_mark_and_windows_line_ends_do_no_harm() {
        let collection =
            collection("csv", "\u{feff}image,caption\r\na.png,red\r\n", false).unwrap();
        assert_eq!(collection.examples[0].captions, ["red"]);
    }

    #[test]
    fn bad_rows_are_named_by_line_and_counted_when_skipped() {
        let header = "image,caption,split\na.png,good,train\n";
        let multi_line = "image,caption,split\na.png,\"good\nindeed\",train\na.png,,train\n";
        for (text, expected) in [
            (format!("{header}a.png\n"), "line 3: no caption"),
            (
                format!("{header}a.png,  ,train\n"),
                "line 3: the caption is blank",
            ),
            (
                format!("{header},red,train\n"),
                "line 3: the image path is blank",
            ),
            (
                format!("{header}a.png,red,maybe\n"),
                "line 3: unknown split \"maybe\"",
            ),
            (
                format!("{header}a.png,red,test\n"),
                "line 3: a.png is in split test here but in train in line 2",
            ),
            (
                format!("{header}none.png,red,train\n"),
                "line 3: cannot read image",
            ),
            (multi_line.to_owned(), "line 4: the caption is blank"),
        ] {
            let error = collection("csv", &text, false).unwrap_err().to_string();
            assert!(
                error.contains("captions.csv")
                    && error.contains(expected)
                    && error.contains("--skip-bad"),
                "{error}"
            );
            let skipped = collection("csv", &text, true).unwrap();
            assert_eq!((skipped.examples.len(), skipped.skipped.len()), (1, 1));
            assert!(skipped.skipped[0].contains(expected));
        }
    }

    #[test]
    fn rows_that_are_not_utf_8_are_bad_rows() {
        let text = b"image,caption\na.png,good\na.png,\xff\xfe\nsub/b.png,fine\n";
        let error = collection("csv", text, false).unwrap_err().to_string();
        assert!(
            error.contains("line 3") && error.contains("UTF-8"),
            "{error}"
        );
        let skipped = collection("csv", text, true).unwrap();
        assert_eq!((skipped.examples.len(), skipped.skipped.len()), (2, 1));
    }

    #[test]
    fn nothing_usable_is_an_error_even_when_skipping() {
        for text in ["", "image,caption\n", "image,caption\na.png,\n"] {
            let error = collection("csv", text, true).unwrap_err().to_string();
            assert!(error.contains("no usable image"), "{error}");
        }
    }

    #[test]
    fn splits_by_hash_are_fixed_and_near_eighty_ten_ten() {
        let mut counts = HashMap::new();
        for image in 0..10_000 {
            *counts
                .entry(split_of(&format!("images/{image:05}.jpg")))
                .or_insert(0) += 1;
        }
        assert!(
            (7_800..8_200).contains(&counts[&Split::Train]),
            "{counts:?}"
        );
        assert!(
            (850..1_150).contains(&counts[&Split::Test])
                && (850..1_150).contains(&counts[&Split::Validation]),
            "{counts:?}"
        );
        // These may never change: a run's test images would become another's training images.
        // Computed apart from this code, in Python.
        assert_eq!(
            ["0.png", "11.png", "6.png"].map(split_of),
            [Split::Train, Split::Validation, Split::Test]
        );
    }
}
