//! What holds of BERT whatever its weights.

use super::super::{ImageEncoderConfig, MatchingHead, ProjectionHead, independent_copy};
use super::layer::BertLayer;
use super::*;
use burn::module::Param;
use burn::tensor::{Distribution, Tolerance};

fn config() -> BertConfig {
    BertConfig {
        vocabulary: 20,
        context: 8,
        width: 12,
        layers: 4,
        fusion_layers: 2,
        heads: 3,
        intermediate: 20,
        dropout: 0.0,
        initializer_range: 0.02,
    }
}

/// Weights far enough from zero for every part to show in what comes out.
fn init(config: &BertConfig, device: &Device) -> (Bert, LanguageHead) {
    struct Spread;
    impl burn::module::ModuleMapper for Spread {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| {
                let noise = value.random_like(Distribution::Normal(0.0, 0.5));
                let trains = value.is_require_grad();
                (value + noise).detach().set_require_grad(trains)
            })
        }
    }
    let (bert, head) = (config.init(device), config.init_language_head(device));
    (bert.map(&mut Spread), head.map(&mut Spread))
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

/// A sentence of those tokens, without padding.
fn sentence(tokens: std::ops::Range<i32>, device: &Device) -> (Tensor<2, Int>, Tensor<2, Bool>) {
    let length = tokens.len();
    let tokens = Tensor::<1, Int>::from_data(tokens.collect::<Vec<_>>().as_slice(), device);
    let padding = Tensor::<1>::zeros([length], device).bool();
    (tokens.unsqueeze(), padding.unsqueeze())
}

fn assert_close<const D: usize>(actual: Tensor<D>, expected: Tensor<D>) {
    let (actual, expected) = (actual.into_data(), expected.into_data());
    actual.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
}

fn gap<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    (a - b).abs().max().into_scalar()
}

#[test]
fn padding_does_not_change_a_sentence() {
    let device = Device::flex();
    let (bert, _) = init(&config(), &device);
    let image = random([1, 5, 12], &device);
    let read = |tokens: Tensor<2, Int>, padding: Tensor<2, Bool>| {
        let text = bert.read(tokens, padding.clone());
        let fused = bert.fuse(text.clone(), padding, image.clone());
        Tensor::cat(vec![text, fused], 2).narrow(1, 0, 3)
    };
    let (tokens, padding) = sentence(7..10, &device);
    let short = read(tokens, padding);
    for filler in [0, 13] {
        let long = read(
            Tensor::from_data([[7, 8, 9, filler, filler]], &device),
            Tensor::from_data([[false, false, false, true, true]], &device),
        );
        assert_close(long, short.clone());
    }
}

#[test]
fn every_token_sees_the_whole_sentence_and_its_order() {
    let device = Device::flex();
    let (bert, _) = init(&config(), &device);
    let (tokens, padding) = sentence(7..11, &device);
    let first = |tokens| bert.read(tokens, padding.clone()).narrow(1, 0, 1);
    let states = first(tokens);
    let swapped = first(Tensor::from_data([[7, 9, 8, 10]], &device));
    assert!(gap(states.clone(), swapped) > 1e-2);
    let other_end = first(Tensor::from_data([[7, 8, 9, 11]], &device));
    assert!(gap(states, other_end) > 1e-2);
}

#[test]
fn fusion_sees_every_token_of_the_image_and_of_no_other_sample() {
    let device = Device::flex();
    let (bert, _) = init(&config(), &device);
    let text = random([2, 3, 12], &device);
    let padding = Tensor::<2>::zeros([2, 3], &device).bool();
    let image = random([2, 5, 12], &device);
    let fused = bert.fuse(text.clone(), padding.clone(), image.clone());
    for token in 0..5 {
        let change = random([1, 1, 12], &device);
        let image = image.clone().slice_assign([0..1, token..token + 1], change);
        let other = bert.fuse(text.clone(), padding.clone(), image);
        let difference = (fused.clone() - other).abs();
        let [first, second] = [0, 1].map(|sample| {
            let of_sample = difference.clone().narrow(0, sample, 1);
            of_sample.max().into_scalar::<f32>()
        });
        assert!(first > 1e-2, "token {token} changes nothing");
        assert!(
            second < 1e-5,
            "token {token} of one image changes another sample"
        );
    }
}

