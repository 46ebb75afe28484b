//! The losses of ALBEF's pretraining, of the models and plain operations, against PyTorch's.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_contrastive_examples::models::{
    Bert, BertConfig, ImageEncoder, ImageEncoderConfig, ImageLayout, LanguageHead, MatchingHead,
    Pooling, ProjectionHead,
};

use crate::reference::{Key, Reference};
use crate::{bert, image_encoder};

/// What student and momentum model both have.
#[derive(Module, Debug)]
struct Encoders {
    image: ImageEncoder,
    bert: Bert,
    head: LanguageHead,
    image_projection: ProjectionHead,
    text_projection: ProjectionHead,
}

#[derive(Module, Debug)]
struct Student {
    encoders: Encoders,
    matching: MatchingHead,
    temperature: Param<Tensor<1>>,
}

/// All that the file has weights of.
#[derive(Module, Debug)]
struct Albef {
    student: Student,
    momentum: Encoders,
    image_queue: Param<Tensor<2>>,
    text_queue: Param<Tensor<2>>,
}

impl Encoders {
    fn new(device: &Device) -> Self {
        let image = ImageEncoderConfig {
            image_size: 12,
            patch_size: 4,
            width: 12,
            layers: 2,
            heads: 3,
            pooling: Pooling::Token,
            dropout: 0.0,
            layout: ImageLayout::Deit,
        };
        let bert = BertConfig {
            vocabulary: 30,
            context: 10,
            width: 12,
            layers: 4,
            fusion_layers: 2,
            heads: 3,
            intermediate: 20,
            dropout: 0.0,
        };
        Self {
            image: image.init(device),
            bert: bert.init(device),
            head: bert.init_language_head(device),
            image_projection: ProjectionHead::linear(12, 6, true, device),
            text_projection: ProjectionHead::linear(12, 6, true, device),
        }
    }

    /// States of all tokens, and the embedding of unit length.
    fn image(&self, images: Tensor<4>) -> (Tensor<3>, Tensor<2>) {
        let states = self.image.tokens(images);
        let embedding = self.image_projection.forward(first(states.clone()));
        (states, unit(embedding))
    }

    /// States of all tokens, and the embedding of unit length.
    fn text(&self, text: &Text) -> (Tensor<3>, Tensor<2>) {
        let states = self.bert.read(text.tokens.clone(), text.padding.clone());
        let embedding = self.text_projection.forward(first(states.clone()));
        (states, unit(embedding))
    }

    /// Logits of the words at those places of all sentences.
    fn words(&self, text: &Text, image: Tensor<3>, places: Tensor<1, Int>) -> Tensor<2> {
        let (states, _) = self.text(text);
        let fused = self.bert.fuse(states, text.padding.clone(), image);
        let states: Tensor<2> = fused.flatten(0, 1);
        let states = states.select(0, places);
        self.head.forward(states, &self.bert.embeddings)
    }
}

struct Text {
    tokens: Tensor<2, Int>,
    padding: Tensor<2, Bool>,
}

fn first(states: Tensor<3>) -> Tensor<2> {
    states.narrow(1, 0, 1).squeeze_dim(1)
}

fn unit(x: Tensor<2>) -> Tensor<2> {
    let norm = x.clone().powi_scalar(2).sum_dim(1).sqrt();
    x / norm
}

fn soft_cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    -(targets * log_softmax(logits, 1)).sum_dim(1).mean()
}

fn cross_entropy(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let device = logits.device();
    CrossEntropyLossConfig::new()
        .init(&device)
        .forward(logits, labels)
}

/// ALBEF's name of a parameter of [`Albef`].
fn key(path: &str) -> Key {
    let (of_momentum, path) = match path.split_once('.') {
        Some(("student", rest)) => (false, rest.trim_start_matches("encoders.")),
        Some(("momentum", rest)) => (true, rest),
        _ => (false, path),
    };
    let (part, rest) = path.split_once('.').unwrap_or((path, ""));
    let (name, Key { name: rest, part }) = match part {
        "image" => ("visual_encoder", image_encoder::key(rest)),
        "bert" | "head" => ("text_encoder", bert::key(path, 2)),
        "image_projection" => ("vision_proj", Key::whole(rest.replace("output.", ""))),
        "text_projection" => ("text_proj", Key::whole(rest.replace("output.", ""))),
        "matching" => ("itm_head", Key::whole(rest.replace("linear.", ""))),
        "temperature" => return Key::whole("temp".into()),
        queue => return Key::whole(queue.into()),
    };
    let suffix = if of_momentum { "_m" } else { "" };
    Key {
        name: format!("{name}{suffix}.{rest}"),
        part,
    }
}

