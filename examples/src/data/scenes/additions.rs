//! Questions and statements about the images of a set, in files beside its captions. They are made
//! from the attributes alone, so that no image is drawn for them, and a set that was made without
//! them gets them added.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::questions::{answers, questions};
use super::statements::{KINDS, two_statements};
use super::{Marker, Scene, ScenesConfig, choose, generate, write};
use crate::data::collection::Split;
use crate::data::random::{Purpose, stream};
use crate::data::{questions as question_files, statements as statement_files};
use crate::lock::Lock;

/// Changes whenever the same parameters give other questions or statements.
const VERSION: u32 = 2;
pub(super) const QUESTIONS: &str = "questions.json";
pub(super) const STATEMENTS: &str = "statements.json";
/// How often there are the statements of a held-out split for as many training images. Fewer are
/// learned by heart before they are understood.
const TRAINING: usize = 12;

/// The file, and from what it was made.
#[derive(Serialize)]
struct Made<'a, T> {
    made_by: &'a Marker,
    #[serde(flatten)]
    content: T,
}

#[derive(Deserialize)]
struct MadeBy {
    made_by: Marker,
}

#[derive(Serialize)]
struct QuestionList {
    answers: Vec<String>,
    questions: Vec<question_files::Row>,
}

#[derive(Serialize)]
struct StatementList {
    statements: Vec<statement_files::Row>,
}

/// Makes sure that the folder `dir` holds the set that `config` describes, with six questions about
/// each image in `questions.json`, one of each kind: `colour`, `shape`, `size`, `count`, `exists`
/// and `relation`. There are 20 answers.
///
/// If that is so already, nothing is done (answer: false). Questions about the held-out images are
/// the same whatever the size of the training set.
///
/// # Errors
///
/// As [`generate`], and if a `questions.json` is there that this program did not write.
pub fn generate_questions(dir: impl AsRef<Path>, config: &ScenesConfig) -> Result<bool> {
    add(dir.as_ref(), config, QUESTIONS, || QuestionList {
        answers: answers(),
        questions: question_rows(config),
    })
}

/// Makes sure that the folder `dir` holds the set that `config` describes, with statements about
/// two images of a split in `statements.json`: two for each image, 24 for each training image, half
/// of them true in each of the kinds `count`, `compare`, `exists` and `all`.
///
/// If that is so already, nothing is done (answer: false). Statements about the held-out images are
/// the same whatever the size of the training set.
///
/// # Errors
///
/// As [`generate`], and if a `statements.json` is there that this program did not write.
pub fn generate_statements(dir: impl AsRef<Path>, config: &ScenesConfig) -> Result<bool> {
    add(dir.as_ref(), config, STATEMENTS, || StatementList {
        statements: statement_rows(config),
    })
}

fn add<T: Serialize>(
    dir: &Path,
    config: &ScenesConfig,
    name: &str,
    content: impl FnOnce() -> T,
) -> Result<bool> {
    generate(dir, config)?;
    let made_by = Marker {
        version: VERSION,
        config: config.clone(),
    };
    let file = dir.join(name);
    // What is there needs no lock, and may be where nobody can write.
    if is_made(&file, &made_by)? {
        return Ok(false);
    }
    let _lock = Lock::wait(&dir.with_added_extension("lock"))?;
    if is_made(&file, &made_by)? {
        return Ok(false);
    }
    let made = Made {
        made_by: &made_by,
        content: content(),
    };
    write(&file, &serde_json::to_vec(&made)?)?;
    Ok(true)
}

/// Whether `file` was made as `wanted` says; fails if it was not made by this module.
fn is_made(file: &Path, wanted: &Marker) -> Result<bool> {
    let text = match fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        read => read.with_context(|| format!("cannot read {}", file.display()))?,
    };
    match serde_json::from_slice::<MadeBy>(&text) {
        Ok(found) => Ok(found.made_by == *wanted),
        Err(_) => bail!(
            "{} was not written by this program; move it to another folder",
            file.display()
        ),
    }
}

/// The scenes of each split, with the indices of their images.
fn by_split(scenes: &[(Split, Scene)]) -> [(Split, Vec<(usize, &Scene)>); 3] {
    Split::ALL.map(|split| {
        let scenes = scenes.iter().enumerate();
        let own = scenes.filter(|(_, (other, _))| *other == split);
        (
            split,
            own.map(|(index, (_, scene))| (index, scene)).collect(),
        )
    })
}

fn image(index: usize) -> String {
    format!("images/{index:06}.png")
}

fn question_rows(config: &ScenesConfig) -> Vec<question_files::Row> {
    let scenes = choose(config);
    let of_split = |(split, scenes): (Split, Vec<(usize, &Scene)>)| {
        let scenes = scenes.into_par_iter().enumerate();
        let rows = scenes.flat_map_iter(move |(position, (index, scene))| {
            // The position in its split: the training set does not count.
            let key = position as u64;
            let mut rng = stream(config.seed, split as u64, key, Purpose::SceneQuestions);
            let asked = questions(scene, &mut rng).into_iter();
            asked.map(move |asked| question_files::Row {
                image: image(index),
                question: asked.question,
                answer: Some(asked.answer),
                answers: Default::default(),
                kind: asked.kind.into(),
                split: split.name().into(),
            })
        });
        rows.collect::<Vec<_>>()
    };
    by_split(&scenes).into_iter().flat_map(of_split).collect()
}

fn statement_rows(config: &ScenesConfig) -> Vec<statement_files::Row> {
    let scenes = choose(config);
    let of_split = |(split, scenes): (Split, Vec<(usize, &Scene)>)| {
        let own: Vec<&Scene> = scenes.iter().map(|&(_, scene)| scene).collect();
        // Two statements of each kind for every four images, as often as the split wants.
        let times = if split == Split::Train { TRAINING } else { 1 };
        let blocks = if own.len() < 2 {
            0
        } else {
            (own.len() / 4).max(1) * times
        };
        let draws = (0..blocks * KINDS.len()).into_par_iter();
        let stated = draws.flat_map_iter(|draw| {
            let kind = KINDS[draw % KINDS.len()];
            let key = draw as u64;
            let mut rng = stream(config.seed, split as u64, key, Purpose::SceneStatements);
            let two = two_statements(kind, &own, &mut rng);
            two.into_iter().flatten()
        });
        let rows = stated.map(|stated| statement_files::Row {
            images: stated.images.map(|position| image(scenes[position].0)),
            text: stated.text,
            label: stated.label,
            kind: stated.kind.into(),
            split: split.name().into(),
        });
        rows.collect::<Vec<_>>()
    };
    by_split(&scenes).into_iter().flat_map(of_split).collect()
}

#[cfg(test)]
mod tests;
