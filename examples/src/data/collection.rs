//! A collection of captioned images in memory: paths and captions, the pixels stay on disk.
//!
//! **When images are checked.** [`Collection::read`] decodes every image once, in parallel: a
//! damaged one is found before the first step, not hours later, and no table of results counts
//! images that were never seen. That takes some milliseconds of a core for a photograph, so about
//! a minute for MS-COCO on eight cores, once a run.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::listing::{Faults, Listed, ListedImage, check_images, entries, fingerprint, indices};
pub use super::listing::{Place, Skipped};
use super::picture::Picture;
use super::scenes::Scene;
use super::shards::Shards;
use super::{coco, karpathy, table};

/// What part of a collection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Pairs to learn from.
    Train,
    /// Pairs to choose settings by.
    Validation,
    /// Pairs to report on.
    Test,
}

impl Split {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The split called `name` in a file, in any of the usual spellings.
    ///
    /// `restval` is MS-COCO's name for validation images that the literature trains on.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.trim().to_lowercase().as_str() {
            "train" | "training" | "restval" => Some(Self::Train),
            "val" | "valid" | "validation" | "dev" => Some(Self::Validation),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }

    /// The name this split has in Karpathy's files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "val",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An image with its captions.
#[derive(Clone, Debug)]
pub struct Example {
    /// The image.
    pub image: Picture,
    /// At least one caption, none blank.
    pub captions: Vec<String>,
    /// What the example is for.
    pub split: Split,
    /// Where the example was read.
    pub place: Place,
    /// What the image shows, where that is known.
    pub scene: Option<Scene>,
}

impl Example {
    /// A key that two examples share exactly if their captions say the same; `None` where that is
    /// not known.
    pub fn meaning(&self) -> Option<String> {
        self.scene.as_ref().map(Scene::meaning)
    }
}

impl ListedImage for Picture {
    fn path(&self) -> &Path {
        self.path()
    }

    fn decode(&self) -> Result<RgbImage> {
        self.decode()
    }
}

impl Listed for Example {
    type Image = Picture;

    fn images(&self) -> &[Picture] {
        std::slice::from_ref(&self.image)
    }

    fn split(&self) -> Split {
        self.split
    }

    fn place(&self) -> Place {
        self.place
    }

    fn file(&self) -> Option<&Path> {
        Some(self.image.shard()?.0)
    }
}

/// Captioned images read from one file, or from shards.
#[derive(Clone, Debug)]
pub struct Collection {
    /// The file that lists the images, or what names the shards.
    pub file: PathBuf,
    /// The images, in the order of the file or of the shards.
    pub examples: Vec<Example>,
    /// What was left out; empty unless reading skipped bad rows and images.
    pub skipped: Vec<Skipped>,
}

impl Collection {
    /// Reads the captioned images at `path`, which is either of
    ///
    /// - a Karpathy file (`dataset*.json`, as Flickr30K and MS-COCO are distributed), or a folder
    ///   that holds one;
    /// - COCO's own annotations (`captions_train2017.json`);
    /// - a table (`.csv`, `.tsv`) of image path and caption, or a folder that holds one;
    /// - WebDataset shards (`.tar`) or Parquet files with images in them: one, those that braces
    ///   stand for (`shards/{00000..00012}.tar`), or a folder of them, or of folders of them.
    ///
    /// With `skip_bad`, bad rows and images are left out and the reasons kept in
    /// [`skipped`](Self::skipped).
    ///
    /// # Errors
    ///
    /// If `path` holds neither, or more than one; if the file cannot be parsed; if it gives no
    /// example; and, without `skip_bad`, at the first bad row or image that cannot be decoded.
    pub fn read(path: impl AsRef<Path>, skip_bad: bool) -> Result<Self> {
        let mut faults = Faults::new(skip_bad);
        let (file, examples) = match locate(path.as_ref())? {
            Located::Shards(shards) => (path.as_ref().to_owned(), shards.read(&mut faults)?),
            Located::List(file) => {
                let examples = match extension(&file).as_str() {
                    "json" if coco::is_one(&file) => coco::read(&file, &mut faults)?,
                    "json" => karpathy::read(&file, &mut faults)?,
                    _ => table::read(&file, table::CAPTIONS, &mut faults)?,
                };
                (file, examples)
            }
        };
        let examples = check_images(&file, examples, &mut faults)?;
        let wanted = "usable image with a caption";
        let skipped = faults.finish(&file, examples.is_empty(), wanted)?;
        Ok(Self {
            file,
            examples,
            skipped,
        })
    }

