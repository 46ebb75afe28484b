//! The models that embed: published ones, and those of runs.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, ensure};
use burn::tensor::{Device, Tensor};
use burn_contrastive::objective::ObjectiveConfig;

use crate::data::{CaptionBatch, CaptionTokenizer, Collection, Needs, Studies, TransformConfig};
use crate::files::sha256;
use crate::published::Published;
use crate::systems::albef::Albef;
use crate::systems::clip::Clip;
use crate::systems::it_contrast::ItContrast;
use crate::systems::radiograph::Radiograph;
use crate::systems::visual_semantic::{VisualSemantic, VisualSemanticConfig};
use crate::training::checkpoint::{Checkpoints, MODEL};
use crate::training::config::TrainingConfig;
use crate::training::evaluation::EmbedsPairs;
use crate::training::folder::TOKENIZER_FILE;
use crate::training::inputs::report_skipped;
use crate::training::run::CONFIG_FILE;
use crate::training::system::{System, SystemConfig, TextLimits};
use crate::training::weights::{Weights, tokenizer_beside, trained};

/// A model with its own way of reading images and captions.
pub struct Model {
    /// What embeds them.
    pub encoders: Box<dyn Encoders>,
    /// How images are read.
    pub transform: TransformConfig,
    /// How captions are read.
    pub tokenizer: CaptionTokenizer,
    /// Whether its data are studies, whose sentences are the captions of their first image.
    pub reads_studies: bool,
}

/// What [`EmbedsPairs`] does, of any model.
pub trait Encoders: Sync {
    /// See [`EmbedsPairs::embed_images`].
    fn images(&self, images: Tensor<4>) -> Tensor<2>;

    /// See [`EmbedsPairs::embed_captions`].
    fn captions(&self, captions: CaptionBatch) -> Tensor<2>;
}

impl<M: EmbedsPairs + Sync> Encoders for M {
    fn images(&self, images: Tensor<4>) -> Tensor<2> {
        self.embed_images(images)
    }

    fn captions(&self, captions: CaptionBatch) -> Tensor<2> {
        self.embed_captions(captions)
    }
}

const NOTHING: &[&str] = &[];

impl Model {
    /// Opens a file of published CLIP weights, or the last checkpoint of a run of `clip`, `albef`,
    /// `visual-semantic` or `radiograph` in a folder. `tokenizer` stands in for the one beside the
    /// weights.
    ///
    /// # Errors
    ///
    /// If there are no weights of a model that embeds images and captions, or no tokenizer that
    /// fits them.
    pub fn open(weights: &Path, tokenizer: Option<&Path>, device: &Device) -> Result<Self> {
        if weights.is_file() {
            return Self::published(weights, tokenizer, device);
        }
        let config = config_of_run(weights)?;
        if is_run_of::<Clip>(&config) {
            return Self::of_run::<Clip>(weights, tokenizer, device);
        }
        if is_run_of::<Albef>(&config) {
            return Self::of_run::<Albef>(weights, tokenizer, device);
        }
        if is_run_of::<Radiograph>(&config) {
            return Ok(Self {
                reads_studies: true,
                ..Self::of_run::<Radiograph>(weights, tokenizer, device)?
            });
        }
        ensure!(
            !is_run_of::<ItContrast>(&config),
            "{} is a run of it-contrast, which reads regions in place of images",
            weights.display()
        );
        ensure!(
            is_run_of::<VisualSemantic>(&config),
            "{} is a run of another program than clip, albef, visual-semantic and radiograph, \
             whose models embed images and captions",
            weights.display()
        );
        let config = TrainingConfig::<VisualSemanticConfig>::read(&config)?;
        ensure!(
            !config.system.reads_features(),
            "{} reads features in place of images: it has no image encoder",
            weights.display()
        );
        Self::of_run::<VisualSemantic>(weights, tokenizer, device)
    }

    fn of_run<S: System + EmbedsPairs>(
        run: &Path,
        tokenizer: Option<&Path>,
        device: &Device,
    ) -> Result<Self> {
        let (config, model) = trained::<S>(run, device)?;
        let TextLimits { context, style, .. } = config.system.text();
        let beside = run.join(TOKENIZER_FILE);
        let tokenizer = CaptionTokenizer::load(tokenizer.unwrap_or(&beside), context)?;
        Ok(Self {
            encoders: Box::new(model),
            transform: config.transform(),
            tokenizer: tokenizer.with_style(style)?,
            reads_studies: false,
        })
    }

    fn published(file: &Path, tokenizer: Option<&Path>, device: &Device) -> Result<Self> {
        let published = Published::open(file)?;
        let config = published.clip()?;
        config.check()?;
        let beside = tokenizer_beside(file);
        let tokenizer = tokenizer.or(beside.as_deref()).with_context(|| {
            format!(
                "no {TOKENIZER_FILE} lies beside {}: name its tokenizer, --tokenizer FILE",
                file.display()
            )
        })?;
        let tokenizer = CaptionTokenizer::load(tokenizer, config.text.context)?;
        tokenizer.check_size(config.text.vocabulary, file.display())?;
        let objective = ObjectiveConfig::named("info-nce").map_err(Error::msg)?;
        let model = config.init(objective.init(device), device);
        let weights = Weights::published(published, "", 0);
        // Weights need no logit scale to embed.
        let model = weights.load_into(model, &[r"^objective\."], NOTHING)?;
        Ok(Self {
            encoders: Box::new(model),
            transform: TransformConfig {
                size: config.image.image_size() as u32,
                ..TransformConfig::default()
            },
            tokenizer,
            reads_studies: false,
        })
    }

    /// The images with captions at `path`, in the form that the model was trained on, with what was
    /// left out reported.
    ///
    /// # Errors
    ///
    /// As [`Collection::read`] and [`Studies::read`].
    pub fn data(&self, path: &Path, skip_bad: bool) -> Result<Collection> {
        if self.reads_studies {
            let studies = Studies::read(path, Needs::Sentences, skip_bad)?;
            report_skipped(&studies.skipped, "study");
            return Ok(studies.captioned());
        }
        let collection = Collection::read(path, skip_bad)?;
        report_skipped(&collection.skipped, "image");
        Ok(collection)
    }
}

/// The settings of a run, which has such a file.
fn config_of_run(run: &Path) -> Result<PathBuf> {
    let config = run.join(CONFIG_FILE);
    ensure!(
        config.is_file(),
        "{}: no file of weights, nor the folder of a run, which has a {CONFIG_FILE}",
        run.display()
    );
    Ok(config)
}

fn is_run_of<S: System>(config: &Path) -> bool {
    TrainingConfig::<S::Config>::read(config).is_ok()
}

/// SHA-256 of the weights, in hexadecimal.
pub(super) fn fingerprint(weights: &Path) -> Result<String> {
    let file = if weights.is_file() {
        weights.to_owned()
    } else {
        config_of_run(weights)?;
        let last = Checkpoints::last_of(weights)?;
        let none = || format!("the run {} has no checkpoint", weights.display());
        last.with_context(none)?.join(MODEL)
    };
    let sum = File::open(&file).and_then(|mut file| sha256(&mut file));
    sum.with_context(|| format!("cannot read {}", file.display()))
}
