//! DeiT's layout against timm.

use burn::tensor::{Device, Tensor};
use burn_contrastive_examples::models::{
    Activation, ImageEncoder, ImageEncoderConfig, ImageLayout, Pooling,
};
use burn_contrastive_examples::published::{Key, Layout, Published};
use burn_contrastive_examples::training::weights::Weights;

use crate::reference::Reference;

fn config() -> ImageEncoderConfig {
    ImageEncoderConfig {
        image_size: 12,
        patch_size: 4,
        width: 8,
        layers: 2,
        heads: 2,
        pooling: Pooling::Token,
        dropout: 0.0,
        layout: ImageLayout::Deit,
        activation: Activation::Gelu,
    }
}

fn encoder(reference: &Reference, device: &Device) -> ImageEncoder {
    reference.load(config().init(device), key)
}

/// Timm's name for a parameter.
pub fn key(path: &str) -> Key {
    Layout::Timm.key(path, 0)
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

#[test]
fn a_file_of_timm_is_read() {
    let reference = Reference::read("models/vit");
    let device = Device::flex();
    let drawn = config().init(&device);
    let encoder = reference.load_published(drawn, 0, [&[], &[]]);
    let tokens = encoder.tokens(reference.input("images_12", &device));
    reference.check("output.tokens_12", tokens);
}

#[test]
fn a_file_for_a_module_that_is_not_there_says_which_there_are() {
    let reference = Reference::read("models/vit");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    reference.write_weights(&file);
    let weights = Weights::published(Published::open(&file).unwrap(), "image", 0);
    let nothing: [&str; 0] = [];
    let loaded = weights.load_into(config().init(&Device::flex()), &nothing, &nothing);
    let error = loaded.expect_err("it is refused").to_string();
    assert!(
        error.contains("module \"image\"") && error.contains("transformer.layers"),
        "{error}"
    );
}
