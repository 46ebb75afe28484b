//! The sentences about what the runs show. What they say of objectives follows from the runs.

use super::document::Block;
use super::measures::{
    Compared, LEVEL, Measure, NDCG, SUM, change, compared, compared_to, difference, fixed, listed,
    of, over_rates, percent, plain, probability, sample, tests,
};
use crate::compare::contenders::{ALL, BASELINE, ORACLE};
use crate::compare::plan::{Left, planned};
use crate::compare::results::{Made, Results, Run};
use crate::compare::statistics::Effect;
use crate::compare::trial::{Stage, Trial};
use crate::number::counted;
use crate::report::html::duration;

/// What the papers propose for false negatives, each with the objective that does it.
const CLAIMS: [(&str, &str); 7] = [
    ("weighing them less (SRCL, as printed)", "srcl"),
    (
        "weighing them less (SRCL, weights fitted to its figures)",
        "srcl-calibrated",
    ),
    (
        "weighing them less (SRCL, weights' temperature searched)",
        "srcl-searched",
    ),
    ("removing them", "false-negative-removal"),
    ("relaxing the contrast (ReCo)", "reco"),
    ("softening targets (ALBEF)", "image-text-contrastive"),
    ("knowing them (the oracle)", ORACLE),
];

/// What the runs show, and how that compares with what was expected.
pub(super) fn found(results: &Results) -> Vec<Block> {
    let mut blocks = vec![Block::Text(progress(results))];
    for measure in [SUM, NDCG] {
        blocks.extend(claims(results, measure));
    }
    blocks.push(Block::Text("Beside what would be expected:".to_string()));
    blocks.push(Block::List(expectations(results)));
    blocks
}

/// How much is done, and what it took.
fn progress(results: &Results) -> String {
    let plan = planned(results);
    let is_planned = |run: &&Run| plan.contains(&run.trial);
    let done: Vec<&Run> = results.runs.iter().filter(is_planned).collect();
    let count = |stage| {
        let of = done.iter().filter(|run| run.trial.stage == stage);
        of.count()
    };
    let state = match Left::of(results, |_| true).count() {
        0 => format!("All {} are done", counted(done.len() as u64, "run")),
        left => format!("**{} of {} runs are done**", done.len(), done.len() + left),
    };
    let seconds: f64 = results.runs.iter().map(|run| run.seconds).sum();
    let mut text = format!(
        "{state}: {} to choose settings, {} for the teacher, {} to be compared. ",
        count(Stage::Search),
        count(Stage::Teacher),
        count(Stage::Compare)
    );
    let failed = done.iter().filter(|run| run.failure.is_some()).count();
    if failed > 0 {
        text += &format!("{failed} of them failed. ");
    }
    text += &abandoned(results, &plan);
    text += &format!(
        "The runs' own times add up to {}, each side by side with another run and with other \
         programs.",
        duration(seconds).unwrap_or_default()
    );
    text + &machine(results)
}

/// The runs that the plan does not need any more.
fn abandoned(results: &Results, plan: &[Trial]) -> String {
    let others = results.runs.iter().filter(|run| !plan.contains(&run.trial));
    let others: Vec<&Run> = others.collect();
    if others.is_empty() {
        return String::new();
    }
    let names = ALL.iter().filter_map(|one| {
        let count = others
            .iter()
            .filter(|run| run.trial.contender == one.name)
            .count();
        (count > 0).then(|| format!("{count} of `{}`", one.name))
    });
    format!(
        "The file has {} more, which nothing here uses: settings that an earlier plan tried or \
         chose ({}). ",
        counted(others.len() as u64, "run"),
        listed(&names.collect::<Vec<_>>())
    )
}

