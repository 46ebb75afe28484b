//! The list of objectives by name.

use burn::module::Module;
use burn::tensor::Device;

use super::sum::{WeightedSum, WeightedSumConfig};
use crate::check::ConfigError;
use crate::objective::entry::{Evaluate, Named};
use crate::objective::*;

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
