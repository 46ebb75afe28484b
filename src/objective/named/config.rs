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
                "there is no objective `{}`{}",
                check::shortened(name),
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
        let (objective, resolved, shown) = (self.name(), self.resolved(name), value.shown());
        let refused =
            |expected| format!("`{name}` of `{objective}` is {shown}, it must be {expected}");
        if name == "weight" {
            let Value::Number(weight) = value else {
                return Err(refused("a number".to_string()));
            };
            self.weight = weight;
            return Ok(());
        }
        let mut parameters = self.parameters();
        if let Some(known) = parameters.iter_mut().find(|known| known.name == resolved) {
            return known.set(value).map_err(refused);
        }
        let mut known: Vec<_> = parameters.iter().map(|known| known.name).collect();
        known.extend(["weight", "schedule"]);
        Err(format!(
            "`{objective}` has no parameter `{}`{}",
            check::shortened(name),
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

    /// Checks the values. Errors name the objective and its parameters as JSON does.
    ///
    /// # Errors
    ///
    /// If a parameter is out of its range, the weight is not finite, a sum has no terms, or a
    /// schedule is out of range or of a value that the objective does not have.
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = self.name();
        check::range(name, "weight", self.weight, -f64::MAX, f64::MAX)?;
        let scheduled =
            |error: ConfigError| error.within(name, |field| format!("schedule.{field}"));
        self.schedules().check().map_err(scheduled)?;
        let mut config = self.clone();
        let parameters = config.parameters();
        let mut own = parameters.iter();
        own.try_for_each(|parameter| parameter.check(name))?;
        let checked = match self.preset() {
            Some(preset) => preset.config.check(),
            None => self.kind.check(),
        };
        let by_name = |field: &str| {
            let keeps = |parameter: &&Parameter| parameter.field() == field;
            let parameter = parameters.iter().find(keeps);
            parameter.map_or(field, |found| found.name).to_string()
        };
        checked.map_err(|error| error.within(name, by_name))?;
        self.check_scheduled()
    }

    /// Checks the first and the last value of what is scheduled as if they were set.
    fn check_scheduled(&self) -> Result<(), ConfigError> {
        for (value, schedule) in self.schedules().all() {
            let ends = schedule.map(|schedule| [("from", schedule.from), ("to", schedule.to)]);
            for (end, number) in ends.into_iter().flatten() {
                let mut config = self.clone();
                config.schedules = Some(Settings::default());
                let field = || format!("schedule.{value}");
                if config.set(value, Value::Number(number)).is_err() {
                    let problem = "is of a value that the objective does not have";
                    return Err(ConfigError::new(self.name(), field(), problem));
                }
                let scheduled = |_: &str| format!("{}.{end}", field());
                let checked = config.check();
                checked.map_err(|error| error.within(self.name(), scheduled))?;
            }
        }
        Ok(())
    }

    /// Checks that the objective needs no inputs but those that there are, besides image and text.
    ///
    /// # Errors
    ///
    /// Names those that are missing, and the parameters at whose 0 they would not be needed.
    pub fn check_inputs(&self, is_there: impl Fn(Input) -> bool) -> Result<(), String> {
        if let AnyConfig::WeightedSum(sum) = &self.kind {
            let mut terms = sum.terms.iter();
            return terms
                .try_for_each(|term| term.check_inputs(&is_there as &dyn Fn(Input) -> bool));
        }
        let missing: Vec<_> = self.needs().into_iter().filter(|&x| !is_there(x)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (name, missing, spared) = (self.name(), all_of(&missing), self.spared(&missing));
        Err(format!("{name} needs {missing}{spared}"))
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
        self.check_inputs(|input| features.find(input).is_some())?;
        let (name, needs) = (self.name(), self.needs());
        for input in needs {
            let found = features.find(input).expect("nothing is missing");
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

    /// What to say of parameters that are not 0: that the inputs are not needed where one is.
    fn spared(&self, inputs: &[Input]) -> String {
        let mut config = self.clone();
        let names: Vec<_> = config.parameters().iter().map(|known| known.name).collect();
        let spares = |name: &&str| {
            let mut config = self.clone();
            let is_set = config.set(name, Value::Number(0.0)).is_ok();
            let needs = config.needs();
            is_set && !inputs.iter().any(|input| needs.contains(input))
        };
        let spared = names.into_iter().filter(spares);
        spared.map(|name| format!(", or `{name}` = 0")).collect()
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

/// The inputs in a sentence, each with what may take its place.
fn all_of(inputs: &[Input]) -> String {
    let several = inputs.len() > 1;
    let named = inputs.iter().map(|input| match input.substitute() {
        Some(other) if several => format!("`{input}` (or `{other}`)"),
        Some(other) => format!("`{input}`, or `{other}`"),
        None => format!("`{input}`"),
    });
    let mut named: Vec<_> = named.collect();
    let last = named.pop().unwrap_or_default();
    if named.is_empty() {
        last
    } else {
        format!("{} and {last}", named.join(", "))
    }
}

/// What to say after an unknown name: the nearest that there is, or all.
pub(super) fn hint(name: &str, known: &[&str]) -> String {
    // A long one has none near it, and its distances would take long.
    let short = name.len() <= check::LONGEST_SHOWN;
    let nearest = known
        .iter()
        .filter(|_| short)
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().max(name.len()) / 2);
    match nearest {
        Some((_, known)) => format!("; did you mean `{known}`?"),
        None => format!("; there are {}", known.join(", ")),
    }
}
