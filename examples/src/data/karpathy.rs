//! Reads the split files of A. Karpathy and L. Fei-Fei ("Deep visual-semantic alignments for
//! generating image descriptions", CVPR 2015), the form in which Flickr8K, Flickr30K and MS-COCO
//! captions are commonly distributed:
//!
//! ```json
//! {"dataset": "coco", "images": [
//!   {"filepath": "val2014", "filename": "COCO_val2014_000000391895.jpg", "split": "test",
//!    "sentences": [{"raw": "A man riding a bike."}]}]}
//! ```
//!
//! `filepath` is optional, other fields are ignored, and generated sets add `scene`.
//! Entries are parsed one at a time, so the file's token lists never sit in memory together.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::collection::{Example, Split};
use super::listing::{Element, Elements, Faults, Place, read_json};
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

impl Element for Entry {
    const MANY: &'static str = "images";

    fn known_otherwise(value: &Value) -> Option<&'static str> {
        let is_of_coco = value.get("file_name").is_some() && value.get("sentences").is_none();
        is_of_coco.then_some(
            "these are COCO's own annotations; expected the split file dataset_coco.json, which \
             has the captions in `sentences`, or captions_*.json, which has `annotations`",
        )
    }
}

/// The whole file.
#[derive(Deserialize)]
struct Listing {
    images: Elements<Entry>,
}

/// Reads `file`; images are sought beside it.
pub(super) fn read(file: &Path, faults: &mut Faults) -> Result<Vec<Example>> {
    let listing: Listing = read_json(file, "a Karpathy split file")?;
    let folder = file.parent().unwrap_or(Path::new(""));

    let mut examples = Vec::with_capacity(listing.images.0.len());
    let mut first_place = HashMap::new();
    for (index, entry) in listing.images.0.into_iter().enumerate() {
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
                    image: image.into(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Collection;
    use crate::data::testing::picture;

    /// Reads a folder that holds `dataset_x.json` with `text`, and the given images.
    fn collection(text: &str, images: &[&str], skip_bad: bool) -> Result<Collection> {
        let dir = tempfile::tempdir().unwrap();
        for image in images {
            picture(&dir.path().join(image), [9; 3]);
        }
        std::fs::write(dir.path().join("dataset_x.json"), text).unwrap();
        Collection::read(dir.path(), skip_bad)
    }

    fn entry(filename: &str, split: &str, captions: &[&str]) -> Value {
        let sentences: Vec<Value> = captions
            .iter()
            .map(|raw| serde_json::json!({"raw": raw, "tokens": ["x"], "sentid": 1}))
            .collect();
        serde_json::json!({
            "filename": filename, "split": split, "imgid": 0, "cocoid": 5, "sentences": sentences
        })
    }

    fn file(entries: &[Value]) -> String {
        serde_json::json!({"dataset": "x", "images": entries}).to_string()
    }

    #[test]
    fn images_are_found_where_the_public_sets_keep_them() {
        let mut coco = entry("c.png", "restval", &["c"]);
        coco["filepath"] = "val2014".into();
        let text = file(&[
            entry("a.png", "train", &["ä 青", " b "]),
            entry("b.png", "val", &["b"]),
            coco,
            entry("d.png", "test", &["d"]),
        ]);
        let images = [
            "a.png",
            "images/b.png",
            "val2014/c.png",
            "flickr30k-images/d.png",
        ];
        let collection = collection(&text, &images, false).unwrap();
        let splits: Vec<_> = collection
            .examples
            .iter()
            .map(|example| example.split)
            .collect();
        assert_eq!(
            splits,
            [Split::Train, Split::Validation, Split::Train, Split::Test]
        );
        assert_eq!(collection.examples[0].captions, ["ä 青", "b"]);
        for (example, image) in collection.examples.iter().zip(images) {
            assert!(example.image.path().ends_with(image));
            assert_eq!(example.meaning(), None);
        }
    }

    #[test]
    fn a_byte_order_mark_does_no_harm() {
        let text = format!("\u{feff}{}", file(&[entry("a.png", "train", &["a"])]));
        let collection = collection(&text, &["a.png"], false).unwrap();
        assert_eq!(collection.examples.len(), 1);
    }

    #[test]
    fn bad_entries_are_named_and_counted_when_skipped() {
        let good = entry("a.png", "train", &["a"]);
        for (bad, expected) in [
            (
                serde_json::json!({"split": "train", "sentences": []}),
                "missing field `filename`",
            ),
            (serde_json::json!(7), "invalid type"),
            (entry("b.png", "maybe", &["b"]), "unknown split \"maybe\""),
            (
                entry("none.png", "train", &["b"]),
                "image none.png not found",
            ),
            (entry("b.png", "train", &[]), "b.png has no caption"),
            (
                entry("a.png", "train", &["again"]),
                "a.png is listed before, in images[0]",
            ),
            (entry("broken.png", "train", &["b"]), "broken.png"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for image in ["a.png", "b.png"] {
                picture(&dir.path().join(image), [9; 3]);
            }
            std::fs::write(dir.path().join("broken.png"), "nothing").unwrap();
            std::fs::write(dir.path().join("dataset.json"), file(&[good.clone(), bad])).unwrap();
            let error = Collection::read(dir.path(), false).unwrap_err().to_string();
            assert!(
                error.contains("dataset.json, images[1]: ") && error.contains(expected),
                "{error}"
            );
            let skipped = Collection::read(dir.path(), true).unwrap();
            assert_eq!((skipped.examples.len(), skipped.skipped.len()), (1, 1));
            assert!(skipped.skipped[0].reason.contains(expected));
        }
    }

    #[test]
    fn blank_captions_are_refused_or_left_out_alone() {
        let text = file(&[entry("a.png", "train", &["one", " ", "three"])]);
        let error = collection(&text, &["a.png"], false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("images[0]: sentences[1] of a.png is blank"),
            "{error}"
        );
        let skipped = collection(&text, &["a.png"], true).unwrap();
        assert_eq!(skipped.examples[0].captions, ["one", "three"]);
        assert_eq!(skipped.skipped.len(), 1);
    }

    #[test]
    fn broken_json_is_named_by_line_whether_skipping_or_not() {
        for skip_bad in [false, true] {
            for (text, expected) in [
                ("{\n\"images\": [\n{,", "dataset_x.json:3:2"),
                ("{\"pictures\": []}", "images"),
                ("", "dataset_x.json:1:0"),
                (
                    r#"{"images": [{"id": 1, "file_name": "a.png"}], "info": {}}"#,
                    "COCO's own annotations; expected the split file",
                ),
            ] {
                let error = format!("{:#}", collection(text, &["a.png"], skip_bad).unwrap_err());
                assert!(
                    error.contains(expected) && error.contains("dataset_x.json"),
                    "{error}"
                );
            }
        }
    }
}
