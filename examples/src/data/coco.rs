//! Reads COCO's own annotations of captions (Chen et al., 2015), `captions_train2017.json` and its
//! likes:
//!
//! ```json
//! {"images": [{"id": 391895, "file_name": "000000391895.jpg"}],
//!  "annotations": [{"image_id": 391895, "caption": "A man riding a bike."}]}
//! ```
//!
//! Other fields are ignored. As such a file is of one split of COCO's, whose test split has no
//! captions, a hash of the file's name puts about 80 % of the images in train, 10 % in validation
//! and 10 % in test, as in tables without splits.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::collection::Example;
use super::listing::{Element, Elements, Faults, Place, read_json};
use super::table::split_of;

/// One element of `images`.
#[derive(Deserialize)]
struct Picture {
    id: i64,
    file_name: String,
}

/// One element of `annotations`.
#[derive(Deserialize)]
struct Annotation {
    image_id: i64,
    caption: String,
}

impl Element for Picture {
    const MANY: &'static str = "images";
}

impl Element for Annotation {
    const MANY: &'static str = "annotations";
}

#[derive(Deserialize)]
struct Listing {
    images: Elements<Picture>,
    annotations: Elements<Annotation>,
}

/// Whether `file` is of this kind.
pub(super) fn is_one(file: &Path) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        annotations: Option<IgnoredAny>,
    }
    read_json::<Kind>(file, "JSON").is_ok_and(|kind| kind.annotations.is_some())
}

/// Reads `file`; images are sought beside it, and where COCO keeps them.
pub(super) fn read(file: &Path, faults: &mut Faults) -> Result<Vec<Example>> {
    let Listing {
        images,
        annotations,
    } = read_json(file, "a file of COCO's annotations")?;
    // Each image's captions, and where the first of them is.
    let mut captions: HashMap<i64, (usize, Vec<String>)> = HashMap::new();
    for (index, annotation) in annotations.0.into_iter().enumerate() {
        let place = annotation_at(index);
        match annotation {
            Err(reason) => faults.report(file, place, reason)?,
            Ok(Annotation { caption, .. }) if caption.trim().is_empty() => {
                faults.report(file, place, "`caption` is blank")?;
            }
            Ok(Annotation { image_id, caption }) => {
                let of_image = captions.entry(image_id);
                let (_, of_image) = of_image.or_insert_with(|| (index, Vec::new()));
                of_image.push(caption.trim().to_owned());
            }
        }
    }
    let folders = folders(file);
    let mut examples = Vec::with_capacity(images.0.len());
    let mut first_place = HashMap::new();
    for (index, picture) in images.0.into_iter().enumerate() {
        let place = Place::Entry(index);
        let found = picture.and_then(|Picture { id, file_name }| {
            if let Some(first) = first_place.insert(id, place) {
                return Err(format!("the id {id} stands before, in {first}"));
            }
            let captions = captions.remove(&id);
            let image = folders.iter().map(|folder| folder.join(&file_name));
            let image = image.into_iter().find(|path| path.is_file());
            let image = image.ok_or_else(|| {
                let folders = folders.iter().map(|path| path.display().to_string());
                let folders: Vec<_> = folders.collect();
                format!("image {file_name} not found in {}", folders.join(", "))
            })?;
            let (_, captions) = captions.ok_or_else(|| format!("{file_name} has no caption"))?;
            Ok((split_of(&file_name), image, captions))
        });
        match found {
            Err(reason) => faults.report(file, place, reason)?,
            Ok((split, image, captions)) => examples.push(Example {
                image: image.into(),
                captions,
                split,
                place,
                scene: None,
            }),
        }
    }
    let mut left: Vec<_> = captions.into_iter().map(|(id, (at, _))| (at, id)).collect();
    left.sort_unstable();
    for (at, id) in left {
        let reason = format!("no image has the id {id}");
        faults.report(file, annotation_at(at), reason)?;
    }
    Ok(examples)
}

