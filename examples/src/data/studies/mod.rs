//! Studies, as those of chest radiographs: each has several images, several sentences of a report,
//! and labels.

mod classes;
mod examples;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub use classes::{ClassRetrieval, Labelled};
pub(super) use classes::{ImageRow, LISTING as RETRIEVAL, SentenceRow};
pub use examples::{LabelledImage, LabelledImages, StudyPairs};

use super::collection::{Collection, Example, Split};
use super::listing::{
    Element, Elements, Faults, Listed, Place, Skipped, check_images, fingerprint, indices,
    read_json,
};

/// The file of a folder that lists its studies.
pub(super) const STUDIES: &str = "studies.json";

/// Images, a report and labels that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Study {
    /// At least one image.
    pub images: Vec<PathBuf>,
    /// The sentences of the report, none blank; may be none.
    pub sentences: Vec<String>,
    /// Of each class whether the study is of it, where that is known; `None` for a study without
    /// labels.
    pub labels: Option<Vec<Option<bool>>>,
    /// What the study is for.
    pub split: Split,
    /// Where it was read.
    pub place: Place,
}

impl Listed for Study {
    type Image = PathBuf;

    fn images(&self) -> &[PathBuf] {
        &self.images
    }

    fn split(&self) -> Split {
        self.split
    }

    fn place(&self) -> Place {
        self.place
    }
}

/// What every study must have besides images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// A sentence: to be contrasted with its images.
    Sentences,
    /// Labels: to be classified.
    Labels,
}

/// Studies read from one file.
#[derive(Clone, Debug)]
pub struct Studies {
    /// The file that lists them.
    pub file: PathBuf,
    /// The names of the classes that labels speak of.
    pub classes: Vec<String>,
    /// The studies, in the order of the file.
    pub items: Vec<Study>,
    /// What was left out; empty unless reading skipped bad rows and images.
    pub skipped: Vec<Skipped>,
}

/// A study as a file lists it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub images: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sentences: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<bool>>>,
    pub split: String,
}

impl Element for Row {
    const MANY: &'static str = "studies";
}

#[derive(Deserialize)]
struct StudyFile {
    #[serde(default)]
    classes: Vec<String>,
    studies: Elements<Row>,
}

impl Studies {
    /// Reads the studies at `path`, a JSON file of this form or a folder with one called
    /// `studies.json`. Images are sought relative to the file:
    /// ```json
    /// {"classes": ["effusion", "nodule"], "studies": [
    ///   {"images": ["images/000001-0.png", "images/000001-1.png"], "split": "train",
    ///    "sentences": ["A large effusion on the left.", "Heart size is normal."],
    ///    "labels": {"effusion": true, "nodule": null}}]}
    /// ```
    /// A label is `true`, `false`, or `null` where it is unknown; a class that `labels` does not
    /// name is `false`. Without `labels`, nothing is known of a study. Sentences, and classes with
    /// labels, may be missing; a study without what it `needs` is bad.
    ///
    /// With `skip_bad`, bad studies and those with bad images are left out and the reasons kept in
    /// [`skipped`](Self::skipped).
    ///
    /// # Errors
    ///
    /// If `path` is not of this form; if a class is blank or named twice, or labels are needed and
    /// there are no classes; if there is no study; and, without `skip_bad`, at the first bad study
    /// or image that cannot be decoded.
    pub fn read(path: impl AsRef<Path>, needs: Needs, skip_bad: bool) -> Result<Self> {
        let file = locate(path.as_ref())?;
        let listing: StudyFile = read_json(&file, "a file of studies")?;
        let classes = checked_classes(&file, listing.classes)?;
        ensure!(
            needs != Needs::Labels || !classes.is_empty(),
            "{} names no classes: labels need them",
            file.display()
        );
        let mut faults = Faults::new(skip_bad);
        let mut items = Vec::with_capacity(listing.studies.0.len());
        for (index, row) in listing.studies.0.into_iter().enumerate() {
            let place = Place::Element("studies", index);
            match row.and_then(|row| study(&file, row, &classes, needs, place)) {
                Ok(item) => items.push(item),
                Err(reason) => faults.report(&file, place, reason)?,
            }
        }
        let items = check_images(&file, items, &mut faults)?;
        let skipped = faults.finish(&file, items.is_empty(), "usable study")?;
        Ok(Self {
            file,
            classes,
            items,
            skipped,
        })
    }

    /// Indices of the studies of `split`, ascending.
    pub fn indices(&self, split: Split) -> Vec<usize> {
        indices(&self.items, split)
    }

