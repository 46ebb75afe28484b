use super::*;
use crate::data::TransformConfig;
use crate::data::random::{Purpose, stream};
use crate::data::scenes::Relation;
use crate::data::testing::Small;

/// The pictures of `tests/fixtures/augment`, made by Pillow.
#[derive(Deserialize)]
struct Fixture {
    pictures: Vec<Picture>,
}

#[derive(Deserialize)]
struct Picture {
    width: u32,
    height: u32,
    pixels: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    operation: String,
    factor: Option<f32>,
    pixels: String,
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    (0..hexadecimal.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn operations_on_values_are_those_of_pillow() {
    let text = include_str!("../../../tests/fixtures/augment/augment.json");
    let fixture: Fixture = serde_json::from_str(text).unwrap();
    let mut changed = 0;
    for picture in fixture.pictures {
        let pixels = bytes(&picture.pixels);
        let image = RgbImage::from_raw(picture.width, picture.height, pixels.clone()).unwrap();
        assert_eq!(picture.cases.len(), 12);
        for case in picture.cases {
            let image = image.clone();
            let made = match (case.operation.as_str(), case.factor) {
                ("auto_contrast", None) => auto_contrast(image),
                ("equalize", None) => equalize(image),
                ("brightness", Some(factor)) => brightness(image, factor),
                ("sharpness", Some(factor)) => sharpness(image, factor),
                other => panic!("{other:?}"),
            };
            let expected = bytes(&case.pixels);
            changed += usize::from(expected != pixels);
            assert_eq!(
                made.into_raw(),
                expected,
                "{} {:?} of {}×{}",
                case.operation,
                case.factor,
                picture.width,
                picture.height
            );
        }
    }
    assert!(changed > 20, "{changed}");
}

/// Every pixel has another value.
fn numbered(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, (x ^ y) as u8]))
}

const MOTIONS: [Operation; 5] = [
    Operation::ShearX,
    Operation::ShearY,
    Operation::TranslateX,
    Operation::TranslateY,
    Operation::Rotate,
];

#[test]
fn motions_of_no_magnitude_change_nothing() {
    let image = numbered(20, 13);
    for operation in MOTIONS {
        for sign in [-1.0, 1.0] {
            assert_eq!(
                operation.apply(image.clone(), 0.0, sign),
                image,
                "{operation:?}"
            );
        }
    }
}

#[test]
fn translations_shift_by_ten_of_256_pixels_at_most_and_fill_with_grey() {
    let image = numbered(256, 256);
    for (sign, shift) in [(1.0, 7), (-1.0, -7)] {
        let across = Operation::TranslateX.apply(image.clone(), 7.0, sign);
        let down = Operation::TranslateY.apply(image.clone(), 7.0, sign);
        let from = |x: i64, y: i64| match (u32::try_from(x), u32::try_from(y)) {
            (Ok(x), Ok(y)) if x < 256 && y < 256 => *image.get_pixel(x, y),
            _ => FILL,
        };
        for (x, y, pixel) in across.enumerate_pixels() {
            assert_eq!(*pixel, from(i64::from(x) - shift, y.into()), "{x} {y}");
        }
        for (x, y, pixel) in down.enumerate_pixels() {
            assert_eq!(*pixel, from(x.into(), i64::from(y) - shift), "{x} {y}");
        }
    }
    // Relative to the side: a quarter of it, a quarter of the shift.
    let moved = Operation::TranslateX.motion((64, 64), 0.64) * (10.0, 20.0);
    assert!(
        (moved.0 - 11.6).abs() < 1e-5 && moved.1 == 20.0,
        "{moved:?}"
    );
}

#[test]
fn shears_move_each_line_by_its_distance_from_the_first() {
    // At magnitude 10 row 10 moves by 3 pixels.
    let image = numbered(40, 31);
    let across = Operation::ShearX.apply(image.clone(), 10.0, 1.0);
    let down = Operation::ShearY.apply(image.clone(), 10.0, -1.0);
    for x in 0..40 {
        assert_eq!(across.get_pixel(x, 0), image.get_pixel(x, 0));
    }
    for (line, shift) in [(10, 3), (20, 6), (30, 9)] {
        for x in 10..40 {
            let [made, from] = [across.get_pixel(x, line), image.get_pixel(x - shift, line)];
            assert!(
                made.0.iter().zip(from.0).all(|(a, b)| a.abs_diff(b) <= 1),
                "{x} {line}"
            );
        }
        assert_eq!(*across.get_pixel(0, line), FILL);
        for y in 0..31 - shift {
            let [made, from] = [down.get_pixel(line, y), image.get_pixel(line, y + shift)];
            assert!(
                made.0.iter().zip(from.0).all(|(a, b)| a.abs_diff(b) <= 1),
                "{line} {y}"
            );
        }
        assert_eq!(*down.get_pixel(line, 30), FILL);
    }
}

#[test]
fn rotations_turn_about_the_centre_which_stays() {
    let motion = Operation::Rotate.motion((21, 21), 1.0);
    let centre = motion * (10.0, 10.0);
    assert!((centre.0 - 10.0).abs() < 1e-5 && (centre.1 - 10.0).abs() < 1e-5);
    // A third of a right angle, clockwise.
    let right = motion * (20.0, 10.0);
    let expected = (10.0 + 10.0 * 0.75_f32.sqrt(), 15.0);
    assert!((right.0 - expected.0).abs() < 1e-4 && (right.1 - expected.1).abs() < 1e-4);
    let image = numbered(21, 21);
    let turned = Operation::Rotate.apply(image.clone(), 7.0, -1.0);
    assert_eq!(turned.get_pixel(10, 10), image.get_pixel(10, 10));
    assert_eq!(*turned.get_pixel(0, 0), FILL);
}

