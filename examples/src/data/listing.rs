//! What all readers of lists share: JSON whose bad elements spoil only themselves, files of lines,
//! what is left out, and images that are decoded once to see that they can be.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use image::RgbImage;
use rayon::prelude::*;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::collection::Split;
use super::decode;
use crate::unique::Unique;
use crate::words::brief;

/// The longest line of a file that is read line by line, in bytes.
pub(super) const LONGEST_LINE: u64 = 1 << 20;

/// The place of an example in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a table or of JSON lines, counted from 1.
    Line(u64),
    /// An element of the array `images` of a JSON file, counted from 0.
    Entry(usize),
    /// An element of another array of a JSON file: its name, and the index counted from 0.
    Element(&'static str, usize),
    /// A member of an archive, counted from 1.
    Member(u64),
    /// A row of a Parquet file, counted from 0.
    Row(u64),
    /// A file of a folder, by the order of their paths, counted from 1.
    File(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Entry(entry) => write!(f, "images[{entry}]"),
            Self::Element(array, index) => write!(f, "{array}[{index}]"),
            Self::Member(member) => write!(f, "member {member}"),
            Self::Row(row) => write!(f, "row {row}"),
            Self::File(file) => write!(f, "file {file}"),
        }
    }
}

/// A row or an image that was left out.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// Where it was, and what is bad about it.
    pub reason: String,
    /// What it would have been for, where its row says so.
    pub split: Option<Split>,
}

/// What to do with bad rows, and what was found.
pub(super) struct Faults {
    skip_bad: bool,
    skipped: Vec<Skipped>,
}

impl Faults {
    pub(super) fn new(skip_bad: bool) -> Self {
        Self {
            skip_bad,
            skipped: Vec::new(),
        }
    }

    /// Of a part that is read on its own, with nothing found yet.
    pub(super) fn apart(&self) -> Self {
        Self::new(self.skip_bad)
    }

    /// Adds what was found in a part.
    pub(super) fn join(&mut self, part: Self) {
        self.skipped.extend(part.skipped);
    }

    /// Notes a bad row, or fails with it.
    pub(super) fn report(
        &mut self,
        file: &Path,
        place: Place,
        reason: impl fmt::Display,
    ) -> Result<()> {
        self.report_of(None, file, place, reason)
    }

    /// Likewise, of a row that belongs to `split`.
    pub(super) fn report_of(
        &mut self,
        split: Option<Split>,
        file: &Path,
        place: Place,
        reason: impl fmt::Display,
    ) -> Result<()> {
        // What it quotes may be as long as a line or a file.
        let message = format!("{}, {place}: {}", file.display(), brief(reason));
        if !self.skip_bad {
            bail!("{message} (mend it, or leave such rows out with --skip-bad)");
        }
        self.skipped.push(Skipped {
            reason: message,
            split,
        });
        Ok(())
    }

    /// What was left out, once the list is read; fails if all of it was.
    pub(super) fn finish(self, path: &Path, is_empty: bool, wanted: &str) -> Result<Vec<Skipped>> {
        if is_empty {
            let first = self.skipped.first().map(|first| {
                let count = self.skipped.len();
                format!("; the first of {count} bad rows: {}", first.reason)
            });
            let first = first.unwrap_or_default();
            bail!("{} gives no {wanted}{first}", path.display());
        }
        Ok(self.skipped)
    }
}

/// An image that a list has.
pub(super) trait ListedImage: Send + Sync {
    fn path(&self) -> &Path;
    fn decode(&self) -> Result<RgbImage>;
}

impl ListedImage for PathBuf {
    fn path(&self) -> &Path {
        self
    }

    fn decode(&self) -> Result<RgbImage> {
        decode(self)
    }
}

/// What stands in a list and has images.
pub(super) trait Listed: Send + Sync {
    type Image: ListedImage;

    fn images(&self) -> &[Self::Image];
    fn split(&self) -> Split;
    fn place(&self) -> Place;

    /// The file that it stands in, where that is not the list's.
    fn file(&self) -> Option<&Path> {
        None
    }
}

/// What is in a folder, by name.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
        entries.collect()
    };
    let mut entries = read().with_context(|| format!("cannot list {}", folder.display()))?;
    entries.sort();
    Ok(entries)
}

/// Indices of the items of `split`, ascending.
pub(super) fn indices<T: Listed>(items: &[T], split: Split) -> Vec<usize> {
    let of_split = |index: &usize| items[*index].split() == split;
    (0..items.len()).filter(of_split).collect()
}

