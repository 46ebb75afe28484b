//! The losses of a step of `albef`, by its own code, against PyTorch's.

use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Bool, Device, Gradients, Int, Tensor};
use burn_contrastive::momentum::MomentumEncoderConfig;
use burn_contrastive::negatives::PairFeatures;
use burn_contrastive::objective::{Masked, MatchingPairs};
use burn_contrastive::similarity::l2_normalize;
use burn_contrastive_examples::models::{
    Activation, BertConfig, ImageEncoderConfig, ImageLayout, MatchingHead, Pooling,
};
use burn_contrastive_examples::published::{Key, Layout, Published};
use burn_contrastive_examples::systems::albef::{
    Albef, AlbefConfig, AlbefModel, AlbefModelConfig, Encoded, Rows,
};
use burn_contrastive_examples::training::system::{Moment, System, SystemConfig};
use burn_contrastive_examples::training::weights::Weights as ModuleWeights;

use crate::reference::Reference;
use crate::{bert, image_encoder};

/// The pairs of the file's batch.
const PAIRS: usize = 4;

/// What is trained there.
#[derive(Module, Debug)]
struct Student {
    model: AlbefModel,
    matching: MatchingHead,
    temperature: Param<Tensor<1>>,
}

/// All that the file has weights of.
#[derive(Module, Debug)]
struct Weights {
    student: Student,
    momentum: AlbefModel,
    image_queue: Param<Tensor<2>>,
    text_queue: Param<Tensor<2>>,
}

fn config() -> AlbefConfig {
    let mut config = AlbefConfig::defaults().system;
    config.model = AlbefModelConfig {
        image: ImageEncoderConfig {
            image_size: 12,
            patch_size: 4,
            width: 12,
            layers: 2,
            heads: 3,
            pooling: Pooling::Token,
            dropout: 0.0,
            layout: ImageLayout::Deit,
            activation: Activation::Gelu,
        },
        bert: BertConfig {
            vocabulary: 30,
            context: 10,
            width: 12,
            layers: 4,
            fusion_layers: 2,
            heads: 3,
            intermediate: 20,
            dropout: 0.0,
            initializer_range: 0.02,
        },
        embedding: 6,
    };
    config.momentum.queue = 5;
    config.momentum.queue_ramp_epochs = 0.0;
    config.tokens = 10;
    config.check().unwrap();
    config
}

/// ALBEF's name of a parameter of [`Weights`].
fn key(path: &str) -> Key {
    let path = path.trim_start_matches("student.");
    let (of_momentum, path) = match path.strip_prefix("momentum.") {
        Some(rest) => (true, rest),
        None => (false, path.trim_start_matches("model.")),
    };
    let (part, rest) = path.split_once('.').unwrap_or((path, ""));
    let (name, key) = match part {
        "image" => ("visual_encoder", image_encoder::key(rest)),
        "bert" => ("text_encoder", bert::key(path, 2)),
        "language_head" => ("text_encoder", bert::key(&path.replace("language_", ""), 2)),
        "image_projection" => ("vision_proj", Key::whole(rest.replace("output.", ""))),
        "text_projection" => ("text_proj", Key::whole(rest.replace("output.", ""))),
        "matching" => ("itm_head", Key::whole(rest.replace("linear.", ""))),
        "temperature" => return Key::whole("temp"),
        queue => return Key::whole(queue),
    };
    let suffix = if of_momentum { "_m" } else { "" };
    Key {
        name: format!("{name}{suffix}.{}", key.name),
        ..key
    }
}

/// The file's batch, and what it was drawn.
struct Given {
    reference: Reference,
    albef: Albef,
    temperature: f32,
    device: Device,
    padding: Tensor<2, Bool>,
    encoded: Encoded,
    momentum: Encoded,
}

impl Given {
    /// At the end of the ramp of soft targets.
    fn new() -> Self {
        let reference = Reference::read("albef/albef");
        let device = Device::flex().autodiff();
        let mut albef = config().init(&device);
        let numbers = |shape| Initializer::Zeros.init(shape, &device);
        let weights = Weights {
            student: Student {
                model: albef.model.clone(),
                matching: albef.matching_head.clone(),
                temperature: Initializer::Zeros.init([1], &device),
            },
            momentum: config().init(&device).model,
            image_queue: numbers([6, 5]),
            text_queue: numbers([6, 5]),
        };
        let weights = reference.load(weights, key);
        let temperature: f32 = weights.student.temperature.val().into_scalar();
        albef.model = weights.student.model;
        albef.matching_head = weights.student.matching;
        albef.momentum = MomentumEncoderConfig::new().init(&weights.momentum);
        let rows = |queue: &Param<Tensor<2>>| queue.val().inner().transpose();
        let queued = PairFeatures::new(rows(&weights.image_queue), rows(&weights.text_queue));
        albef.queue = albef.queue.push(queued);
        for scale in albef.objective.logit_scales() {
            let log = (1.0 / temperature).ln();
            scale.log_scale = scale
                .log_scale
                .clone()
                .map(|old| (old * 0.0 + log).detach().require_grad());
        }
        Self::of(reference, albef, temperature, device)
    }

    /// The same of a system with other parameters.
    fn of(reference: Reference, albef: Albef, temperature: f32, device: Device) -> Self {
        let albef = albef.at(&Moment {
            epochs: 1.0,
            ..Moment::default()
        });
        let encode = |model: &AlbefModel, device: &Device| {
            let tokens = reference.integers("tokens", device);
            let padding = reference.padding("padding", device);
            model.encode(reference.input("images", device), tokens, padding)
        };
        Self {
            padding: reference.padding("padding", &device),
            encoded: encode(&albef.model, &device),
            momentum: encode(albef.momentum.encoder(), &Device::flex()),
            reference,
            albef,
            temperature,
            device,
        }
    }

