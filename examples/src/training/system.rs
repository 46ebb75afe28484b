//! What is trained as a whole, and how one of its steps goes.
//!
//! A [`System`] is a Burn module with everything that a step needs: the models, the objectives, and
//! what is carried from step to step, such as momentum copies and queues. All of it is in the
//! module's record, so that a checkpoint restores it bit for bit. The order within a step has one
//! owner, [`strategy`](super::strategy):
//!
//! ```text
//! System::at             values that change while training proceeds
//! System::train_on       momentum forward → losses → backward
//! the optimiser
//! System::updated        clamp → momentum update → queue push
//! ```
//!
//! Optimiser, schedule, checkpoints and progress are the same for all systems. What a system's
//! program reads, measures and reports is its [`Program`](super::run::Program).

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use burn::module::{Module, ModuleDisplay};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use burn_contrastive::sharded::Sharding;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::comparison::Share;
use super::config::TrainingConfig;
use super::output::Output;
use crate::data::{Examples, Shard, TokenStyle};
use crate::published::Published;

/// An example of a system on the host, ready to become a row of tensors.
pub type Item<S> = <<S as System>::Examples as Examples>::Item;

/// What is trained: see [the module](self).
pub trait System: Module + ModuleDisplay + Sync + 'static {
    /// The name of its program.
    const NAME: &'static str;

    /// The names of the losses that its loss is the sum of; empty where it is one.
    const LOSSES: &'static [&'static str] = &[];

    /// The names of the figures that its validation measures besides the loss.
    const FIGURES: &'static [&'static str] = &[];

    /// Whether its outputs have embeddings of images and of captions, which find each other.
    const RETRIEVES: bool = false;

    /// Its settings.
    type Config: SystemConfig<System = Self>;

    /// What it is trained on.
    type Examples: Examples;

    /// What a batch leaves for [`updated`](Self::updated), such as features for a queue.
    type Carry: Send;

    /// The same system before its first step, when its parameters have their initial values: what
    /// starts as a copy of them is copied, and frozen teachers are read.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    fn begun(self, _config: &Self::Config) -> Result<Self> {
        Ok(self)
    }

    /// The same system at a moment of its training: whatever follows a schedule has its value of
    /// that moment.
    fn at(self, moment: &Moment) -> Self;

    /// A batch forward and backward; of several workers each has its own shards of it.
    fn train_on(&self, batch: &[Shard<Item<Self>>], sharding: &Sharding) -> Step<Self::Carry>;

    /// The same system after an optimiser step, given what its batches have left: parameters are
    /// put back into their ranges, momentum copies follow, queues take the new features.
    fn updated(self, carried: Vec<Self::Carry>) -> Self;

    /// A batch forward, without autodiff, for validation.
    fn infer(&self, batch: &[Shard<Item<Self>>]) -> Output;

    /// The factor that multiplies the similarities, 1/τ, if an objective has one.
    fn logit_scale(&self) -> Option<Tensor<1>>;

    /// The trained parts with their numbers of parameters.
    fn parts(&self) -> Vec<(&'static str, usize)>;

    /// The device that it computes on.
    fn device(&self) -> Device {
        let mut devices = self.devices();
        let with_autodiff = devices.iter().position(Device::is_autodiff);
        devices.swap_remove(with_autodiff.unwrap_or(0))
    }
}

