//! Any objective, as one module.

use burn::module::Module;
use burn::tensor::Tensor;

use super::catalogue::AnyObjective;
use super::sum::WeightedSum;
use crate::objective::entry::{Evaluate, Features, Input};
use crate::objective::{Context, Contrastive, Ids, Momentum, Negatives, Teacher};
use crate::schedule::{Schedule, Settings};
use crate::similarity::LogitScale;

/// An objective by name; built by [`ObjectiveConfig::init`](super::ObjectiveConfig::init), or from
/// one at hand with [`new`](Self::new).
#[derive(Module, Debug)]
pub struct Objective {
    /// Which objective.
    pub kind: AnyObjective,
    #[module(skip)]
    name: String,
    #[module(skip)]
    needs: Vec<Input>,
    #[module(skip)]
    uses: Vec<Input>,
    #[module(skip)]
    schedules: Settings<Schedule>,
}

impl From<WeightedSum> for Objective {
    fn from(sum: WeightedSum) -> Self {
        // Its terms have their own inputs and schedules.
        Self::new("sum", AnyObjective::WeightedSum(sum), [])
    }
}

impl Objective {
    /// An objective under the name that messages give it, with the inputs that it needs besides
    /// image and text.
    ///
    /// ```
    /// use burn::tensor::{Device, Distribution, Tensor};
    /// use burn_contrastive::objective::{
    ///     AnyObjective, ContrastiveConfig, Criterion, Features, Input, Objective,
    /// };
    ///
    /// // Decoupled, with a queue of texts: no paper's, and so without a name.
    /// let device = Device::default();
    /// let contrast = ContrastiveConfig::new()
    ///     .with_criterion(Criterion::new().with_decoupled(true))
    ///     .init(&device);
    /// let objective =
    ///     Objective::new("mine", AnyObjective::Contrastive(contrast), [Input::QueueText]);
    ///
    /// let random = |rows| Tensor::<2>::random([rows, 16], Distribution::Default, &device);
    /// let features = Features {
    ///     queue_text: Some(random(32)),
    ///     ..Features::new(random(8), random(8))
    /// };
    /// assert_eq!(objective.forward(&features).dims(), [1]);
    /// ```
    pub fn new(name: &str, kind: AnyObjective, needs: impl IntoIterator<Item = Input>) -> Self {
        Self {
            kind,
            name: name.to_string(),
            needs: needs.into_iter().collect(),
            uses: Vec::new(),
            schedules: Settings::default(),
        }
    }

    /// With inputs that it uses where they are there.
    pub fn with_uses(self, uses: impl IntoIterator<Item = Input>) -> Self {
        Self {
            uses: uses.into_iter().collect(),
            ..self
        }
    }

    /// With schedules of what changes while training proceeds: see [`at`](Self::at).
    pub fn with_schedules(self, schedules: Settings<Schedule>) -> Self {
        Self { schedules, ..self }
    }

    /// The inputs that it needs besides image and text.
    pub fn needs(&self) -> &[Input] {
        &self.needs
    }

    /// The same objective when a share `progress` of the training is done: 0 at the beginning, 1 at
    /// the end. Takes the values of its schedules at that moment; without schedules it stays as it
    /// is.
    ///
    /// A function of `progress` alone: a training that resumes calls it with the share that is
    /// done, and goes on with the same objective.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::{Features, ObjectiveConfig};
    ///
    /// // VSE++ warms up from the sum over all negatives to the hardest.
    /// let objective = ObjectiveConfig::named("vse-plus-plus").unwrap().init(&Device::default());
    /// let equal = Tensor::<2>::ones([4, 3], &Device::default());
    /// let features = Features::new(equal.clone(), equal);
    /// let loss = |progress| {
    ///     objective.clone().at(progress).forward(&features).into_scalar::<f32>()
    /// };
    /// assert!((loss(0.0) - 2.0 * 3.0 * 0.2).abs() < 1e-5);
    /// assert!((loss(1.0) - 2.0 * 0.2).abs() < 1e-5);
    /// ```
    ///
    /// # Panics
    ///
    /// Where `progress` is NaN, or a scheduled value is out of the objective's range.
    #[track_caller]
    pub fn at(mut self, progress: f64) -> Self {
        self.set_progress(progress);
        self
    }

    #[track_caller]
    pub(super) fn set_progress(&mut self, progress: f64) {
        self.kind.get_mut().set(&self.schedules.at(progress));
        if let AnyObjective::WeightedSum(sum) = &mut self.kind {
            sum.set_progress(progress);
        }
    }

    /// The same objective with other values of what changes during training.
    ///
    /// # Panics
    ///
    /// Where a value is out of its range.
    #[track_caller]
    pub fn with_settings(mut self, settings: &Settings) -> Self {
        self.kind.get_mut().set(settings);
        self
    }

    /// The loss of a batch, in the objective's own units.
    ///
    /// # Shapes
    ///
    /// - `features`: as [`Features`] says; what the objective does not use is ignored
    /// - returns `[1]`, f64 for f64 embeddings, f32 for all others
    ///
    /// # Panics
    ///
    /// Where an input that the objective [needs](Self::needs) is missing, and as the objective
    /// itself.
    #[track_caller]
    pub fn forward(&self, features: &Features) -> Tensor<1> {
        for &input in &self.needs {
            assert!(
                features.find(input).is_some(),
                "{} needs `{input}`, which `features` has not",
                self.name
            );
        }
        if let AnyObjective::WeightedSum(sum) = &self.kind {
            return sum.forward(features);
        }
        let inputs = [&self.needs[..], &self.uses].concat();
        self.kind.get().evaluate(&features.only(&inputs))
    }

    /// The factors between similarities and logits, learned or fixed, that the objective holds:
    /// one, or none, or those of a sum's terms.
    pub fn logit_scales(&mut self) -> Vec<&mut LogitScale> {
        self.kind.get_mut().scales()
    }

    /// The same objective with its logit scales inside their ranges: call it after an optimiser
    /// step.
    pub fn clamped(mut self) -> Self {
        for scale in self.logit_scales() {
            *scale = scale.clone().clamped();
        }
        self
    }
}

impl Evaluate for Contrastive {
    fn evaluate(&self, features: &Features) -> Tensor<1> {
        let features = features.clone();
        let both = |a: Option<Tensor<2>>, b: Option<Tensor<2>>| a.zip(b);
        let teacher = both(features.teacher_image, features.teacher_text);
        let context = Context {
            momentum: both(features.momentum_image, features.momentum_text)
                .map(|(image, text)| Momentum::new(image, text)),
            negatives: Negatives {
                image: features.queue_image,
                text: features.queue_text,
                noise: features.noise,
                hard_image: features.hard_image,
                hard_text: features.hard_text,
            },
            teacher: teacher.map(|(image, text)| Teacher {
                negative_image: features.queue_teacher_image,
                negative_text: features.queue_teacher_text,
                ..Teacher::new(image, text)
            }),
            ids: features.label.map(|batch| Ids {
                batch,
                negative_image: features.queue_image_label,
                negative_text: features.queue_text_label,
            }),
        };
        self.forward_with(features.image, features.text, context)
    }

    fn set(&mut self, settings: &Settings) {
        *self = self.clone().with_settings(settings);
    }

    fn scales(&mut self) -> Vec<&mut LogitScale> {
        vec![&mut self.logit_scale]
    }
}
