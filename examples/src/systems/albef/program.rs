//! What `albef` reads, measures and reports.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use burn::tensor::Tensor;
use burn::train::Interrupter;
use burn_contrastive::objective::{Input, ObjectiveConfig};

use super::Albef;
use super::config::{AlbefConfig, LossesConfig, MatchIds};
use super::looks::Batches;
use super::rerank::retrieve;
use crate::data::{CaptionBatch, Collection, EvaluationSet, Loader, Pairs, Split};
use crate::report::{self, Fact, Reference, RunReport};
use crate::training::config::TrainingConfig;
use crate::training::evaluation::{EmbedsPairs, Retrieved};
use crate::training::history::History;
use crate::training::inputs::{self, Data};
use crate::training::objective::regulation;
use crate::training::run::{self, Ended, Options, Program, stage};

impl EmbedsPairs for Albef {
    fn embed_images(&self, images: Tensor<4>) -> Tensor<2> {
        self.model.encode_images(images).1
    }

    fn embed_captions(&self, captions: CaptionBatch) -> Tensor<2> {
        self.model.encode_texts(captions.tokens, captions.padding).1
    }
}

/// What [`Albef`] is evaluated on.
pub struct AlbefTest {
    /// The held-out pairs.
    pub set: EvaluationSet,
    /// The batches whose weights are looked at, for objectives that have weights.
    pub batches: Option<Batches>,
    collection: Arc<Collection>,
    pairs_a_batch: usize,
    equal_meaning: f64,
}

/// What [`Albef`] scores.
pub struct AlbefScores {
    /// Retrieval on the held-out pairs.
    pub retrieved: Retrieved,
    /// The weights of negatives.
    pub weights: Option<report::Weights>,
}

impl Program for Albef {
    const TITLE: &'static str = "ALBEF pretraining";

    type Test = AlbefTest;
    type Scores = AlbefScores;

    fn open(
        config: &TrainingConfig<AlbefConfig>,
        options: &Options,
        resumed: Option<&Path>,
    ) -> Result<Data<Self>> {
        let data = inputs::pairs(config, options, resumed, |collection, tokenizer, pairs| {
            Ok(AlbefTest {
                set: inputs::held_out(config, options, collection, tokenizer)?,
                batches: batches(config, options, pairs)?,
                collection: collection.clone(),
                pairs_a_batch: config.shared.data.batch_size,
                equal_meaning: config.shared.data.equal_meaning,
            })
        })?;
        if let Some(teacher) = &config.system.teacher.run {
            inputs::check_tokens(teacher, config, &data.tokenizer).context("teacher.run")?;
        }
        Ok(data)
    }

    /// Trains the teacher of the objective's weights, where it has none yet.
    fn prepare(
        config: &TrainingConfig<AlbefConfig>,
        _data: &Data<Self>,
        options: &Options,
        run: &Path,
        interrupter: &Interrupter,
    ) -> Result<Option<TrainingConfig<AlbefConfig>>> {
        let mut config = config.clone();
        if !config.system.needs_teacher() || config.system.teacher.run.is_some() {
            return Ok(Some(config));
        }
        let trained = stage::<Self>("teacher", &of_teacher(&config), options, run, interrupter)?;
        Ok(trained.map(|run| {
            config.system.teacher.run = Some(run);
            config
        }))
    }

    /// The matching head takes part once it is trained, and weights are looked at.
    fn evaluate(
        &self,
        test: &AlbefTest,
        batch_size: usize,
        is_trained: bool,
    ) -> Result<AlbefScores> {
        let reranks = is_trained && self.losses.matching;
        let batches = test.batches.as_ref().filter(|_| is_trained);
        let weights = batches.map(|batches| self.weights(batches, &test.collection));
        Ok(AlbefScores {
            retrieved: retrieve(self, &test.set, batch_size, reranks.then_some(self.rerank))?,
            weights: weights.transpose()?,
        })
    }

