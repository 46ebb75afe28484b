//! Reads Parquet files of images and captions, as Hugging Face hosts them.
//!
//! | column | |
//! |---|---|
//! | `image`, or another of the usual names | a structure of `bytes` and `path`, or bytes alone |
//! | `caption`, `text` or another of the usual names | a string, or a list of strings |
//! | `split`, optional | a string |
//!
//! Other columns are ignored. A row is an image. Captions are read at once; images are read when
//! they are needed, some rows at a time, which are kept while others of them may be wanted.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ::parquet::basic::{ConvertedType, Type};
use ::parquet::column::reader::{ColumnReader, get_column_reader};
use ::parquet::data_type::ByteArray;
use ::parquet::file::metadata::{
    ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
};
use ::parquet::file::serialized_reader::SerializedPageReader;
use ::parquet::schema::types::{ColumnDescPtr, ColumnDescriptor, SchemaDescriptor};
use anyhow::{Context, Result, anyhow, bail, ensure};

use super::collection::{Example, Split};
use super::listing::{Faults, Place, open};
use super::picture::Picture;
use super::shards::caption_names;
use super::table::split_of;
use crate::panics::caught;

/// The names of columns, the preferred first.
const IMAGE: [&str; 9] = [
    "image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "bytes",
];
const SPLIT: &str = "split";

/// What a file must have.
const NEEDED: &str = "it needs a column `image` of bytes, or of bytes and path, and a column \
                      `caption` of strings, or of lists of strings";

/// Rows whose images are read at once: those of a row group as Hugging Face writes it.
const RUN: usize = 100;

/// The most bytes of images that are kept.
const KEPT: usize = 1 << 30;

/// A file, and where its images are.
pub(super) struct Table {
    path: PathBuf,
    /// Which of the files it is that share the `runs`.
    number: usize,
    metadata: ParquetMetaData,
    columns: Columns,
    /// The first row of each row group, and the number of all rows.
    starts: Vec<usize>,
    runs: Arc<Runs>,
}

/// Which leaf of the schema is what.
struct Columns {
    image: usize,
    path: Option<usize>,
    caption: usize,
    split: Option<usize>,
}

impl Columns {
    fn of(schema: &SchemaDescriptor) -> Result<Self> {
        let all = schema.columns();
        let position = |path: &[&str]| all.iter().position(|of| of.path().parts() == path);
        let bytes = |path: &[&str]| position(path).filter(|&of| is_bytes(&all[of]));
        let image = IMAGE.iter();
        let image = image
            .copied()
            .find_map(|name| Some((name, bytes(&[name, "bytes"])?)));
        let flat = || {
            IMAGE
                .iter()
                .copied()
                .find_map(|name| Some((name, bytes(&[name])?)))
        };
        let caption = caption_names().find_map(|name| {
            let is_it = |of: &ColumnDescPtr| {
                let path = of.path().parts();
                path[0] == name && is_text(of) && (path.len() == 1 || of.max_rep_level() == 1)
            };
            all.iter().position(is_it)
        });
        let (Some((name, image)), Some(caption)) = (image.or_else(flat), caption) else {
            bail!("{NEEDED}; it has {}", described(all));
        };
        let split = position(&[SPLIT]);
        let is_good = split.is_none_or(|split| is_text(&all[split]));
        ensure!(is_good, "its column `{SPLIT}` holds no strings");
        Ok(Self {
            image,
            path: position(&[name, "path"]).filter(|&of| is_text(&all[of])),
            caption,
            split,
        })
    }
}

/// Whether a column holds bytes that are no text, at most one in a row.
fn is_bytes(column: &ColumnDescriptor) -> bool {
    column.physical_type() == Type::BYTE_ARRAY
        && column.converted_type() != ConvertedType::UTF8
        && column.max_rep_level() == 0
}

/// Whether a column holds what may be text: one in a row, or a list.
fn is_text(column: &ColumnDescriptor) -> bool {
    column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() <= 1
}

fn described(columns: &[ColumnDescPtr]) -> String {
    let columns = columns.iter();
    let columns = columns.map(|of| format!("{} ({})", of.path(), of.physical_type()));
    columns.collect::<Vec<_>>().join(", ")
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.path.display())
    }
}

