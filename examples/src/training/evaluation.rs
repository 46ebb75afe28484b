//! Retrieval over a whole split: every image and every caption once.

use std::ops::Range;

use anyhow::{Context, Result};
use burn::module::Module;
use burn::tensor::Tensor;
use burn_contrastive::retrieval::{
    CrossModal, CrossModalMetrics, Scores, SimilarityHistogram, cross_modal, five_fold,
    similarity_histogram,
};
use burn_contrastive::similarity::l2_normalize;

use super::output::Embeddings;
use super::summary;
use crate::data::{CaptionBatch, EvaluationSet};
use crate::models::DualEncoder;
use crate::number::counted;
use crate::report::{Fact, MAP_PAIRS, Map, Retrieval, RetrievalScores, RunReport, Similarities};

/// What embeds images and captions in one space.
pub trait EmbedsPairs: Module {
    /// Embeddings of images, `[batch, 3, image_size, image_size]`: `[batch, embedding]`.
    fn embed_images(&self, images: Tensor<4>) -> Tensor<2>;

    /// Embeddings of captions: `[batch, embedding]`.
    fn embed_captions(&self, captions: CaptionBatch) -> Tensor<2>;
}

impl EmbedsPairs for DualEncoder {
    fn embed_images(&self, images: Tensor<4>) -> Tensor<2> {
        self.embed_image(images)
    }

    fn embed_captions(&self, captions: CaptionBatch) -> Tensor<2> {
        self.embed_text(captions.tokens, captions.padding)
    }
}

/// Retrieval both ways among pairs, each image with its one caption.
pub fn retrieval_of_pairs(pairs: &Embeddings) -> CrossModalMetrics {
    let [count, _] = pairs.images.dims();
    let image_of_text: Vec<usize> = (0..count).collect();
    cross_modal(pairs.images.clone(), pairs.texts.clone(), &image_of_text).metrics()
}

/// The embeddings of an evaluation set.
pub struct Embedded {
    /// One row an image.
    images: Tensor<2>,
    /// One row a caption.
    texts: Tensor<2>,
    image_of_caption: Vec<usize>,
    /// Where they are no cosines.
    similarities: Option<Given>,
}

/// Similarities from elsewhere, of images with captions and of captions with images.
struct Given {
    pairs: [Tensor<2>; 2],
    /// Those that differ by no more than this are equal.
    tie: f64,
}

impl Embedded {
    /// Embeds all images and captions of `set`, `batch_size` at a time.
    ///
    /// # Errors
    ///
    /// If an image cannot be read.
    pub fn new(model: &impl EmbedsPairs, set: &EvaluationSet, batch_size: usize) -> Result<Self> {
        let model = model.valid();
        let device = model.devices().swap_remove(0);
        let images = set
            .image_batches(batch_size, &device)
            .map(|images| Ok(model.embed_images(images?)))
            .collect::<Result<Vec<_>>>()
            .context("an image of the evaluation could not be read")?;
        Self::of_images(Tensor::cat(images, 0), &model, set, batch_size)
    }

    /// Embeds all captions of `set`, `batch_size` at a time, beside `images`, the embeddings of its
    /// images.
    ///
    /// # Errors
    ///
    /// If a caption cannot be read.
    pub fn of_images(
        images: Tensor<2>,
        model: &impl EmbedsPairs,
        set: &EvaluationSet,
        batch_size: usize,
    ) -> Result<Self> {
        let model = model.valid();
        let device = model.devices().swap_remove(0);
        let texts = set
            .caption_batches(batch_size, &device)
            .map(|captions| captions.map(|batch| model.embed_captions(batch)))
            .collect::<Result<Vec<_>, _>>()
            .context("a caption of the evaluation could not be read")?;
        Ok(Self::from_parts(images, Tensor::cat(texts, 0), set))
    }

    /// The embeddings of all images and of all captions of `set`, in its order, `[rows, width]`.
    pub fn from_parts(images: Tensor<2>, texts: Tensor<2>, set: &EvaluationSet) -> Self {
        Self {
            images: l2_normalize(images),
            texts: l2_normalize(texts),
            image_of_caption: set.image_of_caption().to_vec(),
            similarities: None,
        }
    }

    /// With other similarities than the cosines of the embeddings, `[images, captions]` and
    /// `[captions, images]`, for ranks and examples. Those that differ by no more than `tie` are
    /// equal, as [`Scores::with_tie`] has it.
    pub fn with_similarities(self, pairs: [Tensor<2>; 2], tie: f64) -> Self {
        Self {
            similarities: Some(Given { pairs, tie }),
            ..self
        }
    }

    /// The embeddings of the images and of the captions, normalised.
    pub fn embeddings(&self) -> [&Tensor<2>; 2] {
        [&self.images, &self.texts]
    }

