//! Statistics of embeddings and the values of objectives on them: the program `audit`.
//!
//! # The embeddings
//! A safetensors file. Row `i` of `image` and row `i` of `text` are a pair; floats are f16, bf16,
//! f32 or f64, and finite.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `image`, `text` | `[N, D]` | the embeddings, of any norm |
//! | `teacher_image`, `teacher_text` | `[N, E]` | a teacher's embeddings of the same pairs |
//! | `momentum_image`, `momentum_text` | `[N, D]` | a momentum encoder's embeddings of the pairs |
//! | `queue_image`, `queue_text` | `[K, D]`, `[M, D]` | embeddings of earlier batches |
//! | `queue_teacher_image`, `queue_teacher_text` | `[K, E]`, `[M, E]` | the teacher's of these |
//! | `queue_image_label`, `queue_text_label` | `[K]`, `[M]`, integers | their classes |
//! | `noise` | `[Z, D]` | noise, negatives of every anchor of `info-cmr` |
//! | `hard_image`, `hard_text` | `[N, m, D]` | hard negatives of each caption, and of each image |
//! | `image_id` | `[N]`, integers | the image of each caption: equal ids mean the same image |
//! | `label` | `[N]`, integers | classes |
//!
//! Where an objective reads momentum features and there are none, it reads the teacher's.
//! Everything is computed in f64 where `image` or `text` is f64 (on backends that have it: not
//! wgpu, Vulkan and Metal), else in f32.
//!
//! An image with several captions may be in `image` once for each, row `i` being the image of
//! caption `i`, with the same `image_id` every time; or only once: then `image` has fewer rows than
//! `text`, and `image_id` holds the row of each caption's image (`teacher_image` may have fewer
//! rows as well). For retrieval and the statistics of similarities each image counts once (by its
//! first row), with all its captions as its positives. Objectives get a pair for each caption.
//!
//! # The results
//! | key of `--json` | value |
//! |---|---|
//! | `embeddings.{file, pairs, images, width, tensors[].{name, dtype, shape}}` | the input |
//! | `device`, `evaluation` | how it was computed |
//! | `objectives.NAME.objective` | the objective, with all its parameters |
//! | `objectives.NAME.loss` | its value, in the objective's own reduction |
//! | `objectives.NAME.seconds` | median time of forward and backward |
//! | `objectives.NAME.peak_bytes` | peak memory of forward and backward, or `null` |
//! | `objectives.NAME.gradient_norm.{image, text}` | l2 norms of the gradients |
//! | `objectives.NAME.removed.{image_to_text, text_to_image}` | share, of false-negative removal |
//! | `retrieval.{i2t_r1, i2t_r5, i2t_r10, t2i_r1, t2i_r5, t2i_r10}` | recall in percent |
//! | `retrieval.rsum` | their sum |
//! | `precision.{i2t, t2i}.K` | precision in percent for K of 1, 5, 10, or `null` without labels |
//! | `similarity.{positive_mean, positive_deviation}` | of the cosines of the pairs |
//! | `similarity.{negative_mean, negative_deviation}` | of all other cosines |
//! | `similarity.overlap` | overlap of their two histograms, from 0 to 1 |
//! | `similarity.histogram.{edges, positive, negative}` | counts in these histograms |
//! | `alignment` | `E ‖u − v‖²` over the pairs, u and v normalised |
//! | `uniformity` | `log E e^{−2‖u − v‖²}` over all image–text pairs |
//! | `modality_gap` | `‖E u − E v‖` |
//! | `weights` | SRCL's weights of the negatives (below), or `null` for a single pair |
//!
//! A float that is not finite is `null`.
//!
//! - **Seconds** are the median of 3 to 9 evaluations, after one to warm up. **Peak bytes** are the
//!   largest heap during them, less what was allocated before; on a GPU, the growth of the device's
//!   memory pools; `null` if neither is known.
//! - **Precision** is the percentage of the K nearest that have the query's label.
//! - **Overlap** is `Σ min(p, q)` of the normalised histograms, in 200 equal bins over [−1, 1].
//! - **Weights** are `w_ij = (1/s_ij) / mean_{j≠i} (1/s_ij)`, where
//!   `s_ij = α·e^{ĉ_ij/τ} + (1 − α)·e^{c_ij/τ}`. `weights.alpha` and `weights.weight_temperature`
//!   (τ) are those of the first `srcl` among the objectives, else α is 1 with a teacher and 0
//!   without, and τ is 1. `weights.histogram.{edges, image_to_text, text_to_image}` counts all
//!   negatives. `weights.information` is `E log(1/w)` of either direction, the estimated mutual
//!   information of negatives in nats. `weights.pairs` are the 20 negatives with the smallest
//!   weights (means of both directions), which are likely to be matches in truth, each with the
//!   rows `image` and `text`, `similarity`, `teacher_similarity`, and its weights `image_to_text`
//!   and `text_to_image`. Captions of the same image are no negatives.
//!
//! `--gradients` writes `NAME.image` and `NAME.text`, f32, in the shapes of `image` and `text`: the
//! gradients of the loss with respect to the embeddings in the file, before normalisation.
//!
//! Everything is computed in blocks: memory is `O(N·D)` beside each objective's own budget, 1 GiB
//! (`--evaluation streaming` keeps nothing, `dense` is the reference, with several `N×N` matrices).