/// Drops (or refuses) what has an image that cannot be decoded. Every image is decoded once,
/// however often it is listed.
pub(super) fn check_images<T: Listed>(
    file: &Path,
    items: Vec<T>,
    faults: &mut Faults,
) -> Result<Vec<T>> {
    let mut seen = HashSet::new();
    let images = items.iter().flat_map(T::images);
    let images = images.filter(|image| seen.insert(image.path()));
    // In their order, so that shards are read from beginning to end.
    let bad: HashMap<PathBuf, String> = images
        .par_bridge()
        .filter_map(|image| {
            let error = image.decode().err()?;
            Some((image.path().to_owned(), format!("{error:#}")))
        })
        .collect();
    let mut good = Vec::with_capacity(items.len());
    for item in items {
        match item.images().iter().find_map(|image| bad.get(image.path())) {
            None => good.push(item),
            Some(reason) => {
                let file = item.file().unwrap_or(file);
                faults.report_of(Some(item.split()), file, item.place(), reason)?;
            }
        }
    }
    Ok(good)
}

/// SHA-256 of rows of fields, in hexadecimal: no other rows have it.
pub(super) fn fingerprint<F: AsRef<[u8]>, R: IntoIterator<Item = F>>(
    rows: impl IntoIterator<Item = R>,
) -> String {
    let mut hash = Sha256::new();
    for row in rows {
        for field in row {
            let field = field.as_ref();
            hash.update((field.len() as u64).to_le_bytes());
            hash.update(field);
        }
        // No field is as long.
        hash.update(u64::MAX.to_le_bytes());
    }
    format!("{:x}", hash.finalize())
}

/// An element of an array that is read one at a time.
pub(super) trait Element: DeserializeOwned {
    /// What such an array holds, in the plural.
    const MANY: &'static str;

    /// What a file is that has `value` in the place of such an element, where that is known.
    fn known_otherwise(_value: &Value) -> Option<&'static str> {
        None
    }
}

/// An array, read element by element: one that does not fit is kept as the reason why.
pub(super) struct Elements<T>(pub Vec<Result<T, String>>);

impl<'de, T: Element> Deserialize<'de> for Elements<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ElementsVisitor(PhantomData))
    }
}

struct ElementsVisitor<T>(PhantomData<T>);

impl<'de, T: Element> Visitor<'de> for ElementsVisitor<T> {
    type Value = Elements<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}", T::MANY)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(Unique { value, twice }) = sequence.next_element()? {
            if let Some(otherwise) = T::known_otherwise(&value) {
                return Err(A::Error::custom(otherwise));
            }
            elements.push(match twice {
                Some(twice) => Err(twice),
                None => serde_json::from_value::<T>(value).map_err(|error| error.to_string()),
            });
        }
        Ok(Elements(elements))
    }
}

/// Reads a JSON file, which may begin with a byte-order mark; `kind` says what it should be.
pub(super) fn read_json<T: DeserializeOwned>(file: &Path, kind: &str) -> Result<T> {
    let mut reader = BufReader::new(open(file)?);
    let mark = "\u{feff}".as_bytes();
    let first = reader.fill_buf().with_context(|| not_opened(file))?;
    if first.starts_with(mark) {
        reader.consume(mark.len());
    }
    serde_json::from_reader(reader).map_err(|error| {
        anyhow!(
            "{}:{}:{}: not {kind}: {}",
            file.display(),
            error.line(),
            error.column(),
            brief(&error)
        )
    })
}

/// Opens a file to read it.
pub(super) fn open(file: &Path) -> Result<File> {
    let open = || -> Result<File> {
        // Opening a pipe would wait for somebody to write to it.
        ensure!(fs::metadata(file)?.is_file(), "it is not a file");
        Ok(File::open(file)?)
    };
    open().with_context(|| not_opened(file))
}

fn not_opened(file: &Path) -> String {
    format!("cannot open {}", file.display())
}

/// The lines of a file, one at a time.
pub(super) struct Lines<'a> {
    file: &'a Path,
    reader: BufReader<File>,
    number: u64,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    pub(super) fn open(file: &'a Path) -> Result<Self> {
        Ok(Self {
            file,
            reader: BufReader::new(open(file)?),
            number: 0,
            line: Vec::new(),
        })
    }

    /// The next line with its end; `None` after the last. Fails on a line of more than 1 MiB.
    pub(super) fn next_line(&mut self) -> Result<Option<(Place, &[u8])>> {
        self.number += 1;
        let place = Place::Line(self.number);
        let at_place = || format!("{}, {place}", self.file.display());
        self.line.clear();
        let mut limited = (&mut self.reader).take(LONGEST_LINE + 1);
        let length = limited
            .read_until(b'\n', &mut self.line)
            .with_context(at_place)?;
        if length as u64 > LONGEST_LINE {
            bail!("{}: the line is longer than 1 MiB", at_place());
        }
        Ok((length > 0).then_some((place, &self.line)))
    }
}
