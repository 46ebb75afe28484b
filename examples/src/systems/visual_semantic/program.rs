//! What `visual-semantic` reads, measures and reports.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Tensor;
use burn::train::Interrupter;
use burn_contrastive::retrieval::CrossModalMetrics;

use super::VisualSemantic;
use super::config::{VisualSemanticConfig, of_phase};
use crate::data::{CaptionBatch, EvaluationSet};
use crate::report::{Fact, RunReport};
use crate::training::config::TrainingConfig;
use crate::training::evaluation::{EmbedsPairs, Retrieved};
use crate::training::history::History;
use crate::training::inputs::{self, Data};
use crate::training::run::{self, CONFIG_FILE, Ended, Options, Program, stage};
use crate::training::weights::InitConfig;

impl EmbedsPairs for VisualSemantic {
    fn embed_images(&self, images: Tensor<4>) -> Tensor<2> {
        self.embed_image(images)
    }

    fn embed_captions(&self, captions: CaptionBatch) -> Tensor<2> {
        self.embed_text(captions.tokens, captions.padding)
    }
}

/// What [`VisualSemantic`] is evaluated on.
pub struct VisualSemanticTest {
    /// The held-out pairs.
    pub set: EvaluationSet,
    /// Whether the run starts from a base network, which is evaluated before the training.
    has_base: bool,
}

/// What [`VisualSemantic`] scores.
pub struct VisualSemanticScores {
    /// Retrieval on the held-out pairs.
    pub retrieved: Retrieved,
    /// That of the base network, which the run starts from.
    pub base: Option<CrossModalMetrics>,
}

impl Program for VisualSemantic {
    const TITLE: &'static str = "Visual-semantic embedding";

    type Test = VisualSemanticTest;
    type Scores = VisualSemanticScores;

    fn open(
        config: &TrainingConfig<VisualSemanticConfig>,
        options: &Options,
        resumed: Option<&Path>,
    ) -> Result<Data<Self>> {
        let base = config.system.base.as_ref();
        ensure!(
            base.is_none() || config.shared.init.is_none(),
            "init and base both say which weights to start from: set base=null"
        );
        check_encoder(config)?;
        let data = inputs::pairs(config, options, resumed, |collection, tokenizer, _| {
            Ok(VisualSemanticTest {
                set: inputs::held_out(config, options, collection, tokenizer)?,
                has_base: base.is_some(),
            })
        })?;
        if let Some(run) = base.and_then(|base| base.run.as_ref()) {
            check_base(run, config, &data).context("base.run")?;
        }
        Ok(data)
    }

    /// Trains the base network, where there is none yet.
    fn prepare(
        config: &TrainingConfig<VisualSemanticConfig>,
        _data: &Data<Self>,
        options: &Options,
        run: &Path,
        interrupter: &Interrupter,
    ) -> Result<Option<TrainingConfig<VisualSemanticConfig>>> {
        let mut config = config.clone();
        let base = config.system.base.as_ref();
        if base.is_none_or(|base| base.run.is_some()) {
            return Ok(Some(config));
        }
        let mut earlier = None;
        for (name, phase) in config.system.phases() {
            let mut phase = of_phase(&config, phase);
            if earlier.is_some() {
                // What is warmed up stays warm.
                phase.system.objective = phase.system.objective.unscheduled();
            }
            phase.shared.init = earlier.map(InitConfig::all_of);
            let name = format!("base-{name}");
            earlier = stage::<Self>(&name, &phase, options, run, interrupter)?;
            if earlier.is_none() {
                return Ok(None);
            }
        }
        if let Some(base) = &mut config.system.base {
            base.run = earlier;
        }
        Ok(Some(config))
    }

    /// Before the training, the base network is evaluated too: new heads say nothing about it.
    fn evaluate(
        &self,
        test: &VisualSemanticTest,
        batch_size: usize,
        is_trained: bool,
    ) -> Result<VisualSemanticScores> {
        let base = (test.has_base && !is_trained).then(|| self.base());
        let base = base.map(|base| Retrieved::new(&base, &test.set, batch_size));
        Ok(VisualSemanticScores {
            base: base.transpose()?.map(|base| base.metrics()),
            retrieved: Retrieved::new(self, &test.set, batch_size)?,
        })
    }

    fn before(test: &VisualSemanticTest, scores: &VisualSemanticScores) -> String {
        let before = scores.retrieved.before(&test.set);
        match &scores.base {
            Some(base) => format!("{before}\nThe base network, without heads\n{base}\n"),
            None => before,
        }
    }

    fn after(_test: &VisualSemanticTest, scores: &VisualSemanticScores) -> String {
        scores.retrieved.after()
    }

    fn report(
        test: &VisualSemanticTest,
        before: Option<&VisualSemanticScores>,
        after: &VisualSemanticScores,
        _history: &History,
    ) -> RunReport {
        let retrieval = before.map(|before| &before.retrieved);
        let mut report = after.retrieved.report(&test.set, retrieval);
        let base = before.and_then(|before| before.base.as_ref());
        let base = base.map(|base| Fact::of_retrieval("Base network", base));
        report.facts.splice(..0, base.into_iter().flatten());
        report
    }

    fn run(
        config: &TrainingConfig<VisualSemanticConfig>,
        options: &Options,
        interrupter: Interrupter,
    ) -> Result<Ended<Self>> {
        run::run(config, options, interrupter)
    }
}

/// Checks that no image encoder is frozen whose weights are new, and as good as noise.
fn check_encoder(config: &TrainingConfig<VisualSemanticConfig>) -> Result<()> {
    let system = &config.system;
    let (key, trains) = match &system.base {
        Some(base) => (
            "base.first.train_image",
            base.run.is_some() || base.first.train_image,
        ),
        None => (
            "train_image",
            config.shared.init.is_some() || system.train_image,
        ),
    };
    ensure!(
        trains,
        "{key} = false would freeze an image encoder whose weights are new, and learn from noise: \
         set {key}=true"
    );
    Ok(())
}

/// Checks that a run trained a base network that reads the tokens of these data.
fn check_base(
    run: &Path,
    config: &TrainingConfig<VisualSemanticConfig>,
    data: &Data<VisualSemantic>,
) -> Result<()> {
    let its_own = TrainingConfig::<VisualSemanticConfig>::read(&run.join(CONFIG_FILE))?;
    ensure!(
        its_own.system.model.heads.is_none(),
        "{} has heads, a base network has none: its own is in {}",
        run.display(),
        run.join("base-second").display()
    );
    inputs::check_tokens(run, config, &data.tokenizer)
}
