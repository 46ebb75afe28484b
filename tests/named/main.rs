//! What must hold for every objective by name.

mod errors;

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_contrastive::objective::{AnyConfig, Features, Input, ObjectiveConfig, Value};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A batch with every input there is.
fn everything(device: &Device) -> Features {
    // Not from Burn's generator: it is the process's, and other tests draw from it.
    let mut rng = StdRng::seed_from_u64(3);
    let mut values = |shape: Vec<usize>| {
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
        TensorData::new(values, shape)
    };
    let mut matrix = |rows: usize| Tensor::<2>::from_data(values(vec![rows, 4]), device);
    let labels = |labels: &[i64]| Tensor::<1, Int>::from_data(labels, device);
    let mut cube = || matrix(12).reshape([6, 2, 4]);
    let [hard_image, hard_text] = [cube(), cube()].map(Some);
    Features {
        teacher_image: Some(matrix(6)),
        teacher_text: Some(matrix(6)),
        queue_image: Some(matrix(3)),
        queue_text: Some(matrix(5)),
        queue_teacher_image: Some(matrix(3)),
        queue_teacher_text: Some(matrix(5)),
        queue_image_label: Some(labels(&[0, 9, 3])),
        queue_text_label: Some(labels(&[8, 1, 2, 3, 7])),
        momentum_image: Some(matrix(6)),
        momentum_text: Some(matrix(6)),
        noise: Some(matrix(2)),
        hard_image,
        hard_text,
        label: Some(labels(&[0, 1, 1, 2, 3, 3])),
        ..Features::new(matrix(6), matrix(6))
    }
}

fn read(json: &str) -> Result<ObjectiveConfig, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn loss(config: &ObjectiveConfig, features: &Features) -> f64 {
    let device = features.image.device();
    let loss = config.init(&device).forward(features);
    f64::from(loss.into_scalar::<f32>())
}

/// Every name but that of a sum, which has no defaults.
fn names() -> impl Iterator<Item = &'static str> {
    let names = AnyConfig::names().into_iter();
    names.filter(|&name| name != "sum")
}

#[test]
fn every_objective_is_built_and_evaluated_at_its_defaults() {
    let features = everything(&Device::default());
    for name in names() {
        let config = ObjectiveConfig::named(name).unwrap();
        assert_eq!(config.name(), name);
        assert!(config.needs().iter().all(|&input| features.has(input)));
        let loss = loss(&config, &features);
        assert!(loss.is_finite(), "{name}: {loss}");
    }
}

#[test]
fn json_has_every_parameter_and_reads_back() {
    for name in names() {
        let mut config = ObjectiveConfig::named(name).unwrap();
        let json = serde_json::to_value(&config).unwrap();
        let parameters: Vec<_> = config.parameters().iter().map(|p| p.name).collect();
        let others = 2 + usize::from(config.schedules.is_some());
        assert_eq!(
            json.as_object().unwrap().len(),
            parameters.len() + others,
            "{json}"
        );
        assert_eq!(json["objective"], name);
        assert_eq!(
            serde_json::from_value::<ObjectiveConfig>(json).unwrap(),
            config
        );
    }
}

/// Loss and the gradient by the images, in one number each.
fn evaluation(config: &ObjectiveConfig, features: &Features) -> [f64; 2] {
    let device = features.image.device().autodiff();
    let image = Tensor::<2>::from_inner(features.image.clone()).require_grad();
    let text = Tensor::<2>::from_inner(features.text.clone());
    let constants = features.clone().autodiff();
    let features = Features {
        image: image.clone(),
        text,
        ..constants
    };
    let loss = config.init(&device).forward(&features);
    let gradient = image.grad(&loss.backward()).unwrap();
    let moment = (gradient.clone() * gradient).sum();
    [loss.inner(), moment].map(|x| f64::from(x.into_scalar::<f32>()))
}

