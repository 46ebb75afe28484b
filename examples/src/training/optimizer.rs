//! AdamW without decay on norms, biases and the logit scale, groups of parameters with a learning
//! rate and a decay of their own or frozen, and clipping by the global norm.

use anyhow::{Result, anyhow, ensure};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamGroup};
use burn::optim::lr_scheduler::LrSchedulerConfig;
use burn::optim::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrSchedulerConfig};
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
    /// Parameters that are trained in another way, or not at all; of several groups that a
    /// parameter belongs to, the last counts.
    #[serde(default)]
    pub groups: Vec<GroupConfig>,
}

/// Parameters that are trained in a way of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// A regular expression that is found in the paths of the parameters, such as `^image\.`.
    pub paths: String,
    /// Their peak learning rate, which follows the same schedule; null for that of the others.
    #[serde(default)]
    pub learning_rate: Option<f64>,
    /// Their weight decay, but for norms, biases and the logit scale; null for that of the others.
    #[serde(default)]
    pub weight_decay: Option<f32>,
    /// Whether they stay as they are.
    #[serde(default)]
    pub frozen: bool,
}

impl GroupConfig {
    fn group(&self) -> ParamGroup {
        group(&[&self.paths]).expect("groups are checked")
    }
}

/// The parameters in whose paths all of the expressions are found.
fn group(expressions: &[&str]) -> Result<ParamGroup> {
    let group = ParamGroup::from_regexes(expressions.to_vec());
    group.map_err(|error| anyhow!("{error:?}"))
}

impl OptimizerConfig {
    /// A new optimiser.
    pub fn init(&self) -> ModuleOptimizer {
        let adamw = |weight_decay| {
            AdamWConfig::new()
                .with_beta_1(self.beta_1)
                .with_beta_2(self.beta_2)
                .with_epsilon(self.epsilon)
                .with_weight_decay(weight_decay)
        };
        let mut optimizer = adamw(self.weight_decay).init();
        for config in &self.groups {
            let decay = config.weight_decay.unwrap_or(self.weight_decay);
            optimizer = optimizer.with_group(config.group(), adamw(decay).build(), None);
        }
        let no_decay = group(&[NO_DECAY]).expect("NO_DECAY is a regular expression");
        optimizer.with_group(no_decay, adamw(0.0).build(), None)
    }

    /// The learning rates of all parameters, where `rate` is the schedule: from a peak to the rate
    /// of a step.
    pub fn learning_rates(&self, rate: impl Fn(f64) -> f64) -> ModuleLearningRate {
        let constant = |peak| LrSchedulerConfig::Constant(rate(peak));
        let base = ModuleLrSchedulerConfig::new(constant(self.learning_rate));
        let all = self.groups.iter().fold(base, |all, config| {
            let peak = config.learning_rate.unwrap_or(self.learning_rate);
            all.with_group(config.group(), constant(peak))
        });
        all.init().expect("rates are checked").step()
    }

    /// The model with the parameters of frozen groups frozen.
    pub fn freeze<M: Module>(&self, model: M) -> M {
        let groups = self.groups.iter();
        let groups = groups.map(|config| (config.group(), config.frozen));
        model.map(&mut Freeze {
            path: Vec::new(),
            groups: groups.collect(),
        })
    }

    /// Checks the values.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        check_rate("optimizer.learning_rate", self.learning_rate)?;
        ensure!(
            self.max_grad_norm.is_none_or(|norm| norm > 0.0),
            "optimizer.max_grad_norm must be positive, or null for no clipping",
        );
        for (key, beta) in [("beta_1", self.beta_1), ("beta_2", self.beta_2)] {
            ensure!(
                (0.0..1.0).contains(&beta),
                "optimizer.{key} = {beta} must be in [0, 1)"
            );
        }
        ensure!(
            self.epsilon.is_finite() && self.epsilon > 0.0,
            "optimizer.epsilon = {} must be positive",
            self.epsilon,
        );
        check_decay("optimizer.weight_decay", self.weight_decay)?;
        for (index, config) in self.groups.iter().enumerate() {
            let key = |name| format!("optimizer.groups[{index}].{name}");
            group(&[&config.paths]).map_err(|error| {
                anyhow!(
                    "{} = {:?} is no regular expression: {error}",
                    key("paths"),
                    config.paths
                )
            })?;
            if let Some(rate) = config.learning_rate {
                check_rate(&key("learning_rate"), rate)?;
            }
            if let Some(decay) = config.weight_decay {
                check_decay(&key("weight_decay"), decay)?;
            }
        }
        Ok(())
    }
}

