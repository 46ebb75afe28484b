//! The parts that only some systems have: what the page shows of them is what `metrics.json` holds,
//! and where there is nothing, there is no trace of them.

use serde_json::{Value, json};

use super::agreement::{runs, written};
use super::shown::{elements, section, shows, text};
use super::{Curve, Metrics, NamedCurve, RunReport, Sweep, SweepRow, SweepRun, Weights, sample};

#[test]
fn accuracy_shows_the_metrics() {
    for (html, metrics) in runs() {
        let accuracy = &metrics["accuracy"];
        let tile = elements(&html, "<div class=\"tile\"")[3];
        let (name, shown) = tile.split_once("</dt>").unwrap();
        assert!(name.contains("Accuracy"));
        let figures = ["after", "before", "majority"];
        shows(&text(shown), figures.map(|figure| &accuracy[figure]));

        let section = section(&html, "accuracy");
        assert!(section.contains(accuracy["split"].as_str().unwrap()));
        let rows = elements(elements(section, "<tbody")[0], "<tr");
        let kinds = accuracy["by_kind"].as_array().unwrap();
        assert_eq!(rows.len(), kinds.len() + 1);
        for (row, of) in rows.iter().zip(kinds.iter().chain([accuracy])) {
            let kind = of["kind"].as_str().unwrap_or("all");
            assert!(row.contains(kind), "{kind}: {row}");
            shows(
                &text(row),
                ["count", "majority", "after"].map(|key| &of[key]),
            );
        }
    }
}

#[test]
fn answers_show_the_metrics_and_say_in_words_which_are_wrong() {
    for (html, metrics) in runs() {
        let section = section(&html, "answers");
        let answers = metrics["answers"].as_array().unwrap();
        let cards = elements(section, "<article");
        assert_eq!(cards.len(), answers.len());
        for (card, answer) in cards.iter().zip(answers) {
            let words = text(card);
            for key in ["question", "expected", "given"] {
                let escaped = answer[key].as_str().unwrap();
                assert!(words.contains(escaped), "{escaped}: {words}");
            }
            let verdict = if answer["is_right"] == json!(true) {
                "✓ right"
            } else {
                "✗ wrong"
            };
            assert!(words.contains(verdict), "{verdict}: {words}");
            shows(
                elements(card, "<span class=\"score\"")[0],
                [&answer["confidence"]],
            );
            let images = answer["images"].as_array().unwrap().len();
            assert_eq!(card.matches("<img ").count(), images);
        }
        assert!(section.contains("✓ right") && section.contains("✗ wrong"));
    }
}

#[test]
fn weights_show_the_metrics() {
    for (html, metrics) in runs() {
        let weights = &metrics["weights"];
        let section = section(&html, "weights");
        let total = |counts: &Value| -> u64 {
            let counts = counts.as_array().unwrap();
            counts.iter().map(|count| count.as_u64().unwrap()).sum()
        };
        let percent = 100.0 * weights["auc"].as_f64().unwrap();
        let expected = [
            weights["mean"].clone(),
            json!(total(&weights["all"])),
            weights["mean_of_known_false"].clone(),
            json!(total(&weights["known_false"])),
            json!(percent),
        ];
        shows(
            &text(elements(section, "<dl class=\"measures")[0]),
            &expected,
        );
        // What is heard in place of the chart.
        let (_, label) = section.split_once("aria-label=\"").unwrap();
        shows(label.split('"').next().unwrap(), &expected);

        let lowest = weights["lowest"].as_array().unwrap();
        let cards = elements(section, "<article");
        assert_eq!(cards.len(), lowest.len());
        for (card, example) in cards.iter().zip(lowest) {
            shows(elements(card, "<strong")[0], [&example["weight"]]);
            let known = example["is_false_negative"] == json!(true);
            assert_eq!(card.contains("✓ known to match"), known);
            assert_eq!(card.contains("not known to match"), !known);
            let texts = ["anchor_text", "candidate_text"];
            let quoted = texts.iter().find_map(|key| example[*key].as_str()).unwrap();
            assert!(card.contains(quoted), "{quoted}: {card}");
        }
    }
}

#[test]
fn tables_and_histograms_by_name_show_the_metrics() {
    for (html, metrics) in runs() {
        for (number, table) in metrics["tables"].as_array().unwrap().iter().enumerate() {
            let section = section(&html, &format!("table-{number}"));
            for key in ["title", "lead", "rows_are"] {
                assert!(section.contains(table[key].as_str().unwrap()), "{key}");
            }
            let names = elements(section, "<th scope=\"col\"");
            assert_eq!(names.len(), 1 + table["columns"].as_array().unwrap().len());
            let shown = elements(elements(section, "<tbody")[0], "<tr");
            let rows = table["rows"].as_array().unwrap();
            assert_eq!(shown.len(), rows.len());
            for (shown, row) in shown.iter().zip(rows) {
                assert!(shown.contains(row["name"].as_str().unwrap()));
                let cells = elements(shown, "<td").join(" ");
                shows(&cells, row["numbers"].as_array().unwrap());
            }
        }
        let histograms = section(&html, "by-class");
        for one in metrics["histograms"].as_array().unwrap() {
            assert!(histograms.contains(one["name"].as_str().unwrap()));
        }
        assert_eq!(histograms.matches("<svg ").count(), 1);
    }
}

