//! The data of a run: captioned images, split three ways, and their tokenizer.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use rayon::prelude::*;

use super::config::TrainingConfig;
use super::folder::TOKENIZER_FILE;
use super::run::Options;
use crate::console::say;
use crate::data::{
    CaptionTokenizer, Collection, EvaluationSet, PairLoader, ScenesConfig, Skipped, Split, scenes,
};
use crate::number::counted;

/// The data of a run, split three ways.
pub(super) struct Data {
    pub collection: Arc<Collection>,
    pub tokenizer: Arc<CaptionTokenizer>,
    /// The training split.
    pub pairs: PairLoader,
    /// The validation split.
    pub valid: PairLoader,
    /// The held-out split.
    pub test: EvaluationSet,
    /// Equal for equal captioned images and equal tokens.
    pub fingerprint: String,
}

impl Data {
    /// Reads the data and says what was left out or cut. `resumed` has its tokenizer.
    pub fn open(
        config: &TrainingConfig,
        options: &Options,
        resumed: Option<&Path>,
    ) -> Result<Self> {
        let Options {
            device, workers, ..
        } = options;
        let collection = Arc::new(open_data(config, options)?);
        let tokenizer = Arc::new(open_tokenizer(config, resumed, &collection)?);
        report_cut_captions(&tokenizer, &collection)?;
        let part = [options.team.rank(), options.team.count()];
        let transform = config.transform();
        let pairs = PairLoader::new(
            collection.clone(),
            Split::Train,
            tokenizer.clone(),
            transform.clone(),
            config.loader(*workers, device, part),
        )?;
        let valid = PairLoader::in_order(
            collection.clone(),
            Split::Validation,
            tokenizer.clone(),
            transform.clone(),
            config.loader(*workers, device, [0, 1]),
        )?;
        let test = EvaluationSet::new(
            collection.clone(),
            Split::Test,
            tokenizer.clone(),
            transform,
            *workers,
        )?;
        let fingerprint = format!("{} {}", collection.fingerprint(), tokenizer.fingerprint());
        Ok(Self {
            collection,
            tokenizer,
            pairs,
            valid,
            test,
            fingerprint,
        })
    }
}

fn open_data(config: &TrainingConfig, options: &Options) -> Result<Collection> {
    let path = match &config.data.path {
        Some(path) => path.clone(),
        None => {
            let folder = options.scenes.join(scenes_name(&config.data.scenes));
            if scenes::generate(&folder, &config.data.scenes)? {
                say(format_args!("Generated scenes in {}", folder.display()));
            }
            folder
        }
    };
    let collection = Collection::read(&path, config.data.skip_bad)?;
    report_skipped(&collection.skipped);
    say(format_args!("Data: {}", collection.file.display()));
    Ok(collection)
}

/// One folder for each set of parameters.
fn scenes_name(scenes: &ScenesConfig) -> String {
    let ScenesConfig {
        train,
        validation,
        test,
        image_size,
        repeated,
        three_objects,
        seed,
    } = scenes;
    format!("scenes-{train}-{validation}-{test}-{image_size}px-{repeated}-{three_objects}-{seed}")
}

/// The tokenizer of the run that goes on, or the configured one, or one trained on the training
/// captions.
fn open_tokenizer(
    config: &TrainingConfig,
    resumed: Option<&Path>,
    collection: &Collection,
) -> Result<CaptionTokenizer> {
    let own = resumed.map(|run| run.join(TOKENIZER_FILE));
    let context = config.model.text.context;
    let tokenizer = if let Some(file) = own.filter(|file| file.exists()) {
        CaptionTokenizer::load(&file, context)?
    } else if let Some(file) = &config.data.tokenizer {
        CaptionTokenizer::load(file, context)?
    } else {
        ensure!(
            !collection.indices(Split::Train).is_empty(),
            "{} has no image in the split train",
            collection.file.display()
        );
        CaptionTokenizer::train(collection.captions(Split::Train), &config.tokenizer())?
    };
    ensure!(
        tokenizer.vocab_size() <= config.model.text.vocabulary,
        "the tokenizer has {size} tokens and the model room for {}: \
         set model.text.vocabulary={size}",
        config.model.text.vocabulary,
        size = tokenizer.vocab_size(),
    );
    Ok(tokenizer)
}

/// Says how many captions do not fit the context.
fn report_cut_captions(tokenizer: &CaptionTokenizer, collection: &Collection) -> Result<()> {
    let captions = collection.examples.par_iter();
    let captions = captions.flat_map_iter(|example| &example.captions);
    let cut = captions.map(|caption| tokenizer.cuts(caption).map(u64::from));
    let cut = cut.try_reduce(|| 0, |a, b| Ok(a + b))?;
    if cut > 0 {
        say(format_args!(
            "Cut {} to model.text.context = {} tokens",
            counted(cut, "caption"),
            tokenizer.context_length()
        ));
    }
    Ok(())
}

fn report_skipped(skipped: &[Skipped]) {
    let Some(first) = skipped.first() else {
        return;
    };
    let of = |split| {
        skipped
            .iter()
            .filter(|bad| bad.split == Some(split))
            .count()
    };
    let images = Split::ALL.map(|split| (of(split), split)).into_iter();
    let images: Vec<_> = images
        .filter(|(number, _)| *number > 0)
        .map(|(number, split)| format!("{} of the split {split}", counted(number, "image")))
        .collect();
    let images = if images.is_empty() {
        String::new()
    } else {
        format!(" ({})", images.join(", "))
    };
    say(format_args!(
        "Left out as bad: {}{images}; the first: {}",
        skipped.len(),
        first.reason
    ));
}
