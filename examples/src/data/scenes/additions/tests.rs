mod understanding;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::data::testing::small_config;
use crate::data::{Collection, Questions, Statements};

fn larger() -> ScenesConfig {
    ScenesConfig {
        train: 400,
        validation: 30,
        test: 60,
        image_size: 16,
        ..Default::default()
    }
}

/// A set with both additions.
fn made(config: &ScenesConfig) -> (TempDir, Questions, Statements) {
    let dir = tempfile::tempdir().unwrap();
    assert!(generate_questions(dir.path(), config).unwrap());
    assert!(generate_statements(dir.path(), config).unwrap());
    let questions = Questions::read(dir.path(), false).unwrap();
    let statements = Statements::read(dir.path(), false).unwrap();
    (dir, questions, statements)
}

/// The scene of each image, as its captions' file says, and its split.
fn scenes(dir: &Path) -> HashMap<PathBuf, (Split, Scene)> {
    let collection = Collection::read(dir, false).unwrap();
    let examples = collection.examples.into_iter();
    examples
        .map(|example| {
            (
                example.image.path().to_owned(),
                (example.split, example.scene.unwrap()),
            )
        })
        .collect()
}

#[test]
fn every_answer_is_the_one_that_the_image_gives() {
    let (dir, questions, _) = made(&larger());
    let scenes = scenes(dir.path());
    assert_eq!(questions.items.len(), 6 * 490);
    for item in &questions.items {
        let (split, scene) = &scenes[&item.image];
        let expected = understanding::answer(&item.question, scene);
        assert_eq!(
            item.answers,
            [(expected, 1.0)],
            "{} of {scene:?}",
            item.question
        );
        assert_eq!(item.split, *split);
    }
}

#[test]
fn every_label_is_the_truth_about_its_two_images() {
    let (dir, _, statements) = made(&larger());
    let scenes = scenes(dir.path());
    for item in &statements.items {
        let [left, right] = item.images.each_ref().map(|image| &scenes[image]);
        let expected = understanding::is_true(&item.text, [&left.1, &right.1]);
        assert_eq!(
            item.label, expected,
            "{} of {left:?} and {right:?}",
            item.text
        );
        assert_eq!([left.0, right.0], [item.split; 2]);
        assert_ne!(item.images[0], item.images[1]);
    }
}

#[test]
fn no_kind_of_question_can_be_answered_without_looking() {
    let (_dir, questions, _) = made(&larger());
    let mut answers: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for index in questions.indices(Split::Train) {
        let item = &questions.items[index];
        let of_kind = answers.entry(&item.kind).or_default();
        *of_kind.entry(&item.answers[0].0).or_default() += 1;
    }
    let most = |kind: &str| *answers[kind].values().max().unwrap();
    assert_eq!(
        questions.kinds(),
        ["colour", "count", "exists", "relation", "shape", "size"]
    );
    for (kind, different, limit) in [
        ("colour", 8, 0.20),
        ("count", 4, 0.40),
        ("exists", 2, 0.58),
        ("relation", 14, 0.32),
        ("shape", 4, 0.35),
        ("size", 2, 0.58),
    ] {
        assert_eq!(answers[kind].values().sum::<usize>(), 400, "{kind}");
        assert_eq!(answers[kind].len(), different, "{kind}: {answers:?}");
        assert!(
            most(kind) as f64 <= limit * 400.0,
            "{kind}: {:?}",
            answers[kind]
        );
    }
    // Yes and no are as frequent in questions for relations.
    let [yes, no] = ["yes", "no"].map(|answer| answers["relation"][answer] as f64);
    assert!((0.75..1.33).contains(&(yes / no)), "{yes} {no}");
    let all: BTreeSet<_> = questions.answers.iter().collect();
    assert_eq!((questions.answers.len(), all.len()), (20, 20));
}

#[test]
fn half_of_the_statements_of_every_kind_are_true_whatever_they_say() {
    let (_dir, _, statements) = made(&larger());
    assert_eq!(statements.kinds(), ["all", "compare", "count", "exists"]);
    for (split, expected) in [
        (Split::Train, TRAINING * 100),
        (Split::Validation, 7),
        (Split::Test, 15),
    ] {
        for kind in KINDS {
            let items = || {
                let items = statements.items.iter();
                items.filter(|item| item.split == split && item.kind == kind)
            };
            let labelled = |label| items().filter(|item| item.label == label).count();
            assert_eq!(
                [true, false].map(labelled),
                [expected; 2],
                "{kind} of {split}"
            );
        }
    }
    // Words alone: the first word, and every other, is as often in true statements as in false.
    let mut words: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for item in &statements.items {
        for word in item
            .text
            .trim_end_matches('.')
            .split(' ')
            .collect::<BTreeSet<_>>()
        {
            words.entry(word).or_default()[usize::from(item.label)] += 1;
        }
    }
    for (word, [untrue, label]) in words {
        let sum = untrue + label;
        let gap = untrue.abs_diff(label) as f64;
        assert!(
            gap <= 4.0 * (sum as f64).sqrt(),
            "{word}: {label} of {sum} are true"
        );
    }
}

