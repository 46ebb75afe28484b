//! The sentences of the report. What they say of objectives follows from the runs.

use super::document::Block;
use super::measures::{
    Compared, Measure, NDCG, SUM, compared, difference, growth, over_seeds, percent, probability,
    sample,
};
use crate::compare::contenders::{ALL, BASELINE, ORACLE};
use crate::compare::figures::RELEVANT;
use crate::compare::plan::Left;
use crate::compare::results::Results;
use crate::compare::statistics::Sample;
use crate::compare::trial::Stage;
use crate::number::{counted, fixed};
use crate::report::html::duration;

/// What the papers propose for false negatives, each with the objective that does it.
const CLAIMS: [(&str, &str); 6] = [
    ("weighing them less (SRCL, as printed)", "srcl"),
    (
        "weighing them less (SRCL, as in its figures)",
        "srcl-calibrated",
    ),
    ("removing them", "false-negative-removal"),
    ("relaxing the contrast (ReCo)", "reco"),
    ("softening targets (ALBEF)", "image-text-contrastive"),
    ("knowing them (the oracle)", ORACLE),
];

/// The question, and how this was made.
pub(super) fn question(source: &str) -> Vec<Block> {
    let text = |text: &str| Block::Text(text.to_string());
    vec![
        Block::Text(format!(
            "*Written by* `compare report` *from* `{source}`*; every figure here is computed from \
             that file.*"
        )),
        text(
            "Several papers hold that contrastive learning suffers where a caption fits several \
             images of a batch, whose pairs are then negatives that are none, and that it helps \
             to weigh such negatives less, to remove them, or to relax the contrast. Generated \
             scenes know exactly which captions mean the same, so that the share of false \
             negatives in a batch can be set, and what is retrieved be judged by what it means.",
        ),
    ]
}

/// What was done.
pub(super) fn setup(results: &Results) -> Vec<Block> {
    let (protocol, training) = (&results.setup.protocol, &results.setup.training);
    let data = &training.shared.data;
    let rates: Vec<_> = protocol.rates.iter().map(|&rate| percent(rate)).collect();
    let mut points = vec![described(results)];
    points.push(format!(
        "**Rate.** {} of the {} pairs of a batch have another pair there whose caption means the \
         same; no other two pairs do. Training pairs, validation and test are the same at all \
         rates.",
        rates.join(", "),
        data.batch_size
    ));
    points.push(format!(
        "**Budget.** {} for each run: a vision transformer and a text transformer with random \
         parameters at first, the same for all objectives with the same seed, and the same \
         batches. {} of each of the eight objectives that bear on the question, {} of the others.",
        counted(training.shared.schedule.steps as u64, "step"),
        counted(protocol.seeds as u64, "run"),
        counted(protocol.fewer_seeds as u64, "run"),
    ));
    points.push(
        "**Settings.** One parameter of each objective and the learning rate are chosen by \
         validation, by the same search of six settings; never by the test images."
            .to_string(),
    );
    points.push(
        "**Teacher.** The model of `info-nce` trained on batches without false negatives, with \
         the same budget and the same pairs. It is one for all runs."
            .to_string(),
    );
    points.push(format!(
        "**Figures.** In percent but for the last three. *R@k* counts a caption's own image alone. \
         *Equal*: images and captions of the same meaning count. *Overlap*: the gain is the share \
         of attributes that agree, and {} % of them make a candidate relevant for R-precision. \
         Both are means of the two directions. *Alignment*, *uniformity* and *gap* as \
         `audit` has them.",
        fixed(100.0 * RELEVANT, 0)
    ));
    points.push(
        "**Test.** Means ± standard errors over seeds. Δ is the mean difference to `info-nce`, \
         seed by seed; p is that of the paired t-test, corrected by Holm's method for the number \
         of objectives at that rate. Bold where p < 0.05. By ranks four seeds could show nothing: \
         the smallest p of Wilcoxon's test is 0.125."
            .to_string(),
    );
    vec![Block::List(points)]
}

/// What the images are.
fn described(results: &Results) -> String {
    let (protocol, data) = (&results.setup.protocol, &results.setup.training.shared.data);
    match &data.path {
        None => format!(
            "**Data.** {} scenes of two or three objects, of which {} share their meaning (layout, \
             and size, colour and shape of each object) with one or two others; {} for test, {} \
             for validation, the others to train on, and no meaning in two of these. Five captions \
             an image. Since test images share meanings too, no model that goes by meaning can \
             exceed an R@1 of about {} %.",
            counted(data.scenes.train as u64, "scene").trim_end_matches(" scenes"),
            percent(data.scenes.repeated),
            protocol.test,
            protocol.validation,
            fixed(100.0 * (1.0 - 0.6 * data.scenes.repeated), 0),
        ),
        Some(path) => format!(
            "**Data.** `{}`. Captions of one image mean the same, nothing else is known of \
             meanings.",
            path.file_name().unwrap_or_default().to_string_lossy()
        ),
    }
}