#[test]
fn padded_states_are_not_looked_at() {
    let device = Device::flex();
    let (bert, _) = init(&config(), &device);
    let x = random([1, 3, 12], &device);
    let states = random([1, 4, 12], &device);
    let present = CrossStates::from(states.clone());
    let expected = bert.fusion.forward(x.clone(), None, Some(present));
    let padded = CrossStates {
        states: Tensor::cat(vec![states, random([1, 2, 12], &device)], 1),
        padding: Some(Tensor::from_data(
            [[false, false, false, false, true, true]],
            &device,
        )),
    };
    assert_close(bert.fusion.forward(x, None, Some(padded)), expected);
}

#[test]
fn later_tokens_do_not_change_earlier_logits_of_a_decoder() {
    let device = Device::flex();
    let (bert, head) = init(&config(), &device);
    let decoder = BertDecoder::from_fusion(&bert.embeddings, &bert.fusion, &head);
    let states = random([1, 5, 12], &device);
    let states_padding = Tensor::from_data([[false, false, false, true, true]], &device);
    let decode = |tokens: [i32; 4]| {
        let padding = Tensor::from_data([[false; 4]], &device);
        let tokens = Tensor::from_data([tokens], &device);
        decoder.forward(tokens, padding, states.clone(), states_padding.clone())
    };
    let logits = decode([1, 2, 3, 4]);
    assert_eq!(logits.dims(), [1, 4, 20]);
    let changed = decode([1, 2, 7, 8]);
    let part = |logits: &Tensor<3>, from| logits.clone().narrow(1, from, 2);
    assert_close(part(&changed, 0), part(&logits, 0));
    assert!(gap(part(&changed, 2), part(&logits, 2)) > 1e-2);
}

#[test]
fn a_decoder_trains_apart_from_what_it_starts_from() {
    let device = Device::flex().autodiff();
    let (bert, head) = init(&config(), &device);
    let decoder = BertDecoder::from_fusion(&bert.embeddings, &bert.fusion, &head);
    let (tokens, padding) = sentence(1..4, &device);
    let states = random([1, 3, 12], &device);
    let logits = decoder.forward(tokens, padding.clone(), states, padding);
    let gradients = logits.powi_scalar(2).sum().backward();
    let bias = |head: &LanguageHead| head.bias.val().grad(&gradients).is_some();
    assert!(bias(&decoder.head));
    assert!(!bias(&head));
    assert!(bert.embeddings.words().grad(&gradients).is_none());
}

#[test]
fn a_language_head_owns_no_matrix_of_the_vocabulary() {
    let device = Device::flex();
    let config = config();
    let head = config.init_language_head(&device);
    let (width, vocabulary) = (config.width, config.vocabulary);
    let dense = width * width + width;
    assert_eq!(head.num_params(), dense + 2 * width + vocabulary);

    // And what it has not, it takes from the embeddings, whose gradient it adds to.
    let device = device.autodiff();
    let (bert, head) = init(&config, &device);
    let logits = head.forward(random([2, width], &device), &bert.embeddings);
    assert_eq!(logits.dims(), [2, vocabulary]);
    let gradients = logits.powi_scalar(2).sum().backward();
    let words = bert.embeddings.words().grad(&gradients).unwrap();
    assert!(words.abs().sum_dim(1).min().into_scalar::<f32>() > 0.0);
}

/// Twins and the fusion layers that they start from.
fn twins(device: &Device) -> (BertEncoder, TwinFusion) {
    let (bert, _) = init(&config(), device);
    let twins = TwinFusion::from_fusion(&bert.fusion);
    (bert.fusion, twins)
}

