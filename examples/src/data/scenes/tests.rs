use std::fs;

use super::*;
use crate::data::testing::small_config;
use crate::data::{Collection, decode};
use std::collections::HashMap;

/// Every file of a folder with its content.
fn files(dir: &Path) -> HashMap<String, Vec<u8>> {
    let mut found = HashMap::new();
    for sub in [dir.to_owned(), dir.join("images")] {
        for entry in fs::read_dir(sub).into_iter().flatten() {
            let file = entry.unwrap().path();
            if file.is_file() {
                found.insert(
                    file.strip_prefix(dir).unwrap().display().to_string(),
                    fs::read(&file).unwrap(),
                );
            }
        }
    }
    found
}

#[test]
fn the_same_parameters_give_the_same_files_and_another_seed_others() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let other = ScenesConfig {
        seed: 1,
        ..small_config()
    };
    for (dir, config) in dirs.iter().zip([small_config(), small_config(), other]) {
        assert!(generate(dir.path(), &config).unwrap());
    }
    let [first, second, third] = [0, 1, 2].map(|i| files(dirs[i].path()));
    assert_eq!(first.len(), 57 + 2);
    assert_eq!(first, second);
    assert_ne!(first["images/000000.png"], third["images/000000.png"]);
    assert_ne!(first["dataset.json"], third["dataset.json"]);
}

#[test]
fn a_finished_set_is_reused_an_interrupted_one_finished_and_another_replaced() {
    let dir = tempfile::tempdir().unwrap();
    assert!(generate(dir.path(), &small_config()).unwrap());
    let whole = files(dir.path());
    assert!(!generate(dir.path(), &small_config()).unwrap());

    fs::remove_file(dir.path().join(LISTING)).unwrap();
    for image in [3, 20, 56] {
        fs::remove_file(dir.path().join(format!("images/{image:06}.png"))).unwrap();
    }
    assert!(generate(dir.path(), &small_config()).unwrap());
    assert_eq!(files(dir.path()), whole);

    let smaller = ScenesConfig {
        train: 10,
        image_size: 20,
        ..small_config()
    };
    assert!(generate(dir.path(), &smaller).unwrap());
    assert_eq!(files(dir.path()).len(), 27 + 2);
    assert_eq!(
        decode(&dir.path().join("images/000026.png"))
            .unwrap()
            .dimensions(),
        (20, 20)
    );
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "precious").unwrap();
    let error = generate(dir.path(), &small_config())
        .unwrap_err()
        .to_string();
    assert!(error.contains("holds something else"), "{error}");
    assert_eq!(files(dir.path()).len(), 1);
}

#[test]
fn the_set_reads_back_as_a_collection_with_its_scenes() {
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path(), &small_config()).unwrap();
    let collection = Collection::read(dir.path(), false).unwrap();
    let counts =
        [Split::Train, Split::Validation, Split::Test].map(|split| collection.indices(split).len());
    assert_eq!(counts, [40, 7, 10]);
    for example in &collection.examples {
        let distinct: HashSet<_> = example.captions.iter().collect();
        assert_eq!(distinct.len(), CAPTIONS);
        assert!(example.scene.is_some());
    }
    let text = fs::read_to_string(dir.path().join(LISTING)).unwrap();
    let listing: serde_json::Value = serde_json::from_str(&text).unwrap();
    let image = &listing["images"][1];
    assert_eq!(listing["dataset"], "scenes");
    assert_eq!(image["sentids"], serde_json::json!([5, 6, 7, 8, 9]));
    assert_eq!(image["sentences"][2]["sentid"], 7);
    assert_eq!(image["sentences"][2]["imgid"], 1);
    let raw = image["sentences"][0]["raw"].as_str().unwrap();
    let tokens: Vec<&str> = image["sentences"][0]["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token.as_str().unwrap())
        .collect();
    assert_eq!(
        tokens.join(" "),
        raw.to_lowercase().replace(['.', ',', ':', ';'], "")
    );
}

#[test]
fn held_out_meanings_are_distinct_and_unseen_and_repeated_ones_have_their_share() {
    for (train, repeated, expected) in [
        (400, 0.25, 100),
        (41, 1.0, 41),
        (40, 0.1, 4),
        (40, 0.0, 0),
        (40, 0.025, 0),
    ] {
        let config = ScenesConfig {
            train,
            repeated,
            validation: 50,
            test: 80,
            ..Default::default()
        };
        let scenes = choose(&config);
        let mut times: HashMap<String, usize> = HashMap::new();
        scenes
            .iter()
            .for_each(|(_, scene)| *times.entry(scene.meaning()).or_default() += 1);
        let count = |wanted| scenes.iter().filter(|(split, _)| *split == wanted).count();
        assert_eq!(
            [
                count(Split::Train),
                count(Split::Validation),
                count(Split::Test)
            ],
            [train, 50, 80]
        );
        assert!(
            scenes
                .iter()
                .all(|(split, scene)| *split == Split::Train || times[&scene.meaning()] == 1)
        );
        assert_eq!(
            scenes
                .iter()
                .filter(|(_, scene)| times[&scene.meaning()] > 1)
                .count(),
            expected
        );
        assert!(times.values().all(|&times| times <= 3));
    }
}

