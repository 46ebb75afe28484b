//! The forms in which questions are distributed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{AnswerList, Question, Reading};
use crate::data::collection::Split;
use crate::data::listing::{Element, Elements, Place, open, read_json};
use crate::data::table::split_of;
use crate::words::shown;

/// The parts of VQA v2 whose answers are public.
pub(super) const SUBSETS: [&str; 2] = ["train2014", "val2014"];
/// ALBEF's lists, and what they are for.
pub(super) const ALBEF_FILES: [(&str, Split); 3] = [
    ("vqa_train.json", Split::Train),
    ("vg_qa.json", Split::Train),
    ("vqa_val.json", Split::Validation),
];
/// How many training questions of VQA v2 have an answer most often, for it to be on the list.
const LEAST_OF_VQA: usize = 9;

/// Where VQA v2 keeps the questions of a subset.
pub(super) fn vqa_questions(subset: &str) -> String {
    format!("v2_OpenEnded_mscoco_{subset}_questions.json")
}

/// A question in this project's own form.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::data) struct Row {
    pub image: String,
    pub question: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, f32>,
    #[serde(default)]
    pub kind: String,
    pub split: String,
}

impl Element for Row {
    const MANY: &'static str = "questions";
}

#[derive(Deserialize)]
struct OwnFile {
    #[serde(default)]
    answers: Option<Vec<String>>,
    questions: Elements<Row>,
}

/// Reads this project's own form.
pub(super) fn own(file: &Path, reading: &mut Reading) -> Result<AnswerList> {
    let listing: OwnFile = read_json(file, "a file of questions")?;
    let list = match listing.answers {
        Some(answers) => closed(file, answers)?,
        None => AnswerList::Open { least: 0 },
    };
    let folder = file.parent().unwrap_or(Path::new(""));
    let parse = |row: Row| {
        let answers = match (row.answer, row.answers.is_empty()) {
            (Some(answer), true) => vec![(answer, 1.0)],
            (None, false) => row.answers.into_iter().collect(),
            (None, true) => return Err("it has no answer".into()),
            (Some(_), false) => return Err("it has both `answer` and `answers`".into()),
        };
        let split = Split::from_name(&row.split)
            .ok_or_else(|| format!("unknown split {:?}; expected train, val or test", row.split))?;
        if row.image.trim().is_empty() {
            return Err("the image path is blank".into());
        }
        let mut question = question(folder.join(row.image), &row.question, answers, split)?;
        question.kind = row.kind;
        Ok(question)
    };
    let items = parsed(file, "questions", listing.questions, &list, reading, parse)?;
    reading.add(file, items)?;
    Ok(list)
}

/// A question, its answer, and the number of its image.
#[derive(Deserialize)]
struct EasyRow(String, String, u64);

impl Element for EasyRow {
    const MANY: &'static str = "questions";
}

/// Reads the folder `data` of easy-VQA.
pub(super) fn easy_vqa(folder: &Path, reading: &mut Reading) -> Result<AnswerList> {
    let file = folder.join("answers.txt");
    let text = io::read_to_string(open(&file)?);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let answers = text.lines().filter(|line| !line.trim().is_empty());
    let list = closed(&file, answers.map(String::from).collect())?;
    for split in [Split::Train, Split::Test] {
        let file = folder.join(split.name()).join("questions.json");
        let listing: Elements<EasyRow> = read_json(&file, "a list of easy-VQA")?;
        let parse = |EasyRow(text, answer, image): EasyRow| {
            let name = format!("{image}.png");
            let split = match (split, split_of(&name)) {
                (Split::Train, Split::Validation) => Split::Validation,
                _ => split,
            };
            let image = file.with_file_name("images").join(name);
            let mut question = question(image, &text, vec![(answer, 1.0)], split)?;
            question.kind = match question.answers[0].0.as_str() {
                "yes" | "no" => "yes/no".into(),
                "circle" | "rectangle" | "triangle" => "shape".into(),
                _ => "colour".into(),
            };
            Ok(question)
        };
        let items = parsed(&file, "", listing, &list, reading, parse)?;
        reading.add(&file, items)?;
    }
    Ok(list)
}