mod gradients;
pub mod heap;
pub mod measure;
pub mod objectives;
mod page;
pub mod statistics;
pub mod tensors;
pub mod weights;

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Tensor};
use burn_contrastive::analysis::WeighedPair;
use burn_contrastive::objective::{AnyConfig, Features, ObjectiveConfig};
use burn_contrastive::pairwise::Evaluation;
use burn_contrastive::weighting::SimilarityRegulation;
use serde_json::{Map, Value, json};

use crate::files::{self, Partial};
use crate::training::device::computes_f64;
use gradients::GradientFile;
use measure::{Measured, Named, check, measure};
use statistics::{Precision, Statistics};
use tensors::{Embeddings, Found};
use weights::Weights;

/// What to do.
pub struct Options {
    /// The embeddings.
    pub embeddings: PathBuf,
    /// The objectives; `None` for all that the file has inputs for.
    pub objectives: Option<PathBuf>,
    /// Where to compute, without autodiff.
    pub device: Device,
    /// Its name.
    pub device_name: String,
    /// How objectives evaluate similarities.
    pub evaluation: Evaluation,
    /// Where to write the results for programs.
    pub json: Option<PathBuf>,
    /// Where to write the gradients.
    pub gradients: Option<PathBuf>,
    /// Where to write the page for people.
    pub report: Option<PathBuf>,
}

/// Everything that was found.
pub struct Findings {
    /// The file's name.
    pub file: String,
    /// What it holds.
    pub found: Vec<Found>,
    /// Number of pairs and width of the embeddings.
    pub shape: [usize; 2],
    /// The device's name.
    pub device: String,
    /// How objectives evaluated similarities.
    pub evaluation: Evaluation,
    /// Each objective, in the order of the list.
    pub objectives: Vec<Finding>,
    /// What the embeddings are like.
    pub statistics: Statistics,
    /// The weights of the negatives.
    pub weights: Option<Weights>,
}

/// What was found of an objective.
pub struct Finding {
    /// Its name in the list.
    pub name: String,
    /// What it is.
    pub config: ObjectiveConfig,
    /// Its value.
    pub loss: f64,
    /// Median time of an evaluation.
    pub seconds: f64,
    /// The most memory an evaluation took.
    pub peak_bytes: Option<u64>,
    /// l2 norms of the gradients by image and text.
    pub gradient_norms: [f64; 2],
    /// Of false-negative removal, the share of the negatives of images and of captions it removes.
    pub removed: Option<[f64; 2]>,
}

/// Reads, evaluates, and writes the requested files, all of them or none. `progress` is called with
/// a line about each step.
///
/// # Errors
///
/// If a file is wrong or two of them do not fit together, before anything is evaluated; and if a
/// file cannot be written.
pub fn audit(options: &Options, mut progress: impl FnMut(&str)) -> Result<Findings> {
    check_paths(options)?;
    let listed = options.objectives.as_deref().map(objectives::read);
    let listed = listed.transpose().context("--objectives")?;
    let f64 = computes_f64(&options.device_name);
    let embeddings = Embeddings::read(&options.embeddings, &options.device, f64);
    let embeddings = embeddings.context("--embeddings")?;
    embeddings.unknown.iter().for_each(|note| progress(note));
    let features = &embeddings.features;
    let mut objectives = listed.unwrap_or_else(|| objectives::all_possible(features));
    for objective in &mut objectives {
        let config = objective.config.clone();
        objective.config = config.with_evaluation(options.evaluation);
        check(objective, features)?;
    }
    let shape = features.text.dims();
    // A file that cannot be written is an error before hours of computing.
    let create = |path: &Option<PathBuf>| path.as_deref().map(Partial::create).transpose();
    let (mut json, mut report) = (create(&options.json)?, create(&options.report)?);
    let names = objectives.iter().map(|objective| &*objective.name);
    let gradients = options.gradients.as_deref();
    let gradients =
        gradients.map(|path| GradientFile::create(path, names, [embeddings.image.dims(), shape]));
    let mut gradients = gradients.transpose()?;

    progress("retrieval, similarities and geometry");
    let statistics = Statistics::of(&embeddings);
    progress("weights of the negatives");
    let image_ids = embeddings.image_ids.as_deref();
    let weights = Weights::of(features, image_ids, regulation(&objectives, features));
    let mut found = Vec::new();
    for objective in objectives {
        progress(&objective.name);
        let measured = measure(&objective, &embeddings)?;
        let removed = removed(&objective.config, features, image_ids);
        if let Some(warning) = removal_warning(&objective.name, removed) {
            progress(&warning);
        }
        found.push(Finding::new(objective, removed, &measured));
        if let Some(file) = &mut gradients {
            file.append(measured.gradients)?;
        }
    }
    let findings = Findings {
        file: options.embeddings.display().to_string(),
        found: embeddings.found,
        shape,
        device: options.device_name.clone(),
        evaluation: options.evaluation,
        objectives: found,
        statistics,
        weights,
    };
    if let Some(file) = &mut json {
        file.write(format!("{:#}\n", findings.to_json()).as_bytes())?;
    }
    if let Some(file) = &mut report {
        file.write(page::page(&findings).as_bytes())?;
    }
    let gradients = gradients.map(GradientFile::finish);
    files::commit([json, gradients, report].into_iter().flatten())?;
    Ok(findings)
}

