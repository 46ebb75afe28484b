use burn::tensor::{Device, Tensor};
use burn_contrastive::sharded::Sharding;

use super::*;
use crate::data::{
    CaptionTokenizer, Padding, Pairs, RegionPair, RegionPairs, Regions, Shard, SpecialTokens,
    TokenizerConfig, TransformConfig,
};
use crate::training::evaluation::tests::{of_folds, retrieved};
use crate::training::history::History;
use crate::training::run::Program;
use crate::training::system::{System, SystemConfig};

const WIDTH: usize = 3;

fn model(pairs: &[&str], device: &Device) -> ItContrast {
    let small = [
        "model.feature=3",
        "regions.tower.model.embedding=3",
        "model.bert.vocabulary=32",
        "model.bert.width=8",
        "model.bert.heads=2",
        "model.bert.intermediate=16",
        "model.bert.initializer_range=0.5",
        "negatives.noise=5",
        "negatives.clusters=2",
    ];
    let pairs: Vec<String> = small.iter().chain(pairs).map(ToString::to_string).collect();
    let config = ItContrastConfig::defaults().with(None, &pairs).unwrap();
    config.system.init(device)
}

/// Pairs of which the last two are of one image.
fn shard(from: usize, to: usize) -> Shard<RegionPair> {
    let pair = |index: usize| {
        let regions = 1 + index % 3;
        let value = |at: usize| ((index * 7 + at * 3) % 11) as f32 / 5.0 - 1.0;
        RegionPair {
            regions: Regions {
                features: (0..regions * WIDTH).map(value).collect(),
                boxes: vec![[0.1, 0.2, 0.5, 0.9]; regions],
            },
            tags: Vec::new(),
            room: 3,
            tokens: (0..2 + index as u32 % 4)
                .map(|at| 5 + (at * 3 + index as u32) % 20)
                .collect(),
            image_id: index.min(4),
            meaning: index.min(4),
        }
    };
    Shard {
        items: (from..to).map(pair).collect(),
        transform: TransformConfig::default(),
        padding: Padding {
            id: 0,
            context_length: 16,
            specials: SpecialTokens::default(),
        },
    }
}

