//! Every figure of the page is one that `metrics.json` holds, in one style.

use std::fs;

use serde_json::{Value, json};

use super::shown::{elements, numbers, numbers_have_one_style, section, shows, text};
use super::{Curve, Metrics, RunReport, sample};

/// The two files of a run.
pub fn written(run: &RunReport) -> (String, Value) {
    let directory = tempfile::tempdir().unwrap();
    run.write(directory.path()).unwrap();
    let read = |name| fs::read_to_string(directory.path().join(name)).unwrap();
    let metrics = serde_json::from_str(&read("metrics.json")).unwrap();
    (read("report.html"), metrics)
}

/// The page and the metrics of runs with short and with long numbers.
pub fn runs() -> [(String, Value); 2] {
    let images = tempfile::tempdir().unwrap();
    [sample::run(images.path()), sample::large(images.path())].map(|run| written(&run))
}

const ROWS: [&str; 4] = ["chance", "before", "after", "reranked"];

#[test]
fn tiles_show_the_metrics() {
    for (html, metrics) in runs() {
        let tiles = elements(&html, "<div class=\"tile\"");
        let figures = [
            "/image_to_text/recall_at_1",
            "/text_to_image/recall_at_1",
            "/r_sum",
        ];
        for (tile, figure) in tiles.iter().zip(figures) {
            let of = |row: &str| metrics["retrieval"][row].pointer(figure).unwrap();
            let times = of("after").as_f64().unwrap() / of("chance").as_f64().unwrap();
            let (_, shown) = tile.split_once("</dt>").unwrap();
            let rows = ["after", "reranked", "before", "chance"].map(of);
            shows(&text(shown), rows.into_iter().chain([&json!(times)]));
        }
    }
}

#[test]
fn tables_of_recalls_show_the_metrics() {
    for (html, metrics) in runs() {
        let retrieval = &metrics["retrieval"];
        let section = section(&html, "retrieval");
        let lead = text(elements(section, "<p")[0]);
        let (split, searched) = lead.split_once(": ").unwrap();
        assert!(split.contains(retrieval["split"].as_str().unwrap()));
        let (searched, _) = searched.split_once('.').unwrap();
        shows(searched, [&retrieval["images"], &retrieval["captions"]]);
        let (_, reranked) = lead.split_once("Reranked: ").unwrap();
        shows(reranked, [&retrieval["reranked_top"]]);

        let tables = elements(section, "<tbody");
        assert_eq!(tables.len(), 3);
        let measures = [
            "recall_at_1",
            "recall_at_5",
            "recall_at_10",
            "median_rank",
            "mean_rank",
        ];
        for (table, direction) in tables.iter().zip(["image_to_text", "text_to_image"]) {
            let rows = elements(table, "<tr");
            assert_eq!(rows.len(), measures.len());
            for (row, measure) in rows.iter().zip(measures) {
                let of = |name| &retrieval[name][direction][measure];
                shows(&text(row), ROWS.map(of));
            }
        }
        shows(&text(tables[2]), ROWS.map(|name| &retrieval[name]["r_sum"]));
    }
}

#[test]
fn curves_and_similarities_are_described_by_the_metrics() {
    for (html, metrics) in runs() {
        let captions = elements(&html, "<figcaption");
        assert_eq!(captions.len(), 18);
        let curves = &metrics["curves"];
        let ends = |curve: &Value| {
            let points = curve.as_array().unwrap();
            let [first, .., last] = points.as_slice() else {
                panic!("{points:?}")
            };
            let ends = [first, last].map(|point| [&point["value"], &point["step"]]);
            ends.concat().into_iter().cloned().collect::<Vec<_>>()
        };
        for (caption, curve) in [(0, "loss"), (4, "learning_rate"), (5, "logit_scale")] {
            let caption = captions[caption];
            let course = caption.split(" Pale").next().unwrap();
            shows(course, &ends(&curves[curve]));
        }
        for (caption, part) in [
            (1, "/losses/0"),
            (2, "/losses/1"),
            (6, "/figures/0"),
            (7, "/figures/1"),
        ] {
            let part = curves.pointer(part).unwrap();
            assert!(html.contains(part["name"].as_str().unwrap()));
            let mut expected = ends(&part["curve"]);
            if let Some(value) = part["reference"].get("value") {
                expected.push(value.clone());
            }
            let course = captions[caption].split(" Pale").next().unwrap();
            shows(course, &expected);
        }
        let typed: Metrics = serde_json::from_value(metrics.clone()).unwrap();
        let histograms = [&typed.similarities.before, &typed.similarities.after];
        for (caption, histogram) in captions[8..].iter().zip(histograms) {
            let histogram = histogram.as_ref().unwrap();
            let expected = [
                histogram.positive_mean,
                histogram.negative_mean,
                100.0 * histogram.separation().unwrap(),
            ];
            shows(caption, &expected.map(|value| json!(value)));
        }
    }
}

