//! What `radiograph linear` and `radiograph finetune` read, measure and report.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::train::Interrupter;
use burn_contrastive::retrieval::MultiLabelAuc;

use super::{Classifier, ClassifierConfig};
use crate::data::{LabelledImages, Loader, Split};
use crate::number::fixed;
use crate::report::{Fact, RunReport, Table, TableRow};
use crate::training::config::TrainingConfig;
use crate::training::history::History;
use crate::training::inputs::{self, Data};
use crate::training::run::{self, Ended, Options, Program};
use crate::training::system::System;

/// Images to classify.
pub struct ClassifierTest {
    images: LabelledImages,
    held_out: Loader<LabelledImages>,
    labels: f64,
}

impl ClassifierTest {
    /// The names of the classes.
    fn classes(&self) -> &[String] {
        &self.images.studies().classes
    }
}

/// What a model takes the held-out images for.
#[derive(Clone, Debug, PartialEq)]
pub struct Classified {
    /// The probability of each class, image by image.
    pub probabilities: Vec<f64>,
    /// Whether the image is of the class, where that is known.
    pub labels: Vec<Option<bool>>,
    /// Areas under the ROC curves, in [0, 1].
    pub auc: MultiLabelAuc,
}

impl Classified {
    /// The mean area in percent; NaN if no class has both kinds of images.
    pub fn mean(&self) -> f64 {
        100.0 * self.auc.mean().unwrap_or(f64::NAN)
    }

    /// The area of each class in percent; NaN of one that has not both kinds of images.
    fn percent(&self) -> Vec<f64> {
        let areas = self.auc.by_class.iter();
        areas.map(|area| 100.0 * area.unwrap_or(f64::NAN)).collect()
    }
}

impl Program for Classifier {
    const TITLE: &'static str = "Classification of radiographs";

    type Test = ClassifierTest;
    type Scores = Classified;

    fn open(
        config: &TrainingConfig<ClassifierConfig>,
        options: &Options,
        resumed: Option<&Path>,
    ) -> Result<Data<Self>> {
        let ClassifierConfig {
            findings,
            classes,
            labels,
            ..
        } = &config.system;
        let build = |images: LabelledImages, held_out| {
            let named = images.studies().classes.len();
            ensure!(
                named == *classes,
                "{} names {named} classes, and the model has {classes}: set classes={named}",
                images.studies().file.display()
            );
            Ok(ClassifierTest {
                images,
                held_out,
                labels: *labels,
            })
        };
        inputs::labelled_images(config, options, resumed, findings, *labels, build)
    }

    fn evaluate(
        &self,
        test: &ClassifierTest,
        _batch_size: usize,
        _is_trained: bool,
    ) -> Result<Classified> {
        let model = self.valid();
        let device = model.device();
        let (mut probabilities, mut labels) = (Vec::new(), Vec::new());
        for batch in test.held_out.iter() {
            for shard in batch.map_err(|error| anyhow!("{error}"))? {
                probabilities.extend(model.classify(&shard, &device));
                labels.extend(shard.items.iter().flat_map(|item| item.labels.clone()));
            }
        }
        Ok(Classified {
            auc: MultiLabelAuc::new(&probabilities, &labels, test.classes().len()),
            probabilities,
            labels,
        })
    }

    fn before(test: &ClassifierTest, scores: &Classified) -> String {
        let [images, studies] = test.images.count(Split::Test);
        format!(
            "Held-out split: {images} images of {studies} studies, {} classes.\n\n\
             Before training: area under the ROC curve {} %, by chance 50 %.\n",
            test.classes().len(),
            fixed(scores.mean(), 2)
        )
    }

    fn after(test: &ClassifierTest, scores: &Classified) -> String {
        let mut text = format!("Area under the ROC curve {} %", fixed(scores.mean(), 2));
        for (class, area) in test.classes().iter().zip(scores.percent()) {
            let _ = write!(text, "\n  {class}: {} %", fixed(area, 2));
        }
        text
    }

    fn report(
        test: &ClassifierTest,
        before: Option<&Classified>,
        after: &Classified,
        _history: &History,
    ) -> RunReport {
        let held_out = after.labels.chunks(test.classes().len());
        let examples = |class: usize, kind| {
            let own = held_out.clone().filter(|one| one[class] == Some(kind));
            own.count() as f64
        };
        let earlier = before.map(Classified::percent);
        let row = |name: &str, counts: [f64; 2], earlier: Option<f64>, area: f64| TableRow {
            name: name.to_string(),
            numbers: counts.into_iter().chain(earlier).chain([area]).collect(),
        };
        let classes = test.classes().iter().zip(after.percent()).enumerate();
        let rows = classes.map(|(class, (name, area))| {
            let counts = [true, false].map(|kind| examples(class, kind));
            row(name, counts, earlier.as_ref().map(|all| all[class]), area)
        });
        let mut rows: Vec<TableRow> = rows.collect();
        let counts = [0, 1].map(|kind| rows.iter().map(|row| row.numbers[kind]).sum());
        rows.push(row(
            "mean",
            counts,
            before.map(Classified::mean),
            after.mean(),
        ));
        let earlier = before.map(|_| "AUC before training".to_string());
        let columns = ["images of it", "other images"].map(str::to_string);
        let columns = columns.into_iter().chain(earlier);
        let [images, studies] = test.images.count(Split::Train).map(|count| count as f64);
        let fact = |name: &str, value: f64, unit: Option<&str>| Fact {
            name: name.to_string(),
            value,
            unit: unit.map(str::to_string),
        };
        RunReport {
            compared: vec![fact("AUC", after.mean(), Some("%"))],
            tables: vec![Table {
                title: "Area under the ROC curve".to_string(),
                lead: "How often, in percent, an image of a class has a higher probability of it \
                       than one that is not, ties counted half; 50 by chance. The mean is over \
                       the classes that have both kinds of images."
                    .to_string(),
                rows_are: "class".to_string(),
                columns: columns.chain(["AUC".to_string()]).collect(),
                rows,
            }],
            facts: vec![
                fact(
                    "Labels, share of the training studies",
                    100.0 * test.labels,
                    Some("%"),
                ),
                fact("Training studies with labels", studies, None),
                fact("Training images with labels", images, None),
            ],
            ..RunReport::default()
        }
    }

    fn run(
        config: &TrainingConfig<ClassifierConfig>,
        options: &Options,
        interrupter: Interrupter,
    ) -> Result<Ended<Self>> {
        run::run(config, options, interrupter)
    }
}
