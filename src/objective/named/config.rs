//! The list of objectives by name, each with its config, parameters and inputs.

use burn::module::Module;
use burn::tensor::Device;

use super::features::Input;
use super::objective::{Objective, WeightedSum};
use super::parameter::{Parameter, Value};
use crate::objective::*;
use crate::pairwise::Evaluation;
use crate::similarity::SimilarityConfig;

/// Everything that there is once an objective.
macro_rules! catalogue {
    ($($name:literal => $objective:ident: $config:ident;)+) => {
        /// An objective's own config.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyConfig {
            $(#[doc = concat!("`", $name, "`")] $objective($config),)+
            /// `sum`: other objectives, each times its weight.
            Sum(Vec<ObjectiveConfig>),
        }

        /// Any of the objectives, or a weighted sum of some.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)] // One at a time.
        pub enum AnyObjective {
            $(#[doc = concat!("`", $name, "`")] $objective($objective),)+
            /// `sum`
            Sum(WeightedSum),
        }

        impl AnyConfig {
            /// The names, in the order of the documentation.
            pub const NAMES: &[&str] = &[$($name,)+ "sum"];

            /// The objective of that name, at its defaults.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$objective($config::new())),)+
                    "sum" => Some(Self::Sum(Vec::new())),
                    _ => None,
                }
            }

            /// Its name.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$objective(_) => $name,)+
                    Self::Sum(_) => "sum",
                }
            }

            #[track_caller]
            fn init(&self, device: &Device) -> AnyObjective {
                match self {
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
    "info-nce" => InfoNce: InfoNceConfig;
    "vse" => Vse: VseConfig;
    "vse-plus-plus" => VsePlusPlus: VsePlusPlusConfig;
    "con-vse-plus-plus" => ConVsePlusPlus: ConVsePlusPlusConfig;
    "reco" => ReCo: ReCoConfig;
    "orthogonality" => Orthogonality: OrthogonalityConfig;
    "alignment" => Alignment: AlignmentConfig;
    "uniformity" => Uniformity: UniformityConfig;
    "barlow-twins" => BarlowTwins: BarlowTwinsConfig;
    "siglip" => SigLip: SigLipConfig;
    "max-margin" => MaxMargin: MaxMarginConfig;
}

/// An objective by name, with its parameters: what a configuration file says of it.
///
/// In JSON an object of `"objective"`, a name, and the parameters that are to differ from their defaults:
/// `{"objective": "info-nce", "temperature": 0.05}`. A temperature is the initial one, where the objective learns it.
/// Any objective takes a `"weight"`, a factor on the loss. `"sum"` adds objectives up:
/// `{"objective": "sum", "terms": [{"objective": "info-nce"}, {"objective": "uniformity", "weight": 0.1}]}`.
/// Unknown names and parameters are errors that name the nearest there are. Of the objectives' own configs JSON has the
/// [`parameters`](Self::parameters); what else they hold is said in Rust.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectiveConfig {
    /// Which objective, with its own config.
    pub kind: AnyConfig,
    /// Factor on the loss, 1 unless said.
    pub weight: f64,
}

impl From<AnyConfig> for ObjectiveConfig {
    fn from(kind: AnyConfig) -> Self {
        Self { kind, weight: 1.0 }
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
        match &mut self.kind {
            C::InfoNce(c) => vec![
                P::temperature(&mut c.logit_scale),
                P::number("lambda", &mut c.image_to_text_weight),
            ],
            C::Vse(c) => vec![
                P::number("margin", &mut c.margin),
                P::reduction(&mut c.reduction),
            ],
            C::VsePlusPlus(c) => vec![
                P::number("margin", &mut c.margin),
                P::reduction(&mut c.reduction),
            ],
            C::ConVsePlusPlus(c) => vec![
                P::number("margin", &mut c.margin),
                P::number("temperature", &mut c.temperature),
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
            C::SigLip(c) => vec![
                P::scale(&mut c.logit_scale),
                P::number("bias", &mut c.bias),
                P::reduction(&mut c.reduction),
            ],
            C::MaxMargin(c) => vec![
                P::number("margin", &mut c.margin),
                P::reduction(&mut c.reduction),
            ],
            C::Sum(_) => vec![],
        }
    }

    /// The value of a parameter, if the objective has it.
    pub fn get(&self, name: &str) -> Option<Value> {
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
        let mut parameters = self.parameters();
        match parameters.iter_mut().find(|known| known.name == name) {
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

    /// The inputs that the objective needs, with these parameters, beside image and text.
    pub fn needs(&self) -> Vec<Input> {
        use AnyConfig as C;
        match &self.kind {
            C::Sum(terms) => {
                let mut all: Vec<_> = terms.iter().flat_map(Self::needs).collect();
                all.sort();
                all.dedup();
                all
            }
            _ => vec![],
        }
    }

    /// How embeddings are compared; of a sum, by each term.
    pub fn similarity(&mut self) -> Vec<&mut SimilarityConfig> {
        use AnyConfig as C;
        let similarity = match &mut self.kind {
            C::InfoNce(c) => &mut c.similarity,
            C::Vse(c) => &mut c.similarity,
            C::VsePlusPlus(c) => &mut c.similarity,
            C::ConVsePlusPlus(c) => &mut c.similarity,
            C::ReCo(c) => &mut c.similarity,
            C::Orthogonality(c) => &mut c.similarity,
            C::Alignment(c) => &mut c.similarity,
            C::Uniformity(c) => &mut c.similarity,
            C::BarlowTwins(c) => &mut c.similarity,
            C::SigLip(c) => &mut c.similarity,
            C::MaxMargin(c) => &mut c.similarity,
            C::Sum(terms) => return terms.iter_mut().flat_map(Self::similarity).collect(),
        };
        vec![similarity]
    }

    /// The same objective, its similarities evaluated another way.
    pub fn with_evaluation(mut self, evaluation: Evaluation) -> Self {
        for similarity in self.similarity() {
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
            false => AnyObjective::Sum(WeightedSum::new([(self.weight, objective)])).into(),
        }
    }

    #[track_caller]
    fn init_unweighted(&self, device: &Device) -> Objective {
        self.kind.init(device).into()
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