/// On what the runs were made, as far as they say.
fn machine(results: &Results) -> String {
    let made: Vec<(&Run, &Made)> = results
        .runs
        .iter()
        .filter_map(|run| Some((run, run.made.as_ref()?)))
        .collect();
    let Some((_, last)) = made.last() else {
        return String::new();
    };
    let mut spans: Vec<[f64; 2]> = made
        .iter()
        .map(|(run, made)| [made.ended as f64 - run.seconds, made.ended as f64])
        .collect();
    spans.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let (mut wall, mut until) = (0.0, f64::MIN);
    for [begun, ended] in spans {
        wall += (ended - begun.max(until)).max(0.0);
        until = until.max(ended);
    }
    format!(
        " Of {} the machine was written down too: {} ({}), {} side by side; these took {} by the \
         clock.",
        counted(made.len() as u64, "run"),
        last.processor,
        counted(last.cores as u64, "core"),
        counted(last.jobs as u64, "program"),
        duration(wall).unwrap_or_default()
    )
}

/// The papers' ways at each rate, over all rates, and by how much more they gain at the last.
fn claims(results: &Results, measure: Measure) -> Vec<Block> {
    let rates = &results.setup.protocol.rates;
    let mut at: Vec<_> = rates
        .iter()
        .map(|&rate| compared(results, rate, measure))
        .collect();
    let overall = compared_to(BASELINE, |name| over_rates(results, name, measure));
    let growth = compared_to(BASELINE, |name| change(results, name, measure));
    let mut columns = vec![format!("{}: Δ", measure.name)];
    columns.extend(rates.iter().map(|&rate| percent(rate)));
    if rates.len() > 1 {
        columns.push("mean of the rates".to_string());
        columns.push(change_name(rates));
        at.extend([overall.clone(), growth.clone()]);
    }
    let rows = CLAIMS.iter().map(|(claim, name)| {
        let cells = at
            .iter()
            .map(|all| difference(of(name, all).as_ref(), measure.decimals));
        std::iter::once(format!("{claim}: `{name}`"))
            .chain(cells)
            .collect()
    });
    let rows = rows.collect();
    let last = at.get(rates.len() - 1).cloned().unwrap_or_default();
    let families = match rates.as_slice() {
        [rate] => vec![(format!("at {}", percent(*rate)), last)],
        _ => vec![
            ("in the mean of the rates".to_string(), overall),
            (format!("in the {}", change_name(rates)), growth),
        ],
    };
    let verdicts = families
        .iter()
        .map(|(family, all)| verdict(measure, family, all));
    let verdicts = verdicts.collect::<Vec<_>>().join(" ");
    vec![Block::Table { columns, rows }, Block::Text(verdicts)]
}

/// What the change from the lowest to the highest rate is called.
pub(super) fn change_name(rates: &[f64]) -> String {
    let [first, last] = [rates.first(), rates.last()].map(|rate| percent(*rate.unwrap_or(&0.0)));
    format!("change from {first} to {last}")
}

/// Which ways are shown to differ from the baseline.
fn verdict(measure: Measure, family: &str, all: &[Option<Compared>]) -> String {
    let name = measure.name;
    let each: Vec<(&str, Compared)> = CLAIMS
        .iter()
        .filter_map(|(_, name)| Some((*name, of(name, all)?)))
        .collect();
    if each.is_empty() {
        return format!(
            "By {name}, nothing can be compared {family}: that needs runs of `{BASELINE}` and of \
             another objective with the same seeds."
        );
    }
    if each.iter().all(|(_, one)| one.p.is_none()) {
        return format!("By {name}, nothing can be tested {family} yet: that needs two seeds.");
    }
    let named = |is: &dyn Fn(&Compared) -> bool| {
        let names = each.iter().filter(|(_, one)| is(one));
        names
            .map(|(name, _)| format!("`{name}`"))
            .collect::<Vec<_>>()
    };
    let gain = named(&|one| one.is_shown() && one.effect.mean > 0.0);
    let loss = named(&|one| one.is_shown() && one.effect.mean < 0.0);
    let open = named(&|one| !one.is_shown());
    let mut parts = Vec::new();
    for (names, what) in [(gain, "a gain"), (loss, "a loss")] {
        if !names.is_empty() {
            parts.push(format!("{what} is shown for {}", listed(&names)));
        }
    }
    if !open.is_empty() {
        let of = if parts.is_empty() {
            "any of them"
        } else {
            &listed(&open)
        };
        parts.push(format!("neither a gain nor a loss is shown for {of}"));
    }
    let least = each
        .iter()
        .find_map(|(_, one)| one.effect.least_shown(LEVEL / tests()));
    let least = least.map_or(String::new(), |least| {
        format!(
            " A Δ of {} or more is shown whatever the others are.",
            fixed(least, measure.decimals)
        )
    });
    format!("By {name}, {family}: {}.{least}", parts.join("; "))
}

