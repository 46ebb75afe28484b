//! Questions about images, with their answers (visual question answering).
//!
//! **Answers.** A question has one answer or several, each with its share: 0.3 if three of ten
//! people gave it. [`Questions::answers`] is the list from which an answer is chosen in tests, the
//! most frequent in training first.
//!
//! - If the source gives a closed list, that is it. An answer that is not on it is a bad row in
//!   every split, the test split too: no model could give it, and the count of right answers would
//!   be too low without a word.
//! - Otherwise the list holds the answers of the training questions (of all, if there are no
//!   training questions). Answers of other splits that no training question has are kept, since
//!   the list is no part of the data: such questions count as answered wrongly.

mod examples;
mod layouts;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use examples::{Answer, Asked, Choices, QuestionExamples, credit};
pub(super) use layouts::Row;
use layouts::{albef, easy_vqa, own, vqa};

use super::collection::Split;
use super::listing::{Faults, Listed, Place, Skipped, check_images, fingerprint, indices};

/// A question about an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The image file.
    pub image: PathBuf,
    /// What is asked; not blank.
    pub question: String,
    /// At least one answer, each with its share in (0, 1], the largest first. No two are equal.
    pub answers: Vec<(String, f32)>,
    /// What kind of question it is, such as `count`: accuracies are reported by kind. May be empty.
    pub kind: String,
    /// What the question is for.
    pub split: Split,
    /// The index of its file in [`Questions::files`].
    pub file: usize,
    /// Where in that file it was read.
    pub place: Place,
}

impl Listed for Question {
    type Image = PathBuf;

    fn images(&self) -> &[PathBuf] {
        std::slice::from_ref(&self.image)
    }

    fn split(&self) -> Split {
        self.split
    }

    fn place(&self) -> Place {
        self.place
    }
}

/// Questions read from one place.
#[derive(Clone, Debug)]
pub struct Questions {
    /// The files that list them.
    pub files: Vec<PathBuf>,
    /// The questions, in the order of the files.
    pub items: Vec<Question>,
    /// The answers to choose from, the most frequent in training first.
    pub answers: Vec<String>,
    /// What was left out; empty unless reading skipped bad rows and images.
    pub skipped: Vec<Skipped>,
}

impl Questions {
    /// Reads the questions at `path`, which is either of
    ///
    /// - a JSON file of this form, or a folder with one called `questions.json`; `answers` is
    ///   optional, a question has either `answer` or `answers` with shares, `kind` is optional, and
    ///   images are sought relative to the file:
    ///   ```json
    ///   {"answers": ["red", "orange", "2"], "questions": [
    ///     {"image": "images/000001.png", "question": "What colour is the disc?",
    ///      "answers": {"red": 0.7, "orange": 0.3}, "kind": "colour", "split": "train"},
    ///     {"image": "images/000002.png", "question": "How many discs are there?",
    ///      "answer": "2", "kind": "count", "split": "val"}]}
    ///   ```
    /// - the folder of [easy-VQA](https://pypi.org/project/easy-vqa) (as a package, or its `data`):
    ///   `answers.txt`, `train/questions.json`, `train/images/…`, `test/…`. It has no validation
    ///   questions: those of about a tenth of the training images are, chosen by a hash of the
    ///   image's name. Kinds are `yes/no`, `colour` and `shape`, by the answer;
    /// - the folder of VQA v2 with `v2_OpenEnded_mscoco_{train,val}2014_questions.json`,
    ///   `v2_mscoco_{train,val}2014_annotations.json` and the images in `train2014/` and
    ///   `val2014/`. `val2014` is the validation split here (ALBEF trains on it too and tests on a
    ///   server: the answers of the test split are not public). Kinds are the answer types. The
    ///   list of answers has those that at least nine training questions have most often;
    /// - ALBEF's lists `vqa_train.json` and `vqa_val.json`, or a folder with them: images relative
    ///   to it, an answer of Visual Genome with half of the share, as ALBEF weighs it.
    ///
    /// With `skip_bad`, bad rows and images are left out and the reasons kept in
    /// [`skipped`](Self::skipped).
    ///
    /// # Errors
    ///
    /// If `path` holds none of these, or several; if a file cannot be parsed, or its list of
    /// answers is empty, has a blank or one twice; if there is no question; and, without
    /// `skip_bad`, at the first bad question or image that cannot be decoded.
    pub fn read(path: impl AsRef<Path>, skip_bad: bool) -> Result<Self> {
        let path = path.as_ref();
        let mut reading = Reading {
            files: Vec::new(),
            items: Vec::new(),
            faults: Faults::new(skip_bad),
        };
        let list = match locate(path)? {
            Source::Own(file) => own(&file, &mut reading)?,
            Source::EasyVqa(folder) => easy_vqa(&folder, &mut reading)?,
            Source::Vqa(folder, subsets) => vqa(&folder, &subsets, &mut reading)?,
            Source::Albef(files) => albef(&files, &mut reading)?,
        };
        let Reading {
            files,
            items,
            faults,
        } = reading;
        let skipped = faults.finish(path, items.is_empty(), "usable question about an image")?;
        Ok(Self {
            answers: list.sorted(&items),
            files,
            items,
            skipped,
        })
    }

