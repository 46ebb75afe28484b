//! The data of a run, split three ways, and their tokenizer.

mod statements;
mod studies;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::config::{DataConfig, TrainingConfig};
use super::folder::TOKENIZER_FILE;
use super::run::{Options, Program};
use super::system::{SystemConfig, TextLimits};
use crate::console::say;
use crate::data::{
    CaptionTokenizer, Collection, EvaluationSet, Examples, Loader, Pairs, ScenesConfig, Skipped,
    Split, scenes,
};
use crate::number::counted;
use crate::report;

pub use statements::statements;
pub use studies::{HeldOut, labelled_images, studies};

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
/// tokenizer; a stage has that of the run that it is a stage of, whatever its data. `test` makes of
/// the collection, and of all pairs, what the system is evaluated on, such as [`held_out`] does.
///
/// # Errors
///
/// On bad data, on files that cannot be read or written, and on a tokenizer that does not fit the
/// model.
pub fn pairs<S: Program<Examples = Pairs>>(
    config: &TrainingConfig<S::Config>,
    options: &Options,
    resumed: Option<&Path>,
    test: impl FnOnce(&Arc<Collection>, &Arc<CaptionTokenizer>, &Pairs) -> Result<S::Test>,
) -> Result<Data<S>> {
    captioned(config, options, resumed, |collection, tokenizer| {
        let transform = config.transform();
        let pairs = Pairs::new(collection.clone(), tokenizer.clone(), transform)?;
        let test = test(collection, tokenizer, &pairs)?;
        Ok((pairs, test))
    })
}

/// As [`pairs`], of any examples that `examples` makes of the collection, with what the system is
/// evaluated on.
///
/// # Errors
///
/// As [`pairs`].
pub fn captioned<S: Program>(
    config: &TrainingConfig<S::Config>,
    options: &Options,
    resumed: Option<&Path>,
    examples: impl FnOnce(&Arc<Collection>, &Arc<CaptionTokenizer>) -> Result<(S::Examples, S::Test)>,
) -> Result<Data<S>>
where
    S::Examples: Clone,
{
    let collection = Arc::new(open_data(&config.shared.data, &options.scenes)?);
    let captions = || {
        ensure!(
            !collection.indices(Split::Train).is_empty(),
            "{} has no image in the split train",
            collection.file.display()
        );
        Ok(collection.captions(Split::Train))
    };
    let own = resumed.or(options.stage_of.as_deref());
    let tokenizer = Arc::new(open_tokenizer(config, own, captions)?);
    let captions = collection.examples.par_iter();
    let captions = captions.flat_map_iter(|example| &example.captions);
    report_cut(&tokenizer, config, captions, "caption")?;
    let (examples, test) = examples(&collection, &tokenizer)?;
    let [train, valid] = training_loaders(config, options, examples)?;
    Ok(Data {
        train,
        valid,
        test,
        fingerprint: format!("{} {}", collection.fingerprint(), tokenizer.fingerprint()),
        tokenizer,
        dataset: dataset(&collection),
    })
}

/// The held-out pairs of a collection.
///
/// # Errors
///
/// If there are none.
pub fn held_out<C: SystemConfig>(
    config: &TrainingConfig<C>,
    options: &Options,
    collection: &Arc<Collection>,
    tokenizer: &Arc<CaptionTokenizer>,
) -> Result<EvaluationSet> {
    let (collection, tokenizer) = (collection.clone(), tokenizer.clone());
    let transform = config.transform();
    EvaluationSet::new(
        collection,
        Split::Test,
        tokenizer,
        transform,
        options.workers,
    )
}

