//! Studies as the data of a run: pairs of an image and a sentence, or images with labels.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use rayon::prelude::*;

use super::{Data, located, open_tokenizer, report_cut, report_skipped, training_loaders};
use crate::console::say;
use crate::data::{
    CaptionTokenizer, ClassRetrieval, Collection, FindingsConfig, LabelledImages, Loader, Needs,
    Split, Studies, StudyPairs, findings,
};
use crate::number::counted;
use crate::report;
use crate::training::config::{DataConfig, TrainingConfig};
use crate::training::run::{Options, Program};

/// What studies are evaluated on.
pub struct HeldOut {
    /// The first image of each study with its sentences.
    pub captioned: Arc<Collection>,
    /// Queries and candidates by class.
    pub retrieval: Option<ClassRetrieval>,
    /// What makes tokens of the sentences.
    pub tokenizer: Arc<CaptionTokenizer>,
}

/// Studies of images and sentences, those that `findings` describes where the data have no path;
/// says what was left out or cut. `resumed`, the folder of a run, has its tokenizer. Queries and
/// candidates are in the file `retrieval`, or beside the studies; of them and of the studies,
/// `test` makes what the system is evaluated on.
///
/// # Errors
///
/// On bad data, on files that cannot be read or written, and on a tokenizer that does not fit the
/// model.
pub fn studies<S: Program<Examples = StudyPairs>>(
    config: &TrainingConfig<S::Config>,
    options: &Options,
    resumed: Option<&Path>,
    findings: &FindingsConfig,
    retrieval: Option<&Path>,
    test: impl FnOnce(HeldOut) -> Result<S::Test>,
) -> Result<Data<S>> {
    let studies = open(&config.shared.data, options, findings, Needs::Sentences)?;
    let name = studies.file.display().to_string();
    let train = || {
        ensure!(
            !studies.indices(Split::Train).is_empty(),
            "{name} has no study in the split train"
        );
        Ok(studies.sentences(Split::Train))
    };
    let tokenizer = Arc::new(open_tokenizer(config, resumed, train)?);
    let sentences = studies.items.par_iter();
    let sentences = sentences.flat_map_iter(|study| &study.sentences);
    report_cut(&tokenizer, config, sentences, "sentence")?;
    let file = match retrieval {
        Some(file) => Some(file.to_owned()),
        None => ClassRetrieval::beside(&studies.file)?,
    };
    let skip_bad = config.shared.data.skip_bad;
    let retrieval = file.map(|file| ClassRetrieval::read(&file, skip_bad));
    let retrieval = retrieval.transpose()?;
    let mut fingerprint = format!("{} {}", studies.fingerprint(), tokenizer.fingerprint());
    if let Some(retrieval) = &retrieval {
        report_skipped(&retrieval.skipped, "query or candidate");
        fingerprint += &format!(" {}", retrieval.fingerprint());
    }
    let test = test(HeldOut {
        captioned: Arc::new(studies.captioned()),
        retrieval,
        tokenizer: tokenizer.clone(),
    })?;
    let dataset = dataset(&studies);
    let pairs = StudyPairs::new(Arc::new(studies), tokenizer.clone(), config.transform())?;
    let [train, valid] = training_loaders(config, options, pairs)?;
    Ok(Data {
        train,
        valid,
        test,
        tokenizer,
        fingerprint,
        dataset,
    })
}

/// The images of studies with their labels, those that `findings` describes where the data have no
/// path; of the training studies only a `share` has labels. Of all images and the batches of the
/// held-out ones, `test` makes what the system is evaluated on.
///
/// A training split that does not fill a batch is one.
///
/// # Errors
///
/// On bad data, and on files that cannot be read or written.
pub fn labelled_images<S: Program<Examples = LabelledImages>>(
    config: &TrainingConfig<S::Config>,
    options: &Options,
    resumed: Option<&Path>,
    findings: &FindingsConfig,
    share: f64,
    test: impl FnOnce(LabelledImages, Loader<LabelledImages>) -> Result<S::Test>,
) -> Result<Data<S>> {
    let studies = open(&config.shared.data, options, findings, Needs::Labels)?;
    let none = || Ok(std::iter::empty::<&str>());
    let tokenizer = Arc::new(open_tokenizer(config, resumed, none)?);
    let dataset = dataset(&studies);
    let fingerprint = format!("{} {}", studies.fingerprint(), tokenizer.fingerprint());
    let seed = config.shared.seed;
    let transform = config.transform();
    let images = LabelledImages::new(Arc::new(studies), &tokenizer, transform, share, seed)?;
    let [count, studies] = images.count(Split::Train);
    ensure!(
        count > 1,
        "{} has {} with labels in the split train; it needs at least 2",
        images.studies().file.display(),
        counted(count, "image")
    );
    ensure!(
        images.knows_any(Split::Train),
        "{}: all labels that are used of the split train are null: there is nothing to learn",
        images.studies().file.display()
    );
    say(format_args!(
        "Labels: {count} images of {studies} training studies, a share of {share}"
    ));
    let mut sized = config.clone();
    let batch = &mut sized.shared.data.batch_size;
    *batch = (*batch).min(count);
    let workers = options.team.count();
    ensure!(
        batch.is_multiple_of(workers),
        "a batch of the {count} images with labels cannot be divided among {workers} workers: set \
         data.batch_size to a multiple of {workers}, {count} at most"
    );
    let [train, valid] = training_loaders(&sized, options, images.clone())?;
    let loader = config.loader(options.workers, &options.device, [0, 1]);
    let held_out = Loader::ordered(images.clone(), Split::Test, loader)?;
    Ok(Data {
        train,
        valid,
        test: test(images, held_out)?,
        tokenizer,
        fingerprint,
        dataset,
    })
}

fn open(
    config: &DataConfig,
    options: &Options,
    findings: &FindingsConfig,
    needs: Needs,
) -> Result<Studies> {
    let path = located(
        config,
        &options.scenes,
        "studies",
        &name(findings),
        |folder| findings::generate(folder, findings),
    )?;
    let studies = Studies::read(&path, needs, config.skip_bad)?;
    report_skipped(&studies.skipped, "study");
    say(format_args!("Data: {}", studies.file.display()));
    Ok(studies)
}

/// One folder for each set of parameters.
fn name(findings: &FindingsConfig) -> String {
    let FindingsConfig {
        train,
        validation,
        test,
        image_size,
        specific,
        noise,
        query_images,
        query_sentences,
        candidates,
        seed,
    } = findings;
    format!(
        "findings-{train}-{validation}-{test}-{image_size}px-{specific}-{noise}-\
         {query_images}-{query_sentences}-{candidates}-{seed}"
    )
}

fn dataset(studies: &Studies) -> report::Dataset {
    let splits = Split::ALL.map(|split| {
        let items = || studies.items.iter().filter(|item| item.split == split);
        let images: HashSet<&PathBuf> = items().flat_map(|item| &item.images).collect();
        report::Split {
            name: split.name().to_string(),
            images: images.len() as u64,
            captions: items().map(|item| item.sentences.len() as u64).sum(),
        }
    });
    report::Dataset {
        name: studies.file.display().to_string(),
        splits: splits.to_vec(),
    }
}
