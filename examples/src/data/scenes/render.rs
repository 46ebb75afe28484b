//! Paints scenes. Backgrounds and shades differ from image to image and are never spoken of.

use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use imageproc::drawing::{draw_filled_circle_mut, draw_filled_rect_mut, draw_polygon_mut};
use imageproc::point::Point;
use imageproc::rect::Rect;
use rand::{Rng, RngExt};

use super::scene::{Colour, Object, Scene, Shape};

/// Pixels painted for each of the image's, each way: smooths the edges.
const OVERSAMPLING: u32 = 2;

/// A square picture of `scene`, `size` pixels wide.
pub(super) fn render(scene: &Scene, size: u32, rng: &mut impl Rng) -> RgbImage {
    let mut canvas = background(size * OVERSAMPLING, rng);
    for object in &scene.objects {
        draw(&mut canvas, object, shade(object.colour, rng));
    }
    resize(&canvas, size, size, FilterType::Triangle)
}

/// A texture between two greyish tints, with noise.
fn background(side: u32, rng: &mut impl Rng) -> RgbImage {
    let base: [i32; 3] = std::array::from_fn(|_| rng.random_range(110..150));
    let contrast = rng.random_range(8..28);
    let noise = rng.random_range(2..14);
    let period = (side / rng.random_range(4..14)).max(2);
    let offset = rng.random_range(0..period);
    let texture = rng.random_range(0..5);
    RgbImage::from_fn(side, side, |x, y| {
        let band = |position: u32| ((position + offset) / period % 2) as i32;
        let tone = match texture {
            0 => 0,
            1 => contrast * band(x),
            2 => contrast * band(y),
            3 => contrast * (band(x) ^ band(y)),
            _ => contrast * band(x + y),
        };
        let grain = rng.random_range(-noise..=noise);
        Rgb(base.map(|value| (value + tone - contrast / 2 + grain).clamp(0, 255) as u8))
    })
}

fn shade(colour: Colour, rng: &mut impl Rng) -> Rgb<u8> {
    let pure = match colour {
        Colour::Red => [215, 35, 35],
        Colour::Green => [35, 165, 55],
        Colour::Blue => [40, 70, 220],
        Colour::Yellow => [245, 225, 50],
        Colour::Purple => [150, 40, 185],
        Colour::Orange => [245, 135, 25],
        Colour::White => [245, 245, 245],
        Colour::Black => [15, 15, 15],
    };
    Rgb(pure.map(|value: i32| (value + rng.random_range(-12..=12)).clamp(0, 255) as u8))
}

fn draw(canvas: &mut RgbImage, object: &Object, paint: Rgb<u8>) {
    let side = canvas.width() as f32;
    let [x, y] = object
        .centre
        .map(|coordinate| (coordinate * side).round() as i32);
    let radius = (object.radius * side).round().max(2.0) as i32;
    let mut rectangle = |half_width: i32, half_height: i32| {
        let area = Rect::at(x - half_width, y - half_height)
            .of_size(2 * half_width as u32 + 1, 2 * half_height as u32 + 1);
        draw_filled_rect_mut(canvas, area, paint);
    };
    match object.shape {
        Shape::Circle => draw_filled_circle_mut(canvas, (x, y), radius, paint),
        Shape::Square => rectangle(radius * 9 / 10, radius * 9 / 10),
        Shape::Cross => {
            let arm = (radius / 3).max(1);
            rectangle(radius, arm);
            rectangle(arm, radius);
        }
        Shape::Triangle => {
            let corners = [
                Point::new(x, y - radius),
                Point::new(x + radius, y + radius),
                Point::new(x - radius, y + radius),
            ];
            draw_polygon_mut(canvas, &corners, paint);
        }
    }
}
