//! DeiT's layout against timm.

use burn::tensor::{Device, Tensor};
use burn_contrastive_examples::models::{ImageEncoder, ImageEncoderConfig, ImageLayout, Pooling};

use crate::reference::{Key, Reference};

fn encoder(reference: &Reference, device: &Device) -> ImageEncoder {
    let config = ImageEncoderConfig {
        image_size: 12,
        patch_size: 4,
        width: 8,
        layers: 2,
        heads: 2,
        pooling: Pooling::Token,
        dropout: 0.0,
        layout: ImageLayout::Deit,
    };
    reference.load(config.init(device), key)
}

/// Timm's name for a parameter.
pub fn key(path: &str) -> Key {
    let mut name = path.to_owned();
    for (ours, theirs) in [
        ("patches", "patch_embed.proj"),
        ("class_token", "cls_token"),
        ("positions", "pos_embed"),
        ("transformer.layers", "blocks"),
        ("post_norm", "norm"),
        // Burn's pre-norm layers use their second norm before the attention.
        ("norm_2", "norm1"),
        ("norm_1", "norm2"),
        ("gamma", "weight"),
        ("beta", "bias"),
        ("mha.output", "attn.proj"),
        ("pwff.linear_inner", "mlp.fc1"),
        ("pwff.linear_outer", "mlp.fc2"),
    ] {
        name = name.replace(ours, theirs);
    }
    for (index, projection) in ["query", "key", "value"].into_iter().enumerate() {
        let ours = format!("mha.{projection}");
        if name.contains(&ours) {
            let name = name.replace(&ours, "attn.qkv");
            let part = [index, 3];
            return Key { name, part };
        }
    }
    Key::whole(name)
}

#[test]
fn tokens_and_gradients_are_those_of_timm() {
    let reference = Reference::read("models/vit");
    let device = Device::flex().autodiff();
    let encoder = encoder(&reference, &device);
    let tokens = encoder.tokens(reference.input("images_12", &device));
    reference.check("output.tokens_12", tokens.clone());
    reference.check_gradients(&encoder, reference.probed(tokens), key);
}

#[test]
fn a_resized_encoder_is_timms_with_positions_resized_by_torch() {
    let reference = Reference::read("models/vit");
    let device = Device::flex();
    for size in [20, 8] {
        let encoder = encoder(&reference, &device).resized(size);
        let images: Tensor<4> = reference.input(&format!("images_{size}"), &device);
        reference.check(&format!("output.tokens_{size}"), encoder.tokens(images));
    }
}