impl Table {
    /// Reads what a file holds, without its rows. It is the file `number` of those that share the
    /// `runs`.
    pub(super) fn open(file: &Path, number: usize, runs: &Arc<Runs>) -> Result<Self> {
        let read = || {
            // Those of bytes are as large as all else together.
            let statistics = ParquetStatisticsPolicy::SkipAll;
            let options = ParquetMetaDataOptions::new().with_column_stats_policy(statistics);
            let metadata = ParquetMetaDataReader::new().with_metadata_options(Some(options));
            let metadata = metadata.parse_and_finish(&open(file)?)?;
            let mut starts = vec![0];
            for group in metadata.row_groups() {
                let last = starts[starts.len() - 1];
                let rows = usize::try_from(group.num_rows()).ok();
                let next = rows.and_then(|rows| rows.checked_add(last));
                starts.push(next.context("a row group has no number of rows")?);
            }
            Ok(Self {
                path: file.to_owned(),
                number,
                columns: Columns::of(metadata.file_metadata().schema_descr())?,
                metadata,
                starts,
                runs: runs.clone(),
            })
        };
        guarded(read).with_context(|| file.display().to_string())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of all rows.
    pub(super) fn rows(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// The row group that has a row.
    pub(super) fn group_of(&self, row: usize) -> usize {
        self.starts.partition_point(|start| *start <= row) - 1
    }

    /// The bytes of an image.
    ///
    /// # Errors
    ///
    /// If they are null, or cannot be read.
    pub(super) fn image(&self, row: usize) -> Result<Vec<u8>> {
        let group = self.group_of(row);
        let within = row - self.starts[group];
        let first = within / RUN * RUN;
        let run = self.runs.get([self.number, group, first], || {
            let rows = RUN.min(self.starts[group + 1] - self.starts[group] - first);
            let images = self.values(self.columns.image, group, first, rows);
            let images = images.map_err(|error| format!("{error:#}"))?.into_iter();
            Ok(images
                .map(|image| Some(image.first()?.data().to_vec()))
                .collect())
        });
        let images = run.get().expect("it has been read");
        let images = images.as_ref().map_err(|error| anyhow!("{error}"))?;
        images[within - first].clone().context("it is null")
    }

    /// What rows of a row group from the row `first` on have in a column: several values where it
    /// holds lists, none where one is null.
    fn values(
        &self,
        column: usize,
        group: usize,
        first: usize,
        rows: usize,
    ) -> Result<Vec<Vec<ByteArray>>> {
        guarded(|| {
            let all = self.metadata.row_group(group);
            let chunk = all.column(column);
            let in_group = usize::try_from(all.num_rows())?;
            let file = Arc::new(open(&self.path)?);
            let pages = SerializedPageReader::new(file, chunk, in_group, None)?;
            let reader = get_column_reader(chunk.column_descr_ptr(), Box::new(pages));
            let ColumnReader::ByteArrayColumnReader(mut reader) = reader else {
                bail!("its column {} holds no bytes", chunk.column_path());
            };
            let skipped = reader.skip_records(first)?;
            let (mut defined, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
            let levels = (Some(&mut defined), Some(&mut repeated));
            let (read, ..) = reader.read_records(rows, levels.0, levels.1, &mut values)?;
            ensure!(
                skipped == first && read == rows,
                "its row group {group} breaks off"
            );
            let whole = chunk.column_descr().max_def_level();
            Ok(by_row(values, &defined, &repeated, whole))
        })
    }

    /// As [`values`](Self::values) of all rows of a group, as text; of no column, nothing.
    fn texts(&self, column: Option<usize>, group: usize) -> Result<Vec<Texts>> {
        let rows = self.starts[group + 1] - self.starts[group];
        let Some(column) = column else {
            return Ok(vec![Ok(Vec::new()); rows]);
        };
        let text = |value: ByteArray| match str::from_utf8(value.data()) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(_) => Err("a text is not valid UTF-8"),
        };
        let rows = self.values(column, group, 0, rows)?.into_iter();
        Ok(rows
            .map(|values| values.into_iter().map(text).collect())
            .collect())
    }
}

/// The texts of a row.
type Texts = Result<Vec<String>, &'static str>;

/// Values with their levels, by rows.
fn by_row(
    values: Vec<ByteArray>,
    defined: &[i16],
    repeated: &[i16],
    whole: i16,
) -> Vec<Vec<ByteArray>> {
    if whole == 0 {
        return values.into_iter().map(|value| vec![value]).collect();
    }
    let mut values = values.into_iter();
    let mut rows: Vec<Vec<ByteArray>> = Vec::new();
    for (index, level) in defined.iter().enumerate() {
        if repeated.get(index).is_none_or(|level| *level == 0) {
            rows.push(Vec::new());
        }
        if *level == whole
            && let Some(row) = rows.last_mut()
        {
            row.extend(values.next());
        }
    }
    rows
}

/// Does what panics on some damaged files.
fn guarded<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(read).unwrap_or_else(|| bail!("it is damaged"))
}

/// Images of several rows one after the other; `None` where one is null.
type Run = Result<Vec<Option<Vec<u8>>>, String>;

/// The runs that were wanted last, by file, row group and first row.
#[derive(Default)]
pub(super) struct Runs {
    kept: Mutex<VecDeque<Kept>>,
}

type Kept = ([usize; 3], Arc<OnceLock<Run>>);

impl Runs {
    /// A run, which is read unless it is kept. Who wants one that another thread reads waits.
    fn get(&self, key: [usize; 3], read: impl FnOnce() -> Run) -> Arc<OnceLock<Run>> {
        let run = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let known = kept.iter().position(|(other, _)| *other == key);
            let run = known.and_then(|index| kept.remove(index));
            let run = run.map_or_else(Arc::default, |(_, run)| run);
            kept.push_back((key, run.clone()));
            let mut size: usize = kept.iter().map(|(_, run)| size_of(run)).sum();
            while size > KEPT
                && let Some((_, oldest)) = kept.pop_front()
            {
                size = size.saturating_sub(size_of(&oldest));
            }
            run
        };
        run.get_or_init(read);
        run
    }
}

