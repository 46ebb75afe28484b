//! Small copies of images, to be embedded in the page.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::imageops::FilterType;
use image::{ImageReader, RgbImage};

use crate::data::{Picture, Pictures};

/// The longer side of a thumbnail at most: twice what the page shows, for screens of high density.
const LARGEST: u32 = 224;
const JPEG_QUALITY: u8 = 85;

/// An image small enough to embed.
pub(super) struct Thumbnail {
    /// The image itself, as a `data:` URI.
    pub uri: String,
    pub width: u32,
    pub height: u32,
}

/// Thumbnails by file, each made once.
#[derive(Default)]
pub(super) struct Thumbnails {
    made: HashMap<PathBuf, Option<Thumbnail>>,
    pictures: Pictures,
}

impl Thumbnails {
    /// The thumbnail of a file, or of an image in a shard; `None` if it is missing or no readable
    /// image: a report shows what there is.
    pub fn of(&mut self, file: &Path) -> Option<&Thumbnail> {
        let made = self.made.entry(file.to_path_buf());
        let made = made.or_insert_with(|| {
            let picture = self.pictures.find(file).ok()?;
            thumbnail(&picture).ok()
        });
        made.as_ref()
    }
}

fn thumbnail(picture: &Picture) -> Result<Thumbnail> {
    let image = ImageReader::new(picture.open()?);
    let image = image.with_guessed_format()?.decode()?;
    let image = if image.width().max(image.height()) > LARGEST {
        image.resize(LARGEST, LARGEST, FilterType::Triangle)
    } else {
        image
    };
    // Drawings are smaller and exact as PNG, photographs are smaller as JPEG.
    let pixels = over_white(&image.to_rgba8());
    let png = encoded(|buffer| pixels.write_with_encoder(PngEncoder::new(buffer)))?;
    let jpeg = encoded(|buffer| {
        pixels.write_with_encoder(JpegEncoder::new_with_quality(buffer, JPEG_QUALITY))
    })?;
    let (kind, bytes) = if png.len() <= jpeg.len() {
        ("png", png)
    } else {
        ("jpeg", jpeg)
    };
    Ok(Thumbnail {
        uri: format!("data:image/{kind};base64,{}", STANDARD.encode(bytes)),
        width: pixels.width(),
        height: pixels.height(),
    })
}

fn encoded(encode: impl FnOnce(&mut Cursor<Vec<u8>>) -> image::ImageResult<()>) -> Result<Vec<u8>> {
    let mut buffer = Cursor::new(Vec::new());
    encode(&mut buffer).context("could not be encoded")?;
    Ok(buffer.into_inner())
}

/// Lays a transparent image over white.
fn over_white(image: &image::RgbaImage) -> RgbImage {
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [red, green, blue, alpha] = image.get_pixel(x, y).0.map(u16::from);
        let blend = |channel: u16| ((channel * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        image::Rgb([blend(red), blend(green), blend(blue)])
    })
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, Rgba, RgbaImage};

    use super::*;

    fn decoded(thumbnail: &Thumbnail) -> DynamicImage {
        let (_, encoded) = thumbnail.uri.split_once(";base64,").unwrap();
        image::load_from_memory(&STANDARD.decode(encoded).unwrap()).unwrap()
    }

    #[test]
    fn a_large_image_shrinks_and_keeps_its_shape() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("large.png");
        RgbImage::from_pixel(900, 450, image::Rgb([200, 30, 30]))
            .save(&file)
            .unwrap();
        let made = thumbnail(&file.clone().into()).unwrap();
        assert_eq!((made.width, made.height), (224, 112));
        let image = decoded(&made);
        assert_eq!((image.width(), image.height()), (224, 112));
    }

    #[test]
    fn a_small_image_keeps_its_size_and_transparency_becomes_white() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("clear.png");
        RgbaImage::from_pixel(8, 8, Rgba([0, 0, 0, 0]))
            .save(&file)
            .unwrap();
        let image = decoded(&thumbnail(&file.clone().into()).unwrap()).to_rgb8();
        assert_eq!(image.dimensions(), (8, 8));
        assert!(image.pixels().all(|pixel| pixel.0.iter().all(|&c| c > 250)));
    }

    #[test]
    fn the_content_decides_not_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("jpeg-in-disguise.png");
        let image = RgbImage::from_pixel(16, 16, image::Rgb([9, 90, 200]));
        let mut bytes = Cursor::new(Vec::new());
        image
            .write_to(&mut bytes, image::ImageFormat::Jpeg)
            .unwrap();
        std::fs::write(&file, bytes.into_inner()).unwrap();
        assert!(Thumbnails::default().of(&file).is_some());
    }

    #[test]
    fn a_missing_or_corrupt_file_has_no_thumbnail() {
        let directory = tempfile::tempdir().unwrap();
        let corrupt = directory.path().join("corrupt.png");
        std::fs::write(&corrupt, b"not an image").unwrap();
        let mut thumbnails = Thumbnails::default();
        assert!(thumbnails.of(&corrupt).is_none());
        assert!(
            thumbnails
                .of(&directory.path().join("missing.png"))
                .is_none()
        );
    }
}
