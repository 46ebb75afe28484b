//! What `visual-semantic` reads, measures and reports.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::Tensor;
use burn::train::Interrupter;
use burn_contrastive::retrieval::CrossModalMetrics;

use super::VisualSemantic;
use super::config::{FeaturesConfig, VisualSemanticConfig, of_phase};
use crate::console::say;
use crate::data::{CaptionBatch, EvaluationSet, FeatureFile, FeaturePairs, Pairs, WordVectors};
use crate::models::GruEncoderConfig;
use crate::number::counted;
use crate::report::{Fact, RunReport};
use crate::training::config::TrainingConfig;
use crate::training::evaluation::{Embedded, EmbedsPairs, Retrieved};
use crate::training::history::History;
use crate::training::inputs::{self, Data};
use crate::training::run::{self, CONFIG_FILE, Ended, METRICS_FILE, Options, Program, stage};
use crate::training::weights::InitConfig;

/// The word vectors in the folder of a run that starts from some.
const VECTORS: &str = "word_vectors.safetensors";

impl EmbedsPairs for VisualSemantic {
    fn embed_images(&self, images: Tensor<4>) -> Tensor<2> {
        self.embed_image(images)
    }

    fn embed_captions(&self, captions: CaptionBatch) -> Tensor<2> {
        self.embed_text(captions.tokens, captions.padding)
    }
}

/// What [`VisualSemantic`] is evaluated on.
pub struct VisualSemanticTest {
    /// The held-out pairs.
    pub set: EvaluationSet,
    /// The features of its images, if they are read.
    features: Option<Arc<FeatureFile>>,
    /// Whether the run starts from a base network, which is evaluated before the training.
    has_base: bool,
}

/// What [`VisualSemantic`] scores.
pub struct VisualSemanticScores {
    /// Retrieval on the held-out pairs.
    pub retrieved: Retrieved,
    /// That of the base network, which the run starts from.
    pub base: Option<CrossModalMetrics>,
}

impl Program for VisualSemantic {
    const TITLE: &'static str = "Visual-semantic embedding";

    type Test = VisualSemanticTest;
    type Scores = VisualSemanticScores;

    fn open(
        config: &TrainingConfig<VisualSemanticConfig>,
        options: &Options,
        resumed: Option<&Path>,
    ) -> Result<Data<Self>> {
        let base = config.system.base.as_ref();
        // Encoders alone start the first phase of a base network that is trained first.
        let mut sources = config.shared.init.iter().flat_map(InitConfig::sources);
        let is_trained = base.is_some_and(|base| base.run.is_some());
        ensure!(
            base.is_none() || sources.all(|source| source.path.is_some() && !is_trained),
            "init and base both say which weights to start from: set base=null"
        );
        ensure!(
            config.system.model.text.vectors.is_none() || !starts(config, "text"),
            "init and model.text.vectors both say which word vectors to start from: set \
             model.text.vectors=null"
        );
        if resumed.is_none() {
            check_encoder(config)?;
        }
        let mut fingerprint = None;
        let mut data = inputs::captioned(config, options, resumed, |collection, tokenizer| {
            let pairs = Pairs::new(collection.clone(), tokenizer.clone(), config.transform())?;
            let features = open_features(config, &pairs, resumed.is_none());
            let features = features.context("features.file")?;
            let own = features.as_ref().map(|file| file.fingerprint());
            fingerprint = own.transpose().context("features.file")?;
            let test = VisualSemanticTest {
                set: inputs::held_out(config, options, collection, tokenizer)?,
                features: features.clone(),
                has_base: base.is_some(),
            };
            Ok((FeaturePairs::new(pairs, features), test))
        })?;
        if let Some(features) = fingerprint {
            data.fingerprint += &format!(" {features}");
        }
        if let Some(run) = base.and_then(|base| base.run.as_ref()) {
            let is_new = resumed.is_none();
            check_base(run, config, &data, is_new).context("base.run")?;
        }
        Ok(data)
    }

    /// Trains the base network, where there is none yet; that reads the word vectors.
    fn prepare(
        config: &TrainingConfig<VisualSemanticConfig>,
        data: &Data<Self>,
        options: &Options,
        run: &Path,
        interrupter: &Interrupter,
    ) -> Result<Option<TrainingConfig<VisualSemanticConfig>>> {
        let mut config = config.clone();
        let base = config.system.base.as_ref();
        if base.is_none_or(|base| base.run.is_some()) {
            if base.is_none() {
                let vectors = own_vectors(&config.system.model.text, data, options, run);
                config.system.model.text.vectors = vectors.context("model.text.vectors")?;
            }
            return Ok(Some(config));
        }
        let mut earlier = None;
        for (name, phase) in config.system.phases() {
            let mut phase = of_phase(&config, phase);
            if earlier.is_some() {
                // What is warmed up stays warm.
                phase.system.objective = phase.system.objective.unscheduled();
                phase.system.model.text.vectors = None;
            }
            phase.shared.init = match earlier {
                Some(run) => Some(InitConfig::all_of(run)),
                None => config.shared.init.clone(),
            };
            let name = format!("base-{name}");
            earlier = stage::<Self>(&name, &phase, options, run, interrupter)?;
            if earlier.is_none() {
                return Ok(None);
            }
        }
        if let Some(base) = &mut config.system.base {
            base.run = earlier;
        }
        config.shared.init = None;
        Ok(Some(config))
    }

    /// Before the training, the base network is evaluated too: new heads say nothing about it.
    fn evaluate(
        &self,
        test: &VisualSemanticTest,
        batch_size: usize,
        is_trained: bool,
    ) -> Result<VisualSemanticScores> {
        let base = (test.has_base && !is_trained).then(|| self.base());
        let base = base.map(|base| base.retrieved(test, batch_size));
        Ok(VisualSemanticScores {
            base: base.transpose()?.map(|base| base.metrics()),
            retrieved: self.retrieved(test, batch_size)?,
        })
    }