    /// Indices of the questions of `split`, ascending.
    pub fn indices(&self, split: Split) -> Vec<usize> {
        indices(&self.items, split)
    }

    /// All questions of `split` and their answers, as text.
    pub fn texts(&self, split: Split) -> impl Iterator<Item = &str> {
        let items = self.items.iter().filter(move |item| item.split == split);
        items.flat_map(|item| {
            let answers = item.answers.iter().map(|(answer, _)| answer.as_str());
            std::iter::once(item.question.as_str()).chain(answers)
        })
    }

    /// The kinds of its questions, sorted.
    pub fn kinds(&self) -> Vec<&str> {
        let kinds: BTreeSet<_> = self.items.iter().map(|item| item.kind.as_str()).collect();
        kinds.into_iter().collect()
    }

    /// SHA-256 of everything but pixels, in hexadecimal: two sets share it exactly if they have the
    /// same questions about images of the same names, with the same answers, shares, kinds and
    /// splits, in the same order, and the same list of answers.
    pub fn fingerprint(&self) -> String {
        let questions = self.items.iter().map(|item| {
            let name = item.image.file_name().unwrap_or_default();
            let texts = [item.split.name(), &item.kind, &item.question].map(|text| text.into());
            let mut fields: Vec<Vec<u8>> = vec![name.as_encoded_bytes().to_vec()];
            fields.extend(texts);
            for (answer, share) in &item.answers {
                fields.extend([answer.as_bytes().to_vec(), share.to_le_bytes().to_vec()]);
            }
            fields
        });
        let answers = self
            .answers
            .iter()
            .map(|answer| answer.clone().into_bytes());
        fingerprint(questions.chain([answers.collect()]))
    }

    /// "`FILE`, `PLACE`" of a question, for messages.
    pub fn place(&self, index: usize) -> String {
        let item = &self.items[index];
        format!("{}, {}", self.files[item.file].display(), item.place)
    }
}

/// What was read so far.
struct Reading {
    files: Vec<PathBuf>,
    items: Vec<Question>,
    faults: Faults,
}

impl Reading {
    /// Adds the questions of one file, but for those whose image cannot be decoded.
    fn add(&mut self, file: &Path, mut items: Vec<Question>) -> Result<()> {
        for item in &mut items {
            item.file = self.files.len();
        }
        self.items
            .extend(check_images(file, items, &mut self.faults)?);
        self.files.push(file.to_owned());
        Ok(())
    }
}

/// From where the list of answers comes.
enum AnswerList {
    /// From the source.
    Closed(BTreeSet<String>),
    /// From the training questions: those that are the most frequent answer of `least` of them, if
    /// there are any; else all.
    Open { least: usize },
}

impl AnswerList {
    /// Whether an answer may be in the data.
    fn allows(&self, answer: &str) -> bool {
        match self {
            Self::Closed(answers) => answers.contains(answer),
            Self::Open { .. } => true,
        }
    }

