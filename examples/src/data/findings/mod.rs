//! *Findings*: generated studies of grey-scale images, with reports, whose findings are known
//! exactly.
//!
//! An image shows the outline of a chest, from the front or from the side. A study has one or two
//! of them, and at most three of eight findings, which every image of it shows. Its report has
//! sentences on these findings, in words that differ, and others that say nothing about them, as
//! real reports have. So two studies of a batch often match each other's sentences without being a
//! pair. Nothing here is medical: shapes are drawn that can be told apart.
//!
//! ```text
//! findings.json        the parameters, written first
//! images/000000-0.png …
//! retrieval.json       queries and candidates by class
//! studies.json         the studies, written last: a set without it is unfinished
//! ```
//!
//! [`Studies`](super::Studies) and [`ClassRetrieval`](super::ClassRetrieval) read them.

mod draw;
mod words;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use image::GrayImage;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::collection::Split;
use super::generated::{Generated, write};
use super::random::{Purpose, stream};
use super::studies::{ImageRow, RETRIEVAL, Row, STUDIES, SentenceRow};
use draw::{Anatomy, Form, View};

/// Changes whenever the same parameters give other images or sentences.
const VERSION: u32 = 1;
const MARKER: &str = "findings.json";

/// What a study may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Finding {
    /// The heart is wide.
    EnlargedHeart,
    /// The bottom of a lung is bright, up to a level.
    Effusion,
    /// The outer part of a lung is black.
    Pneumothorax,
    /// A bright, soft patch in a lung.
    Consolidation,
    /// Both lungs are hazy around the middle.
    Edema,
    /// A small, sharp, bright disc in a lung.
    Nodule,
    /// A bright box below a shoulder, with a wire to the heart.
    Device,
    /// The spine bends to a side.
    CurvedSpine,
}

impl Finding {
    /// All of them, in the order of the classes.
    pub const ALL: [Self; 8] = [
        Self::EnlargedHeart,
        Self::Effusion,
        Self::Pneumothorax,
        Self::Consolidation,
        Self::Edema,
        Self::Nodule,
        Self::Device,
        Self::CurvedSpine,
    ];

    /// The name of its class.
    pub fn name(self) -> &'static str {
        match self {
            Self::EnlargedHeart => "enlarged heart",
            Self::Effusion => "effusion",
            Self::Pneumothorax => "pneumothorax",
            Self::Consolidation => "consolidation",
            Self::Edema => "edema",
            Self::Nodule => "nodule",
            Self::Device => "device",
            Self::CurvedSpine => "curved spine",
        }
    }
}

/// What a set of studies holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FindingsConfig {
    /// Studies to learn from.
    pub train: usize,
    /// Studies to choose settings by.
    pub validation: usize,
    /// Studies to report on.
    pub test: usize,
    /// Width and height of the images, in pixels.
    pub image_size: u32,
    /// Share of the sentences that speak of a finding of their study, where it has one. Every
    /// finding has one sentence at least.
    pub specific: f64,
    /// Deviation of the pixels' noise, as a share of white.
    pub noise: f64,
    /// Query images of each class, 10 in the CheXpert 8×200 retrieval set.
    pub query_images: usize,
    /// Query sentences of each class, 5 in the CheXpert 8×200 retrieval set.
    pub query_sentences: usize,
    /// Candidate images of each class, 200 in the CheXpert 8×200 retrieval set.
    pub candidates: usize,
    /// Decides everything drawn at random.
    pub seed: u64,
}

impl Default for FindingsConfig {
    fn default() -> Self {
        Self {
            train: 4_000,
            validation: 200,
            test: 300,
            image_size: 64,
            specific: 0.6,
            noise: 0.08,
            query_images: 10,
            query_sentences: 5,
            candidates: 100,
            seed: 0,
        }
    }
}

