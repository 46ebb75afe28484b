//! Statements about two images as the data of a run.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use rayon::prelude::*;

use super::{Data, locate, open_tokenizer, report_cut, report_skipped, training_loaders};
use crate::console::say;
use crate::data::{Loader, Split, StatedPairs, Statements, scenes};
use crate::report;
use crate::training::config::TrainingConfig;
use crate::training::run::{Options, Program};

/// Statements about two images; says what was left out or cut. `resumed`, the folder of a run, has
/// its tokenizer. Of the statements and the batches of the held-out split, `test` makes what the
/// system is evaluated on.
///
/// # Errors
///
/// On bad data, on files that cannot be read or written, and on a tokenizer that does not fit the
/// model.
pub fn statements<S: Program<Examples = StatedPairs>>(
    config: &TrainingConfig<S::Config>,
    options: &Options,
    resumed: Option<&Path>,
    test: impl FnOnce(Arc<Statements>, Loader<StatedPairs>) -> S::Test,
) -> Result<Data<S>> {
    let data = &config.shared.data;
    let path = locate(data, &options.scenes, "statements", |folder, scenes| {
        scenes::generate_statements(folder, scenes)
    })?;
    let statements = Arc::new(Statements::read(&path, data.skip_bad)?);
    report_skipped(&statements.skipped, "statement");
    let files = statements.files.iter();
    let files: Vec<_> = files.map(|file| file.display().to_string()).collect();
    let name = files.join(", ");
    say(format_args!("Data: {name}"));
    let train = || statements.texts(Split::Train);
    let train = || {
        ensure!(
            train().next().is_some(),
            "{name} has no statement in the split train"
        );
        Ok(train())
    };
    let tokenizer = Arc::new(open_tokenizer(config, resumed, train)?);
    let all = statements.items.par_iter();
    report_cut(
        &tokenizer,
        config,
        all.map(|statement| statement.text.as_str()),
        "statement",
    )?;
    let pairs = StatedPairs::new(statements.clone(), tokenizer.clone(), config.transform())?;
    let loader = config.loader(options.workers, &options.device, [0, 1]);
    let held_out = Loader::ordered(pairs.clone(), Split::Test, loader)?;
    let [train, valid] = training_loaders(config, options, pairs)?;
    Ok(Data {
        train,
        valid,
        fingerprint: format!("{} {}", statements.fingerprint(), tokenizer.fingerprint()),
        tokenizer,
        dataset: dataset(name, &statements),
        test: test(statements, held_out),
    })
}

fn dataset(name: String, statements: &Statements) -> report::Dataset {
    let splits = Split::ALL.map(|split| {
        let items = || statements.items.iter().filter(|item| item.split == split);
        let images: HashSet<&PathBuf> = items().flat_map(|item| &item.images).collect();
        report::Split {
            name: split.name().to_string(),
            images: images.len() as u64,
            captions: items().count() as u64,
        }
    });
    report::Dataset {
        name,
        splits: splits.to_vec(),
    }
}
