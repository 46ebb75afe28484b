//! What the objectives of paired embeddings share that are not softmax contrasts: how they are
//! built, changed during training, evaluated and displayed.

use std::ops::RangeInclusive;

use burn::tensor::Tensor;

use super::BatchReduction;
use crate::pairwise::{Expr, Pairs, rows};

/// The values of a field that may be any finite f32.
pub(super) const FINITE: RangeInclusive<f64> = f32::MIN as f64..=f32::MAX as f64;
/// The values of a field that must be finite and not negative.
pub(super) const NON_NEGATIVE: RangeInclusive<f64> = 0.0..=f64::MAX;
/// The values of a field that must be finite and positive in f32.
pub(super) const POSITIVE: RangeInclusive<f64> = f32::MIN_POSITIVE as f64..=f32::MAX as f64;

/// An objective that adds up a cost of each pair.
pub(super) trait SumOverPairs {
    /// How the losses of the rows become one.
    fn reduction(&self) -> BatchReduction;

    /// All pairs of embeddings that were checked, and the cost of a pair.
    #[track_caller]
    fn cost(&self, image: Tensor<2>, text: Tensor<2>) -> (Pairs, Expr);

    /// The loss of the batch, `[1]`: value and gradient in one pass over the pairs.
    #[track_caller]
    fn loss(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        let count = image.dims()[0];
        let (pairs, cost) = self.cost(image, text);
        self.reduction().of_sum(pairs.total(&cost), count)
    }

    /// The cost of each image, `[N]`: the sum over its row.
    #[track_caller]
    fn each(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        let (pairs, cost) = self.cost(image, text);
        pairs.reduce(&[rows().sum(&cost)]).remove(0)
    }
}

/// `forward`, which checks the embeddings and calls the objective's `loss`, and, where its
/// description is given, `forward_no_reduction`, which calls `each`.
macro_rules! forward {
    ($objective:ident $(, $each:literal)?) => {
        impl $objective {
            /// The loss, reduced over the batch.
            ///
            /// # Shapes
            ///
            /// - `image`, `text`: `[N, D]`, row `i` of one belongs to row `i` of the other
            /// - returns `[1]`, f64 for f64 embeddings, f32 for all others
            ///
            /// # Panics
            ///
            /// Where shapes, dtypes or devices of `image` and `text` differ, or the batch is empty.
            #[track_caller]
            pub fn forward(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
                crate::check::paired(stringify!($objective), ("image", &image), ("text", &text));
                self.loss(image, text)
            }

            $(#[doc = $each]
            ///
            /// # Shapes
            ///
            /// - `image`, `text`: `[N, D]`
            /// - returns `[N]`
            ///
            /// # Panics
            ///
            /// As [`forward`](Self::forward).
            #[track_caller]
            pub fn forward_no_reduction(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
                crate::check::paired(stringify!($objective), ("image", &image), ("text", &text));
                self.each(image, text)
            })?
        }
    };
}

/// What the file of an objective without learned parameters leaves to this macro, whose config has
/// a field `similarity`: its module; `check` and `init` of the config; its display; and its entry
/// among the objectives by name.
///
/// ```text
/// objective! {
///     /// Documentation of the module.
///     Vse = VseConfig, "vse";
///     ranges: margin in NON_NEGATIVE;                  // fields that `check` checks
///     parameters: "margin" = margin;                   // those by name, with their fields
///     shows: epsilon;                                  // other fields that the display has
///     settings: margin;                                // fields that change during training
///     schedules = Settings { .. };                     // how these do by default
///     forward: "What `forward_no_reduction` returns."; // as `forward!`; or `forward;`
/// }
/// ```
///
/// Every line but the first may be missing.
macro_rules! objective {
    (
        $(#[$documentation:meta])*
        $name:ident = $config:ident, $by_name:literal;
        $(ranges: $($ranged:ident in $range:expr),+;)?
        $(parameters: $($parameter:literal = $field:ident),+;)?
        $(shows: $($shown:ident),+;)?
        $(settings: $($setting:ident),+;)?
        $(schedules = $schedules:expr;)?
        $(forward $(: $each:literal)?;)?
    ) => {
        $(#[$documentation])*
        #[derive(burn::module::Module, Debug)]
        #[module(custom_display)]
        pub struct $name {
            #[module(skip)]
            config: $config,
        }

        impl $config {
            /// Checks the values.
            ///
            /// # Errors
            ///
            /// Where a value is not in the range that its field states.
            pub fn check(&self) -> Result<(), crate::ConfigError> {
                $($({
                    let (field, range) = (stringify!($ranged), $range);
                    let (low, high) = (*range.start(), *range.end());
                    crate::check::range(stringify!($config), field, self.$ranged, low, high)?;
                })+)?
                Ok(())
            }

            /// Builds the objective; it has no learned parameters.
            ///
            /// # Panics
            ///
            /// Where [`check`](Self::check) fails.
            #[track_caller]
            pub fn init(&self) -> $name {
                crate::check::or_panic(self.check());
                $name { config: self.clone() }
            }
        }

        $(impl $name {
            /// The same objective with other values of what changes during training. Of
            /// [`Settings`](crate::schedule::Settings) it reads
            $(#[doc = concat!("- `", stringify!($setting), "`")])+
            ///
            /// # Panics
            ///
            /// Where a value is out of its range.
            #[track_caller]
            pub fn with_settings(mut self, settings: &crate::schedule::Settings) -> Self {
                crate::objective::entry::Evaluate::set(&mut self, settings);
                self
            }
        })?

        $(forward!($name $(, $each)?);)?

        display!($name: $($($field,)+)? $($($shown,)+)?);

        crate::objective::entry::by_name! {
            $name = $config, $by_name;
            parameters(_config) = [
                $($(crate::objective::entry::Parameter::of_field(
                    $parameter,
                    stringify!($field),
                    &mut _config.$field,
                )),+)?
            ];
            $(settings(objective, settings) = {
                $(
                    let value = settings.$setting.unwrap_or(objective.config.$setting);
                    objective.config.$setting = value;
                )+
                crate::check::or_panic(objective.config.check());
            };)?
            $(schedules = $schedules;)?
        }
    };
}

/// The display of an objective, on one line: the modules that it holds, fields of its config, and
/// how it compares embeddings.
macro_rules! display {
    ($objective:ty: $([$($module:ident),+])? $($setting:ident,)*) => {
        impl burn::module::ModuleDisplay for $objective {
            fn custom_settings(&self) -> Option<burn::module::DisplaySettings> {
                burn::module::DisplaySettings::new()
                    .with_new_line_after_attribute(false)
                    .optional()
            }

            fn custom_content(
                &self,
                content: burn::module::Content,
            ) -> Option<burn::module::Content> {
                let similarity = &self.config.similarity;
                similarity.show(content
                    $($(.add(stringify!($module), &self.$module))+)?
                    $(.add(stringify!($setting), &format!("{:?}", self.config.$setting)))*
                ).optional()
            }
        }
    };
}