/// A parameter that reaches nothing would change nothing.
#[test]
fn every_parameter_changes_the_loss_or_its_gradient() {
    let features = everything(&Device::default());
    for name in names() {
        let mut config = ObjectiveConfig::named(name).unwrap();
        if config.get("threshold").is_some() {
            // At the default no weight of these is so small that it is removed.
            config.set("threshold", Value::Number(1.0)).unwrap();
        }
        if config.get("differentiable").is_some() {
            // The gradient through the weights is that of the model's own share.
            config.set("alpha", Value::Number(0.5)).unwrap();
        }
        let before = evaluation(&config, &features);
        let mut parameters: Vec<_> = config
            .clone()
            .parameters()
            .iter()
            .map(|p| (p.name, p.get()))
            // A permission, of which this device makes no use: see the next test.
            .filter(|(name, _)| *name != "precision")
            .collect();
        parameters.push(("weight", Value::Number(1.0)));
        for (parameter, value) in parameters {
            let words = ["mean", "sum", "negative", "left_out", "positive"];
            let others = match value {
                Value::Number(x) if x.abs() >= 1.0 => {
                    [0.7 * x, 0.1 * x].map(Value::Number).to_vec()
                }
                Value::Number(x) => [0.9 * x + 0.03, 0.5, 0.1].map(Value::Number).to_vec(),
                Value::Flag(flag) => vec![Value::Flag(!flag)],
                Value::Word(_) => words.map(|word| Value::Word(word.into())).to_vec(),
                // A teacher guides: some negative is more similar than the positive.
                Value::None => vec![Value::Number(0.0), Value::Number(2.0)],
            };
            let changes = |other: Value| {
                let mut config = config.clone();
                if config.set(parameter, other.clone()).is_err() {
                    return false;
                }
                assert!(parameter == "weight" || config.get(parameter) == Some(other));
                evaluation(&config, &features) != before
            };
            // With the flag they are needed; without it they are used where they are there.
            let is_used = config.uses().contains(&Input::HardImage)
                && parameter == "hard_negatives"
                || config.uses().contains(&Input::QueueImage) && parameter == "queue";
            // By the parameter alone nothing is removed here.
            let is_removal = name == "false-negative-removal" && parameter == "differentiable";
            let changed = others.into_iter().any(changes);
            assert!(changed || is_used || is_removal, "{name}: {parameter}");
        }
    }
}

