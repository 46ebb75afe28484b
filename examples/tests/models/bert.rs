//! BERT against transformers.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_contrastive_examples::models::{Bert, BertConfig, BertDecoder, LanguageHead, TwinFusion};

use crate::reference::{Key, Reference};

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
    let path = path.trim_start_matches("bert.");
    let (part, rest) = path.split_once('.').unwrap();
    let name = match part {
        "embeddings" => format!("bert.embeddings.{}", embeddings(rest)),
        "text" | "encoder" => layer(rest, 0),
        "fusion" => layer(rest, text_layers),
        "head" => format!("cls.predictions.{}", head(rest)),
        other => panic!("{other}"),
    };
    Key::whole(name.replace("gamma", "weight").replace("beta", "bias"))
}

fn embeddings(path: &str) -> String {
    match path {
        "words.weight" => "word_embeddings.weight".into(),
        "positions" => "position_embeddings.weight".into(),
        "token_types" => "token_type_embeddings.weight".into(),
        _ => path.replace("norm", "LayerNorm"),
    }
}

fn head(path: &str) -> String {
    path.replace("dense", "transform.dense")
        .replace("norm", "transform.LayerNorm")
}

/// `layers.{i}.…`, the layers numbered from `first`.
fn layer(path: &str, first: usize) -> String {
    let (index, rest) = path.trim_start_matches("layers.").split_once('.').unwrap();
    let index = index.parse::<usize>().unwrap() + first;
    format!("bert.encoder.layer.{index}.{}", in_layer(rest))
}

fn in_layer(path: &str) -> String {
    let mut name = path.to_owned();
    for (ours, theirs) in [
        ("cross_attention.", "crossattention."),
        ("attention.attention.output", "attention.output.dense"),
        ("attention.attention", "attention.self"),
        ("attention.norm", "attention.output.LayerNorm"),
        ("feed_forward.inner", "intermediate.dense"),
        ("feed_forward.outer", "output.dense"),
        ("feed_forward.norm", "output.LayerNorm"),
    ] {
        name = name.replace(ours, theirs);
    }
    name
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
        let name = match rest.split_once('.').unwrap() {
            ("first", rest) => format!("{index}.{}", in_layer(rest)),
            ("second", rest) => {
                let rest = rest
                    .replace("cross_query", "crossattention.self.query")
                    .replace("cross_output", "crossattention.output.dense")
                    .replace("cross_norm", "crossattention.output.LayerNorm");
                format!("{}.{}", index + 1, in_layer(&rest))
            }
            (other, _) => panic!("{other}"),
        };
        Key::whole(name.replace("gamma", "weight").replace("beta", "bias"))
    };
    let twins = reference.load(twins, key);
    let padding = reference.padding("padding", &device);
    let images = ["image0", "image1"].map(|name| reference.input(name, &device));
    let x = reference.input("x", &device);
    let states = twins.forward(x, Some(padding.clone()), images);
    reference.check_present("output.states", states.clone(), padding);
    reference.check_gradients(&twins, reference.probed(states), key);
}
