//! Reads the split files of A. Karpathy and L. Fei-Fei ("Deep visual-semantic alignments for generating image descriptions",
//! CVPR 2015), the form in which Flickr8K, Flickr30K and MS-COCO captions are commonly distributed:
//!
//! ```json
//! {"dataset": "coco", "images": [{"filepath": "val2014", "filename": "COCO_val2014_000000391895.jpg", "split": "test",
//!   "sentences": [{"raw": "A man riding a bike."}]}]}
//! ```
//!
//! `filepath` is optional, other fields are ignored, and generated sets add `scene`.
//! Entries are parsed one at a time, so the file's token lists never sit in memory together.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::collection::{Example, Faults, Place, Split};
use super::scenes::Scene;

/// Folders, beside the split file, in which the images are sought.
const IMAGE_FOLDERS: [&str; 5] = [
    "",
    "images",
    "Images",
    "flickr30k-images",
    "flickr30k_images",
];

/// One element of `images`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub filepath: String,
    pub filename: String,
    #[serde(default)]
    pub imgid: usize,
    pub split: String,
    #[serde(default)]
    pub sentids: Vec<usize>,
    pub sentences: Vec<Sentence>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scene: Option<Scene>,
}

/// One caption of an [`Entry`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sentence {
    #[serde(default)]
    pub tokens: Vec<String>,
    pub raw: String,
    #[serde(default)]
    pub imgid: usize,
    #[serde(default)]
    pub sentid: usize,
}

/// The whole file; entries that are no [`Entry`] are kept as the reason why.
#[derive(Deserialize)]
struct Listing {
    #[serde(deserialize_with = "entries")]
    images: Vec<Result<Entry, String>>,
}

/// Reads `file`; images are sought beside it.
pub(super) fn read(file: &Path, faults: &mut Faults) -> Result<Vec<Example>> {
    let reader = BufReader::new(
        File::open(file).with_context(|| format!("cannot open {}", file.display()))?,
    );
    let listing: Listing = serde_json::from_reader(reader).map_err(|error| {
        anyhow!(
            "{}:{}:{}: not a Karpathy split file: {error}",
            file.display(),
            error.line(),
            error.column()
        )
    })?;
    let folder = file.parent().unwrap_or(Path::new(""));

    let mut examples = Vec::with_capacity(listing.images.len());
    let mut first_place = HashMap::new();
    for (index, entry) in listing.images.into_iter().enumerate() {
        let place = Place::Entry(index);
        let entry = match entry {
            Ok(entry) => entry,
            Err(reason) => {
                faults.report(file, place, reason)?;
                continue;
            }
        };
        let name = Path::new(&entry.filepath).join(&entry.filename);
        if let Some(first) = first_place.get(&name) {
            faults.report(
                file,
                place,
                format!("{} is listed before, in {first}", name.display()),
            )?;
            continue;
        }
        match example(folder, &name, entry, |reason| {
            faults.report(file, place, reason)
        })? {
            Ok((image, split, captions, scene)) => {
                first_place.insert(name, place);
                examples.push(Example {
                    image,
                    captions,
                    split,
                    place,
                    scene,
                });
            }
            Err(reason) => faults.report(file, place, reason)?,
        }
    }
    Ok(examples)
}

type Parts = (PathBuf, Split, Vec<String>, Option<Scene>);

/// What an entry says, or why it is unusable; blank captions go to `blank`.
fn example(
    folder: &Path,
    name: &Path,
    entry: Entry,
    mut blank: impl FnMut(String) -> Result<()>,
) -> Result<Result<Parts, String>> {
    let Some(split) = Split::from_name(&entry.split) else {
        return Ok(Err(format!(
            "{} has the unknown split {:?}; expected train, restval, val or test",
            name.display(),
            entry.split
        )));
    };
    let Some(image) = find_image(folder, name, &entry.filename) else {
        return Ok(Err(format!(
            "image {} not found in {} nor its folders {}",
            name.display(),
            folder.display(),
            IMAGE_FOLDERS[1..].join(", ")
        )));
    };
    let mut captions = Vec::with_capacity(entry.sentences.len());
    for (index, sentence) in entry.sentences.into_iter().enumerate() {
        let caption = sentence.raw.trim();
        if caption.is_empty() {
            blank(format!("sentences[{index}] of {} is blank", name.display()))?;
        } else {
            captions.push(caption.to_owned());
        }
    }
    if captions.is_empty() {
        return Ok(Err(format!("{} has no caption", name.display())));
    }
    Ok(Ok((image, split, captions, entry.scene)))
}

fn find_image(folder: &Path, name: &Path, filename: &str) -> Option<PathBuf> {
    IMAGE_FOLDERS
        .iter()
        .flat_map(|images| {
            [
                folder.join(images).join(name),
                folder.join(images).join(filename),
            ]
        })
        .find(|path| path.is_file())
}

/// Reads an array entry by entry, so that one that does not fit spoils only itself.
fn entries<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Result<Entry, String>>, D::Error> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<Result<Entry, String>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of images")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(value) = sequence.next_element::<Value>()? {
                let entry = serde_json::from_value::<Entry>(value);
                entries.push(entry.map_err(|error| error.to_string()));
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_seq(Entries)
}
