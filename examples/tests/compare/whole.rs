//! The whole at a toy size: searched, trained, reported, and every figure computed again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::f64::consts::PI;
use std::fs;
use std::path::Path;

use burn_contrastive_examples::compare::contenders::{ALL, BASELINE};
use burn_contrastive_examples::compare::data::Material;
use burn_contrastive_examples::compare::report::report;
use burn_contrastive_examples::compare::results::{Results, Run};
use burn_contrastive_examples::compare::trial::Stage;
use burn_contrastive_examples::compare::work::Comparison;

use super::{comparison, exclusively, naive, toy};

fn work(comparison: &Comparison) -> Vec<String> {
    let told = RefCell::new(Vec::new());
    comparison
        .work(|line| told.borrow_mut().push(line))
        .unwrap();
    told.into_inner()
}

fn read(folder: &Path) -> Results {
    Results::read(&folder.join("results/results.json"))
        .unwrap()
        .unwrap()
}

#[test]
fn every_figure_of_the_tables_is_that_of_the_embeddings() {
    let _alone = exclusively();
    let folder = tempfile::tempdir().unwrap();
    // A part first, then all.
    let some = comparison(folder.path(), toy(), &["info-nce", "multi-positive"]);
    assert_eq!(work(&some).len(), 2 * 6 + 2 * 2 * 2);
    let all = comparison(folder.path(), toy(), &[]);
    let (search, central, others) = (18 * 6, 8 * 2 * 2, 10 * 2);
    assert_eq!(work(&all).len(), search + 1 + central + others - 20);
    let results = read(folder.path());
    assert_eq!(results.runs.len(), search + 1 + central + others);
    assert!(results.runs.iter().all(|run| run.failure.is_none()));

    // What is done is never done again.
    let file = folder.path().join("results/results.json");
    let before = fs::read(&file).unwrap();
    assert_eq!(work(&all), [""; 0]);
    assert_eq!(fs::read(&file).unwrap(), before);
    // More seeds are more runs, and no other setup.
    let mut more = toy();
    more.protocol.fewer_seeds = 2;
    assert_eq!(work(&comparison(folder.path(), more, &["dcl"])).len(), 2);

    choices_are_the_best_by_validation(&results);
    let material = Material::open(&all.setup, folder.path()).unwrap();
    let results = Results {
        runs: results.runs.clone(),
        ..read(folder.path())
    };
    let figures = recomputed(&results, &material, folder.path());
    let markdown = folder.path().join("found.md");
    let page = folder.path().join("found.html");
    report(&results, &file, Some(&markdown), Some(&page)).unwrap();
    let text = fs::read_to_string(&markdown).unwrap();
    let page = fs::read_to_string(&page).unwrap();
    tables_are_those_of(&figures, &text);
    for number in 1..=3 {
        let name = format!("found-{number}.svg");
        assert!(text.contains(&format!("]({name})")));
        let svg = fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(svg.contains("multi-positive") || svg.contains("teacher alone"));
    }
    assert_eq!(page.matches("<svg").count(), 3);
    // The same in both.
    let cells = text.lines().filter(|line| line.starts_with("| `"));
    for cell in cells.flat_map(|line| line.split(" | ").skip(1)) {
        let cell = cell.trim_end_matches(" |").replace("**", "");
        // Code is marked up on the page.
        assert!(
            cell.contains('`') || page.contains(&cell.replace('<', "&lt;")),
            "{cell}"
        );
    }
}

fn choices_are_the_best_by_validation(results: &Results) {
    for contender in &ALL {
        let searched = results.runs.iter().filter(|run| {
            run.trial.stage == Stage::Search && run.trial.contender == contender.name
        });
        let searched: Vec<&Run> = searched.collect();
        assert_eq!(searched.len(), 6);
        let best = searched
            .iter()
            .map(|run| run.validation)
            .fold(f64::MIN, f64::max);
        let chosen = &results.chosen[contender.name];
        assert_eq!(chosen.validation, best, "{}", contender.name);
        let is_chosen = |run: &&&Run| {
            run.trial.objective == chosen.objective
                && run.trial.learning_rate == chosen.learning_rate
        };
        assert_eq!(searched.iter().find(is_chosen).unwrap().validation, best);
        // Never by the test images.
        assert!(searched.iter().all(|run| run.test.is_none()));
    }
}