    /// Ranks both ways.
    pub fn ranks(&self) -> CrossModal {
        if let Some(given) = &self.similarities {
            return given.ranks(&self.image_of_caption);
        }
        cross_modal(
            self.images.clone(),
            self.texts.clone(),
            &self.image_of_caption,
        )
    }

    /// The mean of recall and ranks over five folds of 1,000 images each, the first 5,000 in their
    /// order, as MS-COCO is reported; `None` where there are fewer.
    pub fn five_folds(&self) -> Option<CrossModalMetrics> {
        const FOLD: usize = 1_000;
        const IMAGES: usize = 5 * FOLD;
        let [images, _] = self.images.dims();
        if images < IMAGES {
            return None;
        }
        let of = &self.image_of_caption;
        if let Some(given) = &self.similarities {
            let folds = (0..5).map(|fold| given.fold(fold * FOLD..(fold + 1) * FOLD, of).metrics());
            return Some(CrossModalMetrics::average(&folds.collect::<Vec<_>>()));
        }
        let captions = of.partition_point(|&image| image < IMAGES);
        Some(five_fold(
            self.images.clone().narrow(0, 0, IMAGES),
            self.texts.clone().narrow(0, 0, captions),
            &of[..captions],
        ))
    }

    /// Similarities of all pairs in `bins` bins, matching ones apart.
    pub fn histogram(&self, bins: usize) -> SimilarityHistogram {
        similarity_histogram(
            self.images.clone(),
            self.texts.clone(),
            &self.image_of_caption,
            bins,
        )
    }

    /// The `k` images most similar to a caption, best first, with their similarities.
    pub fn images_for(&self, caption: usize, k: usize) -> Vec<(usize, f64)> {
        if let Some(given) = &self.similarities {
            return best(given.pairs[1].clone().narrow(0, caption, 1), k);
        }
        nearest(
            self.texts.clone().narrow(0, caption, 1),
            self.images.clone(),
            k,
        )
    }

    /// The `k` captions most similar to an image, best first, with their similarities.
    pub fn captions_for(&self, image: usize, k: usize) -> Vec<(usize, f64)> {
        if let Some(given) = &self.similarities {
            return best(given.pairs[0].clone().narrow(0, image, 1), k);
        }
        nearest(
            self.images.clone().narrow(0, image, 1),
            self.texts.clone(),
            k,
        )
    }
}

impl Given {
    /// Ranks both ways.
    fn ranks(&self, image_of_caption: &[usize]) -> CrossModal {
        let scores = |pairs| Scores::from_tensor(pairs).with_tie(self.tie);
        let [of_images, of_captions] = self.pairs.clone().map(scores);
        CrossModal {
            image_to_text: of_images.ranks(|image, caption| image_of_caption[caption] == image),
            text_to_image: of_captions.ranks(|caption, image| image_of_caption[caption] == image),
        }
    }

    /// Ranks among these images and their captions alone, where captions are image by image.
    fn fold(&self, images: Range<usize>, image_of_caption: &[usize]) -> CrossModal {
        let captions = [images.start, images.end]
            .map(|end| image_of_caption.partition_point(|&image| image < end));
        let captions = captions[0]..captions[1];
        let [of_images, of_captions] = self.pairs.clone();
        let own: Vec<_> = image_of_caption[captions.clone()]
            .iter()
            .map(|image| image - images.start)
            .collect();
        let fold = Self {
            pairs: [
                of_images.slice([images.clone(), captions.clone()]),
                of_captions.slice([captions, images]),
            ],
            tie: self.tie,
        };
        fold.ranks(&own)
    }
}

/// What a model retrieves on a whole split.
pub struct Retrieved {
    embedded: Embedded,
    ranks: CrossModal,
    reranked: Option<Reranked>,
}

/// Ranks after the most similar candidates of each query were ordered anew.
pub struct Reranked {
    /// The ranks.
    pub ranks: CrossModal,
    /// How many candidates were.
    pub top: usize,
}

const HISTOGRAM_BINS: usize = 50;
const EXAMPLES: usize = 8;

impl Retrieved {
    /// Embeds and ranks all images and captions of `set`, `batch_size` at a time.
    ///
    /// # Errors
    ///
    /// If an image cannot be read.
    pub fn new(model: &impl EmbedsPairs, set: &EvaluationSet, batch_size: usize) -> Result<Self> {
        let embedded = Embedded::new(model, set, batch_size)?;
        let ranks = embedded.ranks();
        Ok(Self::of(embedded, ranks))
    }

    /// Embeddings with their ranks.
    pub fn of(embedded: Embedded, ranks: CrossModal) -> Self {
        Self {
            embedded,
            ranks,
            reranked: None,
        }
    }

    /// With ranks after the most similar candidates were ordered anew.
    pub fn with_reranked(self, reranked: Reranked) -> Self {
        Self {
            reranked: Some(reranked),
            ..self
        }
    }

