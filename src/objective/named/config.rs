//! An objective by name, with its parameters.

use burn::tensor::Device;

use super::catalogue::{AnyConfig, AnyObjective};
use super::extras::{self, Extras};
use super::objective::Objective;
use super::sum::WeightedSum;
use crate::check::{self, ConfigError};
use crate::objective::entry::{Features, Input, Parameter, Preset, Value};
use crate::pairwise::Evaluation;
use crate::schedule::{Schedule, Settings};

/// An objective by name, with its parameters: what a configuration file says of it.
///
/// In JSON an object of `"objective"`, a name, and the parameters that are to differ from their
/// defaults: `{"objective": "info-nce", "temperature": 0.05}`. A temperature is the initial one,
/// where the objective learns it. Any objective takes a `"weight"`, a factor on the loss, and a
/// `"schedule"`, [what changes while training proceeds](Settings); a softmax contrast also takes
/// the [`Extras`]. `"sum"` adds objectives up:
/// `{"objective": "sum", "terms": [{"objective": "info-nce"}, {"objective": "vse", "weight": 2}]}`.
/// Unknown names and parameters are errors that name the nearest there are. JSON has the
/// [`parameters`](Self::parameters) of the objectives' own configs; what else they hold is said in
/// Rust.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectiveConfig {
    /// Which objective, with its own config.
    pub kind: AnyConfig,
    /// Factor on the loss, 1 unless said.
    pub weight: f64,
    /// What a softmax contrast does beyond its definition; nothing, unless said.
    pub extras: Extras,
    /// How training changes the objective; if `None`, as its own file says for its values.
    pub schedules: Option<Settings<Schedule>>,
}

impl From<AnyConfig> for ObjectiveConfig {
    fn from(kind: AnyConfig) -> Self {
        Self {
            kind,
            weight: 1.0,
            extras: Extras::default(),
            schedules: None,
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
                hint(name, &AnyConfig::names())
            )),
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The parameters that the objective has, besides its weight.
    pub fn parameters(&mut self) -> Vec<Parameter<'_>> {
        let is_contrast = self.kind.get().contrastive().is_some();
        let implied = extras::implied_by(&self.kind.get().needs());
        let mut parameters = self.kind.get_mut().parameters();
        if is_contrast {
            let own: Vec<_> = parameters.iter().map(|parameter| parameter.name).collect();
            let extras = self.extras.parameters().into_iter();
            // What the objective does by definition is no extra of it.
            let is_new = |name| !own.contains(&name) && !implied.contains(&name);
            parameters.extend(extras.filter(|extra| is_new(extra.name)));
        }
        parameters
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
    /// If the objective has no such parameter, with the nearest that it has, or if the value is of
    /// another kind.
    pub fn set(&mut self, name: &str, value: Value) -> Result<(), String> {
        let message = format!("`{name}` of `{}` is {value}, it must be ", self.name());
        if name == "weight" {
            let Value::Number(weight) = value else {
                return Err(message + "a number");
            };
            self.weight = weight;
            return Ok(());
        }
        let (objective, resolved) = (self.name(), self.resolved(name));
        let mut parameters = self.parameters();
        if let Some(known) = parameters.iter_mut().find(|known| known.name == resolved) {
            return known.set(value).map_err(|expected| message + &expected);
        }
        let mut known: Vec<_> = parameters.iter().map(|known| known.name).collect();
        known.extend(["weight", "schedule"]);
        Err(format!(
            "`{objective}` has no parameter `{name}`{}",
            hint(name, &known)
        ))
    }

