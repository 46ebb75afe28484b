use super::*;
use crate::data::random::{Purpose, stream};
use crate::data::scenes::{ScenesConfig, choose};

#[test]
fn every_caption_names_every_attribute_of_every_object() {
    for (index, (_, scene)) in choose(&ScenesConfig {
        train: 100,
        ..Default::default()
    })
    .iter()
    .enumerate()
    {
        let mut rng = stream(6, 0, index as u64, Purpose::SceneDrawing);
        for caption in captions(scene, 7, &mut rng) {
            let text = tokens(&caption).join(" ");
            for object in &scene.objects {
                let sizes: &[&str] = if object.size == Size::Small {
                    &["small", "little", "tiny"]
                } else {
                    &["large", "big"]
                };
                let colours: &[&str] = match object.colour {
                    Colour::Purple => &["purple", "violet"],
                    colour => &[&format!("{colour:?}").to_lowercase()],
                };
                let shapes: &[&str] = match object.shape {
                    Shape::Circle => &["circle", "disc"],
                    Shape::Square => &["square", "box"],
                    Shape::Triangle => &["triangle"],
                    Shape::Cross => &["cross", "plus sign"],
                };
                let told = sizes.iter().any(|s| {
                    colours.iter().any(|c| {
                        shapes
                            .iter()
                            .any(|f| text.contains(&format!("a {s} {c} {f}")))
                    })
                });
                assert!(told, "{caption} misses {object:?}");
            }
        }
    }
}

/// Every wording of `scene`, with synonyms made one and objects called A, B, C.
fn wordings(scene: &Scene) -> Vec<String> {
    let synonyms: [(&[&str], &str); 12] = [
        (
            &[
                "a big red circle",
                "a big red disc",
                "a large red circle",
                "a large red disc",
            ],
            "A",
        ),
        (
            &[
                "a big blue square",
                "a big blue box",
                "a large blue square",
                "a large blue box",
            ],
            "B",
        ),
        (&["a big green triangle", "a large green triangle"], "C"),
        (&["to the left of", "on the left side of"], "left of"),
        (&["to the right of", "on the right side of"], "right of"),
        (&["over", "higher than"], "above"),
        (&["under", "beneath"], "below"),
        (&["at the left", "on the left side"], "on the left"),
        (&["at the right", "on the right side"], "on the right"),
        (&["at the very top", "in the upper part"], "at the top"),
        (
            &["at the very bottom", "in the lower part"],
            "at the bottom",
        ),
        (&["sits", "stands", "lies"], "is"),
    ];
    let mut found: Vec<String> = (0..60)
        .flat_map(|i| captions(scene, 7, &mut stream(0, 0, i, Purpose::SceneDrawing)))
        .map(|caption| {
            let mut text = caption.to_lowercase();
            for (words, one) in synonyms {
                words.iter().for_each(|word| text = text.replace(word, one));
            }
            text
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// A layout, its number of objects, and their captions.
const CAPTIONS: [(Layout, usize, &[&str]); 6] = [
    (
        Layout::Row,
        2,
        &[
            "A is left of B.",
            "B is right of A.",
            "a picture of A that is left of B.",
            "from left to right: A, then B.",
            "on the right is B, on the left A.",
            "there is A on the left and B on the right.",
            "we see B on the right and, left of it, A.",
        ],
    ),
    (
        Layout::Column,
        2,
        &[
            "A is above B.",
            "B is below A.",
            "a picture of A that is above B.",
            "at the bottom is B, at the top A.",
            "from top to bottom: A, then B.",
            "there is A at the top and B at the bottom.",
            "we see B at the bottom and, above it, A.",
        ],
    ),
    (
        Layout::Row,
        3,
        &[
            "A is left of B, which is left of C.",
            "B is between A on the left and C on the right.",
            "C is right of B, which is right of A.",
            "C on the right, B in the middle, A on the left.",
            "from left to right there are A, B and C.",
            "the middle one is B; on the left is A and on the right C.",
        ],
    ),
    (
        Layout::Column,
        3,
        &[
            "A is above B, which is above C.",
            "B is between A at the top and C at the bottom.",
            "C at the bottom, B in the middle, A at the top.",
            "C is below B, which is below A.",
            "from top to bottom there are A, B and C.",
            "the middle one is B; at the top is A and at the bottom C.",
        ],
    ),
    (
        Layout::PairBelow,
        3,
        &[
            "A is left of B, with C above them.",
            "B is right of A, and both are below C.",
            "C is above two others: A and, right of it, B.",
            "above A on the left and B on the right is C.",
            "at the bottom we see A, then B right of it; at the top is C.",
            "there is C at the top, and at the bottom A left of B.",
        ],
    ),
    (
        Layout::PairAbove,
        3,
        &[
            "A is left of B, with C below them.",
            "B is right of A, and both are above C.",
            "C is below two others: A and, right of it, B.",
            "at the top we see A, then B right of it; at the bottom is C.",
            "below A on the left and B on the right is C.",
            "there is C at the bottom, and at the top A left of B.",
        ],
    ),
];

#[test]
fn captions_place_objects_where_they_are() {
    let object = |colour, shape| Object {
        size: Size::Large,
        colour,
        shape,
        centre: [0.5; 2],
        radius: 0.1,
    };
    let objects = [
        object(Colour::Red, Shape::Circle),
        object(Colour::Blue, Shape::Square),
        object(Colour::Green, Shape::Triangle),
    ];
    let scene = |layout, count| Scene {
        layout,
        objects: objects[..count].to_vec(),
    };
    for (layout, count, expected) in CAPTIONS {
        assert_eq!(wordings(&scene(layout, count)), expected);
    }
}
