//! A batch on the host, in shards that become tensors one at a time.

use burn::tensor::{Bool, Device, Int, Tensor};

use super::tokenizer::Padding;
use super::{Batch, TransformConfig};

/// An image and its caption, on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The image as [`TransformConfig`] cuts it out, not normalised: `[3, size, size]`.
    pub pixels: Vec<u8>,
    /// The caption's token ids.
    pub tokens: Vec<u32>,
    /// Index of the image in its collection.
    pub image_id: usize,
    /// Equal for two pairs exactly if their captions say the same, where that is known; otherwise
    /// that of no other image.
    pub meaning: usize,
}

/// Items of a batch that are encoded together, such as [`Pair`]s: a quarter of the memory of their
/// tensors, which are made when they are needed.
#[derive(Clone, Debug)]
pub struct Shard<T = Pair> {
    /// The items.
    pub items: Vec<T>,
    /// How their pixels are normalised.
    pub transform: TransformConfig,
    /// How their texts are padded: to the longest of the shard.
    pub padding: Padding,
}

impl<T> Shard<T> {
    /// The normalised pixels of an image of each item, `[items, 3, size, size]`.
    pub fn images(&self, pixels: impl Fn(&T) -> &[u8], device: &Device) -> Tensor<4> {
        let mut values = Vec::with_capacity(self.items.len() * self.transform.values());
        for item in &self.items {
            self.transform.normalise(pixels(item), &mut values);
        }
        self.transform.tensor(values, device)
    }

    /// The token ids of a text of each item, and where they are padding, `[items, length]` each.
    pub fn texts<'a>(
        &'a self,
        tokens: impl Fn(&'a T) -> &'a [u32],
        device: &Device,
    ) -> (Tensor<2, Int>, Tensor<2, Bool>) {
        let tokens: Vec<_> = self.items.iter().map(tokens).collect();
        self.padding.pad(&tokens).into_tensors(tokens.len(), device)
    }

    /// The token ids of texts that are not one an item, and where they are padding, `[texts,
    /// length]` each: as long as the longest, whatever the context.
    pub fn rows(
        &self,
        tokens: &[impl AsRef<[u32]>],
        device: &Device,
    ) -> (Tensor<2, Int>, Tensor<2, Bool>) {
        let lengths = tokens.iter().map(|row| row.as_ref().len());
        let padding = Padding {
            context_length: lengths.max().unwrap_or(0),
            ..self.padding
        };
        padding.pad(tokens).into_tensors(tokens.len(), device)
    }
}

impl Shard {
    /// The tensors of all pairs.
    pub fn to_batch(&self, device: &Device) -> Batch {
        let (tokens, padding) = self.texts(|pair| &pair.tokens, device);
        Batch {
            images: self.images(|pair| &pair.pixels, device),
            tokens,
            padding,
            image_ids: self.items.iter().map(|pair| pair.image_id).collect(),
        }
    }
}