#[test]
fn motions_keep_the_order_of_the_objects_of_scenes() {
    let small = Small::new();
    let mut checked = 0;
    for example in &small.collection.examples {
        let scene = example.scene.as_ref().unwrap();
        for operation in MOTIONS {
            for level in [-1.0, -0.7, 0.7, 1.0] {
                let motion = operation.motion((64, 64), level);
                let moved: Vec<_> = scene
                    .objects
                    .iter()
                    .map(|object| motion * (64.0 * object.centre[0], 64.0 * object.centre[1]))
                    .collect();
                for (i, a) in moved.iter().enumerate() {
                    for (j, b) in moved.iter().enumerate().skip(i + 1) {
                        let still = match scene.layout.relation(i, j) {
                            Relation::LeftOf => a.0 < b.0,
                            Relation::RightOf => a.0 > b.0,
                            Relation::Above => a.1 < b.1,
                            Relation::Below => a.1 > b.1,
                        };
                        assert!(still, "{operation:?} at {level} of {scene:?}");
                        checked += 1;
                    }
                }
            }
        }
    }
    assert!(checked > 1_000);
}

#[test]
fn operations_are_drawn_evenly_and_applied_as_often_as_configured() {
    // One value everywhere but in one pixel: every operation on it can be told from the others.
    let mut image = RgbImage::from_pixel(9, 9, Rgb([60; 3]));
    image.put_pixel(4, 4, Rgb([90; 3]));
    let all: Vec<_> = Operation::ALL
        .into_iter()
        .flat_map(|operation| [-1.0, 1.0].map(|sign| operation.apply(image.clone(), 7.0, sign)))
        .collect();
    let config = RandAugmentConfig {
        operations: 1,
        probability: 1.0,
        ..Default::default()
    };
    let mut times = vec![0; all.len()];
    let mut unchanged = 0;
    for index in 0..4_000 {
        let mut rng = stream(3, 0, index, Purpose::Augmentation);
        let made = config.apply(image.clone(), &mut rng);
        times[all.iter().position(|other| *other == made).unwrap()] += 1;
        let half = RandAugmentConfig {
            probability: 0.5,
            ..config.clone()
        };
        let mut rng = stream(4, 0, index, Purpose::Augmentation);
        unchanged += usize::from(half.apply(image.clone(), &mut rng) == image);
    }
    // Equalizing 81 pixels changes nothing, as the identity; both signs of an operation on values
    // are the same.
    let [identity, contrast] = [times[0], times[2]];
    assert!((690..910).contains(&identity), "{times:?}");
    assert!((330..470).contains(&contrast), "{times:?}");
    for motion in &times[10..] {
        assert!((150..250).contains(motion), "{times:?}");
    }
    // Half of the time, and a fifth of the other half.
    assert!((2_250..2_550).contains(&unchanged), "{unchanged}");
}

#[test]
fn the_transform_draws_as_before_and_then_what_it_adds() {
    let image = numbered(30, 24);
    let plain = TransformConfig {
        size: 16,
        crop_scale: [0.3, 1.0],
        flip: 0.5,
        ..Default::default()
    };
    let config = RandAugmentConfig {
        probability: 1.0,
        ..Default::default()
    };
    let augmented = TransformConfig {
        rand_augment: Some(config.clone()),
        ..plain.clone()
    };
    let mut changed = 0;
    for index in 0..40 {
        let mut rng = stream(0, 0, index, Purpose::Augmentation);
        let pixels = plain.augment(&image, &mut rng);
        let view = RgbImage::from_fn(16, 16, |x, y| {
            let at = (16 * y + x) as usize;
            Rgb([pixels[at], pixels[256 + at], pixels[512 + at]])
        });
        let expected = config.apply(view, &mut rng);
        let found = augmented.augment(&image, &mut stream(0, 0, index, Purpose::Augmentation));
        for (x, y, pixel) in expected.enumerate_pixels() {
            let at = (16 * y + x) as usize;
            assert_eq!(pixel.0, [found[at], found[256 + at], found[512 + at]]);
        }
        changed += usize::from(found != pixels);
    }
    assert!(changed > 30, "{changed}");
    assert_eq!(plain.evaluate(&image), augmented.evaluate(&image));
}

#[test]
fn settings_out_of_range_are_named_and_unknown_ones_refused() {
    let transform = |rand_augment| TransformConfig {
        rand_augment: Some(rand_augment),
        ..Default::default()
    };
    let default = RandAugmentConfig::default;
    transform(default()).validate().unwrap();
    for (config, expected) in [
        (
            RandAugmentConfig {
                operations: 0,
                ..default()
            },
            "rand_augment: operations is 0",
        ),
        (
            RandAugmentConfig {
                magnitude: f64::NAN,
                ..default()
            },
            "rand_augment: magnitude is NaN",
        ),
        (
            RandAugmentConfig {
                probability: 1.5,
                ..default()
            },
            "rand_augment: probability is 1.5",
        ),
    ] {
        let error = format!("{:#}", transform(config).validate().unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
    assert!(serde_json::from_str::<RandAugmentConfig>(r#"{"magnitud": 7}"#).is_err());
    let read: TransformConfig = serde_json::from_str(r#"{"rand_augment": {}}"#).unwrap();
    assert_eq!(read, transform(default()));
}
