use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Distribution, Tensor};
use serde_json::Value;

use super::*;
use crate::models::{
    Activation, ImageEncoder, ImageEncoderConfig, ImageLayout, Pooling, TextEncoder,
    TextEncoderConfig,
};
use crate::training::checkpoint::State;
use crate::training::config::SharedConfig;
use crate::training::resume::Origin;

const NONE: &[&str] = &[];

/// Two modules, one of which has two of its own.
#[derive(Module, Debug)]
struct Small {
    first: Linear,
    second: LayerNorm,
}

/// A part of it.
#[derive(Module, Debug)]
struct First {
    first: Linear,
}

fn small(width: usize) -> Small {
    let device = Device::flex();
    Small {
        first: LinearConfig::new(2, width).init(&device),
        second: LayerNormConfig::new(width).init(&device),
    }
}

/// A run whose only checkpoint is of that module.
fn run_of<M: Module>(module: &M) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin {
        config: Value::Null,
        data: String::new(),
    };
    let optimizer = SharedConfig::default().optimizer.init();
    let checkpoints = Checkpoints::new(folder.path(), 1, origin);
    let saved = checkpoints.save(module, &optimizer, &State::default());
    saved.unwrap();
    folder
}

fn weights<M: Module>(module: &M) -> Weights {
    // The run is gone before its weights are used.
    Weights::of_run(run_of(module).path()).unwrap()
}

#[derive(Default)]
struct Values {
    path: Vec<String>,
    found: BTreeMap<String, TensorData>,
}

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        self.found.insert(path, param.val().into_data());
    }
}

fn values<M: Module>(module: &M) -> BTreeMap<String, TensorData> {
    let mut values = Values::default();
    module.visit(&mut values);
    values.found
}

fn message<T>(result: Result<T>) -> String {
    format!("{:#}", result.err().expect("it is refused"))
}

#[track_caller]
fn assert_says(result: Result<impl Sized>, parts: &[&str]) {
    let message = message(result);
    for part in parts {
        assert!(message.contains(part), "not `{part}`: {message}");
    }
}

#[test]
fn an_argument_is_a_run_and_perhaps_a_module() {
    let folder = tempfile::tempdir().unwrap();
    let with_colon = folder.path().join("12:30");
    std::fs::create_dir(&with_colon).unwrap();
    let with_colon = with_colon.to_str().unwrap();
    for (text, run, path) in [
        ("runs/a", "runs/a", None),
        ("runs/a:model.image", "runs/a", Some("model.image")),
        ("a:b:model", "a:b", Some("model")),
        // A path has no slash.
        ("at:12/a", "at:12/a", None),
        (with_colon, with_colon, None),
    ] {
        let init: InitSource = text.parse().unwrap();
        assert_eq!(init.run, Path::new(run), "{text}");
        assert_eq!(init.path.as_deref(), path, "{text}");
        assert_eq!(init.to_string(), text);
    }
    for text in ["", ":model"] {
        assert_says(text.parse::<InitSource>(), &["there is no run"]);
    }
}