#[test]
fn wordings_vary() {
    let (_dir, questions, statements) = made(&larger());
    let questions: BTreeSet<_> = questions.texts(Split::Train).collect();
    assert!(questions.len() > 1_000, "{}", questions.len());
    let statements: BTreeSet<_> = statements.texts(Split::Train).collect();
    assert!(statements.len() > 500, "{}", statements.len());
    for word in [
        "violet",
        "disc",
        "boxes",
        "plus sign",
        "tiny",
        "big",
        "beneath",
        "middle",
    ] {
        let is_there = |texts: &BTreeSet<&str>| texts.iter().any(|text| text.contains(word));
        assert!(is_there(&questions), "{word}");
    }
}

#[test]
fn the_same_parameters_give_the_same_additions_and_another_seed_others() {
    let other = ScenesConfig {
        seed: 1,
        ..small_config()
    };
    let dirs = [small_config(), small_config(), other].map(|config| made(&config).0);
    for name in [QUESTIONS, STATEMENTS] {
        let [a, b, c] = dirs
            .each_ref()
            .map(|dir| fs::read(dir.path().join(name)).unwrap());
        assert!(a == b && a != c, "{name}");
    }
}

#[test]
fn a_larger_training_set_keeps_what_is_asked_and_said_about_held_out_images() {
    let held_out = |train| {
        let config = ScenesConfig {
            train,
            ..small_config()
        };
        let first = train;
        // The number of an image, counted from the first held-out one.
        let number = move |image: &Path| {
            let stem = image.file_stem().unwrap().to_str().unwrap();
            stem.parse::<usize>().unwrap() - first
        };
        let (_dir, questions, statements) = made(&config);
        let questions = questions.items.into_iter();
        let questions: Vec<_> = questions
            .filter(|item| item.split != Split::Train)
            .map(|item| (number(&item.image), item.question, item.answers))
            .collect();
        let statements = statements.items.into_iter();
        let statements: Vec<_> = statements
            .filter(|item| item.split != Split::Train)
            .map(|item| {
                (
                    item.images.map(|image| number(&image)),
                    item.text,
                    item.label,
                )
            })
            .collect();
        (questions, statements)
    };
    let (questions, statements) = held_out(40);
    assert_eq!((questions.len(), statements.len()), (6 * 17, 8 + 16));
    assert_eq!(held_out(90), (questions, statements));
}

#[test]
fn an_older_set_gets_them_added_a_finished_one_is_left_and_another_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let config = small_config();
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    generate(dir.path(), &config).unwrap();
    let captions = read("dataset.json");
    assert!(generate_questions(dir.path(), &config).unwrap());
    assert!(generate_statements(dir.path(), &config).unwrap());
    assert!(!generate_questions(dir.path(), &config).unwrap());
    assert!(!generate_statements(dir.path(), &config).unwrap());
    assert!(!generate(dir.path(), &config).unwrap());
    assert_eq!(read("dataset.json"), captions);
    let [questions, statements] = [QUESTIONS, STATEMENTS].map(read);

    // Replacing the set removes what was said about its images.
    let other = ScenesConfig {
        seed: 1,
        ..config.clone()
    };
    assert!(generate(dir.path(), &other).unwrap());
    assert!(!dir.path().join(QUESTIONS).exists() && !dir.path().join(STATEMENTS).exists());
    assert!(generate_questions(dir.path(), &other).unwrap());
    assert_ne!(read(QUESTIONS), questions);

    // Questions of another set, as an older program leaves them, are made anew.
    assert!(generate_questions(dir.path(), &config).unwrap());
    assert!(generate_statements(dir.path(), &config).unwrap());
    assert_eq!([QUESTIONS, STATEMENTS].map(read), [questions, statements]);
}

#[test]
fn a_file_that_somebody_else_wrote_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path(), &small_config()).unwrap();
    for (name, text) in [(QUESTIONS, "{\"questions\": []}"), (STATEMENTS, "thesis")] {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        let add = if name == QUESTIONS {
            generate_questions
        } else {
            generate_statements
        };
        let error = add(dir.path(), &small_config()).unwrap_err().to_string();
        assert!(error.contains("was not written by this program"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}

#[test]
fn splits_without_two_images_have_no_statements() {
    let config = ScenesConfig {
        train: 1,
        validation: 0,
        test: 2,
        ..small_config()
    };
    let dir = tempfile::tempdir().unwrap();
    generate_statements(dir.path(), &config).unwrap();
    let statements = Statements::read(dir.path(), false).unwrap();
    assert!(
        statements
            .items
            .iter()
            .all(|item| item.split == Split::Test)
    );
    generate_questions(dir.path(), &config).unwrap();
    assert_eq!(Questions::read(dir.path(), false).unwrap().items.len(), 18);
}