fn annotation_at(index: usize) -> Place {
    Place::Element("annotations", index)
}

/// Where the images may be: beside the file, in `images`, or in the folder that COCO names after
/// the split, such as `train2017` for `annotations/captions_train2017.json`.
fn folders(file: &Path) -> Vec<PathBuf> {
    let beside = file.parent().unwrap_or(Path::new(""));
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let split = stem.strip_prefix("captions_").unwrap_or(&stem);
    let above = beside.join("..");
    vec![
        beside.to_owned(),
        beside.join("images"),
        beside.join(split),
        above.join(split),
        above.join("images").join(split),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::data::testing::picture;
    use crate::data::{Collection, Split};

    /// Reads a folder laid out as COCO's.
    fn collection(listing: &Value, images: &[&str], skip_bad: bool) -> Result<Collection> {
        let dir = tempfile::tempdir().unwrap();
        let annotations = dir.path().join("annotations");
        std::fs::create_dir(&annotations).unwrap();
        for image in images {
            picture(&dir.path().join("val2014").join(image), [9; 3]);
        }
        let file = annotations.join("captions_val2014.json");
        std::fs::write(&file, listing.to_string()).unwrap();
        Collection::read(&file, skip_bad)
    }

    fn listing() -> Value {
        json!({
            "info": {"year": 2014}, "licenses": [],
            "images": [
                {"id": 3, "file_name": "a.png", "height": 2, "license": 1},
                {"id": 1, "file_name": "b.png"}
            ],
            "annotations": [
                {"image_id": 1, "id": 7, "caption": "one b"},
                {"image_id": 3, "id": 8, "caption": " an a\n"},
                {"image_id": 1, "id": 9, "caption": "another b"}
            ]
        })
    }

    #[test]
    fn captions_go_to_their_images_and_names_decide_the_splits() {
        let collection = collection(&listing(), &["a.png", "b.png"], false).unwrap();
        let captions: Vec<_> = collection.examples.iter().map(|of| &of.captions).collect();
        assert_eq!(captions, [&vec!["an a"], &vec!["one b", "another b"]]);
        let names: Vec<String> = (0..1_000).map(|index| format!("{index:012}.jpg")).collect();
        let count = |split| names.iter().filter(|name| split_of(name) == split).count();
        assert!(count(Split::Test) > 70 && count(Split::Validation) > 70);
    }

    #[test]
    fn what_does_not_fit_is_named_and_left_out_when_skipping() {
        let mut cases = Vec::new();
        let mut case = |change: fn(&mut Value), expected: &'static str, left: usize| {
            let mut listing = listing();
            change(&mut listing);
            cases.push((listing, expected, left));
        };
        case(
            |of| of["annotations"][0]["caption"] = " ".into(),
            "annotations[0]: `caption` is",
            2,
        );
        case(
            |of| of["annotations"][1]["caption"] = 5.into(),
            "annotations[1]: invalid type",
            1,
        );
        case(
            |of| of["annotations"][1]["image_id"] = 1.into(),
            "a.png has no caption",
            1,
        );
        case(
            |of| of["annotations"][1]["image_id"] = 4.into(),
            "images[0]: a.png has no",
            1,
        );
        case(
            |of| of["images"][0]["id"] = 1.into(),
            "the id 1 stands before, in images[0]",
            1,
        );
        case(
            |of| of["images"][0]["file_name"] = "c.png".into(),
            "image c.png not found",
            1,
        );
        case(
            |of| of["images"][1] = 7.into(),
            "images[1]: invalid type",
            1,
        );
        for (listing, expected, left) in cases {
            let error = collection(&listing, &["a.png", "b.png"], false).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(expected), "{expected:?} is not in {error:?}");
            let skipped = collection(&listing, &["a.png", "b.png"], true).unwrap();
            assert_eq!(skipped.examples.len(), left, "{expected}");
            assert!(!skipped.skipped.is_empty(), "{expected}");
        }
    }
}
