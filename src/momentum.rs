//! A slowly moving copy of an encoder: the teacher of momentum distillation, and the source of a
//! queue's features.

use std::any::Any;
use std::collections::VecDeque;

use burn::config::Config;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId, ParameterValue};
use burn::tensor::kind::Autodiff;
use burn::tensor::{Bool, Int, Tensor};

use crate::check::{self, ConfigError};
use crate::tensor::constant_like;

/// Configuration of a [`MomentumEncoder`].
#[derive(Config, Debug, PartialEq)]
pub struct MomentumEncoderConfig {
    /// Momentum m, in [0, 1]. Default 0.995 (ALBEF).
    #[config(default = 0.995)]
    pub momentum: f64,
}

impl MomentumEncoderConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// If `momentum` is outside [0, 1].
    pub fn check(&self) -> Result<(), ConfigError> {
        check::range("MomentumEncoderConfig", "momentum", self.momentum, 0.0, 1.0)
    }

    /// The momentum copy of `student`: its values, without gradients, on the device without
    /// autodiff.
    ///
    /// # Panics
    ///
    /// If [`check`](Self::check) returns an error.
    #[track_caller]
    pub fn init<M: Module>(&self, student: &M) -> MomentumEncoder<M> {
        check::or_panic(self.check());
        MomentumEncoder {
            encoder: student.valid().no_grad().map(&mut OwnIds),
            momentum: self.momentum,
        }
    }
}

/// An exponential moving average of a module, which is itself such a module; built by
/// [`MomentumEncoderConfig::init`].
///
/// After each optimiser step, `θ' ← m·θ' + (1 − m)·θ` for the parameters that the student trains;
/// everything else (frozen parameters, running statistics, integers) is copied. The copy is saved
/// and loaded with the model that holds it, exactly. Its parameters have their own ids, so that no
/// optimiser confuses them with the student's.
///
/// The copy is on the device without autodiff: dropout and batch normalisation behave as in
/// evaluation, and its inputs must be there too ([`Tensor::inner`]). Objectives, queues and
/// samplers take its outputs as constants beside tracked features.
///
/// Parameters are averaged in their own dtype. Keep them in f32: in half precision steps of `1 − m`
/// vanish.
///
/// Source: He et al. 2020 (MoCo), equation 2; Li et al. 2021 (ALBEF), section 3.3.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::momentum::MomentumEncoderConfig;
/// use burn_contrastive::objective::SigLipConfig; // Any module can be a student.
///
/// let student = SigLipConfig::new().init(&Device::default().autodiff());
/// let mut momentum = MomentumEncoderConfig::new().init(&student);
/// // After an optimiser step:
/// momentum = momentum.update(&student);
/// assert_eq!(momentum.encoder().bias.val().into_scalar::<f32>(), -10.0);
/// ```
#[derive(Module, Debug)]
pub struct MomentumEncoder<M: Module> {
    encoder: M,
    momentum: f64,
}

impl<M: Module> MomentumEncoder<M> {
    /// The copy. Its outputs carry no gradient.
    pub fn encoder(&self) -> &M {
        &self.encoder
    }

    /// One step towards the student, which must be on an autodiff device: a parameter is averaged
    /// if it requires a gradient there.
    ///
    /// # Panics
    ///
    /// If the student is not on an autodiff device, or the number, kinds or shapes of its
    /// parameters are not those of the copy.
    #[track_caller]
    pub fn update(self, student: &M) -> Self {
        assert!(
            student.devices().iter().all(|device| device.is_autodiff()),
            "MomentumEncoder: the student is not on an autodiff device: pass the model that is \
             trained, not its `.valid()`"
        );
        let mut values = Values::default();
        student.visit(&mut values);
        let mut step = Step {
            student: values.0,
            momentum: self.momentum,
        };
        let encoder = self.encoder.map(&mut step);
        assert!(
            step.student.is_empty(),
            "MomentumEncoder: the student has more parameters than its copy, by {}",
            step.student.len()
        );
        Self { encoder, ..self }
    }
}

/// Gives each parameter a new id.
struct OwnIds;

fn with_own_id<T: ParameterValue>(param: Param<T>) -> Param<T> {
    let (_, value, mapper) = param.consume();
    Param::from_mapped_value(ParamId::new(), value, mapper)
}

impl ModuleMapper for OwnIds {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        with_own_id(param)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        with_own_id(param)
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        with_own_id(param)
    }
}

/// The student's values in the order of its fields, each with whether it requires a gradient.
#[derive(Default)]
struct Values(VecDeque<(Box<dyn Any>, bool)>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let trained = param.val().is_require_grad();
        self.0.push_back((Box::new(param.val()), trained));
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.0.push_back((Box::new(param.val()), false));
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.0.push_back((Box::new(param.val()), false));
    }
}

/// Moves the copy's values towards the student's.
struct Step {
    student: VecDeque<(Box<dyn Any>, bool)>,
    momentum: f64,
}

impl Step {
    /// The next value of the student, which belongs to `own`, and whether it requires a gradient.
    fn next<const D: usize, K: Autodiff + 'static>(
        &mut self,
        own: &Tensor<D, K>,
    ) -> (Tensor<D, K>, bool) {
        let (value, trained) = self
            .student
            .pop_front()
            .expect("MomentumEncoder: the student has fewer parameters than its copy");
        let value = *value.downcast::<Tensor<D, K>>().expect(
            "MomentumEncoder: a parameter of the student has another kind or rank than its copy's",
        );
        assert!(
            value.dims() == own.dims(),
            "MomentumEncoder: a parameter of the student has shape {:?}, its copy has {:?}",
            value.dims(),
            own.dims()
        );
        (value.without_autodiff(), trained)
    }
}

impl ModuleMapper for Step {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|own| {
            let context = own.clone();
            let own = own.without_autodiff();
            let (student, trained) = self.next(&own);
            let moved = if trained {
                own * self.momentum + student * (1.0 - self.momentum)
            } else {
                student
            };
            constant_like(moved, &context)
        })
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        param.map(|own| constant_like(self.next(&own).0, &own))
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        param.map(|own| constant_like(self.next(&own).0, &own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::SigLipConfig;
    use burn::tensor::Device;

    #[test]
    #[should_panic(expected = "`momentum` is 1.5, it must lie in [0, 1]")]
    fn a_momentum_above_one_is_refused() {
        let student = SigLipConfig::new().init(&Device::default());
        MomentumEncoderConfig::new()
            .with_momentum(1.5)
            .init(&student);
    }

    #[test]
    #[should_panic(expected = "the student is not on an autodiff device")]
    fn a_student_without_autodiff_is_refused() {
        let student = SigLipConfig::new().init(&Device::default());
        let _ = MomentumEncoderConfig::new().init(&student).update(&student);
    }
}
