//! Retrieval over a whole split: every image and every caption once.

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
    /// Of images with captions and of captions with images, where they are no cosines.
    similarities: Option<[Tensor<2>; 2]>,
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
    /// `[captions, images]`, for ranks and examples.
    pub fn with_similarities(self, similarities: [Tensor<2>; 2]) -> Self {
        Self {
            similarities: Some(similarities),
            ..self
        }
    }

    /// The embeddings of the images and of the captions, normalised.
    pub fn embeddings(&self) -> [&Tensor<2>; 2] {
        [&self.images, &self.texts]
    }

    /// Ranks both ways.
    pub fn ranks(&self) -> CrossModal {
        if let Some(similarities) = &self.similarities {
            return ranks_of(similarities, &self.image_of_caption);
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
        const IMAGES: usize = 5_000;
        let [images, _] = self.images.dims();
        if images < IMAGES {
            return None;
        }
        let captions = self
            .image_of_caption
            .partition_point(|&image| image < IMAGES);
        Some(five_fold(
            self.images.clone().narrow(0, 0, IMAGES),
            self.texts.clone().narrow(0, 0, captions),
            &self.image_of_caption[..captions],
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
        if let Some([_, of_captions]) = &self.similarities {
            return best(of_captions.clone().narrow(0, caption, 1), k);
        }
        nearest(
            self.texts.clone().narrow(0, caption, 1),
            self.images.clone(),
            k,
        )
    }

    /// The `k` captions most similar to an image, best first, with their similarities.
    pub fn captions_for(&self, image: usize, k: usize) -> Vec<(usize, f64)> {
        if let Some([of_images, _]) = &self.similarities {
            return best(of_images.clone().narrow(0, image, 1), k);
        }
        nearest(
            self.images.clone().narrow(0, image, 1),
            self.texts.clone(),
            k,
        )
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
            facts: match self.embedded.five_folds() {
                Some(folds) => Fact::of_retrieval("Five folds of 1,000 images", &folds),
                None => Vec::new(),
            },
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

/// Ranks of given similarities, of images with captions and of captions with images.
fn ranks_of(similarities: &[Tensor<2>; 2], image_of_caption: &[usize]) -> CrossModal {
    let [of_images, of_captions] = similarities.clone().map(Scores::from_tensor);
    CrossModal {
        image_to_text: of_images.ranks(|image, caption| image_of_caption[caption] == image),
        text_to_image: of_captions.ranks(|caption, image| image_of_caption[caption] == image),
    }
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
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn cosines_that_are_given_have_the_ranks_of_their_embeddings() {
        let device = Device::flex();
        let random = |rows| {
            let values = Tensor::<2>::random([rows, 5], Distribution::Default, &device);
            l2_normalize(values - 0.5)
        };
        let embedded = Embedded {
            images: random(6),
            texts: random(12),
            image_of_caption: (0..12).map(|caption| caption / 2).collect(),
            similarities: None,
        };
        let expected = embedded.ranks();
        let [images, texts] = embedded.embeddings().map(Clone::clone);
        let cosines = images.matmul(texts.transpose());
        let given = [cosines.clone(), cosines.clone().transpose()];
        let [of_image, of_caption] = [embedded.captions_for(2, 3), embedded.images_for(7, 3)];
        let embedded = embedded.with_similarities(given.clone());
        assert_eq!(embedded.ranks(), expected);
        assert_eq!(embedded.captions_for(2, 3), of_image);
        assert_eq!(embedded.images_for(7, 3), of_caption);

        // A tie is lost, and a NaN leaves no rank.
        let equal = Tensor::zeros([6, 12], &device);
        let ranks = ranks_of(
            &[equal.clone(), equal.transpose()],
            &embedded.image_of_caption,
        );
        assert_eq!(ranks.image_to_text.as_slice(), [Some(11); 6]);
        assert_eq!(ranks.text_to_image.as_slice(), [Some(6); 12]);
        let bad = given.map(|values| values * f64::NAN);
        let ranks = ranks_of(&bad, &embedded.image_of_caption);
        assert_eq!(ranks.text_to_image.as_slice(), [None; 12]);
    }
}
