//! What must hold for the two files as a whole.

mod agreement;
mod parts;
mod sample;
pub(super) mod shown;

use std::fs;

use serde_json::Value;

use super::*;

/// Values of the attributes and style functions by which a page loads something.
fn references(html: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (opening, closing) in [
        ("src=\"", '"'),
        ("href=\"", '"'),
        ("srcset=\"", '"'),
        ("action=\"", '"'),
        ("poster=\"", '"'),
        ("url(", ')'),
        ("@import", ';'),
    ] {
        found.extend(html.split(opening).skip(1).map(|rest| {
            rest.split(closing)
                .next()
                .expect("a split has a first part")
        }));
    }
    found
}

#[test]
fn both_files_appear_and_nothing_else() {
    let images = tempfile::tempdir().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("runs/1");
    sample::run(images.path()).write(&output).unwrap();
    let mut names: Vec<_> = fs::read_dir(&output)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["metrics.json", "report.html"]);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let occupied = directory.path().join("occupied");
    fs::write(&occupied, b"").unwrap();
    let error = RunReport::default()
        .write(occupied.join("run"))
        .unwrap_err();
    assert!(error.to_string().contains("occupied"), "{error}");
}

#[test]
fn the_page_loads_nothing_from_outside() {
    let images = tempfile::tempdir().unwrap();
    let html = sample::run(images.path()).to_html();
    let references = references(&html);
    assert!(references.len() > 20, "the sample shows thumbnails");
    for reference in references {
        assert!(reference.starts_with("data:"), "{reference:.60}");
    }
    for address in ["http://", "https://"] {
        for (at, _) in html.match_indices(address) {
            assert!(html[..at].ends_with("xmlns=\""), "{}", &html[at..at + 60]);
        }
    }
    assert!(!html.contains("<script"));
}

#[test]
fn text_from_outside_cannot_become_markup() {
    let hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;";
    let images = tempfile::tempdir().unwrap();
    let mut run = sample::run(images.path());
    run.title = hostile.into();
    run.command = hostile.into();
    run.device = hostile.into();
    run.config = serde_json::json!({ hostile: hostile });
    run.dataset.name = hostile.into();
    run.retrieval.split = hostile.into();
    run.examples.text_to_image[0].caption = hostile.into();
    run.examples.text_to_image[0].results[0].image = hostile.into();
    run.examples.image_to_text[0].results[0].caption = hostile.into();
    run.curves.losses[0].name = hostile.into();
    run.curves.losses[0].reference.as_mut().unwrap().label = hostile.into();
    run.curves.figures[0].name = hostile.into();
    run.facts[0].name = hostile.into();
    run.facts[0].unit = Some(hostile.into());
    let accuracy = run.accuracy.as_mut().unwrap();
    accuracy.split = hostile.into();
    accuracy.by_kind[0].kind = hostile.into();
    let answer = &mut run.answers[0];
    for text in [
        &mut answer.question,
        &mut answer.expected,
        &mut answer.given,
    ] {
        *text = hostile.into();
    }
    answer.images[0] = hostile.into();
    let lowest = &mut run.weights.as_mut().unwrap().lowest[0];
    lowest.anchor_image = Some(hostile.into());
    lowest.anchor_text = Some(hostile.into());
    lowest.candidate_image = Some(hostile.into());
    lowest.candidate_text = Some(hostile.into());
    let sweep = &mut run.sweeps[0];
    for text in [
        &mut sweep.title,
        &mut sweep.parameter,
        &mut sweep.columns[0],
    ] {
        *text = hostile.into();
    }
    sweep.rows[1].value = hostile.into();
    sweep.baseline.as_mut().unwrap().value = hostile.into();
    let html = run.to_html();
    assert!(!html.contains("<script"));
    assert!(!html.contains("<img src=x"));
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
}

#[test]
fn every_picture_and_table_has_a_text_for_screen_readers() {
    let images = tempfile::tempdir().unwrap();
    let html = sample::run(images.path()).to_html();
    for image in html.split("<img ").skip(1) {
        let tag = image.split('>').next().unwrap();
        assert!(tag.contains("alt=\"") && !tag.contains("alt=\"\""));
    }
    let charts = html.matches("<svg ").count();
    assert_eq!(charts, 18);
    assert_eq!(
        html.matches("class=\"chart\" role=\"img\" aria-label=")
            .count(),
        charts
    );
    assert_eq!(
        html.matches("<table").count(),
        html.matches("<thead").count()
    );
    assert!(!html.contains("<th>"), "each header has a scope");
}

#[test]
fn an_empty_run_is_a_page_without_sections() {
    let html = RunReport::default().to_html();
    assert!(html.contains("<h1>Training run</h1>"));
    for absent in ["<svg", "<figure", "<img", "NaN", "Examples", "Retrieval"] {
        assert!(!html.contains(absent), "{absent}");
    }
}

