//! An invented run, with everything that a report can show.

// By its path: the tests of the programs include this file by its own.
#[path = "sample/parts.rs"]
mod parts;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use image::{Rgb, RgbImage};
use serde_json::json;

use crate::report::{
    CaptionQuery, Change, Curve, Curves, Dataset, DirectionScores, Examples, Fact, Histogram,
    ImageQuery, Maps, NamedCurve, NamedHistogram, ParameterCount, RankedCaption, RankedImage,
    Reference, Retrieval, RetrievalScores, RunReport, Similarities, Split, Stage, Validation,
};

const COLOURS: [(&str, [u8; 3]); 6] = [
    ("red", [205, 52, 48]),
    ("blue", [46, 92, 200]),
    ("green", [52, 150, 78]),
    ("yellow", [226, 190, 44]),
    ("purple", [132, 68, 176]),
    ("orange", [232, 124, 36]),
];

const STEPS: u64 = 1200;

/// The run; its images lie in `directory`.
pub fn run(directory: &Path) -> RunReport {
    let images: Vec<PathBuf> = (0..12).map(|index| scene(directory, index)).collect();
    RunReport {
        title: "CLIP on scenes: image and text encoders learn each other's pairs".into(),
        command: "cargo run --release --bin clip -- --set training.steps=1200 --set seed=7".into(),
        config: json!({
            "model": {"image": {"size": 64, "patch": 8, "width": 128}, "embedding": 128},
            "training": {"steps": STEPS, "batch_size": 128, "learning_rate": 5e-4},
            "seed": 7
        }),
        changes: vec![Change {
            step: 600,
            setting: "training.learning_rate".into(),
            from: json!(1e-3),
            to: json!(5e-4),
        }],
        device: "flex (CPU, 2 threads)".into(),
        dataset: Dataset {
            name: "scenes".into(),
            splits: [("train", 8000), ("validation", 400), ("test", 400)]
                .map(|(name, images)| Split {
                    name: name.into(),
                    images,
                    captions: 5 * images,
                })
                .to_vec(),
        },
        parameters: [
            ("image encoder", 824_960),
            ("text encoder", 1_002_112),
            ("logit scale", 1),
        ]
        .map(|(part, count)| ParameterCount {
            part: part.into(),
            count,
        })
        .to_vec(),
        started: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)),
        stages: [("data", 11.2), ("training", 221.7), ("evaluation", 6.3)]
            .map(|(name, seconds)| Stage {
                name: name.into(),
                seconds,
            })
            .to_vec(),
        retrieval: Retrieval {
            split: "test".into(),
            images: 400,
            captions: 2000,
            chance: Some(RetrievalScores::chance(&[5; 400])),
            before: Some(scores(0.3, 0.2)),
            after: Some(scores(73.4, 3.0)),
            reranked: Some(scores(78.2, 1.7)),
            reranked_top: Some(16),
        },
        curves: curves(),
        similarities: Similarities {
            before: Some(histogram((0.62, 0.05), (0.61, 0.05))),
            after: Some(histogram((0.71, 0.09), (0.02, 0.16))),
        },
        maps: Maps {
            before: Some(parts::map(0.2)),
            after: Some(parts::map(0.01)),
        },
        examples: examples(&images),
        facts: parts::facts(),
        accuracy: Some(parts::accuracy()),
        answers: parts::answers(&images),
        weights: Some(parts::weights(&images)),
        sweeps: vec![parts::thresholds(), parts::temperatures()],
        compared: vec![Fact {
            name: "average precision".into(),
            value: 51.5,
            unit: Some("%".into()),
        }],
        tables: vec![parts::precisions()],
        histograms: vec![NamedHistogram {
            name: "text–image similarities".into(),
            histogram: histogram((0.4, 0.1), (0.1, 0.1)),
        }],
    }
}

