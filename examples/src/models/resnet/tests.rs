use super::*;
use burn::tensor::Distribution;

#[test]
fn presets_have_the_published_parameter_counts_without_the_classifier() {
    // torchvision's counts, without `fc` of 1,000 classes.
    for (name, whole, features) in [
        ("resnet-18", 11_689_512, 512),
        ("resnet-34", 21_797_672, 512),
        ("resnet-50", 25_557_032, 2_048),
        ("resnet-101", 44_549_160, 2_048),
        ("resnet-152", 60_192_808, 2_048),
    ] {
        let config = ResNetConfig::preset(name).unwrap();
        config.check().unwrap();
        assert_eq!(config.features(), features, "{name}");
        let network = config.init(&Device::flex());
        let parameters = network.trained_parameters();
        assert_eq!(parameters, whole - 1_000 * (features + 1), "{name}");
        let about = config.about_parameters() / parameters as f64;
        assert!((0.7..1.2).contains(&about), "{name}: {about}");
    }
}

#[test]
fn every_preset_is_known_by_its_name() {
    assert!(
        RESNETS
            .iter()
            .all(|name| ResNetConfig::preset(name).is_some())
    );
    assert!(ResNetConfig::preset("resnet-7").is_none());
}

#[test]
fn sizes_that_make_no_network_are_refused_by_name() {
    let tiny = ResNetConfig::preset("resnet-tiny").unwrap();
    for (config, expected) in [
        (
            ResNetConfig {
                blocks: vec![],
                ..tiny.clone()
            },
            "image.blocks has 0 stages",
        ),
        (
            ResNetConfig {
                blocks: vec![1, 0],
                ..tiny.clone()
            },
            "image.blocks = 0",
        ),
        (
            ResNetConfig {
                width: 0,
                ..tiny.clone()
            },
            "image.width = 0",
        ),
    ] {
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn statistics_of_a_batch_reach_every_norm() {
    let device = Device::flex();
    for block in [ResidualBlock::Basic, ResidualBlock::Bottleneck] {
        let config = ResNetConfig {
            block,
            width: 4,
            blocks: vec![2, 1],
            ..ResNetConfig::preset("resnet-tiny").unwrap()
        };
        let network = config.init(&device);
        let images = Tensor::random([3, 3, 16, 16], Distribution::Normal(0.5, 2.0), &device);
        let before = network.forward(images.clone());
        assert_eq!(before.dims(), [3, config.features()]);
        let (features, row) = network.forward_train(images.clone());
        assert_eq!(features.dims(), before.dims());
        // Towards the statistics of this batch until they are reached: then inference does to
        // it what training does, but for variances divided by one less.
        let mut moved = network;
        for _ in 0..200 {
            moved = moved.follow([row.clone()]);
        }
        let gap = |a: Tensor<2>| (a - features.clone()).abs().max().into_scalar::<f32>();
        let (far, near) = (gap(before), gap(moved.forward(images)));
        assert!(near < 0.1 * far, "{near} of {far}");
    }
}

#[test]
fn a_step_of_several_batches_moves_the_statistics_once() {
    let device = Device::flex();
    let network = ResNetConfig {
        width: 4,
        blocks: vec![1, 1],
        ..ResNetConfig::preset("resnet-tiny").unwrap()
    }
    .init(&device);
    let images = |scale| Tensor::random([3, 3, 16, 16], Distribution::Normal(0.5, scale), &device);
    let batches = [1.0, 4.0].map(|scale| network.forward_train(images(scale)).1);
    let together = Tensor::cat(batches.to_vec(), 0);
    let seen = images(2.0);
    let features = |network: &ResNet| network.forward(seen.clone()).into_data();
    let moved = network.clone().follow(batches.clone());
    assert_eq!(
        features(&moved),
        features(&network.clone().follow([together]))
    );
    let [first, second] = batches;
    let twice = network.clone().follow([first]).follow([second]);
    assert_ne!(features(&moved), features(&twice));
    assert_eq!(features(&network.clone().follow([])), features(&network));
}