#[test]
fn huge_and_non_finite_values_can_be_shown() {
    let images = tempfile::tempdir().unwrap();
    for value in [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        3e38,
        -1e300,
        f64::MAX,
    ] {
        let mut run = sample::run(images.path());
        run.curves.loss = [(0, 1.0), (1, value), (u64::MAX, 2.0)]
            .into_iter()
            .collect();
        run.curves.logit_scale = [(0, value)].into_iter().collect();
        run.curves.learning_rate = Curve::default();
        for scores in [&mut run.retrieval.before, &mut run.retrieval.after] {
            let scores = scores.as_mut().unwrap();
            scores.image_to_text.recall_at_1 = value;
            scores.text_to_image.mean_rank = value;
            scores.text_to_image.median_rank = value;
        }
        for point in &mut run.curves.validation {
            point.scores.image_to_text.recall_at_1 = value;
        }
        let after = run.similarities.after.as_mut().unwrap();
        after.positive_mean = value;
        after.negative[0] = u64::MAX;
        run.similarities.before.as_mut().unwrap().high = value;
        run.stages[0].seconds = value;
        run.parameters[0].count = u64::MAX / 2;
        run.examples.text_to_image[0].results[0].similarity = value;
        for part in run.curves.losses.iter_mut().chain(&mut run.curves.figures) {
            part.curve.points[0].value = value;
            part.reference.iter_mut().for_each(|of| of.value = value);
        }
        run.retrieval
            .reranked
            .as_mut()
            .unwrap()
            .image_to_text
            .recall_at_1 = value;
        run.facts[0].value = value;
        let accuracy = run.accuracy.as_mut().unwrap();
        (accuracy.majority, accuracy.before, accuracy.after) = (value, Some(value), value);
        let kind = &mut accuracy.by_kind[0];
        (kind.majority, kind.after) = (value, value);
        run.answers[0].confidence = value;
        let weights = run.weights.as_mut().unwrap();
        (weights.mean, weights.mean_of_known_false, weights.auc) = (value, value, Some(value));
        (weights.all[0], weights.known_false[0]) = (u64::MAX, u64::MAX);
        weights.lowest[0].weight = value;
        let sweep = &mut run.sweeps[0];
        for row in sweep.rows.iter_mut().chain(&mut sweep.baseline) {
            row.numbers[0] = value;
        }
        sweep.rows[1].numeric = Some(value);
        let html = run.to_html();
        assert!(!html.contains("NaN") && !html.contains(">inf"), "{value}");
        assert!(!html.contains(" inf") && !html.contains("-inf"), "{value}");
        assert!(html.contains("Loss"));
    }
}

#[test]
fn a_missing_image_is_a_placeholder() {
    let images = tempfile::tempdir().unwrap();
    let mut run = sample::run(images.path());
    let whole = run.to_html();
    assert!(!whole.contains("not available"));
    run.examples.text_to_image[0].results[1].image = images.path().join("gone.png");
    let html = run.to_html();
    assert_eq!(html.matches("gone.png (not available)").count(), 1);
    assert_eq!(
        html.matches("<img ").count(),
        whole.matches("<img ").count() - 1
    );
}

#[test]
fn a_long_caption_is_kept_whole() {
    let images = tempfile::tempdir().unwrap();
    let mut run = sample::run(images.path());
    let long = "a very long caption, ".repeat(5_000);
    run.examples.text_to_image[0].caption = long.clone();
    assert!(run.to_html().contains(&long));
}

#[test]
fn a_long_run_stays_a_small_page() {
    let images = tempfile::tempdir().unwrap();
    let mut run = sample::run(images.path());
    let short = run.to_html().len();
    run.curves.loss = (0..300_000)
        .map(|step| (step, 1.0 + (step as f64).sin()))
        .collect();
    assert!(run.to_html().len() < short + 50_000);
}

/// The same JSON, numbers up to the last digit: reading decimals may round them.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-14 * a.abs()
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let same = |(key, a)| b.get(key).is_some_and(|b| alike(a, b));
            a.len() == b.len() && a.iter().all(same)
        }
        _ => a == b,
    }
}

#[test]
fn metrics_come_back_as_they_were_written() {
    let images = tempfile::tempdir().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let run = sample::run(images.path());
    run.write(directory.path()).unwrap();
    let text = fs::read(directory.path().join("metrics.json")).unwrap();
    let read: Metrics = serde_json::from_slice(&text).unwrap();
    let value = |metrics: &Metrics| serde_json::to_value(metrics).unwrap();
    assert!(alike(&value(&read), &value(&Metrics::from(&run))));
}

#[test]
fn the_run_itself_can_be_stored() {
    let images = tempfile::tempdir().unwrap();
    let run = sample::run(images.path());
    let text = serde_json::to_string(&run).unwrap();
    let read: RunReport = serde_json::from_str(&text).unwrap();
    let value = |run: &RunReport| serde_json::to_value(run).unwrap();
    assert!(alike(&value(&read), &value(&run)));
    assert_eq!(
        read.examples.image_to_text[0].caption,
        run.examples.image_to_text[0].caption
    );
}