    /// The list, the most frequent in training first, equally frequent ones by the alphabet.
    fn sorted(self, items: &[Question]) -> Vec<String> {
        let is_trained = items.iter().any(|item| item.split == Split::Train);
        let items = || {
            let items = items.iter();
            items.filter(move |item| !is_trained || item.split == Split::Train)
        };
        let mut shares: BTreeMap<&str, f64> = BTreeMap::new();
        for (answer, share) in items().flat_map(|item| &item.answers) {
            *shares.entry(answer).or_default() += f64::from(*share);
        }
        let mut answers: Vec<String> = match self {
            Self::Closed(answers) => answers.into_iter().collect(),
            Self::Open { least } => {
                let mut times: HashMap<&str, usize> = HashMap::new();
                for item in items() {
                    *times.entry(&item.answers[0].0).or_default() += 1;
                }
                let is_frequent = |answer: &&str| times.get(answer).copied().unwrap_or(0) >= least;
                let mut frequent: Vec<_> = shares.keys().copied().filter(is_frequent).collect();
                if frequent.is_empty() {
                    frequent = shares.keys().copied().collect();
                }
                frequent.into_iter().map(String::from).collect()
            }
        };
        let share = |answer: &String| shares.get(answer.as_str()).copied().unwrap_or(0.0);
        answers.sort_by(|a, b| share(b).total_cmp(&share(a)).then_with(|| a.cmp(b)));
        answers
    }
}

/// Questions in one of the forms that are known.
enum Source {
    Own(PathBuf),
    EasyVqa(PathBuf),
    /// The folder, and the subsets that it has.
    Vqa(PathBuf, Vec<&'static str>),
    Albef(Vec<PathBuf>),
}

/// The questions in `path`.
fn locate(path: &Path) -> Result<Source> {
    let expected = "expected a questions.json, or the folder of easy-VQA, of VQA v2 or of ALBEF's \
                    vqa_train.json";
    let metadata = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}; {expected}", path.display()))?;
    let is_named = |name: &str| path.file_name().is_some_and(|found| found == name);
    let folder = path.parent().unwrap_or(Path::new(""));
    if metadata.is_file() {
        let subset = layouts::SUBSETS.into_iter();
        let mut subset = subset.filter(|subset| is_named(&layouts::vqa_questions(subset)));
        if let Some(subset) = subset.next() {
            return Ok(Source::Vqa(folder.to_owned(), vec![subset]));
        }
        if layouts::ALBEF_FILES.iter().any(|(name, _)| is_named(name)) {
            return Ok(Source::Albef(vec![path.to_owned()]));
        }
        if path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("json"))
        {
            return Ok(Source::Own(path.to_owned()));
        }
        bail!("{} is no .json; {expected}", path.display());
    }
    if !metadata.is_dir() {
        bail!(
            "{} is neither a file nor a folder; {expected}",
            path.display()
        );
    }
    let mut found: Vec<(PathBuf, Source)> = Vec::new();
    let own = path.join("questions.json");
    if own.is_file() {
        found.push((own.clone(), Source::Own(own)));
    }
    for folder in ["", "data", "easy_vqa/data"].map(|sub| path.join(sub)) {
        let list = folder.join("train/questions.json");
        if list.is_file() {
            found.push((list, Source::EasyVqa(folder)));
        }
    }
    let mut subsets = layouts::SUBSETS.to_vec();
    subsets.retain(|subset| path.join(layouts::vqa_questions(subset)).is_file());
    if let Some(first) = subsets.first() {
        let list = path.join(layouts::vqa_questions(first));
        found.push((list, Source::Vqa(path.to_owned(), subsets)));
    }
    let mut lists: Vec<_> = layouts::ALBEF_FILES
        .iter()
        .map(|(name, _)| path.join(name))
        .collect();
    lists.retain(|list| list.is_file());
    if let Some(first) = lists.first() {
        found.push((first.clone(), Source::Albef(lists)));
    }
    let names: Vec<_> = found
        .iter()
        .map(|(list, _)| list.display().to_string())
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some((_, source)), true) => Ok(source),
        (None, _) => bail!("{} holds no list of questions; {expected}", path.display()),
        (Some(_), false) => bail!(
            "{} holds several lists of questions; pass one of them: {}",
            path.display(),
            names.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests;
