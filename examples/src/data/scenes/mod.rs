//! *Scenes*: a generated set of captioned images whose meaning is known exactly.
//!
//! An image shows two or three coloured shapes, small or large, in a row, a column or a triangle,
//! on a textured background that no caption speaks of. Its captions each tell everything else, in
//! different words. On disk a set is a folder in the form of [Flickr30K and
//! MS-COCO](super::Collection::read), with the true attributes added:
//!
//! ```text
//! scenes.json          the parameters, written first
//! images/000000.png …
//! dataset.json         the captions, splits and true attributes, written last:
//!                      a set without it is unfinished
//! questions.json       questions with their answers, by generate_questions
//! statements.json      statements about two images, by generate_statements
//! ```
//!
//! No meaning of the validation or test split occurs twice or in another split, so every caption
//! there has one right image.

mod additions;
mod caption;
mod describe;
mod questions;
mod render;
mod scene;
mod statements;

pub(super) use caption::{pick, sentence};

pub use additions::{generate_questions, generate_statements};
pub use scene::{Colour, Layout, Object, Relation, Scene, Shape, Size};

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use image::ImageFormat;
use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::collection::Split;
use super::generated::{Generated, write};
use super::karpathy::{Entry, Sentence};
use super::random::{Purpose, stream};
use additions::{QUESTIONS, STATEMENTS};

/// Captions of each image, as in Flickr30K and MS-COCO.
const CAPTIONS: usize = 5;
/// Changes whenever the same parameters give other images or captions, so that older sets are made
/// anew.
const VERSION: u32 = 1;
const MARKER: &str = "scenes.json";
const LISTING: &str = "dataset.json";

/// What a set of scenes holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScenesConfig {
    /// Images to learn from.
    pub train: usize,
    /// Images to choose settings by, each with a meaning of its own.
    pub validation: usize,
    /// Images to report on, each with a meaning of its own.
    pub test: usize,
    /// Width and height of the images, in pixels.
    pub image_size: u32,
    /// Share of the training images whose meaning two or three of them have.
    pub repeated: f64,
    /// Share of the images that show three objects instead of two.
    pub three_objects: f64,
    /// Decides everything drawn at random.
    pub seed: u64,
}

impl Default for ScenesConfig {
    fn default() -> Self {
        Self {
            train: 4_000,
            validation: 200,
            test: 500,
            image_size: 64,
            repeated: 0.25,
            three_objects: 0.5,
            seed: 0,
        }
    }
}

impl ScenesConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// Names the field that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        let sizes = [self.train, self.validation, self.test];
        let sum = sizes.into_iter().try_fold(0, usize::checked_add);
        ensure!(self.train > 0, "train is 0; the set needs training images");
        let Some(total) = sum.filter(|&total| total <= 1_000_000) else {
            bail!("train, validation and test are {sizes:?} images; together at most 1,000,000");
        };
        ensure!(
            (16..=1024).contains(&self.image_size),
            "image_size is {}; it must lie in 16..=1024",
            self.image_size
        );
        for (name, share) in [
            ("repeated", self.repeated),
            ("three_objects", self.three_objects),
        ] {
            ensure!(
                (0.0..=1.0).contains(&share),
                "{name} is {share}; it must lie in 0..=1"
            );
        }
        let pairs = (1.0 - self.three_objects) * total as f64;
        ensure!(
            pairs < 6_000.0 || self.three_objects > 0.0,
            "{total} images need three_objects above 0: two objects give about 8,000 meanings"
        );
        Ok(())
    }
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Marker {
    version: u32,
    config: ScenesConfig,
}

#[derive(Serialize)]
struct Listing {
    dataset: &'static str,
    images: Vec<Entry>,
}

/// Makes sure that the folder `dir` holds the set that `config` describes.
///
/// A finished set with the same parameters is left as it is (answer: false). A set with other
/// parameters is replaced; an interrupted one is finished. Files appear under their names only when
/// complete, so that an interruption does no harm, and a program that finds another one making the
/// set waits for it (`dir.lock`).
///
/// # Errors
///
/// If `config` is out of range, if `dir` holds something else, or if it cannot be written.
pub fn generate(dir: impl AsRef<Path>, config: &ScenesConfig) -> Result<bool> {
    let dir = dir.as_ref();
    config.check().context("cannot generate scenes")?;
    let marker = Marker {
        version: VERSION,
        config: config.clone(),
    };
    let folder = Generated {
        noun: "scenes",
        marker: MARKER,
        listing: LISTING,
        others: &[QUESTIONS, STATEMENTS],
    };
    folder.ensure(dir, &marker, || {
        let entries = choose(config)
            .into_par_iter()
            .enumerate()
            .map(|(index, (split, scene))| draw(dir, config, index, split, scene))
            .collect::<Result<Vec<_>>>()?;
        let listing = Listing {
            dataset: "scenes",
            images: entries,
        };
        write(&dir.join(LISTING), &serde_json::to_vec(&listing)?)
    })
}

