//! RandAugment (Cubuk et al., "RandAugment: practical automated data augmentation with a reduced
//! search space", 2020) with the ten operations and the parameters of ALBEF's public code.
//!
//! | operation | at magnitude M of 10 |
//! |---|---|
//! | identity, auto contrast, equalize | no parameter |
//! | brightness, sharpness | factor 1.8·M/10 + 0.1; 1 changes nothing |
//! | shear x, shear y | ±0.3·M/10, the first row or column fixed |
//! | translate x, translate y | ±M/256 of the side: ALBEF's ±10·M/10 pixels at 256 |
//! | rotate | ±30°·M/10 about the centre |
//!
//! What comes into the picture from outside is grey, 128. The four operations on values follow
//! Pillow; ALBEF's own sharpness lets values beyond 255 wrap around, which is not copied.
//!
//! **Captions** of scenes tell sizes, colours and who is left of or above whom. No operation makes
//! a small object large, and none mirrors: a rotation by up to 30° and shears of up to 0.3 keep the
//! order of objects that lie side by side or one above the other (a flip does not). Equalizing and
//! stretching work on each channel alone and may shift hues, as in ALBEF, and near the margin a
//! shear pushes a part of an object out.

use anyhow::{Result, ensure};
use image::{Rgb, RgbImage};
use imageproc::geometric_transformations::{Border, Interpolation, Projection, warp};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The largest magnitude.
const LARGEST: f64 = 10.0;
/// What comes into the picture from outside.
const FILL: Rgb<u8> = Rgb([128; 3]);

/// How many operations change a training image, how strongly, how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandAugmentConfig {
    /// Operations drawn for each image, with replacement.
    pub operations: usize,
    /// The strength of each, in 0..=10.
    pub magnitude: f64,
    /// The probability with which one that was drawn is applied: 1 in the paper, 0.5 in ALBEF's
    /// code.
    pub probability: f64,
}

impl Default for RandAugmentConfig {
    /// ALBEF's: (2, 7), each applied half of the time.
    fn default() -> Self {
        Self {
            operations: 2,
            magnitude: 7.0,
            probability: 0.5,
        }
    }
}

impl RandAugmentConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// Names the field that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        ensure!(
            (1..=16).contains(&self.operations),
            "operations is {}; it must lie in 1..=16",
            self.operations
        );
        ensure!(
            (0.0..=LARGEST).contains(&self.magnitude),
            "magnitude is {}; it must lie in 0..=10",
            self.magnitude
        );
        ensure!(
            (0.0..=1.0).contains(&self.probability),
            "probability is {}; it must lie in 0..=1",
            self.probability
        );
        Ok(())
    }

    /// `image` after the operations that `rng` draws. It draws the same number of values whatever
    /// they are.
    pub fn apply(&self, mut image: RgbImage, rng: &mut impl Rng) -> RgbImage {
        for _ in 0..self.operations {
            let operation = Operation::ALL[rng.random_range(0..Operation::ALL.len())];
            let is_applied = rng.random_bool(self.probability);
            let sign = if rng.random() { 1.0 } else { -1.0 };
            if is_applied {
                image = operation.apply(image, self.magnitude, sign);
            }
        }
        image
    }
}

/// One change of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Identity,
    AutoContrast,
    Equalize,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
}

impl Operation {
    const ALL: [Self; 10] = [
        Self::Identity,
        Self::AutoContrast,
        Self::Equalize,
        Self::Brightness,
        Self::Sharpness,
        Self::ShearX,
        Self::ShearY,
        Self::TranslateX,
        Self::TranslateY,
        Self::Rotate,
    ];

    /// `sign` is 1 or -1, the direction of a motion.
    fn apply(self, image: RgbImage, magnitude: f64, sign: f64) -> RgbImage {
        let factor = (magnitude / LARGEST * 1.8 + 0.1) as f32;
        match self {
            Self::Identity => image,
            Self::AutoContrast => auto_contrast(image),
            Self::Equalize => equalize(image),
            Self::Brightness => brightness(image, factor),
            Self::Sharpness => sharpness(image, factor),
            _ => {
                let motion = self.motion(image.dimensions(), sign * magnitude / LARGEST);
                warp(
                    &image,
                    motion,
                    Interpolation::Bilinear,
                    Border::Constant(FILL),
                )
            }
        }
    }

