//! The factor between a similarity and its logit: learnable or fixed, clamped.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::tensor::{DType, Device, Tensor};

use crate::check::{self, ConfigError};

/// Configuration of a [`LogitScale`].
#[derive(Config, Debug, PartialEq)]
pub struct LogitScaleConfig {
    /// Initial temperature τ; the logit scale starts at `1/τ`. Default 0.07 (CLIP, ALBEF).
    #[config(default = 0.07)]
    pub temperature: f64,
    /// Whether the scale is learned, by its logarithm (CLIP). Default true.
    #[config(default = true)]
    pub learnable: bool,
    /// Smallest logit scale, a factor (not a logarithm). Default 1 (CLIP).
    #[config(default = 1.0)]
    pub min: f64,
    /// Largest logit scale, a factor (not a logarithm). Default 100 (CLIP).
    #[config(default = 100.0)]
    pub max: f64,
}

impl LogitScaleConfig {
    /// A temperature that is not learned, with a range that holds it.
    pub fn fixed(temperature: f64) -> Self {
        let scale = 1.0 / temperature;
        Self::new()
            .with_temperature(temperature)
            .with_learnable(false)
            .with_min(scale.min(1.0))
            .with_max(scale.max(100.0))
    }

    /// ALBEF's: learned from temperature 0.07, within temperatures [0.001, 0.5]. (ALBEF learns the
    /// temperature itself; here it is the logarithm of its inverse.)
    pub fn albef() -> Self {
        Self::new().with_min(2.0).with_max(1000.0)
    }

    /// Checks the values.
    ///
    /// # Errors
    ///
    /// If `temperature`, `min` or `max` is not positive and finite, or `1/temperature` is outside
    /// `[min, max]`.
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = "LogitScaleConfig";
        let (tiny, huge) = (f32::MIN_POSITIVE as f64, f32::MAX as f64);
        check::range(name, "temperature", self.temperature, tiny, huge)?;
        check::range(name, "max", self.max, tiny, huge)?;
        check::range(name, "min", self.min, tiny, self.max)?;
        let scale = 1.0 / self.temperature;
        // Temperatures given in decimal may be rounded, such as 0.01 against a maximum of 100.
        if self.min * (1.0 - 1e-9) <= scale && scale <= self.max * (1.0 + 1e-9) {
            return Ok(());
        }
        let problem = format!(
            "is {}, a logit scale of {}, outside [`min`, `max`] = [{}, {}]: widen the range",
            check::number(self.temperature),
            check::number(scale),
            check::number(self.min),
            check::number(self.max)
        );
        Err(ConfigError::new(name, "temperature", problem))
    }

    /// Builds the module on `device`.
    ///
    /// # Panics
    ///
    /// If [`check`](Self::check) returns an error.
    #[track_caller]
    pub fn init(&self, device: &Device) -> LogitScale {
        check::or_panic(self.check());
        let log_scale = Tensor::<1>::from_data([(1.0 / self.temperature).ln()], device);
        LogitScale {
            log_scale: Param::from_tensor(log_scale).set_require_grad(self.learnable),
            learnable: self.learnable,
            log_min: self.min.ln(),
            log_max: self.max.ln(),
        }
    }
}

/// The factor that turns similarities into logits, `logit = logit_scale · similarity`.
///
/// The parameter is its logarithm, as in CLIP, so that it stays positive. [`value`](Self::value)
/// always lies in the range. Outside the range the gradient is that at the bound (not zero), so
/// that a scale which an optimiser step carried out of range can come back; call
/// [`clamped`](Self::clamped) after each step, as CLIP does, to keep the parameter itself inside.
///
/// A fixed scale holds the same parameter without a gradient: it is saved and loaded with the
/// model, and no optimiser moves it.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct LogitScale {
    /// Natural logarithm of the scale, shape `[1]`.
    pub log_scale: Param<Tensor<1>>,
    learnable: bool,
    log_min: f64,
    log_max: f64,
}

