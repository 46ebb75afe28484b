//! What objectives by name say of names, values and inputs that are wrong.

use burn::tensor::Device;
use burn_contrastive::objective::{Features, ObjectiveConfig};

use super::{everything, loss, read};

#[test]
#[should_panic(expected = "srcl needs `teacher_image`, which `features` has not")]
fn an_input_that_is_missing_is_named() {
    let features = everything(&Device::default());
    let features = Features::new(features.image, features.text);
    loss(&ObjectiveConfig::named("srcl").unwrap(), &features);
}

#[test]
#[should_panic(expected = "con-vse: `label_smoothing` is 2, it must lie in [0, 1]")]
fn an_extra_out_of_range_is_refused() {
    let config = read(r#"{"objective": "con-vse", "label_smoothing": 2}"#).unwrap();
    config.init(&Device::default());
}

#[test]
fn a_value_out_of_range_is_refused_under_the_name_it_was_given() {
    for (json, expected) in [
        (
            r#"{"objective": "info-nce", "lambda": 1.5}"#,
            "info-nce: `lambda` is 1.5, it must lie in [0, 1]",
        ),
        (
            r#"{"objective": "barlow-twins", "lambda": -1}"#,
            "barlow-twins: `lambda` is -1, it must be finite and at least 0",
        ),
        (
            r#"{"objective": "image-text-contrastive", "momentum_alpha": 2}"#,
            "image-text-contrastive: `momentum_alpha` is 2, it must lie in [0, 1]",
        ),
        (
            r#"{"objective": "siglip", "scale": 0}"#,
            "siglip: `scale` is 0, it must lie in [1.1754944e-38, 8.507059e37]",
        ),
        (
            r#"{"objective": "info-nce", "temperature": 1e300}"#,
            "info-nce: `temperature` is 1e300, it must lie in [1.1754944e-38, 8.507059e37]",
        ),
        (
            r#"{"objective": "srcl", "alpha": -1}"#,
            "srcl: `alpha` is -1, it must lie in [0, 1]",
        ),
        (
            r#"{"objective": "srcl", "schedule": {"alpha": {"from": 1, "to": 0, "end": 2}}}"#,
            "srcl: `schedule.alpha.end` is 2, it must lie in [0, 1]",
        ),
        (
            r#"{"objective": "srcl", "schedule": {"alpha": {"from": 7, "to": 0}}}"#,
            "srcl: `schedule.alpha.from` is 7, it must lie in [0, 1]",
        ),
        (
            r#"{"objective": "vse", "schedule": {"margin": {"from": 0, "to": -1}}}"#,
            "vse: `schedule.margin.to` is -1, it must be finite and at least 0",
        ),
        (
            r#"{"objective": "vse", "schedule": {"alpha": {"from": 1, "to": 0}}}"#,
            "vse: `schedule.alpha` is of a value that the objective does not have",
        ),
        (
            r#"{"objective": "sum", "terms": [
                {"objective": "vse"}, {"objective": "info-nce", "lambda": 3}
            ]}"#,
            "sum: `terms[1].lambda` is 3, it must lie in [0, 1]",
        ),
        (
            r#"{"objective": "sum", "terms": []}"#,
            "sum: `terms` is empty, it needs at least one objective",
        ),
    ] {
        let error = read(json).unwrap().check().unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn what_is_missing_is_named_with_the_parameter_that_would_not_need_it() {
    let features = everything(&Device::default());
    let features = Features::new(features.image, features.text);
    for (json, expected) in [
        (
            r#"{"objective": "srcl", "alpha": 0.7}"#,
            "srcl needs `teacher_image` and `teacher_text`, or `alpha` = 0",
        ),
        (
            r#"{"objective": "srcl", "weight_temperature": 0}"#,
            "srcl needs `teacher_image` and `teacher_text`, or `alpha` = 0",
        ),
        (
            r#"{"objective": "con-vse", "soft_targets": 0.5, "queue": true}"#,
            "con-vse needs `teacher_image`, `teacher_text`, `queue_image`, `queue_text`, \
             `queue_teacher_image` and `queue_teacher_text`",
        ),
        (
            r#"{"objective": "image-text-contrastive"}"#,
            "image-text-contrastive needs `momentum_image` (or `teacher_image`) and \
             `momentum_text` (or `teacher_text`)",
        ),
        (r#"{"objective": "info-cmr"}"#, "info-cmr needs `noise`"),
    ] {
        let error = read(json).unwrap().check_features(&features);
        assert_eq!(error.unwrap_err(), expected);
    }
}

#[test]
fn long_names_and_words_are_shortened_and_have_no_nearest() {
    let long = "a".repeat(100_000);
    let shown = format!("`{}…`", "a".repeat(60));
    for json in [
        format!(r#"{{"objective": "{long}"}}"#),
        format!(r#"{{"objective": "vse", "{long}": 1}}"#),
        format!(r#"{{"objective": "vse", "{long}": 1, "{long}": 1}}"#),
        format!(r#"{{"objective": "vse", "{long}": []}}"#),
    ] {
        let error = read(&json).unwrap_err();
        assert!(error.contains(&shown) && error.len() < 500, "{error}");
        assert!(!error.contains("did you mean"), "{error}");
    }
    for json in [
        format!(r#"{{"objective": "vse", "margin": "{long}"}}"#),
        format!(r#"{{"objective": "vse", "schedule": "{long}"}}"#),
        format!(r#"{{"objective": "vse", "schedule": {{"{long}": 1}}}}"#),
    ] {
        let error = read(&json).unwrap_err();
        assert!(
            error.contains("expected") || error.contains("must be"),
            "{error}"
        );
        assert!(error.len() < 600, "{error}");
    }
}

#[test]
fn what_is_of_another_type_errs_with_its_name() {
    for (json, expected) in [
        (
            r#"{"objective": "vse", "margin": "abc"}"#,
            "`margin` of `vse` is \"abc\", it must be a number",
        ),
        (
            r#"{"objective": "vse", "margin": [1]}"#,
            "`margin`: invalid type: sequence, expected a number, true, false, null or a word",
        ),
        (
            r#"{"objective": 3}"#,
            "`objective`: invalid type: integer `3`, expected a string",
        ),
        (
            r#"{"objective": "sum", "terms": 3}"#,
            "invalid type: integer `3`, expected a list of objectives for `terms`",
        ),
        (
            r#"{"objective": "sum", "terms": [{"objective": "vse"}, {"objective": "vs"}]}"#,
            "`terms[1]`: there is no objective `vs`; did you mean `vse`?",
        ),
        (
            r#"{"objective": "srcl", "schedule": {"alpha": 1}}"#,
            "`schedule`: invalid type: integer `1`, expected a schedule, such as",
        ),
        (
            r#"{"objective": "vse", "objective": "info-nce"}"#,
            "`objective` is given twice",
        ),
    ] {
        let error = read(json).unwrap_err();
        assert!(error.contains(expected), "{json}: {error}");
    }
}

#[test]
fn what_is_unknown_errs_with_the_nearest() {
    for (json, expected) in [
        (
            r#"{"objective": "infonce"}"#,
            "there is no objective `infonce`; did you mean `info-nce`?",
        ),
        (
            r#"{"objective": "zzzzzzzzz"}"#,
            "there is no objective `zzzzzzzzz`; there are info-nce, ",
        ),
        (
            r#"{"objective": "vse", "margins": 1}"#,
            "`vse` has no parameter `margins`; did you mean `margin`?",
        ),
        (
            r#"{"objective": "vse", "t": 1}"#,
            "`vse` has no parameter `t`; there are margin, reduction, precision, weight, schedule",
        ),
        (
            r#"{"objective": "vse", "margin": true}"#,
            "`margin` of `vse` is true, it must be a number",
        ),
        (
            r#"{"objective": "vse", "margin": 1, "margin": 2}"#,
            "`margin` is given twice",
        ),
        (
            r#"{"objective": "vse", "reduction": "max"}"#,
            "\"mean\" or \"sum\"",
        ),
        (
            r#"{"objective": "vse", "terms": []}"#,
            "`vse` has no parameter `terms`",
        ),
        (r#"{"objective": "sum"}"#, "`sum` needs `terms`"),
        (r#"{"objectiv": "vse"}"#, "`objectiv` is not known"),
        (r#"{}"#, "`objective` is missing"),
        (r#"3"#, "expected an objective, such as"),
    ] {
        let error = read(json).unwrap_err();
        assert!(error.contains(expected), "{json}: {error}");
    }
}

#[test]
#[should_panic(expected = "`terms` is empty")]
fn a_sum_of_nothing_is_refused() {
    read(r#"{"objective": "sum", "terms": []}"#)
        .unwrap()
        .init(&Device::default());
}
