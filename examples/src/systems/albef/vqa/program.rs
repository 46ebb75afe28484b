//! What `albef vqa` reads, measures and reports.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow, ensure};
use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::train::Interrupter;
use rayon::prelude::*;

use super::config::VqaConfig;
use super::{Ranked, Vqa};
use crate::console::{say, warn};
use crate::data::{
    Examples, Loader, LoaderConfig, QuestionExamples, Questions, Split, credit, scenes,
};
use crate::number::counted;
use crate::report::{
    Accuracy, AnswerExample, Dataset, KindAccuracy, RunReport, Split as SplitSize,
};
use crate::training::config::{DataConfig, TrainingConfig};
use crate::training::history::History;
use crate::training::inputs::{self, Data};
use crate::training::run::{self, Ended, Options, Program};
use crate::training::system::{System, SystemConfig};

/// Answers shown in a report.
const SHOWN: usize = 12;

/// The questions that a model is tested on.
pub struct QuestionTest {
    examples: QuestionExamples,
    split: Split,
    loader: LoaderConfig,
    /// The answers that are given most often in training: to all questions, and by kind.
    majority: Majority,
}

/// How a model answers the questions of a test.
pub struct Answered {
    /// The answers, in the order of the questions.
    pub given: Vec<Ranked>,
    /// How right each of them is, from 0 to 1.
    pub credits: Vec<f64>,
}

impl Answered {
    /// Accuracy in percent.
    pub fn accuracy(&self) -> f64 {
        percent(self.credits.iter().copied())
    }
}

/// The answers with the greatest shares in training.
struct Majority {
    overall: String,
    by_kind: BTreeMap<String, String>,
}

impl Majority {
    fn new(questions: &Questions) -> Self {
        let mut shares: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        for index in questions.indices(Split::Train) {
            let item = &questions.items[index];
            for (answer, share) in &item.answers {
                *shares.entry((&item.kind, answer)).or_default() += f64::from(*share);
            }
        }
        let mut by_kind: BTreeMap<String, (String, f64)> = BTreeMap::new();
        for ((kind, answer), share) in shares {
            let best = by_kind.entry(kind.into()).or_default();
            if share > best.1 {
                *best = (answer.into(), share);
            }
        }
        let by_kind = by_kind.into_iter();
        Self {
            // The list begins with it.
            overall: questions.answers[0].clone(),
            by_kind: by_kind.map(|(kind, (answer, _))| (kind, answer)).collect(),
        }
    }
}

impl QuestionTest {
    /// The indices of its questions.
    pub fn indices(&self) -> Vec<usize> {
        self.examples.indices(self.split)
    }

    /// The questions that it is a part of.
    pub fn questions(&self) -> &Questions {
        self.examples.questions()
    }

    fn credit(&self, index: usize, answer: &str) -> f64 {
        let answers = self.questions().items[index].answers.iter();
        let mut own = answers.filter(|(other, _)| other == answer);
        own.next().map_or(0.0, |(_, share)| credit(*share))
    }

    /// Accuracy of the most frequent answer of the training split, in percent.
    pub fn majority(&self) -> f64 {
        let indices = self.indices().into_iter();
        percent(indices.map(|index| self.credit(index, &self.majority.overall)))
    }

    /// Accuracy by kind; nothing where all questions are of one.
    fn by_kind(&self, scores: &Answered) -> Vec<KindAccuracy> {
        let mut kinds: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
        for (index, right) in self.indices().into_iter().zip(&scores.credits) {
            let kind = self.questions().items[index].kind.as_str();
            let majority = self.majority.by_kind.get(kind);
            let majority = majority.map_or(0.0, |answer| self.credit(index, answer));
            let (of_majority, of_model) = kinds.entry(kind).or_default();
            of_majority.push(majority);
            of_model.push(*right);
        }
        if kinds.len() < 2 {
            return Vec::new();
        }
        let kinds = kinds
            .into_iter()
            .map(|(kind, (majority, after))| KindAccuracy {
                kind: kind.to_string(),
                count: after.len() as u64,
                majority: percent(majority.into_iter()),
                after: percent(after.into_iter()),
            });
        kinds.collect()
    }