#[test]
fn a_spike_at_the_end_is_described_as_it_was() {
    let mut curve: Curve = (1..=200).map(|step| (step, 1.5)).collect();
    curve.points[199].value = 250.0;
    let images = tempfile::tempdir().unwrap();
    let mut run = sample::run(images.path());
    run.curves.loss = curve;
    let (html, _) = written(&run);
    assert!(html.contains("From 1.500 at step 1 to 250.0 at step 200."));
    assert!(html.contains("<strong>1 value far above the others"));
}

#[test]
fn what_was_run_shows_the_metrics() {
    for (html, metrics) in runs() {
        let facts = elements(&html, "<ul class=\"facts\"")[0];
        let fact = |noun: &str| {
            let fact = elements(facts, "<li")
                .into_iter()
                .find(|fact| fact.ends_with(noun));
            fact.unwrap_or_else(|| panic!("no {noun} in {facts}"))
        };
        shows(fact(" parameters"), [&metrics["parameters"]]);

        let rows = |table: usize| {
            let tables = elements(section(&html, "run"), "<tbody");
            let rows = elements(tables[table], "<tr");
            rows.into_iter().map(text).collect::<Vec<_>>()
        };
        let splits = metrics["dataset"]["splits"].as_array().unwrap();
        assert_eq!((rows(0).len(), splits.len()), (3, 3));
        for (row, split) in rows(0).iter().zip(splits) {
            assert!(row.contains(split["name"].as_str().unwrap()));
            shows(row, [&split["images"], &split["captions"]]);
        }
        let parts = metrics["parameters_by_part"].as_array().unwrap();
        let counts = parts.iter().map(|part| &part["count"]);
        assert_eq!(rows(1).len(), parts.len() + 1);
        for (row, count) in rows(1).iter().zip(counts.chain([&metrics["parameters"]])) {
            shows(row, [count]);
        }
        let stages = metrics["stages"].as_array().unwrap();
        let seconds = stages.iter().map(|stage| &stage["seconds"]);
        let seconds = seconds.chain([&metrics["seconds"]]);
        let durations = rows(2);
        assert_eq!(durations.len(), stages.len() + 1);
        for (row, seconds) in durations.iter().zip(seconds) {
            let (_, duration) = row.trim().split_once(' ').unwrap();
            let shown = match duration.trim().strip_suffix('s') {
                Some(decimal) if decimal.contains('.') => decimal.parse().unwrap(),
                _ => humantime::parse_duration(duration.trim())
                    .unwrap()
                    .as_secs_f64(),
            };
            assert!((shown - seconds.as_f64().unwrap()).abs() <= 0.5, "{row}");
        }
    }
}

#[test]
fn numbers_of_every_size_are_in_one_style() {
    for (html, _) in runs() {
        let all = text(&html);
        assert!(numbers(&all).len() > 100);
        numbers_have_one_style(&html);
    }
}

#[test]
fn one_of_a_kind_is_not_in_the_plural() {
    let images = tempfile::tempdir().unwrap();
    let mut run = sample::run(images.path());
    (run.retrieval.images, run.retrieval.captions) = (1, 1);
    run.parameters.drain(..2);
    run.curves.loss = (0..60).map(|step| (step, 1.0)).collect();
    run.curves.loss.points[30].value = f64::NAN;
    let html = run.to_html();
    numbers_have_one_style(&html);
    for one in [
        "1 image and 1 caption.",
        "1 parameter<",
        "1 value not finite",
    ] {
        assert!(html.contains(one), "{one}");
    }
}

#[test]
fn a_run_without_a_logit_scale_does_not_mention_it() {
    let images = tempfile::tempdir().unwrap();
    let mut run = sample::run(images.path());
    let title = ">Logit scale</h3>";
    assert!(run.to_html().contains(title));
    run.curves.logit_scale = Curve::default();
    run.parameters.retain(|part| part.part != "logit scale");
    run.facts.retain(|fact| !fact.name.contains("logit scale"));
    let (html, metrics) = written(&run);
    assert!(!html.to_lowercase().contains("logit scale"));
    assert_eq!(metrics["curves"]["logit_scale"], json!([]));
}
