//! Retrieval by class: query images and query sentences of some classes, and images among which
//! those of the same class are sought, as the CheXpert 8×200 retrieval set of ConVIRT (Zhang et
//! al., 2020) has them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::{checked_classes, locate};
use crate::data::collection::{Collection, Example, Split};
use crate::data::listing::{
    Element, Elements, Faults, Listed, Place, Skipped, check_images, fingerprint, read_json,
};
use crate::data::{CaptionBatch, CaptionTokenizer, EvaluationSet, TransformConfig};

/// The file beside the studies.
pub(in crate::data) const LISTING: &str = "retrieval.json";

/// An image or a sentence of one class.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled<T> {
    /// The image or the sentence.
    pub item: T,
    /// The index of its class.
    pub class: usize,
    place: Place,
}

impl Listed for Labelled<PathBuf> {
    type Image = PathBuf;

    fn images(&self) -> &[PathBuf] {
        std::slice::from_ref(&self.item)
    }

    fn split(&self) -> Split {
        Split::Test
    }

    fn place(&self) -> Place {
        self.place
    }
}

/// Queries and candidates by class.
#[derive(Clone, Debug)]
pub struct ClassRetrieval {
    /// The file that lists them.
    pub file: PathBuf,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// Images whose class is sought.
    pub query_images: Vec<Labelled<PathBuf>>,
    /// Sentences whose class is sought.
    pub query_sentences: Vec<Labelled<String>>,
    /// The images among which it is sought.
    pub candidates: Vec<Labelled<PathBuf>>,
    /// What was left out; empty unless reading skipped bad rows and images.
    pub skipped: Vec<Skipped>,
}

/// An image as the file lists it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::data) struct ImageRow {
    pub image: String,
    pub class: String,
}

/// A sentence as the file lists it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::data) struct SentenceRow {
    pub sentence: String,
    pub class: String,
}

impl Element for ImageRow {
    const MANY: &'static str = "images with their classes";
}

impl Element for SentenceRow {
    const MANY: &'static str = "sentences with their classes";
}

#[derive(Deserialize)]
struct RetrievalFile {
    classes: Vec<String>,
    query_images: Elements<ImageRow>,
    query_sentences: Elements<SentenceRow>,
    candidates: Elements<ImageRow>,
}

impl ClassRetrieval {
    /// The file that lies beside the studies at `path` and is called `retrieval.json`, if there is
    /// one.
    ///
    /// # Errors
    ///
    /// If there are no studies at `path`.
    pub fn beside(path: &Path) -> Result<Option<PathBuf>> {
        let file = locate(path)?.with_file_name(LISTING);
        Ok(file.is_file().then_some(file))
    }

    /// Reads a file of this form; images are sought relative to it:
    /// ```json
    /// {"classes": ["effusion", "nodule"],
    ///  "query_images": [{"image": "queries/1.png", "class": "effusion"}],
    ///  "query_sentences": [{"sentence": "There is a small nodule.", "class": "nodule"}],
    ///  "candidates": [{"image": "candidates/1.png", "class": "nodule"}]}
    /// ```
    /// With `skip_bad`, bad rows and images are left out and the reasons kept in
    /// [`skipped`](Self::skipped).
    ///
    /// # Errors
    ///
    /// If the file cannot be parsed; if a class is blank or named twice; if one of the three lists
    /// is empty; if a class that is sought has no candidate; and, without `skip_bad`, at the first
    /// bad row or image that cannot be decoded.
    pub fn read(file: &Path, skip_bad: bool) -> Result<Self> {
        let listing: RetrievalFile = read_json(file, "a file of queries and candidates")?;
        let classes = checked_classes(file, listing.classes)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut skipped = Vec::new();
        let image = |row: ImageRow| match row.image.trim() {
            "" => Err("an image path is blank".to_string()),
            image => Ok((folder.join(image), row.class)),
        };
        let sentence = |row: SentenceRow| match row.sentence.trim() {
            "" => Err("the sentence is blank".to_string()),
            sentence => Ok((sentence.to_owned(), row.class)),
        };
        let mut images = |name, rows| {
            let mut faults = Faults::new(skip_bad);
            let items = labelled(file, name, rows, image, &classes, &mut faults)?;
            let items = check_images(file, items, &mut faults)?;
            skipped.extend(faults.finish(file, items.is_empty(), name)?);
            anyhow::Ok(items)
        };
        let query_images = images("query_images", listing.query_images)?;
        let candidates = images("candidates", listing.candidates)?;
        let name = "query_sentences";
        let mut faults = Faults::new(skip_bad);
        let rows = listing.query_sentences;
        let query_sentences = labelled(file, name, rows, sentence, &classes, &mut faults)?;
        skipped.extend(faults.finish(file, query_sentences.is_empty(), name)?);
        let found = Self {
            file: file.to_owned(),
            classes,
            query_images,
            query_sentences,
            candidates,
            skipped,
        };
        found.check()?;
        Ok(found)
    }