/// Bytes of images in a run that has been read.
fn size_of(run: &OnceLock<Run>) -> usize {
    let images = run.get().and_then(|run| run.as_ref().ok());
    let images = images.into_iter().flatten().flatten();
    images.map(Vec::len).sum()
}

/// Reads the `table`, all of it for one split, or each image for that of its row or its name.
pub(super) fn read(
    table: &Arc<Table>,
    split: Option<Split>,
    faults: &mut Faults,
) -> Result<Vec<Example>> {
    let mut examples = Vec::with_capacity(table.rows());
    for group in 0..table.starts.len() - 1 {
        let start = table.starts[group];
        let Columns {
            caption,
            path,
            split: own,
            ..
        } = table.columns;
        let rows = || -> Result<_> {
            let captions = table.texts(Some(caption), group)?;
            Ok((
                captions,
                table.texts(path, group)?,
                table.texts(own, group)?,
            ))
        };
        let (captions, paths, splits) = match rows() {
            Ok(columns) => columns,
            Err(error) => {
                faults.report(&table.path, Place::Row(start as u64), format!("{error:#}"))?;
                continue;
            }
        };
        let columns = captions.into_iter().zip(paths).zip(splits);
        for (row, ((captions, paths), splits)) in (start..).zip(columns) {
            let example = table.example(row, captions, paths, splits, split);
            match example {
                Ok(example) => examples.push(example),
                Err(reason) => faults.report(&table.path, Place::Row(row as u64), reason)?,
            }
        }
    }
    Ok(examples)
}

impl Table {
    /// The image of a row with these texts, or why it is refused.
    fn example(
        self: &Arc<Self>,
        row: usize,
        captions: Texts,
        path: Texts,
        own: Texts,
        split: Option<Split>,
    ) -> Result<Example, String> {
        let captions = captions?;
        if captions.is_empty() {
            return Err("it has no caption".into());
        }
        if captions.iter().any(String::is_empty) {
            return Err("a caption is blank".into());
        }
        let path = path?.pop().unwrap_or_default();
        let name = Path::new(&path)
            .file_name()
            .map(|name| name.to_string_lossy());
        let name = name.map_or_else(
            || {
                let stem = self.path.file_stem().unwrap_or_default();
                format!("{}-{row}", stem.to_string_lossy())
            },
            |name| name.into_owned(),
        );
        let split = match (self.columns.split, split) {
            (Some(_), _) => {
                let own = own?.pop().unwrap_or_default();
                let known = Split::from_name(&own);
                known
                    .ok_or_else(|| format!("unknown split {own:?}; expected train, val or test"))?
            }
            (None, Some(split)) => split,
            (None, None) => split_of(&name),
        };
        Ok(Example {
            image: Picture::row(self, row, &name),
            captions,
            split,
            place: Place::Row(row as u64),
            scene: None,
        })
    }
}

#[cfg(test)]
mod tests;