#[test]
fn sweeps_show_the_metrics() {
    for (html, metrics) in runs() {
        let section = section(&html, "sweeps");
        let sweeps = metrics["sweeps"].as_array().unwrap();
        let tables = elements(section, "<table");
        assert_eq!(tables.len(), sweeps.len());
        for (table, sweep) in tables.iter().zip(sweeps) {
            let names: Vec<String> = elements(table, "<th scope=\"col\"")
                .into_iter()
                .map(text)
                .collect();
            let columns = sweep["columns"].as_array().unwrap();
            assert!(names[0].contains(sweep["parameter"].as_str().unwrap()));
            assert_eq!(names.len(), columns.len() + 1);
            let rows = sweep["rows"].as_array().unwrap();
            let baseline = Some(&sweep["baseline"]).filter(|row| !row.is_null());
            let shown = elements(elements(table, "<tbody")[0], "<tr");
            assert_eq!(shown.len(), rows.len() + usize::from(baseline.is_some()));
            for (shown, row) in shown.iter().zip(rows.iter().chain(baseline)) {
                assert!(shown.contains(row["value"].as_str().unwrap()));
                let cells = elements(shown, "<td").join(" ");
                shows(&cells, row["numbers"].as_array().unwrap());
            }
        }
        // One has a parameter that is a number: from its ends to those of its columns. The three
        // columns of the other have scales of their own.
        assert_eq!(section.matches("<svg ").count(), 4);
        let (_, label) = section.split_once("aria-label=\"").unwrap();
        let label = label.split('"').next().unwrap().replace("R@1", "");
        let [first, .., last] = &sweeps[0]["rows"].as_array().unwrap()[1..] else {
            panic!("too few rows")
        };
        let mut expected = vec![&first["numeric"], &last["numeric"]];
        for column in 0..2 {
            let rows = [first, last, &sweeps[0]["baseline"]];
            expected.extend(rows.map(|row| &row["numbers"][column]));
        }
        shows(&label, expected);
    }
}

#[test]
fn single_figures_show_the_metrics() {
    for (html, metrics) in runs() {
        let rows = elements(elements(section(&html, "run"), "<tbody")[3], "<tr");
        let facts = metrics["facts"].as_array().unwrap();
        assert_eq!(rows.len(), facts.len());
        for (row, fact) in rows.iter().zip(facts) {
            assert!(row.contains(fact["name"].as_str().unwrap()));
            shows(&text(row), [&fact["value"]]);
            assert!(row.contains(fact["unit"].as_str().unwrap_or_default()));
        }
    }
}

#[test]
fn a_row_of_several_runs_shows_mean_deviation_error_and_median() {
    let run = |name: &str, sum: f64| SweepRun {
        name: name.into(),
        numbers: vec![sum / 10.0, sum],
    };
    let runs = vec![run("con-vse-seed-0", 410.0), run("con-vse-seed-1", 400.0)];
    let several = SweepRow::of_runs("con-vse".into(), None, runs);
    let one = SweepRow::of_runs("vse".into(), None, vec![run("vse-seed-0", 300.0)]);
    let report = RunReport {
        sweeps: vec![Sweep {
            title: "Objectives".into(),
            parameter: "objective".into(),
            columns: vec!["R@1".into(), "R@sum".into()],
            rows: vec![several, one],
            baseline: None,
        }],
        ..RunReport::default()
    };
    let html = report.to_html();
    let section = section(&html, "sweeps");
    let cells: Vec<_> = elements(section, "<td").into_iter().map(text).collect();
    let shown: Vec<_> = cells.iter().map(|cell| cell.trim()).collect();
    let expected = [
        "40.50 ± 0.71 (s.e. 0.50)",
        "405.0 ± 7.1 (s.e. 5.0)",
        "con-vse-seed-1",
        "30.00",
        "300.0",
        "–",
    ];
    assert_eq!(shown, expected);
    let lead = text(elements(section, "<p class=\"lead\"")[1]);
    assert!(
        lead.contains("± the standard deviation of the runs"),
        "{lead}"
    );
    assert!(
        lead.contains("s.e., the standard error of the mean"),
        "{lead}"
    );
    // A chart a scale, with both names along the bottom and a bar for the deviation.
    assert_eq!(section.matches("<svg ").count(), 2);
    for name in ["con-vse", "vse"] {
        assert_eq!(
            section.matches(&format!(">\n{name}\n<")).count(),
            2,
            "{name}"
        );
    }
}

/// The sample without what only some systems have.
fn plain(mut run: RunReport) -> RunReport {
    run.retrieval.reranked = None;
    run.retrieval.reranked_top = None;
    run.curves.losses.clear();
    run.curves.figures.clear();
    run.facts.clear();
    run.accuracy = None;
    run.answers.clear();
    run.weights = None;
    run.sweeps.clear();
    run.tables.clear();
    run.compared.clear();
    run.histograms.clear();
    run
}

