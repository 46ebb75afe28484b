//! BERT (Devlin et al., 2019) whose last layers look at an image, as in ALBEF (Li et al., 2021).
//!
//! Layers are post-norm with exact GELU. All tokens of a batch are the rows of one matrix, as in
//! the other encoders.

mod decoder;
mod embeddings;
mod encoder;
mod joint;
mod language_head;
mod layer;
#[cfg(test)]
mod tests;
mod twin;

pub use decoder::BertDecoder;
pub use embeddings::BertEmbeddings;
pub use encoder::{BertEncoder, CrossStates};
pub use joint::{JointBert, JointBertConfig, RegionEmbeddings};
pub use language_head::LanguageHead;
pub use twin::TwinFusion;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::{check, check_heads, zero_bias};

/// Shape of a [`Bert`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertConfig {
    /// Number of token embeddings: at least the size of the tokenizer's vocabulary.
    pub vocabulary: usize,
    /// Longest sentence in tokens, the tokenizer's special ones included.
    pub context: usize,
    /// Width of the features, of the images that cross-attention looks at too.
    pub width: usize,
    /// Number of layers, those of fusion included.
    pub layers: usize,
    /// How many of the layers, the last ones, have cross-attention.
    pub fusion_layers: usize,
    /// Attention heads a layer; divides `width`.
    pub heads: usize,
    /// Width inside the feed-forward part of a layer.
    pub intermediate: usize,
    /// Dropout rate of embeddings, attention weights, and what a residual adds.
    pub dropout: f64,
    /// Initial deviation of embeddings and matrices; 0.02 in BERT, whose width is 768. A small
    /// model wants more, in inverse proportion to the root of its width, or cross-attention starts
    /// with hardly any signal.
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
}

fn initializer_range() -> f64 {
    0.02
}

impl BertConfig {
    /// The shape of BERT-base with its last six layers for fusion, as in ALBEF.
    pub fn base() -> Self {
        Self {
            vocabulary: 30_522,
            context: 512,
            width: 768,
            layers: 12,
            fusion_layers: 6,
            heads: 12,
            intermediate: 3072,
            dropout: 0.1,
            initializer_range: initializer_range(),
        }
    }

    /// Checks every size, and that the model is not absurdly large.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        for (name, value, most) in [
            ("bert.vocabulary", self.vocabulary, 10_000_000),
            ("bert.context", self.context, 65_536),
            ("bert.width", self.width, 65_536),
            ("bert.heads", self.heads, 65_536),
            ("bert.intermediate", self.intermediate, 1_000_000),
        ] {
            check::size(name, value, most)?;
        }
        check::multiple("bert.width", self.width, "bert.heads", self.heads)?;
        check::layers("bert.layers", self.layers)?;
        ensure!(
            self.fusion_layers <= self.layers,
            "bert.fusion_layers = {} must be in 0..=bert.layers = {}",
            self.fusion_layers,
            self.layers,
        );
        check::dropout("bert.dropout", self.dropout)?;
        let range = self.initializer_range;
        ensure!(
            range > 0.0 && range <= 1.0,
            "bert.initializer_range = {range} must be in (0, 1]"
        );
        let width = self.width as f64;
        let attentions = (self.layers + self.fusion_layers) as f64 * 4.0 * width * width;
        let feed_forward = self.layers as f64 * 2.0 * width * self.intermediate as f64;
        let tokens = (self.vocabulary + self.context) as f64 * width;
        check::parameters(attentions + feed_forward + tokens)
    }

    fn initializer(&self) -> Initializer {
        Initializer::Normal {
            mean: 0.0,
            std: self.initializer_range,
        }
    }

    /// A new BERT: weights normal with a deviation of `initializer_range`, biases zero.
    ///
    /// # Panics
    ///
    /// If `heads` does not divide `width`, or there are more `fusion_layers` than `layers`.
    pub fn init(&self, device: &Device) -> Bert {
        check_heads("bert", self.width, self.heads);
        let text = self
            .layers
            .checked_sub(self.fusion_layers)
            .expect("bert: fusion_layers must be at most layers");
        Bert {
            embeddings: BertEmbeddings::new(self, device),
            text: BertEncoder::new(self, text, false, device),
            fusion: BertEncoder::new(self, self.fusion_layers, true, device),
        }
    }

    /// A new language head for a [`Bert`] of this shape.
    pub fn init_language_head(&self, device: &Device) -> LanguageHead {
        LanguageHead::new(self, device)
    }
}

/// BERT in two halves: layers that read a sentence, and layers that fuse it with an image.
#[derive(Module, Debug)]
pub struct Bert {
    /// What the first layer sees.
    pub embeddings: BertEmbeddings,
    /// The layers without cross-attention.
    pub text: BertEncoder,
    /// The layers with cross-attention.
    pub fusion: BertEncoder,
}

impl Bert {
    /// The states of a sentence after the text half.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, length]`
    /// - `padding`: `[batch, length]`, true where `tokens` is padding
    /// - output: `[batch, length, width]`
    ///
    /// # Panics
    ///
    /// If the sentences are longer than the context.
    pub fn read(&self, tokens: Tensor<2, Int>, padding: Tensor<2, Bool>) -> Tensor<3> {
        let x = self.embeddings.forward(tokens);
        self.text.forward(x, Some(padding), None)
    }

    /// The states of a sentence after the fusion half.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, length, width]`, what [`read`](Self::read) gives
    /// - `padding`: `[batch, length]`, true where the sentence is padding
    /// - `image`: `[batch, tokens, width]`
    /// - output: `[batch, length, width]`
    ///
    /// # Panics
    ///
    /// If the images are of another batch.
    pub fn fuse(&self, x: Tensor<3>, padding: Tensor<2, Bool>, image: Tensor<3>) -> Tensor<3> {
        self.fusion.forward(x, Some(padding), Some(image.into()))
    }
}

/// A linear layer as BERT starts it.
fn linear(config: &BertConfig, input: usize, output: usize, device: &Device) -> Linear {
    let mut linear = LinearConfig::new(input, output)
        .with_initializer(config.initializer())
        .init(device);
    zero_bias(&mut linear);
    linear
}
