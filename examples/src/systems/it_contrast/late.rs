//! Regions by words in place of two means: late interaction (FILIP; Yao et al., 2021), as SGRAF and
//! SCAN compare fragments of both modalities.
//!
//! Every region has its closest word, and the similarity of an image with a caption is the mean of
//! theirs; from the caption's side the other way round. The states of a shard travel as rows, all
//! padded to the same number of tokens, with a mask beside them.

use anyhow::Result;
use burn::tensor::activation::softplus;
use burn::tensor::{Bool, Device, Tensor};
use burn_contrastive::objective::{AnyObjective, Directions, InfoCmrConfig, Objective};
use burn_contrastive::pairwise::{Expr, log_add_exp, rows as along_rows};
use burn_contrastive::similarity::{SimilarityConfig, Tokens};

use super::ItContrast;
use crate::data::{RegionPair, Shard};
use crate::models::masked_mean;

/// The states of several sequences, and which of them are padding.
#[derive(Clone)]
pub struct States {
    /// `[sequences, length, width]`
    pub states: Tensor<3>,
    /// `[sequences, length]`
    pub padding: Tensor<2, Bool>,
}

impl States {
    /// The states of sequences one behind the other, all padded to `length`.
    pub fn padded(self, length: usize) -> Self {
        let [rows, own, width] = self.states.dims();
        if own == length {
            return self;
        }
        let device = self.states.device();
        let more = Tensor::zeros([rows, length - own, width], &device);
        let behind = Tensor::<2>::ones([rows, length - own], &device).bool();
        Self {
            states: Tensor::cat(vec![self.states, more], 1),
            padding: Tensor::cat(vec![self.padding, behind], 1),
        }
    }

    /// The sequences of all parts, which are padded to one length.
    pub fn all(parts: Vec<Self>) -> Self {
        let (states, padding) = parts
            .into_iter()
            .map(|part| (part.states, part.padding))
            .unzip();
        Self {
            states: Tensor::cat(states, 0),
            padding: Tensor::cat(padding, 0),
        }
    }

    /// As rows: the states of a sequence, and 1 for each that is none of padding.
    fn into_rows(self) -> [Tensor<2>; 2] {
        let [rows, length, width] = self.states.dims();
        let there = self.padding.bool_not().float();
        [self.states.reshape([rows, length * width]), there]
    }

    /// What [`into_rows`](Self::into_rows) gave.
    fn of_rows(states: &Tensor<2>, there: &Tensor<2>) -> Self {
        let [rows, length] = there.dims();
        let width = states.dims()[1] / length;
        Self {
            states: states.clone().reshape([rows, length, width]),
            padding: there.clone().lower_elem(0.5),
        }
    }

    /// As tokens, without the padding.
    pub fn tokens(&self) -> Tokens {
        let there = self.padding.clone().bool_not();
        Tokens::new(self.states.clone()).with_mask(there)
    }

    /// The mean of each sequence, without its padding: `[sequences, width]`.
    pub fn mean(self) -> Tensor<2> {
        masked_mean(self.states, self.padding)
    }
}

/// The mean of each sequence's states, part by part: the states of two parts are never there at
/// once.
///
/// # Errors
///
/// If a part has one.
pub(super) fn all_means(parts: impl Iterator<Item = Result<States>>) -> Result<Tensor<2>> {
    let means = parts.map(|part| Ok(part?.mean()));
    Ok(Tensor::cat(means.collect::<Result<_>>()?, 0))
}

/// The states of a shard's images and captions, as rows.
pub(super) fn rows(
    model: &ItContrast,
    shard: &Shard<RegionPair>,
    device: &Device,
) -> Vec<Tensor<2>> {
    let room = shard.items.iter().map(|pair| pair.room).max();
    let images = model.look(shard.regions(model.feature(), device));
    let (tokens, padding) = shard.texts(|pair| &pair.tokens, device);
    let texts = model.read(tokens, padding);
    let both = [
        images.padded(room.unwrap_or(0)),
        texts.padded(model.config.tokens),
    ];
    both.into_iter().flat_map(States::into_rows).collect()
}

