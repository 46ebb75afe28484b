//! AdamW or Adam without decay on norms, biases and the logit scale, groups of parameters with a
//! learning rate and a decay of their own or frozen, and clipping by the global norm.

use anyhow::{Result, anyhow, ensure};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamGroup};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::lr_scheduler::LrSchedulerConfig;
use burn::optim::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrSchedulerConfig};
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams, ModuleOptimizer, Optimizer};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Paths of the parameters that never decay: norms (`gamma`, `beta`), biases, the logit scale.
pub const NO_DECAY: &str = r"(^|\.)(gamma|beta|bias)$|(^|\.)logit_scale(\.|$)";

/// AdamW, or Adam, and gradient clipping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Weight decay of all parameters but norms, biases and the logit scale.
    pub weight_decay: f32,
    /// Whether the decay is decoupled from the gradient (AdamW), or a part of it (Adam with an L2
    /// penalty, as PyTorch's `Adam` has it).
    #[serde(default = "decoupled")]
    pub decoupled: bool,
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

fn decoupled() -> bool {
    true
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
        if self.decoupled {
            return self.with_groups(|weight_decay| {
                AdamWConfig::new()
                    .with_beta_1(self.beta_1)
                    .with_beta_2(self.beta_2)
                    .with_epsilon(self.epsilon)
                    .with_weight_decay(weight_decay)
                    .build()
            });
        }
        self.with_groups(|penalty| {
            AdamConfig::new()
                .with_beta_1(self.beta_1)
                .with_beta_2(self.beta_2)
                .with_epsilon(self.epsilon)
                .with_weight_decay(Some(WeightDecayConfig::new(penalty)))
                .build()
        })
    }

    /// Optimisers of all parameters, of those of each group and of those that never decay; `build`
    /// makes one of a decay.
    fn with_groups<O: Optimizer>(&self, build: impl Fn(f32) -> O) -> ModuleOptimizer {
        let mut optimizer = ModuleOptimizer::from(build(self.weight_decay));
        for config in &self.groups {
            let decay = config.weight_decay.unwrap_or(self.weight_decay);
            optimizer = optimizer.with_group(config.group(), build(decay), None);
        }
        let no_decay = group(&[NO_DECAY]).expect("NO_DECAY is a regular expression");
        optimizer.with_group(no_decay, build(0.0), None)
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
mod tests;