#[derive(Deserialize)]
struct VqaQuestion {
    question_id: u64,
    image_id: u64,
    question: String,
}

impl Element for VqaQuestion {
    const MANY: &'static str = "questions";
}

#[derive(Deserialize)]
struct VqaQuestions {
    questions: Elements<VqaQuestion>,
}

#[derive(Deserialize)]
struct VqaAnnotation {
    question_id: u64,
    answers: Vec<VqaAnswer>,
    answer_type: String,
}

#[derive(Deserialize)]
struct VqaAnswer {
    answer: String,
}

impl Element for VqaAnnotation {
    const MANY: &'static str = "annotations";
}

#[derive(Deserialize)]
struct VqaAnnotations {
    annotations: Elements<VqaAnnotation>,
}

/// Reads subsets of VQA v2.
pub(super) fn vqa(folder: &Path, subsets: &[&str], reading: &mut Reading) -> Result<AnswerList> {
    let list = AnswerList::Open {
        least: LEAST_OF_VQA,
    };
    for subset in subsets {
        let file = folder.join(format!("v2_mscoco_{subset}_annotations.json"));
        let listing: VqaAnnotations = read_json(&file, "a file of VQA annotations")?;
        let mut known = HashMap::new();
        for (index, annotation) in listing.annotations.0.into_iter().enumerate() {
            let place = Place::Element("annotations", index);
            match annotation {
                Ok(annotation) => {
                    let id = annotation.question_id;
                    if known.insert(id, annotation).is_some() {
                        let reason = format!("question {id} is annotated before");
                        reading.faults.report(&file, place, reason)?;
                    }
                }
                Err(reason) => reading.faults.report(&file, place, reason)?,
            }
        }
        let file = folder.join(vqa_questions(subset));
        let listing: VqaQuestions = read_json(&file, "a file of VQA questions")?;
        let split = if *subset == "train2014" {
            Split::Train
        } else {
            Split::Validation
        };
        let parse = |row: VqaQuestion| {
            let id = row.question_id;
            let annotation = known
                .remove(&id)
                .ok_or_else(|| format!("question {id} has no annotation of its own"))?;
            let name = format!("COCO_{subset}_{:012}.jpg", row.image_id);
            let answers = annotation.answers.into_iter().map(|answer| answer.answer);
            let answers = shares(answers.collect());
            let mut question = question(
                folder.join(subset).join(name),
                &row.question,
                answers,
                split,
            )?;
            question.kind = annotation.answer_type;
            Ok(question)
        };
        let items = parsed(&file, "questions", listing.questions, &list, reading, parse)?;
        reading.add(&file, items)?;
    }
    Ok(list)
}