    /// Other names that a parameter may go by: α of a momentum encoder's soft targets, as in its
    /// paper, and the reduction of the two directions of a softmax contrast.
    fn resolved<'a>(&self, name: &'a str) -> &'a str {
        match name {
            "alpha" | "soft_targets" if matches!(self.kind, AnyConfig::ImageTextContrastive(_)) => {
                "momentum_alpha"
            }
            "reduction" if self.kind.get().contrastive().is_some() => "directions",
            _ => name,
        }
    }

    /// How training changes the objective: [`schedules`](Self#structfield.schedules), or by default
    /// SRCL's α from 1 to 0, and the warm-up of VSE++ and ConVSE++. A value that is not at its
    /// default has no default schedule.
    pub fn schedules(&self) -> Settings<Schedule> {
        self.schedules.unwrap_or_else(|| {
            let default = Self::from(AnyConfig::named(self.name()).expect("its own name"));
            let schedules = self.kind.get().schedules();
            schedules.filter(|value| self.get(value) == default.get(value))
        })
    }

    /// The preset with the extras, of a softmax contrast.
    fn preset(&self) -> Option<Preset> {
        let mut preset = self.kind.get().contrastive()?;
        self.extras.apply(&mut preset.config.criterion);
        Some(preset)
    }

    /// The inputs that the objective needs, with these parameters, besides image and text: a
    /// teacher where weights read it (`alpha` is not 0), say, or hard negatives where
    /// `hard_negatives` says so.
    pub fn needs(&self) -> Vec<Input> {
        let mut inputs = self.kind.get().needs();
        if let Some(preset) = self.preset() {
            let mut criterion = preset.config.criterion;
            // A teacher that is read at any time is needed.
            if let Some(alpha) = self.schedules().alpha {
                let largest = alpha.from.max(alpha.to);
                criterion.weighting = criterion.weighting.with_alpha(largest);
            }
            inputs.extend(self.extras.needs(&criterion));
        }
        inputs.sort();
        inputs.dedup();
        inputs
    }

    /// The inputs that it uses where they are there.
    pub fn uses(&self) -> Vec<Input> {
        let mut inputs = self.kind.get().uses();
        if inputs.contains(&Input::QueueImage) || self.extras.queue {
            inputs.extend([Input::QueueImageLabel, Input::QueueTextLabel]);
            inputs.extend([Input::QueueTeacherImage, Input::QueueTeacherText]);
        }
        inputs
    }

    /// Checks the values.
    ///
    /// # Errors
    ///
    /// If a parameter is out of its range, the weight is not finite, a sum has no terms, or a
    /// schedule is out of range or of something that the objective does not have.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::range(
            "ObjectiveConfig",
            "weight",
            self.weight,
            -f64::MAX,
            f64::MAX,
        )?;
        self.schedules().check()?;
        match self.preset() {
            Some(preset) => preset.config.check_as(preset.config_name),
            None => self.kind.check(),
        }
    }

    /// Checks that the objective can be evaluated on these features.
    ///
    /// # Errors
    ///
    /// If an input is missing, or the width of one does not fit, naming it.
    pub fn check_features(&self, features: &Features) -> Result<(), String> {
        if let AnyConfig::WeightedSum(sum) = &self.kind {
            let terms = sum.terms.iter();
            return terms
                .into_iter()
                .try_for_each(|term| term.check_features(features));
        }
        let name = self.name();
        for input in self.needs() {
            let Some(found) = features.find(input) else {
                let substitute = input.substitute();
                let or = substitute.map_or(String::new(), |other| format!(", or `{other}`"));
                return Err(format!("{name} needs `{input}`{or}"));
            };
            let (width, found_width) = (features.image.dims()[1], features.width(found));
            if input.is_candidate() && found_width.is_some_and(|found| found != width) {
                return Err(format!(
                    "{name} compares `{found}` with `text`: their widths are {} and {width}, it \
                     needs the same",
                    found_width.unwrap_or_default()
                ));
            }
        }
        Ok(())
    }

    /// The same objective, its similarities evaluated another way.
    pub fn with_evaluation(mut self, evaluation: Evaluation) -> Self {
        for similarity in self.kind.get_mut().similarities() {
            similarity.evaluation = evaluation;
        }
        self
    }

    /// Builds the objective on `device`.
    ///
    /// # Panics
    ///
    /// Where [`check`](Self::check) fails.
    #[track_caller]
    pub fn init(&self, device: &Device) -> Objective {
        check::or_panic(self.check());
        let objective = self.init_unweighted(device);
        if self.weight == 1.0 {
            objective
        } else {
            WeightedSum::new([(self.weight, objective)]).into()
        }
    }

    #[track_caller]
    pub(super) fn init_unweighted(&self, device: &Device) -> Objective {
        let kind = match self.preset() {
            Some(preset) => {
                let objective = preset.config.init_as(preset.objective_name, device);
                AnyObjective::Contrastive(objective)
            }
            None => self.kind.init(device),
        };
        Objective::new(self.name(), kind, self.needs())
            .with_uses(self.uses())
            .with_schedules(self.schedules())
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
