//! A batch on the host, in shards that become tensors one at a time.

use burn::tensor::{Device, Tensor, TensorData};

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
}

/// Pairs of a batch that are encoded together: a quarter of the memory of their tensors, which are
/// made when they are needed.
#[derive(Clone, Debug)]
pub struct Shard {
    /// The pairs.
    pub pairs: Vec<Pair>,
    /// How their pixels are normalised.
    pub transform: TransformConfig,
    /// How their captions are padded: to the longest of the shard.
    pub padding: Padding,
}

impl Shard {
    /// The tensors of all pairs.
    pub fn to_batch(&self, device: &Device) -> Batch {
        let rows = self.pairs.len();
        let size = self.transform.size as usize;
        let mut values = Vec::with_capacity(rows * self.transform.values());
        for pair in &self.pairs {
            self.transform.normalise(&pair.pixels, &mut values);
        }
        let tokens: Vec<_> = self.pairs.iter().map(|pair| &pair.tokens[..]).collect();
        let (tokens, padding) = self.padding.pad(&tokens).into_tensors(rows, device);
        Batch {
            images: Tensor::from_data(TensorData::new(values, [rows, 3, size, size]), device),
            tokens,
            padding,
            image_ids: self.pairs.iter().map(|pair| pair.image_id).collect(),
        }
    }
}