#[test]
fn a_larger_training_set_keeps_the_held_out_scenes() {
    let held_out = |train| {
        let scenes = choose(&ScenesConfig {
            train,
            ..small_config()
        });
        scenes
            .into_iter()
            .filter(|(split, _)| *split != Split::Train)
            .map(|(_, scene)| scene.meaning())
            .collect::<Vec<_>>()
    };
    assert_eq!(held_out(40), held_out(400));
}

#[test]
fn objects_follow_the_layout_inside_the_image_without_overlap() {
    for (index, (_, scene)) in choose(&ScenesConfig {
        train: 600,
        ..Default::default()
    })
    .iter()
    .enumerate()
    {
        let placed = place(
            scene,
            &mut stream(3, 0, index as u64, Purpose::SceneDrawing),
        );
        assert_eq!(
            (placed.meaning(), placed.similarity(scene)),
            (scene.meaning(), 1.0)
        );
        for (i, a) in placed.objects.iter().enumerate() {
            assert!(
                a.centre
                    .iter()
                    .all(|x| x - a.radius >= 0.0 && x + a.radius <= 1.0)
            );
            for (j, b) in placed.objects.iter().enumerate().skip(i + 1) {
                let [x, y] = [b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]];
                let agrees = match placed.layout.relation(i, j) {
                    Relation::LeftOf => x > 0.2,
                    Relation::RightOf => x < -0.2,
                    Relation::Above => y > 0.2,
                    Relation::Below => y < -0.2,
                };
                assert!(agrees, "{placed:?}");
                assert!(x.abs().max(y.abs()) > a.radius + b.radius, "{placed:?}");
            }
        }
    }
}

#[test]
fn similarity_is_one_exactly_for_equal_meanings_and_symmetric() {
    let scenes: Vec<Scene> = choose(&ScenesConfig {
        train: 60,
        validation: 0,
        test: 0,
        ..Default::default()
    })
    .into_iter()
    .map(|(_, scene)| scene)
    .collect();
    for a in &scenes {
        for b in &scenes {
            let similarity = a.similarity(b);
            assert!((0.0..=1.0).contains(&similarity));
            assert_eq!(similarity, b.similarity(a));
            assert_eq!(similarity == 1.0, a.meaning() == b.meaning());
        }
    }
}

#[test]
fn every_object_is_visible_in_its_colour() {
    for (index, (_, scene)) in choose(&ScenesConfig {
        train: 100,
        ..small_config()
    })
    .iter()
    .enumerate()
    {
        let mut rng = stream(5, 0, index as u64, Purpose::SceneDrawing);
        let scene = place(scene, &mut rng);
        let image = render::render(&scene, 64, &mut rng);
        for object in &scene.objects {
            let [x, y] = object.centre.map(|coordinate| (coordinate * 64.0) as u32);
            let [r, g, b] = image.get_pixel(x, y).0.map(i32::from);
            let agrees = match object.colour {
                Colour::Red => r > g + 100 && r > b + 100,
                Colour::Green => g > r + 80 && g > b + 60,
                Colour::Blue => b > r + 100 && b > g + 90,
                Colour::Yellow => r > b + 130 && g > b + 120,
                Colour::Purple => r > g + 60 && b > g + 90,
                Colour::Orange => r > g + 60 && g > b + 60,
                Colour::White => r.min(g).min(b) > 215,
                Colour::Black => r.max(g).max(b) < 45,
            };
            assert!(agrees, "{object:?} looks ({r}, {g}, {b})");
        }
    }
}

#[test]
fn parameters_out_of_range_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (config, expected) in [
        (
            ScenesConfig {
                train: 0,
                ..small_config()
            },
            "train is 0",
        ),
        (
            ScenesConfig {
                image_size: 8,
                ..small_config()
            },
            "image_size is 8",
        ),
        (
            ScenesConfig {
                repeated: 1.5,
                ..small_config()
            },
            "repeated is 1.5",
        ),
        (
            ScenesConfig {
                three_objects: 0.0,
                train: 9_000,
                ..small_config()
            },
            "three_objects",
        ),
    ] {
        let error = format!("{:#}", generate(dir.path(), &config).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}