    /// Indices of the examples of `split`, ascending.
    pub fn indices(&self, split: Split) -> Vec<usize> {
        indices(&self.examples, split)
    }

    /// All captions of `split`, image by image.
    pub fn captions(&self, split: Split) -> impl Iterator<Item = &str> {
        self.examples
            .iter()
            .filter(move |example| example.split == split)
            .flat_map(|example| example.captions.iter().map(String::as_str))
    }

    /// For each of `indices` an id that two share exactly if their examples have the same
    /// meaning; examples of unknown meaning share it with none.
    pub(crate) fn meanings(&self, indices: &[usize]) -> Vec<usize> {
        let mut known = HashMap::new();
        indices
            .iter()
            .enumerate()
            .map(|(row, &index)| match self.examples[index].meaning() {
                Some(meaning) => *known.entry(meaning).or_insert(row),
                None => row,
            })
            .collect()
    }

    /// For each of `indices`, ascending, the number of the shard that has it, of those that can be
    /// read on their own; `None` if the images are files of their own.
    pub(crate) fn shards(&self, indices: &[usize]) -> Option<Vec<usize>> {
        let shard = |index: &usize| self.examples[*index].image.shard();
        shard(indices.first()?)?;
        let mut number = 0;
        let next = |pair: &[usize]| {
            number += usize::from(shard(&pair[0]) != shard(&pair[1]));
            number
        };
        let others = indices.windows(2).map(next);
        Some(std::iter::once(0).chain(others).collect())
    }

    /// SHA-256 of everything but pixels, in hexadecimal: two collections share it exactly if they
    /// have the same images by name, with the same captions and splits, in the same order, and in
    /// the same shards if they lie in some.
    pub fn fingerprint(&self) -> String {
        let all: Vec<usize> = (0..self.examples.len()).collect();
        let shards = self.shards(&all).unwrap_or_default().into_iter();
        let shards: Vec<_> = shards.map(|shard| (shard as u64).to_le_bytes()).collect();
        fingerprint(self.examples.iter().enumerate().map(|(index, example)| {
            let name = example.image.path().file_name().unwrap_or_default();
            let mut fields = vec![name.as_encoded_bytes(), example.split.name().as_bytes()];
            fields.extend(example.captions.iter().map(String::as_bytes));
            fields.extend(shards.get(index).map(|shard| shard.as_slice()));
            fields
        }))
    }

    /// The image of an example.
    ///
    /// # Errors
    ///
    /// If it cannot be decoded; the message names its place.
    pub(crate) fn decode(&self, index: usize) -> Result<RgbImage> {
        let image = &self.examples[index].image;
        image.decode().with_context(|| self.place(index))
    }

    /// "`FILE`, `PLACE`" of an example, for messages.
    pub(crate) fn place(&self, index: usize) -> String {
        let example = &self.examples[index];
        let file = example.file().unwrap_or(&self.file);
        format!("{}, {}", file.display(), example.place)
    }
}

fn extension(file: &Path) -> String {
    file.extension()
        .map(|e| e.to_string_lossy().to_lowercase())
        .unwrap_or_default()
}

/// Where captioned images are.
enum Located {
    /// In files of their own, which this one lists.
    List(PathBuf),
    Shards(Shards),
}

