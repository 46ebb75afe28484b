//! CLIP's weights in two layouts, from the file to the embeddings, against open_clip and
//! transformers.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use burn_contrastive::objective::ObjectiveConfig;
use burn_contrastive_examples::models::{Activation, DualEncoder, ImageTowerConfig, Pooling};
use burn_contrastive_examples::published::{Layout, Published};
use burn_contrastive_examples::training::system::System;
use burn_contrastive_examples::training::weights::Weights;
use serde_json::{Value, json};

use crate::reference::Reference;

/// What lies beside the weights and says what their shapes do not.
fn beside(layout: Layout) -> (&'static str, Value) {
    if layout == Layout::HuggingFaceClip {
        let tower = json!({"num_attention_heads": 2, "hidden_act": "quick_gelu"});
        (
            "config.json",
            json!({"text_config": tower, "vision_config": tower}),
        )
    } else {
        let config = json!({
            "embed_dim": 6,
            "vision_cfg": {"width": 16, "head_width": 8},
            "text_cfg": {"heads": 2}
        });
        ("open_clip_config.json", json!({"model_cfg": config}))
    }
}

fn published(reference: &Reference, layout: Layout, folder: &Path) -> Published {
    let (name, settings) = beside(layout);
    std::fs::write(folder.join(name), settings.to_string()).unwrap();
    let file = folder.join("weights.safetensors");
    reference.write_weights(&file);
    let published = Published::open(&file).unwrap();
    assert_eq!(published.layout, layout);
    published
}

fn load(published: Published, device: &Device) -> DualEncoder {
    let objective = ObjectiveConfig::named("info-nce").unwrap().init(device);
    let model = published.clip().unwrap().init(objective, device);
    let nothing: [&str; 0] = [];
    let weights = Weights::published(published, "", 0);
    weights.load_into(model, &nothing, &nothing).unwrap()
}

#[test]
fn embeddings_and_gradients_are_those_of_open_clip_and_transformers() {
    for (name, layout, activation) in [
        ("models/clip_open", Layout::OpenClip, Activation::Gelu),
        (
            "models/clip_hugging_face",
            Layout::HuggingFaceClip,
            Activation::QuickGelu,
        ),
    ] {
        let reference = Reference::read(name);
        let folder = tempfile::tempdir().unwrap();
        let device = Device::flex().autodiff();
        let published = published(&reference, layout, folder.path());
        let config = published.clip().unwrap();
        let ImageTowerConfig::Vit(image) = &config.image else {
            panic!("{name} has a vision transformer");
        };
        assert_eq!((image.image_size, image.patch_size), (12, 4));
        assert_eq!((image.layers, config.text.layers), (2, 2));
        assert_eq!((image.heads, config.text.heads), (2, 2));
        assert_eq!((config.text.vocabulary, config.text.context), (23, 7));
        assert_eq!((config.embedding, config.text.pooling), (6, Pooling::Last));
        assert_eq!(image.activation, activation);
        assert_eq!(config.text.activation, activation);

        let model = load(published, &device);
        let images = model.embed_image(reference.input("images", &device));
        let texts = model.embed_text(
            reference.integers("tokens", &device),
            reference.padding("padding", &device),
        );
        reference.check("output.image", images.clone());
        reference.check("output.text", texts.clone());
        let probe = |name| -> Tensor<2> { reference.input(name, &device) };
        let sum = (images * probe("image_probe")).sum() + (texts * probe("text_probe")).sum();
        let key = |path: &str| layout.key(path, 0);
        let scale = model.logit_scale().expect("InfoNCE has one");
        reference.check_gradients(&model, sum + scale, key);
    }
}
