//! The work: one trial after the other, until none is left that another program does not do.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor};

use super::chance::Chance;
use super::contenders::Contender;
use super::data::Material;
use super::embeddings;
use super::figures::{Figures, Truth};
use super::plan::{Left, teacher};
use super::results::{Claim, Made, Results, Run, Store};
use super::setup::Setup;
use super::trial::{Stage, Teacher, Trained, Trial};
use crate::files;
use crate::report::html::duration;

/// How long a program waits for a run of another one that the next ones need.
const PAUSE: Duration = Duration::from_millis(300);

/// What is compared, where, and by what.
pub struct Comparison {
    /// What all runs share.
    pub setup: Setup,
    /// The names of the objectives that take part; all, if it is empty.
    pub only: Vec<String>,
    /// The folder of the results.
    pub folder: PathBuf,
    /// Where generated scenes are kept.
    pub scenes: PathBuf,
    /// Whether to keep the embeddings of the test images.
    pub keeps_embeddings: bool,
    /// Programs that work side by side, for the record.
    pub jobs: usize,
    /// What to compute on.
    pub device: Device,
}

/// A program at work.
struct Worker<'a> {
    comparison: &'a Comparison,
    store: Store,
    material: Material,
    truths: [Truth; 2],
    teacher: Option<Teacher>,
}

/// What a worker does next.
enum Next {
    Run(Box<Trial>, Claim),
    Wait,
    Nothing,
}

impl Comparison {
    /// Whether an objective takes part.
    pub fn has(&self, contender: &Contender) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == contender.name)
    }

    /// Reads the data, so that what is bad is found once and at the beginning, writes down the
    /// setup, and removes what programs that were killed have left.
    ///
    /// # Errors
    ///
    /// As [`work`](Self::work).
    pub fn begin(&self) -> Result<()> {
        let material = Material::open(&self.setup, &self.scenes)?;
        let store = Store::open(&self.folder)?;
        store.with(&self.setup, &material.fingerprint, |_| {
            store.remove_ended_claims()?;
            Ok(((), true))
        })
    }

    /// Runs what is left, as far as no other program does, and tells of each run.
    ///
    /// # Errors
    ///
    /// On bad data, on files that cannot be read or written, and if the results in the folder are
    /// of another setup. A run that fails is a result, not an error.
    pub fn work(&self, tell: impl Fn(String)) -> Result<()> {
        let store = Store::open(&self.folder)?;
        let material = Material::open(&self.setup, &self.scenes)?;
        let mut worker = Worker {
            comparison: self,
            truths: [Truth::of(&material.validation), Truth::of(&material.test)],
            teacher: None,
            store,
            material,
        };
        let chance = Chance::of(&worker.truths[1]);
        worker.with(|results| {
            let is_new = results.chance.as_ref() != Some(&chance);
            results.chance = Some(chance);
            Ok(((), is_new))
        })?;
        loop {
            match worker.next()? {
                Next::Run(trial, claim) => tell(worker.run(&trial, claim)?),
                Next::Wait => std::thread::sleep(PAUSE),
                Next::Nothing => return Ok(()),
            }
        }
    }
}

