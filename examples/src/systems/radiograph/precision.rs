//! Retrieval by class: precision among the nearest images, and similarities, of images with images
//! and of sentences with images (Lin et al., table 1 and figure 4).

use std::fmt::Write;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Tensor};
use burn_contrastive::retrieval::{
    SimilarityHistogram, label_histogram, precision_at_k, precision_by_chance,
};

use super::RadiographModel;
use crate::data::{CaptionTokenizer, ClassRetrieval, EvaluationSet, TransformConfig};
use crate::number::counted;
use crate::report::{Fact, NamedHistogram, Table, TableRow};

/// The depths of Prec@k (section 4.1), those that the candidates have.
const DEPTHS: [usize; 3] = [5, 10, 50];
const BINS: usize = 50;
const QUERIES: [&str; 2] = ["image–image", "text–image"];

/// Queries and candidates, to be embedded.
pub struct ByClass {
    retrieval: ClassRetrieval,
    images: EvaluationSet,
    tokenizer: Arc<CaptionTokenizer>,
}

/// How precise retrieval by class is.
#[derive(Clone, Debug, PartialEq)]
pub struct Precisions {
    /// The depths k.
    pub depths: Vec<usize>,
    /// Prec@k in percent, of query images and of query sentences.
    pub by_query: [Vec<f64>; 2],
    /// The same by chance.
    pub chance: [f64; 2],
    /// Cosines of queries with candidates, of query images and of query sentences.
    pub similarities: [SimilarityHistogram; 2],
}

impl ByClass {
    /// Queries and candidates whose images are decoded by `workers` threads.
    ///
    /// # Errors
    ///
    /// If a value of `transform` is out of range, and if there are fewer candidates than the least
    /// depth.
    pub fn new(
        retrieval: ClassRetrieval,
        tokenizer: Arc<CaptionTokenizer>,
        transform: TransformConfig,
        workers: usize,
    ) -> Result<Self> {
        let (found, [least, ..]) = (retrieval.candidates.len(), DEPTHS);
        ensure!(
            found >= least,
            "{}: it has {}, and Prec@{least} needs at least {least}",
            retrieval.file.display(),
            counted(found, "candidate")
        );
        Ok(Self {
            images: retrieval.images(&tokenizer, transform, workers)?,
            retrieval,
            tokenizer,
        })
    }

    /// The queries and candidates.
    pub fn retrieval(&self) -> &ClassRetrieval {
        &self.retrieval
    }

    /// The embeddings of the query images, of the query sentences and of the candidates,
    /// `batch_size` at a time.
    ///
    /// # Errors
    ///
    /// If an image cannot be read.
    pub fn embed(
        &self,
        model: &RadiographModel,
        batch_size: usize,
        device: &Device,
    ) -> Result<[Tensor<2>; 3]> {
        let images = self.images.image_batches(batch_size, device);
        let images = images.map(|images| Ok(model.embed_images(images?)));
        let images = images.collect::<Result<Vec<_>>>();
        let images = Tensor::cat(images.context("an image by class could not be read")?, 0);
        let sentences = self
            .retrieval
            .sentences(&self.tokenizer, batch_size, device)?;
        let sentences = sentences
            .into_iter()
            .map(|batch| model.embed_texts(batch.tokens, batch.padding));
        let queries = self.retrieval.query_images.len();
        let candidates = self.retrieval.candidates.len();
        Ok([
            images.clone().narrow(0, 0, queries),
            Tensor::cat(sentences.collect(), 0),
            images.narrow(0, queries, candidates),
        ])
    }

    /// What a model's embeddings retrieve.
    ///
    /// # Errors
    ///
    /// If an image cannot be read.
    pub fn score(
        &self,
        model: &RadiographModel,
        batch_size: usize,
        device: &Device,
    ) -> Result<Precisions> {
        let embeddings = self.embed(model, batch_size, device)?;
        Ok(Precisions::new(embeddings, self.retrieval.labels()))
    }

    /// What is searched, in words.
    pub fn summary(&self) -> String {
        let [images, sentences, candidates] = self.retrieval.labels().map(|labels| labels.len());
        format!(
            "Retrieval by class: {images} query images and {sentences} query sentences of {} \
             classes, {candidates} candidate images.",
            self.retrieval.classes.len()
        )
    }
}