    /// The sentences of `split`.
    pub fn sentences(&self, split: Split) -> impl Iterator<Item = &str> {
        let items = self.items.iter().filter(move |item| item.split == split);
        items.flat_map(|item| item.sentences.iter().map(String::as_str))
    }

    /// The first image of each study with all of its sentences, as captioned images.
    pub fn captioned(&self) -> Collection {
        let examples = self.items.iter().map(|study| Example {
            image: study.images[0].clone().into(),
            captions: study.sentences.clone(),
            split: study.split,
            place: study.place,
            scene: None,
        });
        Collection {
            file: self.file.clone(),
            examples: examples.collect(),
            skipped: Vec::new(),
        }
    }

    /// SHA-256 of everything but pixels, in hexadecimal: two sets share it exactly if they have the
    /// same classes and studies, with images of the same names, in the same order.
    pub fn fingerprint(&self) -> String {
        let classes = self.classes.iter().map(|class| class.as_bytes().to_vec());
        let studies = self.items.iter().map(|study| {
            let name = |image: &PathBuf| {
                let name = image.file_name().unwrap_or_default();
                name.as_encoded_bytes().to_vec()
            };
            let label = |label: &Option<bool>| match label {
                Some(true) => b'1',
                Some(false) => b'0',
                None => b'?',
            };
            let labels = study.labels.as_ref();
            let labels = labels.map_or_else(Vec::new, |all| all.iter().map(label).collect());
            let mut fields = vec![
                study.split.name().as_bytes().to_vec(),
                labels,
                study.images.len().to_le_bytes().to_vec(),
            ];
            fields.extend(study.images.iter().map(name));
            let sentences = study.sentences.iter();
            fields.extend(sentences.map(|sentence| sentence.as_bytes().to_vec()));
            fields
        });
        fingerprint(std::iter::once(classes.collect()).chain(studies))
    }

    /// "`FILE`, `PLACE`" of a study, for messages.
    pub fn place(&self, index: usize) -> String {
        format!("{}, {}", self.file.display(), self.items[index].place)
    }
}

/// The file of studies at `path`.
fn locate(path: &Path) -> Result<PathBuf> {
    let expected = "expected a studies.json, or a folder with one";
    let metadata = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}; {expected}", path.display()))?;
    let file = if metadata.is_dir() {
        path.join(STUDIES)
    } else {
        path.to_owned()
    };
    if !file.is_file() {
        bail!("{} holds no list of studies; {expected}", path.display());
    }
    Ok(file)
}

/// The names of classes, of which none is blank or twice there.
fn checked_classes(file: &Path, classes: Vec<String>) -> Result<Vec<String>> {
    let mut known = BTreeSet::new();
    for (index, class) in classes.iter().enumerate() {
        let problem = if class.trim().is_empty() {
            "is blank"
        } else if known.insert(class) {
            continue;
        } else {
            "is there twice"
        };
        bail!("{}, classes[{index}]: {class:?} {problem}", file.display());
    }
    Ok(classes)
}

/// A study, or why it is refused.
fn study(
    file: &Path,
    row: Row,
    classes: &[String],
    needs: Needs,
    place: Place,
) -> Result<Study, String> {
    let split = Split::from_name(&row.split)
        .ok_or_else(|| format!("unknown split {:?}; expected train, val or test", row.split))?;
    if row.images.is_empty() {
        return Err("it has no image".into());
    }
    if row.images.iter().any(|image| image.trim().is_empty()) {
        return Err("an image path is blank".into());
    }
    let sentences = row.sentences.iter().map(|sentence| sentence.trim());
    let sentences: Vec<String> = sentences.map(str::to_owned).collect();
    if sentences.iter().any(String::is_empty) {
        return Err("a sentence is blank".into());
    }
    let labels = row.labels.map(|named| {
        if let Some(unknown) = named.keys().find(|class| !classes.contains(class)) {
            return Err(format!("{unknown:?} is none of the file's classes"));
        }
        let of = |class| named.get(class).copied().unwrap_or(Some(false));
        Ok(classes.iter().map(of).collect())
    });
    let labels = labels.transpose()?;
    match needs {
        Needs::Sentences if sentences.is_empty() => return Err("it has no sentence".into()),
        Needs::Labels if labels.is_none() => return Err("it has no labels".into()),
        _ => {}
    }
    let folder = file.parent().unwrap_or(Path::new(""));
    Ok(Study {
        images: row.images.iter().map(|image| folder.join(image)).collect(),
        sentences,
        labels,
        split,
        place,
    })
}

#[cfg(test)]
mod tests;