/// The same run with more of everything: long numbers, and a chance of next to nothing.
pub fn large(directory: &Path) -> RunReport {
    let mut run = run(directory);
    for split in &mut run.dataset.splits {
        (split.images, split.captions) = (1_000 * split.images, 1_000 * split.captions);
    }
    run.parameters[0].count = 1_086_192_640;
    run.stages[1].seconds = 1_234_567.8;
    let retrieval = &mut run.retrieval;
    retrieval.split = "test, 16 folds of 25,000 images".into();
    (retrieval.images, retrieval.captions) = (25_000, 125_000);
    retrieval.chance = Some(RetrievalScores::chance(&[5; 25_000]));
    if let Some(before) = &mut retrieval.before {
        before.image_to_text.recall_at_1 = 0.0;
        before.image_to_text.median_rank = 62_345.5;
        before.text_to_image.mean_rank = 12_345.6;
    }
    for fact in &mut run.facts {
        fact.value *= 1e4;
    }
    let accuracy = run.accuracy.as_mut().unwrap();
    (accuracy.count, accuracy.by_kind[0].count) = (1_234_567, 987_654);
    let weights = run.weights.as_mut().unwrap();
    weights.all.iter_mut().for_each(|count| *count *= 10_000);
    for row in &mut run.sweeps[1].rows {
        row.numbers.iter_mut().for_each(|number| *number *= 1e3);
    }
    let curves = &mut run.curves;
    let named = curves.losses.iter_mut().chain(&mut curves.figures);
    for curve in [
        &mut curves.loss,
        &mut curves.validation_loss,
        &mut curves.learning_rate,
        &mut curves.logit_scale,
    ]
    .into_iter()
    .chain(named.map(|named| &mut named.curve))
    {
        curve
            .points
            .iter_mut()
            .for_each(|point| point.step *= 1_000);
    }
    for point in &mut curves.learning_rate.points {
        point.value *= 2.3;
    }
    for point in &mut curves.validation {
        point.step *= 1_000;
    }
    run
}

fn curves() -> Curves {
    let decay = |step: u64| 0.35 + 4.5 * (-(step as f64) / 260.0).exp();
    let loss = |step: u64| {
        let wobble = (step as f64 * 12.9898).sin() * (step as f64 * 0.37).cos();
        decay(step) * (1.0 + 0.18 * wobble)
    };
    let logit_scale = |step: u64| 1.0 / 0.07 + 9.0 * (1.0 - (-(step as f64) / 500.0).exp());
    let curve = |value: &dyn Fn(u64) -> f64| -> Curve {
        (1..=STEPS).map(|step| (step, value(step))).collect()
    };
    Curves {
        loss: curve(&loss),
        validation_loss: (0..=12).map(|i| (100 * i, decay(100 * i) + 0.12)).collect(),
        learning_rate: curve(&|step| schedule(step, STEPS)),
        logit_scale: curve(&logit_scale),
        validation: (0..=12)
            .map(|i| Validation {
                step: 100 * i,
                scores: scores(74.0 * (1.0 - (-(i as f64) / 4.0).exp()), 3.0),
            })
            .collect(),
        losses: vec![
            NamedCurve {
                name: "contrast".into(),
                curve: curve(&|step| 0.9 * loss(step)),
                reference: Some(Reference {
                    label: "ln N".into(),
                    value: 128_f64.ln(),
                }),
            },
            NamedCurve {
                name: "matching".into(),
                curve: curve(&|step| 0.1 + 0.1 * loss(step)),
                reference: None,
            },
        ],
        figures: vec![
            NamedCurve {
                name: "Accuracy on validation".into(),
                curve: (0..=12).map(|i| (100 * i, 20.5 + 4.1 * i as f64)).collect(),
                reference: Some(Reference {
                    label: "majority answer".into(),
                    value: 31.25,
                }),
            },
            NamedCurve {
                name: "MI of negatives".into(),
                curve: (0..=12)
                    .map(|i| (100 * i, 0.02 * i as f64 - 0.05))
                    .collect(),
                reference: None,
            },
        ],
    }
}

fn scores(recall: f64, bias: f64) -> RetrievalScores {
    let direction = |recall: f64| DirectionScores {
        recall_at_1: recall,
        recall_at_5: (recall * 1.28 + 1.0).min(99.0),
        recall_at_10: (recall * 1.33 + 1.6).min(99.6),
        median_rank: if recall > 50.0 { 1.0 } else { 200.5 },
        mean_rank: 400.0 / (1.0 + recall * recall / 40.0),
    };
    RetrievalScores {
        image_to_text: direction(recall),
        text_to_image: direction((recall - bias).max(0.0)),
    }
}

