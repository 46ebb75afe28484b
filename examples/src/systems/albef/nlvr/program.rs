//! What `albef nlvr2` and the text assignment before it read, measure and report.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::train::Interrupter;

use super::assignment::{TextAssignment, TextAssignmentConfig};
use super::{Answer, Answers, Nlvr, NlvrConfig};
use crate::console::say;
use crate::data::{Examples, Loader, Pairs, Shard, Split, StatedPair, StatedPairs, Statements};
use crate::number::counted;
use crate::report::{AnswerExample, RunReport};
use crate::training::config::TrainingConfig;
use crate::training::history::History;
use crate::training::inputs::{self, Data};
use crate::training::run::{self, Ended, Options, Program, stage};
use crate::training::summary::spread;
use crate::training::system::System;
use crate::training::weights::InitConfig;

/// Answers in a report.
const EXAMPLES: usize = 12;

/// Statements to evaluate on.
pub struct StatementTest {
    statements: Arc<Statements>,
    held_out: Loader<StatedPairs>,
}

impl StatementTest {
    fn kind(&self, index: usize) -> &str {
        &self.statements.items[index].kind
    }

    /// Kinds and classes of the training split.
    fn training(&self) -> impl Iterator<Item = (&str, usize)> {
        let items = self.statements.items.iter();
        let items = items.filter(|item| item.split == Split::Train);
        items.map(|item| (item.kind.as_str(), usize::from(item.label)))
    }

    fn example(&self, answer: &Answer) -> AnswerExample {
        let word = |class| if class == 1 { "true" } else { "false" };
        let statement = &self.statements.items[answer.index];
        AnswerExample {
            images: statement.images.to_vec(),
            question: statement.text.clone(),
            expected: word(answer.expected).to_string(),
            given: word(answer.given).to_string(),
            confidence: answer.confidence,
            is_right: answer.is_right(),
        }
    }
}

/// What a model takes all examples of a loader for.
fn answers<E: Examples>(
    examples: &Loader<E>,
    judge: impl Fn(&Shard<E::Item>) -> Vec<Answer>,
) -> Result<Answers> {
    let mut answers = Vec::new();
    for batch in examples.iter() {
        let batch = batch.map_err(|error| anyhow!("{error}"))?;
        answers.extend(batch.iter().flat_map(&judge));
    }
    Ok(Answers(answers))
}

fn line(answers: &Answers) -> String {
    format!("Accuracy {:.2} %", answers.accuracy())
}

impl Program for Nlvr {
    const TITLE: &'static str = "ALBEF on statements about two images";

    type Test = StatementTest;
    type Scores = Answers;

    fn open(
        config: &TrainingConfig<NlvrConfig>,
        options: &Options,
        resumed: Option<&Path>,
    ) -> Result<Data<Self>> {
        inputs::statements(config, options, resumed, |statements, held_out| {
            StatementTest {
                statements,
                held_out,
            }
        })
    }

    /// Trains text assignment, from whose weights this then starts.
    fn prepare(
        config: &TrainingConfig<NlvrConfig>,
        _data: &Data<Self>,
        options: &Options,
        run: &Path,
        interrupter: &Interrupter,
    ) -> Result<Option<TrainingConfig<NlvrConfig>>> {
        let mut config = config.clone();
        // As all workers know it.
        let absolute = std::path::absolute(run)?;
        let Some(assignment) = NlvrConfig::of_assignment(&config, &absolute) else {
            if !config.system.assignment.is_left_out() && options.team.is_first() {
                say(
                    "There is no text assignment: assignment.data names no captioned images for \
                     it",
                );
            }
            return Ok(Some(config));
        };
        let name = "text-assignment";
        let trained = stage::<TextAssignment>(name, &assignment, options, run, interrupter)?;
        Ok(trained.map(|run| {
            config.shared.init = Some(InitConfig::all_of(run));
            config
        }))
    }

