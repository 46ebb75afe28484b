//! Retrieval whose most similar candidates the matching head orders anew (Li et al., 2021, section
//! 5): the encoders see every image and every caption once, the fusion layers the pairs of a
//! shortlist.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor};
use burn_contrastive::retrieval::{CrossModal, Ranks, Shortlist};
use rayon::prelude::*;

use super::{Albef, first};
use crate::data::EvaluationSet;
use crate::training::device::is_cpu;
use crate::training::evaluation::{Embedded, Reranked, Retrieved};

/// Pairs that the fusion layers see at a time.
const PAIRS: usize = 64;

/// Token features of all images and captions of a set: `O(images·patches + captions·length)`.
struct Features {
    /// `[images, patches + 1, width]`
    images: Tensor<3>,
    /// `[captions, length, width]`
    texts: Tensor<3>,
    /// `[captions, length]`
    padding: Tensor<2, Bool>,
}

/// What `model` retrieves on `set`; with `k`, also after its matching head has ordered the `k` most
/// similar candidates of each query.
///
/// # Errors
///
/// If an image cannot be read.
pub(super) fn retrieve(
    model: &Albef,
    set: &EvaluationSet,
    batch_size: usize,
    k: Option<usize>,
) -> Result<Retrieved> {
    let model = model.valid();
    let Some(k) = k else {
        return Retrieved::new(&model, set, batch_size);
    };
    let (features, embedded) = encode(&model, set, batch_size)?;
    let ranks = embedded.ranks();
    let [images, texts] = embedded.embeddings();
    let lists = [
        Shortlist::new(images.clone(), texts.clone(), k),
        Shortlist::new(texts.clone(), images.clone(), k),
    ];
    let scores = model.score(&features, &lists);
    let image_of = set.image_of_caption();
    let reranked = |list: &Shortlist, scores: &[f64], before: &Ranks, by_image: bool| {
        let is_match = |query: usize, candidate: usize| {
            let [image, caption] = in_order(query, candidate, by_image);
            image_of[caption] == image
        };
        list.reranked(scores, is_match, before)
    };
    let reranked = CrossModal {
        image_to_text: reranked(&lists[0], &scores[0], &ranks.image_to_text, true),
        text_to_image: reranked(&lists[1], &scores[1], &ranks.text_to_image, false),
    };
    let top = lists.map(|list| list.k()).into_iter().max();
    Ok(Retrieved::of(embedded, ranks).with_reranked(Reranked {
        ranks: reranked,
        top: top.unwrap_or_default(),
    }))
}

/// An image and a caption, of a query and a candidate.
fn in_order(query: usize, candidate: usize, by_image: bool) -> [usize; 2] {
    if by_image {
        [query, candidate]
    } else {
        [candidate, query]
    }
}

fn encode(model: &Albef, set: &EvaluationSet, batch_size: usize) -> Result<(Features, Embedded)> {
    let device = model.model.devices().swap_remove(0);
    let images = set.image_batches(batch_size, &device);
    let images = images.map(|images| Ok(model.model.encode_images(images?)));
    let images = images.collect::<Result<Vec<_>>>();
    let images = images.context("an image of the evaluation could not be read")?;
    let texts = set.caption_batches(batch_size, &device).map(|captions| {
        let captions = captions?;
        let padding = captions.padding.clone();
        let (states, embedding) = model.model.encode_texts(captions.tokens, captions.padding);
        Ok((states, padding, embedding))
    });
    let texts = texts.collect::<Result<Vec<_>>>();
    let texts = texts.context("a caption of the evaluation could not be read")?;

    let (image_tokens, image): (Vec<_>, Vec<_>) = images.into_iter().unzip();
    let longest = texts.iter().map(|(states, ..)| states.dims()[1]).max();
    let longest = longest.unwrap_or_default();
    let text = texts.iter().map(|(.., embedding)| embedding.clone());
    let text = Tensor::cat(text.collect(), 0);
    let padded = |(states, padding, _): &(Tensor<3>, Tensor<2, Bool>, Tensor<2>)| {
        let [rows, length, width] = states.dims();
        let more = longest - length;
        let states = Tensor::cat(
            vec![states.clone(), Tensor::zeros([rows, more, width], &device)],
            1,
        );
        let hidden = Tensor::<2, Bool>::full([rows, more], true, &device);
        (states, Tensor::cat(vec![padding.clone(), hidden], 1))
    };
    let (states, padding): (Vec<_>, Vec<_>) = texts.iter().map(padded).unzip();
    let features = Features {
        images: Tensor::cat(image_tokens, 0),
        texts: Tensor::cat(states, 0),
        padding: Tensor::cat(padding, 0),
    };
    let embedded = Embedded::from_parts(Tensor::cat(image, 0), text, set);
    Ok((features, embedded))
}

impl Albef {
    /// The matching logits of the candidates of both lists, of images and of captions: a pair that
    /// is in both is fused once.
    fn score(&self, features: &Features, lists: &[Shortlist; 2]) -> [Vec<f64>; 2] {
        let pairs_of = |list: &Shortlist, by_image: bool| -> Vec<[usize; 2]> {
            let queries = 0..list.queries();
            let pairs = queries.flat_map(|query| {
                let candidates = list.candidates(query).iter();
                candidates.map(move |&candidate| in_order(query, candidate, by_image))
            });
            pairs.collect()
        };
        let wanted = [pairs_of(&lists[0], true), pairs_of(&lists[1], false)];
        let all: BTreeSet<[usize; 2]> = wanted.iter().flatten().copied().collect();
        let all: Vec<_> = all.into_iter().collect();
        let logits = |pairs: &[[usize; 2]]| self.matching_logits(features, pairs);
        let chunks = all.chunks(PAIRS);
        let scores: Vec<f64> = if is_cpu(&features.images.device()) {
            let chunks: Vec<_> = chunks.collect();
            chunks.into_par_iter().flat_map_iter(logits).collect()
        } else {
            chunks.flat_map(logits).collect()
        };
        wanted.map(|pairs| {
            let score = |pair: &[usize; 2]| {
                let index = all.binary_search(pair).expect("all pairs were scored");
                scores[index]
            };
            pairs.iter().map(score).collect()
        })
    }

    /// The logit that image and caption match, for each pair.
    fn matching_logits(&self, features: &Features, pairs: &[[usize; 2]]) -> Vec<f64> {
        let device = features.images.device();
        let [images, captions] = [0, 1].map(|side| {
            let rows: Vec<i32> = pairs.iter().map(|pair| pair[side] as i32).collect();
            Tensor::<1, Int>::from_data(&rows[..], &device)
        });
        let padding = features.padding.clone().int().select(0, captions.clone());
        let fused = self.model.fuse(
            features.texts.clone().select(0, captions),
            padding.bool(),
            features.images.clone().select(0, images),
        );
        let logits = self.matching_head.forward(first(fused));
        let matching = logits.narrow(1, 1, 1).into_data();
        matching.iter::<f64>().collect()
    }
}
