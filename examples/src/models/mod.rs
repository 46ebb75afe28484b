//! Image and text encoders, made of Burn's modules, and the dual encoder that joins them.

mod dual_encoder;
mod image_encoder;
mod pooling;
mod text_encoder;

pub use dual_encoder::{DualEncoder, DualEncoderConfig, PRESETS};
pub use image_encoder::{ImageEncoder, ImageEncoderConfig};
pub use pooling::Pooling;
pub use text_encoder::{TextEncoder, TextEncoderConfig};

use burn::nn::Initializer;
use burn::nn::transformer::TransformerEncoderConfig;

/// Initial spread of learnable tokens and positions, as in CLIP and BERT.
const EMBEDDING_INIT: Initializer = Initializer::Normal {
    mean: 0.0,
    std: 0.02,
};

/// The pre-norm transformer of both encoders: feed-forward four times the width, GELU.
fn transformer(
    width: usize,
    layers: usize,
    heads: usize,
    dropout: f64,
) -> TransformerEncoderConfig {
    TransformerEncoderConfig::new(width, 4 * width, heads, layers)
        .with_norm_first(true)
        .with_dropout(dropout)
}

/// Panics unless the heads share the width evenly.
fn check_heads(encoder: &str, width: usize, heads: usize) {
    assert!(
        heads > 0 && width.is_multiple_of(heads),
        "{encoder}: width {width} must be a multiple of heads {heads}",
    );
}