/// The states of images and of captions, of their rows.
fn both(rows: &[Tensor<2>]) -> [States; 2] {
    [0, 2].map(|at| States::of_rows(&rows[at], &rows[at + 1]))
}

/// The mean of each sequence's states, of images and of captions.
pub(super) fn means(rows: &[Tensor<2>]) -> [Tensor<2>; 2] {
    both(rows).map(States::mean)
}

/// The loss of all pairs; by InfoCMR where there is noise.
pub(super) fn loss(
    objective: &Objective,
    rows: &[Tensor<2>],
    noise: Option<(&InfoCmrConfig, Tensor<2>)>,
) -> Tensor<1> {
    let AnyObjective::Contrastive(contrast) = &objective.kind else {
        unreachable!("the settings are checked: it is a softmax contrast");
    };
    let both = both(rows).map(|states| states.tokens());
    match noise {
        Some((config, noise)) => with_noise(config, &contrast.logit_scale.value(), both, noise),
        None => {
            let [images, texts] = both;
            contrast.forward_late_interaction(images, texts)
        }
    }
}

/// InfoCMR without hard negatives (Wu et al., equation 7), where each vector of noise is a sample
/// of one token: as similar to an image as the mean of its cosines with the regions, and to a
/// caption as that of its cosines with the words.
fn with_noise(
    config: &InfoCmrConfig,
    scale: &Tensor<1>,
    both: [Tokens; 2],
    noise: Tensor<2>,
) -> Tensor<1> {
    let similarity = config.similarity;
    let [images, texts] = both.map(|tokens| similarity.prepare_tokens(tokens));
    let noise = similarity.prepare_tokens(Tokens::new(noise.unsqueeze_dim(1)));
    let of = |anchors: &Tokens, others: &Tokens| {
        let mut pairs = similarity.late_interaction(anchors.clone(), others.clone());
        let logit = pairs.similarity() * pairs.scalar(scale.clone());
        let own = Expr::select(&Expr::diagonal(), &logit, &Expr::constant(0.0));
        let negatives = logit.except(&Expr::diagonal());
        let found = pairs.reduce(&[along_rows().log_sum_exp(&negatives), along_rows().sum(&own)]);
        let mut pairs = similarity.late_interaction(anchors.clone(), noise.clone());
        let logit = pairs.similarity() * pairs.scalar(scale.clone());
        let of_noise = pairs.reduce(&[along_rows().log_sum_exp(&logit)]);
        let negatives = log_add_exp(&[found[0].clone(), of_noise[0].clone()]);
        softplus(negatives - found[1].clone(), 1.0).mean()
    };
    let sum = of(&images, &texts) + of(&texts, &images);
    match config.directions {
        Directions::Sum => sum,
        Directions::Mean => sum / 2.0,
    }
}

/// The similarities of images with captions, `[images, captions]`, and of captions with images.
pub(super) fn similarities(images: &States, texts: &States) -> [Tensor<2>; 2] {
    let similarity = SimilarityConfig::new();
    let counts = [images, texts].map(|states| states.states.dims()[0]);
    let [images, texts] = [images, texts].map(|states| similarity.prepare_tokens(states.tokens()));
    let of = |a: &Tokens, b: &Tokens, rows: usize, columns: usize| {
        let pairs = similarity.late_interaction(a.clone(), b.clone());
        pairs.block(&pairs.similarity(), 0..rows, 0..columns)
    };
    [
        of(&images, &texts, counts[0], counts[1]),
        of(&texts, &images, counts[1], counts[0]),
    ]
}

/// Similarities that differ by no more than this are equal: 2 ε √D covers the rounding of a cosine
/// ([`burn_contrastive::retrieval`]), as much by the number of tokens that of their mean.
pub(super) fn tie(images: &States, texts: &States) -> f64 {
    let [[_, regions, width], [_, words, _]] = [images, texts].map(|states| states.states.dims());
    let tokens = regions.max(words) as f64;
    2.0 * f64::from(f32::EPSILON) * ((width as f64).sqrt() + tokens.sqrt())
}