impl LogitScale {
    /// The scale, shape `[1]`, within the range; differentiable if it is learned.
    pub fn value(&self) -> Tensor<1> {
        self.value_as(self.log_scale.dtype())
    }

    /// The scale in a wider dtype than the parameter's: computed from the parameter in that dtype.
    pub(crate) fn value_as(&self, dtype: DType) -> Tensor<1> {
        let raw = self.log_scale.val().cast(dtype);
        let correction =
            raw.clone().detach().clamp(self.log_min, self.log_max) - raw.clone().detach();
        (raw + correction).exp()
    }

    /// The scale in the dtype that these embeddings are compared in.
    #[track_caller]
    pub(crate) fn for_embeddings(&self, caller: &str, embeddings: &Tensor<2>) -> Tensor<1> {
        check::built_on(caller, &self.log_scale.device(), embeddings);
        self.value_as(check::compute_dtype(embeddings.dtype()))
    }

    /// The module with its parameter clamped to the range: call it after each optimiser step.
    pub fn clamped(self) -> Self {
        let (min, max) = (self.log_min, self.log_max);
        let log_scale = self.log_scale.map(|raw| {
            let tracked = raw.is_require_grad();
            raw.clamp(min, max).detach().set_require_grad(tracked)
        });
        Self { log_scale, ..self }
    }

    /// The smallest and the largest scale, as factors.
    pub fn range(&self) -> (f64, f64) {
        (self.log_min.exp(), self.log_max.exp())
    }
}

impl ModuleDisplay for LogitScale {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let (min, max) = self.range();
        content
            .add("learnable", &self.learnable)
            .add("min", &min)
            .add("max", &max)
            .optional()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(t: Tensor<1>) -> f32 {
        t.into_scalar()
    }

    #[test]
    fn starts_at_one_over_the_temperature() {
        let scale = LogitScaleConfig::new().init(&Device::default());
        assert!((scalar(scale.value()) - 1.0 / 0.07).abs() < 1e-4);
    }

    #[test]
    fn a_fixed_scale_has_no_gradient_and_that_of_a_learned_one_is_its_value() {
        let device = Device::default().autodiff();
        let fixed = LogitScaleConfig::fixed(0.001).init(&device);
        let learned = LogitScaleConfig::new().with_temperature(0.5).init(&device);
        let gradients = (fixed.value() + learned.value()).sum().backward();
        assert!(fixed.log_scale.val().grad(&gradients).is_none());
        // d exp(x) / dx = exp(x)
        assert!((scalar(learned.log_scale.val().grad(&gradients).unwrap()) - 2.0).abs() < 1e-5);
    }

    #[test]
    fn out_of_range_the_value_is_the_bound_and_the_gradient_is_not_zero() {
        let device = Device::default().autodiff();
        let mut scale = LogitScaleConfig::new().init(&device);
        scale.log_scale = scale
            .log_scale
            .map(|t| (t * 0.0 + 7.0).detach().require_grad());
        assert!((scalar(scale.value()) - 100.0).abs() < 1e-3);
        let gradients = scale.value().backward();
        assert!(scalar(scale.log_scale.val().grad(&gradients).unwrap()) > 99.0);

        let id = scale.log_scale.id;
        let scale = scale.clamped();
        assert_eq!(scale.log_scale.id, id);
        assert!(scale.log_scale.val().is_require_grad());
        assert!((scalar(scale.log_scale.val()) - 100f32.ln()).abs() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "`temperature` is 0, it must lie in")]
    fn a_temperature_of_zero_is_refused() {
        LogitScaleConfig::new()
            .with_temperature(0.0)
            .init(&Device::default());
    }

    #[test]
    #[should_panic(expected = "outside [`min`, `max`] = [1, 100]")]
    fn a_temperature_out_of_range_is_refused() {
        LogitScaleConfig::new()
            .with_temperature(0.001)
            .init(&Device::default());
    }
}