#[test]
fn losses_and_gradients_are_those_of_albefs_equations() {
    let reference = Reference::read("albef/albef");
    let device = Device::flex().autodiff();
    let numbers = |shape| Initializer::Zeros.init(shape, &device);
    let albef = Albef {
        student: Student {
            encoders: Encoders::new(&device),
            matching: MatchingHead::new(12, &device),
            temperature: Initializer::Zeros.init([1], &device),
        },
        momentum: Encoders::new(&device),
        image_queue: numbers([6, 5]),
        text_queue: numbers([6, 5]),
    };
    let albef = reference.load(albef, key);
    let Student {
        encoders: student,
        matching,
        temperature,
    } = &albef.student;
    let momentum = &albef.momentum;
    let padding = reference.padding("padding", &device);
    let text = |name| Text {
        tokens: reference.integers(name, &device),
        padding: padding.clone(),
    };
    let alpha: f32 = reference.input::<1>("alpha", &device).into_scalar();
    let blend = |soft: Tensor<2>, hard: Tensor<2>| soft * alpha + hard * (1.0 - alpha);
    let images = || reference.input("images", &device);

    // Contrast.
    let (image_states, image_features) = student.image(images());
    let (text_states, text_features) = student.text(&text("tokens"));
    let (image_states_m, image_features_m) = momentum.image(images());
    let (_, text_features_m) = momentum.text(&text("tokens"));
    for (name, features) in [
        ("image_features", &image_features),
        ("text_features", &text_features),
        ("image_features_m", &image_features_m),
        ("text_features_m", &text_features_m),
    ] {
        reference.check(&format!("output.{name}"), features.clone());
    }
    let own_pair = Tensor::<2>::eye(4, &device).pad((0, 5, 0, 0), 0.0);
    let contrast = |direction: &str, features: Tensor<2>, features_m: Tensor<2>, keys: [_; 2]| {
        let keys = Tensor::cat(keys.to_vec(), 1).detach();
        let similarity =
            |features: Tensor<2>| features.matmul(keys.clone()) / temperature.val().unsqueeze();
        let soft = softmax(similarity(features_m), 1).detach();
        let targets = blend(soft, own_pair.clone());
        let similarity = similarity(features);
        reference.check(&format!("output.targets_{direction}"), targets.clone());
        reference.check(
            &format!("output.similarity_{direction}"),
            similarity.clone(),
        );
        let loss = soft_cross_entropy(similarity, targets);
        reference.check(&format!("loss.{direction}"), loss.clone());
        loss
    };
    let text_keys = [text_features_m.clone().transpose(), albef.text_queue.val()];
    let image_keys = [
        image_features_m.clone().transpose(),
        albef.image_queue.val(),
    ];
    let i2t = contrast("i2t", image_features, image_features_m, text_keys);
    let t2i = contrast("t2i", text_features, text_features_m, image_keys);
    let ita = (i2t + t2i) / 2.0;
    reference.check("loss.ita", ita.clone());

    // Matching.
    let other_images = reference.integers("negative_images", &device);
    let other_texts: Tensor<1, Int> = reference.integers("negative_texts", &device);
    let fuse = |text, padding, image| first(student.bert.fuse(text, padding, image));
    let fused = vec![
        fuse(text_states.clone(), padding.clone(), image_states.clone()),
        fuse(
            text_states.clone(),
            padding.clone(),
            image_states.clone().select(0, other_images),
        ),
        fuse(
            text_states.select(0, other_texts.clone()),
            padding.clone().int().select(0, other_texts).bool(),
            image_states.clone(),
        ),
    ];
    let logits = matching.forward(Tensor::cat(fused, 0));
    reference.check("output.itm_logits", logits.clone());
    let matches = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let itm = cross_entropy(logits, Tensor::from_data(matches, &device));
    reference.check("loss.itm", itm.clone());

    // Masked words.
    let labels = reference.integers::<2>("labels", &device).into_data();
    let masked = labels
        .iter::<i32>()
        .zip(0..)
        .filter(|(label, _)| *label >= 0);
    let (labels, places): (Vec<i32>, Vec<i32>) = masked.unzip();
    let places = || Tensor::<1, Int>::from_data(places.as_slice(), &device);
    let seen = text("masked_tokens");
    let logits = student.words(&seen, image_states, places());
    let logits_m = momentum.words(&seen, image_states_m, places()).detach();
    reference.check("output.mlm_logits", logits.clone());
    reference.check("output.mlm_logits_m", logits_m.clone());
    let labels = Tensor::from_data(labels.as_slice(), &device);
    let hard = cross_entropy(logits.clone(), labels);
    let soft = soft_cross_entropy(logits, softmax(logits_m, 1));
    reference.check("loss.mlm_hard", hard.clone());
    reference.check("loss.mlm_soft", soft.clone());
    let mlm = soft * alpha + hard * (1.0 - alpha);
    reference.check("loss.mlm", mlm.clone());

    let total = mlm + ita + itm;
    reference.check("loss.total", total.clone());
    reference.check_gradients(&albef.student, total, |path| {
        key(&format!("student.{path}"))
    });
}
