use super::*;
use crate::data::random::{Purpose, stream};
use crate::data::testing::picture;
use image::{GrayImage, ImageBuffer, Luma, LumaA, Rgb, Rgba, RgbaImage};

fn plain(size: u32) -> TransformConfig {
    TransformConfig {
        size,
        mean: [0.0; 3],
        std: [1.0; 3],
        ..Default::default()
    }
}

#[test]
fn every_kind_of_png_and_jpeg_decodes_to_the_colour_a_viewer_shows() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    GrayImage::from_pixel(3, 2, Luma([100]))
        .save(at("grey.png"))
        .unwrap();
    GrayImage::from_pixel(3, 2, Luma([100]))
        .save(at("grey.jpg"))
        .unwrap();
    ImageBuffer::from_pixel(3, 2, LumaA([100_u8, 255]))
        .save(at("grey-alpha.png"))
        .unwrap();
    ImageBuffer::from_pixel(3, 2, Luma([100_u16 * 257]))
        .save(at("grey16.png"))
        .unwrap();
    ImageBuffer::from_pixel(3, 2, Rgb([100_u16 * 257, 0, 65_535]))
        .save(at("rgb16.png"))
        .unwrap();
    RgbaImage::from_pixel(3, 2, Rgba([0, 0, 0, 0]))
        .save(at("clear.png"))
        .unwrap();
    RgbaImage::from_pixel(3, 2, Rgba([255, 0, 0, 51]))
        .save(at("pink.png"))
        .unwrap();
    for (name, expected) in [
        ("grey.png", [100; 3]),
        ("grey.jpg", [100; 3]),
        ("grey-alpha.png", [100; 3]),
        ("grey16.png", [100; 3]),
        ("rgb16.png", [100, 0, 255]),
        ("clear.png", [255; 3]),
        ("pink.png", [255, 204, 204]),
    ] {
        let image = decode(&at(name)).unwrap();
        assert_eq!(
            (image.dimensions(), image.get_pixel(1, 1).0),
            ((3, 2), expected),
            "{name}"
        );
    }
    // The name does not decide the type.
    std::fs::rename(at("grey.jpg"), at("wrong.png")).unwrap();
    assert!(decode(&at("wrong.png")).is_ok());
}

#[test]
fn unreadable_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text.png");
    std::fs::write(&text, "not a picture").unwrap();
    let empty = dir.path().join("empty.jpg");
    std::fs::write(&empty, "").unwrap();
    for file in [text, empty, dir.path().join("missing.png")] {
        let error = format!("{:#}", decode(&file).unwrap_err());
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
}