    /// Some questions with their answers: right and wrong ones of every kind, by turns.
    fn shown(&self, scores: &Answered) -> Vec<AnswerExample> {
        let indices = self.indices();
        let mut groups: BTreeMap<(&str, bool), Vec<usize>> = BTreeMap::new();
        for (row, &index) in indices.iter().enumerate() {
            let kind = self.questions().items[index].kind.as_str();
            let is_right = is_right(scores.credits[row]);
            groups.entry((kind, is_right)).or_default().push(row);
        }
        let rounds = 0..SHOWN;
        let by_turns = rounds.flat_map(|round| {
            let groups = groups.values();
            groups.filter_map(move |rows| {
                // Spread over the group, not its first images.
                let step = rows.len().div_ceil(SHOWN);
                rows.get(round * step).copied()
            })
        });
        let mut rows: Vec<usize> = by_turns.take(SHOWN).collect();
        rows.sort_unstable();
        let example = |row: usize| {
            let question = &self.questions().items[indices[row]];
            let given = scores.given[row];
            AnswerExample {
                images: vec![question.image.clone()],
                question: question.question.clone(),
                expected: question.answers[0].0.clone(),
                given: self.examples.choices().texts()[given.place].clone(),
                confidence: given.probability,
                is_right: is_right(scores.credits[row]),
            }
        };
        rows.into_iter().map(example).collect()
    }
}

/// Whether an answer counts as right where it must be one or the other.
fn is_right(credit: f64) -> bool {
    credit >= 0.5
}

fn percent(credits: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = credits.len() as f64;
    100.0 * credits.sum::<f64>() / count
}

impl Program for Vqa {
    const TITLE: &'static str = "ALBEF for visual question answering";

    type Test = QuestionTest;
    type Scores = Answered;

    fn open(
        config: &TrainingConfig<VqaConfig>,
        options: &Options,
        resumed: Option<&Path>,
    ) -> Result<Data<Self>> {
        let questions = Arc::new(open_questions(&config.shared.data, options)?);
        let texts = || {
            ensure!(
                !questions.indices(Split::Train).is_empty(),
                "{} has no question in the split train",
                questions.files[0].display()
            );
            let listed = questions.answers.iter().map(String::as_str);
            let texts: Vec<_> = questions.texts(Split::Train).chain(listed).collect();
            Ok(texts.into_iter())
        };
        let tokenizer = inputs::open_tokenizer(config, resumed, texts)?;
        let answers = questions.answers.iter().map(String::as_str);
        let tokenizer = tokenizer.with_words(answers, config.system.text().vocabulary)?;
        let tokenizer = Arc::new(tokenizer);
        let texts = questions.items.par_iter().map(|item| &item.question);
        inputs::report_cut(&tokenizer, config, texts, "question")?;

        let transform = config.transform();
        let examples = QuestionExamples::new(questions.clone(), tokenizer.clone(), transform)?;
        report_unclear(&examples);
        let part = [options.team.rank(), options.team.count()];
        let loader = |part| config.loader(options.workers, &options.device, part);
        let train = Loader::shuffled(examples.clone(), Split::Train, loader(part))?;
        let some = examples.at_most(config.system.validation_questions);
        let valid = Loader::ordered(some, Split::Validation, loader([0, 1]))?;
        let test = QuestionTest {
            // The answers of a challenge's test split are not public.
            split: if examples.indices(Split::Test).is_empty() {
                Split::Validation
            } else {
                Split::Test
            },
            majority: Majority::new(&questions),
            loader: loader([0, 1]),
            examples,
        };
        Ok(Data {
            train,
            valid,
            test,
            fingerprint: format!("{} {}", questions.fingerprint(), tokenizer.fingerprint()),
            tokenizer,
            dataset: dataset(&questions),
        })
    }

    fn evaluate(
        &self,
        test: &QuestionTest,
        batch_size: usize,
        _is_trained: bool,
    ) -> Result<Answered> {
        let model = self.valid();
        let device = model.device();
        let config = LoaderConfig {
            batch_size,
            shard: batch_size,
            ..test.loader.clone()
        };
        let loader = Loader::ordered(test.examples.clone(), test.split, config)?;
        let mut scores = Answered {
            given: Vec::new(),
            credits: Vec::new(),
        };
        for batch in loader.iter() {
            for shard in batch.map_err(|error| anyhow!("{error}"))? {
                let given = model.answer(&shard, &device);
                let credits = given.iter().zip(&shard.items);
                let credits = credits.map(|(given, asked)| asked.credit(given.place));
                scores.credits.extend(credits);
                scores.given.extend(given);
            }
        }
        Ok(scores)
    }