    fn before(test: &VisualSemanticTest, scores: &VisualSemanticScores) -> String {
        let before = scores.retrieved.before(&test.set);
        match &scores.base {
            Some(base) => format!("{before}\nThe base network, without heads\n{base}\n"),
            None => before,
        }
    }

    fn after(_test: &VisualSemanticTest, scores: &VisualSemanticScores) -> String {
        scores.retrieved.after()
    }

    fn report(
        test: &VisualSemanticTest,
        before: Option<&VisualSemanticScores>,
        after: &VisualSemanticScores,
        _history: &History,
    ) -> RunReport {
        let retrieval = before.map(|before| &before.retrieved);
        let base = before.and_then(|before| before.base.as_ref());
        let base = base.map(|base| Fact::of_retrieval("Base network", base));
        let report = after.retrieved.report(&test.set, retrieval);
        report.with_facts_before(base.into_iter().flatten())
    }

    fn run(
        config: &TrainingConfig<VisualSemanticConfig>,
        options: &Options,
        interrupter: Interrupter,
    ) -> Result<Ended<Self>> {
        run::run(config, options, interrupter)
    }
}

impl VisualSemantic {
    fn retrieved(&self, test: &VisualSemanticTest, batch_size: usize) -> Result<Retrieved> {
        let Some(file) = &test.features else {
            return Retrieved::new(self, &test.set, batch_size);
        };
        let model = self.valid();
        let device = model.devices().swap_remove(0);
        let batches = test.set.indices().chunks(batch_size);
        let images = batches.map(|images| Ok(model.embed_features(file.batch(images, &device)?)));
        let images = Tensor::cat(images.collect::<Result<_>>()?, 0);
        let embedded = Embedded::of_images(images, self, &test.set, batch_size)?;
        let ranks = embedded.ranks();
        Ok(Retrieved::of(embedded, ranks))
    }
}

/// The configured features, if there are, which must fit the model. All are read where the run
/// `is_new`: one that goes on has seen them.
fn open_features(
    config: &TrainingConfig<VisualSemanticConfig>,
    pairs: &Pairs,
    is_new: bool,
) -> Result<Option<Arc<FeatureFile>>> {
    let FeaturesConfig { file, width } = &config.system.features;
    let Some(path) = file else {
        return Ok(None);
    };
    let file = FeatureFile::open(path, pairs.collection())?;
    ensure!(
        file.width() == *width,
        "{}: its features are {} wide and the model reads {width}: set features.width={}",
        path.display(),
        file.width(),
        file.width()
    );
    if is_new {
        file.check()?;
    }
    Ok(Some(Arc::new(file)))
}

/// Checks that no image encoder is frozen whose weights are new, and as good as noise.
fn check_encoder(config: &TrainingConfig<VisualSemanticConfig>) -> Result<()> {
    let system = &config.system;
    if system.reads_features() {
        return Ok(());
    }
    let (key, trains) = match &system.base {
        Some(base) => (
            "base.first.train_image",
            base.run.is_some() || base.first.train_image || starts(config, "image"),
        ),
        None => (
            "train_image",
            config.shared.init.is_some() || system.train_image,
        ),
    };
    ensure!(
        trains,
        "{key} = false would freeze an image encoder whose weights are new, and learn from noise: \
         set {key}=true, or features.file to a file of features of a trained one"
    );
    Ok(())
}

/// Whether the module of that name has the weights of another run, or published ones.
fn starts(config: &TrainingConfig<VisualSemanticConfig>, module: &str) -> bool {
    let sources = config.shared.init.iter().flat_map(InitConfig::sources);
    let mut paths = sources.map(|source| source.path.as_deref());
    paths.any(|path| path.is_none_or(|path| path.split('.').next() == Some(module)))
}

/// The word vectors in the folder of a run. They are read from the file that the settings name when
/// the run begins, and kept there: it needs that file no more when it is resumed.
fn own_vectors(
    text: &GruEncoderConfig,
    data: &Data<VisualSemantic>,
    options: &Options,
    run: &Path,
) -> Result<Option<PathBuf>> {
    let Some(file) = &text.vectors else {
        return Ok(None);
    };
    let path = std::path::absolute(run)?.join(VECTORS);
    if options.team.is_first() && !path.exists() {
        let vocabulary = data.tokenizer.vocabulary();
        let vectors = WordVectors::read(file, &vocabulary, text.words)?;
        say(format_args!(
            "Word vectors: {} has {} of the vocabulary's {}",
            file.display(),
            vectors.len(),
            counted(vocabulary.len() as u64, "token")
        ));
        vectors.save(&path)?;
    }
    // The others read it when it is there.
    options.team.of_first("")?;
    Ok(Some(path))
}

/// Checks that a run trained a base network that reads the tokens of these data; to its end, if it
/// `is_new` to this one.
fn check_base(
    run: &Path,
    config: &TrainingConfig<VisualSemanticConfig>,
    data: &Data<VisualSemantic>,
    is_new: bool,
) -> Result<()> {
    let its_own = TrainingConfig::<VisualSemanticConfig>::read(&run.join(CONFIG_FILE))?;
    ensure!(
        its_own.system.model.heads.is_none(),
        "{} has heads, a base network has none: its own is in {}",
        run.display(),
        run.join("base-second").display()
    );
    ensure!(
        !is_new || run.join(METRICS_FILE).is_file(),
        "{} is not finished: go on with it first, --resume {0}",
        run.display()
    );
    inputs::check_tokens(run, config, &data.tokenizer)
}
