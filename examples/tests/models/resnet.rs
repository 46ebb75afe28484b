//! ResNet against torchvision, with batch norm in both modes.

use burn::tensor::{Device, Tensor};
use burn_contrastive_examples::models::{ResNet, ResNetConfig, ResidualBlock, Stem};

use crate::reference::{Key, Reference};

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
    reference.load(config.init(device), key)
}

/// Torchvision's name for a parameter.
fn key(path: &str) -> Key {
    let mut name = path.to_owned();
    for (ours, theirs) in [
        ("stages.0", "layer1"),
        ("stages.1", "layer2"),
        ("downsample.conv", "downsample.0"),
        ("downsample.bn", "downsample.1"),
        ("gamma", "weight"),
        ("beta", "bias"),
    ] {
        name = name.replace(ours, theirs);
    }
    Key::whole(name)
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