#[test]
fn an_image_that_claims_to_be_huge_is_refused_by_its_header() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("huge.jpg");
    GrayImage::new(8, 8).save(&file).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    // After the marker of the frame: its length, the depth, the height and the width.
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]);
    let size = frame.unwrap() + 5;
    bytes[size..size + 4].copy_from_slice(&[0xc3, 0x50, 0xc3, 0x50]);
    std::fs::write(&file, bytes).unwrap();
    let error = format!("{:#}", decode(&file).unwrap_err());
    assert!(
        error.contains("50000×50000, more than 50 million pixels"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.png");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let error = format!("{:#}", decode(&pipe).unwrap_err());
    assert!(error.contains("it is not a file"), "{error}");
}

#[test]
fn evaluation_takes_the_largest_centred_square() {
    // Black, but for a white square of 4 × 4 in the middle of 8 × 4.
    let image = RgbImage::from_fn(8, 4, |x, _| {
        Rgb(if (2..6).contains(&x) {
            [255; 3]
        } else {
            [0; 3]
        })
    });
    assert_eq!(plain(4).evaluate(&image), [255; 48]);
}

/// The expected values are what torchvision 0.29.2 with Pillow 13.0 makes of the same picture by
/// `Compose([Resize(size, interpolation=InterpolationMode.BICUBIC), CenterCrop(size)])`.
#[test]
fn evaluation_cuts_as_torchvision_does() {
    for (width, height, size, expected) in [
        (11, 4, 3, &[110, 163, 213, 125, 178, 228, 139, 192, 242][..]),
        (
            5,
            13,
            4,
            &[
                50, 95, 143, 188, 64, 109, 157, 202, 78, 123, 171, 216, 92, 137, 184, 239,
            ],
        ),
        // As high as asked for: nothing is resized, and half a pixel goes to the even side.
        (
            9,
            6,
            6,
            &[74, 111, 148, 185, 222, 3, 85, 122, 159, 196, 233, 14],
        ),
    ] {
        let image = RgbImage::from_fn(width, height, |x, y| Rgb([(37 * x + 11 * y) as u8, 0, 0]));
        let pixels = plain(size).evaluate(&image);
        for (pixel, expected) in pixels.iter().zip(expected) {
            assert!(
                pixel.abs_diff(*expected) <= 1,
                "{width}×{height}: {pixels:?}"
            );
        }
    }
    // What is much longer than wide takes no more memory.
    let long = RgbImage::from_pixel(40_000, 1, Rgb([9; 3]));
    assert_eq!(plain(64).evaluate(&long), [9; 3 * 64 * 64]);
}

#[test]
fn normalisation_subtracts_the_mean_and_divides_by_the_deviation() {
    let config = TransformConfig {
        size: 2,
        mean: [0.5, 0.25, 0.0],
        std: [0.5, 0.25, 2.0],
        ..Default::default()
    };
    let pixels = config.evaluate(&RgbImage::from_pixel(2, 2, Rgb([255, 0, 255])));
    let mut values = Vec::new();
    config.normalise(&pixels, &mut values);
    assert_eq!(values.len(), config.values());
    for (value, expected) in values.iter().zip([
        1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 0.5, 0.5, 0.5, 0.5,
    ]) {
        assert!((value - expected).abs() < 1e-6);
    }
}

#[test]
fn crops_keep_within_their_range_of_area_and_ratio_and_reach_every_corner() {
    let config = TransformConfig {
        crop_scale: [0.3, 0.6],
        ..Default::default()
    };
    let mut rng = stream(0, 0, 0, Purpose::Augmentation);
    let mut corners = [false; 4];
    for _ in 0..2_000 {
        let Crop {
            x,
            y,
            width,
            height,
        } = config.random_crop(100, 80, &mut rng);
        let share = f64::from(width * height) / 8_000.0;
        let ratio = f64::from(width) / f64::from(height);
        assert!(
            (0.28..0.62).contains(&share) && (0.72..1.38).contains(&ratio),
            "{width}×{height}"
        );
        corners[0] |= x == 0;
        corners[1] |= y == 0;
        corners[2] |= x + width == 100;
        corners[3] |= y + height == 80;
    }
    assert_eq!(corners, [true; 4]);
}

#[test]
fn images_too_long_for_any_crop_are_cropped_at_the_centre() {
    let crop = plain(4).random_crop(100, 1, &mut stream(0, 0, 0, Purpose::Augmentation));
    assert_eq!((crop.x, crop.y, crop.width, crop.height), (49, 0, 1, 1));
}

#[test]
fn flips_happen_only_when_configured() {
    let image = RgbImage::from_fn(4, 4, |x, _| Rgb([(x * 80) as u8; 3]));
    let whole = TransformConfig {
        crop_scale: [1.0, 1.0],
        crop_ratio: [1.0, 1.0],
        ..plain(4)
    };
    let left = whole.evaluate(&image);
    let mut rng = stream(0, 0, 0, Purpose::Augmentation);
    assert!((0..50).all(|_| whole.augment(&image, &mut rng) == left));
    let flipped = TransformConfig {
        flip: 1.0,
        ..whole.clone()
    }
    .augment(&image, &mut rng);
    assert_eq!((flipped[0], flipped[3]), (left[3], left[0]));
}

#[test]
fn settings_out_of_range_are_named() {
    for (config, field) in [
        (plain(0), "size is 0"),
        (
            TransformConfig {
                crop_scale: [0.9, 0.5],
                ..plain(8)
            },
            "crop_scale",
        ),
        (
            TransformConfig {
                crop_ratio: [0.0, 1.0],
                ..plain(8)
            },
            "crop_ratio",
        ),
        (
            TransformConfig {
                flip: f64::NAN,
                ..plain(8)
            },
            "flip",
        ),
        (
            TransformConfig {
                std: [1.0, 0.0, 1.0],
                ..plain(8)
            },
            "std",
        ),
    ] {
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn a_picture_decodes_to_what_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let file = picture(&dir.path().join("a.png"), [1, 2, 3]);
    assert_eq!(
        decode(&file).unwrap(),
        RgbImage::from_pixel(6, 4, Rgb([1, 2, 3]))
    );
}
