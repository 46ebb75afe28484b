//! What `albef` reads, measures and reports.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Tensor;

use super::Albef;
use super::config::AlbefConfig;
use crate::data::{CaptionBatch, EvaluationSet};
use crate::report::RunReport;
use crate::training::config::TrainingConfig;
use crate::training::evaluation::{EmbedsPairs, Retrieved};
use crate::training::history::History;
use crate::training::inputs::{self, Data};
use crate::training::run::{Options, Program};

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
        inputs::pairs(config, options, resumed)
    }

    fn evaluate(&self, test: &EvaluationSet, batch_size: usize) -> Result<Retrieved> {
        Retrieved::new(self, test, batch_size)
    }

    fn before(test: &EvaluationSet, scores: &Retrieved) -> String {
        scores.before(test)
    }

    fn after(_test: &EvaluationSet, scores: &Retrieved) -> String {
        scores.metrics().to_string()
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