/// What the runs show, and what surprises.
pub(super) fn found(results: &Results) -> Vec<Block> {
    let mut blocks = vec![progress(results)];
    blocks.extend(claims(results));
    let surprises = surprises(results);
    if !surprises.is_empty() {
        blocks.push(Block::Text("What was not expected:".to_string()));
        blocks.push(Block::List(surprises));
    }
    blocks
}

fn progress(results: &Results) -> Block {
    let left = Left::of(results, |_| true).count();
    let done = results.runs.len();
    let seconds: f64 = results.runs.iter().map(|run| run.seconds).sum();
    let time = duration(seconds).unwrap_or_default();
    let compared = |stage| {
        let of = results.runs.iter().filter(|run| run.trial.stage == stage);
        of.count()
    };
    let state = match left {
        0 => "All runs are done".to_string(),
        left => format!("**{done} of {} runs are done**", done + left),
    };
    Block::Text(format!(
        "{state}: {} to choose settings and {} to be compared. One after the other they would have \
         taken {time} on that machine.",
        compared(Stage::Search),
        compared(Stage::Compare)
    ))
}

/// The papers' ways at each rate, and whether they gain with it.
fn claims(results: &Results) -> Vec<Block> {
    let rates = &results.setup.protocol.rates;
    let ends = [rates[0], rates[rates.len() - 1]];
    let names = CLAIMS.map(|(_, name)| name);
    let mut blocks = Vec::new();
    for measure in [SUM, NDCG] {
        let growth = growth(results, &names, ends, measure);
        let at: Vec<_> = rates
            .iter()
            .map(|&rate| compared(results, rate, measure))
            .collect();
        let rows = CLAIMS.iter().zip(&growth).map(|((claim, name), growth)| {
            let place = ALL.iter().position(|one| one.name == *name);
            let place = place.expect("one of all");
            let mut cells = vec![format!("{claim}: `{name}`")];
            let differences = at.iter().map(|all| all[place].as_ref());
            cells.extend(differences.map(|one| difference(one, measure.decimals)));
            cells.push(difference(growth.as_ref(), measure.decimals));
            cells.push(probability(growth.as_ref()));
            cells
        });
        let mut columns = vec![format!("{}: difference to `info-nce`", measure.name)];
        columns.extend(rates.iter().map(|&rate| percent(rate)));
        columns.extend([
            format!("{} less {}", percent(ends[1]), percent(ends[0])),
            "p".into(),
        ]);
        blocks.push(Block::Table {
            columns,
            rows: rows.collect(),
        });
        blocks.push(verdict(measure, &growth, ends));
    }
    blocks
}

/// Whether the claim, that it helps *where* negatives are false, is shown.
fn verdict(measure: Measure, growth: &[Option<Compared>], ends: [f64; 2]) -> Block {
    if growth.iter().flatten().all(|one| one.adjusted.is_none()) {
        let name = measure.name;
        return Block::Text(format!(
            "By {name}, nothing can be tested yet: that needs two seeds."
        ));
    }
    let named = |is: &dyn Fn(&Compared) -> bool| {
        let each = CLAIMS.iter().zip(growth);
        let of = each.filter(|(_, growth)| growth.as_ref().is_some_and(is));
        let names: Vec<_> = of.map(|((_, name), _)| format!("`{name}`")).collect();
        names.join(", ")
    };
    let (helps, harms) = (
        named(&|one| one.is_shown() && one.difference.mean > 0.0),
        named(&|one| one.is_shown() && one.difference.mean < 0.0),
    );
    let open = named(&|one| !one.is_shown());
    let [first, last] = ends.map(percent);
    let mut text = format!("By {}, ", measure.name);
    text += &if helps.is_empty() {
        format!("no way is shown to gain on `info-nce` from {first} to {last}")
    } else {
        format!("these are shown to gain on `info-nce` from {first} to {last}: {helps}")
    };
    if !harms.is_empty() {
        text += &format!("; these are shown to lose: {harms}");
    }
    if !open.is_empty() {
        text += &format!(". Neither is shown of {open}");
    }
    Block::Text(text + ".")
}

