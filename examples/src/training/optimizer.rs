//! AdamW without decay on norms, biases and the logit scale, and clipping by the global norm.

use burn::module::{Module, ModuleVisitor, Param, ParamGroup};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Paths of the parameters that never decay: norms (`gamma`, `beta`), biases, the logit scale.
pub const NO_DECAY: &str = r"(^|\.)(gamma|beta|bias)$|(^|\.)logit_scale(\.|$)";

/// AdamW and gradient clipping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay of all parameters but norms, biases and the logit scale.
    pub weight_decay: f32,
    /// Decay of the gradients' running mean.
    pub beta_1: f32,
    /// Decay of the squared gradients' running mean; CLIP's 0.98 for its vision transformers.
    pub beta_2: f32,
    /// Added to the denominator.
    pub epsilon: f32,
    /// Largest norm of the gradient over ALL parameters together; null for no clipping.
    pub max_grad_norm: Option<f64>,
}

impl OptimizerConfig {
    /// A new optimiser.
    pub fn init(&self) -> ModuleOptimizer {
        let adamw = AdamWConfig::new()
            .with_beta_1(self.beta_1)
            .with_beta_2(self.beta_2)
            .with_epsilon(self.epsilon)
            .with_weight_decay(self.weight_decay);
        let no_decay = ParamGroup::from_regex(NO_DECAY).expect("NO_DECAY is a regular expression");
        adamw
            .init()
            .with_group(no_decay, adamw.with_weight_decay(0.0).build(), None)
    }
}

/// The l2 norm of all gradients of a module taken together, `[1]`; zero where there are none.
pub fn global_norm<M: Module>(module: &M, gradients: &GradientsParams) -> Option<Tensor<1>> {
    let mut visitor = SquareSum { gradients, sum: None };
    module.visit(&mut visitor);
    visitor.sum.map(Tensor::sqrt)
}

/// Multiplies every gradient of a module by `factor`, `[1]`.
///
/// Burn's own `GradientClippingConfig::Norm` clips each tensor by its own norm, which turns the
/// direction of the step; multiplying all of them by one factor keeps it.
pub fn scale<M: Module>(module: &M, gradients: GradientsParams, factor: Tensor<1>) -> GradientsParams {
    let mut visitor = Scale {
        from: gradients,
        to: GradientsParams::new(),
        factor,
    };
    module.visit(&mut visitor);
    visitor.to
}

struct SquareSum<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for SquareSum<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let squares = gradient.square().sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + squares,
                None => squares,
            });
        }
    }
}

struct Scale {
    from: GradientsParams,
    to: GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.from.remove::<D>(param.id) {
            let scaled = gradient * self.factor.clone().reshape([1; D]);
            self.to.register(param.id, scaled);
        }
    }
}