    fn before(test: &AlbefTest, scores: &AlbefScores) -> String {
        scores.retrieved.before(&test.set)
    }

    fn after(_test: &AlbefTest, scores: &AlbefScores) -> String {
        scores.retrieved.after()
    }

    fn report(
        test: &AlbefTest,
        before: Option<&AlbefScores>,
        after: &AlbefScores,
        history: &History,
    ) -> RunReport {
        let scale = history.steps.last().and_then(|step| step.logit_scale);
        let pairs = test.pairs_a_batch as f64;
        let fact = |name: &str, value: f64| Fact {
            name: name.to_string(),
            value,
            unit: None,
        };
        let mut facts = vec![
            fact("Pairs a batch, N", pairs),
            fact("ln N", pairs.ln()),
            Fact {
                unit: Some("%".to_string()),
                ..fact(
                    "Pairs of a batch that share their meaning with another, as set",
                    100.0 * test.equal_meaning,
                )
            },
        ];
        facts.extend(scale.map(|scale| fact("Logit scale at the end", scale)));
        let before = before.map(|before| &before.retrieved);
        let report = after.retrieved.report(&test.set, before);
        RunReport {
            weights: after.weights.clone(),
            ..report.with_facts_before(facts)
        }
    }

    /// The contrast of an anchor that is as similar to all candidates as to its own: those of the
    /// batch, and of the queue where it takes part.
    fn references(config: &TrainingConfig<AlbefConfig>) -> Vec<(&'static str, Reference)> {
        let objective = &config.system.objective;
        let inputs = [objective.needs(), objective.uses()].concat();
        let batch = config.shared.data.batch_size;
        let (label, candidates) = if inputs.contains(&Input::QueueImage) {
            ("ln(N + K)", batch + config.system.momentum.queue)
        } else {
            ("ln N", batch)
        };
        let reference = Reference {
            label: label.to_string(),
            value: (candidates as f64).ln(),
        };
        vec![("Contrast", reference)]
    }

    fn run(
        config: &TrainingConfig<AlbefConfig>,
        options: &Options,
        interrupter: Interrupter,
    ) -> Result<Ended<Self>> {
        run::run(config, options, interrupter)
    }
}

/// The batches whose weights are looked at.
fn batches(
    config: &TrainingConfig<AlbefConfig>,
    options: &Options,
    pairs: &Pairs,
) -> Result<Option<Batches>> {
    let looks = &config.system.looks;
    let regulation = regulation(&config.system.objective);
    let Some(regulation) = regulation.filter(|_| looks.batches > 0) else {
        return Ok(None);
    };
    let mut loader = config.loader(options.workers, &options.device, [0, 1]);
    loader.equal_meaning = looks.equal_meaning;
    Ok(Some(Batches {
        loader: Loader::shuffled(pairs.clone(), Split::Train, loader)?,
        count: looks.batches,
        regulation,
    }))
}

/// How the teacher is trained: the same encoders, by plain contrast, on batches without false
/// negatives.
fn of_teacher(config: &TrainingConfig<AlbefConfig>) -> TrainingConfig<AlbefConfig> {
    let mut config = config.clone();
    let (system, shared) = (&mut config.system, &mut config.shared);
    system.objective = ObjectiveConfig::named("info-nce").expect("an objective of the library");
    system.losses = LossesConfig {
        matching: false,
        masked_language: false,
        ids: MatchIds::None,
    };
    // The queue is not read.
    system.momentum.queue = 1;
    shared.init = None;
    shared.data.equal_meaning = 0.0;
    if let Some(path) = system.teacher.data.take() {
        shared.data.path = Some(path);
    }
    shared.schedule.steps = system.teacher.steps;
    shared.schedule.epochs = None;
    shared.schedule.warmup_steps = shared.schedule.warmup_steps.min(system.teacher.steps / 10);
    config
}