/// The settings of a system.
pub trait SystemConfig:
    Clone + std::fmt::Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The system.
    type System: System<Config = Self>;

    /// All settings of a training, at their defaults.
    fn defaults() -> TrainingConfig<Self>;

    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    fn check(&self) -> Result<()>;

    /// The settings for which `value`, of the setting `key`, is short, such as a preset's name;
    /// `None` where it is short for none.
    fn preset(_key: &str, _value: &Value) -> Option<Result<Value>> {
        None
    }

    /// The settings of a run that starts from the weights of another: the defaults, with what is
    /// taken over from the settings of the earlier run.
    ///
    /// # Errors
    ///
    /// If that is a run of a system whose weights this one cannot start from.
    fn started_from(earlier: &Value) -> Result<TrainingConfig<Self>>;

    /// The settings of a run that starts from published weights: the shapes follow from them.
    ///
    /// # Errors
    ///
    /// If they are of another kind of model.
    fn started_from_published(published: &Published) -> Result<TrainingConfig<Self>> {
        bail!(not_whole::<Self>(published))
    }

    /// Its modules that published weights of one tower can start.
    fn towers() -> Towers {
        Towers::default()
    }

    /// How many layers its BERT has before a fusion half: the first ones of a published BERT.
    fn text_layers(&self) -> usize {
        0
    }

    /// Names, in settings that were taken over from the run in the folder `run`, what that run's
    /// stages left there and this one needs.
    fn taken_from(&mut self, _run: &Path) {}

    /// What an earlier run's weights need not have, and may have beside.
    fn rules(&self) -> InitRules {
        InitRules::default()
    }

    /// The paths in this system of what an earlier run's weights have at `path`: several for what
    /// starts as copies.
    fn renamed(&self, path: &str) -> Vec<String> {
        vec![path.to_string()]
    }

    /// Whether training draws dropout masks.
    fn has_dropout(&self) -> bool;

    /// Height and width of its images, in pixels.
    fn image_size(&self) -> usize;

    /// What its texts may be.
    fn text(&self) -> TextLimits;

    /// Its paths of files, which are made absolute: a run may be resumed from another folder.
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        Vec::new()
    }

    /// What gives each of `runs`, which vary the settings of `all`, what all share that is trained
    /// before them; `None` where each trains all that it needs.
    fn share(_all: &TrainingConfig<Self>, _runs: &[&TrainingConfig<Self>]) -> Option<Share<Self>> {
        None
    }

    /// A new system on `device`.
    fn init(&self, device: &Device) -> Self::System;
}

/// What the texts of a system may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLimits {
    /// Tokens that the model has room for.
    pub vocabulary: usize,
    /// The setting that says so.
    pub vocabulary_key: &'static str,
    /// Longest text in tokens, special ones included.
    pub context: usize,
    /// The setting that says so.
    pub context_key: &'static str,
    /// How texts are read.
    pub style: TokenStyle,
}

/// Says that a system cannot start from published weights as a whole.
pub(crate) fn not_whole<C: SystemConfig>(published: &Published) -> String {
    let file = published.path.display();
    format!(
        "{file} has the layout of {}, which {} cannot start from as a whole: name the module that \
         it is for, as in --init {file}:model.image, --init-image {file} or --init-text {file}, \
         beside the settings that fit it",
        published.layout.name(),
        C::System::NAME,
    )
}

/// The paths of a system's modules that published weights of one tower can start, where it has
/// such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Towers {
    /// The image encoder.
    pub image: Option<&'static str>,
    /// The text encoder.
    pub text: Option<&'static str>,
    /// The language head of that text encoder.
    pub language_head: Option<&'static str>,
}

/// Which parameters weights of an earlier run may lack or have beside, unasked: regular expressions
/// of paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InitRules {
    /// They start anew, or as copies.
    pub new: &'static [&'static str],
    /// They stay unused.
    pub unused: &'static [&'static str],
}

/// How far a training is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// The run's seed.
    pub seed: u64,
    /// Optimiser steps done.
    pub step: usize,
    /// The share of all steps that is done, in [0, 1].
    pub progress: f64,
    /// Passes over the data that are done, with the part of the current one.
    pub epochs: f64,
}

/// What a batch gives when a system is trained on it.
pub struct Step<C> {
    /// What was measured.
    pub output: Output,
    /// The gradients of the loss by the system's parameters.
    pub gradients: GradientsParams,
    /// What is left for [`System::updated`].
    pub carry: C,
}