/// An effect, what was expected of it, and what the interval says of that.
fn judged(what: &str, expected: f64, effect: Effect) -> Option<String> {
    let [low, high] = effect.interval()?;
    let judgement = match [low, high].map(|end| end * expected) {
        [low, high] if low > 0.0 && high > 0.0 => "As expected.",
        [low, high] if low < 0.0 && high < 0.0 => "**A surprise.**",
        _ => "Too noisy to say.",
    };
    Some(format!(
        "{what}: {} (95 %: {} to {}). {judgement}",
        plain(&effect, 1),
        fixed(low, 1),
        fixed(high, 1)
    ))
}

/// What would be expected, and whether the runs exclude it.
fn expectations(results: &Results) -> Vec<String> {
    let rates = &results.setup.protocol.rates;
    let last = *rates.last().expect("at least one rate");
    let mut found = Vec::new();
    for measure in [SUM, NDCG] {
        let what = format!(
            "`{BASELINE}` should lose with false negatives. Its {} in {}, seed by seed",
            change_name(rates),
            measure.name
        );
        let own = change(results, BASELINE, measure).effect();
        found.extend(own.and_then(|own| judged(&what, -1.0, own)));
    }
    for measure in [SUM, NDCG] {
        let what = format!(
            "`{ORACLE}`, which is told what is false, should be above `{BASELINE}` at {}. Its Δ in \
             {}",
            percent(last),
            measure.name
        );
        let oracle = of(ORACLE, &compared(results, last, measure));
        found.extend(oracle.and_then(|oracle| judged(&what, 1.0, oracle.effect)));
    }
    found.extend(above_oracle(results, last));
    if found.is_empty() {
        found.push("Nothing can be said yet: that needs two seeds.".to_string());
    }
    found
}

/// Whether others are shown to be above what nothing should be above.
fn above_oracle(results: &Results, rate: f64) -> Option<String> {
    let all = compared_to(ORACLE, |name| sample(results, name, rate, SUM));
    // Each with its adjusted p.
    let tested: Vec<(&str, Compared, f64)> = ALL
        .iter()
        .zip(all)
        .filter_map(|(one, compared)| {
            let [_, adjusted] = compared?.p?;
            Some((one.name, compared?, adjusted))
        })
        .collect();
    let best = tested
        .iter()
        .max_by(|a, b| a.1.effect.mean.total_cmp(&b.1.effect.mean))?;
    let above: Vec<String> = tested
        .iter()
        .filter(|(_, one, _)| one.is_shown() && one.effect.mean > 0.0)
        .map(|(name, one, _)| format!("`{name}` {}", plain(&one.effect, 1)))
        .collect();
    let what = format!(
        "Nothing should be above the oracle by R@sum at {}.",
        percent(rate)
    );
    Some(if above.is_empty() {
        format!(
            "{what} Nothing is shown to be; the most is `{}`, {} with an adjusted p of {}.",
            best.0,
            plain(&best.1.effect, 1),
            probability(best.2)
        )
    } else {
        format!(
            "{what} Shown to be above it: {}. **A surprise.**",
            listed(&above)
        )
    })
}