#[derive(Deserialize)]
struct AlbefRow {
    image: String,
    question: String,
    answer: AlbefAnswer,
    #[serde(default)]
    dataset: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AlbefAnswer {
    One(String),
    Several(Vec<String>),
}

impl Element for AlbefRow {
    const MANY: &'static str = "questions";
}

/// Reads ALBEF's lists.
pub(super) fn albef(files: &[PathBuf], reading: &mut Reading) -> Result<AnswerList> {
    let list = AnswerList::Open {
        least: LEAST_OF_VQA,
    };
    for file in files {
        let name = file.file_name().unwrap_or_default();
        let known = ALBEF_FILES.iter().find(|(known, _)| name == *known);
        let split = known.map_or(Split::Train, |&(_, split)| split);
        let listing: Elements<AlbefRow> = read_json(file, "a list of ALBEF's questions")?;
        let parse = |row: AlbefRow| {
            let mut answers = match row.answer {
                AlbefAnswer::One(answer) => vec![(answer, 1.0)],
                AlbefAnswer::Several(answers) => shares(answers),
            };
            if row.dataset == "vg" {
                answers.iter_mut().for_each(|(_, share)| *share *= 0.5);
            }
            let mut question = question(
                file.with_file_name(row.image),
                &row.question,
                answers,
                split,
            )?;
            question.kind = row.dataset;
            Ok(question)
        };
        let items = parsed(file, "", listing, &list, reading, parse)?;
        reading.add(file, items)?;
    }
    Ok(list)
}

/// Each different answer with the share of those who gave it.
fn shares(given: Vec<String>) -> Vec<(String, f32)> {
    let people = given.len();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for answer in given {
        *times.entry(answer.trim().to_owned()).or_default() += 1;
    }
    let share = |(answer, times)| (answer, times as f32 / people as f32);
    times.into_iter().map(share).collect()
}

/// A question at no place yet, or why it is refused.
fn question(
    image: PathBuf,
    question: &str,
    answers: Vec<(String, f32)>,
    split: Split,
) -> Result<Question, String> {
    let question = question.trim();
    if question.is_empty() {
        return Err("the question is blank".into());
    }
    if answers.is_empty() {
        return Err("it has no answer".into());
    }
    let mut seen = BTreeSet::new();
    let mut trimmed = Vec::with_capacity(answers.len());
    for (answer, share) in answers {
        let answer = answer.trim().to_owned();
        if answer.is_empty() {
            return Err("an answer is blank".into());
        }
        if !(share > 0.0 && share <= 1.0) {
            return Err(format!(
                "answer {answer:?} has the share {share}; it must lie in (0, 1]"
            ));
        }
        if !seen.insert(answer.clone()) {
            return Err(format!("answer {answer:?} is given twice"));
        }
        trimmed.push((answer, share));
    }
    let sum: f32 = trimmed.iter().map(|(_, share)| share).sum();
    if sum > 1.001 {
        return Err(format!(
            "the shares of its answers sum to {sum}, more than 1"
        ));
    }
    trimmed.sort_by(|(a, s), (b, t)| t.total_cmp(s).then_with(|| a.cmp(b)));
    Ok(Question {
        image,
        question: question.to_owned(),
        answers: trimmed,
        kind: String::new(),
        split,
        file: 0,
        place: Place::Element("", 0),
    })
}

/// The good questions of an array, each with its place; the others are reported.
fn parsed<T>(
    file: &Path,
    array: &'static str,
    elements: Elements<T>,
    list: &AnswerList,
    reading: &mut Reading,
    mut parse: impl FnMut(T) -> Result<Question, String>,
) -> Result<Vec<Question>> {
    let mut items = Vec::with_capacity(elements.0.len());
    for (index, element) in elements.0.into_iter().enumerate() {
        let place = Place::Element(array, index);
        match element.and_then(&mut parse) {
            Err(reason) => reading.faults.report(file, place, reason)?,
            Ok(mut question) => {
                question.place = place;
                let mut answers = question.answers.iter();
                match answers.find(|(answer, _)| !list.allows(answer)) {
                    None => items.push(question),
                    Some((answer, _)) => {
                        let reason = format!("{answer:?} is not on the closed list of answers");
                        let split = Some(question.split);
                        reading.faults.report_of(split, file, place, reason)?;
                    }
                }
            }
        }
    }
    Ok(items)
}

/// The closed list of a file, checked.
fn closed(file: &Path, answers: Vec<String>) -> Result<AnswerList> {
    let mut list = BTreeSet::new();
    for (index, answer) in answers.into_iter().enumerate() {
        let answer = answer.trim().to_owned();
        let place = || format!("{}, answers[{index}]", file.display());
        ensure!(!answer.is_empty(), "{}: the answer is blank", place());
        ensure!(
            !list.contains(&answer),
            "{}: {:?} is listed before",
            place(),
            shown(&answer)
        );
        list.insert(answer);
    }
    ensure!(
        !list.is_empty(),
        "{}: the list of answers is empty",
        file.display()
    );
    Ok(AnswerList::Closed(list))
}

#[cfg(test)]
mod tests;