/// The one file in `path` that lists captioned images, or the shards.
fn locate(path: &Path) -> Result<Located> {
    let expected = "expected a Karpathy folder (with a dataset*.json), COCO's captions_*.json, \
                    a .csv or .tsv table of image path and caption, or .tar or .parquet shards";
    if !path.exists()
        && let Some(shards) = Shards::pattern(path)?
    {
        return Ok(Located::Shards(shards));
    }
    let metadata = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}; {expected}", path.display()))?;
    if metadata.is_file() {
        if let Some(shard) = Shards::file(path) {
            return Ok(Located::Shards(shard));
        }
        return match extension(path).as_str() {
            "json" | "csv" | "tsv" => Ok(Located::List(path.to_owned())),
            _ => bail!(
                "{} is neither .json, .csv nor .tsv; {expected}",
                path.display()
            ),
        };
    }
    if !metadata.is_dir() {
        bail!(
            "{} is neither a file nor a folder; {expected}",
            path.display()
        );
    }
    let files = entries(path)?.into_iter();
    let files: Vec<PathBuf> = files.filter(|file| file.is_file()).collect();
    let is_karpathy = |file: &PathBuf| {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        name.starts_with("dataset") && name.ends_with(".json")
    };
    let is_table = |file: &PathBuf| matches!(extension(file).as_str(), "csv" | "tsv");
    let mut found: Vec<&PathBuf> = files.iter().filter(|file| is_karpathy(file)).collect();
    if found.is_empty() {
        found = files.iter().filter(|file| is_table(file)).collect();
    }
    match found.as_slice() {
        [file] => Ok(Located::List((*file).clone())),
        [] => match Shards::folder(path)? {
            Some(shards) => Ok(Located::Shards(shards)),
            None => bail!("{} holds no list of captions; {expected}", path.display()),
        },
        many => {
            let names: Vec<_> = many.iter().map(|file| file.display().to_string()).collect();
            bail!(
                "{} holds several lists of captions; pass one of them: {}",
                path.display(),
                names.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::scenes::generate;
    use crate::data::testing::{picture, small_config, truncate};

    #[test]
    fn the_error_for_something_else_says_what_a_collection_is() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        picture(&at("a.png"), [0; 3]);
        for (path, expected) in [
            (at("nowhere"), "cannot read"),
            (dir.path().to_owned(), "holds no list of captions"),
            (at("a.png"), "is neither .json, .csv nor .tsv"),
        ] {
            let error = format!("{:#}", Collection::read(&path, false).unwrap_err());
            assert!(
                error.contains(expected) && error.contains("Karpathy"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_folder_with_several_lists_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        picture(&dir.path().join("a.png"), [0; 3]);
        for name in ["one.csv", "two.tsv"] {
            std::fs::write(dir.path().join(name), "a.png\ta\na.png,a\n").unwrap();
        }
        let error = Collection::read(dir.path(), false).unwrap_err().to_string();
        assert!(
            error.contains("one.csv") && error.contains("two.tsv"),
            "{error}"
        );
        assert_eq!(
            Collection::read(dir.path().join("two.tsv"), true)
                .unwrap()
                .examples
                .len(),
            1
        );
        // A Karpathy file goes before tables.
        let json =
            r#"{"images": [{"filename": "a.png", "split": "test", "sentences": [{"raw": "a"}]}]}"#;
        std::fs::write(dir.path().join("dataset.json"), json).unwrap();
        assert_eq!(
            Collection::read(dir.path(), false).unwrap().examples[0].split,
            Split::Test
        );
    }

    #[test]
    fn damaged_images_of_every_split_are_found_or_left_out_at_once() {
        let dir = tempfile::tempdir().unwrap();
        generate(dir.path(), &small_config()).unwrap();
        let images = [3, 41, 50].map(|index| format!("images/{index:06}.png"));
        for image in &images {
            truncate(&dir.path().join(image));
        }
        let error = Collection::read(dir.path(), false).unwrap_err().to_string();
        assert!(error.contains("000003.png"), "{error}");
        let collection = Collection::read(dir.path(), true).unwrap();
        assert_eq!(collection.examples.len(), 54);
        let splits: Vec<_> = collection.skipped.iter().map(|bad| bad.split).collect();
        assert_eq!(splits, Split::ALL.map(Some));
        for (bad, image) in collection.skipped.iter().zip(images) {
            assert!(bad.reason.contains(&image), "{}", bad.reason);
        }
    }

    #[test]
    fn the_fingerprint_is_that_of_names_captions_and_splits_wherever_they_lie() {
        let [a, b] = [(), ()].map(|()| crate::data::testing::Small::new());
        let [mut a, b] = [a, b].map(|small| (*small.collection).clone());
        assert_ne!(a.file, b.file);
        assert_eq!(a.fingerprint(), b.fingerprint());
        a.examples[3].captions[1].push('!');
        assert_ne!(a.fingerprint(), b.fingerprint());
        a.examples = b.examples[1..].to_vec();
        assert_ne!(a.fingerprint(), b.fingerprint());
    }

    #[test]
    fn equal_meanings_get_equal_ids_and_unknown_ones_their_own() {
        let small = crate::data::testing::Small::new();
        let indices = small.collection.indices(Split::Train);
        let numbers = small.collection.meanings(&indices);
        for (a, &i) in indices.iter().enumerate() {
            for (b, &j) in indices.iter().enumerate() {
                let [first, second] =
                    [i, j].map(|index| small.collection.examples[index].meaning().unwrap());
                assert_eq!(numbers[a] == numbers[b], first == second);
            }
        }
        let mut unknown = (*small.collection).clone();
        unknown
            .examples
            .iter_mut()
            .for_each(|example| example.scene = None);
        assert_eq!(unknown.meanings(&indices), (0..40).collect::<Vec<_>>());
    }
}
