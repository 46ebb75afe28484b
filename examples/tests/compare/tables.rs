//! The tables of a report, computed again from the figures and looks of the runs.

use burn_contrastive_examples::compare::contenders::{ALL, BASELINE};
use burn_contrastive_examples::compare::probe::Look;
use burn_contrastive_examples::compare::results::Results;

use super::least_squares::{Difference, differences, holm};
use super::whole::Found;

const RATES: [&str; 2] = ["0 %", "60 %"];

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

/// R@sum and nDCG: the place in the list.
const TESTED: [usize; 2] = [2, 3];

/// Checks all tables of figures, and those of weights.
pub fn are_those_of(found: &Found, results: &Results, text: &str) {
    for rate in RATES {
        let mut rows = tables(text, &format!("## At a rate of {rate}\n")).remove(0);
        let chance = rows.pop().unwrap();
        assert_eq!(chance[0], "a random order");
        let images = results.setup.protocol.test;
        let of_chance: f64 = chance[3].parse().unwrap();
        assert!((of_chance - 100.0 / images as f64).abs() < 0.5);
        assert_eq!(rows.len(), ALL.len());
        let sums = rows.iter().map(|row| row[4].split(' ').next().unwrap());
        let sums: Vec<f64> = sums.map(|sum| sum.parse().unwrap()).collect();
        assert!(sums.is_sorted_by(|a, b| a >= b), "{sums:?}");
        for row in &rows {
            row_is_right(found, rate, row);
        }
    }
    let over_rates = tables(text, "## Over the rates\n");
    let shown = tables(text, "## What is shown\n");
    for (place, figure) in TESTED.into_iter().enumerate() {
        for row in &over_rates[place] {
            over_rates_is_right(found, figure, row);
        }
        assert_eq!(over_rates[place].len(), ALL.len());
        assert_eq!(shown[place].len(), 7);
        for row in &shown[place] {
            claim_is_right(found, figure, row);
        }
    }
    weights_are_right(results, text);
}

/// The cells of the tables of a section.
fn tables<'a>(text: &'a str, heading: &str) -> Vec<Vec<Vec<&'a str>>> {
    let (_, section) = text.split_once(heading).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let parts = section.split("\n\n");
    let parts = parts.filter(|part| part.contains("\n| ---"));
    let cells = |line: &'a str| line.trim_matches('|').split('|').map(str::trim).collect();
    parts
        .map(|part| part.trim().lines().skip(2).map(cells).collect())
        .collect()
}

fn name<'a>(row: &[&'a str]) -> &'a str {
    row[0].rsplit('`').nth(1).unwrap()
}

fn seeds(name: &str) -> &'static [u64] {
    let central = ALL.iter().any(|one| one.is_central && one.name == name);
    if central { &[1, 2] } else { &[1] }
}

/// A figure of the runs of an objective, by seed.
type Samples<'a> = dyn Fn(&str, u64) -> f64 + 'a;

fn at<'a>(found: &'a Found, rate: &'a str, figure: usize) -> impl Fn(&str, u64) -> f64 + 'a {
    move |name, seed| found[&(name.to_string(), rate.to_string(), seed)][figure]
}

