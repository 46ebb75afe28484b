//! The list of objectives by name, each with its config, parameters and inputs.

use burn::module::Module;
use burn::tensor::Device;

use super::features::{Features, Input};
use super::objective::{Objective, WeightedSum};
use super::parameter::{Parameter, Value};
use crate::objective::*;
use crate::pairwise::Evaluation;
use crate::similarity::SimilarityConfig;

/// Everything that there is once an objective: its name, its module and its config. The softmax contrasts share
/// one module, that of their parts.
macro_rules! catalogue {
    (
        contrasts { $($contrast_name:literal => $contrast:ident: $contrast_config:ident;)+ }
        others { $($name:literal => $objective:ident: $config:ident;)+ }
    ) => {
        /// An objective's own config.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyConfig {
            $(#[doc = concat!("`", $contrast_name, "`")] $contrast($contrast_config),)+
            $(#[doc = concat!("`", $name, "`")] $objective($config),)+
            /// `sum`: other objectives, each times its weight.
            Sum(Vec<ObjectiveConfig>),
        }

        /// Any of the objectives, or a weighted sum of some.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)] // One at a time.
        pub enum AnyObjective {
            /// InfoNCE and its relatives, whose parts are a [`Criterion`].
            Contrastive(Contrastive),
            $(#[doc = concat!("`", $name, "`")] $objective($objective),)+
            /// `sum`
            Sum(WeightedSum),
        }

        impl AnyConfig {
            /// The names, in the order of the documentation.
            pub const NAMES: &[&str] = &[$($contrast_name,)+ $($name,)+ "sum"];

            /// The objective of that name, at its defaults.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($contrast_name => Some(Self::$contrast($contrast_config::new())),)+
                    $($name => Some(Self::$objective($config::new())),)+
                    "sum" => Some(Self::Sum(Vec::new())),
                    _ => None,
                }
            }

            /// Its name.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$contrast(_) => $contrast_name,)+
                    $(Self::$objective(_) => $name,)+
                    Self::Sum(_) => "sum",
                }
            }

            /// How embeddings are compared; of a sum, by each term.
            fn similarity(&mut self) -> Vec<&mut SimilarityConfig> {
                match self {
                    $(Self::$contrast(config) => vec![&mut config.similarity],)+
                    $(Self::$objective(config) => vec![&mut config.similarity],)+
                    Self::Sum(terms) => terms.iter_mut().flat_map(|term| term.kind.similarity()).collect(),
                }
            }

            #[track_caller]
            fn init(&self, device: &Device, extras: Extras) -> AnyObjective {
                match self {
                    // Checked in the objective's own name.
                    $(Self::$contrast(config) => AnyObjective::Contrastive(Contrastive::of(
                        config.init(device).logit_scale,
                        extras.of(config.criterion(), stringify!($contrast_config)),
                    )),)+
                    $(Self::$objective(config) => AnyObjective::$objective(config.init(device)),)+
                    Self::Sum(terms) => AnyObjective::Sum(WeightedSum::new(
                        terms.iter().map(|term| (term.weight, term.init_unweighted(device))),
                    )),
                }
            }
        }
    };
}

catalogue! {
    contrasts {
        "info-nce" => InfoNce: InfoNceConfig;
        "con-vse" => ConVse: ConVseConfig;
        "mvn" => Mvn: MvnConfig;
        "nt-xent" => NtXent: NtXentConfig;
        "dcl" => Decoupled: DecoupledConfig;
        "srcl" => Srcl: SrclConfig;
        "false-negative-removal" => FalseNegativeRemoval: FalseNegativeRemovalConfig;
        "info-cmr" => InfoCmr: InfoCmrConfig;
        "multi-positive" => MultiPositive: MultiPositiveConfig;
    }
    others {
        "image-text-contrastive" => ImageTextContrastive: ImageTextContrastiveConfig;
        "vse" => Vse: VseConfig;
        "vse-plus-plus" => VsePlusPlus: VsePlusPlusConfig;
        "con-vse-plus-plus" => ConVsePlusPlus: ConVsePlusPlusConfig;
        "max-margin" => MaxMargin: MaxMarginConfig;
        "siglip" => SigLip: SigLipConfig;
        "reco" => ReCo: ReCoConfig;
        "orthogonality" => Orthogonality: OrthogonalityConfig;
        "alignment" => Alignment: AlignmentConfig;
        "uniformity" => Uniformity: UniformityConfig;
        "barlow-twins" => BarlowTwins: BarlowTwinsConfig;
    }
}

/// An objective by name, with its parameters: what a configuration file says of it.
///
/// In JSON an object of `"objective"`, a name, and the parameters that are to differ from their defaults:
/// `{"objective": "info-nce", "temperature": 0.05}`. A temperature is the initial one, where the objective learns it.
/// Any objective takes a `"weight"`, a factor on the loss, and a softmax contrast the [`Extras`]. `"sum"` adds objectives up:
/// `{"objective": "sum", "terms": [{"objective": "info-nce"}, {"objective": "uniformity", "weight": 0.1}]}`.
/// Unknown names and parameters are errors that name the nearest there are. Of the objectives' own configs JSON has the
/// [`parameters`](Self::parameters); what else they hold is said in Rust.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectiveConfig {
    /// Which objective, with its own config.
    pub kind: AnyConfig,
    /// Factor on the loss, 1 unless said.
    pub weight: f64,
    /// What a softmax contrast does beyond its definition; nothing, unless said.
    pub extras: Extras,
}

