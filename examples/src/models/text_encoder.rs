//! A text transformer: tokens, positions, a pre-norm transformer, one vector a caption.

use anyhow::Result;
use burn::module::{Module, Param};
use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::transformer::TransformerEncoder;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig};
use burn::tensor::{Bool, Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::pooling::{last_token, masked_mean};
use super::{Activation, EMBEDDING_INIT, Pooling, check, check_heads, transformer};

/// Shape of a [`TextEncoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextEncoderConfig {
    /// Number of token embeddings: at least the size of the tokenizer's vocabulary.
    pub vocabulary: usize,
    /// Longest caption in tokens, the tokenizer's special ones included.
    pub context: usize,
    /// Width of the features.
    pub width: usize,
    /// Number of transformer layers.
    pub layers: usize,
    /// Attention heads a layer; divides `width`.
    pub heads: usize,
    /// How tokens become one vector.
    pub pooling: Pooling,
    /// Dropout rate inside the transformer.
    pub dropout: f64,
    /// Activation of the feed-forward parts. Default: GELU.
    #[serde(default)]
    pub activation: Activation,
}

impl TextEncoderConfig {
    /// Checks every size by itself, under names that start with `text.`.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        for (name, value, most) in [
            ("text.vocabulary", self.vocabulary, 10_000_000),
            ("text.context", self.context, 65_536),
            ("text.width", self.width, 65_536),
            ("text.heads", self.heads, 65_536),
        ] {
            check::size(name, value, most)?;
        }
        check::multiple("text.width", self.width, "text.heads", self.heads)?;
        check::layers("text.layers", self.layers)?;
        check::dropout("text.dropout", self.dropout)
    }

    /// About how many parameters the encoder has.
    pub(super) fn about_parameters(&self) -> f64 {
        let tokens = (self.vocabulary + self.context) as f64 * self.width as f64;
        transformer::about_parameters(self.layers, self.width) + tokens
    }

    /// A new encoder.
    ///
    /// # Panics
    ///
    /// If `heads` does not divide `width`.
    pub fn init(&self, device: &Device) -> TextEncoder {
        check_heads("text encoder", self.width, self.heads);
        TextEncoder {
            tokens: EmbeddingConfig::new(self.vocabulary, self.width)
                .with_initializer(EMBEDDING_INIT)
                .init(device),
            positions: EMBEDDING_INIT.init([1, self.context, self.width], device),
            transformer: transformer::config(self.width, self.layers, self.heads, self.dropout)
                .init(device),
            post_norm: LayerNormConfig::new(self.width).init(device),
            pooling: self.pooling,
            activation: self.activation,
        }
    }
}

/// A text transformer. By [`Pooling::Last`] it is CLIP's: causal, and the feature of a caption is
/// that of the token at its end. Otherwise every token sees every other that is not padding, as in
/// BERT.
#[derive(Module, Debug)]
pub struct TextEncoder {
    tokens: Embedding,
    positions: Param<Tensor<3>>,
    transformer: TransformerEncoder,
    post_norm: LayerNorm,
    #[module(skip)]
    pooling: Pooling,
    #[module(skip)]
    activation: Activation,
}

impl TextEncoder {
    /// One feature vector a caption, which the padding does not change.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, length]`, `length` at most the configured context
    /// - `padding`: `[batch, length]`, true where `tokens` is padding
    /// - output: `[batch, width]`
    ///
    /// # Panics
    ///
    /// If the captions are longer than the context.
    pub fn forward(&self, tokens: Tensor<2, Int>, padding: Tensor<2, Bool>) -> Tensor<2> {
        let [batch, length] = tokens.dims();
        let [_, context, _] = self.positions.dims();
        assert!(
            length <= context,
            "text encoder: captions of {length} tokens exceed the context of {context}",
        );
        let positions = self.positions.val().narrow(1, 0, length);
        let x = self.tokens.forward(tokens) + positions;
        // No token sees the padding, which is behind all that a causal one sees.
        let mask = if self.pooling == Pooling::Last {
            generate_autoregressive_mask(batch, length, &x.device())
                .reshape([batch, 1, length, length])
        } else {
            padding.clone().reshape([batch, 1, 1, length])
        };
        let x = transformer::forward(&self.transformer, self.activation, x, Some(mask));
        let x = self.post_norm.forward(x);
        match self.pooling {
            Pooling::Token => x.narrow(1, 0, 1).squeeze_dim(1),
            Pooling::Mean => masked_mean(x, padding),
            Pooling::Last => last_token(x, padding),
        }
    }
}