fn values(of: &Samples, name: &str) -> Vec<f64> {
    seeds(name).iter().map(|&seed| of(name, seed)).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The mean, and with two values its standard error.
fn mean_and_error(values: &[f64]) -> Vec<f64> {
    let mut numbers = vec![mean(values)];
    numbers.extend((values.len() == 2).then(|| (values[0] - values[1]).abs() / 2.0));
    numbers
}

/// The difference to the baseline, and both p of a central one.
fn difference(of: &Samples, name: &str) -> (Difference, Option<[f64; 2]>) {
    let baseline = ALL.iter().filter(|one| one.name == BASELINE);
    let others: Vec<&str> = ALL
        .iter()
        .map(|one| one.name)
        .filter(|one| *one != BASELINE)
        .collect();
    let names: Vec<&str> = baseline
        .map(|one| one.name)
        .chain(others.iter().copied())
        .collect();
    let sample = |name: &&str| {
        let seeds = seeds(name).iter();
        seeds
            .map(|&seed| (seed, of(name, seed)))
            .collect::<Vec<_>>()
    };
    let samples: Vec<_> = names.iter().map(sample).collect();
    let found = differences(&samples);
    let tested = others
        .iter()
        .zip(&found)
        .filter(|(name, _)| seeds(name).len() == 2);
    let (tested, p): (Vec<&str>, Vec<f64>) = tested.map(|(name, one)| (*name, one.p)).unzip();
    let adjusted = holm(&p);
    let place = others.iter().position(|other| *other == name).unwrap();
    let of_tested = tested.iter().position(|other| *other == name);
    (
        found[place],
        of_tested.map(|place| [p[place], adjusted[place]]),
    )
}

/// That two cells are a difference and its p, the first bold where it is shown.
fn assert_differs(cells: &[&str], of: &Samples, name: &str) {
    if name == BASELINE {
        assert_eq!(cells[..2], ["–", "–"]);
        return;
    }
    let (own, p) = difference(of, name);
    assert_shown(cells[0], &[own.mean, own.error], 1);
    assert_eq!(
        cells[0].starts_with("**"),
        p.is_some_and(|[_, p]| p < 0.05),
        "{cells:?} {p:?}"
    );
    let Some(p) = p else {
        assert_eq!(cells[1], "–");
        return;
    };
    for (cell, p) in cells[1].split("; ").zip(p) {
        if p < 0.001 {
            assert_eq!(cell, "< 0.001");
        } else {
            assert_shown(cell, &[p], 3);
        }
    }
    assert_eq!(cells[1].split("; ").count(), 2);
}

fn row_is_right(found: &Found, rate: &str, row: &[&str]) {
    let name = name(row);
    assert_eq!(row[1], seeds(name).len().to_string());
    for (column, figure, decimals) in COLUMNS {
        let values = values(&at(found, rate, figure), name);
        assert_shown(row[column], &mean_and_error(&values), decimals);
    }
    for (column, figure) in [(5, 2), (8, 3)] {
        assert_differs(&row[column..], &at(found, rate, figure), name);
    }
}

/// The mean of the rates, and the change from the first to the last.
fn over(found: &Found, figure: usize) -> [Box<Samples<'_>>; 2] {
    let [first, last] = RATES.map(|rate| at(found, rate, figure));
    let [first_too, last_too] = RATES.map(|rate| at(found, rate, figure));
    [
        Box::new(move |name, seed| (first(name, seed) + last(name, seed)) / 2.0),
        Box::new(move |name, seed| last_too(name, seed) - first_too(name, seed)),
    ]
}

fn over_rates_is_right(found: &Found, figure: usize, row: &[&str]) {
    let name = name(row);
    for (column, of) in [1, 4].into_iter().zip(over(found, figure)) {
        assert_shown(row[column], &mean_and_error(&values(&*of, name)), 1);
        assert_differs(&row[column + 1..], &*of, name);
    }
}

fn claim_is_right(found: &Found, figure: usize, row: &[&str]) {
    let name = name(row);
    let [mean, change] = over(found, figure);
    let [first, last] = RATES.map(|rate| at(found, rate, figure));
    let all: [&Samples; 4] = [&first, &last, &*mean, &*change];
    for (cell, of) in row[1..].iter().zip(all) {
        let (own, p) = difference(of, name);
        assert_shown(cell, &[own.mean, own.error], 1);
        assert_eq!(cell.starts_with("**"), p.unwrap()[1] < 0.05);
    }
    assert_eq!(row.len(), 5);
}

/// The rows of the table of weights: all looks.
fn weights_are_right(results: &Results, text: &str) {
    type Source = (&'static str, fn(&Look) -> Option<f64>);
    let sources: [(&str, Source); 8] = [
        ("the teacher alone", ("srcl", |look| look.teacher)),
        ("weights of `srcl`", ("srcl", |look| look.weights)),
        (
            "weights of `srcl-calibrated`",
            ("srcl-calibrated", |look| look.weights),
        ),
        (
            "weights of `srcl-searched`",
            ("srcl-searched", |look| look.weights),
        ),
        (
            "weights of `false-negative-removal`",
            ("false-negative-removal", |look| look.weights),
        ),
        ("the model of `srcl` alone", ("srcl", |look| look.student)),
        (
            "the model of `info-nce` alone",
            (BASELINE, |look| look.student),
        ),
        (
            "the model of `multi-positive` alone",
            ("multi-positive", |look| look.student),
        ),
    ];
    let mut expected = Vec::new();
    for (place, (rate, shown)) in [0.0, 0.6].into_iter().zip(RATES).enumerate() {
        for (title, (contender, of)) in sources {
            let name = match title {
                "the teacher alone" if place > 0 => continue,
                "the teacher alone" => title.to_string(),
                title => format!("{title}, trained at {shown}"),
            };
            expected.push((name, means(results, contender, rate, &of), 3));
        }
    }
    let section = tables(text, "## Do weights find the false negatives?\n");
    assert_rows(&section[0], &expected);
    let mut removed = Vec::new();
    for (rate, shown) in [0.0, 0.6].into_iter().zip(RATES) {
        let share = |of_false: bool| {
            move |look: &Look| {
                let removed = look.removed?;
                let share = if of_false {
                    removed.false_negatives
                } else {
                    removed.others
                };
                Some(100.0 * share)
            }
        };
        for (what, of_false) in [("false", true), ("other", false)] {
            let means = means(results, "false-negative-removal", rate, &share(of_false));
            removed.push((format!("{what} negatives, trained at {shown}"), means, 1));
        }
    }
    assert_rows(&section[1], &removed);
}

/// The mean of both seeds at each of the two looks.
fn means(
    results: &Results,
    contender: &str,
    rate: f64,
    of: &dyn Fn(&Look) -> Option<f64>,
) -> [f64; 2] {
    [0, 1].map(|look| {
        let runs = results.runs.iter().filter(|run| {
            run.test.is_some() && run.trial.contender == contender && run.trial.rate == rate
        });
        let values: Vec<f64> = runs.map(|run| of(&run.looks[look]).unwrap()).collect();
        assert_eq!(values.len(), 2);
        mean(&values)
    })
}

fn assert_rows(rows: &[Vec<&str>], expected: &[(String, [f64; 2], i32)]) {
    assert_eq!(rows.len(), expected.len());
    for (row, (name, numbers, decimals)) in rows.iter().zip(expected) {
        assert_eq!((row[0], row.len()), (name.as_str(), 3));
        for (cell, number) in row[1..].iter().zip(numbers) {
            assert_shown(cell, &[*number], *decimals);
        }
    }
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
