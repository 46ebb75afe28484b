//! Zero-shot classification: how often a model names the class of an image that it was not trained
//! to classify.
//!
//! What is written for programs, with scores in percent:
//!
//! | key | value |
//! |---|---|
//! | `schema` | version of this layout: [`ZeroShotReport::SCHEMA`] |
//! | `sources.{weights, classes, data, split}` | paths as they were given; `split` may be `null` |
//! | `sources.{left_out, prompts, cut[]}` | bad rows; number of captions; those that were cut |
//! | `images`, `k` | number of images; how many classes `top_k` counts |
//! | `all.{top_1, top_k}`, `chance.{top_1, top_k}` | of all images; of guessing |
//! | `mean_of_classes` | mean of `top_1` over the classes that have images |
//! | `classes[].{name, images}` | each class, and how many images it has |
//! | … `.scores.{top_1, top_k}` | of its images; `null` without any |
//! | `confusion[].{class, taken_for, count}` | images of a class that were taken for which |
//! | `examples[].{image, class, is_right}` | some images, wrong ones first |
//! | … `.nearest[]` | pairs of a class and its cosine, the nearest first |

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::{html, lossy};
use crate::files;
use crate::number::{self, counted, grouped, score};
use crate::words::{list, shown};

/// The classes that are shown with the answers, and what the second score counts, if there are so
/// many.
const FEW: usize = 5;
/// Examples of wrong answers, and of right ones, at most.
const EXAMPLES: [usize; 2] = [12, 6];

/// An image with the classes that its model finds nearest to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Classified {
    /// The file.
    pub image: PathBuf,
    /// Its class.
    pub class: usize,
    /// The nearest classes with their cosines, the nearest first: [`ZeroShotReport::listed`] of
    /// them. Those that are equally near have the same cosine.
    pub nearest: Vec<(usize, f64)>,
}

impl Classified {
    /// The place of its class among all, from 1. Of equally near classes the others come first. It
    /// is exact as far as the nearest classes are listed.
    fn rank(&self) -> usize {
        let own = self.nearest.iter().find(|(class, _)| *class == self.class);
        let own = own.map_or(f64::NEG_INFINITY, |(_, cosine)| *cosine);
        let others = self
            .nearest
            .iter()
            .filter(|(class, _)| *class != self.class);
        1 + others.filter(|(_, cosine)| *cosine >= own).count()
    }

    /// The class that it is taken for.
    fn taken_for(&self) -> usize {
        let mut classes = self.nearest.iter().map(|(class, _)| *class);
        let is_right = self.rank() == 1;
        let answer = classes.find(|class| is_right || *class != self.class);
        answer.unwrap_or(self.class)
    }
}

/// What was classified, and by what.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ZeroShotSources {
    /// The file of weights, or the folder of a run.
    pub weights: String,
    /// The file of classes and templates.
    pub classes: String,
    /// The images.
    pub data: String,
    /// Their split, or all.
    pub split: Option<String>,
    /// Rows and images that were left out as bad.
    pub left_out: u64,
    /// Captions that speak of the classes.
    pub prompts: u64,
    /// Those of them that did not fit the context, and were cut.
    pub cut: Vec<String>,
}

/// The results of zero-shot classification. All scores are in percent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ZeroShotReport {
    /// Version of this layout.
    pub schema: u32,
    /// What was classified, and by what.
    pub sources: ZeroShotSources,
    /// Number of images.
    pub images: u64,
    /// How many classes `top_k` counts.
    pub k: u64,
    /// Scores of all images.
    pub all: ClassScores,
    /// Scores of guessing.
    pub chance: ClassScores,
    /// The mean of `top_1` over the classes that have images.
    #[serde(with = "number::or_null")]
    pub mean_of_classes: f64,
    /// Each class, in the order of the file.
    pub classes: Vec<ClassResult>,
    /// How many images of a class were taken for which, where there are any; also for the right
    /// one. By class, then by what it was taken for.
    pub confusion: Vec<Confusion>,
    /// Some images, wrong answers first.
    pub examples: Vec<ZeroShotExample>,
}

/// How often the right class is the nearest one, or one of the nearest, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassScores {
    /// The nearest.
    #[serde(with = "number::or_null")]
    pub top_1: f64,
    /// One of the `k` nearest.
    #[serde(with = "number::or_null")]
    pub top_k: f64,
}

/// The results of the images of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassResult {
    /// Its name.
    pub name: String,
    /// How many there are.
    pub images: u64,
    /// Their scores, `null` without an image.
    pub scores: ClassScores,
}

/// A cell of the confusion matrix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confusion {
    /// The class of the images.
    pub class: String,
    /// The class that was nearest to them.
    pub taken_for: String,
    /// How many there are.
    pub count: u64,
}

/// An image with what it was taken for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ZeroShotExample {
    /// The file.
    #[serde(serialize_with = "lossy::path")]
    pub image: PathBuf,
    /// Its class.
    pub class: String,
    /// The nearest classes with their cosines, the nearest first.
    pub nearest: Vec<(String, f64)>,
    /// Whether it was taken for what it is.
    pub is_right: bool,
}

impl ZeroShotReport {
    /// Version of the layout of `metrics.json`.
    pub const SCHEMA: u32 = 1;

    /// How many classes are to be listed as nearest to an image, where there are so many in all.
    pub fn listed(classes: usize) -> usize {
        // One more than are counted tells whether others are as near as the last.
        classes.min(FEW + 1)
    }