/// The figures of all runs to be compared, by objective, rate and seed.
type Found = HashMap<(String, String, u64), Vec<f64>>;

/// Computes the figures again, and compares them with those of the file.
fn recomputed(results: &Results, material: &Material, folder: &Path) -> Found {
    let mut found = Found::new();
    for run in results
        .runs
        .iter()
        .filter(|run| run.trial.stage == Stage::Compare)
    {
        let trial = &run.trial;
        let name = format!("{}-{}-{}", trial.contender, trial.rate, trial.seed);
        let kept = folder.join("results/embeddings");
        let figures = naive::figures(&kept.join(format!("{name}.safetensors")), &material.test);
        let test = run.test.as_ref().unwrap();
        let overlap = test.by_overlap.unwrap();
        let of_file = [
            test.retrieval.image_to_text.recall_at_1,
            test.retrieval.text_to_image.recall_at_1,
            test.retrieval.recall_sum,
            test.by_equality.ndcg,
            test.by_equality.r_precision,
            overlap.ndcg,
            overlap.r_precision,
            test.alignment,
            test.uniformity,
            test.modality_gap,
        ];
        for (of_file, figure) in of_file.iter().zip(&figures) {
            assert!(
                (of_file - figure).abs() < 1e-4,
                "{name}: {of_file} {figure}"
            );
        }
        let looked = kept.join(format!("{name}-weights.safetensors"));
        let look = run.looks.last().unwrap();
        assert_eq!((run.looks.len(), look.step), (2, 4));
        let area = |sides, temperature| naive::area(&looked, sides, 10, temperature);
        let own = ["image", "text"];
        assert!((look.student.unwrap() - area(own, 1.0)).abs() < 1e-9);
        let temperature = match trial.contender.as_str() {
            "srcl" => Some(1.0),
            "false-negative-removal" => Some(0.3),
            "srcl-calibrated" => {
                let settings = serde_json::to_value(&trial.objective).unwrap();
                settings["weight_temperature"].as_f64()
            }
            _ => None,
        };
        // At the end, α is 0.
        assert_eq!(look.weights.is_some(), temperature.is_some());
        if let Some(temperature) = temperature {
            assert!((look.weights.unwrap() - area(own, temperature)).abs() < 1e-9);
            let teacher = area(["teacher_image", "teacher_text"], 1.0);
            assert!((look.teacher.unwrap() - teacher).abs() < 1e-9);
        }
        let rate = format!("{} %", 100.0 * trial.rate);
        found.insert((trial.contender.clone(), rate, trial.seed), figures);
    }
    found
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard error of two values, and the two-sided p of their mean by Student's t with one
/// degree of freedom.
fn error_and_p(values: &[f64]) -> (f64, f64) {
    let error = (values[0] - values[1]).abs() / 2.0;
    (error, 1.0 - 2.0 / PI * (mean(values).abs() / error).atan())
}

/// The figures of a table by their column: the place in the list, and the decimals.
const COLUMNS: [(usize, usize, i32); 10] = [
    (2, 0, 1),
    (3, 1, 1),
    (4, 2, 1),
    (7, 3, 1),
    (10, 4, 1),
    (11, 5, 1),
    (12, 6, 1),
    (13, 7, 3),
    (14, 8, 2),
    (15, 9, 3),
];

fn tables_are_those_of(found: &Found, text: &str) {
    for rate in ["0 %", "60 %"] {
        let rows = table(text, &format!("## At a rate of {rate}\n"));
        assert_eq!(rows.len(), ALL.len());
        let sums = rows.iter().map(|row| row[4].split(' ').next().unwrap());
        let sums: Vec<f64> = sums.map(|sum| sum.parse().unwrap()).collect();
        assert!(sums.is_sorted_by(|a, b| a >= b), "{sums:?}");
        let at = AtRate { found, rate };
        rows.iter().for_each(|row| at.row_is_right(row));
    }
}

/// The cells of the first table after a heading.
fn table<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, section) = text.split_once(heading).unwrap();
    let rows = section
        .lines()
        .skip_while(|line| !line.starts_with("| ---"));
    rows.skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// The figures of one rate.