#[test]
fn new_twins_on_one_image_are_each_fusion_layer_twice() {
    let device = Device::flex();
    let (fusion, twins) = twins(&device);
    let (x, image) = (random([2, 3, 12], &device), random([2, 5, 12], &device));
    let padding = Tensor::from_data([[false; 3], [false, false, true]], &device);
    let mut expected = x.clone();
    for layer in &fusion.layers {
        for _ in 0..2 {
            let once = BertEncoder {
                layers: vec![layer.clone()],
                ..fusion.clone()
            };
            let states = Some(image.clone().into());
            expected = once.forward(expected, Some(padding.clone()), states);
        }
    }
    let actual = twins.forward(x, Some(padding), [image.clone(), image]);
    assert_close(actual, expected);
}

#[test]
fn twins_see_both_images_in_their_order() {
    let device = Device::flex();
    let (_, twins) = twins(&device);
    let x = random([1, 3, 12], &device);
    let [a, b, c] = [(); 3].map(|()| random([1, 5, 12], &device));
    let forward = |images| twins.forward(x.clone(), None, images);
    let states = forward([a.clone(), b.clone()]);
    for other in [[b.clone(), a.clone()], [c.clone(), b], [a, c]] {
        assert!(gap(forward(other), states.clone()) > 1e-2);
    }
}

#[test]
fn twins_share_keys_and_values_alone() {
    let device = Device::flex().autodiff();
    let (fusion, twins) = twins(&device);
    let shared = 2 * (12 * 12 + 12);
    let doubled = 2 * fusion.num_params();
    let layers = fusion.layers.len();
    assert_eq!(twins.num_params(), doubled - layers * shared);

    // The shared projections get the gradients of both looks: with one image they are those of two
    // separate layers, added up.
    let (x, image) = (random([1, 3, 12], &device), random([1, 5, 12], &device));
    let separate: Vec<_> = fusion.layers[..1]
        .iter()
        .flat_map(|layer| [(); 2].map(|()| independent_copy(layer)))
        .collect();
    let separate = BertEncoder {
        layers: separate,
        ..fusion.clone()
    };
    let one = BertEncoder {
        layers: fusion.layers[..1].to_vec(),
        ..fusion
    };
    let twins = TwinFusion::from_fusion(&one);
    let states = separate.forward(x.clone(), None, Some(image.clone().into()));
    let expected = states.powi_scalar(3).sum().backward();
    let states = twins.forward(x, None, [image.clone(), image]);
    let actual = states.powi_scalar(3).sum().backward();
    let parts = |layer: &BertLayer| {
        let block = layer.cross_attention.as_ref().unwrap();
        [&block.attention.key, &block.attention.value].map(|linear| linear.weight.val())
    };
    let [first, second] = [0, 1].map(|layer| parts(&separate.layers[layer]));
    for ((own, first), second) in parts(&twins.twins[0].first)
        .into_iter()
        .zip(first)
        .zip(second)
    {
        let first = first.grad(&expected).unwrap();
        let second = second.grad(&expected).unwrap();
        assert!(second.clone().abs().max().into_scalar::<f32>() > 1e-2);
        let actual = own.grad(&actual).unwrap().into_data();
        let expected = (first + second).into_data();
        actual.assert_approx_eq::<f32>(&expected, Tolerance::rel_abs(1e-4, 1e-4));
    }
}

#[test]
fn biases_start_at_zero_and_weights_with_the_deviation_of_bert() {
    let device = Device::flex();
    let config = BertConfig {
        width: 96,
        ..config()
    };
    let layer = BertLayer::new(&config, true, &device);
    for block in [&layer.attention, layer.cross_attention.as_ref().unwrap()] {
        for linear in [
            &block.attention.query,
            &block.attention.key,
            &block.attention.value,
            &block.attention.output,
        ] {
            let bias = linear.bias.as_ref().unwrap().val();
            assert_eq!(bias.abs().max().into_scalar::<f32>(), 0.0);
            let squares = linear.weight.val().powi_scalar(2).mean();
            let deviation = squares.into_scalar::<f32>().sqrt();
            assert!((0.018..0.022).contains(&deviation), "{deviation}");
        }
    }
}

