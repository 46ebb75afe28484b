use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{Device, Distribution};

use super::*;
use crate::data::{
    CaptionTokenizer, Collection, Example, Place, Split, TokenizerConfig, TransformConfig,
};
use crate::report::Metrics;

fn random(shape: [usize; 2]) -> Tensor<2> {
    Tensor::random(shape, Distribution::Uniform(-0.5, 0.5), &Device::flex())
}

/// Captions for so many images, of which every tenth has two.
fn owners(images: usize) -> Vec<usize> {
    let each = (0..images).flat_map(|image| {
        let count = if image % 10 == 3 { 2 } else { 1 };
        std::iter::repeat_n(image, count)
    });
    each.collect()
}

/// Embeddings at random of 5,007 images and their captions.
fn five_thousand() -> Embedded {
    let image_of_caption = owners(5_007);
    Embedded {
        images: l2_normalize(random([5_007, 4])),
        texts: l2_normalize(random([image_of_caption.len(), 4])),
        image_of_caption,
        similarities: None,
    }
}

/// A set of 5,007 images that are nowhere, and what is retrieved on it by embeddings times a
/// factor: of NaN there is no map, which takes long.
pub(crate) fn retrieved(factor: f64) -> (Arc<Collection>, EvaluationSet, Retrieved) {
    let mut embedded = five_thousand();
    embedded.images = embedded.images * factor;
    let mut captions = vec![Vec::new(); 5_007];
    for &image in &embedded.image_of_caption {
        captions[image].push("a thing".to_string());
    }
    let example = |captions: Vec<String>| Example {
        image: PathBuf::from("nowhere.png").into(),
        captions,
        split: Split::Test,
        place: Place::Row(0),
        scene: None,
    };
    let collection = Arc::new(Collection {
        file: PathBuf::from("nowhere"),
        examples: captions.into_iter().map(example).collect(),
        skipped: Vec::new(),
    });
    let words = ["a thing"].into_iter();
    let tokenizer = CaptionTokenizer::train(words, &TokenizerConfig::default()).unwrap();
    let (tokenizer, transform) = (Arc::new(tokenizer), TransformConfig::default());
    let set = EvaluationSet::new(collection.clone(), Split::Test, tokenizer, transform, 1);
    let ranks = embedded.ranks();
    (collection, set.unwrap(), Retrieved::of(embedded, ranks))
}

/// What reports name the figures of five folds: `R@1 image → text` and so on.
pub(crate) fn of_folds(name: &str) -> Vec<String> {
    let both = ["image → text", "text → image"];
    let recalls = both.map(|way| [1, 5, 10].map(|k| format!("{name}: R@{k} {way}")));
    let sum = format!("{name}: R@sum");
    recalls.into_iter().flatten().chain([sum]).collect()
}

/// The mean recalls at 1, 5 and 10 of five folds, by loops over similarities.
fn by_hand(
    similarity: impl Fn(usize, usize) -> f64,
    image_of_caption: &[usize],
    tie: f64,
) -> [f64; 3] {
    let mut recalls = [0.0; 3];
    for fold in 0..5 {
        let images = fold * 1_000..(fold + 1) * 1_000;
        let captions: Vec<usize> = (0..image_of_caption.len())
            .filter(|&caption| images.contains(&image_of_caption[caption]))
            .collect();
        let mut found = [0_u32; 3];
        for image in images {
            let (mut best, mut others) = (f64::MIN, Vec::new());
            for &caption in &captions {
                let value = similarity(image, caption);
                if image_of_caption[caption] == image {
                    best = best.max(value);
                } else {
                    others.push(value);
                }
            }
            let ahead = others.iter().filter(|&&value| value >= best - tie).count();
            for (found, k) in found.iter_mut().zip([1, 5, 10]) {
                *found += u32::from(ahead < k);
            }
        }
        for (recall, found) in recalls.iter_mut().zip(found) {
            *recall += 100.0 * f64::from(found) / 1_000.0 / 5.0;
        }
    }
    recalls
}

fn recalls(of: &burn_contrastive::retrieval::RankMetrics) -> [f64; 3] {
    [of.recall_at_1, of.recall_at_5, of.recall_at_10]
}

fn assert_close(found: [f64; 3], expected: [f64; 3]) {
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-9, "{found:?}, {expected:?}");
    }
}

fn values(tensor: &Tensor<2>) -> Vec<f32> {
    tensor.to_data().try_into_vec().unwrap()
}

#[test]
fn five_folds_are_of_a_thousand_images_each_with_their_own_captions() {
    let embedded = five_thousand();
    let [images, texts] = embedded.embeddings().map(values);
    let cosine = |image: usize, caption: usize| {
        let [a, b] =
            [(&images, image), (&texts, caption)].map(|(of, row)| &of[row * 4..row * 4 + 4]);
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum::<f64>()
    };
    let tie = 4.0 * f64::from(f32::EPSILON);
    let folds = embedded.five_folds().unwrap();
    let expected = by_hand(cosine, &embedded.image_of_caption, tie);
    assert!(expected[2] > 0.5 && expected[2] < 10.0, "{expected:?}");
    assert_close(recalls(&folds.image_to_text), expected);

    let fewer = Embedded {
        images: embedded.images.clone().narrow(0, 0, 4_999),
        ..embedded
    };
    assert!(fewer.five_folds().is_none());
}