fn check_rate(key: &str, rate: f64) -> Result<()> {
    ensure!(
        rate.is_finite() && rate > 0.0,
        "{key} = {rate} must be positive"
    );
    Ok(())
}

fn check_decay(key: &str, decay: f32) -> Result<()> {
    ensure!(
        decay.is_finite() && decay >= 0.0,
        "{key} = {decay} must be at least 0"
    );
    Ok(())
}

/// Freezes the parameters whose last group is frozen.
struct Freeze {
    path: Vec<String>,
    groups: Vec<(ParamGroup, bool)>,
}

impl ModuleMapper for Freeze {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let matches = |group: &ParamGroup| group.matches(&param.id, Some(&path));
        let last = self.groups.iter().rfind(|(group, _)| matches(group));
        if last.is_some_and(|(_, frozen)| *frozen) {
            param.set_require_grad(false)
        } else {
            param
        }
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

    /// Which parameters are trained, by path.
    #[derive(Default)]
    struct Trained {
        path: Vec<String>,
        trained: Vec<(String, bool)>,
    }

    impl ModuleVisitor for Trained {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_string());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let trained = param.val().is_require_grad();
            self.trained.push((self.path.join("."), trained));
        }
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
            groups: Vec::new(),
        }
    }

    fn of_paths(paths: &str) -> GroupConfig {
        GroupConfig {
            paths: paths.to_string(),
            learning_rate: None,
            weight_decay: None,
            frozen: false,
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
    fn groups_have_rates_and_decays_of_their_own_and_the_last_counts() {
        let mut config = config();
        config.groups = vec![
            GroupConfig {
                learning_rate: Some(0.05),
                weight_decay: Some(1.0),
                ..of_paths(r"^image\.")
            },
            GroupConfig {
                weight_decay: Some(0.0),
                ..of_paths(r"^image\.transformer\.")
            },
        ];
        config.check().unwrap();
        let model = model().map(&mut Ones);
        let gradients = constant_gradients(&model, 0.0);
        // Half of the way down the schedule.
        let rates = config.learning_rates(|peak| peak / 2.0);
        assert_eq!(rates.base(), 0.25);
        let model = config.init().step(rates, model, gradients);
        let all = values(&model);
        let value = |path: &str| {
            let found = all.iter().find(|(name, _)| name == path);
            found.unwrap().1.iter::<f32>().next().unwrap()
        };
        for (path, expected) in [
            ("text.tokens.weight", 1.0 - 0.25 * 0.5),
            ("image.patches.weight", 1.0 - 0.025 * 1.0),
            ("image.pre_norm.gamma", 1.0),
            ("image.transformer.layers.0.mha.query.weight", 1.0),
        ] {
            let found = value(path);
            assert!(
                (found - expected).abs() < 1e-6,
                "{path}: {found}, not {expected}"
            );
        }
    }

    #[test]
    fn frozen_parameters_require_no_gradient_and_a_later_group_thaws_some() {
        let mut config = config();
        config.groups = vec![
            GroupConfig {
                frozen: true,
                ..of_paths(r"^text\.")
            },
            of_paths(r"^text\.post_norm\."),
        ];
        let model = config.freeze(model());
        let mut visitor = Trained::default();
        model.visit(&mut visitor);
        for (path, trained) in visitor.trained {
            let frozen = path.starts_with("text.") && !path.starts_with("text.post_norm.");
            assert_eq!(trained, !frozen, "{path}");
        }
    }

    #[test]
    fn groups_out_of_range_are_refused_by_name() {
        for (group, expected) in [
            (
                of_paths("(image"),
                "optimizer.groups[1].paths = \"(image\" is no regular",
            ),
            (
                GroupConfig {
                    learning_rate: Some(-1.0),
                    ..of_paths("image")
                },
                "optimizer.groups[1].learning_rate = -1 must be positive",
            ),
            (
                GroupConfig {
                    weight_decay: Some(f32::NAN),
                    ..of_paths("image")
                },
                "optimizer.groups[1].weight_decay = NaN must be at least 0",
            ),
        ] {
            let mut config = config();
            config.groups = vec![of_paths("text"), group];
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
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