    fn before(test: &QuestionTest, scores: &Answered) -> String {
        let indices = test.indices();
        let images: BTreeSet<_> = indices
            .iter()
            .map(|&index| &test.questions().items[index].image)
            .collect();
        let split = match test.split {
            Split::Test => "Held-out split",
            _ => "There are no test questions; validation split",
        };
        format!(
            "{split}: {} about {}, {} to choose from. The most frequent answer, {:?}, is right to \
             {:.2} %.\n\nBefore training: {:.2} % are answered right.\n",
            counted(indices.len(), "question"),
            counted(images.len(), "image"),
            counted(test.examples.choices().texts().len(), "answer"),
            test.majority.overall,
            test.majority(),
            scores.accuracy(),
        )
    }

    fn after(test: &QuestionTest, scores: &Answered) -> String {
        let table = Table {
            all: scores.accuracy(),
            majority: test.majority(),
            by_kind: test.by_kind(scores),
        };
        table.to_string()
    }

    fn report(
        test: &QuestionTest,
        before: Option<&Answered>,
        after: &Answered,
        _history: &History,
    ) -> RunReport {
        RunReport {
            accuracy: Some(Accuracy {
                split: match test.split {
                    Split::Test => "test",
                    _ => "validation",
                }
                .to_string(),
                count: after.credits.len() as u64,
                majority: test.majority(),
                before: before.map(Answered::accuracy),
                after: after.accuracy(),
                by_kind: test.by_kind(after),
            }),
            answers: test.shown(after),
            ..RunReport::default()
        }
    }

    fn run(
        config: &TrainingConfig<VqaConfig>,
        options: &Options,
        interrupter: Interrupter,
    ) -> Result<Ended<Self>> {
        run::run(config, options, interrupter)
    }
}

/// Accuracies for a person to read.
struct Table {
    all: f64,
    majority: f64,
    by_kind: Vec<KindAccuracy>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.by_kind.iter();
        let names = kinds.clone().map(|kind| kind.kind.chars().count());
        let width = names.max().unwrap_or(0).max("all".len());
        write!(f, "{:width$}  accuracy  majority", "")?;
        let rows = kinds.map(|kind| (kind.kind.as_str(), kind.after, kind.majority));
        for (name, after, majority) in rows.chain([("all", self.all, self.majority)]) {
            write!(f, "\n{name:width$} {after:9.2} {majority:9.2}")?;
        }
        Ok(())
    }
}

/// The questions of a run: those at its path, or those about its scenes.
fn open_questions(config: &DataConfig, options: &Options) -> Result<Questions> {
    let path = inputs::locate(config, &options.scenes, "questions", |folder, scenes| {
        scenes::generate_questions(folder, scenes)
    })?;
    let questions = Questions::read(&path, config.skip_bad)?;
    inputs::report_skipped(&questions.skipped, "question");
    for file in &questions.files {
        say(format_args!("Data: {}", file.display()));
    }
    ensure!(
        !questions.answers.is_empty(),
        "{} has no answer to choose from",
        path.display()
    );
    Ok(questions)
}

/// Says how many answers no model can tell apart.
fn report_unclear(examples: &QuestionExamples) {
    let unclear = examples.choices().unclear();
    if let Some(first) = unclear.first() {
        warn(format_args!(
            "warning: {} of {} cannot be told from others, such as {first:?}: the tokenizer does \
             not know their words",
            unclear.len(),
            counted(examples.choices().texts().len(), "answer"),
        ));
    }
}

fn dataset(questions: &Questions) -> Dataset {
    let splits = Split::ALL.map(|split| {
        let own = questions.items.iter().filter(|item| item.split == split);
        let images: BTreeSet<_> = own.clone().map(|item| &item.image).collect();
        SplitSize {
            name: split.name().to_string(),
            images: images.len() as u64,
            captions: own.count() as u64,
        }
    });
    Dataset {
        name: questions.files[0].display().to_string(),
        splits: splits.to_vec(),
    }
}