#[test]
fn every_objective_takes_a_precision() {
    for name in names().filter(|&name| name != "sum") {
        let high = read(&format!(
            r#"{{"objective": "{name}", "precision": "high"}}"#
        ));
        let high = high.unwrap();
        assert!(format!("{high:?}").contains("precision: High }"), "{name}");
        assert_eq!(high.get("precision"), Some(Value::Word("high".into())));
        let error = read(&format!(
            r#"{{"objective": "{name}", "precision": "tf32"}}"#
        ));
        let error = error.unwrap_err().to_string();
        let words = r#""highest" or "high" or "medium""#;
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn what_a_file_says_is_what_is_built() {
    let config = read(r#"{"temperature": 0.005, "lambda": 1, "objective": "info-nce"}"#).unwrap();
    let AnyConfig::InfoNce(info_nce) = &config.kind else {
        panic!("{config:?}")
    };
    assert_eq!(info_nce.logit_scale.temperature, 0.005);
    assert_eq!(info_nce.image_to_text_weight, 1.0);
    // The range of the scale is as wide as the temperature asks.
    let mut objective = config.init(&Device::default()).clamped();
    let scale = objective.logit_scales()[0].value().into_scalar::<f32>();
    assert!((scale - 200.0).abs() < 1e-2, "{scale}");
    let siglip = read(r#"{"objective": "siglip", "scale": 4, "bias": -2.5}"#).unwrap();
    assert_eq!(siglip.get("scale"), Some(Value::Number(4.0)));
}

#[test]
fn a_weighted_sum_is_the_sum_of_its_terms() {
    let features = everything(&Device::default());
    let [info_nce, vse, sum] = [
        r#"{"objective": "info-nce"}"#,
        r#"{"objective": "vse", "margin": 0.4}"#,
        r#"{"objective": "sum", "weight": 2, "terms": [
            {"objective": "info-nce", "weight": 0.25},
            {"objective": "sum", "terms": [{"objective": "vse", "margin": 0.4, "weight": -3}]}
        ]}"#,
    ]
    .map(|json| read(json).unwrap());
    let expected = 2.0 * (0.25 * loss(&info_nce, &features) - 3.0 * loss(&vse, &features));
    assert!((loss(&sum, &features) - expected).abs() < 1e-5);
    let json = serde_json::to_string(&sum).unwrap();
    assert_eq!(read(&json).unwrap(), sum);
}

/// Its own features in place of the momentum ones and no soft targets: InfoNCE.
#[test]
fn the_momentum_contrast_takes_the_teacher_where_there_is_no_momentum_encoder() {
    let mut features = everything(&Device::default());
    (features.momentum_image, features.momentum_text) = (None, None);
    let soft = read(r#"{"objective": "image-text-contrastive", "momentum_alpha": 0}"#).unwrap();
    assert_eq!(soft.get("alpha"), Some(Value::Number(0.0)));
    let with_queue = loss(&soft, &features);
    (features.queue_image, features.queue_text) = (None, None);
    assert_ne!(loss(&soft, &features), with_queue);
    features.teacher_image = Some(features.image.clone());
    features.teacher_text = Some(features.text.clone());
    let hard = loss(&ObjectiveConfig::named("info-nce").unwrap(), &features);
    assert!((loss(&soft, &features) - hard).abs() < 1e-5);

    features.teacher_image = Some(features.image.clone().repeat_dim(1, 2));
    let error = soft.check_features(&features).unwrap_err();
    assert!(error.contains("their widths are 8 and 4"), "{error}");
    features.teacher_image = None;
    let error = soft.check_features(&features).unwrap_err();
    assert_eq!(
        error,
        "image-text-contrastive needs `momentum_image`, or `teacher_image`"
    );
}

/// The system of the SRCL paper, from a configuration file.
#[test]
fn srcl_takes_momentum_features_a_queue_and_a_teacher_at_once() {
    let features = everything(&Device::default());
    let json = r#"{"objective": "srcl", "alpha": 0.5, "momentum": true, "soft_targets": 0.4,
        "queue": true, "same_id": "left_out"}"#;
    let config = read(json).unwrap();
    use Input::*;
    let needs = [
        TeacherImage,
        TeacherText,
        MomentumImage,
        MomentumText,
        QueueImage,
        QueueText,
        QueueTeacherImage,
        QueueTeacherText,
        Label,
    ];
    assert_eq!(config.needs(), needs);
    let whole = loss(&config, &features);
    for (parameter, value) in [
        ("momentum", Value::Flag(false)),
        ("queue", Value::Flag(false)),
        ("soft_targets", Value::Number(0.0)),
        ("same_id", Value::Word("negative".into())),
    ] {
        let mut config = config.clone();
        config.set(parameter, value).unwrap();
        assert_ne!(loss(&config, &features), whole, "{parameter}");
    }
}

#[test]
fn a_reduction_of_the_directions_is_read_under_its_former_name() {
    let config = read(r#"{"objective": "con-vse", "reduction": "mean"}"#).unwrap();
    assert_eq!(config.get("directions"), Some(Value::Word("mean".into())));
}

#[test]
fn schedules_are_read_kept_and_followed() {
    let features = everything(&Device::default());
    let json = r#"{"objective": "srcl", "schedule": {"alpha": {"from": 0.8, "to": 0.2}}}"#;
    let config = read(json).unwrap();
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(read(&json).unwrap(), config);
    let objective = config.init(&features.image.device());
    let at = objective.at(0.5).forward(&features).into_scalar::<f32>();
    let half = loss(
        &read(r#"{"objective": "srcl", "alpha": 0.5}"#).unwrap(),
        &features,
    );
    assert_eq!(f64::from(at), half);
}

#[test]
fn a_sum_follows_the_schedules_of_its_terms() {
    let features = everything(&Device::default());
    let json = r#"{"objective": "sum", "weight": 2, "terms": [{"objective": "vse-plus-plus"}]}"#;
    let sum = read(json).unwrap().init(&features.image.device());
    let at = |progress| {
        sum.clone()
            .at(progress)
            .forward(&features)
            .into_scalar::<f32>()
    };
    let vse = 2.0 * loss(&ObjectiveConfig::named("vse").unwrap(), &features);
    assert!((f64::from(at(0.0)) - vse).abs() < 1e-5);
    assert!(at(1.0) < at(0.0));
}

#[test]
fn weights_of_the_model_alone_need_no_teacher() {
    let features = everything(&Device::default());
    let features = Features::new(features.image, features.text);
    let srcl = read(r#"{"objective": "srcl", "alpha": 0}"#).unwrap();
    assert_eq!(srcl.needs(), []);
    assert!(loss(&srcl, &features).is_finite());
}

#[test]
fn a_contrast_has_extras_and_no_other_objective() {
    let json = r#"{"objective": "con-vse", "guided_margin": 0.1, "label_smoothing": 0.2}"#;
    let config = read(json).unwrap();
    assert_eq!(config.needs(), [Input::TeacherImage, Input::TeacherText]);
    assert_eq!(config.extras.label_smoothing, 0.2);
    let none = read(r#"{"objective": "con-vse", "guided_margin": null}"#).unwrap();
    assert_eq!(none, ObjectiveConfig::named("con-vse").unwrap());
    for (json, expected) in [
        (
            r#"{"objective": "vse", "guided_margin": 1}"#,
            "`vse` has no parameter `guided_margin`",
        ),
        (
            r#"{"objective": "con-vse", "guided_margin": "mean"}"#,
            "must be a number or null",
        ),
        (
            r#"{"objective": "con-vse", "temperature": null}"#,
            "is none, it must be a number",
        ),
    ] {
        let error = read(json).unwrap_err();
        assert!(error.contains(expected), "{json}: {error}");
    }
}

#[test]
fn temperatures_and_scales_at_the_ends_of_their_range_are_built() {
    let features = everything(&Device::default());
    for (name, parameter) in [("info-nce", "temperature"), ("siglip", "scale")] {
        for value in [
            f64::from(f32::MIN_POSITIVE),
            1.0 / f64::from(f32::MIN_POSITIVE),
        ] {
            let mut config = ObjectiveConfig::named(name).unwrap();
            config.set(parameter, Value::Number(value)).unwrap();
            config.check().unwrap();
            loss(&config, &features);
        }
    }
}