#[test]
fn dropout_acts_in_training_alone() {
    let device = Device::flex();
    let config = BertConfig {
        dropout: 0.5,
        initializer_range: 0.02,
        ..config()
    };
    let (bert, _) = init(&config, &device.clone().autodiff());
    let pass = |bert: &Bert, device: &Device| {
        let (tokens, padding) = sentence(1..5, device);
        bert.read(tokens, padding)
    };
    let training = || pass(&bert, &device.clone().autodiff());
    assert!(gap(training(), training()) > 1e-2);
    let valid = bert.valid();
    assert_close(pass(&valid, &device), pass(&valid, &device));
}

#[test]
fn a_bad_setting_is_named() {
    assert!(config().check().is_ok());
    assert!(BertConfig::base().check().is_ok());
    type Spoil = fn(&mut BertConfig);
    let cases: [(Spoil, &str); 8] = [
        (
            |c| c.vocabulary = 0,
            "bert.vocabulary = 0 must be in 1..=10000000",
        ),
        (|c| c.context = 0, "bert.context = 0 must be in 1..=65536"),
        (
            |c| c.heads = 5,
            "bert.width = 12 must be a multiple of bert.heads = 5",
        ),
        (
            |c| c.intermediate = 0,
            "bert.intermediate = 0 must be in 1..=1000000",
        ),
        (
            |c| c.layers = 1001,
            "bert.layers = 1001 must be in 0..=1000",
        ),
        (
            |c| c.fusion_layers = 5,
            "bert.fusion_layers = 5 must be in 0..=bert.layers = 4",
        ),
        (|c| c.dropout = 1.0, "bert.dropout = 1 must be in [0, 1)"),
        (
            |c| (c.width, c.layers) = (65_535, 1000),
            "parameters are more than",
        ),
    ];
    for (spoil, expected) in cases {
        let mut config = config();
        spoil(&mut config);
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
#[should_panic(expected = "a layer without cross-attention cannot look at states")]
fn images_are_not_silently_ignored() {
    let device = Device::flex();
    let (bert, _) = init(&config(), &device);
    let x = random([1, 3, 12], &device);
    bert.text.forward(x.clone(), None, Some(x.into()));
}

#[test]
#[should_panic(expected = "a layer with cross-attention has nothing to look at")]
fn fusion_without_an_image_panics() {
    let device = Device::flex();
    let (bert, _) = init(&config(), &device);
    bert.fusion.forward(random([1, 3, 12], &device), None, None);
}

#[test]
#[should_panic(expected = "2 sentences cannot look at the states of 1")]
fn images_of_another_batch_panic() {
    let device = Device::flex();
    let (bert, _) = init(&config(), &device);
    let image = CrossStates::from(random([1, 5, 12], &device));
    bert.fusion
        .forward(random([2, 3, 12], &device), None, Some(image));
}

#[test]
#[should_panic(expected = "sentences of 9 tokens exceed the context of 8")]
fn too_long_a_sentence_panics() {
    let device = Device::flex();
    let (bert, _) = init(&config(), &device);
    bert.read(
        Tensor::zeros([1, 9], &device),
        Tensor::from_data([[false; 9]], &device),
    );
}

#[test]
fn the_sizes_of_albef_have_its_parameter_counts() {
    // The figures are of timm and transformers, see tests/fixtures/models/generate.py. Burn
    // allocates a parameter on first use, so counting them costs no memory.
    let device = Device::flex();
    let image = ImageEncoderConfig::deit_b_16().init(&device).num_params();
    assert_eq!(image, 85_844_736);
    let config = BertConfig::base();
    let bert = config.init(&device).num_params();
    assert_eq!(bert, 123_075_072);
    assert_eq!(config.init_language_head(&device).num_params(), 622_650);
    let projection = || ProjectionHead::linear(768, 256, true, &device).num_params();
    let matching = MatchingHead::new(768, &device).num_params();
    let all = image + bert + projection() + projection() + matching;
    assert_eq!(all, 209_315_074);
}
