//! The models that embed: published ones, and those of runs.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Error, Result, ensure};
use burn::tensor::{Device, Tensor};
use burn_contrastive::objective::ObjectiveConfig;

use super::Reading;
use crate::data::{CaptionBatch, CaptionTokenizer, TransformConfig};
use crate::files::sha256;
use crate::models::DualEncoder;
use crate::published::Published;
use crate::systems::albef::Albef;
use crate::systems::clip::Clip;
use crate::systems::visual_semantic::VisualSemantic;
use crate::training::checkpoint::{Checkpoints, MODEL};
use crate::training::config::TrainingConfig;
use crate::training::evaluation::EmbedsPairs;
use crate::training::folder::TOKENIZER_FILE;
use crate::training::run::CONFIG_FILE;
use crate::training::system::{System, SystemConfig, TextLimits};
use crate::training::weights::{Weights, trained};

/// A model with its own way of reading images and captions.
pub enum Model {
    /// A run of `clip`, or published weights of CLIP.
    Clip(Box<DualEncoder>, Reading),
    /// A run of `albef`.
    Albef(Box<Albef>, Reading),
    /// A run of `visual-semantic` that has an image encoder.
    VisualSemantic(Box<VisualSemantic>, Reading),
}

const NOTHING: &[&str] = &[];

impl Model {
    /// Opens a file of published weights, or the last checkpoint of a run in a folder. `tokenizer`
    /// stands in for the one beside the weights.
    ///
    /// # Errors
    ///
    /// If there are no weights of a model that embeds images and captions, or no tokenizer that
    /// fits them.
    pub fn open(weights: &Path, tokenizer: Option<&Path>, device: &Device) -> Result<Self> {
        if weights.is_file() {
            return Self::published(weights, tokenizer, device);
        }
        let config = weights.join(CONFIG_FILE);
        ensure!(
            config.is_file(),
            "{}: no file of weights, nor the folder of a run, which has a {CONFIG_FILE}",
            weights.display()
        );
        if is_run_of::<Clip>(&config) {
            let (model, reading) = of_run::<Clip>(weights, tokenizer, device)?;
            return Ok(Self::Clip(Box::new(model), reading));
        }
        if is_run_of::<Albef>(&config) {
            let (model, reading) = of_run::<Albef>(weights, tokenizer, device)?;
            return Ok(Self::Albef(Box::new(model), reading));
        }
        ensure!(
            is_run_of::<VisualSemantic>(&config),
            "{} is a run of another program than clip, albef and visual-semantic, whose models embed \
             images and captions",
            weights.display()
        );
        let (model, reading) = of_run::<VisualSemantic>(weights, tokenizer, device)?;
        ensure!(
            model.image.is_some(),
            "{} reads features in place of images: it has no image encoder",
            weights.display()
        );
        Ok(Self::VisualSemantic(Box::new(model), reading))
    }

    /// The embeddings of texts, `[texts, D]`, not normalised.
    ///
    /// # Errors
    ///
    /// If one cannot be tokenized.
    pub fn embed_texts(&self, texts: &[String], device: &Device) -> Result<Tensor<2>> {
        let read = |reading: &Reading| CaptionBatch::read(texts, &reading.tokenizer, device);
        Ok(match self {
            Self::Clip(model, reading) => model.embed_captions(read(reading)?),
            Self::Albef(model, reading) => model.embed_captions(read(reading)?),
            Self::VisualSemantic(model, reading) => model.embed_captions(read(reading)?),
        })
    }

    fn published(file: &Path, tokenizer: Option<&Path>, device: &Device) -> Result<Self> {
        let published = Published::open(file)?;
        let config = published.clip()?;
        config.check()?;
        let beside = file.with_file_name(TOKENIZER_FILE);
        let tokenizer = tokenizer.or(beside.is_file().then_some(&*beside));
        let tokenizer = tokenizer.with_context(|| {
            format!(
                "no {TOKENIZER_FILE} lies beside {}: name its tokenizer, --tokenizer FILE",
                file.display()
            )
        })?;
        let reading = Reading {
            transform: TransformConfig {
                size: config.image.image_size as u32,
                ..TransformConfig::default()
            },
            tokenizer: CaptionTokenizer::load(tokenizer, config.text.context)?,
        };
        let size = reading.tokenizer.vocab_size();
        ensure!(
            size == config.text.vocabulary,
            "{} has {size} tokens, and {} embeddings of {}: it is the tokenizer of other weights",
            tokenizer.display(),
            file.display(),
            config.text.vocabulary
        );
        let objective = ObjectiveConfig::named("info-nce").map_err(Error::msg)?;
        let model = config.init(objective.init(device), device);
        let weights = Weights::published(published, "", 0);
        // Weights need no logit scale to embed.
        let model = weights.load_into(model, &[r"^objective\."], NOTHING)?;
        Ok(Self::Clip(Box::new(model), reading))
    }
}

fn is_run_of<S: System>(config: &Path) -> bool {
    TrainingConfig::<S::Config>::read(config).is_ok()
}

fn of_run<S: System>(
    run: &Path,
    tokenizer: Option<&Path>,
    device: &Device,
) -> Result<(S, Reading)> {
    let (config, model) = trained::<S>(run, device)?;
    let TextLimits { context, style, .. } = config.system.text();
    let beside = run.join(TOKENIZER_FILE);
    let tokenizer = CaptionTokenizer::load(tokenizer.unwrap_or(&beside), context)?;
    let reading = Reading {
        transform: config.transform(),
        tokenizer: tokenizer.with_style(style)?,
    };
    Ok((model, reading))
}

/// SHA-256 of the weights, in hexadecimal.
pub(super) fn fingerprint(weights: &Path) -> Result<String> {
    let file = if weights.is_file() {
        weights.to_owned()
    } else {
        let last = Checkpoints::last_of(weights)?;
        last.context("the run has no checkpoint")?.join(MODEL)
    };
    let sum = File::open(&file).and_then(|mut file| sha256(&mut file));
    sum.with_context(|| format!("cannot read {}", file.display()))
}
