//! ResNet against torchvision, with batch norm in both modes.

use burn::tensor::{Device, Tensor};
use burn_contrastive_examples::models::{ResNet, ResNetConfig, ResidualBlock, Stem};
use burn_contrastive_examples::published::{Key, Layout};

use crate::reference::Reference;

const KINDS: [(&str, ResidualBlock); 2] = [
    ("models/resnet_basic", ResidualBlock::Basic),
    ("models/resnet_bottleneck", ResidualBlock::Bottleneck),
];

fn network(reference: &Reference, block: ResidualBlock, device: &Device) -> ResNet {
    let config = ResNetConfig {
        image_size: 40,
        stem: Stem::Large,
        block,
        blocks: vec![2, 1],
        width: 4,
    };
    reference.load_published(config.init(device), 0, [&[], &[]])
}

/// Torchvision's name for a parameter.
fn key(path: &str) -> Key {
    Layout::Torchvision.key(path, 0)
}

#[test]
fn inference_is_that_of_torchvision() {
    for (file, block) in KINDS {
        let reference = Reference::read(file);
        let device = Device::flex();
        let network = network(&reference, block, &device);
        let images: Tensor<4> = reference.input("images", &device);
        reference.check("output.inference", network.forward(images));
    }
}

#[test]
fn training_is_that_of_torchvision_with_its_gradients_and_running_statistics() {
    for (file, block) in KINDS {
        let reference = Reference::read(file);
        let device = Device::flex().autodiff();
        let network = network(&reference, block, &device);
        let (features, statistics) = network.forward_train(reference.input("images", &device));
        reference.check("output.train", features.clone());
        reference.check_gradients(&network, reference.probed(features), key);
        reference.check_kept(&network.follow([statistics]), "statistics", key);
    }
}
