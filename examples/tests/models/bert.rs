//! BERT against transformers.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_contrastive_examples::models::{Bert, BertConfig, BertDecoder, LanguageHead, TwinFusion};
use burn_contrastive_examples::published::{Key, Layout};

use crate::reference::Reference;

fn config(layers: usize, fusion_layers: usize) -> BertConfig {
    BertConfig {
        vocabulary: 30,
        context: 10,
        width: 12,
        layers,
        fusion_layers,
        heads: 3,
        intermediate: 20,
        dropout: 0.0,
        initializer_range: 0.02,
    }
}

/// A pretrained model: what one file of weights is of.
#[derive(Module, Debug)]
struct Pretrained {
    bert: Bert,
    head: LanguageHead,
}

/// The name in transformers of a parameter of [`Pretrained`] or [`BertDecoder`].
pub fn key(path: &str, text_layers: usize) -> Key {
    Layout::Bert.key(path.trim_start_matches("bert."), text_layers)
}

#[test]
fn both_halves_and_the_language_head_are_those_of_transformers() {
    let reference = Reference::read("models/bert");
    let device = Device::flex().autodiff();
    let config = config(4, 2);
    let model = Pretrained {
        bert: config.init(&device),
        head: config.init_language_head(&device),
    };
    let key = |path: &str| key(path, 2);
    let Pretrained { bert, head } = &reference.load(model, key);
    let padding = reference.padding("padding", &device);
    let logits = |states: Tensor<3>| {
        let [batch, length, _] = states.dims();
        let logits = head.forward(states.flatten(0, 1), &bert.embeddings);
        logits.reshape([batch, length, config.vocabulary])
    };
    let text = bert.read(reference.integers("tokens", &device), padding.clone());
    reference.check_present("output.text", text.clone(), padding.clone());
    reference.check_present("output.text_logits", logits(text.clone()), padding.clone());
    let image = reference.input("image", &device);
    let fused = bert.fuse(text, padding.clone(), image);
    reference.check_present("output.fused", fused.clone(), padding.clone());
    let logits = logits(fused);
    reference.check_present("output.logits", logits.clone(), padding);
    let model = Pretrained {
        bert: bert.clone(),
        head: head.clone(),
    };
    reference.check_gradients(&model, reference.probed(logits), key);
}

#[test]
fn a_decoder_is_that_of_transformers() {
    let reference = Reference::read("models/decoder");
    let device = Device::flex().autodiff();
    let config = config(2, 2);
    let bert = config.init(&device);
    let head = config.init_language_head(&device);
    let decoder = BertDecoder::from_fusion(&bert.embeddings, &bert.fusion, &head);
    let key = |path: &str| key(path, 0);
    let decoder = reference.load(decoder, key);
    let padding = reference.padding("padding", &device);
    let logits = decoder.forward(
        reference.integers("tokens", &device),
        padding.clone(),
        reference.input("states", &device),
        reference.padding("states_padding", &device),
    );
    reference.check_present("output.logits", logits.clone(), padding);
    reference.check_gradients(&decoder, reference.probed(logits), key);
}

#[test]
fn twins_are_layers_that_share_key_and_value() {
    let reference = Reference::read("models/twin");
    let device = Device::flex().autodiff();
    let twins = TwinFusion::from_fusion(&config(2, 2).init(&device).fusion);
    let key = |path: &str| {
        let path = path.trim_start_matches("twins.");
        let (index, rest) = path.split_once('.').unwrap();
        let index = 2 * index.parse::<usize>().unwrap();
        let layer = |index: usize, rest: &str| {
            let Key { name, .. } = key(&format!("encoder.layers.{index}.{rest}"), 0);
            Key::whole(name.trim_start_matches("bert.encoder.layer."))
        };
        match rest.split_once('.').unwrap() {
            ("first", rest) => layer(index, rest),
            ("second", rest) => {
                let rest = rest
                    .replace("cross_query", "crossattention.self.query")
                    .replace("cross_output", "crossattention.output.dense")
                    .replace("cross_norm", "crossattention.output.LayerNorm");
                layer(index + 1, &rest)
            }
            (other, _) => panic!("{other}"),
        }
    };
    let twins = reference.load(twins, key);
    let padding = reference.padding("padding", &device);
    let images = ["image0", "image1"].map(|name| reference.input(name, &device));
    let x = reference.input("x", &device);
    let states = twins.forward(x, Some(padding.clone()), images);
    reference.check_present("output.states", states.clone(), padding);
    reference.check_gradients(&twins, reference.probed(states), key);
}

#[test]
fn a_file_of_transformers_is_read_also_with_a_fusion_half() {
    let reference = Reference::read("models/bert");
    let device = Device::flex();
    let [new, unused] = [&[][..], &["^cls\\."][..]];
    let bert = reference.load_published(config(4, 2).init(&device), 2, [new, unused]);
    let padding = reference.padding("padding", &device);
    let text = bert.read(reference.integers("tokens", &device), padding.clone());
    reference.check_present("output.text", text, padding);
}
