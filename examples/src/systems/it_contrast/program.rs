//! What `it-contrast` reads, measures and reports.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::Device;
use burn::train::Interrupter;
use burn_contrastive::objective::InfoNceConfig;

use super::config::TOWER;
use super::regions::Tower;
use super::{ItContrast, ItContrastConfig, RegionsConfig, Similarity, States, late};
use crate::console::{say, warn};
use crate::data::regions::RegionBatch;
use crate::data::{Collection, EvaluationSet, Examples, Pairs, RegionFile, RegionPairs};
use crate::report::{Fact, Map, Maps, RunReport};
use crate::systems::clip::{Clip, ClipConfig};
use crate::training::config::{SharedConfig, TrainingConfig};
use crate::training::evaluation::{Embedded, Retrieved};
use crate::training::history::History;
use crate::training::inputs::{self, Data};
use crate::training::objective::TrainingObjective;
use crate::training::run::{self, Ended, Options, Program, stage};
use crate::training::system::System;

/// The file of regions that a run makes, in its folder.
const REGIONS: &str = "regions.safetensors";

/// What the settings lack where nothing gives the features of regions.
const NO_REGIONS: &str = "nothing gives the features of regions: set regions.file to a file of \
                          them, or regions.run to a run of clip whose image tower makes them";

/// What [`ItContrast`] is evaluated on.
pub struct RegionTest {
    /// The held-out pairs.
    pub set: EvaluationSet,
    /// Their regions, those of all images among them.
    pub regions: RegionPairs,
    pub(super) pairs_a_batch: usize,
    pub(super) seed: u64,
}

impl Program for ItContrast {
    const TITLE: &'static str = "ITContrast on regions";

    type Test = RegionTest;
    type Scores = Retrieved;

    fn open(
        config: &TrainingConfig<ItContrastConfig>,
        options: &Options,
        resumed: Option<&Path>,
    ) -> Result<Data<Self>> {
        let mut regions = None;
        let mut data = inputs::captioned(config, options, resumed, |collection, tokenizer| {
            let pairs = Pairs::new(collection.clone(), tokenizer.clone(), config.transform())?;
            let pairs = RegionPairs::new(pairs).with_tags(config.system.tags);
            check_tags(config, collection)?;
            if let Some(path) = &config.system.regions.file {
                let file = opened(path, config, &pairs).context("regions.file")?;
                // One that goes on has seen them.
                if resumed.is_none() {
                    file.check().context("regions.file")?;
                }
                regions = Some(file.fingerprint().context("regions.file")?);
                pairs.give(file);
            }
            let test = RegionTest {
                set: inputs::held_out(config, options, collection, tokenizer)?,
                regions: pairs.clone(),
                pairs_a_batch: config.shared.data.batch_size,
                seed: config.shared.seed,
            };
            Ok((pairs, test))
        })?;
        if let Some(regions) = regions {
            data.fingerprint += &format!(" {regions}");
        }
        Ok(data)
    }

    /// Trains the tower and has it look at the regions, where there is no file of them.
    fn prepare(
        config: &TrainingConfig<ItContrastConfig>,
        data: &Data<Self>,
        options: &Options,
        run: &Path,
        interrupter: &Interrupter,
    ) -> Result<Option<TrainingConfig<ItContrastConfig>>> {
        let mut config = config.clone();
        if config.system.regions.file.is_some() {
            return Ok(Some(config));
        }
        let has_tower = config.system.regions.run.is_some();
        let is_made = options.team.is_first() && run.join(REGIONS).exists();
        if !options.team.any(has_tower || is_made)? {
            let tower = stage::<Clip>(TOWER, &of_tower(&config), options, run, interrupter)?;
            let Some(tower) = tower else {
                return Ok(None);
            };
            config.system.regions.run = Some(tower);
        }
        if !Self::complete(&config, data, options, run, interrupter)? {
            say(format_args!(
                "\nInterrupted before all regions were seen. To go on:\n    {}",
                options.resume_command(run)
            ));
            return Ok(None);
        }
        config.system.regions.file = Some(std::path::absolute(run)?.join(REGIONS));
        Ok(Some(config))
    }

