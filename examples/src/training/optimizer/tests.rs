use super::*;
use crate::models::{DualEncoder, DualEncoderConfig, ImageTowerConfig, Pooling};
use burn::module::ModuleMapper;
use burn::tensor::{Device, TensorData};
use burn_contrastive::objective::ObjectiveConfig;

fn model() -> DualEncoder {
    let mut config = DualEncoderConfig::tiny();
    let ImageTowerConfig::Vit(image) = &mut config.image else {
        panic!("it is a vision transformer");
    };
    image.pooling = Pooling::Token;
    (image.layers, config.text.layers) = (1, 1);
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
        decoupled: true,
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
fn decay_is_decoupled_or_a_part_of_the_gradient() {
    // A decay of 0.5 on ones, a rate of 0.5, no other gradient: AdamW takes away 0.5 · 0.5; Adam
    // divides the gradient 0.5 by its own size, and takes away 0.5 whatever the decay.
    for (decoupled, expected) in [(true, 0.75), (false, 0.5)] {
        let mut config = OptimizerConfig {
            decoupled,
            ..config()
        };
        config.groups = vec![GroupConfig {
            weight_decay: Some(0.0),
            ..of_paths(r"^image\.")
        }];
        let model = model().map(&mut Ones);
        let gradients = constant_gradients(&model, 0.0);
        let model = config.init().step(0.5, model, gradients);
        for (path, data) in values(&model) {
            let kept = path.starts_with("image.") || !path.ends_with(".weight");
            let is_ambiguous = !path.ends_with(".weight") && !path.ends_with("gamma");
            let expected = if kept { 1.0 } else { expected };
            let found = data.iter::<f32>().next().unwrap();
            assert!(
                is_ambiguous || (found - expected).abs() < 1e-4,
                "{path}: {found}, not {expected}"
            );
        }
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
