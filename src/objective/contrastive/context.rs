//! What an anchor meets besides its batch.

use burn::tensor::{Int, Tensor};

/// What a contrast knows besides the batch. Everything is optional: `Context::default()` is the batch alone.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Negatives from outside the batch.
    pub negatives: Negatives,
    /// Other features of the same samples, for weights and filters that ask a teacher.
    pub teacher: Option<Teacher>,
    /// Which samples are the same: see [`SameId`](super::SameId).
    pub ids: Option<Ids>,
}

impl From<Negatives> for Context {
    fn from(negatives: Negatives) -> Self {
        Self {
            negatives,
            ..Self::default()
        }
    }
}

impl From<Teacher> for Context {
    fn from(teacher: Teacher) -> Self {
        Self {
            teacher: Some(teacher),
            ..Self::default()
        }
    }
}

/// Negatives from outside the batch. No rows count as none.
#[derive(Clone, Debug, Default)]
pub struct Negatives {
    /// Extra images, `[K, D]`, that every text meets: a queue or a memory bank, say.
    pub image: Option<Tensor<2>>,
    /// Extra texts, `[M, D]`, that every image meets.
    pub text: Option<Tensor<2>>,
    /// Vectors that every anchor meets, image or text, `[Z, D]`: Gaussian noise, say.
    pub noise: Option<Tensor<2>>,
    /// Images of one text each, `[N, m, D]`: text `i` meets row `i`.
    pub hard_image: Option<Tensor<3>>,
    /// Texts of one image each, `[N, m, D]`: image `i` meets row `i`.
    pub hard_text: Option<Tensor<3>>,
}

/// A teacher's features of the same samples; constants to the gradient. Their width is their own.
#[derive(Clone, Debug)]
pub struct Teacher {
    /// Of the batch's images, `[N, E]`.
    pub image: Tensor<2>,
    /// Of the batch's texts, `[N, E]`.
    pub text: Tensor<2>,
    /// Of [`Negatives::image`], `[K, E]`.
    pub negative_image: Option<Tensor<2>>,
    /// Of [`Negatives::text`], `[M, E]`.
    pub negative_text: Option<Tensor<2>>,
}

impl Teacher {
    /// Features of the batch.
    pub fn new(image: Tensor<2>, text: Tensor<2>) -> Self {
        Self {
            image,
            text,
            negative_image: None,
            negative_text: None,
        }
    }
}

/// Integers that say which samples are the same: the image that a caption describes, a class.
#[derive(Clone, Debug)]
pub struct Ids {
    /// Of the batch's pairs, `[N]`.
    pub batch: Tensor<1, Int>,
    /// Of [`Negatives::image`], `[K]`; without, none of them is the same as any.
    pub negative_image: Option<Tensor<1, Int>>,
    /// Of [`Negatives::text`], `[M]`.
    pub negative_text: Option<Tensor<1, Int>>,
}

impl Ids {
    /// Ids of the batch.
    pub fn new(batch: Tensor<1, Int>) -> Self {
        Self {
            batch,
            negative_image: None,
            negative_text: None,
        }
    }
}

impl From<Tensor<1, Int>> for Ids {
    fn from(batch: Tensor<1, Int>) -> Self {
        Self::new(batch)
    }
}