    /// Has the tower look at the regions, where there is no file of them.
    fn complete(
        config: &TrainingConfig<ItContrastConfig>,
        data: &Data<Self>,
        options: &Options,
        run: &Path,
        interrupter: &Interrupter,
    ) -> Result<bool> {
        let RegionsConfig {
            file,
            run: tower,
            boxes,
            ..
        } = &config.system.regions;
        if file.is_some() {
            return Ok(true);
        }
        let pairs = &data.test.regions;
        let path = run.join(REGIONS);
        // As the first worker finds it, before it makes one.
        let is_made = options.team.any(options.team.is_first() && path.exists())?;
        if !is_made {
            let mut is_there = true;
            if options.team.is_first() {
                let tower = tower.as_ref().context(NO_REGIONS)?;
                let tower = Tower::of_run(tower, &options.device).context("regions.run")?;
                check_width(tower.width(), config).context("regions.run")?;
                let seed = config.shared.seed;
                is_there = tower.write(&path, pairs.collection(), boxes, seed, interrupter)?;
            }
            if options.team.any(!is_there)? {
                return Ok(false);
            }
        }
        pairs.give(opened(&path, config, pairs)?);
        Ok(true)
    }

    fn evaluate(
        &self,
        test: &RegionTest,
        batch_size: usize,
        _is_trained: bool,
    ) -> Result<Retrieved> {
        let model = self.valid();
        let device = model.device();
        let images = model.images(test, batch_size, &device)?;
        let texts = model.captions(test, batch_size, &device);
        let embedded = match model.config.similarity {
            // Without the states of all, which may be gigabytes.
            Similarity::Pooled => {
                let [images, texts] = [late::all_means(images)?, late::all_means(texts)?];
                Embedded::from_parts(images, texts, &test.set)
            }
            Similarity::LateInteraction => {
                let images = States::all(images.collect::<Result<_>>()?);
                let texts = States::all(texts.collect::<Result<_>>()?);
                let similarities = late::similarities(&images, &texts);
                let tie = late::tie(&images, &texts);
                let embedded = Embedded::from_parts(images.mean(), texts.mean(), &test.set);
                embedded.with_similarities(similarities, tie)
            }
        };
        let ranks = embedded.ranks();
        Ok(Retrieved::of(embedded, ranks))
    }

    fn before(test: &RegionTest, scores: &Retrieved) -> String {
        scores.before(&test.set)
    }

    fn after(_test: &RegionTest, scores: &Retrieved) -> String {
        scores.after()
    }

    fn report(
        test: &RegionTest,
        before: Option<&Retrieved>,
        after: &Retrieved,
        _history: &History,
    ) -> RunReport {
        let fact = |name: &str, value: f64| Fact {
            name: name.to_string(),
            value,
            unit: None,
        };
        let pairs = test.pairs_a_batch as f64;
        let facts = [fact("Pairs a batch, N", pairs), fact("ln N", pairs.ln())];
        RunReport {
            maps: Maps {
                before: before.and_then(|before| map(before, test, "before")),
                after: map(after, test, "after"),
            },
            ..after.report(&test.set, before).with_facts_before(facts)
        }
    }

    fn run(
        config: &TrainingConfig<ItContrastConfig>,
        options: &Options,
        interrupter: Interrupter,
    ) -> Result<Ended<Self>> {
        run::run(config, options, interrupter)
    }
}

