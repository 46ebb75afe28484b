//! From an image file to normalised pixels.
//!
//! Training takes a random resized crop (Szegedy et al., "Going deeper with convolutions", 2015),
//! evaluation the largest centred square. Defaults are CLIP's: bicubic resizing, its mean and
//! deviation, crops of at least 90 % of the area (open_clip). Flips are off, since captions speak
//! of left and right.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use image::imageops::{FilterType, crop_imm, flip_horizontal_in_place, resize};
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::augment::RandAugmentConfig;

/// How images become tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformConfig {
    /// Side of the square that the model sees, in pixels.
    pub size: u32,
    /// Smallest and largest area of a random crop, as a share of the image's; `[1, 1]` with equal
    /// ratios crops nothing at random.
    pub crop_scale: [f64; 2],
    /// Smallest and largest width of a random crop divided by its height.
    pub crop_ratio: [f64; 2],
    /// Probability of mirroring a training image left to right.
    pub flip: f64,
    /// Operations that then change a training image's colours and place; `None` changes nothing.
    pub rand_augment: Option<RandAugmentConfig>,
    /// Mean of each channel, subtracted.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, divided by.
    pub std: [f32; 3],
}

impl Default for TransformConfig {
    fn default() -> Self {
        Self {
            size: 64,
            crop_scale: [0.9, 1.0],
            crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
            flip: 0.0,
            rand_augment: None,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
}

impl TransformConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// Names the field that is out of range, its value and the range.
    pub fn validate(&self) -> Result<()> {
        let [smallest, largest] = self.crop_scale;
        let [narrowest, widest] = self.crop_ratio;
        ensure!(
            (1..=4096).contains(&self.size),
            "size is {}; it must lie in 1..=4096",
            self.size
        );
        ensure!(
            0.0 < smallest && smallest <= largest && largest <= 1.0,
            "crop_scale is {:?}; it must be a range within (0, 1]",
            self.crop_scale
        );
        ensure!(
            0.0 < narrowest && narrowest <= widest && widest.is_finite(),
            "crop_ratio is {:?}; it must be a range of positive numbers",
            self.crop_ratio
        );
        ensure!(
            (0.0..=1.0).contains(&self.flip),
            "flip is {}; it must lie in 0..=1",
            self.flip
        );
        if let Some(config) = &self.rand_augment {
            config.check().context("rand_augment")?;
        }
        ensure!(
            self.mean.iter().all(|mean| mean.is_finite()),
            "mean is {:?}; it must be finite",
            self.mean
        );
        ensure!(
            self.std.iter().all(|std| std.is_finite() && *std > 0.0),
            "std is {:?}; it must be positive",
            self.std
        );
        Ok(())
    }

    /// A randomly cropped, perhaps mirrored and changed view of `image`: `[3, size, size]`, not
    /// normalised.
    pub fn augment(&self, image: &RgbImage, rng: &mut impl Rng) -> Vec<u8> {
        let crop = self.random_crop(image.width(), image.height(), rng);
        let mut view = self.view(image, crop);
        if rng.random_bool(self.flip) {
            flip_horizontal_in_place(&mut view);
        }
        if let Some(config) = &self.rand_augment {
            view = config.apply(view, rng);
        }
        planes(&view)
    }

    /// The largest centred square of `image`: `[3, size, size]`, not normalised.
    pub fn evaluate(&self, image: &RgbImage) -> Vec<u8> {
        let (width, height) = image.dimensions();
        let side = width.min(height);
        planes(&self.view(
            image,
            Crop {
                x: (width - side) / 2,
                y: (height - side) / 2,
                width: side,
                height: side,
            },
        ))
    }

    /// The part of `image` in a box `x0 y0 x1 y1`, shares of its width and height in [0, 1], drawn
    /// out to a square: `[3, size, size]`, not normalised. It is a pixel wide and high at least.
    pub fn region(&self, image: &RgbImage, [x0, y0, x1, y1]: [f32; 4]) -> Vec<u8> {
        let span = |low: f32, high: f32, size: u32| {
            let low = ((low * size as f32).round() as u32).min(size - 1);
            let high = ((high * size as f32).round() as u32).clamp(low + 1, size);
            (low, high - low)
        };
        let (x, width) = span(x0, x1, image.width());
        let (y, height) = span(y0, y1, image.height());
        planes(&self.view(
            image,
            Crop {
                x,
                y,
                width,
                height,
            },
        ))
    }

    /// Appends the normalised values of a transformed image to `values`.
    pub fn normalise(&self, pixels: &[u8], values: &mut Vec<f32>) {
        let plane = (self.size as usize).pow(2);
        for (channel, pixels) in pixels.chunks_exact(plane).enumerate() {
            let scale = 1.0 / (255.0 * self.std[channel]);
            let shift = self.mean[channel] / self.std[channel];
            values.extend(pixels.iter().map(|&pixel| f32::from(pixel) * scale - shift));
        }
    }

    /// Images to prepare ahead of those that are needed, for that many threads: 256 MiB of them, at
    /// most 1,024, at least two a thread.
    pub fn prefetch(&self, workers: usize) -> usize {
        let that_fit = (256 << 20) / self.values().max(1);
        that_fit.min(1_024).max(2 * workers)
    }

    /// Number of values in one transformed image.
    pub fn values(&self) -> usize {
        3 * (self.size as usize).pow(2)
    }

    fn random_crop(&self, width: u32, height: u32, rng: &mut impl Rng) -> Crop {
        let area = f64::from(width) * f64::from(height);
        let [narrowest, widest] = self.crop_ratio.map(f64::ln);
        for _ in 0..10 {
            let target = area * rng.random_range(self.crop_scale[0]..=self.crop_scale[1]);
            let ratio = rng.random_range(narrowest..=widest).exp();
            let crop_width = (target * ratio).sqrt().round() as u32;
            let crop_height = (target / ratio).sqrt().round() as u32;
            if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
                return Crop {
                    x: rng.random_range(0..=width - crop_width),
                    y: rng.random_range(0..=height - crop_height),
                    width: crop_width,
                    height: crop_height,
                };
            }
        }
        // No crop fits: the largest centred one whose ratio is allowed.
        let ratio =
            (f64::from(width) / f64::from(height)).clamp(self.crop_ratio[0], self.crop_ratio[1]);
        let crop_width = width.min((f64::from(height) * ratio).round().max(1.0) as u32);
        let crop_height = height.min((f64::from(width) / ratio).round().max(1.0) as u32);
        Crop {
            x: (width - crop_width) / 2,
            y: (height - crop_height) / 2,
            width: crop_width,
            height: crop_height,
        }
    }