    fn contrast(&self) -> Tensor<1> {
        let rows = Rows {
            image: self.encoded.image.clone(),
            text: self.encoded.text.clone(),
            momentum: [self.momentum.image.clone(), self.momentum.text.clone()],
            ids: Tensor::arange(0..PAIRS as i64, &Device::flex()),
            teacher: None,
        };
        self.albef.contrast(&rows)
    }

    fn matching(&self) -> Tensor<1> {
        let device = self.encoded.image.device();
        let own = || Tensor::<1, Int>::arange(0..PAIRS as i64, &device);
        let drawn = |name| self.reference.integers(name, &device);
        let matches = [vec![true; PAIRS], vec![false; 2 * PAIRS]].concat();
        let pairs = MatchingPairs {
            image: Tensor::cat(vec![own(), drawn("negative_images"), own()], 0),
            text: Tensor::cat(vec![own(), own(), drawn("negative_texts")], 0),
            matches: Tensor::from_data(&matches[..], &device),
            exists: Tensor::full([3 * PAIRS], true, &device),
        };
        self.albef
            .match_pairs(&self.encoded, self.padding.clone(), &pairs)
    }

    fn words(&self, albef: &Albef) -> Tensor<1> {
        let labels = self.reference.integers::<2>("labels", &self.device);
        let labels = labels.into_data();
        let hidden = labels.iter::<i32>().enumerate();
        let hidden = hidden.filter(|(_, label)| *label >= 0);
        let hidden = hidden.map(|(position, label)| (position, label as usize));
        let (positions, targets) = hidden.unzip();
        let masked = Masked {
            tokens: self.reference.integers("masked_tokens", &self.device),
            positions,
            targets,
        };
        let (encoded, momentum) = (&self.encoded, &self.momentum);
        albef.predict_words(self.padding.clone(), encoded, momentum, &masked)
    }

    /// The gradient by the temperature, of that by the logarithm of its inverse.
    fn by_temperature(&self, gradients: &Gradients) -> Tensor<1> {
        let mut objective = self.albef.objective.clone();
        let log_scale = objective.logit_scales()[0].log_scale.val();
        let gradient = log_scale.grad(gradients);
        gradient.expect("the contrast reads it") / -self.temperature
    }
}

#[test]
fn losses_and_gradients_are_those_of_albefs_equations() {
    let given = Given::new();
    let Given {
        reference, albef, ..
    } = &given;
    for (name, embedding) in [
        ("image_features", &given.encoded.image),
        ("text_features", &given.encoded.text),
        ("image_features_m", &given.momentum.image),
        ("text_features_m", &given.momentum.text),
    ] {
        let name = format!("output.{name}");
        reference.check(&name, l2_normalize(embedding.clone()));
    }
    let (contrast, matching, words) = (given.contrast(), given.matching(), given.words(albef));
    reference.check("loss.ita", contrast.clone());
    reference.check("loss.itm", matching.clone());
    reference.check("loss.mlm", words.clone());

    let total = contrast + matching + words;
    reference.check("loss.total", total.clone());
    let gradients = total.backward();
    reference.check("gradient.temp", given.by_temperature(&gradients));
    let student = (albef.model.clone(), albef.matching_head.clone());
    let key = |path: &str| match path.strip_prefix("1.") {
        Some(rest) => key(&format!("matching.{rest}")),
        None => key(path.trim_start_matches("0.")),
    };
    reference.check_those(&student, gradients, key, &["temp"]);
}

#[test]
fn a_checkpoint_of_albef_starts_all_that_is_trained() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/albef/albef.pth"
    );
    let published = Published::open(Path::new(file)).unwrap();
    assert_eq!(published.layout, Layout::Albef);
    let own = AlbefConfig::started_from_published(&published).unwrap();
    // The shapes do not tell how many heads there are of widths that none was published with.
    let mut expected = config().model;
    (expected.image.heads, expected.bert.heads) = (1, 1);
    expected.bert.dropout = 0.1;
    assert_eq!(own.system.model, expected);

    let Given {
        reference,
        mut albef,
        temperature,
        device,
        ..
    } = Given::new();
    let weights = ModuleWeights::published(published, "", config().text_layers());
    let none: [&str; 0] = [];
    let new = ["^momentum\\.", "^queue\\."];
    let started = weights.load_into(config().init(&device), &new, &none);
    let mut started = started.unwrap();
    let scale: f32 = started.objective.logit_scales()[0].value().into_scalar();
    assert!((scale * temperature - 1.0).abs() < 1e-6, "{scale}");
    albef.model = started.model;
    albef.matching_head = started.matching_head;
    albef.objective = started.objective;
    let given = Given::of(reference, albef, temperature, device);
    given.reference.check("loss.ita", given.contrast());
    given.reference.check("loss.itm", given.matching());
    given.reference.check("loss.mlm", given.words(&given.albef));
}

#[test]
fn the_contrast_alone_has_albefs_gradient_by_the_temperature() {
    let given = Given::new();
    let gradients = given.contrast().backward();
    let by_temperature = given.by_temperature(&gradients);
    given.reference.check("temp_gradient.ita", by_temperature);
}

#[test]
fn before_the_ramp_of_soft_targets_only_the_hidden_words_count() {
    let given = Given::new();
    let at = |epochs| {
        given.words(&given.albef.clone().at(&Moment {
            epochs,
            ..Moment::default()
        }))
    };
    let hard = at(0.0);
    given.reference.check("loss.mlm_hard", hard.clone());
    // Half-way, half of the share.
    let whole = at(1.0);
    given
        .reference
        .check("loss.mlm", (at(0.5) - hard / 2.0) * 2.0);
    given.reference.check("loss.mlm", whole);
}
