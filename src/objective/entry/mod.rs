//! What an objective's file says, so that the objective can be chosen by name: of its config and of
//! its module; and what these statements are made of, parameters and inputs.

mod features;
mod parameter;
mod preset;

use burn::tensor::Tensor;

pub use features::{Features, Input};
pub use parameter::{Parameter, Value};
pub(super) use parameter::{Scale, Temperature};
pub(super) use preset::preset;

use super::contrastive::ContrastiveConfig;
use crate::schedule::{Schedule, Settings};
use crate::similarity::{LogitScale, SimilarityConfig};

/// What an objective's file says of its config, so that it can be chosen by name.
pub(super) trait Named {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Its parameters, besides those that every softmax contrast has.
    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        Vec::new()
    }

    /// The inputs that it needs besides image and text. What follows from the parts of a softmax
    /// contrast, such as a teacher for its weights, is added to them.
    fn needs(&self) -> Vec<Input> {
        Vec::new()
    }

    /// The inputs that it uses where they are there.
    fn uses(&self) -> Vec<Input> {
        Vec::new()
    }

    /// How training changes it, unless a configuration says otherwise.
    fn schedules(&self) -> Settings<Schedule> {
        Settings::default()
    }

    /// How it compares embeddings: once, but for a sum.
    fn similarities(&mut self) -> Vec<&mut SimilarityConfig>;

    /// Of a preset of the softmax contrast, its parts.
    fn contrastive(&self) -> Option<Preset> {
        None
    }
}

/// A preset of the softmax contrast, and the name that messages give its module.
pub(super) struct Preset {
    pub config: ContrastiveConfig,
    pub objective_name: &'static str,
}

/// What an objective's file says of its module, so that it can be chosen by name.
pub(super) trait Evaluate {
    /// The loss of a batch, `[1]`.
    #[track_caller]
    fn evaluate(&self, features: &Features) -> Tensor<1>;

    /// Takes other values of what changes during training.
    #[track_caller]
    fn set(&mut self, _settings: &Settings) {}

    /// Its logit scale, if it has one; of a sum, those of its terms.
    fn scales(&mut self) -> Vec<&mut LogitScale> {
        Vec::new()
    }
}

/// The entry of an objective that is no preset: its name, its parameters, and, where it has them,
/// the values that change during training and its logit scale.
macro_rules! by_name {
    (
        $objective:ident = $config:ident, $name:literal;
        parameters($parameters:ident) = $own:expr;
        $(settings($set:ident, $settings:ident) = $change:expr;)?
        $(schedules = $schedules:expr;)?
        $(scales($scaled:ident) = $scales:expr;)?
    ) => {
        impl crate::objective::entry::Named for $config {
            fn name(&self) -> &'static str {
                $name
            }

            fn parameters(&mut self) -> Vec<crate::objective::entry::Parameter<'_>> {
                use crate::objective::entry;
                let $parameters = self;
                let mut parameters: Vec<entry::Parameter<'_>> = Vec::from($own);
                let precision = &mut $parameters.similarity.precision;
                parameters.push(entry::Parameter::new("precision", precision));
                parameters
            }

            $(fn schedules(&self) -> crate::schedule::Settings<crate::schedule::Schedule> {
                $schedules
            })?

            fn similarities(&mut self) -> Vec<&mut crate::similarity::SimilarityConfig> {
                vec![&mut self.similarity]
            }
        }

        impl crate::objective::entry::Evaluate for $objective {
            fn evaluate(&self, features: &crate::objective::Features) -> burn::tensor::Tensor<1> {
                self.forward(features.image.clone(), features.text.clone())
            }

            $(fn set(&mut self, settings: &crate::schedule::Settings) {
                let ($set, $settings) = (self, settings);
                $change
            })?

            $(fn scales(&mut self) -> Vec<&mut crate::similarity::LogitScale> {
                let $scaled = self;
                $scales
            })?
        }
    };
}
pub(super) use by_name;
