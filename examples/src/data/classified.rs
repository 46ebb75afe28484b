//! Images, each of one class: a folder for each class, or a table.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::collection::{Collection, Example};
use super::listing::{Faults, Place, check_images, entries};
use super::table::{self, CLASSES};
use crate::words::{list, shown};

/// Images, each of one class.
#[derive(Clone, Debug)]
pub struct ClassifiedImages {
    /// The images; the only caption of each is the name of its class.
    pub images: Arc<Collection>,
    /// The class of each, as a place in the list of names that it was read with.
    pub classes: Vec<usize>,
}

impl ClassifiedImages {
    /// Reads the images at `path`, of the classes `names`. It is either of
    ///
    /// - a folder with a folder of images for each class, which has its name, as torchvision's
    ///   `ImageFolder`; a hash of the path of each image decides its split, as in a table without
    ///   splits. What else lies in the folder is not looked at;
    /// - a table (`.csv`, `.tsv`) of image path and class, whose header calls the latter `class`,
    ///   `label` or `category`, and perhaps `split`.
    ///
    /// With `skip_bad`, bad rows and images are left out, and so are those of other classes.
    ///
    /// # Errors
    ///
    /// If `path` holds neither; if there is no image; and, without `skip_bad`, at the first bad
    /// row, image that cannot be decoded, or image of another class.
    pub fn read(path: &Path, names: &[String], skip_bad: bool) -> Result<Self> {
        let kind = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut faults = Faults::new(skip_bad);
        let examples = if kind.is_dir() {
            of_folders(path)?
        } else {
            let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
            ensure!(
                extension == "csv" || extension == "tsv",
                "{} is neither a folder with a folder of images for each class, nor a .csv or .tsv \
                 table of image path and class",
                path.display()
            );
            table::read(path, CLASSES, &mut faults)?
        };
        let known: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
        let mut kept = Vec::with_capacity(examples.len());
        for mut example in examples {
            match class_of(&mut example, &known, names) {
                Ok(()) => kept.push(example),
                Err(reason) => {
                    faults.report_of(Some(example.split), path, example.place, reason)?;
                }
            }
        }
        let examples = check_images(path, kept, &mut faults)?;
        let classes = examples.iter().map(|one| known[one.captions[0].as_str()]);
        let classes = classes.collect();
        let skipped = faults.finish(path, examples.is_empty(), "usable image of a class")?;
        let images = Arc::new(Collection {
            file: path.to_owned(),
            examples,
            skipped,
        });
        Ok(Self { images, classes })
    }
}

/// Leaves one of several equal classes of an image, or says why it is of none.
fn class_of(
    example: &mut Example,
    known: &HashMap<&str, usize>,
    names: &[String],
) -> Result<(), String> {
    let image = example.image.path().display();
    let name = &example.captions[0];
    if let Some(other) = example.captions.iter().find(|other| *other != name) {
        return Err(format!("{image} is of two classes, {name:?} and {other:?}"));
    }
    if !known.contains_key(name.as_str()) {
        return Err(format!(
            "{image} is of no class that is asked for: {:?}; there are {}",
            shown(name),
            list(names)
        ));
    }
    example.captions.truncate(1);
    Ok(())
}

/// What lies in the folders of a folder, by name. Hidden files and folders are left out.
fn of_folders(root: &Path) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    let folders = visible(root)?.into_iter().filter(|entry| entry.is_dir());
    let mut count = 0;
    for folder in folders {
        count += 1;
        let class = name(&folder);
        for image in visible(&folder)? {
            let path = format!("{class}/{}", name(&image));
            examples.push(Example {
                captions: vec![class.clone()],
                split: table::split_of(&path),
                place: Place::File(examples.len() + 1),
                scene: None,
                image: image.into(),
            });
        }
    }
    ensure!(
        count > 0,
        "{} holds no folders, one for each class with its images",
        root.display()
    );
    Ok(examples)
}

