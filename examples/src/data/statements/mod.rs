//! Statements about two images, true or false (natural language for visual reasoning).

mod examples;
mod layouts;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use examples::{StatedPair, StatedPairs};
pub(super) use layouts::Row;

use super::collection::Split;
use super::listing::{Faults, Listed, Place, Skipped, check_images, fingerprint, indices};

/// A statement about two images.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The left and the right image.
    pub images: [PathBuf; 2],
    /// What is stated; not blank.
    pub text: String,
    /// Whether it is true.
    pub label: bool,
    /// What kind of statement it is, such as `count`: accuracies are reported by kind. May be
    /// empty.
    pub kind: String,
    /// What the statement is for.
    pub split: Split,
    /// The index of its file in [`Statements::files`].
    pub file: usize,
    /// Where in that file it was read.
    pub place: Place,
}

impl Listed for Statement {
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

/// Statements read from one place.
#[derive(Clone, Debug)]
pub struct Statements {
    /// The files that list them.
    pub files: Vec<PathBuf>,
    /// The statements, in the order of the files.
    pub items: Vec<Statement>,
    /// What was left out; empty unless reading skipped bad rows and images.
    pub skipped: Vec<Skipped>,
}

impl Statements {
    /// Reads the statements at `path`, which is either of
    ///
    /// - a JSON file of this form, or a folder with one called `statements.json`; `kind` is
    ///   optional, and images are sought relative to the file:
    ///   ```json
    ///   {"statements": [
    ///     {"images": ["images/000001.png", "images/000007.png"], "label": true, "kind": "count",
    ///      "text": "Both images together show exactly five shapes.", "split": "train"}]}
    ///   ```
    /// - NLVR2 (Suhr et al. 2019): a folder with `train.json`, `dev.json` and `test1.json` (one or
    ///   more of them) of JSON lines with `sentence`, `label` and `identifier`. Statement
    ///   `dev-840-0-0` is about `dev-840-0-img0.png` and `dev-840-0-img1.png`, sought in `images/`
    ///   and in the folder of the split, `dev/` here, beside the list or in `images/`; in those
    ///   also in the folder that `directory` names, as the training images are distributed. `dev`
    ///   is the validation split, `test1` the test split;
    /// - NLVR (Suhr et al. 2017): a folder with `train/train.json`, `dev/dev.json` and
    ///   `test/test.json` (one or more of them) of JSON lines that also have `directory`. A line
    ///   stands for six statements, about the pictures
    ///   `SPLIT/images/DIRECTORY/SPLIT-IDENTIFIER-{0..5}.png`, which show the same boxes in other
    ///   orders. Since a picture shows all boxes, it is both images of its statement.
    ///
    /// With `skip_bad`, bad rows and images are left out and the reasons kept in
    /// [`skipped`](Self::skipped).
    ///
    /// # Errors
    ///
    /// If `path` holds none of these, or several; if a file cannot be parsed; if there is no
    /// statement; and, without `skip_bad`, at the first bad statement or image that cannot be
    /// decoded.
    pub fn read(path: impl AsRef<Path>, skip_bad: bool) -> Result<Self> {
        let path = path.as_ref();
        let mut faults = Faults::new(skip_bad);
        let (mut files, mut items) = (Vec::new(), Vec::new());
        for (file, layout) in locate(path)? {
            let mut found = match layout {
                Layout::Own => layouts::own(&file, &mut faults)?,
                Layout::Nlvr2(split) => layouts::nlvr2(&file, split, &mut faults)?,
                Layout::Nlvr(split) => layouts::nlvr(&file, split, &mut faults)?,
            };
            for item in &mut found {
                item.file = files.len();
            }
            items.extend(check_images(&file, found, &mut faults)?);
            files.push(file);
        }
        let wanted = "usable statement about two images";
        let skipped = faults.finish(path, items.is_empty(), wanted)?;
        Ok(Self {
            files,
            items,
            skipped,
        })
    }

    /// Indices of the statements of `split`, ascending.
    pub fn indices(&self, split: Split) -> Vec<usize> {
        indices(&self.items, split)
    }

