//! The recurrent caption encoder against torch, on captions of several lengths.

use burn::tensor::Device;
use burn_contrastive_examples::models::GruEncoderConfig;
use burn_contrastive_examples::published::Key;

use crate::reference::Reference;

/// Torch's name for a parameter: it has the three gates in one tensor.
fn key(path: &str) -> Key {
    let Some(rest) = path.strip_prefix("gru.") else {
        return Key::whole(path.to_owned());
    };
    let [gate, transform, kind] = rest.split('.').collect::<Vec<_>>().try_into().unwrap();
    let index = match gate {
        "reset_gate" => 0,
        "update_gate" => 1,
        "new_gate" => 2,
        other => panic!("{other}"),
    };
    let of = match transform {
        "input_transform" => "ih",
        "hidden_transform" => "hh",
        other => panic!("{other}"),
    };
    Key {
        part: [index, 3],
        ..Key::whole(format!("gru.{kind}_{of}_l0"))
    }
}

#[test]
fn the_state_at_the_last_token_is_that_of_torch_with_its_gradients() {
    let reference = Reference::read("models/gru");
    let device = Device::flex().autodiff();
    let config = GruEncoderConfig {
        vocabulary: 11,
        context: 6,
        words: 5,
        vectors: None,
        width: 4,
    };
    let encoder = reference.load(config.init(&device), key);
    let tokens = reference.integers("tokens", &device);
    let last = encoder.forward(tokens, reference.padding("padding", &device));
    reference.check("output.last", last.clone());
    reference.check_gradients(&encoder, reference.probed(last), key);
}
