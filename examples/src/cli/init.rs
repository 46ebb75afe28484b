//! `--init`, `--init-image` and `--init-text`: which weights a run starts from, and the settings
//! that come with them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::TrainingArguments;
use crate::published::Published;
use crate::training::config::TrainingConfig;
use crate::training::run::{CONFIG_FILE, Program};
use crate::training::system::SystemConfig;
use crate::training::weights::{InitConfig, InitSource};

/// The weights that the options name.
///
/// # Errors
///
/// If the system has no such encoder, or two of them are for all of it.
pub(super) fn init<S: Program>(arguments: &TrainingArguments) -> Result<Option<InitConfig>> {
    let sources = arguments.init.iter().map(|text| text.parse());
    let mut sources = sources.collect::<Result<Vec<InitSource>>>()?;
    let towers = S::Config::towers();
    for (option, article, file, path) in [
        ("image", "an", &arguments.init_image, towers.image),
        ("text", "a", &arguments.init_text, towers.text),
    ] {
        let Some(file) = file else {
            continue;
        };
        let path = path.with_context(|| {
            format!(
                "--init-{option} {}: {} has no encoder that {article} {option} encoder's weights \
                 could start",
                file.display(),
                S::NAME
            )
        })?;
        ensure!(
            file.is_file(),
            "--init-{option} {}: there is no such file",
            file.display()
        );
        let layout = Published::open(file)?.layout;
        ensure!(
            layout.has_encoder(option),
            "--init-{option} {}: it has the layout of {}, which has no {option} encoder",
            file.display(),
            layout.name()
        );
        sources.push(InitSource::part_of(file.clone(), path));
    }
    InitConfig::of(sources)
}

/// The settings of a run that starts from these weights: those that a system takes over from the
/// first run among them, or from a file that starts all of it; and the tokenizer.
pub(super) fn started_from<S: Program>(init: InitConfig) -> Result<TrainingConfig<S::Config>> {
    let is_part = |source: &InitSource| source.is_published() && source.path.is_some();
    // Of parts, the settings say what the whole is.
    let mut config = match init.sources().iter().find(|source| !is_part(source)) {
        Some(source) => settings_of::<S>(source)?,
        None => TrainingConfig::default(),
    };
    config.shared.data.tokenizer = init.tokenizer(S::Config::towers());
    config.shared.init = Some(init);
    Ok(config)
}

/// The settings that a system takes over from a run, or from a file that starts all of it.
fn settings_of<S: Program>(source: &InitSource) -> Result<TrainingConfig<S::Config>> {
    let run = &source.run;
    let none = || format!("--init: no run in {}, nor weights", run.display());
    if source.is_published() {
        let published = Published::open(run).with_context(none)?;
        return S::Config::started_from_published(&published);
    }
    let file = run.join(CONFIG_FILE);
    let read = || -> Result<Value> { Ok(serde_json::from_slice(&std::fs::read(&file)?)?) };
    let earlier = read().with_context(none)?;
    let config = S::Config::started_from(&earlier);
    let mut config = config.with_context(|| format!("--init {}", run.display()))?;
    config.system.taken_from(run);
    Ok(config)
}
