//! The list of objectives by name.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::features::{Features, Input};
use super::parameter::Parameter;
use super::sum::{WeightedSum, WeightedSumConfig};
use crate::check::ConfigError;
use crate::objective::*;
use crate::schedule::{Schedule, Settings};
use crate::similarity::{LogitScale, SimilarityConfig};

/// What an objective's file says of its config, so that it can be chosen by name.
pub(in crate::objective) trait Named {
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

/// A preset of the softmax contrast, and the names that messages give it.
pub(in crate::objective) struct Preset {
    pub config: ContrastiveConfig,
    pub config_name: &'static str,
    pub objective_name: &'static str,
}

/// What an objective's file says of its module, so that it can be chosen by name.
pub(in crate::objective) trait Evaluate {
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
        impl crate::objective::named::Named for $config {
            fn name(&self) -> &'static str {
                $name
            }

            fn parameters(&mut self) -> Vec<crate::objective::named::Parameter<'_>> {
                let $parameters = self;
                Vec::from($own)
            }

            $(fn schedules(&self) -> crate::schedule::Settings<crate::schedule::Schedule> {
                $schedules
            })?

            fn similarities(&mut self) -> Vec<&mut crate::similarity::SimilarityConfig> {
                vec![&mut self.similarity]
            }
        }

        impl crate::objective::named::Evaluate for $objective {
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
pub(in crate::objective) use by_name;

/// The enums over all objectives, and access to what their files say.
///
/// The presets of the softmax contrast share its module; `on device` marks other objectives that
/// have parameters on a device.
macro_rules! catalogue {
    (
        presets { $($preset:ident: $preset_config:ident,)+ }
        others { $($objective:ident: $config:ident $(on $device:ident)?,)+ }
    ) => {
        /// The config of any objective by name.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyConfig {
            $(#[doc = concat!("[`", stringify!($preset), "`].")] $preset($preset_config),)+
            $(#[doc = concat!("[`", stringify!($objective), "`].")] $objective($config),)+
        }

        /// The module of any objective by name.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)] // There are few of them.
        pub enum AnyObjective {
            /// InfoNCE and its relatives, whose parts are a [`Criterion`].
            Contrastive(Contrastive),
            $(#[doc = concat!("[`", stringify!($objective), "`].")] $objective($objective),)+
        }

        impl AnyConfig {
            /// Every objective at its defaults, in the order of the documentation.
            pub fn all() -> Vec<Self> {
                vec![
                    $(Self::$preset($preset_config::new()),)+
                    $(Self::$objective($config::new()),)+
                ]
            }

            pub(super) fn get(&self) -> &dyn Named {
                match self {
                    $(Self::$preset(config) => config,)+
                    $(Self::$objective(config) => config,)+
                }
            }

            pub(super) fn get_mut(&mut self) -> &mut dyn Named {
                match self {
                    $(Self::$preset(config) => config,)+
                    $(Self::$objective(config) => config,)+
                }
            }

            pub(super) fn check(&self) -> Result<(), ConfigError> {
                match self {
                    $(Self::$preset(config) => config.check(),)+
                    $(Self::$objective(config) => config.check(),)+
                }
            }

            /// Builds the objective.
            #[track_caller]
            pub(super) fn init(&self, device: &Device) -> AnyObjective {
                match self {
                    $(Self::$preset(config) => AnyObjective::Contrastive(config.init(device)),)+
                    $(Self::$objective(config) => {
                        AnyObjective::$objective(init!(config, device $(, $device)?))
                    })+
                }
            }
        }

        impl AnyObjective {
            pub(super) fn get(&self) -> &dyn Evaluate {
                match self {
                    Self::Contrastive(objective) => objective,
                    $(Self::$objective(objective) => objective,)+
                }
            }

            pub(super) fn get_mut(&mut self) -> &mut dyn Evaluate {
                match self {
                    Self::Contrastive(objective) => objective,
                    $(Self::$objective(objective) => objective,)+
                }
            }
        }
    };
}

/// `init` of a config whose objective has parameters on a device, or has none.
macro_rules! init {
    ($config:expr, $device:expr) => {
        $config.init()
    };
    ($config:expr, $device:expr, $on:ident) => {
        $config.init($device)
    };
}

catalogue! {
    presets {
        InfoNce: InfoNceConfig,
        ConVse: ConVseConfig,
        Mvn: MvnConfig,
        NtXent: NtXentConfig,
        Decoupled: DecoupledConfig,
        Srcl: SrclConfig,
        FalseNegativeRemoval: FalseNegativeRemovalConfig,
        InfoCmr: InfoCmrConfig,
        MultiPositive: MultiPositiveConfig,
        ImageTextContrastive: ImageTextContrastiveConfig,
    }
    others {
        Vse: VseConfig,
        VsePlusPlus: VsePlusPlusConfig,
        ConVsePlusPlus: ConVsePlusPlusConfig,
        MaxMargin: MaxMarginConfig,
        SigLip: SigLipConfig on device,
        ReCo: ReCoConfig,
        Orthogonality: OrthogonalityConfig,
        Alignment: AlignmentConfig,
        Uniformity: UniformityConfig,
        BarlowTwins: BarlowTwinsConfig,
        WeightedSum: WeightedSumConfig on device,
    }
}

impl AnyConfig {
    /// The names, in the order of the documentation.
    pub fn names() -> Vec<&'static str> {
        Self::all().iter().map(Self::name).collect()
    }

    /// The objective of that name, at its defaults.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|config| config.name() == name)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.get().name()
    }
}
