//! CLIP with a residual network, from the file to the embeddings, against open_clip, with batch
//! norm in both modes.

use burn::tensor::{Device, Tensor};
use burn_contrastive::objective::ObjectiveConfig;
use burn_contrastive_examples::models::{
    ClipResNetConfig, DualEncoder, DualEncoderConfig, ImageTowerConfig,
};
use burn_contrastive_examples::published::{Key, Layout, Published};
use burn_contrastive_examples::training::system::System;
use burn_contrastive_examples::training::weights::Weights;
use serde_json::json;

use crate::reference::Reference;

/// The model of the fixture, by way of a file as users have it, and its configuration.
fn model(reference: &Reference, size: usize, device: &Device) -> (DualEncoder, DualEncoderConfig) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    reference.write_weights(&file);
    let beside = json!({"model_cfg": {
        "embed_dim": 6,
        "vision_cfg": {"layers": [2, 1, 1, 1], "width": 2, "head_width": 16},
        "text_cfg": {"heads": 2}
    }});
    let path = folder.path().join("open_clip_config.json");
    std::fs::write(path, beside.to_string()).unwrap();
    let published = Published::open(&file).unwrap();
    assert_eq!(published.layout, Layout::OpenClipResNet);
    let mut config = published.clip().unwrap();
    let ImageTowerConfig::ResNet(image) = &mut config.image else {
        panic!("it has a residual network");
    };
    let expected = ClipResNetConfig {
        image_size: 64,
        blocks: vec![2, 1, 1, 1],
        width: 2,
        heads: 4,
    };
    assert_eq!(*image, expected);
    image.image_size = size;
    config.check().unwrap();
    let objective = ObjectiveConfig::named("info-nce").unwrap().init(device);
    let none: [&str; 0] = [];
    let weights = Weights::published(published, "", 0);
    let model = weights.load_into(config.init(objective, device), &none, &none);
    (model.unwrap(), config)
}

fn key(path: &str) -> Key {
    Layout::OpenClipResNet.key(path, 0)
}

/// The sum whose gradients are in the file.
fn total(reference: &Reference, model: &DualEncoder, images: Tensor<2>) -> Tensor<1> {
    let device = images.device();
    let texts = model.embed_text(
        reference.integers("tokens", &device),
        reference.padding("padding", &device),
    );
    reference.check("output.text", texts.clone());
    let probe = |name| -> Tensor<2> { reference.input(name, &device) };
    let sum = (images * probe("image_probe")).sum() + (texts * probe("text_probe")).sum();
    sum + model.logit_scale().expect("InfoNCE has one")
}

#[test]
fn inference_and_its_gradients_are_those_of_open_clip() {
    let reference = Reference::read("models/clip_resnet");
    let device = Device::flex().autodiff();
    let (model, _) = model(&reference, 64, &device);
    let images = model.embed_image(reference.input("images", &device));
    reference.check("output.image", images.clone());
    let total = total(&reference, &model, images);
    reference.check_gradients(&model, total, key);
}

#[test]
fn training_is_that_of_open_clip_with_its_gradients_and_running_statistics() {
    let reference = Reference::read("models/clip_resnet");
    let device = Device::flex().autodiff();
    let (model, _) = model(&reference, 64, &device);
    let (images, statistics) = model.embed_image_train(reference.input("images", &device));
    reference.check("output.train", images.clone());
    let total = total(&reference, &model, images);
    // Through twelve norms by statistics of few values, of which the last has twelve, PyTorch's own
    // gradients in f32 are off by up to 4e-5 of the largest.
    reference.check_gradients_of(&model, total, "train_gradient", 1e-4, key);
    let model = model.follow(vec![statistics.expect("it has norms")]);
    reference.check_kept(&model, "statistics", key);
}

#[test]
fn an_image_encoder_that_is_frozen_keeps_its_statistics_in_use() {
    let reference = Reference::read("models/clip_resnet");
    let (model, _) = model(&reference, 64, &Device::flex());
    let images: Tensor<4> = reference.input("images", &Device::flex());
    let (images, statistics) = model.embed_image_train(images);
    assert!(statistics.is_none());
    reference.check("output.image", images);
}

#[test]
fn images_of_another_size_get_positions_between_the_old_ones() {
    let reference = Reference::read("models/clip_resnet");
    let device = Device::flex();
    let (model, config) = model(&reference, 96, &device);
    assert_eq!(config.image.image_size(), 96);
    let images = Tensor::<4>::ones([1, 3, 96, 96], &device);
    let embedded: Vec<f32> = model.embed_image(images).into_data().iter().collect();
    assert!(embedded.iter().all(|value| value.is_finite()));
}
