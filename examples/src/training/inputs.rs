//! The data of a run, split three ways, and their tokenizer.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::config::{DataConfig, TrainingConfig};
use super::folder::TOKENIZER_FILE;
use super::run::{Options, Program};
use super::system::{SystemConfig, TextLimits};
use crate::console::say;
use crate::data::{
    CaptionTokenizer, Collection, EvaluationSet, Loader, Pairs, ScenesConfig, Skipped, Split,
    scenes,
};
use crate::number::counted;
use crate::report;

/// The data of a run, split three ways.
pub struct Data<S: Program> {
    /// The training split.
    pub train: Loader<S::Examples>,
    /// The validation split.
    pub valid: Loader<S::Examples>,
    /// The held-out split.
    pub test: S::Test,
    /// What makes tokens of its texts.
    pub tokenizer: Arc<CaptionTokenizer>,
    /// Equal for equal images and texts and equal tokens.
    pub fingerprint: String,
    /// What it is, for the report.
    pub dataset: report::Dataset,
}

/// Captioned images; says what was left out or cut. `resumed`, the folder of a run, has its
/// tokenizer; a stage has that of the run that it is a stage of, whatever its data.
///
/// # Errors
///
/// On bad data, on files that cannot be read or written, and on a tokenizer that does not fit the
/// model.
pub fn pairs<S>(
    config: &TrainingConfig<S::Config>,
    options: &Options,
    resumed: Option<&Path>,
) -> Result<Data<S>>
where
    S: Program<Examples = Pairs, Test = EvaluationSet>,
{
    let Options {
        device, workers, ..
    } = options;
    let collection = Arc::new(open_data(&config.shared.data, options)?);
    let own = resumed.or(options.stage_of.as_deref());
    let tokenizer = Arc::new(open_tokenizer(config, own, &collection)?);
    report_cut_captions(&tokenizer, config.system.text().context_key, &collection)?;
    let part = [options.team.rank(), options.team.count()];
    let transform = config.transform();
    let pairs = Pairs::new(collection.clone(), tokenizer.clone(), transform.clone())?;
    let loader = |part| config.loader(*workers, device, part);
    let train = Loader::shuffled(pairs.clone(), Split::Train, loader(part))?;
    let valid = Loader::ordered(pairs, Split::Validation, loader([0, 1]))?;
    let test = EvaluationSet::new(
        collection.clone(),
        Split::Test,
        tokenizer.clone(),
        transform,
        *workers,
    )?;
    Ok(Data {
        train,
        valid,
        test,
        fingerprint: format!("{} {}", collection.fingerprint(), tokenizer.fingerprint()),
        tokenizer,
        dataset: dataset(&collection),
    })
}

fn dataset(collection: &Collection) -> report::Dataset {
    let splits = Split::ALL.map(|split| report::Split {
        name: split.name().to_string(),
        images: collection.indices(split).len() as u64,
        captions: collection.captions(split).count() as u64,
    });
    report::Dataset {
        name: collection.file.display().to_string(),
        splits: splits.to_vec(),
    }
}

fn open_data(config: &DataConfig, options: &Options) -> Result<Collection> {
    let path = match &config.path {
        Some(path) => path.clone(),
        None => {
            let folder = options.scenes.join(scenes_name(&config.scenes));
            if scenes::generate(&folder, &config.scenes)? {
                say(format_args!("Generated scenes in {}", folder.display()));
            }
            folder
        }
    };
    let collection = Collection::read(&path, config.skip_bad)?;
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

/// The tokenizer of the run in the folder `own`, or the configured one, or one trained on the training
/// captions.
fn open_tokenizer<C: SystemConfig>(
    config: &TrainingConfig<C>,
    own: Option<&Path>,
    collection: &Collection,
) -> Result<CaptionTokenizer> {
    let own = own.map(|run| run.join(TOKENIZER_FILE));
    let TextLimits {
        vocabulary,
        vocabulary_key,
        context,
        context_key,
        style,
    } = config.system.text();
    let tokenizer = if let Some(file) = own.filter(|file| file.exists()) {
        CaptionTokenizer::load(&file, context)?.with_style(style)?
    } else if let Some(file) = &config.shared.data.tokenizer {
        CaptionTokenizer::load(file, context)?.with_style(style)?
    } else {
        ensure!(
            !collection.indices(Split::Train).is_empty(),
            "{} has no image in the split train",
            collection.file.display()
        );
        let captions = collection.captions(Split::Train);
        let tokenizer = CaptionTokenizer::train(captions, &config.tokenizer());
        tokenizer.with_context(|| {
            format!(
                "no tokenizer has {vocabulary_key} = {vocabulary} and {context_key} = {context}"
            )
        })?
    };
    ensure!(
        tokenizer.vocab_size() <= vocabulary,
        "the tokenizer has {size} tokens and the model room for {vocabulary}: \
         set {vocabulary_key}={size}",
        size = tokenizer.vocab_size(),
    );
    Ok(tokenizer)
}

/// Says how many captions do not fit the context.
fn report_cut_captions(
    tokenizer: &CaptionTokenizer,
    key: &str,
    collection: &Collection,
) -> Result<()> {
    let captions = collection.examples.par_iter();
    let captions = captions.flat_map_iter(|example| &example.captions);
    let cut = captions.map(|caption| tokenizer.cuts(caption).map(u64::from));
    let cut = cut.try_reduce(|| 0, |a, b| Ok(a + b))?;
    if cut > 0 {
        say(format_args!(
            "Cut {} to {key} = {} tokens",
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