struct AtRate<'a> {
    found: &'a Found,
    rate: &'a str,
}

impl AtRate<'_> {
    fn values(&self, name: &str, seeds: &[u64], figure: usize) -> Vec<f64> {
        let key = |&seed| (name.to_string(), self.rate.to_string(), seed);
        seeds
            .iter()
            .map(|seed| self.found[&key(seed)][figure])
            .collect()
    }

    /// To the baseline, seed by seed.
    fn difference(&self, name: &str, seeds: &[u64], figure: usize) -> Vec<f64> {
        let both = self.values(name, seeds, figure).into_iter();
        let both = both.zip(self.values(BASELINE, seeds, figure));
        both.map(|(own, baseline)| own - baseline).collect()
    }

    fn row_is_right(&self, row: &[&str]) {
        let name = row[0].split('`').nth(1).unwrap();
        let central = ALL.iter().any(|one| one.is_central && one.name == name);
        let seeds: &[u64] = if central { &[1, 2] } else { &[1] };
        assert_eq!(row[1], seeds.len().to_string());
        for (column, figure, decimals) in COLUMNS {
            let values = self.values(name, seeds, figure);
            let mut numbers = vec![mean(&values)];
            numbers.extend(central.then(|| error_and_p(&values).0));
            assert_shown(row[column], &numbers, decimals);
        }
        for (column, figure) in [(5, 2), (8, 3)] {
            if name == BASELINE {
                assert_eq!(row[column..column + 2], ["–", "–"]);
                continue;
            }
            let own = self.difference(name, seeds, figure);
            let mut numbers = vec![mean(&own)];
            if central {
                numbers.push(error_and_p(&own).0);
                self.p_is_right(name, figure, row[column + 1]);
            } else {
                assert_eq!(row[column + 1], "–");
            }
            assert_shown(row[column], &numbers, 1);
        }
    }

    /// Corrected for all that have two seeds.
    fn p_is_right(&self, name: &str, figure: usize, cell: &str) {
        let tested = ALL
            .iter()
            .filter(|one| one.is_central && one.name != BASELINE);
        let tested: Vec<&str> = tested.map(|one| one.name).collect();
        let p = |name: &&str| error_and_p(&self.difference(name, &[1, 2], figure)).1;
        let adjusted = holm(&tested.iter().map(p).collect::<Vec<_>>());
        let place = tested.iter().position(|other| *other == name).unwrap();
        if adjusted[place] < 0.001 {
            assert_eq!(cell, "< 0.001");
        } else {
            assert_shown(cell, &[adjusted[place]], 3);
        }
    }
}

fn holm(p: &[f64]) -> Vec<f64> {
    let smaller = |value: f64| p.iter().filter(move |other| **other <= value);
    let stepped = |value: f64| {
        // The greatest of the smaller ones, each times the number of those that are no smaller.
        let each = smaller(value).map(|other| {
            let left = p.iter().filter(|another| *another >= other).count();
            left as f64 * other
        });
        each.fold(0.0, f64::max).min(1.0)
    };
    p.iter().map(|&value| stepped(value)).collect()
}

/// That a cell has these numbers with so many decimals.
fn assert_shown(cell: &str, numbers: &[f64], decimals: i32) {
    let plain = cell.replace("**", "").replace('−', "-").replace('+', "");
    let shown: Vec<f64> = plain
        .split(" ± ")
        .map(|number| number.parse().unwrap())
        .collect();
    assert_eq!(shown.len(), numbers.len(), "{cell}: {numbers:?}");
    for (shown, number) in shown.iter().zip(numbers) {
        let tolerance = 0.5 * 0.1_f64.powi(decimals) + 1e-4;
        assert!((shown - number).abs() <= tolerance, "{cell}: {numbers:?}");
    }
}
