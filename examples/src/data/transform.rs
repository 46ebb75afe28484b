//! From an image file to normalised pixels.
//!
//! Training takes a random resized crop (Szegedy et al., "Going deeper with convolutions", 2015), evaluation the largest centred
//! square. Defaults are CLIP's: bicubic resizing, its mean and deviation, crops of at least 90 % of the area (open_clip).
//! Flips are off, since captions speak of left and right.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use image::imageops::{FilterType, crop_imm, flip_horizontal_in_place, resize};
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// How images become tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformConfig {
    /// Side of the square that the model sees, in pixels.
    pub size: u32,
    /// Smallest and largest area of a random crop, as a share of the image's; `[1, 1]` with equal ratios crops nothing at random.
    pub crop_scale: [f64; 2],
    /// Smallest and largest width of a random crop divided by its height.
    pub crop_ratio: [f64; 2],
    /// Probability of mirroring a training image left to right.
    pub flip: f64,
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
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
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

    /// A randomly cropped, perhaps mirrored view of `image`: `3 × size × size` normalised values, channel by channel.
    pub fn augment(&self, image: &RgbImage, rng: &mut impl Rng) -> Vec<f32> {
        let crop = self.random_crop(image.width(), image.height(), rng);
        let mut view = self.view(image, crop);
        if rng.random_bool(self.flip) {
            flip_horizontal_in_place(&mut view);
        }
        self.normalise(&view)
    }

    /// The largest centred square of `image`: `3 × size × size` normalised values, channel by channel.
    pub fn evaluate(&self, image: &RgbImage) -> Vec<f32> {
        let (width, height) = image.dimensions();
        let side = width.min(height);
        self.normalise(&self.view(
            image,
            Crop {
                x: (width - side) / 2,
                y: (height - side) / 2,
                width: side,
                height: side,
            },
        ))
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

    fn normalise(&self, image: &RgbImage) -> Vec<f32> {
        let mut values = Vec::with_capacity(self.values());
        for channel in 0..3 {
            let scale = 1.0 / (255.0 * self.std[channel]);
            let shift = self.mean[channel] / self.std[channel];
            values.extend(
                image
                    .pixels()
                    .map(|pixel| f32::from(pixel[channel]) * scale - shift),
            );
        }
        values
    }
}

#[derive(Clone, Copy, Debug)]
struct Crop {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

/// The image in `file`, as a viewer shows it: turned as its EXIF data say, transparent parts white, any depth brought to 8 bits.
///
/// # Errors
///
/// Names the file if it cannot be opened, is no PNG or JPEG, or breaks off.
pub fn decode(file: &Path) -> Result<RgbImage> {
    let read = || -> Result<RgbImage> {
        let mut decoder = ImageReader::open(file)?
            .with_guessed_format()?
            .into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(flatten(image))
    };
    read().with_context(|| format!("cannot read image {}", file.display()))
}

/// Reads the dimensions of the image in `file`, without its pixels.
pub(super) fn check_header(file: &Path) -> Result<()> {
    let read = || -> Result<(u32, u32)> {
        Ok(ImageReader::open(file)?
            .with_guessed_format()?
            .into_dimensions()?)
    };
    let (width, height) =
        read().with_context(|| format!("cannot read image {}", file.display()))?;
    ensure!(
        width > 0 && height > 0,
        "image {} has no pixels ({width}×{height})",
        file.display()
    );
    Ok(())
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
