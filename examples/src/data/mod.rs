//! Image–caption pairs: from files on disk to batches of tensors.

use burn::tensor::{Bool, Int, Tensor};

/// One batch of image–caption pairs; row `i` of every field belongs to pair `i`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Normalised pixels, `[batch, 3, height, width]`.
    pub images: Tensor<4>,
    /// Token ids, `[batch, length]`, padded at the end.
    pub tokens: Tensor<2, Int>,
    /// True where `tokens` is padding, `[batch, length]`.
    pub padding: Tensor<2, Bool>,
    /// Index of each row's image in its collection.
    pub image_ids: Vec<usize>,
}