#[test]
fn sources_are_one_or_a_list_and_start_all_of_a_model_once() {
    let read = |text: &str| serde_json::from_str::<InitConfig>(text);
    let one = r#"{"run":"a","path":null,"new":["x"],"unused":[]}"#;
    let part = r#"{"run":"b","path":"model.image","new":[],"unused":["y"]}"#;
    for text in [one.to_string(), part.to_string(), format!("[{one},{part}]")] {
        let written = serde_json::to_string(&read(&text).unwrap()).unwrap();
        assert_eq!(written, text);
    }
    // A list of one is that one.
    assert_eq!(read(&format!("[{one}]")).unwrap(), read(one).unwrap());
    for (text, says) in [
        (format!("[{one},{one}]"), "starts all of the model"),
        ("[]".to_string(), "an empty list"),
        ("5".to_string(), "what weights come from, or a list of that"),
        (r#"{"path":"model"}"#.to_string(), "run"),
        (r#"[{"run":"a","paths":[]}]"#.to_string(), "paths"),
    ] {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn all_parameters_take_the_values_of_their_paths() {
    let (earlier, new) = (small(3), small(3));
    assert!(values(&earlier) != values(&new));
    let loaded = weights(&earlier)
        .load_into(new.clone(), NONE, NONE)
        .unwrap();
    assert_eq!(values(&loaded), values(&earlier));
    // An optimiser must not take the two for one.
    assert_eq!(loaded.first.weight.id, new.first.weight.id);
}

#[test]
fn a_module_starts_alone() {
    let (earlier, new) = (small(3), small(3));
    let first = || weights(&earlier).below("first").unwrap();
    let loaded = first().load_into(new.clone(), NONE, NONE).unwrap();
    let (loaded, earlier_values, new_values) = (values(&loaded), values(&earlier), values(&new));
    for (path, value) in &loaded {
        let expected = if path.starts_with("first.") {
            &earlier_values
        } else {
            &new_values
        };
        assert_eq!(value, &expected[path], "{path}");
    }
    // Only whole names of modules count.
    for path in ["firs", "first.weight", "third", ""] {
        let says = format!("has no module {path}; there are first, second");
        assert_says(weights(&earlier).below(path).map(|_| ()), &[&says]);
    }
}

#[test]
fn a_part_starts_a_module_of_another_place() {
    let (earlier, new) = (small(3), small(3));
    let moved = |from, to| weights(&earlier).moved(from, to);
    let linear = moved("first", "").unwrap();
    let linear = linear.load_into(new.first.clone(), NONE, NONE).unwrap();
    assert_eq!(values(&linear), values(&earlier.first));

    let pair = (new.first.clone(), new.second.clone());
    let second = moved("second", "1").unwrap();
    let pair = second.load_into(pair, NONE, NONE).unwrap();
    assert_eq!(values(&pair.1), values(&earlier.second));
    assert_eq!(values(&pair.0), values(&new.first));
}

#[test]
fn what_is_missing_unused_or_of_another_shape_is_refused_by_name() {
    let whole = small(3);
    let first = First {
        first: whole.first.clone(),
    };
    assert_says(
        weights(&first).load_into(whole.clone(), NONE, NONE),
        &["lacks second.gamma, second.beta: ", "init.new"],
    );
    assert_says(
        weights(&whole).load_into(first, NONE, NONE),
        &["has second.beta, second.gamma, which", "init.unused"],
    );
    assert_says(
        weights(&whole).load_into(small(4), NONE, NONE),
        &[
            "does not fit",
            "first.weight is [2, 3] there and [2, 4] here",
        ],
    );
}

#[test]
fn what_is_asked_for_may_be_new_or_unused() {
    let (whole, other) = (small(3), small(3));
    let first = First {
        first: other.first.clone(),
    };
    let loaded = weights(&first).load_into(whole.clone(), &["^second\\."], NONE);
    let loaded = loaded.unwrap();
    assert_eq!(values(&loaded.first), values(&other.first));
    assert_eq!(values(&loaded.second), values(&whole.second));
    let loaded = weights(&whole).load_into(first.clone(), NONE, &["gamma", "^second\\.beta$"]);
    assert_eq!(values(&loaded.unwrap().first), values(&whole.first));

    // In place of one of another shape, it is both.
    let wide = small(4);
    let of_wide =
        |new: &[&str], unused: &[&str]| weights(&whole).load_into(wide.clone(), new, unused);
    assert_eq!(values(&of_wide(&["."], &["."]).unwrap()), values(&wide));
    for (new, unused) in [(&["."][..], NONE), (NONE, &["."])] {
        assert_says(of_wide(new, unused), &["does not fit"]);
    }

    // What else there is stays refused.
    assert_says(
        weights(&whole).load_into(first.clone(), NONE, &["gamma", "^first"]),
        &["has second.beta, which"],
    );
    assert_says(
        weights(&first).load_into(whole.clone(), &["gamma", "^first"], NONE),
        &["lacks second.beta: "],
    );
    assert_says(
        weights(&whole).load_into(first, &["("], NONE),
        &["\"(\" is no regular expression"],
    );
}

#[test]
fn without_a_whole_checkpoint_there_are_no_weights() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_path_buf(), folder.path().join("absent")] {
        let weights = Weights::of_run(&path).map(|_| ());
        assert_says(
            weights,
            &["is no run with a checkpoint", path.to_str().unwrap()],
        );
    }
    let run = run_of(&small(3));
    let file = run.path().join("checkpoints/step-000000").join(MODEL);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let weights = Weights::of_run(run.path()).map(|_| ());
    assert_says(weights, &["model.bpk is damaged"]);
}

fn image_encoder(size: usize, pooling: Pooling) -> ImageEncoder {
    let config = ImageEncoderConfig {
        image_size: size,
        patch_size: 4,
        width: 6,
        layers: 1,
        heads: 1,
        pooling,
        dropout: 0.0,
        layout: ImageLayout::Deit,
        activation: Activation::Gelu,
    };
    config.init(&Device::flex())
}

#[test]
fn positions_of_images_of_another_size_are_interpolated() {
    for pooling in [Pooling::Token, Pooling::Mean] {
        let earlier = image_encoder(8, pooling);
        let loaded = weights(&earlier).load_into(image_encoder(16, pooling), NONE, NONE);
        let loaded = loaded.unwrap();
        let expected = earlier.resized(16);
        assert_eq!(values(&loaded), values(&expected));
        let images = Tensor::random([1, 3, 16, 16], Distribution::Default, &Device::flex());
        assert_eq!(loaded.forward(images).dims(), [1, 6]);
    }
}

#[test]
fn positions_of_other_images_or_of_words_are_not() {
    // One patch, without a first token and with one.
    let one = weights(&image_encoder(4, Pooling::Mean));
    let token = image_encoder(4, Pooling::Token);
    assert_says(one.load_into(token, NONE, NONE), &["does not fit"]);

    let text = |context| {
        let config = TextEncoderConfig {
            context,
            ..crate::models::DualEncoderConfig::tiny().text
        };
        config.init(&Device::flex())
    };
    let sixteen: TextEncoder = text(16);
    assert_says(
        weights(&sixteen).load_into(text(25), NONE, NONE),
        &["positions is [1, 16, ", "there and [1, 25, "],
    );
}