fn rows<const D: usize>(tensor: &Tensor<D>) -> Vec<Vec<f64>> {
    let width = tensor.dims()[D - 1];
    let values: Vec<f64> = tensor.to_data().iter::<f64>().collect();
    values.chunks(width).map(<[_]>::to_vec).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Equation 7, as it stands, of features.
fn by_hand(features: &Features, temperature: f64) -> f64 {
    let (images, texts) = (rows(&features.image), rows(&features.text));
    let noise = features.noise.as_ref().map(rows).unwrap_or_default();
    let hard = |of: &Option<Tensor<3>>| of.as_ref().map(rows).unwrap_or_default();
    let one = |anchors: &[Vec<f64>], others: &[Vec<f64>], hard: &[Vec<f64>]| {
        let each = hard.len() / anchors.len();
        let loss = |i: usize| {
            let anchor = &anchors[i];
            let e = |other: &Vec<f64>| (cosine(anchor, other) / temperature).exp();
            let own = &hard[i * each..(i + 1) * each];
            let all = others.iter().chain(own).chain(&noise).map(e).sum::<f64>();
            -(e(&others[i]) / all).ln()
        };
        (0..anchors.len()).map(loss).sum::<f64>() / anchors.len() as f64
    };
    one(&images, &texts, &hard(&features.hard_text))
        + one(&texts, &images, &hard(&features.hard_image))
}

#[test]
fn the_loss_is_equation_7_with_what_is_switched_on() {
    let device = Device::flex();
    let weights = model(&[], &device);
    // Drawn when they are first read.
    weights.infer(&[shard(0, 1)]);
    let weights = weights.model;
    let mut losses = Vec::new();
    for synthesis in [false, true] {
        for noise in [false, true] {
            let pairs = [format!("synthesis={synthesis}"), format!("noise={noise}")];
            let pairs: Vec<&str> = pairs.iter().map(String::as_str).collect();
            let model = ItContrast {
                model: weights.clone(),
                ..model(&pairs, &device)
            };
            let batch = [shard(0, 4), shard(4, 6)];
            let output = model.infer(&batch);
            let embeddings = output.embeddings.unwrap();
            let ids = Tensor::<1, Int>::from_data([0, 1, 2, 3, 4, 4], &device);
            let features = model.features(embeddings.images, embeddings.texts, ids, 0);
            assert_eq!(features.noise.is_some(), noise);
            assert_eq!(features.hard_text.is_some(), synthesis);
            let expected = by_hand(&features, 0.05);
            let loss = output.loss.into_scalar::<f64>();
            assert!(
                (loss - expected).abs() < 1e-4 * expected,
                "{pairs:?} {loss} {expected}"
            );
            losses.push(loss);
        }
    }
    // Each further negative makes the denominator larger.
    let [base, info, syn, both] = losses[..] else {
        panic!("there are four settings");
    };
    assert!(
        base < info && base < syn && info < both && syn < both,
        "{losses:?}"
    );
}

/// Equation 7 without hard negatives, over regions and words.
#[test]
fn noise_is_contrasted_with_regions_and_words_one_by_one() {
    let device = Device::flex();
    let late = ["similarity=late-interaction", "synthesis=false"];
    for (more, factor) in [(&[][..], 1.0), (&["objective.directions=mean"], 0.5)] {
        let model = model(&[&late[..], more].concat(), &device);
        let batch = shard(0, 6);
        let images = model.look(batch.regions(WIDTH, &device));
        let (tokens, padding) = batch.texts(|pair| &pair.tokens, &device);
        let texts = model.read(tokens, padding);
        // Each sample's tokens without its padding.
        let samples = |states: &States| -> Vec<Vec<Vec<f64>>> {
            let width = states.states.dims()[2];
            let there = rows(&states.padding.clone().float());
            let all = states.states.to_data().iter::<f64>().collect::<Vec<_>>();
            let mut all = all.chunks(width).map(<[f64]>::to_vec);
            let own = there.into_iter().map(|padding| {
                let own = padding.into_iter().map(|is| (is, all.next().unwrap()));
                own.filter(|(is, _)| *is == 0.0)
                    .map(|(_, token)| token)
                    .collect()
            });
            own.collect()
        };
        let noise = model.noise(&Tensor::zeros([1, 8], &device), 0).unwrap();
        let noise: Vec<_> = rows(&noise)
            .into_iter()
            .map(|vector| vec![vector])
            .collect();
        assert_eq!(noise.len(), 5);
        let e = |own: &[Vec<f64>], other: &[Vec<f64>]| {
            let nearest = own.iter().map(|own| {
                let cosines = other.iter().map(|other| cosine(own, other));
                cosines.fold(f64::MIN, f64::max)
            });
            (nearest.sum::<f64>() / own.len() as f64 / 0.05).exp()
        };
        let one = |anchors: &[Vec<Vec<f64>>], others: &[Vec<Vec<f64>>]| {
            let losses = anchors.iter().zip(others).map(|(anchor, own)| {
                let all = others.iter().chain(&noise).map(|other| e(anchor, other));
                -(e(anchor, own) / all.sum::<f64>()).ln()
            });
            losses.sum::<f64>() / anchors.len() as f64
        };
        let (images, texts) = (samples(&images), samples(&texts));
        assert!(images[1].len() == 2 && texts[1].len() == 3);
        let expected = factor * (one(&images, &texts) + one(&texts, &images));
        let found = model.infer(&[batch]).loss.into_scalar::<f64>();
        assert!(
            (found - expected).abs() < 1e-4 * expected,
            "{found} {expected}"
        );
    }
}

#[test]
fn negatives_are_new_at_each_step_and_know_their_images() {
    let device = Device::flex();
    // Wide enough for every sample to count.
    let model = model(&["negatives.sigma=1"], &device);
    let batch = [shard(0, 6)];
    let embeddings = model.infer(&batch).embeddings.unwrap();
    let at = |step, ids: [i32; 6]| {
        let ids = Tensor::<1, Int>::from_data(ids, &device);
        model.features(
            embeddings.images.clone(),
            embeddings.texts.clone(),
            ids,
            step,
        )
    };
    let own = [0, 1, 2, 3, 4, 5];
    let data = |features: &Features| features.noise.clone().unwrap().into_data();
    assert_eq!(data(&at(3, own)), data(&at(3, own)));
    assert_ne!(data(&at(3, own)), data(&at(4, own)));
    let hard = |features: &Features| {
        features
            .hard_text
            .clone()
            .unwrap()
            .narrow(0, 4, 2)
            .into_data()
    };
    assert_ne!(hard(&at(3, own)), hard(&at(3, [0, 1, 2, 3, 4, 4])));
}

#[test]
fn tags_reach_the_embedding_of_their_own_image_and_nothing_else() {
    let device = Device::flex();
    let model = model(&[], &device);
    let embedded = |tags: [&[u32]; 6]| {
        let mut shard = shard(0, 6);
        for (pair, tags) in shard.items.iter_mut().zip(tags) {
            pair.tags = tags.to_vec();
        }
        let embeddings = model.infer(&[shard]).embeddings.unwrap();
        [rows(&embeddings.images), rows(&embeddings.texts)]
    };
    let last: &[u32] = &[2];
    let [none, one, other] = [
        embedded([&[]; 6]),
        embedded([&[7, 8, 2], last, last, last, last, last]),
        embedded([&[9, 2], last, last, last, last, last]),
    ];
    let apart = |a: &[f64], b: &[f64]| {
        let both = a.iter().zip(b);
        both.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    assert_eq!(none[1], one[1]);
    assert_eq!(one[1], other[1]);
    assert!(apart(&none[0][0], &one[0][0]) > 1e-2);
    assert!(apart(&one[0][0], &other[0][0]) > 1e-2);
    for image in 1..6 {
        assert!(apart(&one[0][image], &other[0][image]) < 1e-5);
    }
}

#[test]
fn shards_take_the_step_of_the_undivided_batch() {
    for similarity in [
        &[][..],
        &[
            "similarity=late-interaction",
            "synthesis=false",
            "noise=false",
        ],
        &["similarity=late-interaction", "synthesis=false"],
    ] {
        for has_tags in [false, true] {
            take_the_same_step(similarity, has_tags);
        }
    }
}

/// The same pairs with tags, more than eight of them in some, which pads them to another length.
fn tagged(mut shard: Shard<RegionPair>) -> Shard<RegionPair> {
    for pair in &mut shard.items {
        let count = pair.tokens.len();
        pair.tags = pair.tokens.repeat(1 + count / 3);
    }
    shard
}

fn take_the_same_step(pairs: &[&str], has_tags: bool) {
    let device = Device::flex().autodiff();
    let model = model(pairs, &device);
    let step = |batch: &[Shard<RegionPair>], sharding: &Sharding| {
        let step = model.train_on(batch, sharding);
        let mut found = Vec::new();
        struct Read<'a>(&'a burn::optim::GradientsParams, &'a mut Vec<f64>);
        impl burn::module::ModuleVisitor for Read<'_> {
            fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
                let gradient = self.0.get::<D>(param.id).expect("it is trained");
                self.1.extend(gradient.into_data().iter::<f64>());
            }
        }
        model
            .model
            .regions
            .visit(&mut Read(&step.gradients, &mut found));
        (step.output.loss.into_scalar::<f64>(), found)
    };
    let shard = |from, to| {
        let shard = shard(from, to);
        if has_tags { tagged(shard) } else { shard }
    };
    let (loss, expected) = step(&[shard(0, 6)], &Sharding::keep(1));
    for sharding in [Sharding::recompute(), Sharding::keep(1)] {
        let (found, gradients) = step(&[shard(0, 4), shard(4, 6)], &sharding);
        assert!((found - loss).abs() < 1e-5 * loss, "{found} {loss}");
        for (a, b) in gradients.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-4 + 1e-3 * b.abs(), "{a} {b}");
        }
    }
    assert!(expected.iter().any(|x| x.abs() > 1e-3));
}