#[test]
fn a_part_without_anything_leaves_no_trace() {
    let images = tempfile::tempdir().unwrap();
    let plain = plain(sample::run(images.path()));
    let html = plain.to_html();
    let (_, body) = html.split_once("</style>").unwrap();
    for absent in [
        "Accuracy", "Answers", "eights", "Sweeps", "Figures", "eranked", "Loss:", "Dashed", "many",
        "measured", "Prec@5", "by class",
    ] {
        assert!(!body.contains(absent), "{absent}");
    }

    // Nor does one of which there is nothing to show.
    let mut blank = plain;
    let gap: Curve = [(1, f64::NAN)].into_iter().collect();
    let named = NamedCurve {
        name: "gap".into(),
        curve: gap,
        reference: Some(super::Reference {
            label: "ln N".into(),
            value: 4.0,
        }),
    };
    blank.curves.losses = vec![named.clone()];
    blank.curves.figures = vec![named];
    blank.weights = Some(Weights {
        high: 1.0,
        all: vec![0; 4],
        known_false: vec![0; 4],
        ..Weights::default()
    });
    blank.sweeps = vec![Sweep {
        title: "nothing".into(),
        columns: vec!["R@1".into()],
        ..Sweep::default()
    }];
    blank.retrieval.reranked_top = Some(16);
    assert_eq!(blank.to_html(), html);
}

#[test]
fn metrics_of_the_first_layout_are_read() {
    let images = tempfile::tempdir().unwrap();
    let run = sample::run(images.path());
    let (_, mut metrics) = written(&run);
    metrics["schema"] = json!(1);
    for (holder, keys) in [
        (
            "",
            &[
                "facts",
                "accuracy",
                "answers",
                "weights",
                "sweeps",
                "compared",
                "tables",
                "histograms",
            ][..],
        ),
        ("/retrieval", &["reranked", "reranked_top"]),
        ("/curves", &["losses", "figures"]),
    ] {
        let holder = metrics
            .pointer_mut(holder)
            .unwrap()
            .as_object_mut()
            .unwrap();
        for key in keys {
            assert!(holder.remove(*key).is_some(), "{key}");
        }
    }
    let read: Metrics = serde_json::from_value(metrics).unwrap();
    let expected = Metrics {
        schema: 1,
        ..Metrics::from(&plain(run))
    };
    let value = |metrics: &Metrics| serde_json::to_value(metrics).unwrap();
    assert!(super::alike(&value(&read), &value(&expected)));
}

#[test]
fn only_known_false_negatives_that_there_are_are_drawn() {
    let images = tempfile::tempdir().unwrap();
    let mut run = sample::run(images.path());
    let weights = run.weights.as_mut().unwrap();
    weights.known_false = vec![];
    (weights.mean_of_known_false, weights.auc) = (f64::NAN, None);
    let html = run.to_html();
    let section = section(&html, "weights");
    assert_eq!(elements(section, "<ul class=\"legend\"").len(), 1);
    assert!(section.contains("all negatives"));
    assert!(!section.contains("known false negatives") && !section.contains('–'));
    assert_eq!(section.matches("<polygon ").count(), 1);
}

#[test]
fn a_sweep_of_many_columns_has_several_charts_and_a_short_row_has_dashes() {
    let row = |at: f64, count: usize| SweepRow {
        value: at.to_string(),
        numbers: (0..count).map(|column| at + column as f64).collect(),
        numeric: Some(at),
        ..SweepRow::default()
    };
    let mut sweep = Sweep {
        title: "many".into(),
        parameter: "size".into(),
        columns: (0..6).map(|column| format!("column {column}")).collect(),
        rows: vec![row(2.0, 6), row(1.0, 5)],
        baseline: None,
    };
    let html = |sweep: &Sweep| {
        RunReport {
            sweeps: vec![sweep.clone()],
            ..RunReport::default()
        }
        .to_html()
    };
    let page = html(&sweep);
    assert_eq!(page.matches("<svg ").count(), 2);
    assert_eq!(page.matches("<td>–</td>").count(), 1);
    // By increasing size, whatever the order of the rows.
    assert!(page.contains("Over size from 1 to 2. column 0: from 1.000 to 2.000."));
    assert!(!page.contains("Dashed"));

    sweep.rows.truncate(1);
    assert_eq!(html(&sweep).matches("<svg ").count(), 0);
}

#[test]
fn a_map_shows_both_modalities_and_joins_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = sample::run(folder.path());
    run.maps.before = None;
    let html = run.to_html();
    let from = html.find("id=\"map\"").unwrap();
    let section = &html[from..from + html[from..].find("</section>").unwrap()];
    assert!(!section.contains("Before training") && section.contains("After training"));
    assert_eq!(section.matches("<circle").count(), 18);
    assert!(section.contains("9 pairs."));
    run.maps.after = None;
    assert!(!run.to_html().contains("id=\"map\""));
}
