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
//! An objective is evaluated at the values of its parameters, whatever its schedule makes of them
//! in a training.
//!
//! Everything is computed in blocks: memory is `O(N·D)` beside each objective's own budget, 1 GiB
//! (`--evaluation streaming` keeps nothing, `dense` is the reference, with several `N×N` matrices).

mod findings;
mod gradients;
pub mod heap;
pub mod measure;
pub mod objectives;
mod page;
pub mod statistics;
pub mod tensors;
pub mod weights;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Tensor};
use burn_contrastive::objective::{AnyConfig, Features, ObjectiveConfig};
use burn_contrastive::pairwise::Evaluation;
use burn_contrastive::similarity::l2_normalize;
use burn_contrastive::weighting::SimilarityRegulation;

use crate::files::{self, Partial};
use crate::report::{MAP_PAIRS, Map};
use crate::training::device::computes_f64;
use crate::training::summary::spread;
use crate::words::shown;
pub use findings::{Finding, Findings};
use gradients::GradientFile;
use measure::{Named, check, measure};
use statistics::Statistics;
use tensors::Embeddings;
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

impl Options {
    fn outputs(&self) -> impl Iterator<Item = &PathBuf> {
        let outputs = [&self.json, &self.gradients, &self.report];
        outputs.into_iter().flatten()
    }

    /// Whether standard output is one of the files to write, as `/dev/stdout` is: then it is no
    /// place for anything else.
    pub fn writes_to_stdout(&self) -> bool {
        self.outputs().any(|path| files::is_stdout(path))
    }
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
    let map = report.as_ref().and_then(|_| map(features, &mut progress));
    progress("weights of the negatives");
    let image_ids = embeddings.image_ids.as_deref();
    let weights = Weights::of(features, image_ids, regulation(&objectives, features));
    let mut found = Vec::new();
    for objective in objectives {
        progress(&shown(&objective.name));
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
        map,
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

/// A map of some pairs, spread over the file, or why there is none.
fn map(features: &Features, mut progress: impl FnMut(&str)) -> Option<Map> {
    progress("map");
    let shown: Vec<_> = spread(features.image.dims()[0], MAP_PAIRS).collect();
    let rows = |all: &Tensor<2>| {
        let row = |&row: &usize| {
            let values = l2_normalize(all.clone().narrow(0, row, 1)).into_data();
            values.iter::<f64>().collect()
        };
        shown.iter().map(row).collect::<Vec<_>>()
    };
    let map = Map::of(&rows(&features.image), &rows(&features.text), 0);
    map.inspect_err(|error| progress(&format!("no map: {error:#}")))
        .ok()
}

/// Checks that no file to write is an input or another output.
fn check_paths(options: &Options) -> Result<()> {
    let mut others = vec![&options.embeddings];
    others.extend(&options.objectives);
    for path in options.outputs() {
        let same = others.iter().find(|other| files::are_same(path, other));
        if let Some(other) = same {
            let (other, path) = (other.display(), path.display());
            if other.to_string() == path.to_string() {
                bail!("{path} is named twice: every file needs a path of its own");
            }
            bail!("{other} and {path} are the same file: every file needs a path of its own");
        }
        others.push(path);
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
        "warning: {} removes less than 0.1 % of the negatives; a lower `weight_temperature` \
         separates weights more (0.3 gives those of its paper's figures)",
        shown(name)
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
