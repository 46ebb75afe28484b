//! Image and text encoders, made of Burn's modules, the dual encoder that joins them, and the
//! parts of systems that fuse a sentence with an image.

mod attention;
pub mod batch_norm;
mod bert;
pub(crate) mod check;
mod copy;
mod dual_encoder;
mod gru;
mod heads;
mod image_encoder;
mod image_tower;
mod pooling;
mod resnet;
mod text_encoder;
mod transformer;

pub use bert::{
    Bert, BertConfig, BertDecoder, BertEmbeddings, BertEncoder, CrossStates, JointBert,
    JointBertConfig, LanguageHead, RegionEmbeddings, TwinFusion,
};
pub use copy::independent_copy;
pub use dual_encoder::{DualEncoder, DualEncoderConfig, PRESETS};
pub use gru::{GruEncoder, GruEncoderConfig};
pub use heads::{ClassifierHead, MatchingHead, ProjectionHead};
pub(crate) use image_encoder::resize_positions;
pub use image_encoder::{ImageEncoder, ImageEncoderConfig, ImageLayout};
pub use image_tower::{ImageTower, ImageTowerConfig};
pub use pooling::{Pooling, masked_mean};
pub use resnet::{
    ClipResNet, ClipResNetConfig, RESNETS, ResNet, ResNetConfig, ResidualBlock, Stem,
};
pub use text_encoder::{TextEncoder, TextEncoderConfig};
pub use transformer::Activation;

use burn::nn::{Initializer, Linear};

/// Initial spread of learnable tokens and positions, as in CLIP and BERT, and of BERT's matrices.
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

/// Starts the bias of a layer, if it has one, at zero.
pub(crate) fn zero_bias(linear: &mut Linear) {
    if let Some(bias) = &mut linear.bias {
        let device = linear.weight.lazy_device();
        *bias = Initializer::Zeros.init(bias.lazy_shape(), &device);
    }
}
