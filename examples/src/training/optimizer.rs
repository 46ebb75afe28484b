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

/// The l2 norm of all gradients of a module taken together, `[1]`; `None` where it has none.
pub fn global_norm<M: Module>(module: &M, gradients: &GradientsParams) -> Option<Tensor<1>> {
    let mut visitor = SquareSum {
        gradients,
        sum: None,
    };
    module.visit(&mut visitor);
    visitor.sum.map(Tensor::sqrt)
}

/// The factor that brings a gradient of norm `norm` down to at most `max_norm`.
pub fn clip_factor(norm: f64, max_norm: Option<f64>) -> f64 {
    match max_norm {
        Some(max_norm) if norm > max_norm => max_norm / norm,
        _ => 1.0,
    }
}

/// Multiplies every gradient of a module by one factor.
///
/// Burn's own `GradientClippingConfig::Norm` clips each tensor by its own norm, which turns the
/// direction of the step; multiplying all of them by one factor keeps it.
pub fn scale<M: Module>(module: &M, gradients: GradientsParams, factor: f64) -> GradientsParams {
    if factor == 1.0 {
        return gradients;
    }
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
    factor: f64,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.from.remove::<D>(param.id) {
            self.to.register(param.id, gradient.mul_scalar(self.factor));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{DualEncoder, DualEncoderConfig, Pooling};
    use burn::module::ModuleMapper;
    use burn::tensor::{Device, TensorData};
    use burn_contrastive::objective::ObjectiveConfig;

    fn model() -> DualEncoder {
        let mut config = DualEncoderConfig::tiny();
        config.image.pooling = Pooling::Token;
        (config.image.layers, config.text.layers) = (1, 1);
        let device = Device::flex().autodiff();
        let objective = ObjectiveConfig::named("info-nce").unwrap();
        config.init(objective.init(&device), &device)
    }

    /// Every parameter becomes all ones.
    struct Ones;

    impl ModuleMapper for Ones {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.ones_like().detach().require_grad())
        }
    }

    /// Paths and values of the parameters.
    #[derive(Default)]
    struct Values {
        path: Vec<String>,
        values: Vec<(String, TensorData)>,
    }

    impl ModuleVisitor for Values {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_string());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.values
                .push((self.path.join("."), param.val().into_data()));
        }
    }

    fn values(model: &DualEncoder) -> Vec<(String, TensorData)> {
        let mut visitor = Values::default();
        model.visit(&mut visitor);
        visitor.values
    }

    /// The same gradient everywhere.
    struct Constant(f64, GradientsParams);

    impl ModuleVisitor for Constant {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1
                .register(param.id, param.val().inner().ones_like() * self.0);
        }
    }

    fn constant_gradients(model: &DualEncoder, value: f64) -> GradientsParams {
        let mut visitor = Constant(value, GradientsParams::new());
        model.visit(&mut visitor);
        visitor.1
    }

    fn config() -> OptimizerConfig {
        OptimizerConfig {
            learning_rate: 0.5,
            weight_decay: 0.5,
            beta_1: 0.9,
            beta_2: 0.98,
            epsilon: 1e-6,
            max_grad_norm: None,
        }
    }

    fn is_logit_scale(path: &str) -> bool {
        path.starts_with("objective.") && path.contains(".logit_scale")
    }

    #[test]
    fn norms_biases_and_the_logit_scale_do_not_decay_and_the_rest_does() {
        let model = model().map(&mut Ones);
        // Without a gradient only the decay moves a parameter.
        let gradients = constant_gradients(&model, 0.0);
        let model = config().init().step(0.5, model, gradients);
        let (decayed, kept): (Vec<_>, Vec<_>) = values(&model)
            .into_iter()
            .partition(|(_, data)| data.iter::<f32>().next().unwrap() < 1.0);
        let paths = |group: Vec<(String, TensorData)>| -> Vec<String> {
            group.into_iter().map(|(path, _)| path).collect()
        };
        let (decayed, kept) = (paths(decayed), paths(kept));
        for path in &decayed {
            assert!(
                path.ends_with(".weight")
                    || path.ends_with(".positions")
                    || path.ends_with(".class_token"),
                "{path} decays",
            );
        }
        for path in &kept {
            let last = path.rsplit('.').next().unwrap();
            assert!(
                ["gamma", "beta", "bias"].contains(&last) || is_logit_scale(path),
                "{path} does not decay",
            );
        }
        for path in [
            "image.patches.weight",
            "image.transformer.layers.0.mha.query.weight",
            "text.tokens.weight",
            "text.positions",
            "image_projection.weight",
        ] {
            assert!(
                decayed.iter().any(|decays| decays == path),
                "{path} is missing from {decayed:?}"
            );
        }
        assert!(kept.iter().any(|path| is_logit_scale(path)));
        assert!(kept.contains(&"text.transformer.layers.0.norm_1.gamma".to_string()));
    }

    #[test]
    fn the_norm_is_that_of_all_parameters_together() {
        let model = model();
        let gradients = constant_gradients(&model, 0.1);
        let norm = global_norm(&model, &gradients)
            .unwrap()
            .into_scalar::<f64>();
        let expected = 0.1 * (model.num_params() as f64).sqrt();
        assert!(
            (norm / expected - 1.0).abs() < 1e-4,
            "{norm} is not {expected}"
        );

        let clipped = scale(&model, gradients, clip_factor(norm, Some(2.0)));
        let norm = global_norm(&model, &clipped).unwrap().into_scalar::<f64>();
        assert!((norm - 2.0).abs() < 1e-4, "clipped to {norm}");
    }

    #[test]
    fn a_short_gradient_is_not_clipped() {
        assert_eq!(clip_factor(0.5, Some(1.0)), 1.0);
        assert_eq!(clip_factor(4.0, Some(1.0)), 0.25);
        assert_eq!(clip_factor(4.0, None), 1.0);
    }
}