    /// Where the pixels of a picture of that size go, at a level in -1..=1; nowhere else, of an
    /// operation on values.
    fn motion(self, (width, height): (u32, u32), level: f64) -> Projection {
        let shear = (0.3 * level) as f32;
        let shift = |side: u32| (level * 10.0 / 256.0 * f64::from(side)) as f32;
        let [x, y] = [width, height].map(|side| (side as f32 - 1.0) / 2.0);
        let sheared = |across: f32, down: f32| {
            Projection::from_matrix([1.0, across, 0.0, down, 1.0, 0.0, 0.0, 0.0, 1.0])
                .expect("the determinant is 1")
        };
        match self {
            Self::ShearX => sheared(shear, 0.0),
            Self::ShearY => sheared(0.0, shear),
            Self::TranslateX => Projection::translate(shift(width), 0.0),
            Self::TranslateY => Projection::translate(0.0, shift(height)),
            Self::Rotate => {
                Projection::translate(x, y)
                    * Projection::rotate((30.0 * level).to_radians() as f32)
                    * Projection::translate(-x, -y)
            }
            _ => Projection::translate(0.0, 0.0),
        }
    }
}

/// Puts into the place of each value the one that `tables` of its channel gives.
fn look_up(mut image: RgbImage, tables: [[u8; 256]; 3]) -> RgbImage {
    for pixel in image.pixels_mut() {
        for (value, table) in pixel.0.iter_mut().zip(&tables) {
            *value = table[usize::from(*value)];
        }
    }
    image
}

/// How often each value occurs in each channel.
fn histograms(image: &RgbImage) -> [[u64; 256]; 3] {
    let mut histograms = [[0; 256]; 3];
    for pixel in image.pixels() {
        for (&value, histogram) in pixel.0.iter().zip(&mut histograms) {
            histogram[usize::from(value)] += 1;
        }
    }
    histograms
}

/// Nothing changed.
fn unchanged() -> [u8; 256] {
    std::array::from_fn(|value| value as u8)
}

/// Stretches each channel over 0..=255.
fn auto_contrast(image: RgbImage) -> RgbImage {
    let tables = histograms(&image).map(|histogram| {
        let lowest = histogram.iter().position(|&count| count > 0);
        let highest = histogram.iter().rposition(|&count| count > 0);
        match (lowest, highest) {
            (Some(lowest), Some(highest)) if lowest < highest => {
                let scale = 255.0 / (highest - lowest) as f64;
                let offset = -(lowest as f64) * scale;
                // The conversion cuts off the fraction and what lies outside.
                std::array::from_fn(|value| (value as f64 * scale + offset) as u8)
            }
            _ => unchanged(),
        }
    });
    look_up(image, tables)
}

/// Brings about as many pixels of each channel to every value.
fn equalize(image: RgbImage) -> RgbImage {
    let tables = histograms(&image).map(|histogram| {
        let pixels: u64 = histogram.iter().sum();
        let of_highest = histogram.iter().rfind(|&&count| count > 0);
        let step = (pixels - of_highest.unwrap_or(&0)) / 255;
        if step == 0 {
            return unchanged();
        }
        let mut before = step / 2;
        histogram.map(|count| {
            let value = before / step;
            before += count;
            value.min(255) as u8
        })
    });
    look_up(image, tables)
}

/// Multiplies every value.
fn brightness(image: RgbImage, factor: f32) -> RgbImage {
    let table = std::array::from_fn(|value| (value as f32 * factor) as u8);
    look_up(image, [table; 3])
}

/// Moves every pixel that has eight neighbours away from the smoothed picture: at 0 all the way to
/// it, at 1 not at all.
fn sharpness(image: RgbImage, factor: f32) -> RgbImage {
    let (width, height) = image.dimensions();
    let mut sharp = image.clone();
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            let own = image.get_pixel(x, y).0;
            let mut sums = own.map(|value| 4 * u32::from(value));
            for (column, row) in (x - 1..=x + 1).flat_map(|x| (y - 1..=y + 1).map(move |y| (x, y)))
            {
                for (sum, value) in sums.iter_mut().zip(image.get_pixel(column, row).0) {
                    *sum += u32::from(value);
                }
            }
            let pixel = std::array::from_fn(|channel| {
                // The sum divided by 13, rounded.
                let smooth = ((2 * sums[channel] + 13) / 26) as f32;
                (smooth + factor * (f32::from(own[channel]) - smooth)) as u8
            });
            sharp.put_pixel(x, y, Rgb(pixel));
        }
    }
    sharp
}

#[cfg(test)]
mod tests;