#[test]
fn metrics_hold_null_where_a_value_is_not_finite() {
    let images = tempfile::tempdir().unwrap();
    let mut run = sample::run(images.path());
    run.curves.loss = [(1, f64::NAN), (2, f64::INFINITY), (3, 0.5)]
        .into_iter()
        .collect();
    run.retrieval
        .after
        .as_mut()
        .unwrap()
        .image_to_text
        .recall_at_1 = f64::NAN;
    run.similarities.before = None;
    run.curves.losses[0].reference.as_mut().unwrap().value = f64::NAN;
    run.facts[0].value = f64::INFINITY;
    let accuracy = run.accuracy.as_mut().unwrap();
    (accuracy.before, accuracy.after) = (None, f64::NAN);
    run.answers[0].confidence = f64::NAN;
    let weights = run.weights.as_mut().unwrap();
    (weights.mean, weights.auc) = (f64::NAN, Some(f64::NAN));
    run.sweeps[0].rows[0].numbers[1] = f64::NAN;
    run.sweeps[0].baseline = None;
    let json = serde_json::to_value(Metrics::from(&run)).unwrap();
    for null in [
        "/curves/losses/0/reference/value",
        "/facts/0/value",
        "/accuracy/before",
        "/accuracy/after",
        "/answers/0/confidence",
        "/weights/mean",
        "/weights/auc",
        "/sweeps/0/rows/0/numbers/1",
        "/sweeps/0/rows/0/numeric",
        "/sweeps/0/baseline",
    ] {
        assert_eq!(json.pointer(null), Some(&Value::Null), "{null}");
    }
    let loss = |at: usize| &json["curves"]["loss"][at]["value"];
    assert!(loss(0).is_null() && loss(1).is_null());
    assert_eq!(loss(2), 0.5);
    assert!(json["retrieval"]["after"]["r_sum"].is_null());
    assert!(json["similarities"]["before"].is_null());
    let read: Metrics = serde_json::from_value(json).unwrap();
    assert!(read.curves.loss.points[0].value.is_nan());
    assert!(read.sweeps[0].rows[0].numbers[1].is_nan());
    assert_eq!(read.weights.unwrap().auc, None);
}

#[test]
fn metrics_have_the_keys_that_programs_rely_on() {
    let images = tempfile::tempdir().unwrap();
    let json = serde_json::to_value(Metrics::from(&sample::run(images.path()))).unwrap();
    let number = |path: &str| {
        let value = json
            .pointer(path)
            .unwrap_or_else(|| panic!("{path} is missing"));
        assert!(value.is_number(), "{path}");
    };
    number("/schema");
    number("/seconds");
    number("/parameters");
    number("/parameters_by_part/0/count");
    number("/stages/0/seconds");
    number("/dataset/splits/0/captions");
    number("/retrieval/images");
    for row in ["chance", "before", "after", "reranked"] {
        number(&format!("/retrieval/{row}/r_sum"));
        for direction in ["image_to_text", "text_to_image"] {
            for key in [
                "recall_at_1",
                "recall_at_5",
                "recall_at_10",
                "median_rank",
                "mean_rank",
            ] {
                number(&format!("/retrieval/{row}/{direction}/{key}"));
            }
        }
    }
    for curve in ["loss", "validation_loss", "learning_rate", "logit_scale"] {
        number(&format!("/curves/{curve}/0/step"));
        number(&format!("/curves/{curve}/0/value"));
    }
    number("/curves/validation/0/scores/image_to_text/recall_at_1");
    number("/similarities/after/low");
    number("/similarities/after/positive/0");
    number("/similarities/after/negative_mean");
    for path in [
        "/retrieval/reranked_top",
        "/curves/losses/0/curve/0/value",
        "/curves/losses/0/reference/value",
        "/curves/figures/0/curve/0/step",
        "/facts/0/value",
        "/accuracy/count",
        "/accuracy/majority",
        "/accuracy/before",
        "/accuracy/after",
        "/accuracy/by_kind/0/count",
        "/accuracy/by_kind/0/majority",
        "/accuracy/by_kind/0/after",
        "/answers/0/confidence",
        "/weights/low",
        "/weights/high",
        "/weights/all/0",
        "/weights/known_false/0",
        "/weights/mean",
        "/weights/mean_of_known_false",
        "/weights/auc",
        "/weights/lowest/0/weight",
        "/sweeps/0/rows/1/numeric",
        "/sweeps/0/rows/0/numbers/0",
        "/sweeps/0/baseline/numbers/0",
    ] {
        number(path);
    }
    assert_eq!(json["started"], "2026-09-21T14:13:20Z");
}
