use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::*;
use crate::data::{ClassRetrieval, Needs, Studies, decode};

fn small() -> FindingsConfig {
    FindingsConfig {
        train: 12,
        validation: 5,
        test: 6,
        image_size: 32,
        query_images: 2,
        query_sentences: 3,
        candidates: 4,
        ..FindingsConfig::default()
    }
}

/// All files of a folder with what they hold.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in [dir.to_owned(), dir.join("images")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.strip_prefix(dir).unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_set_is_the_same_for_the_same_seed_and_another_for_another() {
    let [a, b, c] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    assert!(generate(a.path(), &small()).unwrap());
    assert!(!generate(a.path(), &small()).unwrap());
    generate(b.path(), &small()).unwrap();
    let first = contents(a.path());
    assert_eq!(first, contents(b.path()));
    let other = FindingsConfig { seed: 1, ..small() };
    generate(c.path(), &other).unwrap();
    assert_ne!(first, contents(c.path()));

    // More training studies change nothing that is held out.
    let longer = FindingsConfig {
        train: 14,
        ..small()
    };
    assert!(generate(b.path(), &longer).unwrap());
    let grown = contents(b.path());
    let is_held_out = |name: &Path| {
        let name = name.to_string_lossy();
        name.starts_with("images/") || name == RETRIEVAL
    };
    for (name, bytes) in first.iter().filter(|(name, _)| is_held_out(name)) {
        assert_eq!(grown.get(name), Some(bytes), "{}", name.display());
    }
}

#[test]
fn an_interrupted_set_is_finished() {
    let [whole, broken] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    generate(whole.path(), &small()).unwrap();
    generate(broken.path(), &small()).unwrap();
    fs::remove_file(broken.path().join(STUDIES)).unwrap();
    let image = "images/train-000003-0.png";
    fs::remove_file(broken.path().join(image)).unwrap();
    assert!(generate(broken.path(), &small()).unwrap());
    assert_eq!(contents(whole.path()), contents(broken.path()));
}

#[test]
fn another_folder_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine.txt"), "mine").unwrap();
    let error = generate(dir.path(), &small()).unwrap_err().to_string();
    assert!(
        error.contains("something else than generated studies"),
        "{error}"
    );
    assert_eq!(contents_of_root(dir.path()), ["mine.txt"]);
}

fn contents_of_root(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn what_is_written_reads_back_with_the_asked_for_numbers() {
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path(), &small()).unwrap();
    for needs in [Needs::Sentences, Needs::Labels] {
        let studies = Studies::read(dir.path(), needs, false).unwrap();
        let count = |split| studies.indices(split).len();
        assert_eq!(Split::ALL.map(count), [12, 5, 6]);
        assert_eq!(studies.classes, Finding::ALL.map(Finding::name));
        assert!(studies.items.iter().all(|study| study.images.len() <= 2));
    }
    let file = ClassRetrieval::beside(dir.path()).unwrap().unwrap();
    let retrieval = ClassRetrieval::read(&file, false).unwrap();
    let [images, sentences, candidates] = retrieval.labels();
    for class in 0..8 {
        let count = |labels: &[usize]| labels.iter().filter(|&&one| one == class).count();
        assert_eq!(
            [&images, &sentences, &candidates].map(|x| count(x)),
            [2, 3, 4]
        );
    }
    let image = decode(&retrieval.candidates[0].item).unwrap();
    assert_eq!(image.dimensions(), (32, 32));
    assert!(
        image
            .pixels()
            .all(|pixel| pixel.0.iter().all(|&value| value == pixel.0[0]))
    );
}

/// Mean absolute difference over a grid between a patient and another, and the signed one.
fn difference(one: &Patient, other: &Patient, view: View) -> [f32; 2] {
    const SIDE: usize = 64;
    let at = |pixel: usize| (2.0 * pixel as f32 + 1.0) / SIDE as f32 - 1.0;
    let (mut absolute, mut signed) = (0.0, 0.0);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let [a, b] = [one, other].map(|patient| draw::brightness(patient, view, at(x), at(y)));
            absolute += (b - a).abs();
            signed += b - a;
        }
    }
    [absolute, signed].map(|sum| sum / (SIDE * SIDE) as f32)
}

#[test]
fn every_finding_shows_in_every_view_as_what_it_is() {
    for index in 0..40 {
        let mut rng = stream(3, 0, index, Purpose::Findings);
        let without = Patient::random(Vec::new(), &mut rng);
        for view in [View::Frontal, View::Lateral] {
            for finding in Finding::ALL {
                let with = Patient {
                    present: vec![finding],
                    ..without.clone()
                };
                let [absolute, signed] = difference(&without, &with, view);
                // As much as 8 pixels of 64 × 64 that go from black to white, or 10.
                assert!(
                    absolute > 0.0009,
                    "{finding:?} in {view:?}, {index}: {absolute}"
                );
                match finding {
                    Finding::Pneumothorax => assert!(signed < 0.0, "{finding:?}: {signed}"),
                    // It takes brightness away from where the spine was.
                    Finding::CurvedSpine => {}
                    _ => assert!(signed > 0.0, "{finding:?} in {view:?}: {signed}"),
                }
                // No other finding is drawn along with it.
                assert_eq!(difference(&with, &with.clone(), view), [0.0; 2]);
            }
        }
    }
}

