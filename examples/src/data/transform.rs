//! From an image file to normalised pixels.
//!
//! Training takes a random resized crop (Szegedy et al., "Going deeper with convolutions", 2015),
//! evaluation the largest centred square. Defaults are CLIP's: bicubic resizing, its mean and
//! deviation, crops of at least 90 % of the area (open_clip). Flips are off, since captions speak
//! of left and right.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use image::imageops::{FilterType, crop_imm, flip_horizontal_in_place, resize};
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::Draw;
use super::augment::RandAugmentConfig;
use super::picture::{ImageFile, Picture};
use super::random::Purpose;

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

    /// The largest centred square of `image`: `[3, size, size]`, not normalised. As torchvision
    /// does it and so open_clip: the shorter side becomes `size`, then the square is cut out of
    /// whole pixels.
    pub fn evaluate(&self, image: &RgbImage) -> Vec<u8> {
        let (width, height) = image.dimensions();
        let short = width.min(height);
        // What is far longer would take much memory, and its ends do not matter.
        let [width, height] = [width, height].map(|side| side.min(short.saturating_mul(8)));
        let [x, y] = [image.width() - width, image.height() - height].map(|rest| rest / 2);
        let mut view = crop_imm(image, x, y, width, height).to_image();
        if short != self.size {
            let resized = |side: u32| u64::from(self.size) * u64::from(side) / u64::from(short);
            let [width, height] = [width, height].map(|side| resized(side) as u32);
            view = resize(&view, width, height, FilterType::CatmullRom);
        }
        let (width, height) = view.dimensions();
        let middle = |side: u32| (f64::from(side - self.size) / 2.0).round_ties_even() as u32;
        let square = crop_imm(&view, middle(width), middle(height), self.size, self.size);
        planes(&square.to_image())
    }

    /// As a training example of that draw shows `image`, or without one as evaluation does.
    pub(super) fn seen(&self, image: &RgbImage, draw: Option<Draw>) -> Vec<u8> {
        match draw {
            Some(draw) => self.augment(image, &mut draw.stream(Purpose::Augmentation)),
            None => self.evaluate(image),
        }
    }

    /// Values that [`normalise`](Self::normalise) gave, image by image, as
    /// `[images, 3, size, size]`.
    pub(crate) fn tensor(&self, values: Vec<f32>, device: &Device) -> Tensor<4> {
        let size = self.size as usize;
        let shape = [values.len() / self.values(), 3, size, size];
        Tensor::from_data(TensorData::new(values, shape), device)
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
/// Names the file if it cannot be opened, is no PNG, JPEG or WebP, breaks off, or has more than 50
/// million pixels.
pub fn decode(file: &Path) -> Result<RgbImage> {
    Picture::from(file.to_owned()).decode()
}

/// The image that a file holds, likewise.
pub(super) fn decode_from(file: impl ImageFile) -> Result<RgbImage> {
    let mut decoder = ImageReader::new(file)
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
mod tests;
