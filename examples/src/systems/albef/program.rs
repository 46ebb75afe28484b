//! What `albef` reads, measures and reports.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Tensor;
use burn::train::Interrupter;
use burn_contrastive::objective::ObjectiveConfig;

use super::Albef;
use super::config::{AlbefConfig, LossesConfig};
use super::rerank::retrieve;
use crate::data::{CaptionBatch, CaptionTokenizer, EvaluationSet};
use crate::report::RunReport;
use crate::training::config::TrainingConfig;
use crate::training::evaluation::{EmbedsPairs, Retrieved};
use crate::training::folder::TOKENIZER_FILE;
use crate::training::history::History;
use crate::training::inputs::{self, Data};
use crate::training::run::{Options, Program, stage};
use crate::training::system::{SystemConfig, TextLimits};

impl EmbedsPairs for Albef {
    fn embed_images(&self, images: Tensor<4>) -> Tensor<2> {
        self.model.encode_images(images).1
    }

    fn embed_captions(&self, captions: CaptionBatch) -> Tensor<2> {
        self.model.encode_texts(captions.tokens, captions.padding).1
    }
}

impl Program for Albef {
    const TITLE: &'static str = "ALBEF pretraining";

    type Test = EvaluationSet;
    type Scores = Retrieved;

    fn open(
        config: &TrainingConfig<AlbefConfig>,
        options: &Options,
        resumed: Option<&Path>,
    ) -> Result<Data<Self>> {
        let data = inputs::pairs(config, options, resumed)?;
        if let Some(teacher) = &config.system.teacher.run {
            check_tokens(teacher, config, &data).context("teacher.run")?;
        }
        Ok(data)
    }

    /// Trains the teacher of the objective's weights, where it has none yet.
    fn prepare(
        config: &TrainingConfig<AlbefConfig>,
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

    /// The matching head takes part once it is trained.
    fn evaluate(
        &self,
        test: &EvaluationSet,
        batch_size: usize,
        is_trained: bool,
    ) -> Result<Retrieved> {
        let reranks = is_trained && self.losses.matching;
        retrieve(self, test, batch_size, reranks.then_some(self.rerank))
    }

    fn before(test: &EvaluationSet, scores: &Retrieved) -> String {
        scores.before(test)
    }

    fn after(_test: &EvaluationSet, scores: &Retrieved) -> String {
        scores.after()
    }

    fn report(
        test: &EvaluationSet,
        before: &Retrieved,
        after: &Retrieved,
        _history: &History,
    ) -> RunReport {
        after.report(test, before)
    }
}

/// Checks that a teacher reads the tokens of these data.
fn check_tokens(
    teacher: &Path,
    config: &TrainingConfig<AlbefConfig>,
    data: &Data<Albef>,
) -> Result<()> {
    let TextLimits { context, style, .. } = config.system.text();
    let file = teacher.join(TOKENIZER_FILE);
    let its_own = CaptionTokenizer::load(&file, context)?.with_style(style)?;
    ensure!(
        its_own.fingerprint() == data.tokenizer.fingerprint(),
        "it was trained with another tokenizer, whose tokens are other words: set \
         data.tokenizer={}",
        file.display()
    );
    Ok(())
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
        same_image: false,
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