#[test]
fn findings_differ_from_each_other() {
    let mut rng = stream(5, 0, 0, Purpose::Findings);
    let without = Patient::random(Vec::new(), &mut rng);
    let with = Finding::ALL.map(|finding| Patient {
        present: vec![finding],
        ..without.clone()
    });
    for view in [View::Frontal, View::Lateral] {
        for (index, one) in with.iter().enumerate() {
            for other in &with[..index] {
                let [absolute, _] = difference(one, other, view);
                assert!(absolute > 0.0009, "{:?}, {:?}", one.present, other.present);
            }
        }
    }
}

#[test]
fn sides_and_sizes_are_as_worded() {
    let mut rng = stream(1, 0, 0, Purpose::Findings);
    let mut patient = Patient::random(vec![Finding::Effusion], &mut rng);
    let place = 1;
    assert_eq!(Finding::ALL[place], Finding::Effusion);
    let empty = Patient {
        present: Vec::new(),
        ..patient.clone()
    };
    let mut found = BTreeMap::new();
    for (is_left, is_large) in [(true, false), (true, true), (false, false), (false, true)] {
        (patient.forms[place].is_left, patient.forms[place].is_large) = (is_left, is_large);
        let at = |x| {
            draw::brightness(&patient, View::Frontal, x, 0.45)
                - draw::brightness(&empty, View::Frontal, x, 0.45)
        };
        let (own, other) = if is_left { (-0.5, 0.5) } else { (0.5, -0.5) };
        assert!(at(own) > 0.2 && at(other).abs() < 0.01, "{is_left}");
        found.insert(
            (is_left, is_large),
            difference(&empty, &patient, View::Frontal)[0],
        );
        for _ in 0..50 {
            let words = words::describe(Finding::Effusion, patient.forms[place], &mut rng);
            let words = words.to_lowercase();
            assert!(
                !words.contains(if is_left { "right" } else { "left" }),
                "{words}"
            );
            let wrong = if is_large { "small" } else { "large" };
            assert!(!words.contains(wrong), "{words}");
        }
    }
    for is_left in [true, false] {
        assert!(found[&(is_left, true)] > 1.5 * found[&(is_left, false)]);
    }
}

#[test]
fn reports_speak_of_every_finding_and_of_no_other() {
    // A word that only the descriptions of a class have.
    let said = |sentence: &str, finding: Finding| {
        let sentence = sentence.to_lowercase();
        let is_denied = ["no ", "there is no ", "no evidence"]
            .iter()
            .any(|no| sentence.starts_with(no));
        words::nouns(finding)
            .iter()
            .any(|noun| sentence.contains(noun))
            && !is_denied
    };
    let (mut specific, mut all) = (0, 0);
    for index in 0..300 {
        let mut rng = stream(9, 0, index, Purpose::Findings);
        let present = some_findings(&mut rng);
        let patient = Patient::random(present, &mut rng);
        let sentences = words::report(&patient, 6, 0.6, &mut rng);
        assert!(sentences.len() <= 6 && !sentences.is_empty());
        for finding in Finding::ALL {
            let count = sentences.iter().filter(|one| said(one, finding)).count();
            assert_eq!(
                count > 0,
                patient.present.contains(&finding),
                "{finding:?}: {sentences:?}"
            );
            specific += count;
        }
        all += sentences.len();
    }
    let share = specific as f64 / all as f64;
    // 15 % of the studies have no finding.
    assert!((0.45..0.75).contains(&share), "{share}");
}

#[test]
fn settings_out_of_range_are_named() {
    for (config, expected) in [
        (
            FindingsConfig {
                train: 0,
                ..small()
            },
            "train is 0",
        ),
        (
            FindingsConfig {
                test: usize::MAX,
                ..small()
            },
            "together at most",
        ),
        (
            FindingsConfig {
                candidates: 0,
                ..small()
            },
            "candidates is 0",
        ),
        (
            FindingsConfig {
                image_size: 8,
                ..small()
            },
            "image_size is 8",
        ),
        (
            FindingsConfig {
                specific: 1.5,
                ..small()
            },
            "specific is 1.5",
        ),
        (
            FindingsConfig {
                noise: f64::NAN,
                ..small()
            },
            "noise is NaN",
        ),
    ] {
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