#[test]
fn a_report_has_five_folds_behind_its_own_facts() {
    let (collection, set, retrieved) = retrieved(f64::NAN);
    let words = ["a thing"].into_iter();
    let tokenizer = CaptionTokenizer::train(words, &TokenizerConfig::default()).unwrap();
    let pairs = Pairs::new(collection, tokenizer.into(), TransformConfig::default());
    let test = RegionTest {
        set,
        regions: RegionPairs::new(pairs.unwrap()),
        pairs_a_batch: 64,
        seed: 0,
    };
    let report = ItContrast::report(&test, None, &retrieved, &History::default());
    let names: Vec<_> = report.facts.iter().map(|fact| fact.name.clone()).collect();
    let own = ["Pairs a batch, N", "ln N"].map(str::to_string);
    assert_eq!(names[..2], own);
    assert_eq!(names[2..], of_folds("Five folds of 1,000 images"));
    assert_eq!(report.compared.len(), 7);
}

#[test]
fn the_tie_of_late_interaction_covers_its_rounding() {
    let device = Device::flex();
    let random = |shape: [usize; 3]| {
        Tensor::<3>::random(shape, burn::tensor::Distribution::Default, &device) - 0.5
    };
    let all = |states: Tensor<3>, rows: usize| {
        let [_, tokens, _] = states.dims();
        States {
            states: states.repeat_dim(0, rows),
            padding: Tensor::<2>::zeros([rows, tokens], &device).bool(),
        }
    };
    // The same picture and the same caption in all places.
    let (images, texts) = (all(random([1, 13, 37]), 31), all(random([1, 9, 37]), 29));
    let tie = late::tie(&images, &texts);
    assert!(tie > 1e-6 && tie < 1e-5, "{tie}");
    for similarities in late::similarities(&images, &texts) {
        let values: Vec<f64> = similarities.into_data().iter::<f64>().collect();
        let least = values.iter().copied().fold(f64::MAX, f64::min);
        let most = values.iter().copied().fold(f64::MIN, f64::max);
        assert!(most - least <= tie, "{least}, {most}");
    }
}
