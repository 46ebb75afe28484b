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
mod tests {
    use super::*;
    use crate::data::Collection;
    use crate::data::listing::LONGEST_LINE;
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
        for (text, expected) in [
            (
                format!("{header}a.png\n"),
                "line 3: the row has 1 cell, line 1 has 3",
            ),
            (
                format!("{header}a.png,red, green,train\n"),
                "line 3: the row has 4 cells, line 1 has 3",
            ),
            (
                format!("{header}a.png,\"red,train\n"),
                "line 3: a quote (\") opens a cell",
            ),
            (
                format!("{header}a.png,red\rb.png,blue,train\n"),
                "line 3: a carriage return",
            ),
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
            assert!(skipped.skipped[0].reason.contains(expected));
        }
    }

    #[test]
    fn one_stray_quote_costs_its_own_row_and_no_other() {
        let text = "image,caption\na.png,\"red\nsub/b.png,blue\na.png,the \"big\" one\n";
        let skipped = collection("csv", text, true).unwrap();
        let captions = |index: usize| skipped.examples[index].captions.clone();
        assert_eq!(captions(0), ["blue"]);
        assert_eq!(captions(1), ["the \"big\" one"]);
        assert_eq!(skipped.skipped.len(), 1);
    }

    #[test]
    fn a_first_row_that_is_neither_header_nor_row_is_refused_even_when_skipping() {
        for (text, expected) in [
            (
                "picture_path,split,caption\na.png,train,red\n",
                "line 1: neither a header",
            ),
            ("image,split,words\na.png,train,red\n", "line 1: neither"),
            ("image;caption\na.png;red\n", "semicolons"),
            ("a.png\tred\n", "call the file .tsv"),
            ("a.png\n", "a table needs two"),
            ("\"a.png,red\n", "line 1: a quote"),
            (
                "image,caption,caption\na.png,x,y\n",
                "two columns are called `caption`",
            ),
        ] {
            let error = format!("{:#}", collection("csv", text, true).unwrap_err());
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        let utf_16 = b"\xff\xfei\0m\0a\0g\0e\0".as_slice();
        let error = format!("{:#}", collection("csv", utf_16, true).unwrap_err());
        assert!(error.contains("UTF-16"), "{error}");
        let endless = vec![b'x'; (LONGEST_LINE + 2) as usize];
        let error = format!("{:#}", collection("csv", endless, true).unwrap_err());
        assert!(error.contains("longer than 1 MiB"), "{error}");
    }

    #[test]
    fn the_usual_names_of_columns_are_known() {
        for header in ["image_path,split,caption", "file_name,split,text"] {
            let text = format!("{header}\na.png,train,red\n");
            let collection = collection("csv", text, false).unwrap();
            assert_eq!(collection.examples[0].captions, ["red"]);
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
