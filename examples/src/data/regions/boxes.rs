//! Where an image has regions when no detector says it.

use anyhow::{Result, ensure};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::Classes;
use crate::data::random::{Purpose, stream};
use crate::data::scenes::{Colour, Object, Shape};
use crate::data::{Collection, Example};

/// Which regions an image has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxesConfig {
    /// Regions of each image.
    pub per_image: usize,
    /// How far a side of a further box of an object may be from the object's, as a share of its
    /// extent.
    pub jitter: f64,
}

/// The least extent of a box, as a share of the image's.
const LEAST: f32 = 0.02;

impl BoxesConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        ensure!(
            (1..=1_000).contains(&self.per_image),
            "per_image = {} must be in 1..=1000",
            self.per_image
        );
        ensure!(
            (0.0..=1.0).contains(&self.jitter),
            "jitter = {} must be in [0, 1]",
            self.jitter
        );
        Ok(())
    }

    /// The boxes of image `index`, `x0 y0 x1 y1` each: of a scene those of its objects, then boxes
    /// that are off theirs at random, one object after the other; of any other picture the cells
    /// of a grid, row by row.
    pub fn boxes(&self, collection: &Collection, index: usize, seed: u64) -> Vec<[f32; 4]> {
        let scene = &collection.examples[index].scene;
        let objects = scene.as_ref().map_or(&[][..], |scene| &scene.objects);
        if objects.is_empty() {
            return grid(self.per_image);
        }
        let mut rng = stream(seed, 0, index as u64, Purpose::Regions);
        let jitter = self.jitter as f32;
        let boxes = objects.iter().cycle().enumerate();
        let boxes = boxes.map(|(place, object)| {
            let Object {
                centre: [x, y],
                radius,
                ..
            } = *object;
            let mut sides = [x - radius, y - radius, x + radius, y + radius];
            if place >= objects.len() {
                let far = 2.0 * radius * jitter;
                sides = sides.map(|side| side + far * rng.random_range(-1.0..=1.0));
            }
            inside(sides)
        });
        boxes.take(self.per_image).collect()
    }

    /// What the [boxes](Self::boxes) of all images show, the colours and the shapes of the objects
    /// that they are of; `None` where an image is no scene, whose objects are known.
    pub fn classes(&self, collection: &Collection) -> Option<Classes> {
        let of_image = |example: &Example| {
            let objects = example.scene.as_ref().map(|scene| &scene.objects);
            let objects = objects.filter(|objects| !objects.is_empty())?;
            let objects = objects.iter().cycle().take(self.per_image);
            Some(objects.map(class).collect())
        };
        let of_regions = collection.examples.iter().map(of_image);
        Some(Classes {
            names: classes(),
            of_regions: of_regions.collect::<Option<_>>()?,
        })
    }
}

/// The names of what objects of scenes are: colour and shape.
fn classes() -> Vec<String> {
    let all = Colour::ALL.iter();
    let all = all.flat_map(|colour| Shape::ALL.map(|shape| format!("{colour:?} {shape:?}")));
    all.map(|name| name.to_lowercase()).collect()
}

/// The class of an object among [`classes`].
fn class(object: &Object) -> usize {
    let place = |found: Option<usize>| found.expect("all are listed");
    let colour = Colour::ALL.iter().position(|&other| other == object.colour);
    let shape = Shape::ALL.iter().position(|&other| other == object.shape);
    place(colour) * Shape::ALL.len() + place(shape)
}

/// A box within the image, with an extent.
fn inside([x0, y0, x1, y1]: [f32; 4]) -> [f32; 4] {
    let span = |low: f32, high: f32| {
        let low = low.clamp(0.0, 1.0 - LEAST);
        (low, high.clamp(low + LEAST, 1.0))
    };
    let ((x0, x1), (y0, y1)) = (span(x0, x1), span(y0, y1));
    [x0, y0, x1, y1]
}

/// The first `count` cells of the least grid that has as many, at most as high as wide.
fn grid(count: usize) -> Vec<[f32; 4]> {
    let columns = (1..=count).find(|side| side * side >= count).unwrap_or(1);
    let rows = count.div_ceil(columns);
    let cell = |place: usize| {
        let edge = |place: usize, of: usize| place as f32 / of as f32;
        let (row, column) = (place / columns, place % columns);
        [
            edge(column, columns),
            edge(row, rows),
            edge(column + 1, columns),
            edge(row + 1, rows),
        ]
    };
    (0..count).map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Small;

    #[test]
    fn a_scene_has_its_objects_first_and_every_box_lies_inside() {
        let small = Small::new();
        let config = BoxesConfig {
            per_image: 6,
            jitter: 1.0,
        };
        for (index, example) in small.collection.examples.iter().enumerate() {
            let boxes = config.boxes(&small.collection, index, 1);
            assert_eq!(boxes.len(), 6);
            for (object, [x0, y0, x1, y1]) in
                example.scene.iter().flat_map(|s| &s.objects).zip(&boxes)
            {
                assert!(((x0 + x1) / 2.0 - object.centre[0]).abs() < 1e-5);
                assert!((y1 - y0 - 2.0 * object.radius).abs() < 1e-5);
            }
            for [x0, y0, x1, y1] in &boxes {
                assert!(0.0 <= *x0 && x0 < x1 && *x1 <= 1.0, "{boxes:?}");
                assert!(0.0 <= *y0 && y0 < y1 && *y1 <= 1.0, "{boxes:?}");
            }
            assert_eq!(boxes, config.boxes(&small.collection, index, 1));
            assert_ne!(boxes, config.boxes(&small.collection, index, 2));
        }
    }

    #[test]
    fn the_boxes_of_a_scene_show_its_objects() {
        let small = Small::new();
        let config = BoxesConfig {
            per_image: 5,
            jitter: 0.2,
        };
        let Classes { names, of_regions } = config.classes(&small.collection).unwrap();
        assert_eq!(names.len(), 32);
        assert_eq!(names[5], "green square");
        for (example, classes) in small.collection.examples.iter().zip(&of_regions) {
            let objects = &example.scene.as_ref().unwrap().objects;
            assert_eq!(classes.len(), 5);
            for (object, &class) in objects.iter().cycle().zip(classes) {
                let name = format!("{:?} {:?}", object.colour, object.shape);
                assert_eq!(names[class], name.to_lowercase());
            }
        }
        let mut others = (*small.collection).clone();
        others.examples[3].scene = None;
        assert_eq!(config.classes(&others), None);
    }

    #[test]
    fn any_other_picture_has_a_grid() {
        assert_eq!(grid(1), [[0.0, 0.0, 1.0, 1.0]]);
        let six = grid(6);
        assert_eq!(six[5], [2.0 / 3.0, 0.5, 1.0, 1.0]);
        assert_eq!(grid(5), six[..5]);
    }
}
