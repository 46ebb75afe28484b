//! Any objective, as one module.

use burn::module::Module;
use burn::tensor::Tensor;

use super::config::AnyObjective;
use super::features::{Features, Input};
use crate::objective::{Context, Ids, Negatives, Teacher};
use crate::similarity::LogitScale;

/// An objective by name; built by [`ObjectiveConfig::init`](super::ObjectiveConfig::init), or from one at hand
/// with [`new`](Self::new).
#[derive(Module, Debug)]
pub struct Objective {
    /// Which objective.
    pub kind: AnyObjective,
    #[module(skip)]
    name: String,
    #[module(skip)]
    inputs: Vec<Input>,
}

impl From<WeightedSum> for Objective {
    fn from(sum: WeightedSum) -> Self {
        // Its terms have their own inputs.
        Self::new("sum", AnyObjective::Sum(sum), [])
    }
}

impl Objective {
    /// An objective under the name that messages give it, with the inputs that it takes beside image and text.
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
    pub fn new(name: &str, kind: AnyObjective, inputs: impl IntoIterator<Item = Input>) -> Self {
        Self {
            kind,
            name: name.to_string(),
            inputs: inputs.into_iter().collect(),
        }
    }

    /// The inputs that it needs beside image and text.
    pub fn needs(&self) -> &[Input] {
        &self.inputs
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
    /// Where an input that the objective [needs](Self::needs) is missing, and as the objective itself.
    #[track_caller]
    pub fn forward(&self, features: &Features) -> Tensor<1> {
        for &input in &self.inputs {
            assert!(
                features.has(input),
                "{} needs `{input}`, which `features` has not",
                self.name
            );
        }
        let (image, text) = (features.image.clone(), features.text.clone());
        match &self.kind {
            AnyObjective::Contrastive(objective) => {
                objective.forward(image, text, self.context(features))
            }
            AnyObjective::ImageTextContrastive(objective) => {
                let (image_m, text_m) = (&features.teacher_image, &features.teacher_text);
                let momentum = Teacher {
                    image: image_m.clone().expect("it is needed"),
                    text: text_m.clone().expect("it is needed"),
                    negative_image: features.queue_image.clone(),
                    negative_text: features.queue_text.clone(),
                };
                objective.forward(image, text, momentum)
            }
            AnyObjective::Vse(objective) => objective.forward(image, text),
            AnyObjective::VsePlusPlus(objective) => objective.forward(image, text),
            AnyObjective::ConVsePlusPlus(objective) => objective.forward(image, text),
            AnyObjective::MaxMargin(objective) => objective.forward(image, text),
            AnyObjective::SigLip(objective) => objective.forward(image, text),
            AnyObjective::ReCo(objective) => objective.forward(image, text),
            AnyObjective::Orthogonality(objective) => objective.forward(image, text),
            AnyObjective::Alignment(objective) => objective.forward(image, text),
            AnyObjective::Uniformity(objective) => objective.forward(image, text),
            AnyObjective::BarlowTwins(objective) => objective.forward(image, text),
            AnyObjective::Sum(sum) => sum.forward(features),
        }
    }

    /// What the objective takes of the features.
    fn context(&self, features: &Features) -> Context {
        let takes = |input| self.inputs.contains(&input);
        let matrix = |input, tensor: &Option<Tensor<2>>| tensor.clone().filter(|_| takes(input));
        let cube = |input, tensor: &Option<Tensor<3>>| tensor.clone().filter(|_| takes(input));
        let teacher_image = matrix(Input::TeacherImage, &features.teacher_image);
        let teacher_text = matrix(Input::TeacherText, &features.teacher_text);
        let label = features.label.clone().filter(|_| takes(Input::Label));
        Context {
            negatives: Negatives {
                image: matrix(Input::QueueImage, &features.queue_image),
                text: matrix(Input::QueueText, &features.queue_text),
                noise: matrix(Input::Noise, &features.noise),
                hard_image: cube(Input::HardImage, &features.hard_image),
                hard_text: cube(Input::HardText, &features.hard_text),
            },
            teacher: teacher_image
                .zip(teacher_text)
                .map(|(image, text)| Teacher::new(image, text)),
            ids: label.map(Ids::new),
        }
    }

    /// The factors between similarities and logits, learned or fixed, that the objective holds: one, or none, or those
    /// of a sum's terms.
    pub fn logit_scales(&mut self) -> Vec<&mut LogitScale> {
        match &mut self.kind {
            AnyObjective::Contrastive(objective) => vec![&mut objective.logit_scale],
            AnyObjective::ImageTextContrastive(objective) => vec![&mut objective.logit_scale],
            AnyObjective::SigLip(objective) => vec![&mut objective.logit_scale],
            AnyObjective::Sum(sum) => sum.terms.iter_mut().flat_map(Self::logit_scales).collect(),
            _ => vec![],
        }
    }

    /// The same objective with its logit scales inside their ranges: call it after an optimiser step.
    pub fn clamped(mut self) -> Self {
        for scale in self.logit_scales() {
            *scale = scale.clone().clamped();
        }
        self
    }
}

/// A weighted sum of objectives: `Σ_k w_k·L_k`, itself an objective.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::objective::{Features, ObjectiveConfig, WeightedSum};
///
/// let device = Device::default();
/// let term = |name| ObjectiveConfig::named(name).unwrap().init(&device);
/// let sum = WeightedSum::new([(1.0, term("info-nce")), (0.1, term("uniformity"))]);
/// // N equal embeddings: ln N, and 0.
/// let equal = Tensor::<2>::ones([4, 3], &device);
/// let loss = sum.forward(&Features::new(equal.clone(), equal));
/// assert!((loss.into_scalar::<f32>() - 4f32.ln()).abs() < 1e-5);
/// ```
#[derive(Module, Debug)]
pub struct WeightedSum {
    terms: Vec<Objective>,
    weights: Vec<f64>,
}

impl WeightedSum {
    /// The sum of these objectives, each times its weight.
    ///
    /// # Panics
    ///
    /// Where there are none, or a weight is not finite.
    #[track_caller]
    pub fn new(terms: impl IntoIterator<Item = (f64, Objective)>) -> Self {
        let (weights, terms): (Vec<_>, Vec<_>) = terms.into_iter().unzip();
        assert!(
            !terms.is_empty(),
            "WeightedSum: `terms` is empty: it needs one objective at least"
        );
        for weight in &weights {
            assert!(
                weight.is_finite(),
                "WeightedSum: `weight` is {weight}, it must be finite"
            );
        }
        Self { terms, weights }
    }

    /// The weighted sum of the losses: see [`Objective::forward`].
    ///
    /// # Shapes
    ///
    /// - `features`: as [`Features`] says
    /// - returns `[1]`
    ///
    /// # Panics
    ///
    /// As [`Objective::forward`].
    #[track_caller]
    pub fn forward(&self, features: &Features) -> Tensor<1> {
        let weighted = |(term, &weight): (&Objective, &f64)| term.forward(features) * weight;
        let losses = self.terms.iter().zip(&self.weights).map(weighted);
        losses
            .reduce(|sum, loss| sum + loss)
            .expect("one term at least")
    }
}