fn schedule(step: u64, steps: u64) -> f64 {
    let progress = step as f64 / steps as f64;
    let warm_up = (progress / 0.1).min(1.0);
    5e-4 * warm_up * 0.5 * (1.0 + (std::f64::consts::PI * (progress - 0.1).max(0.0) / 0.9).cos())
}

/// Normal distributions of 2,000 positives and 798,000 negatives.
fn histogram(positive: (f64, f64), negative: (f64, f64)) -> Histogram {
    let bins = 100;
    let counts = |pairs: f64, (mean, deviation): (f64, f64)| -> Vec<u64> {
        let density = |bin: u64| {
            let middle = -1.0 + 2.0 * (bin as f64 + 0.5) / bins as f64;
            let z = (middle - mean) / deviation;
            (-0.5 * z * z).exp() / deviation / 2.5066
        };
        (0..bins)
            .map(|bin| (pairs * density(bin) * 2.0 / bins as f64).round() as u64)
            .collect()
    };
    Histogram {
        low: -1.0,
        high: 1.0,
        positive: counts(2_000.0, positive),
        negative: counts(798_000.0, negative),
        positive_mean: positive.0,
        negative_mean: negative.0,
    }
}

fn caption(index: usize) -> String {
    let (first, _) = COLOURS[index % 6];
    let (second, _) = COLOURS[(index + 2) % 6];
    format!("a large {first} disc to the left of a small {second} square, on a speckled ground")
}

/// A disc and a square on a textured background.
fn scene(directory: &Path, index: usize) -> PathBuf {
    let (disc, square) = (COLOURS[index % 6].1, COLOURS[(index + 2) % 6].1);
    let (cx, cy, radius) = (34.0, 30.0 + 3.0 * index as f64, 22.0);
    let image = RgbImage::from_fn(112, 112, |x, y| {
        let (dx, dy) = (f64::from(x) - cx, f64::from(y) - cy);
        if dx * dx + dy * dy < radius * radius {
            Rgb(disc)
        } else if (72..96).contains(&x) && (70..94).contains(&y) {
            Rgb(square)
        } else {
            let speckle = ((x * 7919 + y * 104_729 + x * y * 31) % 23) as u8;
            Rgb([198 + speckle, 194 + speckle, 186 + speckle])
        }
    });
    let file = directory.join(format!("scene-{index:04}.png"));
    image.save(&file).unwrap();
    file
}

fn examples(images: &[PathBuf]) -> Examples {
    let others = |index: usize| (1..6).map(move |offset| (index + offset) % images.len());
    let similarity = |place: usize| 0.78 - 0.07 * place as f64;
    let text_to_image = (0..4).map(|index| {
        let rank = [1, 1, 3, 17][index];
        let mut found: Vec<usize> = others(index).collect();
        if rank <= 5 {
            found.insert(rank as usize - 1, index);
        }
        let results = found.into_iter().take(5).enumerate();
        CaptionQuery {
            caption: caption(index),
            image: images[index].clone(),
            rank,
            results: results
                .map(|(place, found)| RankedImage {
                    image: images[found].clone(),
                    similarity: similarity(place),
                    is_match: found == index,
                })
                .collect(),
        }
    });
    let image_to_text = (6..10).map(|index| {
        let rank = [1, 2, 1, 42][index - 6];
        let mut found: Vec<usize> = others(index).collect();
        if rank <= 5 {
            found.insert(rank as usize - 1, index);
        }
        let results = found.into_iter().take(5).enumerate();
        ImageQuery {
            image: images[index].clone(),
            caption: caption(index),
            rank,
            results: results
                .map(|(place, found)| RankedCaption {
                    caption: caption(found),
                    similarity: similarity(place),
                    is_match: found == index,
                })
                .collect(),
        }
    });
    Examples {
        text_to_image: text_to_image.collect(),
        image_to_text: image_to_text.collect(),
    }
}