/// Checks that no file to write is an input, another output or a folder.
fn check_paths(options: &Options) -> Result<()> {
    let outputs = [&options.json, &options.gradients, &options.report];
    let paths: Vec<_> = outputs.into_iter().flatten().collect();
    let inputs = [Some(&options.embeddings), options.objectives.as_ref()];
    for (k, path) in paths.iter().enumerate() {
        ensure!(
            !paths[..k].contains(path) && !inputs.contains(&Some(*path)),
            "{} is named twice: every file needs a path of its own",
            path.display()
        );
        ensure!(
            !path.is_dir(),
            "{} is a folder: a file cannot take its place",
            path.display()
        );
    }
    Ok(())
}

/// How the weights are computed: as in the first `srcl` of the list, else by the teacher alone if
/// there is one, else by the embeddings alone.
fn regulation(objectives: &[Named], features: &Features) -> SimilarityRegulation {
    let of_srcl = objectives.iter().find_map(|one| match &one.config.kind {
        AnyConfig::Srcl(srcl) => Some(srcl.regulation),
        _ => None,
    });
    let teacher = features.teacher_image.is_some() && features.teacher_text.is_some();
    let alpha = if teacher { 1.0 } else { 0.0 };
    of_srcl.unwrap_or(SimilarityRegulation::new().with_alpha(alpha))
}

/// What to say where false-negative removal removes next to nothing.
fn removal_warning(name: &str, removed: Option<[f64; 2]>) -> Option<String> {
    removed.filter(|shares| shares.iter().all(|&share| share < 1e-3))?;
    Some(format!(
        "warning: {name} removes less than 0.1 % of the negatives; a lower `weight_temperature` \
         separates weights more (0.3 gives those of its paper's figures)"
    ))
}

/// The share of the negatives that false-negative removal leaves out, of images and of captions;
/// `None` for other objectives and for a single pair.
fn removed(
    config: &ObjectiveConfig,
    features: &Features,
    image_ids: Option<&[usize]>,
) -> Option<[f64; 2]> {
    let AnyConfig::FalseNegativeRemoval(removal) = &config.kind else {
        return None;
    };
    weights::share_below(features, image_ids, removal.regulation, removal.threshold)
}

impl Finding {
    fn new(objective: Named, removed: Option<[f64; 2]>, measured: &Measured) -> Self {
        let norm = |x: &Tensor<2>| {
            let square = x.clone().square().sum().into_data();
            square.iter::<f64>().next().map_or(f64::NAN, f64::sqrt)
        };
        Self {
            name: objective.name,
            config: objective.config,
            loss: measured.loss,
            seconds: measured.seconds,
            peak_bytes: measured.peak_bytes,
            gradient_norms: [norm(&measured.gradients[0]), norm(&measured.gradients[1])],
            removed,
        }
    }
}

