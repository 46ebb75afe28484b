//! The HTML report.

use std::fs;

use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use super::files::{Files, everything, floats, info_nce_and_vse, random};
use super::shown::{elements, numbers_have_one_style, section, shows, text};

#[test]
fn the_report_loads_nothing_from_outside() {
    let files = Files::new(&everything(Dtype::F32).0);
    files.succeed(&["--report", "out.html"]);
    let html = fs::read_to_string(files.path("out.html")).unwrap();
    for section in [
        "Retrieval",
        "Similarities",
        "Map of the embeddings",
        "Weights of the negatives",
        "Objectives",
        "Data",
    ] {
        assert!(html.contains(&format!(">{section}</h2>")), "{section}");
    }
    assert_eq!(html.matches("<svg ").count(), 3);
    assert!(!html.contains("<script") && !html.contains("NaN"));
    let outside = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!outside.contains("http://") && !outside.contains("https://"));
}

/// The page's figures are those of `--json`.
#[test]
fn the_report_shows_what_the_results_hold() {
    let files = Files::new(&everything(Dtype::F32).0);
    let (results, _) = files.run(info_nce_and_vse(), &["--report", "out.html"]);
    let html = fs::read_to_string(files.path("out.html")).unwrap();
    numbers_have_one_style(&html);

    let retrieval = &results["retrieval"];
    let tiles = elements(&html, "<dd class=\"number\"");
    for (tile, name) in tiles.iter().zip(["i2t_r1", "t2i_r1", "rsum"]) {
        shows(&text(tile), [&retrieval[name]]);
    }
    let tables = elements(section(&html, "retrieval"), "<tbody");
    let last = |row: &str| text(elements(row, "<td").last().unwrap());
    for (table, direction) in tables.iter().zip(["i2t", "t2i"]) {
        for (row, k) in elements(table, "<tr").iter().zip([1, 5, 10]) {
            shows(&last(row), [&retrieval[format!("{direction}_r{k}")]]);
        }
    }
    shows(&last(tables[2]), [&retrieval["rsum"]]);

    let similarity = &results["similarity"];
    let measures = elements(section(&html, "similarities"), "<dl");
    let figures = text(&elements(measures[0], "<dd class=\"number\"").join(" "));
    let expected = [
        &similarity["overlap"],
        &results["alignment"],
        &results["uniformity"],
        &results["modality_gap"],
        &similarity["positive_mean"],
        &similarity["negative_mean"],
    ];
    shows(&figures, expected);
    let caption = elements(section(&html, "similarities"), "<figcaption")[0];
    let separation = json!(100.0 * separation(&similarity["histogram"]));
    shows(caption, [expected[4], expected[5], &separation]);

    let pairs = results["weights"]["pairs"].as_array().unwrap();
    let rows = elements(
        section(&html, "weights")
            .split("id=\"likely\"")
            .last()
            .unwrap(),
        "<tr",
    );
    assert_eq!(rows.len(), 1 + pairs.len());
    for (row, pair) in rows[1..].iter().zip(pairs) {
        let keys = ["image", "text", "similarity", "teacher_similarity"];
        let keys = keys.into_iter().chain(["image_to_text", "text_to_image"]);
        shows(&text(row), keys.map(|key| &pair[key]));
    }

    let rows = elements(section(&html, "objectives"), "<tr");
    assert_eq!(rows.len(), 3);
    for (row, name) in rows[1..].iter().zip(["a", "vse"]) {
        let cells: Vec<_> = elements(row, "<td").into_iter().map(text).collect();
        let found = &results["objectives"][name];
        shows(&cells[1], [&found["loss"]]);
        let (_, unit) = cells[2].trim().split_once(' ').unwrap_or(("", "s"));
        let per_second = match unit.trim() {
            "µs" => 1e6,
            "ms" => 1e3,
            _ => 1.0,
        };
        shows(
            &cells[2],
            [&json!(per_second * found["seconds"].as_f64().unwrap())],
        );
        let norms = &found["gradient_norm"];
        shows(&cells[4], [&norms["image"]]);
        shows(&cells[5], [&norms["text"]]);
    }
}

/// How often a positive is more similar than a negative, a tie counting half.
fn separation(histogram: &Value) -> f64 {
    let counts =
        |name: &str| -> Vec<f64> { serde_json::from_value(histogram[name].clone()).unwrap() };
    let (positive, negative) = (counts("positive"), counts("negative"));
    let wins = positive
        .iter()
        .enumerate()
        .map(|(bin, count)| count * (negative[..bin].iter().sum::<f64>() + 0.5 * negative[bin]));
    wins.sum::<f64>() / positive.iter().sum::<f64>() / negative.iter().sum::<f64>()
}

#[test]
fn one_pair_is_not_in_the_plural() {
    let pair = |seed| floats(Dtype::F32, &[1, 4], &random(4, seed));
    let files = Files::new(&[("image".into(), pair(1)), ("text".into(), pair(2))].into());
    files.succeed(&["--report", "out.html"]);
    let html = fs::read_to_string(files.path("out.html")).unwrap();
    numbers_have_one_style(&html);
    for one in [">1 pair<", ">1 image<", "1 image and 1 caption."] {
        assert!(html.contains(one), "{one}");
    }
}

#[test]
fn where_the_page_has_no_map_the_program_says_why() {
    let pairs = |seed| floats(Dtype::F32, &[7, 4], &random(28, seed));
    let files = Files::new(&[("image".into(), pairs(1)), ("text".into(), pairs(2))].into());
    let output = files.audit(&["--report", "out.html"]);
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = "audit: no map: of 7 pairs there is none, it needs 8";
    assert!(output.status.success() && said.contains(reason), "{said}");
    let html = fs::read_to_string(files.path("out.html")).unwrap();
    assert!(!html.contains("Map of the embeddings"));
}
