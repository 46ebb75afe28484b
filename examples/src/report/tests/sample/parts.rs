//! The parts of the run that only some systems have.

use std::path::PathBuf;

use super::caption;
use crate::report::{
    Accuracy, AnswerExample, Fact, KindAccuracy, Map, Sweep, SweepRow, Table, TableRow,
    WeightExample, Weights,
};

pub fn facts() -> Vec<Fact> {
    let fact = |name: &str, value, unit: Option<&str>| Fact {
        name: name.into(),
        value,
        unit: unit.map(Into::into),
    };
    vec![
        fact("batch size", 128.0, None),
        fact("ln N", 128_f64.ln(), None),
        fact("logit scale at the end", 23.2842, None),
        fact("equal captions in batches", 1.375, Some("%")),
    ]
}

pub fn accuracy() -> Accuracy {
    let kinds = [
        ("colour", 520, 18.2, 91.4),
        ("count", 260, 41.5, 47.3),
        ("is there a …?", 420, 54.1, 88.9),
    ];
    Accuracy {
        split: "test".into(),
        count: 1_200,
        majority: 32.5,
        before: Some(12.25),
        after: 80.96,
        by_kind: kinds
            .map(|(kind, count, majority, after)| KindAccuracy {
                kind: kind.into(),
                count,
                majority,
                after,
            })
            .to_vec(),
    }
}

pub fn answers(images: &[PathBuf]) -> Vec<AnswerExample> {
    let answer = |index: usize, question: &str, given: &str, expected: &str, confidence| {
        // A question is about one image, a statement about two.
        let count = 1 + usize::from(question.ends_with('.'));
        AnswerExample {
            images: images[index..index + count].to_vec(),
            question: question.into(),
            expected: expected.into(),
            given: given.into(),
            confidence,
            is_right: given == expected,
        }
    };
    vec![
        answer(0, "What colour is the large disc?", "red", "red", 0.97),
        answer(
            1,
            "What is to the right of the disc?",
            "a circle",
            "a square",
            0.44,
        ),
        answer(2, "How many squares are there?", "1", "1", 0.81),
        answer(
            3,
            "Both images have a disc to the left of a square.",
            "true",
            "true",
            0.92,
        ),
        answer(
            5,
            "The disc of one image is as green as the other's square.",
            "true",
            "false",
            0.5,
        ),
    ]
}

/// Weights of 100,000 negatives, 600 of them known to match.
pub fn weights(images: &[PathBuf]) -> Weights {
    let bins = 60;
    let counts = |pairs: f64, (mean, deviation): (f64, f64)| -> Vec<u64> {
        let density = |bin: u64| {
            let z = (3.0 * (bin as f64 + 0.5) / bins as f64 - mean) / deviation;
            (-0.5 * z * z).exp() / deviation / 2.5066
        };
        (0..bins)
            .map(|bin| (pairs * density(bin) * 3.0 / bins as f64).round() as u64)
            .collect()
    };
    let lowest = (0..4).map(|index| {
        let example = WeightExample {
            weight: 0.012 + 0.019 * index as f64,
            is_false_negative: index != 2,
            ..WeightExample::default()
        };
        let (image, text) = (Some(images[index].clone()), Some(caption(index + 6)));
        if index % 2 == 0 {
            WeightExample {
                anchor_image: image,
                candidate_text: text,
                ..example
            }
        } else {
            WeightExample {
                anchor_text: text,
                candidate_image: image,
                ..example
            }
        }
    });
    Weights {
        low: 0.0,
        high: 3.0,
        all: counts(100_000.0, (1.004, 0.28)),
        known_false: counts(600.0, (0.31, 0.13)),
        mean: 1.004,
        mean_of_known_false: 0.313,
        auc: Some(0.9871),
        lowest: lowest.collect(),
    }
}

pub fn precisions() -> Table {
    let row = |name: &str, numbers: [f64; 2]| TableRow {
        name: name.into(),
        numbers: numbers.to_vec(),
    };
    Table {
        title: "Precision of retrieval by class".into(),
        lead: "Percentage of the first k that have the class of the query.".into(),
        rows_are: "queries".into(),
        columns: vec!["Prec@5".into(), "chance".into()],
        rows: vec![
            row("image–image", [45.65, 12.5]),
            row("text–image", [67.4, 12.5]),
        ],
    }
}

pub fn thresholds() -> Sweep {
    let row = |value: &str, numeric, numbers: [f64; 2]| SweepRow {
        value: value.into(),
        numbers: numbers.to_vec(),
        numeric,
        ..SweepRow::default()
    };
    Sweep {
        title: "Removing negatives that weigh little".into(),
        parameter: "threshold".into(),
        columns: vec!["image → text R@1".into(), "text → image R@1".into()],
        rows: vec![
            row("none", None, [70.25, 66.9]),
            row("0.1", Some(0.1), [71.1, 67.35]),
            row("0.2", Some(0.2), [72.45, 69.0]),
            row("0.3", Some(0.3), [72.05, 69.45]),
            row("0.5", Some(0.5), [68.5, 66.15]),
            row("0.7", Some(0.7), [61.35, 60.7]),
        ],
        baseline: Some(row("SRCL", None, [73.4, 70.4])),
    }
}

/// Without numbers on an axis, and without anything to compare with.
pub fn temperatures() -> Sweep {
    let row = |value: &str, numbers: [f64; 3]| SweepRow {
        value: value.into(),
        numbers: numbers.to_vec(),
        numeric: None,
        ..SweepRow::default()
    };
    Sweep {
        title: "How the temperature is found".into(),
        parameter: "temperature".into(),
        columns: vec!["R@sum".into(), "accuracy".into(), "steps".into()],
        rows: vec![
            row("fixed", [412.5, 78.125, 1_200.0]),
            row("learned", [431.25, 80.96, 900.0]),
        ],
        baseline: None,
    }
}

/// Pairs on a circle, captions so far from their images.
pub fn map(apart: f64) -> Map {
    let at = |pair: usize, shift: f64| {
        let angle = pair as f64 * 0.7 + shift;
        [4.0 * angle.cos(), 4.0 * angle.sin()]
    };
    Map {
        images: (0..9).map(|pair| at(pair, 0.0)).collect(),
        captions: (0..9).map(|pair| at(pair, apart)).collect(),
    }
}