    fn evaluate(
        &self,
        test: &StatementTest,
        _batch_size: usize,
        _is_trained: bool,
    ) -> Result<Answers> {
        let model = self.valid();
        let device = model.device();
        answers(&test.held_out, |shard: &Shard<StatedPair>| {
            let judged = model.judge(shard, 0.0, &device);
            judged.answers(shard.items.iter().map(|pair| pair.index))
        })
    }

    fn before(test: &StatementTest, scores: &Answers) -> String {
        let kind = |index| test.kind(index);
        let accuracy = scores.report(None, kind, test.training());
        format!(
            "Held-out split: {}. The more frequent label of the training split is right for \
             {:.2} %.\n\nBefore training\n{}\n",
            counted(accuracy.count, "statement"),
            accuracy.majority,
            line(scores),
        )
    }

    fn after(test: &StatementTest, scores: &Answers) -> String {
        let accuracy = scores.report(None, |index| test.kind(index), test.training());
        let kinds = accuracy.by_kind.iter().map(|of| {
            let (kind, after, majority) = (&of.kind, of.after, of.majority);
            format!("\n  {kind}: {after:.2} % (more frequent label {majority:.2} %)")
        });
        line(scores) + &kinds.collect::<String>()
    }

    fn report(
        test: &StatementTest,
        before: Option<&Answers>,
        after: &Answers,
        _history: &History,
    ) -> RunReport {
        let shown = spread(after.0.len(), EXAMPLES);
        RunReport {
            accuracy: Some(after.report(before, |index| test.kind(index), test.training())),
            answers: shown.map(|place| test.example(&after.0[place])).collect(),
            ..RunReport::default()
        }
    }

    fn run(
        config: &TrainingConfig<NlvrConfig>,
        options: &Options,
        interrupter: Interrupter,
    ) -> Result<Ended<Self>> {
        run::run(config, options, interrupter)
    }
}

impl Program for TextAssignment {
    const TITLE: &'static str = "ALBEF text assignment";

    type Test = Loader<Pairs>;
    type Scores = Answers;

    fn open(
        config: &TrainingConfig<TextAssignmentConfig>,
        options: &Options,
        resumed: Option<&Path>,
    ) -> Result<Data<Self>> {
        inputs::pairs(config, options, resumed, |_, _, pairs| {
            let loader = config.loader(options.workers, &options.device, [0, 1]);
            Loader::ordered(pairs.clone(), Split::Test, loader)
        })
    }

    fn evaluate(
        &self,
        test: &Loader<Pairs>,
        _batch_size: usize,
        _is_trained: bool,
    ) -> Result<Answers> {
        let model = self.valid();
        let device = model.device();
        answers(test, |shard: &Shard| {
            let (judged, captions) = model.assigned(shard, false, &device);
            let images = captions
                .iter()
                .map(|&caption| shard.items[caption].image_id);
            judged.answers(images)
        })
    }

    fn before(_test: &Loader<Pairs>, scores: &Answers) -> String {
        format!(
            "Held-out split: {}, each with two images: which one does it belong to, the first, \
             the second, or neither?\n\nBefore training\n{}\n",
            counted(scores.0.len() as u64, "caption"),
            line(scores),
        )
    }

    fn after(_test: &Loader<Pairs>, scores: &Answers) -> String {
        line(scores)
    }

    fn report(
        _test: &Loader<Pairs>,
        before: Option<&Answers>,
        after: &Answers,
        _history: &History,
    ) -> RunReport {
        RunReport {
            // All classes are equally frequent in training.
            accuracy: Some(after.report(before, |_| "", std::iter::empty())),
            ..RunReport::default()
        }
    }

    fn run(
        config: &TrainingConfig<TextAssignmentConfig>,
        options: &Options,
        interrupter: Interrupter,
    ) -> Result<Ended<Self>> {
        run::run(config, options, interrupter)
    }
}
