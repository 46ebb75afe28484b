//! The file of embeddings, row by row: what an interruption leaves is gone on with.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ::safetensors::Dtype;
use anyhow::{Context, Result, ensure};

use crate::data::EvaluationSet;
use crate::files::safetensors::header;
use crate::lock::Lock;

/// A file that has its name once all rows are in it. Until then it is `NAME.part`.
pub(super) struct RowFile {
    output: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
    width: usize,
    written: usize,
    rows: usize,
    _lock: Lock,
}

impl RowFile {
    /// Begins a file for embeddings of that width, or goes on with one that the same `job` left,
    /// after its last whole batch of `batch_size` images or captions, so that the batches are those
    /// of a job that was not interrupted.
    ///
    /// # Errors
    ///
    /// If another program writes it, another job left one, or it cannot be written.
    pub(super) fn open(
        output: &Path,
        set: &EvaluationSet,
        width: usize,
        batch_size: usize,
        job: &str,
    ) -> Result<Self> {
        let part = beside(output, "part");
        let failed = || format!("{} cannot be written", part.display());
        let mut options = OpenOptions::new();
        let opened = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part);
        let mut file = opened.with_context(failed)?;
        let lock = Lock::now(&part)?;
        let lock = lock.with_context(|| format!("another program writes {}", part.display()))?;
        let start = start(set, width, job)?;
        let length = file.metadata().with_context(failed)?.len() as usize;
        let mut found = vec![0; start.len().min(length)];
        file.read_exact(&mut found).with_context(failed)?;
        ensure!(
            start.starts_with(&found),
            "{} was left by other weights or data: remove it, or choose another --output",
            part.display()
        );
        // Shorter if it was interrupted before the first row.
        let rows = length.saturating_sub(start.len()) / (4 * width);
        let whole = |rows: usize| rows / batch_size * batch_size;
        let written = match rows.checked_sub(set.num_images()) {
            Some(captions) => set.num_images() + whole(captions),
            None => whole(rows),
        };
        file.write_all(&start[found.len()..])
            .and_then(|()| file.set_len((start.len() + 4 * width * written) as u64))
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .with_context(failed)?;
        let file = BufWriter::new(file);
        Ok(Self {
            output: output.to_owned(),
            part,
            file,
            width,
            written,
            rows: set.num_images() + set.num_captions(),
            _lock: lock,
        })
    }

    /// Rows that are in it, images first.
    pub(super) fn written(&self) -> usize {
        self.written
    }

    /// Adds rows.
    pub(super) fn push(&mut self, numbers: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let written = self.file.write_all(&bytes);
        written.with_context(|| format!("{} cannot be written", self.part.display()))?;
        self.written += numbers.len() / self.width;
        Ok(())
    }

    /// Leaves what is in it for a later call.
    pub(super) fn keep(&mut self) -> Result<()> {
        let flushed = self.file.flush();
        flushed.with_context(|| format!("{} cannot be written", self.part.display()))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    ///
    /// If rows are missing, or it cannot be written.
    pub(super) fn finish(mut self) -> Result<()> {
        ensure!(
            self.written == self.rows,
            "{} of {} rows are there",
            self.written,
            self.rows
        );
        self.keep()?;
        let named = self.file.get_ref().sync_all();
        let named = named.and_then(|()| std::fs::rename(&self.part, &self.output));
        named.with_context(|| format!("{} cannot be written", self.output.display()))
    }
}

/// What stands before the rows: the header, and which image each caption is of.
fn start(set: &EvaluationSet, width: usize, job: &str) -> Result<Vec<u8>> {
    let (images, captions) = (set.num_images(), set.num_captions());
    let paths = (0..images).map(|image| set.image_path(image).to_string_lossy());
    let paths = serde_json::to_string(&paths.collect::<Vec<_>>())?;
    let tensors: [(&str, Dtype, &[usize]); 3] = [
        ("image_id", Dtype::I64, &[captions]),
        ("image", Dtype::F32, &[images, width]),
        ("text", Dtype::F32, &[captions, width]),
    ];
    let tensors = tensors.map(|(name, dtype, shape)| (name.to_string(), dtype, shape));
    let notes = [("paths", paths), ("job", job.to_string())];
    let notes = notes.map(|(key, text)| (key.to_string(), text.into()));
    let mut start = header(tensors, notes.into_iter().collect());
    let ids = set.image_of_caption().iter();
    start.extend(ids.flat_map(|&image| (image as i64).to_le_bytes()));
    Ok(start)
}

/// `NAME.ending`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}