#[test]
fn five_folds_of_given_similarities_are_theirs_and_not_of_cosines() {
    let embedded = five_thousand();
    let captions = embedded.image_of_caption.len();
    let [of_images, of_captions] = [random([5_007, captions]), random([captions, 5_007])];
    let embedded = embedded.with_similarities([of_images.clone(), of_captions.clone()], 1e-4);
    let folds = embedded.five_folds().unwrap();
    let of = &embedded.image_of_caption;
    let similarities = values(&of_images);
    let similarity =
        |image: usize, caption: usize| f64::from(similarities[image * captions + caption]);
    assert_close(recalls(&folds.image_to_text), by_hand(similarity, of, 1e-4));

    // The other way, each caption has one image.
    let similarities = values(&of_captions);
    let (mut found, mut means) = ([0.0; 3], [0.0; 3]);
    for fold in 0..5 {
        let images = fold * 1_000..(fold + 1) * 1_000;
        let queries: Vec<_> = (0..captions).filter(|&c| images.contains(&of[c])).collect();
        for &caption in &queries {
            let row = &similarities[caption * 5_007..(caption + 1) * 5_007];
            let own = f64::from(row[of[caption]]);
            let ahead = images.clone().filter(|&image| image != of[caption]);
            let ahead = ahead
                .filter(|&image| f64::from(row[image]) >= own - 1e-4)
                .count();
            for (found, k) in found.iter_mut().zip([1, 5, 10]) {
                *found += f64::from(u8::from(ahead < k));
            }
        }
        for (mean, found) in means.iter_mut().zip(&mut found) {
            *mean += 100.0 * std::mem::take(found) / queries.len() as f64 / 5.0;
        }
    }
    assert_close(recalls(&folds.text_to_image), means);
}

#[test]
fn reports_and_comparisons_have_the_figures_of_five_folds() {
    let (_, set, retrieved) = retrieved(1.0);
    let folds = retrieved.embedded().five_folds().unwrap();
    let report = retrieved.report(&set, None);
    let names = |facts: &[Fact]| {
        facts
            .iter()
            .map(|fact| fact.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&report.facts), of_folds("Five folds of 1,000 images"));
    let metrics = Metrics::from(&report);
    let figures = metrics.figures();
    let (own, all) = figures.split_at(3);
    assert_eq!(own[2], ("R@sum", retrieved.metrics().recall_sum));
    let found: Vec<_> = all.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(found, of_folds("5 × 1K"));
    assert_close(
        [all[0].1, all[1].1, all[2].1],
        recalls(&folds.image_to_text),
    );
    assert_close(
        [all[3].1, all[4].1, all[5].1],
        recalls(&folds.text_to_image),
    );
    assert!((all[6].1 - folds.recall_sum).abs() < 1e-9);
}

#[test]
fn cosines_that_are_given_have_the_ranks_of_their_embeddings() {
    let embedded = Embedded {
        images: l2_normalize(random([6, 5])),
        texts: l2_normalize(random([12, 5])),
        image_of_caption: (0..12).map(|caption| caption / 2).collect(),
        similarities: None,
    };
    let expected = embedded.ranks();
    let [images, texts] = embedded.embeddings().map(Clone::clone);
    let cosines = images.matmul(texts.transpose());
    let given = [cosines.clone(), cosines.transpose()];
    let [of_image, of_caption] = [embedded.captions_for(2, 3), embedded.images_for(7, 3)];
    let embedded = embedded.with_similarities(given.clone(), 0.0);
    assert_eq!(embedded.ranks(), expected);
    assert_eq!(embedded.captions_for(2, 3), of_image);
    assert_eq!(embedded.images_for(7, 3), of_caption);

    // A tie is lost, and a NaN leaves no rank.
    let equal = Tensor::zeros([6, 12], &Device::flex());
    let embedded = embedded.with_similarities([equal.clone(), equal.transpose()], 0.0);
    let ranks = embedded.ranks();
    assert_eq!(ranks.image_to_text.as_slice(), [Some(11); 6]);
    assert_eq!(ranks.text_to_image.as_slice(), [Some(6); 12]);
    let bad = given.map(|values| values * f64::NAN);
    let ranks = embedded.with_similarities(bad, 0.0).ranks();
    assert_eq!(ranks.text_to_image.as_slice(), [None; 12]);
}

#[test]
fn given_similarities_that_differ_by_rounding_are_equal() {
    let value = |image: usize, caption: usize| if image == caption { 0.5001_f32 } else { 0.5 };
    let rows: Vec<f32> = (0..16).map(|at| value(at / 4, at % 4)).collect();
    let pairs = Tensor::<1>::from_data(&rows[..], &Device::flex()).reshape([4, 4]);
    let pairs = [pairs.clone(), pairs];
    let ranks = |tie: f64| {
        let embedded = Embedded {
            images: random([4, 2]),
            texts: random([4, 2]),
            image_of_caption: (0..4).collect(),
            similarities: None,
        };
        embedded.with_similarities(pairs.clone(), tie).ranks()
    };
    let found = ranks(0.0);
    assert_eq!(found.image_to_text.as_slice(), [Some(1); 4]);
    let lost = ranks(2e-4);
    assert_eq!(lost.image_to_text.as_slice(), [Some(4); 4]);
    assert_eq!(lost.text_to_image.as_slice(), [Some(4); 4]);
}
