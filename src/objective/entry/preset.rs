//! Objectives that are settings of [`Contrastive`](crate::objective::Contrastive).

/// What a preset's file leaves to this macro, whose config has fields `logit_scale`, `directions`
/// and `similarity`: its module, an alias; `contrastive`, `check` and `init` of the config; and its
/// entry among the objectives by name.
///
/// ```text
/// preset! {
///     /// Documentation of the alias.
///     ConVse = ConVseConfig, "con-vse";
///     criterion(config) = Criterion::new(); // besides `directions` and `similarity`
///     parameters(config) = [];       // besides `temperature`, `directions` and `precision`
///     needs = [];                    // inputs besides image and text; optional
///     uses = [];                     // inputs that are used where they are there; optional
///     schedules = Settings { .. };   // how training changes it by default; optional
/// }
/// ```
macro_rules! preset {
    (
        $(#[$documentation:meta])*
        $name:ident = $config:ident, $by_name:literal;
        criterion($values:ident) = $criterion:expr;
        parameters($parameters:ident) = $own:expr;
        $(needs = $needs:expr;)?
        $(uses = $uses:expr;)?
        $(schedules = $schedules:expr;)?
    ) => {
        $(#[$documentation])*
        pub type $name = crate::objective::Contrastive;

        impl $config {
            /// The parts of the objective, to be recombined.
            pub fn contrastive(&self) -> crate::objective::ContrastiveConfig {
                let $values = self;
                let criterion = $criterion
                    .with_directions(self.directions)
                    .with_similarity(self.similarity);
                crate::objective::ContrastiveConfig::new()
                    .with_logit_scale(self.logit_scale.clone())
                    .with_criterion(criterion)
            }

            /// Checks the values.
            ///
            /// # Errors
            ///
            /// As [`ContrastiveConfig::check`](crate::objective::ContrastiveConfig::check).
            pub fn check(&self) -> Result<(), crate::ConfigError> {
                self.contrastive().check_as(stringify!($config))
            }

            /// Builds the objective on `device` (an autodiff device where the logit scale is to be
            /// learned).
            ///
            /// # Panics
            ///
            /// Where [`check`](Self::check) fails.
            #[track_caller]
            pub fn init(&self, device: &burn::tensor::Device) -> $name {
                crate::check::or_panic(self.check());
                self.contrastive().init_as(stringify!($name), device)
            }
        }

        impl crate::objective::entry::Named for $config {
            fn name(&self) -> &'static str {
                $by_name
            }

            fn parameters(&mut self) -> Vec<crate::objective::entry::Parameter<'_>> {
                use crate::objective::entry;
                let $parameters = self;
                let temperature = entry::Temperature(&mut $parameters.logit_scale);
                let mut parameters = vec![
                    entry::Parameter::new("temperature", temperature),
                    entry::Parameter::new("directions", &mut $parameters.directions),
                ];
                parameters.extend($own);
                let precision = &mut $parameters.similarity.precision;
                parameters.push(entry::Parameter::new("precision", precision));
                parameters
            }

            $(fn needs(&self) -> Vec<crate::objective::entry::Input> {
                Vec::from($needs)
            })?

            $(fn uses(&self) -> Vec<crate::objective::entry::Input> {
                Vec::from($uses)
            })?

            $(fn schedules(&self) -> crate::schedule::Settings<crate::schedule::Schedule> {
                $schedules
            })?

            fn similarities(&mut self) -> Vec<&mut crate::similarity::SimilarityConfig> {
                vec![&mut self.similarity]
            }

            fn contrastive(&self) -> Option<crate::objective::entry::Preset> {
                Some(crate::objective::entry::Preset {
                    config: self.contrastive(),
                    objective_name: stringify!($name),
                })
            }
        }
    };
}
pub(in crate::objective) use preset;