impl FindingsConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// Names the field that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.train > 0,
            "train is 0; the set needs studies to learn from"
        );
        let studies = [self.train, self.validation, self.test];
        let of_class = [self.query_images, self.query_sentences, self.candidates];
        for (names, counts) in [
            ("train, validation and test", studies),
            (
                "query_images, query_sentences and candidates (of each class)",
                of_class,
            ),
        ] {
            let sum = counts.into_iter().try_fold(0, usize::checked_add);
            if sum.is_none_or(|sum| sum > 1_000_000) {
                bail!("{names} are {counts:?}; together at most 1,000,000");
            }
        }
        for (name, count) in [
            ("query_images", self.query_images),
            ("query_sentences", self.query_sentences),
            ("candidates", self.candidates),
        ] {
            ensure!(count > 0, "{name} is 0; it must be at least 1");
        }
        ensure!(
            (32..=1024).contains(&self.image_size),
            "image_size is {}; it must lie in 32..=1024",
            self.image_size
        );
        for (name, share) in [("specific", self.specific), ("noise", self.noise)] {
            ensure!(
                (0.0..=1.0).contains(&share),
                "{name} is {share}; it must lie in 0..=1"
            );
        }
        Ok(())
    }
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Marker {
    version: u32,
    config: FindingsConfig,
}

#[derive(Serialize)]
struct StudyList {
    classes: Vec<&'static str>,
    studies: Vec<Row>,
}

#[derive(Serialize)]
struct RetrievalList {
    classes: Vec<&'static str>,
    query_images: Vec<ImageRow>,
    query_sentences: Vec<SentenceRow>,
    candidates: Vec<ImageRow>,
}

/// What a study shows: of the forms of all findings, those of the findings that are there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Patient {
    present: Vec<Finding>,
    forms: [Form; Finding::ALL.len()],
    anatomy: Anatomy,
}

impl Patient {
    /// With these findings; forms are drawn of all, so that the presence of one changes no other.
    fn random(present: Vec<Finding>, rng: &mut impl Rng) -> Self {
        Self {
            present,
            forms: std::array::from_fn(|_| Form::random(rng)),
            anatomy: Anatomy::random(rng),
        }
    }

    /// The form of a finding that is there.
    fn form(&self, finding: Finding) -> Option<Form> {
        let place = Finding::ALL.iter().position(|&one| one == finding)?;
        self.present.contains(&finding).then_some(self.forms[place])
    }
}

/// Makes sure that the folder `dir` holds the studies that `config` describes.
///
/// A finished set with the same parameters is left as it is (answer: false). A set with other
/// parameters is replaced; an interrupted one is finished. Files appear under their names only when
/// complete, and a program that finds another one making the set waits for it (`dir.lock`). The
/// held-out studies, queries and candidates are the same whatever the number of training studies.
///
/// # Errors
///
/// If `config` is out of range, if `dir` holds something else, or if it cannot be written.
pub fn generate(dir: impl AsRef<Path>, config: &FindingsConfig) -> Result<bool> {
    let dir = dir.as_ref();
    config.check().context("cannot generate studies")?;
    let marker = Marker {
        version: VERSION,
        config: config.clone(),
    };
    let folder = Generated {
        noun: "studies",
        marker: MARKER,
        listing: STUDIES,
        others: &[RETRIEVAL],
    };
    folder.ensure(dir, &marker, || {
        let retrieval = retrieval(dir, config)?;
        write(&dir.join(RETRIEVAL), &serde_json::to_vec(&retrieval)?)?;
        let studies = [config.train, config.validation, config.test];
        let all = Split::ALL.into_iter().zip(studies);
        let all = all.flat_map(|(split, count)| (0..count).map(move |index| (split, index)));
        let studies = StudyList {
            classes: classes(),
            studies: all
                .collect::<Vec<_>>()
                .into_par_iter()
                .map(|(split, index)| study(dir, config, split, index))
                .collect::<Result<Vec<_>>>()?,
        };
        write(&dir.join(STUDIES), &serde_json::to_vec(&studies)?)
    })
}

fn classes() -> Vec<&'static str> {
    Finding::ALL.map(Finding::name).to_vec()
}