    /// The results of images, of classes with these names.
    ///
    /// # Panics
    ///
    /// If there is no image.
    pub fn new(sources: ZeroShotSources, names: &[String], images: &[Classified]) -> Self {
        assert!(!images.is_empty(), "there is no image");
        let k = names.len().min(FEW);
        let of = |class: usize| images.iter().filter(move |image| image.class == class);
        let classes = names.iter().enumerate().map(|(class, name)| ClassResult {
            name: name.clone(),
            images: of(class).count() as u64,
            scores: ClassScores::of(of(class), k),
        });
        let classes: Vec<_> = classes.collect();
        let seen = classes.iter().filter(|class| class.images > 0);
        let sum: f64 = seen.clone().map(|class| class.scores.top_1).sum();
        let count = names.len() as f64;
        let mut cells = BTreeMap::<(usize, usize), u64>::new();
        for image in images {
            *cells.entry((image.class, image.taken_for())).or_default() += 1;
        }
        let examples = examples(images, &cells);
        let name = |class: usize| names[class].clone();
        Self {
            schema: Self::SCHEMA,
            sources,
            images: images.len() as u64,
            k: k as u64,
            all: ClassScores::of(images.iter(), k),
            chance: ClassScores {
                top_1: 100.0 / count,
                top_k: 100.0 * k as f64 / count,
            },
            mean_of_classes: sum / seen.count() as f64,
            confusion: cells
                .iter()
                .map(|(&(class, taken_for), &count)| Confusion {
                    class: name(class),
                    taken_for: name(taken_for),
                    count,
                })
                .collect(),
            examples: examples
                .into_iter()
                .map(|image| ZeroShotExample::of(image, names, k))
                .collect(),
            classes,
        }
    }

    /// Classes without an image.
    pub fn absent(&self) -> Vec<String> {
        let absent = self.classes.iter().filter(|class| class.images == 0);
        absent.map(|class| class.name.clone()).collect()
    }

    /// What is wrong, the most frequent first.
    pub fn confused(&self) -> Vec<&Confusion> {
        let wrong = self.confusion.iter();
        let mut wrong: Vec<_> = wrong.filter(|cell| cell.class != cell.taken_for).collect();
        // Equal ones stay in their order.
        wrong.sort_by_key(|cell| std::cmp::Reverse(cell.count));
        wrong
    }

    /// Writes the page and, if asked for, the metrics: both or, where one cannot be written, none.
    ///
    /// # Errors
    ///
    /// If one cannot be written.
    pub fn write(&self, page: &Path, metrics: Option<&Path>) -> Result<()> {
        let mut files = vec![files::Partial::create(page)?];
        files[0].write(self.to_html().as_bytes())?;
        if let Some(metrics) = metrics {
            let mut file = files::Partial::create(metrics)?;
            let mut json = serde_json::to_vec_pretty(self)?;
            json.push(b'\n');
            file.write(&json)?;
            files.push(file);
        }
        files::commit(files)
    }

    /// A self-contained page.
    pub fn to_html(&self) -> String {
        html::zero_shot(self)
    }
}

/// The results for a terminal.
impl fmt::Display for ZeroShotReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (images, classes) = (counted(self.images, "image"), self.classes.len());
        writeln!(f, "{images} of {classes} classes")?;
        let line = |name: &str, value, chance| {
            format!("{name:<19}{:>6} %   chance {}", score(value), score(chance))
        };
        let Self { all, chance, .. } = self;
        writeln!(f, "{}", line("top-1", all.top_1, chance.top_1))?;
        let top_k = format!("top-{}", self.k);
        writeln!(f, "{}", line(&top_k, all.top_k, chance.top_k))?;
        let name = "top-1, by class";
        write!(f, "{}", line(name, self.mean_of_classes, chance.top_1))?;
        let absent = self.absent();
        if !absent.is_empty() {
            write!(f, "\nwithout an image: {}", list(&absent))?;
        }
        for cell in self.confused().into_iter().take(FEW) {
            let [class, taken_for] = [&cell.class, &cell.taken_for].map(|name| shown(name));
            write!(
                f,
                "\n{class} taken for {taken_for}: {}",
                grouped(cell.count)
            )?;
        }
        Ok(())
    }
}

impl ZeroShotExample {
    fn of(image: &Classified, names: &[String], k: usize) -> Self {
        let nearest = image.nearest.iter().take(k);
        Self {
            image: image.image.clone(),
            class: names[image.class].clone(),
            nearest: nearest
                .map(|&(class, cosine)| (names[class].clone(), cosine))
                .collect(),
            is_right: image.rank() == 1,
        }
    }
}

impl ClassScores {
    fn of<'a>(images: impl Iterator<Item = &'a Classified>, k: usize) -> Self {
        let ranks: Vec<usize> = images.map(Classified::rank).collect();
        let within = |k: usize| {
            let found = ranks.iter().filter(|&&rank| rank <= k).count();
            100.0 * found as f64 / ranks.len() as f64
        };
        Self {
            top_1: within(1),
            top_k: within(k),
        }
    }
}

/// The first image of each of the most frequent confusions, then that of each class whose first
/// right answer comes early.
fn examples<'a>(
    images: &'a [Classified],
    cells: &BTreeMap<(usize, usize), u64>,
) -> Vec<&'a Classified> {
    let mut by_count: Vec<_> = cells.iter().collect();
    by_count.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let first = |cell: (usize, usize)| {
        let is_one = |image: &&Classified| (image.class, image.taken_for()) == cell;
        images.iter().find(is_one)
    };
    let cells = by_count.into_iter().map(|(cell, _)| *cell);
    let (right, wrong): (Vec<_>, Vec<_>) = cells.partition(|(class, taken)| class == taken);
    let shown = wrong.into_iter().take(EXAMPLES[0]);
    let shown = shown.chain(right.into_iter().take(EXAMPLES[1]));
    shown.filter_map(first).collect()
}

#[cfg(test)]
mod tests;
