//! What `radiograph` reads, measures and reports.

use std::path::Path;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Tensor;
use burn::train::Interrupter;

use super::Radiograph;
use super::config::RadiographConfig;
use super::precision::{ByClass, Precisions};
use crate::data::{CaptionBatch, EvaluationSet};
use crate::report::RunReport;
use crate::training::config::TrainingConfig;
use crate::training::evaluation::{EmbedsPairs, Retrieved};
use crate::training::history::History;
use crate::training::inputs::{self, Data, HeldOut};
use crate::training::run::{self, Ended, Options, Program};
use crate::training::system::System;

impl EmbedsPairs for Radiograph {
    fn embed_images(&self, images: Tensor<4>) -> Tensor<2> {
        self.model.embed_images(images)
    }

    fn embed_captions(&self, captions: CaptionBatch) -> Tensor<2> {
        self.model.embed_texts(captions.tokens, captions.padding)
    }
}

/// What [`Radiograph`] is evaluated on.
pub struct RadiographTest {
    /// The first image of each held-out study, with its sentences.
    pub set: EvaluationSet,
    /// Queries and candidates by class, where there are some.
    pub by_class: Option<ByClass>,
}

/// What [`Radiograph`] scores.
pub struct RadiographScores {
    /// Retrieval on the held-out studies.
    pub retrieved: Retrieved,
    /// Retrieval by class.
    pub precisions: Option<Precisions>,
}

impl Program for Radiograph {
    const TITLE: &'static str = "Radiographs and reports";

    type Test = RadiographTest;
    type Scores = RadiographScores;

    fn open(
        config: &TrainingConfig<RadiographConfig>,
        options: &Options,
        resumed: Option<&Path>,
    ) -> Result<Data<Self>> {
        let RadiographConfig {
            findings,
            retrieval,
            ..
        } = &config.system;
        let retrieval = retrieval.as_deref();
        inputs::studies(config, options, resumed, findings, retrieval, |held_out| {
            let HeldOut {
                captioned,
                retrieval,
                tokenizer,
            } = held_out;
            let set = inputs::held_out(config, options, &captioned, &tokenizer)?;
            let by_class = retrieval.map(|retrieval| {
                ByClass::new(retrieval, tokenizer, config.transform(), options.workers)
            });
            Ok(RadiographTest {
                set,
                by_class: by_class.transpose()?,
            })
        })
    }

    fn evaluate(
        &self,
        test: &RadiographTest,
        batch_size: usize,
        _is_trained: bool,
    ) -> Result<RadiographScores> {
        let model = self.valid();
        let device = model.device();
        let by_class = test.by_class.as_ref();
        let precisions = by_class.map(|set| set.score(&model.model, batch_size, &device));
        Ok(RadiographScores {
            retrieved: Retrieved::new(self, &test.set, batch_size)?,
            precisions: precisions.transpose()?,
        })
    }

    fn before(test: &RadiographTest, scores: &RadiographScores) -> String {
        let mut text = scores.retrieved.before(&test.set);
        if let (Some(set), Some(precisions)) = (&test.by_class, &scores.precisions) {
            text += &format!("\n{}\n{}\n", set.summary(), precisions.text());
        }
        text
    }

    fn after(_test: &RadiographTest, scores: &RadiographScores) -> String {
        let mut text = scores.retrieved.after();
        if let Some(precisions) = &scores.precisions {
            text += &format!("\n\nRetrieval by class\n{}", precisions.text());
        }
        text
    }

    fn report(
        test: &RadiographTest,
        before: Option<&RadiographScores>,
        after: &RadiographScores,
        _history: &History,
    ) -> RunReport {
        let precisions = after.precisions.as_ref();
        let earlier = before.and_then(|before| before.precisions.as_ref());
        let table = precisions.map(|precisions| precisions.table(earlier));
        let before = before.map(|before| &before.retrieved);
        let mut report = after.retrieved.report(&test.set, before);
        let compared = precisions.map(Precisions::compared);
        report.compared.extend(compared.into_iter().flatten());
        RunReport {
            tables: table.into_iter().collect(),
            histograms: precisions.map_or_else(Vec::new, Precisions::histograms),
            ..report
        }
    }

    fn run(
        config: &TrainingConfig<RadiographConfig>,
        options: &Options,
        interrupter: Interrupter,
    ) -> Result<Ended<Self>> {
        run::run(config, options, interrupter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::evaluation::tests::{of_folds, retrieved};

    #[test]
    fn precisions_are_compared_beside_five_folds() {
        let (_, set, retrieved) = retrieved(1.0);
        let device = burn::tensor::Device::flex();
        let embedding = || Tensor::<2>::ones([5, 2], &device);
        let embeddings = [embedding(), embedding(), embedding()];
        let labels = [(); 3].map(|()| vec![0, 1, 0, 1, 0]);
        let test = RadiographTest {
            set,
            by_class: None,
        };
        let scores = RadiographScores {
            retrieved,
            precisions: Some(Precisions::new(embeddings, labels)),
        };
        let report = Radiograph::report(&test, None, &scores, &History::default());
        let names: Vec<_> = report.compared.into_iter().map(|fact| fact.name).collect();
        let own = [
            "image–image Prec@5",
            "text–image Prec@5",
            "average precision",
        ];
        assert_eq!(names[..7], of_folds("5 × 1K"));
        assert_eq!(names[7..], own);
    }
}