    /// Every class that is sought has a candidate.
    fn check(&self) -> Result<()> {
        let [images, sentences, candidates] = self.labels();
        for (class, name) in self.classes.iter().enumerate() {
            let is_sought = images.contains(&class) || sentences.contains(&class);
            anyhow::ensure!(
                !is_sought || candidates.contains(&class),
                "{}: queries of the class {name:?} have no candidate of it",
                self.file.display()
            );
        }
        Ok(())
    }

    /// The classes of the query images, of the query sentences and of the candidates.
    pub fn labels(&self) -> [Vec<usize>; 3] {
        [
            self.query_images.iter().map(|one| one.class).collect(),
            self.query_sentences.iter().map(|one| one.class).collect(),
            self.candidates.iter().map(|one| one.class).collect(),
        ]
    }

    /// The query images, then the candidates, to be decoded by `workers` threads.
    ///
    /// # Errors
    ///
    /// If a value of `transform` is out of range.
    pub fn images(
        &self,
        tokenizer: &Arc<CaptionTokenizer>,
        transform: TransformConfig,
        workers: usize,
    ) -> Result<EvaluationSet> {
        let all = self.query_images.iter().chain(&self.candidates);
        let examples = all.map(|one| Example {
            image: one.item.clone().into(),
            captions: Vec::new(),
            split: Split::Test,
            place: one.place,
            scene: None,
        });
        let collection = Arc::new(Collection {
            file: self.file.clone(),
            examples: examples.collect(),
            skipped: Vec::new(),
        });
        EvaluationSet::new(
            collection,
            Split::Test,
            tokenizer.clone(),
            transform,
            workers,
        )
    }

    /// The query sentences as tokens, `batch_size` at a time.
    ///
    /// # Errors
    ///
    /// If one cannot be tokenized; the message names its place.
    pub fn sentences(
        &self,
        tokenizer: &CaptionTokenizer,
        batch_size: usize,
        device: &Device,
    ) -> Result<Vec<CaptionBatch>> {
        let batches = self.query_sentences.chunks(batch_size.max(1));
        let batch = |batch: &[Labelled<String>]| {
            let encode = |one: &Labelled<String>| {
                let place = || format!("{}, {}", self.file.display(), one.place);
                tokenizer.encode(&one.item).with_context(place)
            };
            let rows = batch.iter().map(encode).collect::<Result<Vec<_>>>()?;
            Ok(CaptionBatch::new(&rows, tokenizer.padding(), device))
        };
        batches.map(batch).collect()
    }

    /// SHA-256 of everything but pixels, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let image = |one: &Labelled<PathBuf>| {
            let name = one.item.file_name().unwrap_or_default();
            vec![
                name.as_encoded_bytes().to_vec(),
                one.class.to_le_bytes().to_vec(),
            ]
        };
        let sentence = |one: &Labelled<String>| {
            vec![
                one.item.as_bytes().to_vec(),
                one.class.to_le_bytes().to_vec(),
            ]
        };
        let classes = self.classes.iter().map(|class| class.as_bytes().to_vec());
        let counts = [self.query_images.len(), self.query_sentences.len()];
        let counts = counts.map(|count| count.to_le_bytes().to_vec()).to_vec();
        let rows = [classes.collect(), counts].into_iter();
        let rows = rows.chain(self.query_images.iter().map(image));
        let rows = rows.chain(self.query_sentences.iter().map(sentence));
        fingerprint(rows.chain(self.candidates.iter().map(image)))
    }
}

/// The rows of one list; `parse` gives an item and the name of its class.
fn labelled<R, T>(
    file: &Path,
    name: &'static str,
    rows: Elements<R>,
    parse: impl Fn(R) -> Result<(T, String), String>,
    classes: &[String],
    faults: &mut Faults,
) -> Result<Vec<Labelled<T>>> {
    let mut items = Vec::with_capacity(rows.0.len());
    for (index, row) in rows.0.into_iter().enumerate() {
        let place = Place::Element(name, index);
        let item = row.and_then(&parse).and_then(|(item, class)| {
            let index = classes.iter().position(|known| *known == class);
            let class = index.ok_or_else(|| format!("{class:?} is none of the file's classes"))?;
            Ok(Labelled { item, class, place })
        });
        match item {
            Ok(item) => items.push(item),
            Err(reason) => faults.report(file, place, reason)?,
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests;
