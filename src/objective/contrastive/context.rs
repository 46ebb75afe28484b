//! What a contrast may be given besides the batch.

use burn::tensor::{Int, Tensor};

/// What a contrast is given besides the batch. Everything is optional: `Context::default()`, or
/// `()`, is the batch alone.
///
/// SRCL as published uses most of it: a momentum encoder's features are the candidates and the soft
/// targets, a queue holds earlier ones, and a second, frozen teacher gives the weights.
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_contrastive::objective::{Context, Momentum, Negatives, SrclConfig, Teacher};
///
/// let device = Device::default();
/// let random = |rows, width| {
///     Tensor::<2>::random([rows, width], Distribution::Default, &device)
/// };
/// let config = SrclConfig::new().contrastive();
/// let criterion = config.criterion.with_soft_targets(0.4);
/// let objective = config.with_criterion(criterion).init(&device);
/// let context = Context {
///     momentum: Some(Momentum::new(random(8, 16), random(8, 16))),
///     negatives: Negatives::queue(random(32, 16), random(32, 16)),
///     teacher: Some(
///         Teacher::new(random(8, 24), random(8, 24)).with_queue(random(32, 24), random(32, 24)),
///     ),
///     ..Context::default()
/// };
/// let loss = objective.forward_with(random(8, 16), random(8, 16), context);
/// assert_eq!(loss.dims(), [1]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// A momentum encoder's features of the batch: candidates in place of the batch's own, and the
    /// source of soft targets.
    pub momentum: Option<Momentum>,
    /// Negatives from outside the batch.
    pub negatives: Negatives,
    /// A teacher's features of the same samples, for weights and filters; also the source of soft
    /// targets where there is no momentum encoder.
    pub teacher: Option<Teacher>,
    /// Which samples are the same: see [`SameId`](super::SameId).
    pub ids: Option<Ids>,
}

impl From<()> for Context {
    fn from(_: ()) -> Self {
        Self::default()
    }
}

/// A context of one part alone.
macro_rules! context_of {
    ($($part:ty: $field:ident = $value:expr;)+) => {$(
        impl From<$part> for Context {
            fn from($field: $part) -> Self {
                Self { $field: $value, ..Self::default() }
            }
        }
    )+};
}

context_of! {
    Momentum: momentum = Some(momentum);
    Negatives: negatives = negatives;
    Teacher: teacher = Some(teacher);
    Ids: ids = Some(ids);
    Tensor<1, Int>: ids = Some(ids.into());
}

/// A momentum encoder's features of the batch; constants to the gradient.
#[derive(Clone, Debug)]
pub struct Momentum {
    /// Of the images, `[N, D]`: the candidates of text anchors.
    pub image: Tensor<2>,
    /// Of the texts, `[N, D]`: the candidates of image anchors.
    pub text: Tensor<2>,
}

impl Momentum {
    /// Features of the batch's images and texts, `[N, D]` each.
    pub fn new(image: Tensor<2>, text: Tensor<2>) -> Self {
        Self { image, text }
    }
}

/// Negatives from outside the batch. A tensor without rows is the same as none.
#[derive(Clone, Debug, Default)]
pub struct Negatives {
    /// Images, `[K, D]`, that are candidates of every text: a queue or a memory bank, say.
    pub image: Option<Tensor<2>>,
    /// Texts, `[M, D]`, that are candidates of every image.
    pub text: Option<Tensor<2>>,
    /// Vectors that are candidates of every anchor, image or text, `[Z, D]`: Gaussian noise, say.
    pub noise: Option<Tensor<2>>,
    /// Images that are candidates of one text each, `[N, m, D]`: row `i` belongs to text `i`.
    pub hard_image: Option<Tensor<3>>,
    /// Texts that are candidates of one image each, `[N, m, D]`: row `i` belongs to image `i`.
    pub hard_text: Option<Tensor<3>>,
}

impl Negatives {
    /// A queue's images, `[K, D]`, and texts, `[M, D]`.
    pub fn queue(image: Tensor<2>, text: Tensor<2>) -> Self {
        Self {
            image: Some(image),
            text: Some(text),
            ..Self::default()
        }
    }
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
    /// Features of the batch's images and texts, `[N, E]` each.
    pub fn new(image: Tensor<2>, text: Tensor<2>) -> Self {
        Self {
            image,
            text,
            negative_image: None,
            negative_text: None,
        }
    }

    /// With features of a queue's images, `[K, E]`, and texts, `[M, E]`.
    pub fn with_queue(self, image: Tensor<2>, text: Tensor<2>) -> Self {
        Self {
            negative_image: Some(image),
            negative_text: Some(text),
            ..self
        }
    }
}

/// Integers that say which samples are the same: the image that a caption describes, or a class.
#[derive(Clone, Debug)]
pub struct Ids {
    /// Of the batch's pairs, `[N]`.
    pub batch: Tensor<1, Int>,
    /// Of [`Negatives::image`], `[K]`; without them, none of these is the same as any other sample.
    pub negative_image: Option<Tensor<1, Int>>,
    /// Of [`Negatives::text`], `[M]`.
    pub negative_text: Option<Tensor<1, Int>>,
}

impl Ids {
    /// Ids of the batch, `[N]`.
    pub fn new(batch: Tensor<1, Int>) -> Self {
        Self {
            batch,
            negative_image: None,
            negative_text: None,
        }
    }

    /// With ids of a queue's images, `[K]`, and texts, `[M]`.
    pub fn with_queue(self, image: Tensor<1, Int>, text: Tensor<1, Int>) -> Self {
        Self {
            negative_image: Some(image),
            negative_text: Some(text),
            ..self
        }
    }
}

impl From<Tensor<1, Int>> for Ids {
    fn from(batch: Tensor<1, Int>) -> Self {
        Self::new(batch)
    }
}