impl Findings {
    /// As the module's documentation describes it.
    pub fn to_json(&self) -> Value {
        let Statistics {
            images,
            retrieval,
            precision,
            similarity,
            ..
        } = &self.statistics;
        let (i2t, t2i) = (retrieval.image_to_text, retrieval.text_to_image);
        let tensor =
            |found: &Found| json!({"name": found.name, "dtype": found.dtype, "shape": found.shape});
        let objective = |found: &Finding| (found.name.clone(), found.to_json());
        json!({
            "embeddings": {
                "file": self.file,
                "pairs": self.shape[0],
                "images": images,
                "width": self.shape[1],
                "tensors": self.found.iter().map(tensor).collect::<Vec<_>>(),
            },
            "device": self.device,
            "evaluation": format!("{:?}", self.evaluation).to_lowercase(),
            "objectives": self.objectives.iter().map(objective).collect::<Map<_, _>>(),
            "retrieval": {
                "i2t_r1": i2t.recall_at_1,
                "i2t_r5": i2t.recall_at_5,
                "i2t_r10": i2t.recall_at_10,
                "t2i_r1": t2i.recall_at_1,
                "t2i_r5": t2i.recall_at_5,
                "t2i_r10": t2i.recall_at_10,
                "rsum": retrieval.recall_sum,
            },
            "precision": precision.as_ref().map(Precision::to_json),
            "similarity": {
                "positive_mean": similarity.positive.mean,
                "positive_deviation": similarity.positive.deviation,
                "negative_mean": similarity.negative.mean,
                "negative_deviation": similarity.negative.deviation,
                "overlap": similarity.overlap(),
                "histogram": {
                    "edges": similarity.edges(),
                    "positive": similarity.positive_counts,
                    "negative": similarity.negative_counts,
                },
            },
            "alignment": self.statistics.alignment,
            "uniformity": self.statistics.uniformity,
            "modality_gap": self.statistics.modality_gap,
            "weights": self.weights.as_ref().map(Weights::to_json),
        })
    }
}

impl Finding {
    fn to_json(&self) -> Value {
        let mut json = json!({
            "objective": self.config,
            "loss": self.loss,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "gradient_norm": {
                "image": self.gradient_norms[0],
                "text": self.gradient_norms[1],
            },
        });
        if let Some([images, captions]) = self.removed {
            json["removed"] = json!({"image_to_text": images, "text_to_image": captions});
        }
        json
    }
}

impl Precision {
    fn to_json(&self) -> Value {
        let side = |precision: &[(usize, f64)]| -> Map<String, Value> {
            let figure = |(k, percent): &(usize, f64)| (k.to_string(), json!(percent));
            precision.iter().map(figure).collect()
        };
        json!({"i2t": side(&self.image_to_text), "t2i": side(&self.text_to_image)})
    }
}

impl Weights {
    fn to_json(&self) -> Value {
        let pair = |pair: &WeighedPair| {
            json!({
                "image": pair.image,
                "text": pair.text,
                "similarity": pair.similarity,
                "teacher_similarity": pair.teacher,
                "image_to_text": pair.image_to_text,
                "text_to_image": pair.text_to_image,
            })
        };
        json!({
            "alpha": self.regulation.alpha,
            "weight_temperature": self.regulation.weight_temperature,
            "information": {
                "image_to_text": self.information[0],
                "text_to_image": self.information[1],
            },
            "histogram": {
                "edges": self.edges,
                "image_to_text": self.image_to_text,
                "text_to_image": self.text_to_image,
            },
            "pairs": self.likely.iter().map(pair).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Findings {
    /// A few lines for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Statistics {
            images,
            retrieval,
            similarity,
            ..
        } = &self.statistics;
        let [pairs, width] = self.shape;
        writeln!(
            f,
            "{pairs} pairs of {images} images, width {width}\n\n{retrieval}\n"
        )?;
        writeln!(
            f,
            "similarity: positives {:.3} ± {:.3}, negatives {:.3} ± {:.3}, overlap {:.3}",
            similarity.positive.mean,
            similarity.positive.deviation,
            similarity.negative.mean,
            similarity.negative.deviation,
            similarity.overlap()
        )?;
        writeln!(
            f,
            "alignment {:.4}, uniformity {:.4}, modality gap {:.4}\n",
            self.statistics.alignment, self.statistics.uniformity, self.statistics.modality_gap
        )?;
        let names = self
            .objectives
            .iter()
            .map(|found| found.name.chars().count());
        let wide = names.max().unwrap_or(0).max("objective".len());
        writeln!(
            f,
            "{:wide$}  {:>14}  {:>10}  {:>12}",
            "objective", "loss", "seconds", "peak bytes"
        )?;
        for found in &self.objectives {
            let peak = found
                .peak_bytes
                .map_or("–".to_string(), |bytes| bytes.to_string());
            writeln!(
                f,
                "{:wide$}  {:>14.6}  {:>10.4}  {peak:>12}",
                found.name, found.loss, found.seconds
            )?;
        }
        Ok(())
    }
}