impl Worker<'_> {
    fn with<T>(&self, change: impl FnOnce(&mut Results) -> Result<(T, bool)>) -> Result<T> {
        let data = &self.material.fingerprint;
        self.store.with(&self.comparison.setup, data, change)
    }

    fn left(&self, results: &Results) -> Left {
        Left::of(results, |contender| self.comparison.has(contender))
    }

    fn next(&self) -> Result<Next> {
        self.with(|results| {
            let left = self.left(results);
            for trial in left.ready {
                if let Some(claim) = self.store.claim(&trial)? {
                    return Ok((Next::Run(Box::new(trial), claim), false));
                }
            }
            let next = if left.waiting.is_empty() {
                Next::Nothing
            } else {
                Next::Wait
            };
            Ok((next, false))
        })
    }

    /// Runs a trial and adds it to the results; what to tell of it.
    fn run(&mut self, trial: &Trial, claim: Claim) -> Result<String> {
        let since = Instant::now();
        if trial.needs_teacher() && self.teacher.is_none() {
            self.teacher = Some(self.read_teacher()?);
        }
        let trained = self.train(trial);
        let mut run = match trained {
            Ok(trained) => self.measured(trial, trained)?,
            Err(error) => failed(trial, format!("{error:#}")),
        };
        run.seconds = since.elapsed().as_secs_f64();
        run.made = Some(Made::now(self.comparison.jobs));
        let told = told(&run);
        let left = self.with(|results| {
            results.add(run);
            Ok((self.left(results).count(), true))
        })?;
        drop(claim);
        Ok(format!("{told}; {left} left"))
    }

    fn train(&self, trial: &Trial) -> Result<Trained> {
        let Comparison { setup, device, .. } = self.comparison;
        trial.train(setup, &self.material, self.teacher.as_ref(), device)
    }

    /// The teacher's embeddings of all training pairs: those of its run, made again if they were
    /// lost.
    fn read_teacher(&self) -> Result<Teacher> {
        let trial = self.with(|results| Ok((teacher(results), false)))?;
        let trial = trial.context("the settings of the teacher are not chosen yet")?;
        let path = self.teacher_path(&trial)?;
        if !path.exists() {
            let trained = self.train(&trial).context("the teacher")?;
            self.write_teacher(&trained, &path)?;
        }
        Teacher::read(&path, &self.comparison.device)
    }

    fn teacher_path(&self, trial: &Trial) -> Result<PathBuf> {
        let (training, data) = (&self.comparison.setup.training, &self.material.fingerprint);
        let of = format!(
            "{} {data} {}",
            serde_json::to_string(trial)?,
            training.to_json()?
        );
        let name = files::sha256(&mut of.as_bytes())?;
        Ok(self
            .store
            .path(&format!("teacher-{}.safetensors", &name[..16])))
    }

    fn write_teacher(&self, trained: &Trained, path: &Path) -> Result<()> {
        let train = &self.material.train;
        let [images, texts] = self.embed(trained, Stage::Teacher);
        Teacher { images, texts }.write(path, &train.image_of_caption)
    }

    /// Embeddings of the images that a stage is measured on: of all training pairs, for a teacher.
    fn embed(&self, trained: &Trained, stage: Stage) -> [Tensor<2>; 2] {
        let part = match stage {
            Stage::Teacher => &self.material.train,
            Stage::Search => &self.material.validation,
            Stage::Compare => &self.material.test,
        };
        self.material
            .embed(part, &trained.model, &self.comparison.device)
    }

    fn measured(&self, trial: &Trial, trained: Trained) -> Result<Run> {
        if trial.stage == Stage::Teacher {
            self.write_teacher(&trained, &self.teacher_path(trial)?)?;
        }
        let [of_validation, of_test] = &self.truths;
        let validation = Figures::of(&self.embed(&trained, Stage::Search), of_validation);
        let test = if trial.stage.is_tested() {
            let embedded = self.embed(&trained, Stage::Compare);
            if self.comparison.keeps_embeddings {
                self.keep(trial, &embedded, &trained)?;
            }
            Some(Figures::of(&embedded, of_test))
        } else {
            None
        };
        Ok(Run {
            trial: trial.clone(),
            failure: None,
            validation: validation.retrieval.recall_sum,
            test,
            looks: trained.looks,
            step_seconds: trained.step_seconds,
            step_bytes: trained.step_bytes,
            seconds: 0.0,
            made: None,
        })
    }

    /// Keeps what the figures of a run are computed from.
    fn keep(&self, trial: &Trial, embedded: &[Tensor<2>; 2], trained: &Trained) -> Result<()> {
        let folder = self.store.path("embeddings");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("{} could not be made", folder.display()))?;
        let name = format!("{}-{}-{}", trial.contender, trial.rate, trial.seed);
        let [images, texts] = embedded;
        embeddings::write(
            &folder.join(format!("{name}.safetensors")),
            &[("image", images), ("text", texts)],
            &[("image_id", &self.material.test.image_of_caption)],
        )?;
        trained
            .probe
            .write(&folder.join(format!("{name}-weights.safetensors")))
    }
}

fn failed(trial: &Trial, why: String) -> Run {
    Run {
        trial: trial.clone(),
        failure: Some(why),
        validation: f64::NAN,
        test: None,
        looks: Vec::new(),
        step_seconds: f64::NAN,
        step_bytes: None,
        seconds: 0.0,
        made: None,
    }
}

/// A line about a run that ended.
fn told(run: &Run) -> String {
    let Trial {
        stage,
        contender,
        rate,
        seed,
        ..
    } = &run.trial;
    let percent = 100.0 * rate;
    let stage = match stage {
        Stage::Teacher => "teacher",
        Stage::Search => "search",
        Stage::Compare => "compare",
    };
    let result = match (&run.failure, &run.test) {
        (Some(why), _) => format!("failed: {why}"),
        (None, Some(test)) => format!("test R@sum {:.1}", test.retrieval.recall_sum),
        (None, None) => format!("validation R@sum {:.1}", run.validation),
    };
    let time = duration(run.seconds).unwrap_or_default();
    format!("{stage}: {contender} at {percent} %, seed {seed}: {result} ({time})")
}
