//! Image and text encoders, made of Burn's modules, and the dual encoder that joins them.

mod dual_encoder;
mod image_encoder;
mod pooling;
mod text_encoder;
mod transformer;

pub use dual_encoder::{DualEncoder, DualEncoderConfig, PRESETS};
pub use image_encoder::{ImageEncoder, ImageEncoderConfig};
pub use pooling::Pooling;
pub use text_encoder::{TextEncoder, TextEncoderConfig};

use burn::nn::Initializer;

/// Initial spread of learnable tokens and positions, as in CLIP and BERT.
const EMBEDDING_INIT: Initializer = Initializer::Normal {
    mean: 0.0,
    std: 0.02,
};

/// Panics unless the heads share the width evenly.
fn check_heads(encoder: &str, width: usize, heads: usize) {
    assert!(
        heads > 0 && width.is_multiple_of(heads),
        "{encoder}: width {width} must be a multiple of heads {heads}",
    );
}