/// Paints and words one scene.
fn draw(
    dir: &Path,
    config: &ScenesConfig,
    index: usize,
    split: Split,
    scene: Scene,
) -> Result<Entry> {
    let mut rng = stream(config.seed, 0, index as u64, Purpose::SceneDrawing);
    let scene = place(&scene, &mut rng);
    let filename = format!("{index:06}.png");
    let file = dir.join("images").join(&filename);
    let captions = caption::captions(&scene, CAPTIONS, &mut rng);
    if !file.is_file() {
        let mut bytes = std::io::Cursor::new(Vec::new());
        render::render(&scene, config.image_size, &mut rng)
            .write_to(&mut bytes, ImageFormat::Png)?;
        write(&file, bytes.get_ref())?;
    }
    let first = index * CAPTIONS;
    let sentences = captions
        .into_iter()
        .enumerate()
        .map(|(i, raw)| Sentence {
            tokens: caption::tokens(&raw),
            raw,
            imgid: index,
            sentid: first + i,
        })
        .collect();
    Ok(Entry {
        filepath: "images".into(),
        filename,
        imgid: index,
        split: split.name().into(),
        sentids: (first..first + CAPTIONS).collect(),
        sentences,
        scene: Some(scene),
    })
}

/// The scenes of a set, not yet placed.
fn choose(config: &ScenesConfig) -> Vec<(Split, Scene)> {
    let mut rng = stream(config.seed, 0, 0, Purpose::SceneChoice);
    let mut used = HashSet::new();
    let mut fresh = |rng: &mut _| loop {
        let scene = random_scene(config.three_objects, rng);
        if used.insert(scene.meaning()) {
            return scene;
        }
    };
    // Held-out scenes come first: they stay the same when the training set grows.
    let test: Vec<_> = (0..config.test)
        .map(|_| (Split::Test, fresh(&mut rng)))
        .collect();
    let validation: Vec<_> = (0..config.validation)
        .map(|_| (Split::Validation, fresh(&mut rng)))
        .collect();

    let repeated = (config.repeated * config.train as f64).round() as usize;
    let mut train = Vec::with_capacity(config.train);
    let mut times = [2, 3].into_iter().cycle();
    while train.len() < config.train {
        let copies = match repeated.saturating_sub(train.len()) {
            0 | 1 => 1,
            2 | 4 => 2,
            3 => 3,
            _ => times.next().expect("endless"),
        };
        let scene = fresh(&mut rng);
        train.extend(std::iter::repeat_n((Split::Train, scene), copies));
    }
    train.into_iter().chain(validation).chain(test).collect()
}

fn random_scene(three_objects: f64, rng: &mut impl Rng) -> Scene {
    let (count, layouts): (usize, &[Layout]) = if rng.random_bool(three_objects) {
        (
            3,
            &[
                Layout::Row,
                Layout::Column,
                Layout::PairBelow,
                Layout::PairAbove,
            ],
        )
    } else {
        (2, &[Layout::Row, Layout::Column])
    };
    let layout = layouts[rng.random_range(0..layouts.len())];
    let mut objects: Vec<Object> = Vec::with_capacity(count);
    while objects.len() < count {
        let object = Object {
            size: if rng.random() {
                Size::Small
            } else {
                Size::Large
            },
            colour: Colour::ALL[rng.random_range(0..Colour::ALL.len())],
            shape: Shape::ALL[rng.random_range(0..Shape::ALL.len())],
            centre: [0.5, 0.5],
            radius: 0.1,
        };
        if objects.iter().all(|other| other.kind() != object.kind()) {
            objects.push(object);
        }
    }
    Scene { layout, objects }
}

/// The same scene with new positions and extents, apart from each other and inside the image.
fn place(scene: &Scene, rng: &mut impl Rng) -> Scene {
    let line: &[f32] = if scene.objects.len() == 2 {
        &[0.28, 0.72]
    } else {
        &[0.18, 0.5, 0.82]
    };
    let aside = if scene.objects.len() == 2 { 0.12 } else { 0.06 };
    let shift = rng.random_range(-aside..aside);
    let centre = |index: usize| match (scene.layout, index) {
        (Layout::Row, _) => [line[index], 0.5 + shift],
        (Layout::Column, _) => [0.5 + shift, line[index]],
        (Layout::PairBelow, 2) => [0.5 + shift, 0.26],
        (Layout::PairAbove, 2) => [0.5 + shift, 0.74],
        (Layout::PairBelow, _) => [[0.27, 0.73][index], 0.74],
        (Layout::PairAbove, _) => [[0.27, 0.73][index], 0.26],
    };
    let objects = scene
        .objects
        .iter()
        .enumerate()
        .map(|(index, object)| Object {
            centre: centre(index)
                .map(|coordinate| round(coordinate + rng.random_range(-0.02..0.02))),
            radius: round(match object.size {
                Size::Small => rng.random_range(0.07..0.085),
                Size::Large => rng.random_range(0.125..0.14),
            }),
            ..object.clone()
        })
        .collect();
    Scene {
        layout: scene.layout,
        objects,
    }
}

/// Three decimals: exact in JSON and back.
fn round(value: f32) -> f32 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