    fn view(&self, image: &RgbImage, crop: Crop) -> RgbImage {
        let region = crop_imm(image, crop.x, crop.y, crop.width, crop.height).to_image();
        if region.dimensions() == (self.size, self.size) {
            return region;
        }
        resize(&region, self.size, self.size, FilterType::CatmullRom)
    }
}

/// The pixels of `image`, channel by channel.
fn planes(image: &RgbImage) -> Vec<u8> {
    let channels = (0..3).flat_map(|channel| image.pixels().map(move |pixel| pixel[channel]));
    channels.collect()
}

#[derive(Clone, Copy, Debug)]
struct Crop {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

/// The most pixels of an image. Decoding one takes up to 11 bytes a pixel.
const MOST_PIXELS: u64 = 50_000_000;

/// The image in `file`, as a viewer shows it: turned as its EXIF data say, transparent parts white,
/// any depth brought to 8 bits.
///
/// # Errors
///
/// Names the file if it cannot be opened, is no PNG or JPEG, breaks off, or has more than 50
/// million pixels.
pub fn decode(file: &Path) -> Result<RgbImage> {
    let read = || -> Result<RgbImage> {
        // Opening a pipe would wait for somebody to write to it.
        ensure!(fs::metadata(file)?.is_file(), "it is not a file");
        let mut decoder = ImageReader::open(file)?
            .with_guessed_format()?
            .into_decoder()?;
        let (width, height) = decoder.dimensions();
        let pixels = u64::from(width) * u64::from(height);
        ensure!(pixels > 0, "it has no pixels ({width}×{height})");
        ensure!(
            pixels <= MOST_PIXELS,
            "it is {width}×{height}, more than {} million pixels: scale it down",
            MOST_PIXELS / 1_000_000
        );
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(flatten(image))
    };
    read().with_context(|| format!("cannot read image {}", file.display()))
}

/// Lays `image` on white.
fn flatten(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let image = image.into_rgba8();
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b, alpha] = image.get_pixel(x, y).0.map(u32::from);
        image::Rgb([r, g, b].map(|value| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8))
    })
}

#[cfg(test)]
mod tests {
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
}