/// What is in a folder, by name, but for what is hidden.
fn visible(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut entries = entries(folder)?;
    entries.retain(|entry| !name(entry).starts_with('.'));
    Ok(entries)
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::folder;

    fn names() -> Vec<String> {
        ["cat", "dog", "bird"].map(String::from).to_vec()
    }

    fn read(path: &Path, skip_bad: bool) -> Result<ClassifiedImages> {
        ClassifiedImages::read(path, &names(), skip_bad)
    }

    fn files(read: &ClassifiedImages) -> Vec<String> {
        let examples = read.images.examples.iter();
        examples.map(|example| name(example.image.path())).collect()
    }

    #[test]
    fn a_folder_is_a_class_and_what_lies_beside_is_none() {
        let images = ["dog/2.png", "dog/1.png", "cat/3.png", "beside.png"];
        let hidden = ("dog/.DS_Store", String::new());
        let dir = folder(&images, &[hidden, (".git/x", String::new())]);
        let read = read(dir.path(), false).unwrap();
        assert_eq!(files(&read), ["3.png", "1.png", "2.png"]);
        assert_eq!(read.classes, [0, 1, 1]);
        let splits = read.images.examples.iter().map(|one| one.split);
        let expected = ["cat/3.png", "dog/1.png", "dog/2.png"].map(table::split_of);
        assert!(splits.eq(expected), "they are those of a table");
    }

    #[test]
    fn a_table_names_the_class_of_each_image() {
        let text = "image,caption,label,split\na.png,a dog,dog,val\nb.png,a cat,cat,test\n\
                    a.png,the same,dog,val\n";
        let dir = folder(&["a.png", "b.png"], &[("t.csv", text.into())]);
        let read = read(&dir.path().join("t.csv"), false).unwrap();
        assert_eq!(files(&read), ["a.png", "b.png"]);
        assert_eq!(read.classes, [1, 0]);
        assert_eq!(read.images.examples[0].split.name(), "val");
    }

    #[test]
    fn bad_rows_and_other_classes_are_named_or_left_out() {
        let header = "image,class\na.png,cat\n";
        for (row, expected) in [
            ("b.png,cta", "line 3: "),
            (
                "b.png,cta",
                "b.png is of no class that is asked for: \"cta\"",
            ),
            ("b.png,cta", "there are cat, dog, bird"),
            ("b.png,Cat", "of no class that is asked for: \"Cat\""),
            ("a.png,dog", "a.png is of two classes, \"cat\" and \"dog\""),
            ("b.png, ", "line 3: the class is blank"),
            ("none.png,cat", "cannot read image"),
        ] {
            let text = format!("{header}{row}\nc.png,bird\n");
            let dir = folder(&["a.png", "b.png", "c.png"], &[("t.csv", text)]);
            let table = dir.path().join("t.csv");
            let error = format!("{:#}", read(&table, false).unwrap_err());
            assert!(
                error.contains(expected) && error.contains("--skip-bad"),
                "{error}"
            );
            let kept = read(&table, true).unwrap();
            assert!(!kept.images.skipped.is_empty());
            let whole = kept.classes.iter().all(|class| [0, 2].contains(class));
            assert!(whole, "{:?}", kept.classes);
        }
        let dir = folder(
            &["cat/1.png", "cta/2.png"],
            &[("cat/notes.txt", "x".into())],
        );
        let error = format!("{:#}", read(dir.path(), false).unwrap_err());
        assert!(
            error.contains("file 3: ") && error.contains("2.png"),
            "{error}"
        );
        let kept = read(dir.path(), true).unwrap();
        assert_eq!(
            (files(&kept), kept.images.skipped.len()),
            (vec!["1.png".into()], 2)
        );
    }

    #[test]
    fn what_holds_no_classes_is_refused() {
        let table = ("t.csv", "image,caption\na.png,red\n".to_string());
        let dir = folder(&["a.png"], &[table, ("list.json", "{}".into())]);
        fs::create_dir(dir.path().join("empty")).unwrap();
        fs::create_dir(dir.path().join("empty/cat")).unwrap();
        for (name, expected) in [
            ("absent", "cannot read"),
            ("list.json", "neither a folder"),
            ("a.png", "neither a folder"),
            ("t.csv", "a column class, label"),
            ("empty/cat", "holds no folders"),
            ("empty", "gives no usable image of a class"),
        ] {
            let error = format!("{:#}", read(&dir.path().join(name), false).unwrap_err());
            assert!(error.contains(expected) && error.contains(name), "{error}");
        }
    }
}
