//! The whole at a toy size: searched, trained, reported, and every figure computed again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use burn_contrastive_examples::compare::contenders::ALL;
use burn_contrastive_examples::compare::data::Material;
use burn_contrastive_examples::compare::report::report;
use burn_contrastive_examples::compare::results::{Results, Run};
use burn_contrastive_examples::compare::trial::Stage;
use burn_contrastive_examples::compare::work::Comparison;

use super::{comparison, exclusively, naive, tables, toy};

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
    let of_some = work(&some).len();
    let searched = |results: &Results, names: &[&str]| -> usize {
        let tried = names.iter().map(|name| results.chosen[*name].tried.len());
        tried.sum::<usize>() * 2
    };
    let searched_of_some = searched(&read(folder.path()), &["info-nce", "multi-positive"]);
    assert_eq!(of_some, searched_of_some + 2 * 2 * 2);
    let all = comparison(folder.path(), toy(), &[]);
    let of_all = work(&all).len();
    let results = read(folder.path());
    let search = searched(&results, &ALL.map(|one| one.name));
    let (central, others) = (9 * 2 * 2, 10 * 2);
    assert_eq!(of_all, search + 1 + central + others - of_some);
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

    choices_follow_the_rule(&results);
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
    tables::are_those_of(&figures, &results, &text);
    odd_results_are_reported(&results, folder.path());
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

/// Three values with both learning rates; where the best is at an end one more beyond it; the best
/// of all by validation.
fn choices_follow_the_rule(results: &Results) {
    let mut beyond = 0;
    for contender in &ALL {
        let searched = results.runs.iter().filter(|run| {
            run.trial.stage == Stage::Search && run.trial.contender == contender.name
        });
        let searched: Vec<&Run> = searched.collect();
        let value = |run: &Run| {
            let settings = serde_json::to_value(&run.trial.objective).unwrap();
            settings[contender.parameter()].as_f64().unwrap()
        };
        let best = |runs: &[&Run]| {
            let validations = runs.iter().map(|run| run.validation);
            validations.fold(f64::MIN, f64::max)
        };
        let planned = contender.values();
        let (first, more): (Vec<&Run>, Vec<&Run>) = searched
            .iter()
            .partition(|run| planned.contains(&value(run)));
        assert_eq!(first.len(), 6, "{}", contender.name);
        // Of equal ones the first in the order of the values, then of the learning rates.
        let is_best = |run: &&Run| run.validation == best(&first);
        let found = planned.iter().find(|planned| {
            first
                .iter()
                .any(|run| is_best(run) && value(run) == **planned)
        });
        let end = [planned[0], planned[2]].contains(found.unwrap());
        assert_eq!(more.len(), if end { 2 } else { 0 }, "{}", contender.name);
        beyond += more.len();
        for run in more {
            let is_outside = value(run) < planned[0] || value(run) > planned[2];
            assert!(is_outside, "{}", contender.name);
        }
        let chosen = &results.chosen[contender.name];
        assert_eq!(chosen.validation, best(&searched), "{}", contender.name);
        let mut tried: Vec<f64> = searched.iter().map(|run| value(run)).collect();
        tried.sort_by(f64::total_cmp);
        tried.dedup();
        assert_eq!(
            (&chosen.tried, chosen.parameter.as_str()),
            (&tried, contender.parameter())
        );
        let is_chosen = |run: &&&Run| {
            run.trial.objective == chosen.objective
                && run.trial.learning_rate == chosen.learning_rate
        };
        assert_eq!(
            searched.iter().find(is_chosen).unwrap().validation,
            chosen.validation
        );
        // Never by the test images.
        assert!(searched.iter().all(|run| run.test.is_none()));
    }
    // Both happen.
    assert!(beyond > 0 && beyond < 2 * ALL.len());
}

/// The figures of all runs to be compared, by objective, rate and seed.
pub type Found = HashMap<(String, String, u64), Vec<f64>>;

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
            "srcl-calibrated" | "false-negative-removal" => Some(0.3),
            "srcl-searched" => {
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
        assert_eq!(
            look.removed.is_some(),
            trial.contender == "false-negative-removal"
        );
        if let Some(removed) = look.removed {
            let settings = serde_json::to_value(&trial.objective).unwrap();
            let threshold = settings["threshold"].as_f64().unwrap();
            let [of_false, of_others] = naive::removed(&looked, 10, 0.3, threshold);
            assert!((removed.false_negatives - of_false).abs() < 1e-9);
            assert!((removed.others - of_others).abs() < 1e-9);
        }
        let rate = format!("{} %", 100.0 * trial.rate);
        found.insert((trial.contender.clone(), rate, trial.seed), figures);
    }
    found
}

/// One rate, no baseline, figures that are no numbers: said, and nothing twice.
fn odd_results_are_reported(results: &Results, folder: &Path) {
    let file = folder.join("results/results.json");
    let text = |results: &Results| {
        let markdown = folder.join("odd.md");
        report(results, &file, Some(&markdown), None).unwrap();
        fs::read_to_string(&markdown).unwrap()
    };
    let mut one = results.clone();
    one.setup.protocol.rates = vec![0.6];
    let one = text(&one);
    assert_eq!(one.matches("## At a rate of ").count(), 1);
    assert!(
        !one.contains("change from") && !one.contains("Over the rates"),
        "{one}"
    );
    assert_eq!(one.matches("weights of `srcl`, trained at 60 %").count(), 1);

    let mut alone = results.clone();
    alone.runs.retain(|run| run.trial.contender == "dcl");
    let alone = text(&alone);
    assert!(
        alone.contains("that needs runs of `info-nce` and of another objective"),
        "{alone}"
    );

    let mut odd = results.clone();
    let is_odd = |run: &&mut Run| run.test.is_some() && run.trial.contender == "vse";
    let run = odd.runs.iter_mut().find(is_odd).unwrap();
    run.test.as_mut().unwrap().alignment = f64::NAN;
    let odd = text(&odd);
    assert!(
        odd.contains("Not finite, and in no mean: alignment of `vse`, seed 1."),
        "{odd}"
    );
}