fn surprises(results: &Results) -> Vec<String> {
    let rates = &results.setup.protocol.rates;
    let ends = [rates[0], rates[rates.len() - 1]];
    let mut found = Vec::new();
    found.extend(
        [SUM, NDCG]
            .into_iter()
            .filter_map(|measure| harm(results, ends, measure)),
    );
    let last = compared(results, ends[1], SUM);
    let of = |name: &str| {
        let place = ALL.iter().position(|one| one.name == name)?;
        last[place]
    };
    if let Some(oracle) = of(ORACLE)
        && oracle.adjusted.is_some()
        && !(oracle.is_shown() && oracle.difference.mean > 0.0)
    {
        found.push(format!(
            "Even the objective that knows the false negatives, `{ORACLE}`, is not shown to be \
             above `{BASELINE}` by R@sum at {} ({}).",
            percent(ends[1]),
            difference(Some(&oracle), 1)
        ));
    }
    let above = above_oracle(results, ends[1]);
    if !above.is_empty() {
        found.push(format!(
            "Above the oracle by the mean R@sum at {}: {}.",
            percent(ends[1]),
            above.join(", ")
        ));
    }
    found.extend(at_every_rate(results, "below", |mean| mean < 0.0));
    found.extend(at_every_rate(results, "above", |mean| mean > 0.0));
    found
}

/// What false negatives do to the baseline, if not what everybody expects.
fn harm(results: &Results, [first, last]: [f64; 2], measure: Measure) -> Option<String> {
    let of = |rate| sample(results, BASELINE, rate, measure);
    let change = over_seeds(&of(last), &of(first));
    let nothing = Sample {
        values: change.values.iter().map(|(seed, _)| (*seed, 0.0)).collect(),
    };
    let difference = change.difference(&nothing)?;
    // One seed surprises nobody.
    let is_shown = difference.p? < 0.05;
    if is_shown && difference.mean < 0.0 {
        return None;
    }
    let error = difference
        .error
        .map_or(String::new(), |error| format!(" ± {}", fixed(error, 1)));
    let mean = fixed(difference.mean, 1).replace('-', "−");
    let verb = if is_shown {
        "gains"
    } else {
        "is not shown to lose"
    };
    Some(format!(
        "`{BASELINE}` {verb} by {} as the rate goes from {} to {}: {mean}{error} ({}).",
        measure.name,
        percent(first),
        percent(last),
        counted(difference.pairs as u64, "seed"),
    ))
}

fn above_oracle(results: &Results, rate: f64) -> Vec<String> {
    let oracle = sample(results, ORACLE, rate, SUM);
    if oracle.error().is_none() {
        return Vec::new();
    }
    let oracle = oracle.mean();
    let above = ALL.iter().filter(|one| one.name != ORACLE);
    above
        .filter(|one| sample(results, one.name, rate, SUM).mean() > oracle)
        .map(|one| format!("`{}`", one.name))
        .collect()
}

/// The objectives that are shown to be on one side of the baseline at every rate.
fn at_every_rate(results: &Results, side: &str, is: fn(f64) -> bool) -> Option<String> {
    let rates = &results.setup.protocol.rates;
    let all: Vec<_> = rates
        .iter()
        .map(|&rate| compared(results, rate, SUM))
        .collect();
    let places = (0..ALL.len()).filter(|&place| {
        let mut each = all.iter().map(|compared| compared[place]);
        each.all(|one| one.is_some_and(|one| one.is_shown() && is(one.difference.mean)))
    });
    let names: Vec<_> = places
        .map(|place| format!("`{}`", ALL[place].name))
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "Shown to be {side} `{BASELINE}` by R@sum at every rate: {}.",
            names.join(", ")
        )
    })
}

/// What this cannot show.
pub(super) fn limits(results: &Results) -> Vec<Block> {
    let protocol = &results.setup.protocol;
    let mut points = vec![
        format!(
            "Anything about photographs. {}",
            match results.setup.training.shared.data.path {
                None =>
                    "Scenes have few attributes and exact ones; a photograph's caption fits \
                         others more or less, which an overlap of attributes only imitates.",
                Some(_) => "What is true of these data need not be of others.",
            }
        ),
        format!(
            "Anything about large batches. With {} pairs a batch, a pair has one false negative \
             (rarely two) among its negatives, at any rate: the rate says how many pairs have one.",
            results.setup.training.shared.data.batch_size
        ),
        "Anything about long trainings: models are small and stop learning by their schedule, \
         not by themselves."
            .to_string(),
        format!(
            "Small differences. With {} only those are shown that exceed several times their \
             standard error, with {} next to none: \"not shown\" is not \"equal\".",
            counted(protocol.seeds as u64, "seed"),
            counted(protocol.fewer_seeds as u64, "seed")
        ),
        "The best of each objective: six settings are few, and at the end of what was tried a \
         better one may lie beyond. They are chosen at one rate, with one seed."
            .to_string(),
        "The spread of teachers: there is one. It was trained without false negatives, which who \
         has them cannot do; that favours the objectives that read it."
            .to_string(),
        "`info-cmr` has noise and no synthesised hard negatives here; `image-text-contrastive` \
         has a momentum encoder and no queue."
            .to_string(),
    ];
    if results.setup.training.shared.data.path.is_some() {
        points.push(
            "Retrieval by meaning: false negatives are only known among captions of one image."
                .to_string(),
        );
    }
    vec![Block::List(points)]
}