    /// The texts of `split`.
    pub fn texts(&self, split: Split) -> impl Iterator<Item = &str> {
        let items = self.items.iter().filter(move |item| item.split == split);
        items.map(|item| item.text.as_str())
    }

    /// The kinds of its statements, sorted.
    pub fn kinds(&self) -> Vec<&str> {
        let kinds: BTreeSet<_> = self.items.iter().map(|item| item.kind.as_str()).collect();
        kinds.into_iter().collect()
    }

    /// SHA-256 of everything but pixels, in hexadecimal: two sets share it exactly if they have the
    /// same statements about images of the same names, with the same labels, kinds and splits, in
    /// the same order.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.items.iter().map(|item| {
            let [left, right] = item.images.each_ref().map(|image| {
                let name = image.file_name().unwrap_or_default();
                name.as_encoded_bytes()
            });
            let label = if item.label { "true" } else { "false" };
            let texts = [item.split.name(), &item.kind, label, &item.text].map(str::as_bytes);
            [left, right].into_iter().chain(texts)
        }))
    }

    /// "`FILE`, `PLACE`" of a statement, for messages.
    pub fn place(&self, index: usize) -> String {
        let item = &self.items[index];
        format!("{}, {}", self.files[item.file].display(), item.place)
    }
}

/// How a file lists statements.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Own,
    Nlvr2(Split),
    Nlvr(Split),
}

/// The files of NLVR2.
const NLVR2_FILES: [(&str, Split); 3] = [
    ("train.json", Split::Train),
    ("dev.json", Split::Validation),
    ("test1.json", Split::Test),
];
/// The files of NLVR.
const NLVR_FILES: [(&str, Split); 3] = [
    ("train/train.json", Split::Train),
    ("dev/dev.json", Split::Validation),
    ("test/test.json", Split::Test),
];

/// The files in `path` that list statements.
fn locate(path: &Path) -> Result<Vec<(PathBuf, Layout)>> {
    let expected = "expected a statements.json, or the folder of NLVR2 or NLVR";
    let metadata = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}; {expected}", path.display()))?;
    if metadata.is_file() {
        if !path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("json"))
        {
            bail!("{} is no .json; {expected}", path.display());
        }
        // A list of NLVR lies in the folder of its split.
        let named = |(name, split): (&str, Split), layout: fn(Split) -> Layout| {
            path.ends_with(name).then(|| layout(split))
        };
        let nlvr = NLVR_FILES
            .into_iter()
            .find_map(|file| named(file, Layout::Nlvr));
        let nlvr2 = || {
            NLVR2_FILES
                .into_iter()
                .find_map(|file| named(file, Layout::Nlvr2))
        };
        let layout = nlvr.or_else(nlvr2).unwrap_or(Layout::Own);
        return Ok(vec![(path.to_owned(), layout)]);
    }
    if !metadata.is_dir() {
        bail!(
            "{} is neither a file nor a folder; {expected}",
            path.display()
        );
    }
    let present = |files: [(&str, Split); 3], layout: fn(Split) -> Layout| {
        let files = files.map(|(name, split)| (path.join(name), layout(split)));
        let files = files.into_iter().filter(|(file, _)| file.is_file());
        files.collect::<Vec<_>>()
    };
    let own = present([("statements.json", Split::Train); 3], |_| Layout::Own);
    let mut found = [
        own.into_iter().take(1).collect(),
        present(NLVR2_FILES, Layout::Nlvr2),
        present(NLVR_FILES, Layout::Nlvr),
    ];
    let lists: Vec<_> = found.iter().filter_map(|files| files.first()).collect();
    if lists.len() > 1 {
        let names: Vec<_> = lists
            .iter()
            .map(|(file, _)| file.display().to_string())
            .collect();
        bail!(
            "{} holds several lists of statements; pass one of them: {}",
            path.display(),
            names.join(", ")
        );
    }
    match found.iter_mut().find(|files| !files.is_empty()) {
        Some(files) => Ok(std::mem::take(files)),
        None => bail!("{} holds no list of statements; {expected}", path.display()),
    }
}

#[cfg(test)]
mod tests;