/// What any softmax contrast may do beyond its definition.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Extras {
    /// Whether image anchors also meet their row of `hard_text`, and text anchors theirs of `hard_image`.
    pub hard_negatives: bool,
    /// Share of the target that is spread evenly over all candidates: [`Criterion::label_smoothing`].
    pub label_smoothing: f64,
    /// Leaves out negatives that the teacher finds more similar than the positive by more than this:
    /// [`Criterion::guided_margin`].
    pub guided_margin: Option<f64>,
}

impl Extras {
    /// The parts of an objective of this name with these beyond them.
    #[track_caller]
    fn of(self, criterion: Criterion, config: &str) -> Criterion {
        criterion
            .with_label_smoothing(self.label_smoothing)
            .with_guided_margin(self.guided_margin)
            .checked(config)
    }
}

impl From<AnyConfig> for ObjectiveConfig {
    fn from(kind: AnyConfig) -> Self {
        Self {
            kind,
            weight: 1.0,
            extras: Extras::default(),
        }
    }
}

impl ObjectiveConfig {
    /// The objective of that name, at its defaults.
    ///
    /// # Errors
    ///
    /// If there is none, with the nearest name that there is.
    pub fn named(name: &str) -> Result<Self, String> {
        match AnyConfig::named(name) {
            Some(kind) => Ok(kind.into()),
            None => Err(format!(
                "there is no objective `{name}`{}",
                hint(name, AnyConfig::NAMES)
            )),
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The parameters that the objective has, beside its weight.
    pub fn parameters(&mut self) -> Vec<Parameter<'_>> {
        use AnyConfig as C;
        use Parameter as P;
        let extras = &mut self.extras;
        match &mut self.kind {
            C::InfoNce(c) => {
                let mut parameters = P::contrast(&mut c.logit_scale, &mut c.directions, extras);
                parameters.push(P::number("lambda", &mut c.image_to_text_weight));
                parameters
            }
            C::ConVse(c) => P::contrast(&mut c.logit_scale, &mut c.directions, extras),
            C::Mvn(c) => P::contrast(&mut c.logit_scale, &mut c.directions, extras),
            C::NtXent(c) => P::contrast(&mut c.logit_scale, &mut c.directions, extras),
            C::Decoupled(c) => P::contrast(&mut c.logit_scale, &mut c.directions, extras),
            C::Srcl(c) => {
                let mut parameters = P::contrast(&mut c.logit_scale, &mut c.directions, extras);
                parameters.extend(P::regulation(&mut c.regulation));
                parameters
            }
            C::FalseNegativeRemoval(c) => {
                let mut parameters = P::contrast(&mut c.logit_scale, &mut c.directions, extras);
                parameters.extend(P::regulation(&mut c.regulation));
                parameters.push(P::number("threshold", &mut c.threshold));
                parameters
            }
            C::InfoCmr(c) => P::contrast(&mut c.logit_scale, &mut c.directions, extras),
            C::MultiPositive(c) => P::contrast(&mut c.logit_scale, &mut c.directions, extras),
            C::ImageTextContrastive(c) => vec![
                P::temperature(&mut c.logit_scale),
                P::number("momentum_alpha", &mut c.alpha),
                P::reduction(&mut c.directions),
            ],
            C::Vse(c) => P::margin(&mut c.margin, &mut c.reduction),
            C::VsePlusPlus(c) => P::margin(&mut c.margin, &mut c.reduction),
            C::ConVsePlusPlus(c) => {
                let mut parameters = P::margin(&mut c.margin, &mut c.reduction);
                parameters.push(P::number("temperature", &mut c.temperature));
                parameters
            }
            C::MaxMargin(c) => P::margin(&mut c.margin, &mut c.reduction),
            C::SigLip(c) => vec![
                P::scale(&mut c.logit_scale),
                P::number("bias", &mut c.bias),
                P::reduction(&mut c.reduction),
            ],
            C::ReCo(c) => vec![
                P::number("lambda", &mut c.negative_weight),
                P::reduction(&mut c.reduction),
            ],
            C::Orthogonality(c) => vec![
                P::number("lambda", &mut c.negative_weight),
                P::reduction(&mut c.reduction),
            ],
            C::Alignment(_) => vec![],
            C::Uniformity(c) => vec![P::number("t", &mut c.t)],
            C::BarlowTwins(c) => vec![
                P::number("lambda", &mut c.redundancy_weight),
                P::flag("center", &mut c.center),
            ],
            C::Sum(_) => vec![],
        }
    }

    /// The value of a parameter, if the objective has it.
    pub fn get(&self, name: &str) -> Option<Value> {
        let name = self.resolved(name);
        let mut config = self.clone();
        let parameters = config.parameters();
        let parameter = parameters.iter().find(|known| known.name == name)?;
        Some(parameter.get())
    }

    /// Gives a parameter, or the weight, another value.
    ///
    /// # Errors
    ///
    /// If the objective has no such parameter, with the nearest that it has, or if the value is of another kind.
    pub fn set(&mut self, name: &str, value: Value) -> Result<(), String> {
        let objective = self.name();
        let wrong =
            |expected| format!("`{name}` of `{objective}` is {value}, it must be {expected}");
        if name == "weight" {
            let Value::Number(weight) = value else {
                return Err(wrong("a number"));
            };
            self.weight = weight;
            return Ok(());
        }
        let resolved = self.resolved(name);
        let mut parameters = self.parameters();
        match parameters.iter_mut().find(|known| known.name == resolved) {
            Some(parameter) => parameter.set(value).map_err(wrong),
            None => {
                let mut known: Vec<_> = parameters.iter().map(|known| known.name).collect();
                known.push("weight");
                Err(format!(
                    "`{objective}` has no parameter `{name}`{}",
                    hint(name, &known)
                ))
            }
        }
    }

    /// The share of a momentum encoder's soft targets may be called α, as in its paper.
    fn resolved<'a>(&self, name: &'a str) -> &'a str {
        match (&self.kind, name) {
            (AnyConfig::ImageTextContrastive(_), "alpha") => "momentum_alpha",
            _ => name,
        }
    }

    /// The inputs that the objective needs, with these parameters, beside image and text: a teacher where weights are of
    /// it (`alpha` is not 0), hard negatives where `hard_negatives` says so. `image-text-contrastive` takes the teacher's
    /// embeddings for the momentum encoders', and a queue if there is one.
    pub fn needs(&self) -> Vec<Input> {
        use AnyConfig as C;
        const TEACHER: [Input; 2] = [Input::TeacherImage, Input::TeacherText];
        let mut inputs = match &self.kind {
            C::Srcl(c) if c.regulation.alpha != 0.0 => TEACHER.to_vec(),
            C::FalseNegativeRemoval(c) if c.regulation.alpha != 0.0 => TEACHER.to_vec(),
            C::ImageTextContrastive(_) => TEACHER.to_vec(),
            C::InfoCmr(_) => vec![Input::Noise],
            C::MultiPositive(_) => vec![Input::Label],
            C::Sum(terms) => terms.iter().flat_map(Self::needs).collect(),
            _ => vec![],
        };
        if self.extras.hard_negatives {
            inputs.extend([Input::HardImage, Input::HardText]);
        }
        if self.extras.guided_margin.is_some() {
            inputs.extend(TEACHER);
        }
        inputs.sort();
        inputs.dedup();
        inputs
    }

    /// Checks that the objective can be evaluated on these features.
    ///
    /// # Errors
    ///
    /// If an input is missing, or the width of one does not fit, naming it.
    pub fn check(&self, features: &Features) -> Result<(), String> {
        if let AnyConfig::Sum(terms) = &self.kind {
            return terms.iter().try_for_each(|term| term.check(features));
        }
        let name = self.name();
        if let Some(input) = self.needs().into_iter().find(|&input| !features.has(input)) {
            return Err(format!("{name} needs `{input}`"));
        }
        match &self.kind {
            AnyConfig::ImageTextContrastive(_) => {
                let width = features.image.dims()[1];
                let momentum = features
                    .teacher_image
                    .as_ref()
                    .map_or(width, |x| x.dims()[1]);
                match momentum == width {
                    true => Ok(()),
                    false => Err(format!(
                        "{name} compares `teacher_image` with `text`: their widths are {momentum} and {width}, it \
                         needs the same"
                    )),
                }
            }
            _ => Ok(()),
        }
    }

    /// The same objective, its similarities evaluated another way.
    pub fn with_evaluation(mut self, evaluation: Evaluation) -> Self {
        for similarity in self.kind.similarity() {
            similarity.evaluation = evaluation;
        }
        self
    }

    /// Builds the objective on `device`.
    ///
    /// # Panics
    ///
    /// Where a parameter is out of its range, as the objective's own config says, a weight is not finite, or a sum has
    /// no terms.
    #[track_caller]
    pub fn init(&self, device: &Device) -> Objective {
        let objective = self.init_unweighted(device);
        match self.weight == 1.0 {
            true => objective,
            false => WeightedSum::new([(self.weight, objective)]).into(),
        }
    }

    #[track_caller]
    fn init_unweighted(&self, device: &Device) -> Objective {
        Objective::new(
            self.name(),
            self.kind.init(device, self.extras),
            self.needs(),
        )
    }
}

/// What to say after an unknown name: the nearest that there is, or all.
pub(super) fn hint(name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().max(name.len()) / 2);
    match nearest {
        Some((_, known)) => format!("; did you mean `{known}`?"),
        None => format!("; there are {}", known.join(", ")),
    }
}