/// What draws the study, or the image, `index` of a group.
fn patient(
    config: &FindingsConfig,
    group: u64,
    index: usize,
    present: impl FnOnce(&mut rand_chacha::ChaCha8Rng) -> Vec<Finding>,
) -> (Patient, rand_chacha::ChaCha8Rng) {
    let mut rng = stream(config.seed, group, index as u64, Purpose::Findings);
    let present = present(&mut rng);
    (Patient::random(present, &mut rng), rng)
}

/// No finding, or up to three.
fn some_findings(rng: &mut impl Rng) -> Vec<Finding> {
    let count = match rng.random_range(0..20) {
        0..3 => 0,
        3..13 => 1,
        13..18 => 2,
        _ => 3,
    };
    let mut all = Finding::ALL;
    all.shuffle(rng);
    all[..count].to_vec()
}

/// Draws and words a study: 1.7 images and 6 sentences on average, as in MIMIC-CXR.
fn study(dir: &Path, config: &FindingsConfig, split: Split, index: usize) -> Result<Row> {
    let group = split as u64;
    let (patient, mut rng) = patient(config, group, index, some_findings);
    let mut views = vec![View::Frontal];
    if rng.random_bool(0.7) {
        views.push(if rng.random_bool(0.7) {
            View::Lateral
        } else {
            View::Frontal
        });
    }
    let sentences = rng.random_range(4..=8);
    let sentences = words::report(&patient, sentences, config.specific, &mut rng);
    let views = views.into_iter().enumerate();
    let images = views.map(|(number, view)| {
        let name = format!("images/{}-{index:06}-{number}.png", split.name());
        let key = (group << 8) + number as u64;
        picture(dir, config, &name, &patient, view, [key, index as u64])?;
        Ok(name)
    });
    let of = |finding: Finding| (finding.name().to_owned(), Some(true));
    Ok(Row {
        images: images.collect::<Result<_>>()?,
        sentences,
        labels: Some(patient.present.iter().copied().map(of).collect()),
        split: split.name().into(),
    })
}

/// Queries and candidates, each of one finding alone.
fn retrieval(dir: &Path, config: &FindingsConfig) -> Result<RetrievalList> {
    let images = |group: u64, name: &'static str, count: usize| {
        let all = (0..count * Finding::ALL.len()).into_par_iter();
        let image = move |index: usize| {
            let finding = Finding::ALL[index / count];
            let (patient, mut rng) = patient(config, group, index, |_| vec![finding]);
            let view = if rng.random_bool(0.6) {
                View::Frontal
            } else {
                View::Lateral
            };
            let file = format!("images/{name}-{index:06}.png");
            picture(
                dir,
                config,
                &file,
                &patient,
                view,
                [group << 8, index as u64],
            )?;
            Ok(ImageRow {
                image: file,
                class: finding.name().into(),
            })
        };
        all.map(image).collect::<Result<Vec<_>>>()
    };
    let sentences = 0..config.query_sentences * Finding::ALL.len();
    let sentence = |index: usize| {
        let finding = Finding::ALL[index / config.query_sentences];
        let (patient, mut rng) = patient(config, 12, index, |_| vec![finding]);
        let form = patient.form(finding).expect("it is there");
        SentenceRow {
            sentence: words::describe(finding, form, &mut rng),
            class: finding.name().into(),
        }
    };
    Ok(RetrievalList {
        classes: classes(),
        query_images: images(10, "query", config.query_images)?,
        candidates: images(11, "candidate", config.candidates)?,
        query_sentences: sentences.map(sentence).collect(),
    })
}

/// Draws an image, unless it is there from an interrupted generation.
fn picture(
    dir: &Path,
    config: &FindingsConfig,
    name: &str,
    patient: &Patient,
    view: View,
    [group, index]: [u64; 2],
) -> Result<()> {
    let file = dir.join(name);
    if file.is_file() {
        return Ok(());
    }
    let mut rng = stream(config.seed, group, index, Purpose::FindingsNoise);
    let image = draw::image(patient, view, config.image_size, config.noise, &mut rng);
    let mut png = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    GrayImage::write_with_encoder(&image, encoder)
        .with_context(|| format!("cannot encode {}", file.display()))?;
    write(&file, &png)
}

#[cfg(test)]
mod tests;