impl ItContrast {
    /// The states of all images of a test, in its order, `batch_size` at a time.
    fn images<'a>(
        &'a self,
        test: &'a RegionTest,
        batch_size: usize,
        device: &'a Device,
    ) -> Result<impl Iterator<Item = Result<States>> + 'a> {
        let file = test.regions.file()?;
        let look = move |images: &[usize]| -> Result<States> {
            let regions = images.iter().map(|&image| file.regions(image));
            let regions = regions.collect::<Result<Vec<_>>>()?;
            let tags = images.iter().map(|&image| test.regions.tags(image));
            let tags = tags.collect::<Result<Vec<_>>>()?;
            let batch = RegionBatch::new(regions.iter(), self.feature(), device);
            let batch = batch.with_tags(&tags, test.regions.padding(), device);
            Ok(self.look(batch).padded(file.room()))
        };
        Ok(test.set.indices().chunks(batch_size).map(look))
    }

    /// The states of all captions of a test, in its order, `batch_size` at a time.
    fn captions<'a>(
        &'a self,
        test: &'a RegionTest,
        batch_size: usize,
        device: &'a Device,
    ) -> impl Iterator<Item = Result<States>> + 'a {
        let batches = test.set.caption_batches(batch_size, device);
        batches.map(|captions| {
            let batch = captions.context("a caption of the evaluation could not be read")?;
            let states = self.read(batch.tokens, batch.padding);
            Ok(states.padded(self.config.tokens))
        })
    }
}

/// The map of what was scored, or why there is none: a report without it is better than none.
fn map(scores: &Retrieved, test: &RegionTest, when: &str) -> Option<Map> {
    let map = scores.map(test.seed);
    map.inspect_err(|error| {
        warn(format_args!(
            "No map of the embeddings {when} training: {error:#}"
        ));
    })
    .ok()
}

/// A file of regions that fits the model.
fn opened(
    path: &Path,
    config: &TrainingConfig<ItContrastConfig>,
    pairs: &RegionPairs,
) -> Result<RegionFile> {
    let file = RegionFile::open(path, pairs.collection())?;
    check_width(file.width(), config).with_context(|| path.display().to_string())?;
    ensure!(
        !config.system.tags || file.has_tags(),
        "{}: it has no `class`, which says what each region shows: set tags=false",
        path.display()
    );
    Ok(file)
}

/// Checks, before a tower is trained, that tags will be there if they are to be read.
fn check_tags(config: &TrainingConfig<ItContrastConfig>, collection: &Collection) -> Result<()> {
    let ItContrastConfig { tags, regions, .. } = &config.system;
    ensure!(
        !tags || regions.file.is_some() || regions.boxes.classes(collection).is_some(),
        "{}: its images are no scenes, whose objects are known: set regions.file to a file that \
         says what each region shows, or tags=false",
        collection.file.display()
    );
    Ok(())
}

fn check_width(width: usize, config: &TrainingConfig<ItContrastConfig>) -> Result<()> {
    let feature = config.system.model.feature;
    ensure!(
        width == feature,
        "its features are {width} wide and the model reads {feature}: set model.feature={width}"
    );
    Ok(())
}

/// How the tower is trained: as `clip` is, on the data of the run, by plain contrast.
fn of_tower(config: &TrainingConfig<ItContrastConfig>) -> TrainingConfig<ClipConfig> {
    let (system, shared) = (&config.system, &config.shared);
    let tower = &system.regions.tower;
    let mut model = tower.model.clone();
    model.text.vocabulary = system.model.bert.vocabulary;
    model.text.context = system.tokens;
    let mut clip = TrainingConfig {
        system: ClipConfig {
            model,
            objective: TrainingObjective::InfoNce(InfoNceConfig::new()),
        },
        shared: SharedConfig {
            seed: shared.seed,
            data: shared.data.clone(),
            sharding: shared.sharding.clone(),
            validation: shared.validation.clone(),
            checkpoints: shared.checkpoints.clone(),
            ..SharedConfig::default()
        },
    };
    let schedule = &mut clip.shared.schedule;
    schedule.steps = tower.steps;
    schedule.epochs = None;
    schedule.warmup_steps = schedule.warmup_steps.min(tower.steps / 10);
    clip.shared.data.batch_size = tower.batch_size;
    clip.shared.data.equal_meaning = 0.0;
    clip
}