    /// Recall and ranks after the most similar candidates were ordered anew.
    pub fn reranked(&self) -> Option<CrossModalMetrics> {
        self.reranked
            .as_ref()
            .map(|reranked| reranked.ranks.metrics())
    }

    /// How well the trained model retrieves, in words.
    pub fn after(&self) -> String {
        let metrics = self.metrics();
        match &self.reranked {
            None => metrics.to_string(),
            Some(Reranked { ranks, top }) => format!(
                "{metrics}\n\nThe {top} most similar candidates ordered by the matching head\n{}",
                ranks.metrics()
            ),
        }
    }

    /// The embeddings.
    pub fn embedded(&self) -> &Embedded {
        &self.embedded
    }

    /// Recall and ranks both ways.
    pub fn metrics(&self) -> CrossModalMetrics {
        self.ranks.metrics()
    }

    /// How well the model retrieves before its training, and by chance, in words.
    pub fn before(&self, set: &EvaluationSet) -> String {
        let chance = chance(set);
        format!(
            "Held-out split: {}, {}. By chance R@1 is {:.2} % and {:.2} %.\n\n\
             Before training\n{}\n",
            counted(set.num_images(), "image"),
            counted(set.num_captions(), "caption"),
            chance.image_to_text.recall_at_1,
            chance.text_to_image.recall_at_1,
            self.metrics(),
        )
    }

    /// A map of at most [`MAP_PAIRS`] images, spread over the set, each with its first caption.
    ///
    /// # Errors
    ///
    /// As [`Map::of`].
    pub fn map(&self, seed: u64) -> Result<Map> {
        let [images, texts] = self.embedded.embeddings();
        let mut first = vec![None; images.dims()[0]];
        for (caption, &image) in self.embedded.image_of_caption.iter().enumerate() {
            first[image].get_or_insert(caption);
        }
        let pairs = first.iter().enumerate();
        let pairs = pairs.filter_map(|(image, caption)| Some([image, (*caption)?]));
        let pairs: Vec<_> = pairs.collect();
        let shown: Vec<_> = summary::spread(pairs.len(), MAP_PAIRS).collect();
        let rows = |all: &Tensor<2>, side: usize| {
            let width = all.dims()[1];
            let values: Vec<f64> = all.to_data().iter::<f64>().collect();
            let row = |&place: &usize| {
                let at = pairs[place][side] * width;
                values[at..at + width].to_vec()
            };
            shown.iter().map(row).collect::<Vec<_>>()
        };
        Map::of(&rows(images, 0), &rows(texts, 1), seed)
    }

    /// The parts of a report that retrieval gives, where `before` is that of the model before its
    /// training, if there was one.
    pub fn report(&self, set: &EvaluationSet, before: Option<&Self>) -> RunReport {
        let folds = self.embedded.five_folds();
        let folds = |name| {
            folds
                .iter()
                .flat_map(move |folds| Fact::of_retrieval(name, folds))
        };
        RunReport {
            retrieval: Retrieval {
                split: "test".to_string(),
                images: set.num_images() as u64,
                captions: set.num_captions() as u64,
                chance: Some(chance(set)),
                before: before.map(|before| (&before.metrics()).into()),
                after: Some((&self.metrics()).into()),
                reranked: self.reranked().map(|metrics| (&metrics).into()),
                reranked_top: self.reranked.as_ref().map(|reranked| reranked.top as u64),
            },
            similarities: Similarities {
                before: before.map(|before| before.embedded.histogram(HISTOGRAM_BINS).into()),
                after: Some(self.embedded.histogram(HISTOGRAM_BINS).into()),
            },
            examples: summary::examples(set, &self.embedded, &self.ranks, EXAMPLES),
            facts: folds("Five folds of 1,000 images").collect(),
            // What runs are compared by stands in the heads of columns.
            compared: folds("5 × 1K").collect(),
            ..RunReport::default()
        }
    }
}

/// Retrieval by chance.
pub fn chance(set: &EvaluationSet) -> RetrievalScores {
    let mut captions = vec![0; set.num_images()];
    for &image in set.image_of_caption() {
        captions[image] += 1;
    }
    RetrievalScores::chance(&captions)
}

fn nearest(query: Tensor<2>, candidates: Tensor<2>, k: usize) -> Vec<(usize, f64)> {
    best(query.matmul(candidates.transpose()), k)
}

/// The `k` largest of a row of similarities, best first.
fn best(similarities: Tensor<2>, k: usize) -> Vec<(usize, f64)> {
    let similarities = similarities.into_data();
    let mut ranked: Vec<(usize, f64)> = similarities.iter::<f64>().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(k);
    ranked
}

#[cfg(test)]
pub(crate) mod tests;