impl Precisions {
    /// Of the embeddings of query images, query sentences and candidates, with their classes.
    pub fn new(embeddings: [Tensor<2>; 3], labels: [Vec<usize>; 3]) -> Self {
        let [images, sentences, candidates] = embeddings;
        let [of_images, of_sentences, of_candidates] = labels;
        let depths = DEPTHS.into_iter();
        let depths: Vec<_> = depths.filter(|&k| k <= of_candidates.len()).collect();
        let queries = [(images, of_images), (sentences, of_sentences)];
        Self {
            by_query: queries.each_ref().map(|(queries, labels)| {
                let (queries, candidates) = (queries.clone(), candidates.clone());
                precision_at_k(queries, labels, candidates, &of_candidates, &depths)
            }),
            chance: queries
                .each_ref()
                .map(|(_, labels)| precision_by_chance(labels, &of_candidates)),
            similarities: queries.map(|(queries, labels)| {
                label_histogram(queries, &labels, candidates.clone(), &of_candidates, BINS)
            }),
            depths,
        }
    }

    /// The mean over both kinds of queries and all depths, in percent: the measure that the paper
    /// compares by.
    pub fn average(&self) -> f64 {
        let all = self.by_query.iter().flatten();
        all.sum::<f64>() / (2 * self.depths.len()) as f64
    }

    /// The rows of a table: `prefix` says of which model they are.
    fn rows(&self, prefix: &str) -> Vec<TableRow> {
        let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
        let queries = QUERIES.iter().zip(&self.by_query);
        let rows = queries.map(|(name, precisions)| TableRow {
            name: format!("{name}{prefix}"),
            numbers: [&precisions[..], &[mean(precisions)]].concat(),
        });
        let both = |place: usize| mean(&[self.by_query[0][place], self.by_query[1][place]]);
        let average = (0..self.depths.len()).map(both).chain([self.average()]);
        let average = TableRow {
            name: format!("both{prefix}"),
            numbers: average.collect(),
        };
        rows.chain([average]).collect()
    }

    /// The table of a report, beside chance and the model before its training.
    pub fn table(&self, before: Option<&Self>) -> Table {
        let depths = self.depths.iter().map(|k| format!("Prec@{k}"));
        let mut rows: Vec<TableRow> = QUERIES
            .iter()
            .zip(self.chance)
            .map(|(name, chance)| TableRow {
                name: format!("{name}, by chance"),
                numbers: vec![chance; self.depths.len() + 1],
            })
            .collect();
        if let Some(before) = before {
            rows.extend(before.rows(", before training"));
        }
        rows.extend(self.rows(""));
        Table {
            title: "Retrieval by class".to_string(),
            lead: "Percentage of the k nearest candidate images that have the class of the query, \
                   a query being an image or a sentence."
                .to_string(),
            rows_are: "queries".to_string(),
            columns: depths.chain(["mean".to_string()]).collect(),
            rows,
        }
    }

    /// What runs are compared by: table 1's columns, the average last.
    pub fn compared(&self) -> Vec<Fact> {
        let fact = |name: String, value| Fact {
            name,
            value,
            unit: Some("%".to_string()),
        };
        let queries = QUERIES.iter().zip(&self.by_query);
        let each = queries.flat_map(|(name, precisions)| {
            let at = self.depths.iter().zip(precisions);
            at.map(move |(k, &precision)| fact(format!("{name} Prec@{k}"), precision))
        });
        let average = fact("average precision".to_string(), self.average());
        each.chain([average]).collect()
    }

    /// The histograms of a report.
    pub fn histograms(&self) -> Vec<NamedHistogram> {
        let named = QUERIES.iter().zip(&self.similarities);
        let named = named.map(|(name, similarities)| NamedHistogram {
            name: format!("{name} similarities"),
            histogram: similarities.clone().into(),
        });
        named.collect()
    }

    /// A table for the terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{:<12}", "");
        for k in &self.depths {
            let _ = write!(text, " {:>8}", format!("Prec@{k}"));
        }
        text += "   chance";
        for ((name, precisions), chance) in QUERIES.iter().zip(&self.by_query).zip(self.chance) {
            let _ = write!(text, "\n{name:<12}");
            for precision in precisions {
                let _ = write!(text, " {precision:>8.2}");
            }
            let _ = write!(text, " {chance:>8.2}");
        }
        let _ = write!(text, "\naverage      {:>8.2}", self.average());
        text
    }
}