/// Batches of the training and of the validation split.
pub(super) fn training_loaders<C: SystemConfig, E: Examples + Clone>(
    config: &TrainingConfig<C>,
    options: &Options,
    examples: E,
) -> Result<[Loader<E>; 2]> {
    let part = [options.team.rank(), options.team.count()];
    let loader = |part| config.loader(options.workers, &options.device, part);
    Ok([
        Loader::shuffled(examples.clone(), Split::Train, loader(part))?,
        Loader::ordered(examples, Split::Validation, loader([0, 1]))?,
    ])
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

/// The captioned images that the settings name, or generated scenes in a folder of `folder`.
///
/// # Errors
///
/// On bad data, and on files that cannot be read or written.
pub fn open_data(config: &DataConfig, folder: &Path) -> Result<Collection> {
    let path = locate(config, folder, "scenes", |folder, scenes| {
        scenes::generate(folder, scenes)
    })?;
    let collection = Collection::read(&path, config.skip_bad)?;
    report_skipped(&collection.skipped, "image");
    say(format_args!("Data: {}", collection.file.display()));
    Ok(collection)
}

/// Where the data are: what is configured, or the folder of the scenes in `parent`, once `generate`
/// has made sure of what it should hold, `what`, and answered whether it was made now.
///
/// # Errors
///
/// As `generate`.
pub fn locate(
    config: &DataConfig,
    parent: &Path,
    what: &str,
    generate: impl FnOnce(&Path, &ScenesConfig) -> Result<bool>,
) -> Result<PathBuf> {
    let name = scenes_name(&config.scenes);
    located(config, parent, what, &name, |folder| {
        generate(folder, &config.scenes)
    })
}

/// As [`locate`], of what is generated in the folder `name` among those of the scenes.
fn located(
    config: &DataConfig,
    parent: &Path,
    what: &str,
    name: &str,
    generate: impl FnOnce(&Path) -> Result<bool>,
) -> Result<PathBuf> {
    if let Some(path) = &config.path {
        return Ok(path.clone());
    }
    let folder = parent.join(name);
    if generate(&folder)? {
        say(format_args!("Generated {what} in {}", folder.display()));
    }
    Ok(folder)
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

/// The tokenizer of the run in the folder `own`, or the configured one, or one trained on `texts`.
///
/// # Errors
///
/// If it cannot be read or trained, or does not fit the model.
pub fn open_tokenizer<C: SystemConfig, T, S>(
    config: &TrainingConfig<C>,
    own: Option<&Path>,
    texts: impl FnOnce() -> Result<T>,
) -> Result<CaptionTokenizer>
where
    T: Iterator<Item = S> + Send,
    S: AsRef<str> + Send,
{
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
        let tokenizer = CaptionTokenizer::train(texts()?, &config.tokenizer());
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
    let init = config.shared.init.as_ref();
    if let Some(source) = init.and_then(|init| init.of_tokens(C::towers())) {
        tokenizer.check_size(vocabulary, source)?;
    }
    Ok(tokenizer)
}

/// Checks that an earlier run, which this one takes weights of, reads the same tokens.
///
/// # Errors
///
/// If it has another tokenizer, or none.
pub fn check_tokens<C: SystemConfig>(
    run: &Path,
    config: &TrainingConfig<C>,
    tokenizer: &CaptionTokenizer,
) -> Result<()> {
    let TextLimits { context, style, .. } = config.system.text();
    let file = run.join(TOKENIZER_FILE);
    let its_own = CaptionTokenizer::load(&file, context)?.with_style(style)?;
    ensure!(
        its_own.fingerprint() == tokenizer.fingerprint(),
        "it was trained with another tokenizer, whose tokens are other words: set \
         data.tokenizer={}",
        file.display()
    );
    Ok(())
}

/// Says how many texts do not fit the context.
///
/// # Errors
///
/// If one cannot be tokenized.
pub fn report_cut<C: SystemConfig, T: AsRef<str>>(
    tokenizer: &CaptionTokenizer,
    config: &TrainingConfig<C>,
    texts: impl ParallelIterator<Item = T>,
    noun: &str,
) -> Result<()> {
    let cut = texts.map(|text| tokenizer.cuts(text.as_ref()).map(u64::from));
    let cut = cut.try_reduce(|| 0, |a, b| Ok(a + b))?;
    if cut > 0 {
        say(format_args!(
            "Cut {} to {} = {} tokens",
            counted(cut, noun),
            config.system.text().context_key,
            tokenizer.context_length()
        ));
    }
    Ok(())
}

/// Says how many rows, each of a `noun`, were left out as bad.
pub fn report_skipped(skipped: &[Skipped], noun: &str) {
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
        .map(|(number, split)| format!("{} of the split {split}", counted(number, noun)))
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
